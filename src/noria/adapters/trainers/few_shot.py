"""Labelled examples retrieved into the prompt: a language model that learns without a weight being changed.

How many examples help is found out on rows that are held back from the examples; that number, the examples and the
prompt are the version. Nothing is copied of the base but its checksum.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from noria.adapters.prompts.asking import Asked, Prompted, open_base
from noria.adapters.prompts.base import AT, named
from noria.adapters.prompts.filling import Example
from noria.adapters.prompts.retrieval import Examples
from noria.adapters.trainers.notebook import Notebook
from noria.adapters.trainers.options import read_options
from noria.adapters.trainers.progress import Progress
from noria.adapters.trainers.prompts import log_prompt
from noria.adapters.trainers.records import (
    Columns,
    Said,
    labels_of,
    log_work,
    make_baseline,
    numbers_of,
    read_rows,
    result_of,
    write_answers,
)
from noria.adapters.trainers.tracking import finished, tracked
from noria.domain.prompt import EXAMPLES, Base, Prompt
from noria.evaluation.references import likeness
from noria.ports import TrainingJob, TrainingResult

INSTRUCTION = "Classify the text. Answer with exactly one of these labels and nothing else: {{labels}}."
CHAT_INSTRUCTION = "Answer as in the examples before."


@dataclass(frozen=True, slots=True)
class Options:
    """`training.parameters` of the project file.

    Attributes:
        instruction: What the model is told; `{{labels}}` stands for the labels.
        choices: Numbers of examples to try, in order; the smallest that is as good as the best is taken.
        tune_rows: Rows that are held back from the examples to try them on.
        max_examples: Most examples that are kept, the newest first.
        max_chars: Where an example's text is cut off.
        max_tokens: Longest answer of a chat.
    """

    instruction: str = ""
    choices: tuple[int, ...] = (0, 2, 4, 8)
    tune_rows: int = 80
    max_examples: int = 2000
    max_chars: int = 400
    max_tokens: int = 256


class FewShotTrainer:
    """`ports.Trainer` for a base language model and examples."""

    def train(self, job: TrainingJob) -> TrainingResult:
        """See `ports.Trainer`.

        Raises:
            InvalidProject: A parameter isn't known, or the project names no base.
            InvalidData: There are no rows, or they all have one label.
        """
        options = read_options(Options, "few_shot", job.parameters)
        base = named(job.base)
        done = finished(job)
        if done is not None:
            return done
        train, held = read_rows(job.train), read_rows(job.holdout)
        asked = open_base(base, at=job.base.get(AT))
        try:
            return _train(job, options, base, asked, train, held)
        finally:
            asked.close()


def _train(
    job: TrainingJob, options: Options, base: Base, asked: Asked, train: Columns, held: Columns
) -> TrainingResult:
    begun, progress = time.perf_counter(), Progress(job.progress)
    prompt = first_prompt(job, options, base, train)
    notes = Notebook(job.folder, "asked")
    shown, tuned = split(train, options, job.seed)
    tried: dict[int, float] = {}
    steps = len(options.choices) + 1
    for step, count in enumerate(options.choices):
        progress.say(step, steps, f"trying {count} examples on {len(tuned)} rows")
        said = ask(Prompted(replace(prompt, examples=count), asked, Examples(shown)), tuned, notes, job.task, "tune")
        tried[count] = score(job.task, said, tuned)
        progress.say(step + 1, steps, f"{count} examples: {tried[count]:.3f}", score=tried[count])
    count = best(tried, len(tuned))
    kept = newest(train, options)
    prompted = Prompted(replace(prompt, examples=count), asked, Examples(kept))
    rows = list(zip(held["text"], held["label"], strict=True))
    said = ask(prompted, rows, notes, job.task, "holdout")
    progress.say(steps, steps, f"{count} examples taken; held-out rows answered")
    parameters = asdict(options) | {
        "trainer": "few_shot",
        "examples": count,
        "base": base_name(base),
    }
    parameters["instruction"] = prompt.messages[0]["content"][:500]
    metrics = {f"tune_score_{k}": v for k, v in tried.items()}
    return keep(job, prompted.prompt, kept, said, train, held, parameters, metrics, time.perf_counter() - begun)


def first_prompt(job: TrainingJob, options: Any, base: Base, train: Columns) -> Prompt:
    """The prompt that everything begins with.

    Raises:
        InvalidData: The rows have fewer than two labels.
    """
    turns = [{"role": "user", "content": "{{examples}}"}]
    if job.task == "chat":
        messages = [{"role": "system", "content": options.instruction or CHAT_INSTRUCTION}, *turns]
        return Prompt(base=base, messages=messages, parameters={"max_tokens": options.max_tokens})
    labels = list(labels_of(train))
    messages = [{"role": "system", "content": options.instruction or INSTRUCTION}, *turns]
    return Prompt(base=base, messages=[*messages, {"role": "user", "content": "{{text}}"}], labels=labels)


def split(train: Columns, options: Any, seed: int) -> tuple[list[Example], list[Example]]:
    """Rows to show, and rows to try the showing on: at most a third of all."""
    rows = newest(train, options)
    places = list(range(len(rows)))
    random.Random(seed).shuffle(places)  # noqa: S311
    back = set(places[: min(options.tune_rows, len(rows) // 3)])
    return [row for i, row in enumerate(rows) if i not in back], [rows[i] for i in sorted(back)]


def newest(train: Columns, options: Any) -> list[Example]:
    """The examples that are kept."""
    order = list(range(len(train["text"])))
    if len(order) > options.max_examples:
        times = train.get("time") or [None] * len(order)
        order.sort(key=lambda i: (times[i] is not None, times[i] or 0), reverse=True)
        order = sorted(order[: options.max_examples])
    return [(train["text"][i][: options.max_chars], train["label"][i]) for i in order]


def ask(prompted: Prompted, rows: Sequence[Example], notes: Notebook, task: str, part: str) -> Said:
    """What a prompt says to a part of the rows; answers that are known are not asked for again."""
    way = f"{part} {prompted.prompt.to_json()}"
    texts = [text for text, _ in rows]
    if task == "chat":
        chats = [[{"role": "user", "content": text}] for text in texts]
        answers = notes.answers(way, chats, prompted.complete)
        return Said.chat(answers, [wanted for _, wanted in rows])
    likely: list[Mapping[str, float]] = notes.answers(way, texts, prompted.classify)
    return Said.of(likely, certain=any(0 < share < 1 for row in likely for share in row.values()))


def base_name(base: Base) -> str:
    """The base, for people."""
    return base.gguf or f"{base.upstream}:{base.model}"


def score(task: str, said: Said, rows: Sequence[Example]) -> float:
    """How good answers are, 0 to 1: the share that is right, for a chat the mean ROUGE-L."""
    if task == "chat":
        return float(np.mean([likeness(a, w).rouge_l for a, (_, w) in zip(said.answers, rows, strict=True)]))
    return float(np.mean([a == w for a, (_, w) in zip(said.answers, rows, strict=True)]))


def best(tried: Mapping[int, float], rows: int) -> int:
    """The smallest number of examples that is as good as the best, within half a standard error: examples cost time
    with every request."""
    top = max(tried.values())
    within = 0.5 * float(np.sqrt(max(top * (1 - top), 0.0) / max(rows, 1)))
    return min(count for count, value in tried.items() if value >= top - within)


def keep(
    job: TrainingJob,
    prompt: Prompt,
    examples: Sequence[Example],
    said: Said,
    train: Columns,
    held: Columns,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    seconds: float,
    also: Callable[[Any], None] = lambda _: None,
) -> TrainingResult:
    """Put everything about a prompt version into one MLflow run; `also` adds to it, with MLflow's module."""
    path = write_answers(job, said)
    files: dict[str, Path] = {}
    if prompt.examples:
        files[EXAMPLES] = path.with_name(EXAMPLES)
        columns = {"text": [text for text, _ in examples], "label": [label for _, label in examples]}
        pq.write_table(pa.table(columns), files[EXAMPLES])
    numbers = {**numbers_of(job.task, held, said), **metrics}
    numbers |= {"train_seconds": seconds, "train_rows": float(len(train["text"]))}
    baseline = make_baseline(train, held, said.answers, job.seed, chat=job.task == "chat")
    with tracked(job) as mlflow:
        logged = log_work(mlflow, job, parameters=_plain(parameters), metrics=numbers, baseline=baseline)
        also(mlflow)
        return result_of(mlflow, job, log_prompt(mlflow, prompt, files), logged)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {k: json.dumps(v) if isinstance(v, list | tuple | dict) else v for k, v in parameters.items()}
