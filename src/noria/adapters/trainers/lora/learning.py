"""The loop of steps: batches, losses, checkpoints, and what people see of it."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from noria.adapters.trainers.lora.base import Loaded
from noria.adapters.trainers.lora.batches import Schedule, learning_rate
from noria.adapters.trainers.lora.checkpoints import Checkpoint, Checkpoints
from noria.adapters.trainers.lora.losses import dpo_loss, sft_loss
from noria.adapters.trainers.lora.options import Options
from noria.adapters.trainers.lora.tokens import Encoded
from noria.adapters.trainers.progress import Progress
from noria.domain.errors import NoriaError

_SAY_EVERY_S = 2.0
"""Seconds between two lines of progress."""
_SMOOTH = 0.9
"""Weight of the past in the loss that is shown."""


@dataclass(slots=True)
class Course:
    """How the learning went, over all attempts at it.

    Attributes:
        losses: Of each finished step.
        tokens: Read so far.
        seconds: Spent on steps so far.
        resumed_at: Steps that an earlier attempt had done already.
    """

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    resumed_at: int = 0

    @property
    def tokens_per_s(self) -> float:
        """How fast tokens were read, a second of training."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def shown_loss(self) -> float:
        """The loss of late, smoothed."""
        shown = self.losses[0] if self.losses else math.nan
        for loss in self.losses[-50:]:
            shown = _SMOOTH * shown + (1 - _SMOOTH) * loss
        return shown

    def numbers(self, steps: int) -> dict[str, float]:
        """What is told while it lasts."""
        done = len(self.losses)
        eta = (steps - done) * self.seconds / done if done else math.nan
        return {
            "loss": round(self.shown_loss(), 4),
            "eta_s": round(eta, 1),
            "tokens_per_s": round(self.tokens_per_s, 1),
        }


def with_adapter(base: Loaded, options: Options, seed: int) -> Any:
    """The base with an adapter that changes nothing yet."""
    import peft
    import torch

    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(options.targets),
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(base.model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:  # bfloat16 would round most of an update away
            parameter.data = parameter.data.float()
    return model


def tensors(model: Any) -> dict[str, Any]:
    """The adapter's tensors by name, on the CPU."""
    import peft

    kept = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().float().cpu() for name, tensor in kept.items()}


def learn(
    model: Any,
    device: str,
    rows: Sequence[Encoded],
    repeats: Sequence[int],
    options: Options,
    checkpoints: Checkpoints,
    progress: Progress,
    *,
    preferences: bool,
    seed: int,
) -> Course:
    """Train the adapter in place, from the last checkpoint on.

    Raises:
        NoriaError: The loss is no number any more.
    """
    import torch

    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.0)
    course = Course()
    if (last := checkpoints.latest()) is not None:
        course = _take_up(last, model, optimizer)
        progress.say(last.step, options.steps, f"going on after step {last.step}", **course.numbers(options.steps))
    schedule = Schedule([len(row) for row in rows], repeats, options.batch, seed)
    model.train()
    said = 0.0
    for step in range(len(course.losses), options.steps):
        started = time.perf_counter()
        torch.manual_seed(seed * 1_000_003 + step)  # dropout's, so that a step is the same after a kill
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.learning_rate, options.warmup)
        batch = [rows[i] for i in schedule.batch(step)]
        if preferences:
            loss, read = dpo_loss(model, batch, device, options.beta, options.sft_weight)
        else:
            loss, read = sft_loss(model, batch, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _note(course, float(loss.detach()), read, time.perf_counter() - started)
        done = step + 1
        if time.monotonic() - said > _SAY_EVERY_S or done == options.steps:
            said = time.monotonic()
            progress.say(done, options.steps, f"step {done} of {options.steps}", **course.numbers(options.steps))
        if done % options.checkpoint_every == 0 or done == options.steps:
            _save(checkpoints, done, course, model, optimizer)
    model.eval()
    return course


def _note(course: Course, loss: float, tokens: int, seconds: float) -> None:
    if not math.isfinite(loss):
        raise NoriaError(
            f"The loss is {loss} at step {len(course.losses) + 1}: training has come apart.",
            "Lower training.parameters.learning_rate, or write dtype: float32.",
        )
    course.losses.append(loss)
    course.tokens += tokens
    course.seconds += seconds


def _save(checkpoints: Checkpoints, step: int, course: Course, model: Any, optimizer: Any) -> None:
    import torch
    from safetensors.torch import save_file

    def write(folder: Path) -> None:
        save_file(tensors(model), folder / "adapter.safetensors")
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")

    state = {"losses": course.losses, "tokens": course.tokens, "seconds": course.seconds}
    checkpoints.save(step, state, write)


def _take_up(last: Checkpoint, model: Any, optimizer: Any) -> Course:
    import peft
    import torch
    from safetensors.torch import load_file

    peft.set_peft_model_state_dict(model, load_file(last.path / "adapter.safetensors"))
    optimizer.load_state_dict(torch.load(last.path / "optimizer.pt", weights_only=True))
    said = last.state
    return Course(list(said["losses"]), int(said["tokens"]), float(said["seconds"]), last.step)
