"""`training.parameters` of the project file, as the LoRA trainer understands them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from noria.domain.errors import InvalidProject

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of a block that an adapter can be put on, by the names that transformers gives them."""
INSTRUCTION = "Answer with one of these labels and nothing else: {{labels}}."
"""The system message of a classifier if the project names no other."""
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "method": ("auto", "sft", "dpo"),
    "first": ("train", "base"),
    "device": ("auto", "cpu", "cuda"),
    "dtype": ("auto", "bfloat16", "float32"),
}
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "rank": (1, 256),
    "alpha": (0.01, 4096),
    "dropout": (0, 0.9),
    "steps": (1, 1_000_000),
    "batch": (1, 1024),
    "learning_rate": (1e-7, 1),
    "warmup": (0, 0.9),
    "max_tokens": (16, 32_768),
    "beta": (0.001, 10),
    "sft_weight": (0, 100),
    "production_weight": (1, 100),
    "checkpoint_every": (1, 1_000_000),
    "threads": (0, 1024),
    "eval_rows": (1, 1_000_000),
    "answer_tokens": (1, 4096),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What can be set.

    Attributes:
        method: `sft`, `dpo`, or `auto`: DPO if any row has an answer that people refused.
        first: What an endpoint gets as long as no labelled production record is there: an adapter trained on the
            project's own data (`train`), or the base with the instruction alone, at once (`base`).
        instruction: System message; `{{labels}}` stands for the labels. Empty for none.
        rank: Rank of the adapter's matrices.
        alpha: Strength of the adapter: its update is multiplied by alpha / rank.
        dropout: Share of the adapter's inputs that are dropped while training.
        targets: Layers that get an adapter.
        steps: Optimiser steps.
        batch: Examples in a step.
        learning_rate: Highest learning rate; it rises over the warm-up and falls to nothing by a cosine.
        warmup: Share of the steps over which the learning rate rises.
        max_tokens: Longest example; longer texts are cut in the middle.
        beta: DPO: how much a step away from the base costs.
        sft_weight: DPO: weight of the chosen answer's own likelihood.
        production_weight: How many times a labelled production record is shown for once of the project's own rows.
        checkpoint_every: Steps between two checkpoints; at most so many are done twice after a kill.
        threads: CPU threads; 0 takes what the process was given.
        device: `cpu`, `cuda`, or `auto`.
        dtype: `bfloat16`, `float32`, or `auto`: bfloat16 where the device multiplies it well.
        eval_rows: Chats: most held-out rows to answer.
        answer_tokens: Chats: longest answer.
    """

    method: str = "auto"
    first: str = "train"
    instruction: str = INSTRUCTION
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    steps: int = 120
    batch: int = 4
    learning_rate: float = 5e-4
    warmup: float = 0.1
    max_tokens: int = 256
    beta: float = 0.1
    sft_weight: float = 1.0
    production_weight: int = 1
    checkpoint_every: int = 20
    threads: int = 0
    device: str = "auto"
    dtype: str = "auto"
    eval_rows: int = 200
    answer_tokens: int = 64

    @classmethod
    def read(cls, parameters: Mapping[str, Any]) -> Self:
        """Options from the project file.

        Raises:
            InvalidProject: There is no such parameter, or its value makes no sense.
        """
        known = {field.name: field.default for field in fields(cls)}
        for name in parameters:
            if name not in known:
                raise InvalidProject(
                    f"The trainer lora has no parameter {name}.", f"Write one of {', '.join(known)} in parameters."
                )
        return cls(**{name: _sound(name, value, known[name]) for name, value in parameters.items()})


def _sound(name: str, value: Any, default: Any) -> Any:
    """A parameter's value, in its own type.

    Raises:
        InvalidProject: It can't be that.
    """
    if name == "targets":
        if isinstance(value, list | tuple) and value and set(value) <= set(TARGETS):
            return tuple(sorted(set(value), key=TARGETS.index))
        raise _wrong(name, value, f"Write a list of some of {', '.join(TARGETS)}.")
    if name in _CHOICES:
        if value in _CHOICES[name]:
            return value
        raise _wrong(name, value, f"Write one of {', '.join(_CHOICES[name])}.")
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        raise _wrong(name, value, "Write a text.")
    low, high = _BOUNDS[name]
    number = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    whole = isinstance(default, int)
    if not number or (whole and value != int(value)):
        kind = "whole number" if whole else "number"
        raise _wrong(name, value, f"Write a {kind} from {low:g} to {high:g}.")
    return int(value) if whole else float(value)


def _wrong(name: str, value: Any, remedy: str) -> InvalidProject:
    return InvalidProject(f"{value!r} can't be the trainer lora's {name}.", remedy)
