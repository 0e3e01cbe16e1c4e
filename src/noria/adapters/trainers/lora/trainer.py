"""`ports.Trainer`: rows in, an adapter over a base out, with everything about it in one MLflow run."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from noria.adapters.prompts.base import weights
from noria.adapters.trainers.lora import base as bases
from noria.adapters.trainers.lora.checkpoints import Checkpoints
from noria.adapters.trainers.lora.options import Options
from noria.adapters.trainers.lora.record import Trained, log
from noria.adapters.trainers.lora.rows import Example, examples, template
from noria.adapters.trainers.lora.tokens import Encoded, Encoder
from noria.adapters.trainers.progress import Progress
from noria.adapters.trainers.records import labels_of, read_rows
from noria.adapters.trainers.tracking import finished
from noria.domain.errors import InvalidData
from noria.domain.prompt import Base, Prompt
from noria.ports import TrainingJob, TrainingResult

_CHAT = "chat"


class LoraTrainer:
    """Fine-tunes a model file by a low-rank adapter; minutes for a small model on a CPU."""

    def train(self, job: TrainingJob) -> TrainingResult:
        """See `ports.Trainer`.

        Raises:
            MissingExtra: torch and its like aren't installed.
            InvalidProject: A parameter isn't known, or no base that can be adapted is named.
            InvalidData: There is nothing to learn from the rows.
        """
        options = Options.read(job.parameters)
        bases.demand_extra()
        if (done := finished(job)) is not None:
            return done
        base = bases.demand_file(job.base)
        file = weights(base)
        work = Work.read(job, options)
        progress = Progress(job.progress)
        progress.say(0, options.steps, f"loading {file.name}")
        with TemporaryDirectory() as scratch:
            adapter = Path(scratch) / "adapter.gguf"
            loaded = bases.load(file, options)
            encoder = Encoder(loaded.tokenizer, options.max_tokens)
            trained = _train(job, options, work, loaded, encoder, base, adapter, progress)
            prompt = Prompt(
                base=base,
                messages=work.messages,
                labels=work.labels,
                adapter=adapter.exists(),
            )
            result = log(job, options, prompt, trained, adapter if adapter.exists() else None)
        shutil.rmtree(_folder(job), ignore_errors=True)
        return result


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be learnt, and what will be asked afterwards."""

    messages: tuple[Mapping[str, str], ...]
    labels: tuple[str, ...]
    learn: list[Example]
    ask: list[Example]
    train: Mapping[str, list[Any]]
    held: Mapping[str, list[Any]]

    @classmethod
    def read(cls, job: TrainingJob, options: Options) -> "Work":
        """The rows of a job.

        Raises:
            InvalidData: There are none, or they all have one label.
        """
        train, held = read_rows(job.train), read_rows(job.holdout)
        if not train["text"]:
            raise InvalidData("There are no rows to learn from.", "Give the endpoint's training data or labels.")
        labels = () if job.task == _CHAT else labels_of(train)
        messages = template(options.instruction, labels)
        ask = examples(held, messages, labels)
        if job.task == _CHAT:
            ask = ask[: options.eval_rows]
        return cls(messages, labels, examples(train, messages, labels), ask, train, held)

    @property
    def learns(self) -> bool:
        """Whether any of the rows is a labelled record of the traffic."""
        return any(example.production for example in self.learn)


def _train(
    job: TrainingJob,
    options: Options,
    work: Work,
    loaded: bases.Loaded,
    encoder: Encoder,
    base: Base,
    adapter: Path,
    progress: Progress,
) -> Trained:
    """Learn, write the adapter, and answer the held-out rows; an endpoint's first version may do without the former."""
    from noria.adapters.trainers.lora import adapter as files
    from noria.adapters.trainers.lora import answers, learning

    shape = files.read_shape(weights(base))
    numbers = {"train_rows": float(len(work.learn))}
    model, started = loaded.model, time.perf_counter()
    prompts = [encoder.prompt(example.messages) for example in work.ask]
    if work.learns or options.first == "train":
        rows = [encoder.encode(example) for example in work.learn]
        preferences = _by_preference(options, work.learn)
        model = learning.with_adapter(loaded, options, job.seed)
        course = learning.learn(
            model,
            loaded.device,
            rows,
            [options.production_weight if example.production else 1 for example in work.learn],
            options,
            Checkpoints(_folder(job), digest(job, options, rows, base.sha256)),
            progress,
            preferences=preferences,
            seed=job.seed,
        )
        kept = {name: tensor.numpy() for name, tensor in learning.tensors(model).items()}
        files.write(adapter, kept, shape, options.alpha)
        numbers |= {
            "loss": course.shown_loss(),
            "tokens": float(course.tokens),
            "tokens_per_s": course.tokens_per_s,
            "resumed_at_step": float(course.resumed_at),
            "cut_rows": float(sum(row.cut for row in rows)),
            "adapter_mib": adapter.stat().st_size / 2**20,
        }
        losses = course.losses
    else:
        losses = []
    numbers["train_seconds"] = time.perf_counter() - started
    if work.labels:
        said = answers.classify(model, loaded.device, prompts, work.labels, encoder, progress)
    else:
        said = answers.answer(model, loaded.device, prompts, loaded.tokenizer, options.answer_tokens)
    how = {"device": loaded.device, "dtype": loaded.dtype, "base": shape.name}
    return Trained(work.train, work.held, said, numbers, losses, how)


def _by_preference(options: Options, rows: Sequence[Example]) -> bool:
    """Whether to learn from refused answers too.

    Raises:
        InvalidData: The project wants that, and no row has one.
    """
    refused = any(example.rejected for example in rows)
    if options.method == "dpo" and not refused:
        raise InvalidData(
            "DPO needs answers that were refused, and no row has one.",
            "Give rows a column rejected, or write method: auto in training.parameters.",
        )
    return refused and options.method != "sft"


def _folder(job: TrainingJob) -> Path:
    """Where the job's checkpoints are."""
    return Path(job.folder or Path(job.train).parent) / "checkpoints"


def digest(job: TrainingJob, options: Options, rows: Sequence[Encoded], base: str) -> str:
    """Identity of all that decides what is computed: a checkpoint of anything else is of no use."""
    told = {
        "options": {k: v for k, v in asdict(options).items() if k not in ("checkpoint_every", "eval_rows", "threads")},
        "seed": job.seed,
        "base": base,
    }
    found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for row in rows:
        found.update(repr((row.prompt, row.answer, row.rejected)).encode())
    return found.hexdigest()[:32]
