"""A prompt that is rewritten until it asks better: GEPA, with any upstream or local model as the one that reflects.

GEPA (Agrawal et al. 2025) shows a language model what an instruction led to, right and wrong, has it propose another
one, and keeps what does better on rows held back. MLflow's own `optimize_prompts` does the same, but reaches reflecting
models only through litellm, asks row by row, and counts a row whose request failed as a wrong answer; so GEPA is called
directly and the prompts' versions are kept in MLflow's prompt registry. Every answer is kept in the run's folder: with
the same seed an attempt that goes on after a kill comes the same way without paying again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

from noria.adapters.prompts.asking import Asked, Prompted, open_base
from noria.adapters.prompts.base import AT, named
from noria.adapters.prompts.filling import LABELS, Example
from noria.adapters.prompts.retrieval import Examples
from noria.adapters.trainers.few_shot import ask, base_name, first_prompt, keep, newest, score, split
from noria.adapters.trainers.notebook import Notebook
from noria.adapters.trainers.options import read_options
from noria.adapters.trainers.progress import Progress
from noria.adapters.trainers.records import Columns, Said, read_rows
from noria.adapters.trainers.tracking import finished
from noria.domain.errors import InvalidProject, MissingExtra
from noria.domain.prompt import Prompt
from noria.evaluation.references import likeness
from noria.ports import TrainingJob, TrainingResult

REFLECTION = "reflection"
"""Parameter that names the reflecting model, as `training.base` names the base; default is the base itself."""
REFLECTION_AT = "reflection_at"
"""In a training job's base: where the reflecting model's upstream is."""
PART = "instruction"
_THOUGHT = {"max_tokens": 700, "temperature": 0}


@dataclass(frozen=True, slots=True)
class Options:
    """`training.parameters` of the project file, beside `reflection`.

    Attributes:
        instruction: What the model is told at first.
        calls: Budget: answers of the base that may be looked at while rewriting.
        examples: Examples retrieved with each text.
        tune_rows: Rows that candidates are compared on.
        minibatch: Rows that the reflecting model is shown at a time.
        max_examples: Most rows that are kept, the newest first.
        max_chars: Where an example's text is cut off.
        max_tokens: Longest answer of a chat.
    """

    instruction: str = ""
    calls: int = 150
    examples: int = 0
    tune_rows: int = 30
    minibatch: int = 4
    max_examples: int = 2000
    max_chars: int = 400
    max_tokens: int = 256


class PromptTrainer:
    """`ports.Trainer` for a base language model and an instruction that is rewritten."""

    def train(self, job: TrainingJob) -> TrainingResult:
        """See `ports.Trainer`.

        Raises:
            InvalidProject: A parameter isn't known, or the project names no base.
            MissingExtra: gepa isn't installed.
            InvalidData: There are no rows, or they all have one label.
        """
        parameters = dict(job.parameters)
        reflection = parameters.pop(REFLECTION, None)
        if reflection is not None and not isinstance(reflection, Mapping):
            raise InvalidProject("reflection isn't a model.", "Write upstream and model below it, or gguf.")
        options = read_options(Options, "prompt", parameters)
        base, gepa = named(job.base), _gepa()
        done = finished(job)
        if done is not None:
            return done
        train, held = read_rows(job.train), read_rows(job.holdout)
        prompt = replace(first_prompt(job, options, base, train), examples=options.examples)
        asked = open_base(base, at=job.base.get(AT))
        thinker = asked
        try:
            if reflection is not None:
                thinker = open_base(named(reflection), at=job.base.get(REFLECTION_AT))
            return _train(job, options, prompt, asked, thinker, gepa, train, held)
        finally:
            for each in {id(asked): asked, id(thinker): thinker}.values():
                each.close()


def _train(
    job: TrainingJob,
    options: Options,
    prompt: Prompt,
    asked: Asked,
    thinker: Asked,
    gepa: Any,
    train: Columns,
    held: Columns,
) -> TrainingResult:
    begun, notes = time.perf_counter(), Notebook(job.folder, "asked")
    kept = newest(train, options)
    shown, tuned = split(train, options, job.seed)
    rewriting = _Rewriting(job, prompt, asked, Examples(shown), notes, options.calls)
    result = gepa.optimize(
        seed_candidate={PART: prompt.messages[0]["content"]},
        trainset=shown[: 4 * options.tune_rows],
        valset=tuned,
        adapter=rewriting.adapter(gepa),
        reflection_lm=_reflecting(thinker, notes),
        max_metric_calls=options.calls,
        reflection_minibatch_size=options.minibatch,
        seed=job.seed,
        logger=SimpleNamespace(log=lambda *_: None),
        display_progress_bar=False,
    )
    best = rewriting.with_instruction(result.best_candidate[PART])
    rows = list(zip(held["text"], held["label"], strict=True))
    said = ask(Prompted(best, asked, Examples(kept)), rows, notes, job.task, "holdout")
    scores = list(result.val_aggregate_scores)
    metrics = {"tune_score_before": scores[0], "tune_score_after": max(scores), "candidates": float(len(scores))}
    parameters = asdict(options) | {"trainer": "prompt", "base": base_name(prompt.base), "reflection": thinker.url}
    parameters["instruction"] = best.messages[0]["content"][:500]
    seconds = time.perf_counter() - begun

    def registered(mlflow: Any) -> None:
        mlflow.set_tag("noria.prompt", register(mlflow, job, best))

    return keep(job, best, kept, said, train, held, parameters, metrics, seconds, also=registered)


class _Rewriting:
    """What GEPA asks of us: how good an instruction is on some rows, and what to show of that."""

    def __init__(
        self, job: TrainingJob, prompt: Prompt, asked: Asked, examples: Examples, notes: Notebook, budget: int
    ) -> None:
        self._job, self._prompt, self._asked, self._examples, self._notes = job, prompt, asked, examples, notes
        self._progress, self._budget, self._used = Progress(job.progress), budget, 0

    def with_instruction(self, instruction: str) -> Prompt:
        """The prompt with another instruction, which has to name the labels."""
        if self._prompt.labels and LABELS not in instruction:
            instruction = f"{instruction.rstrip()}\nAnswer with exactly one of these labels: {LABELS}."
        return replace(self._prompt, messages=[{"role": "system", "content": instruction}, *self._prompt.messages[1:]])

    def adapter(self, gepa: Any) -> Any:
        """As GEPA takes it."""

        def evaluate(batch: Sequence[Example], candidate: Mapping[str, str], capture_traces: bool = False) -> Any:
            said = self._ask(candidate[PART], batch)
            scores = [self._score(answer, wanted) for answer, (_, wanted) in zip(said.answers, batch, strict=True)]
            traces = list(zip(batch, said.answers, strict=True)) if capture_traces else None
            return gepa.EvaluationBatch(outputs=said.answers, scores=scores, trajectories=traces)

        def make_reflective_dataset(_candidate: Any, evaluated: Any, parts: Sequence[str]) -> dict[str, Any]:
            shown = [
                {
                    "Inputs": {"text": text},
                    "Generated Outputs": answer,
                    "Feedback": "Right." if mark == 1 else f"Wrong: {wanted!r} was wanted.",
                }
                for ((text, wanted), answer), mark in zip(evaluated.trajectories, evaluated.scores, strict=True)
            ]
            return dict.fromkeys(parts, shown)

        return SimpleNamespace(
            evaluate=evaluate, make_reflective_dataset=make_reflective_dataset, propose_new_texts=None
        )

    def _ask(self, instruction: str, batch: Sequence[Example]) -> Said:
        prompted = Prompted(self.with_instruction(instruction), self._asked, self._examples)
        said = ask(prompted, batch, self._notes, self._job.task, "tune")
        self._used += len(batch)
        reached = score(self._job.task, said, batch)
        self._progress.say(min(self._used, self._budget), self._budget, f"{reached:.3f} on {len(batch)} rows")
        return said

    def _score(self, answer: str, wanted: str) -> float:
        return likeness(answer, wanted).rouge_l if self._job.task == "chat" else float(answer == wanted)


def _reflecting(thinker: Asked, notes: Notebook) -> Callable[[Any], str]:
    """The reflecting model as GEPA calls it."""

    def reflect(said: Any) -> str:
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else list(said)
        [answer] = notes.answers(f"reflect {thinker_name}", [messages], lambda some: thinker.complete(some, _THOUGHT))
        return str(answer)

    thinker_name = thinker.url if thinker.url.startswith("upstream:") else "here"
    return reflect


def register(mlflow: Any, job: TrainingJob, prompt: Prompt) -> str:
    """A version of the prompt in MLflow's prompt registry, once; returns its URI."""
    name, template = f"{job.model}-prompt", [dict(message) for message in prompt.messages]
    known = mlflow.genai.load_prompt(f"prompts:/{name}@latest", allow_missing=True)
    if known is None or known.template != template:
        known = mlflow.genai.register_prompt(name=name, template=template, tags={"noria.run_id": job.run_id})
    return str(known.uri)


def _gepa() -> Any:
    try:
        import gepa
    except ImportError as error:
        raise MissingExtra("The trainer prompt needs gepa.", "Run pip install 'noria[prompt]'.") from error
    return gepa
