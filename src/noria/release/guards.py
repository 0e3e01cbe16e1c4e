"""What a candidate is watched for, each against the champion: failures, slowness, refusals, stopped and bad answers.

All are streams of bad and good, so one test does for all (STATISTICS 5): evidence of blocks, which adds up and may be
looked at after every record. Several tests share alpha, so each of them has to be surer.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from math import log

import numpy as np
import pyarrow.compute as pc

from noria.domain.endpoint import Role
from noria.domain.inference import OutcomeKind
from noria.domain.rollout import Arm, Rollout
from noria.evaluation.sequential import log_e_block
from noria.ports import RecordStore
from noria.release.watched import GUARDS
from noria.settings import Endpoint, RolloutPlan, Task

BLOCK = 10
"""Requests (or labels) that each version has to show before a block is weighed: less would leave one side empty."""
QUANTILE = 0.95
"""Of the champion's times: what takes much longer than so many of them is slow."""
LEAST_SLOWER_MS = 50.0
"""Less than this beyond the champion's quantile is never slow: no caller notices, and a busy machine does it to any."""
LEAST_TIMES = 50
"""The champion's answers that it takes to know its quantile."""
_LOOK_BACK = (timedelta(minutes=10), timedelta(days=1))
_TIMES = [
    "request_time", "execution_duration_ms", "model_name", "model_version", "route", "outcome", "cache_hit",
]  # fmt: skip


def guards_of(endpoint: Endpoint) -> tuple[str, ...]:
    """What candidates of an endpoint are watched for: a classifier declines nothing."""
    wanted = endpoint.rollout.guards
    return tuple(name for name in wanted if name != "refusals" or endpoint.task is Task.CHAT)


def threshold(guards: int, alpha: float) -> float:
    """ln evidence at which a candidate is rolled back, so that all guards together err with probability alpha."""
    return log(max(guards, 1) / alpha)


def weigh(rollout: Rollout, champion: Arm, candidate: Arm, least: int) -> Rollout:
    """The rollout with the evidence of all blocks that are full.

    Args:
        rollout: As it was, with what the evidence holds already.
        champion: Everything that was seen of it in this stage.
        candidate: Likewise.
        least: How much of each version fills a block.
    """
    weighed, log_e = dict(rollout.weighed), dict(rollout.log_e)
    for name in rollout.guards:
        guard = GUARDS[name]
        a, b = guard.look(champion), guard.look(candidate)
        bad_a, all_a, bad_b, all_b = weighed.get(name, (0, 0, 0, 0))
        block_a, block_b = (a[0] - bad_a, a[1] - all_a), (b[0] - bad_b, b[1] - all_b)
        if min(block_a[1], block_b[1]) < least:
            continue
        past = rollout.past.get(name, (0, 0, 0, 0))
        known_a, known_b = (past[0] + bad_a, past[1] + all_a), (past[2] + bad_b, past[3] + all_b)
        log_e[name] = log_e.get(name, 0.0) + log_e_block(block_a, block_b, known_a, known_b)
        weighed[name] = (*a, *b)
    return replace(rollout, champion=champion, candidate=candidate, weighed=weighed, log_e=log_e)


def worse(rollout: Rollout) -> str:
    """The guard whose evidence against the candidate is enough; empty for none."""
    return next((name for name in rollout.guards if rollout.log_e.get(name, 0.0) >= rollout.log_threshold), "")


def slow_limit(store: RecordStore, endpoint: str, champion: str, now: datetime, plan: RolloutPlan) -> float:
    """How long an answer may take, milliseconds; 0 if too little is known of the champion to say.

    What it is compared with has to come later: a limit is a number that no compared answer had a part in.

    Args:
        store: The tables.
        endpoint: Endpoint.
        champion: `model/version` that answers it.
        now: Until when its times are looked at.
        plan: Says the limit itself, or by which factor one may be slower.
    """
    if plan.slow_ms is not None:
        return plan.slow_ms
    for back in _LOOK_BACK:
        rows = store.scan("inference", columns=_TIMES, endpoint=endpoint, since=now - back)
        name = pc.binary_join_element_wise(rows["model_name"], rows["model_version"], "/")
        rows = rows.filter(
            pc.and_kleene(
                pc.and_kleene(pc.equal(name, champion), pc.equal(rows["route"], str(Role.CHAMPION))),
                pc.and_kleene(
                    pc.equal(rows["outcome"], str(OutcomeKind.ANSWERED)),
                    pc.invert(pc.fill_null(rows["cache_hit"], False)),
                ),
            )
        )
        times = rows["execution_duration_ms"].drop_null().to_numpy()
        if len(times) >= LEAST_TIMES:
            usual = float(np.quantile(times, QUANTILE, method="higher"))
            return max(usual * plan.slow_factor, usual + LEAST_SLOWER_MS)
    return 0.0
