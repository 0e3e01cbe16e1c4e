"""A project whose classifier is a small language model that was taught by examples, really up."""

import csv
from pathlib import Path

import pytest

from fakes.prompts import SMOLLM, demand_smollm
from fakes.running import Running, new_project
from noria.templates.starter import messages

YAML = f"""
project: shop
endpoints:
  triage:
    task: classification
    policy: policies/triage.yaml
    training:
      data: data/few.csv
      on_alert: false
      trainer: few_shot
      base: {{gguf: "{SMOLLM}", licence: Apache-2.0, source: SmolLM2, context: 512, slots: 2}}
      parameters: {{choices: [2], tune_rows: 4, max_chars: 100}}
"""
LABELS = {"negative", "neutral", "positive"}


@pytest.mark.slow
def test_a_language_model_taught_by_examples_is_judged_served_and_recorded(tmp_path: Path) -> None:
    demand_smollm()
    root = new_project(tmp_path / "shop")
    (root / "noria.yaml").write_text(YAML)
    with (root / "data" / "few.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((message.text, message.label) for message in messages(72, seed=3))
    policy = root / "policies" / "triage.yaml"
    lines = [line for line in policy.read_text().splitlines() if "group" not in line]
    policy.write_text("\n".join(lines).replace("min_accuracy: 0.7", "min_accuracy: 0.2"))
    shop = Running(root).start()
    try:
        shop.wait_until(lambda: shop.get("/readyz")[0] == 200, 60)
        status, said, headers = shop.post("/invocations", {"inputs": ["Thank you, that was quick and friendly!"]})
        assert (status, headers["x-noria-version"]) == (200, "triage/1")
        assert said["predictions"][0] in LABELS
        assert set(said["probabilities"][0]) == LABELS
        assert sum(said["probabilities"][0].values()) == pytest.approx(1, abs=1e-3)
        shop.wait_until(lambda: len(shop.rows("SELECT * FROM inference")) == 1, 60)
        [record] = shop.rows("SELECT * FROM inference")
        assert record["model_version"] == "1"
    finally:
        shop.stop()
