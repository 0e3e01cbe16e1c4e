"""Tests that may be looked at after every record, for ever, and still keep their promise.

Each returns the natural logarithm of an e-process: evidence that starts at 1 and whose expectation under "nothing
has changed" is at most 1 at every stopping time. Reaching 1/alpha even once is then at most alpha likely (Ville
1939), however often somebody looks. Logarithms are natural throughout; `ln 20` is the alarm line for alpha = 0.05.

The records are taken to be independent given their law. Copies of one record (a client that retries in a loop) count
as evidence; a rhythm that the reference doesn't hold (weekends) is a change like any other.

One page for each kind of evidence: `counts` (numbers, categories, texts), `restarts` (the same, when a change comes
late), `scores` (a mean against a floor), `blocks`
(failures of two or more groups), `paired` (two models on the same rows), `many` (several monitors at once).
"""

from noria.evaluation.sequential.blocks import GROUP_PRUDENCE, PRUDENCE, log_e_block, log_e_groups
from noria.evaluation.sequential.counts import CELL_CONCENTRATIONS, CONCENTRATIONS, TILTS, log_e_path, log_e_two_sample
from noria.evaluation.sequential.many import e_bh, log_threshold
from noria.evaluation.sequential.paired import Bounds, NonInferiority, non_inferiority
from noria.evaluation.sequential.restarts import (
    LATEST,
    Starts,
    log_e_since,
    log_e_since_path,
    log_e_stretches,
    started,
)
from noria.evaluation.sequential.scores import (
    SCORE_STEPS,
    STAKES,
    bet,
    bet_counts,
    detect_counts,
    log_detector,
    log_e_bets,
    no_bets,
)

__all__ = [
    "CELL_CONCENTRATIONS",
    "CONCENTRATIONS",
    "GROUP_PRUDENCE",
    "LATEST",
    "PRUDENCE",
    "SCORE_STEPS",
    "STAKES",
    "TILTS",
    "Bounds",
    "NonInferiority",
    "Starts",
    "bet",
    "bet_counts",
    "detect_counts",
    "e_bh",
    "log_detector",
    "log_e_bets",
    "log_e_block",
    "log_e_groups",
    "log_e_path",
    "log_e_since",
    "log_e_since_path",
    "log_e_stretches",
    "log_e_two_sample",
    "log_threshold",
    "no_bets",
    "non_inferiority",
    "started",
]
