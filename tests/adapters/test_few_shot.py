"""Trainers of language models by examples, and of the project's own functions: what is tried, kept and never asked
twice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fakes.prompts import SMOLLM, RuleBase, demand_smollm
from noria.adapters.prompts.asking import open_folder
from noria.adapters.registry.client import connect, load_mlflow
from noria.adapters.registry.mlflow import MlflowRegistry
from noria.adapters.trainers import few_shot, load_trainer, optimised
from noria.adapters.trainers.few_shot import FewShotTrainer, Options, best, split
from noria.adapters.trainers.notebook import Notebook
from noria.adapters.trainers.optimised import PromptTrainer
from noria.adapters.trainers.options import read_options
from noria.adapters.trainers.python import PythonTrainer, find
from noria.domain.errors import InvalidData, InvalidProject
from noria.domain.model import Flavor
from noria.domain.prompt import FILE, Prompt
from noria.ports import TrainingJob

WORDS = {"praise": "thanks", "blame": "terrible"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> MlflowRegistry:
    folder = tmp_path_factory.mktemp("mlflow-few-shot")
    made = MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts", "wheel")
    made.prepare()
    return made


def job(registry: MlflowRegistry, folder: Path, **more: Any) -> TrainingJob:
    for name, rows in (("train", 45), ("holdout", 12)):
        labels = [list(WORDS)[i % 2] for i in range(rows)]
        texts = [f"{WORDS[label]}, {name} {i}" for i, label in enumerate(labels)]
        columns = {"text": texts, "label": labels, "group": ["a"] * rows, "origin": ["baseline"] * rows}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    fields: dict[str, Any] = {
        "endpoint": "triage",
        "model": "triage",
        "run_id": folder.name,
        "tracking_uri": registry.tracking_uri,
        "experiment": "wheel",
        "train": str(folder / "train.parquet"),
        "holdout": str(folder / "holdout.parquet"),
        "folder": str(folder),
        "progress": str(folder / "progress.jsonl"),
        "base": {"upstream": "lab", "model": "m"},
        "parameters": {"choices": [0, 2], "tune_rows": 10},
    }
    return TrainingJob(**(fields | more))


# --- options, examples, notes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"depth": 1}, "has no parameter depth"),
        ({"choices": []}, "can't be the choices"),
        ({"choices": [-1]}, "can't be the choices"),
        ({"tune_rows": 0}, "can't be the tune_rows"),
        ({"tune_rows": 1.5}, "can't be the tune_rows"),
        ({"max_chars": True}, "can't be the max_chars"),
        ({"instruction": 3}, "can't be the instruction"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_explained(parameters: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidProject, match=why):
        read_options(Options, "few_shot", parameters)
    assert read_options(Options, "few_shot", {"choices": [0, 4]}).choices == (0, 4)


def test_the_fewest_examples_that_are_as_good_as_the_best_are_taken() -> None:
    assert best({0: 0.5, 2: 0.89, 4: 0.9, 8: 0.9}, 50) == 2
    assert best({0: 0.5, 2: 0.7, 4: 0.9}, 50) == 4


def test_rows_to_try_on_are_no_examples() -> None:
    texts = [f"text {i}" for i in range(30)]
    shown, tuned = split({"text": texts, "label": ["a"] * 30}, Options(tune_rows=80), seed=3)
    assert len(tuned) == 10, "a third of all at most"
    assert sorted([*shown, *tuned]) == sorted((text, "a") for text in texts)


def test_what_was_answered_before_a_kill_is_not_asked_again(tmp_path: Path) -> None:
    asked: list[Any] = []

    def ask(some: Any) -> Any:
        asked.extend(some)
        if "c" in some:
            raise KeyboardInterrupt
        return [each * 2 for each in some]

    with pytest.raises(KeyboardInterrupt):
        Notebook(str(tmp_path), "asked").answers("x", ["a", "b", "c"], ask, at_once=2)
    with (tmp_path / "asked.jsonl").open("a") as file:
        file.write('{"of": "half a li')
    asked.clear()
    again = Notebook(str(tmp_path), "asked")
    assert again.answers("x", ["a", "b", "d"], ask) == ["aa", "bb", "dd"]
    assert asked == ["d"]
    assert again.answers("another prompt", ["a"], ask) == ["aa"]
    assert Notebook(str(tmp_path), "asked").answers("x", ["d"], ask) == ["dd"]
    assert asked == ["d", "a"]


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_without_asking_for_what_it_knows(
    registry: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = RuleBase({word: label for label, word in WORDS.items()})
    monkeypatch.setattr(few_shot, "open_base", lambda *_, **__: rules)
    work = job(registry, tmp_path)
    monkeypatch.setattr(few_shot, "log_prompt", killed)
    with pytest.raises(SystemExit):
        FewShotTrainer().train(work)
    monkeypatch.undo()
    monkeypatch.setattr(few_shot, "open_base", lambda *_, **__: rules)
    asked = len(rules.chats)
    result = FewShotTrainer().train(work)
    assert (asked, len(rules.chats)) == (2 * 10 + 12, asked)
    assert result.metrics["accuracy"] == 1.0
    made = registry.register(result.logged_model_uri, "triage", {})
    assert (made.flavor, made.tags["noria.wire"]) == (Flavor.PROMPT, "mlflow")
    assert (registry.download(made) / "prompt.json").is_file()
    said = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert said[-1]["done"] == said[-1]["of"]


def killed(*_: Any) -> str:
    raise SystemExit


@pytest.mark.slow
def test_a_chat_learns_by_examples_and_is_measured_by_its_answers(
    registry: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_shot, "open_base", lambda *_, **__: RuleBase({}))
    result = FewShotTrainer().train(job(registry, tmp_path, task="chat"))
    assert set(result.metrics) >= {"exact_match", "rouge_l"}
    made = registry.register(result.logged_model_uri, "chatter", {})
    assert made.tags["noria.wire"] == "openai"
    answers = pq.read_table(result.predictions)["prediction"].to_pylist()
    assert answers[0].startswith("You said: ")


@pytest.mark.slow
def test_a_real_language_model_is_taught_by_examples_and_loads_with_mlflow(
    registry: MlflowRegistry, tmp_path: Path
) -> None:
    demand_smollm()
    base = {"gguf": SMOLLM, "context": 512, "threads": 1, "slots": 2}
    result = FewShotTrainer().train(job(registry, tmp_path, base=base))
    made = registry.register(result.logged_model_uri, "small", {})
    folder = registry.download(made)
    assert not list(folder.rglob("*.gguf")), "the base's weights are not copied"
    prompted = open_folder(folder)
    try:
        answers = [max(row, key=row.__getitem__) for row in prompted.classify(["thanks, so kind", "terrible, late"])]
    finally:
        prompted.close()
    model = load_mlflow("pyfunc").pyfunc.load_model(str(folder))
    assert list(model.predict(np.array(["thanks, so kind", "terrible, late"], dtype=object))) == answers
    model._model_impl.close()


# --- functions of the project's own -----------------------------------------------------------------------------------


def test_a_function_that_is_not_there_is_explained() -> None:
    for name, why in (("", "needs a function"), ("no.such:thing", "can't be imported"), ("math:pi", "no function")):
        with pytest.raises(InvalidProject, match=why):
            find({"function": name})


@pytest.mark.slow
def test_functions_may_return_estimators_or_prompts_and_nothing_else(
    registry: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        work = job(registry, folder, parameters={"function": f"fakes.trained:{name}"})
        return registry.register(PythonTrainer().train(replace(work)).logged_model_uri, name, {})

    safe = train("words")
    assert (registry.download(safe) / "model.skops").is_file()
    assert safe.metrics["accuracy"] == 1.0
    assert not (registry.download(train("pickled")) / "model.skops").is_file()
    rules = RuleBase({word: label for label, word in WORDS.items()})
    monkeypatch.setattr("noria.adapters.trainers.python.open_base", lambda *_, **__: rules)
    assert train("asked").flavor is Flavor.PROMPT
    with pytest.raises(InvalidData, match="returned int"):
        train("nothing")
    with pytest.raises(InvalidProject, match="wants holdout"):
        train("greedy")


def test_trainers_come_by_their_entry_points() -> None:
    assert isinstance(load_trainer("few_shot"), FewShotTrainer)
    assert isinstance(load_trainer("python"), PythonTrainer)


class Thinker(RuleBase):
    """Proposes an instruction that the rules below follow."""

    def complete(self, chats: Any, parameters: Any) -> list[str]:
        self.chats += chats
        return ["Better:\n```\nGo by the first word.\n```" for _ in chats]

    def classify(self, chats: Any, labels: Any) -> list[dict[str, float]]:
        told = "first word" in chats[0][0]["content"]
        return super().classify(chats, labels) if told else [dict.fromkeys(labels, 0.5) for _ in chats]


@pytest.mark.slow
def test_a_prompt_is_rewritten_until_it_asks_better_and_never_pays_twice(
    registry: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Thinker({word: label for label, word in WORDS.items()})
    monkeypatch.setattr(optimised, "open_base", lambda *_, **__: rules)
    parameters = {"calls": 60, "tune_rows": 10, "reflection": {"upstream": "lab", "model": "large"}}
    work = job(registry, tmp_path, parameters=parameters)
    with monkeypatch.context() as dying:
        dying.setattr(few_shot, "log_prompt", killed)
        with pytest.raises(SystemExit):
            PromptTrainer().train(work)
    asked = len(rules.chats)
    result = PromptTrainer().train(work)
    assert len(rules.chats) == asked, "the attempt that went on asked nobody anything"
    assert result.metrics["tune_score_after"] == result.metrics["accuracy"] == 1.0
    assert result.metrics["tune_score_before"] < 1
    folder = registry.download(registry.register(result.logged_model_uri, "rewritten", {}))
    prompt = Prompt.from_json((folder / FILE).read_bytes())
    assert prompt.messages[0]["content"].startswith("Go by the first word.")
    assert "{{labels}}" in prompt.messages[0]["content"]
    run = connect(registry.tracking_uri).get_run(result.mlflow_run_id)
    assert run.data.tags["noria.prompt"] == "prompts:/triage-prompt/1"
