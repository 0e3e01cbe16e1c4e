import math
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from noria.adapters import plugins
from noria.adapters import scorers as module
from noria.adapters.scorers import SCORERS, installed, scorers
from noria.domain.errors import InvalidProject, MissingExtra
from noria.settings import Monitors
from noria.settings import monitors as settings


class Shouting:
    """Scores capital letters."""

    def score(self, texts):
        return [math.nan if text == "?" else 3.0 * sum(c.isupper() for c in text) / max(len(text), 1) for text in texts]


class Short:
    def score(self, texts):
        return [0.5]


@pytest.fixture
def install(monkeypatch):
    points = []
    for room in (plugins, settings):
        monkeypatch.setattr(room, "entry_points", lambda group: EntryPoints(p for p in points if p.group == group))
    module._loaded.cache_clear()
    yield lambda name, value: points.append(EntryPoint(name, value, SCORERS))
    module._loaded.cache_clear()


def test_a_scorer_measures_texts_and_keeps_within_its_range(install):
    install("shouting", f"{__name__}:Shouting")
    assert installed() == {"shouting"}
    assert set(scorers(["input_length", "output_toxicity"])) == set()
    score = scorers(["output_shouting"])["shouting"]
    assert score(["abc", None, "ABC", "?", "Abcdef"]) == [0, None, 1, None, 0.5]
    assert len(score(["abc"] * 2500)) == 2500


def test_a_scorer_that_gives_too_few_scores_is_named(install):
    install("toxicity", f"{__name__}:Short")
    with pytest.raises(InvalidProject, match="toxicity gave 1 scores for 2 texts"):
        scorers(["input_toxicity"])["toxicity"](["a", "b"])


def test_a_scorer_whose_package_is_missing_says_so(install):
    install("toxicity", "no_such_package:Scorer")
    with pytest.raises(MissingExtra, match="toxicity can't be loaded"):
        scorers(["input_toxicity"])["toxicity"](["a"])


def test_what_an_installed_scorer_measures_can_be_watched(install):
    with pytest.raises(ValueError, match="output_shouting can't be watched"):
        Monitors(watch=("output_shouting",))
    install("shouting", f"{__name__}:Shouting")
    assert Monitors(watch=("output_shouting",)).watch == ("output_shouting",)
