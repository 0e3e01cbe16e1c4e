"""Cards: everything that was measured is there, nothing else is, and nothing from outside can break the page."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version as installed

import pytest
import yaml

from noria.domain.gate import GateResult, Verdict
from noria.domain.model import Flavor, ModelVersion
from noria.domain.run import Run, RunState, Trigger, TriggerKind
from noria.evaluation.fairness import assess
from noria.governance.card import Evidence, cell, number
from noria.settings import Policy, Task

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
VERSION = ModelVersion(
    name="triage",
    version="3",
    flavor=Flavor.PYFUNC,
    uri="models:/triage/3",
    run_id="abc",
    checksum="f" * 64,
    source="customer tweets",
    licence="MIT",
    created_at=NOW,
)
BARE = Evidence(endpoint="triage", task=Task.CLASSIFICATION, version=VERSION, written_at=NOW)
FULL = replace(
    BARE,
    run=Run(
        id="r1",
        endpoint="triage",
        trigger=Trigger(kind=TriggerKind.ALERT, cause="a", actor="noria", reason="the world changed"),
        state=RunState.SUCCEEDED,
        started_at=NOW,
    ),
    data={"train_rows": 3210, "production_rows": 1500},
    metrics={"accuracy": 0.81234567, "macro_f1": 0.7, "odd": math.nan},
    fairness=assess(["a", "b"] * 60, ["a", "a"] * 60, ["delta"] * 100 + ["<script>|x"] * 20).to_rows(),
    policy=Policy(
        name="triage",
        intended_use="Sort messages by mood.",
        forbidden_use=("Judge a person.",),
        owner="care team",
        review_by="2027-01-01",
        languages=("en", "de"),
    ),
    policy_hash="abcdef",
    verdict=Verdict(
        id="triage-3-1a2b",
        endpoint="triage",
        model="triage",
        version="3",
        champion="triage/2",
        decided_at=NOW,
        policy_hash="abcdef",
        results=(GateResult(gate="quality", passed=True, summary="Not worse | at all."),),
    ),
    baseline={"rows": 800, "cells": 96},
    environment={"scikit-learn": installed("scikit-learn")},
)


def parts(card):
    _, head, body = card.split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_full_card_says_everything_that_was_measured():
    head, body = parts(FULL.to_markdown())
    assert head["license"] == "mit"
    assert head["language"] == ["en", "de"]
    assert head["pipeline_tag"] == "text-classification"
    assert head["tags"] == ["noria", "text-classification", "pyfunc"]
    for said in (
        "# triage/3",
        "Sort messages by mood.",
        "- Judge a person.",
        "care team, who looks at it again by 2027-01-01",
        "SHA-256 `abcdef`",
        "| source | customer tweets |",
        f"`{'f' * 64}`",
        "r1, set off by noria (alert): the world changed",
        "| train rows | 3,210 |",
        "| accuracy | 0.812 |",
        "| odd | not evaluated |",
        "| delta | 100 | 0.500 |",
        "Verdict `triage-3-1a2b` of 2026-03-01 12:30 UTC: **passed**",
        "compared with triage/2",
        "| quality | passed | Not worse \\| at all. |",
        "| cells | 96 |",
        f"| scikit-learn | {installed('scikit-learn')} |",
    ):
        assert said in body
    assert body.count("not evaluated") == 2  # the sentence that explains it, and the metric that is NaN


def test_the_metrics_stand_in_the_model_index():
    head, _ = parts(FULL.to_markdown())
    [entry] = head["model-index"]
    [result] = entry["results"]
    assert entry["name"] == "triage/3"
    assert result["task"] == {"type": "text-classification"}
    assert result["dataset"] == {"name": "held-out rows of triage", "type": "noria/triage"}
    assert result["metrics"] == [
        {"type": "accuracy", "name": "accuracy", "value": 0.812346},
        {"type": "macro_f1", "name": "macro f1", "value": 0.7},
    ]


def test_what_was_not_measured_is_printed_as_not_evaluated():
    head, body = parts(BARE.to_markdown())
    assert "model-index" not in head
    assert "language" not in head
    for section in ("Data", "Evaluation", "Groups", "Gates", "Monitoring", "Environment", "Use"):
        text = body.split(f"## {section}\n")[1].split("\n## ")[0]
        assert "not evaluated" in text, section


def test_an_override_is_on_the_card():
    verdict = replace(
        FULL.verdict,
        results=(GateResult(gate="quality", passed=False, summary="Worse."),),
        override_by="ana",
        override_reason="a better label set",
    )
    body = replace(FULL, verdict=verdict).to_markdown()
    assert "**Overridden by ana:** a better label set" in body
    assert "| quality | failed | Worse. |" in body


def test_tables_stay_whole_whatever_a_group_is_called():
    body = FULL.to_markdown()
    assert "<script>" not in body
    row = next(line for line in body.splitlines() if "script" in line)
    assert row.replace("\\|", "").count("|") == 7


@pytest.mark.parametrize(
    ("licence", "front"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("LicenseRef-Ours", {"license": "other", "license_name": "LicenseRef-Ours"}),
        ("", {}),
    ],
)
def test_the_licence_is_written_as_the_hub_knows_it(licence, front):
    head, body = parts(replace(BARE, version=replace(VERSION, licence=licence)).to_markdown())
    assert {key: head[key] for key in ("license", "license_name") if key in head} == front
    assert f"| licence | {licence or 'not named'} |" in body


def test_a_chat_models_card_is_one_of_text_generation():
    gguf = replace(VERSION, flavor=Flavor.GGUF, source="https://example.org/a?b=1&c=2")
    head, body = parts(replace(BARE, task=Task.CHAT, version=gguf).to_markdown())
    assert head["pipeline_tag"] == "text-generation"
    assert "gguf" in head["tags"]
    assert "https://example.org/a?b=1&amp;c=2" in body


def test_cells_and_numbers():
    assert cell("a\n|b`<i>") == "a \\|b'&lt;i>"
    assert cell("[click](http://evil)") == "\\[click]\\(http://evil)"
    assert [number(v) for v in (3, 3.0, 1234567, 0.12345, math.inf, "x|y")] == [
        "3",
        "3",
        "1,234,567",
        "0.123",
        "not evaluated",
        "x\\|y",
    ]
