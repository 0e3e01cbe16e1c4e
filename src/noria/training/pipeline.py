"""A run: from labelled records to a registered candidate, one durable step after another.

`PIPELINE` says which. A worker that is killed goes on at the first step that isn't finished; each step can be repeated
without harm. A run that fails leaves its reason in the audit log and no candidate.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from noria.domain.audit import LOOP
from noria.domain.errors import Cancelled, NoriaError
from noria.domain.events import CandidateRegistered, RunFailed, RunStarted
from noria.domain.run import Run, RunState, StepDone
from noria.ports import Steps
from noria.training import datasets, stages
from noria.training.order import STEPS
from noria.training.sources import read_file
from noria.training.stages import Report, Stage, Workshop

PIPELINE: tuple[tuple[str, Stage], ...] = tuple(
    zip(
        STEPS,
        (
            stages.wait_for_labels,
            stages.take_snapshot,
            stages.validate,
            stages.train,
            stages.evaluate,
            stages.register,
            stages.write_card,
        ),
        strict=True,
    )
)
"""The steps of a run, in order."""


class Pipeline(Workshop):
    """Turns runs that were granted into candidates."""

    def execute(self, event: RunStarted, step: Steps) -> None:
        """Walk a run through the pipeline, and say how it ended."""
        run = self.state.get(Run, event.run_id)
        if run is None or run.state is not RunState.RUNNING:
            return
        reports: dict[str, Report] = {}
        try:
            for name, function in PIPELINE:
                reports[name] = step(name, self._do, event.run_id, name, function, dict(reports))
            step("finish", self._succeed, event.run_id, reports)
        except Cancelled:
            step("let go", self.registry.abandon, event.run_id)
        except NoriaError as error:
            step("let go", self.registry.abandon, event.run_id)
            step("fail", self._fail, event.run_id, str(error))

    def holdout(self, endpoint: str, run_id: str) -> datasets.HeldOut | None:
        """The rows that a version is judged on; None if there are none.

        What its run held out; for a version that no run of ours made, the project's own file (that nothing was learnt
        from it, whoever made the version answers for), else what the newest run held out.
        """
        run = self.state.get(Run, run_id) if run_id else None
        if run is None and not run_id:
            if (file := self.settings().project.endpoints[endpoint].holdout) is not None:
                return self._rows_of(endpoint, self.settings().root / file)
            finished = self.state.find(Run, endpoint=endpoint)
            run = next((each for each in finished if each.state is RunState.SUCCEEDED), None)
        if run is None or run.endpoint != endpoint:
            return None
        return datasets.read_holdout(self.work_dir(run.id))

    def learnt(self, endpoint: str, run_id: str) -> list[str] | None:
        """The texts that a run learnt from; None if there is no such run of ours, empty if they are gone."""
        run = self.state.get(Run, run_id) if run_id else None
        if run is None or run.endpoint != endpoint:
            return None
        return datasets.read_learnt(self.work_dir(run.id))

    def frozen(self, endpoint: str, file: Path) -> datasets.HeldOut:
        """The rows of a policy's frozen set, redacted like the endpoint's records.

        Raises:
            InvalidData: The file can't be used.
        """
        return self._rows_of(endpoint, file)

    def _rows_of(self, endpoint: str, file: Path) -> datasets.HeldOut:
        rows = read_file(file, self.redact(endpoint))
        return datasets.HeldOut(
            texts=tuple(row.text for row in rows),
            labels=tuple(row.label for row in rows),
            groups=tuple(row.group for row in rows),
            origins=tuple(row.origin for row in rows),
        )

    def _do(self, run_id: str, name: str, function: Stage, reports: Mapping[str, Report]) -> Report:
        """Do one step and write it down in the run."""
        run = self.demand_running(run_id)
        started = self.clock.now()
        report = function(self, run, reports)
        done = StepDone(
            name=name,
            started_at=started,
            finished_at=self.clock.now(),
            summary=report["summary"],
            numbers=report.get("numbers", {}),
        )
        fields = {name: report[name] for name in ("mlflow_run_id", "cost_usd") if name in report}
        self.progress(run_id, done, **fields)
        return report

    def _succeed(self, run_id: str, reports: Mapping[str, Report]) -> None:
        """End the run with its candidate: both or neither."""
        run = self.state.get(Run, run_id)
        assert run is not None, f"run {run_id} was there when it began"
        if run.state is not RunState.RUNNING:
            return
        version = reports["register"]["version"]
        evidence = {
            "run": run_id,
            "mlflow_run": run.mlflow_run_id,
            "checksum": reports["register"]["checksum"],
            **reports["evaluate"]["numbers"],
        }
        subject = f"{run.model}/{version}"
        with self.state.change(
            LOOP, "candidate.registered", subject, reason=run.trigger.reason, evidence=evidence
        ) as change:
            ended = replace(run, state=RunState.SUCCEEDED, version=version, finished_at=self.clock.now())
            change.put(ended)
            change.emit(CandidateRegistered(endpoint=run.endpoint, model=run.model, version=version, run_id=run_id))

    def _fail(self, run_id: str, error: str) -> None:
        """End the run without a candidate."""
        run = self.state.get(Run, run_id)
        if run is None or run.state is not RunState.RUNNING:
            return
        with self.state.change(LOOP, "run.failed", run_id, reason=error) as change:
            change.put(replace(run, state=RunState.FAILED, error=error, finished_at=self.clock.now()))
            change.emit(RunFailed(endpoint=run.endpoint, run_id=run_id))
