"""Run the loop and steer it: up, status, apply, retrain, rollback."""

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.cli.shared import (
    FILE_NAME,
    AsJson,
    By,
    Reason,
    Root,
    Yes,
    actor,
    console,
    err,
    known,
    opened,
    out,
    print_json,
)
from noria.domain.errors import InvalidProject, Refused

if TYPE_CHECKING:
    from noria.ports import StateStore
    from noria.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    for command in (up, status, apply, retrain, rollback):
        app.command()(command)


def up(
    project: Root,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.", show_default="server.host")
    ] = "",
    port: Annotated[
        int, typer.Option(metavar="N", max=65535, help="Port; 0 picks a free one.", show_default="server.port")
    ] = -1,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Run MLflow's own server too.")] = False,
) -> None:
    """Run the project: API, worker, model servers.

    Ctrl-C stops them in order.
    """
    from noria import bootstrap
    from noria.supervisor import Supervisor

    settings = _to_bring_up(project)
    server, keys = settings.project.server, bootstrap.keys_exist(settings)
    in_service = bootstrap.project_in_service(settings)
    port = server.port if port < 0 else port
    Supervisor(settings, host or server.host, port, mlflow, out, keys=keys, in_service=in_service).run()


def _to_bring_up(root: Path) -> "Settings":
    """The project in service; at a first start the file is checked and taken into service.

    Here, in one place, since two processes would do it at once. A file that was changed since is only mentioned.
    """
    from noria import bootstrap
    from noria.domain.status import AppliedProject
    from noria.projectfile import check_files, read_text

    settings, state = opened(root)
    if state.get(AppliedProject, bootstrap.APPLIED) is None:
        check_files(settings, read_text(root, FILE_NAME))
        return bootstrap.in_service(settings, state)
    try:
        if bootstrap.settings(root).project != settings.project:
            err("noria.yaml has changed since it was applied; `noria apply` takes the changes into service.")
    except InvalidProject as error:
        err(f"noria.yaml is in service as it was applied, since it can't be used as it is now: {error.problem}")
    return settings


def status(
    project: Root,
    json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every second until Ctrl-C.")] = False,
) -> None:
    """Show the loop at a glance.

    Versions, evidence, alerts, runs, rollouts, verdicts and the log; it works when nothing runs, too.
    """
    from noria.cli.status import look, view

    settings, state = opened(project)
    if json:
        print_json(look(settings, state))
    elif watch:
        from rich.live import Live

        first = view(look(settings, state))
        with Live(first, console=console(), screen=True, auto_refresh=False) as live, suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)
                live.update(view(look(settings, state)), refresh=True)
    else:
        console().print(view(look(settings, state)))


def apply(project: Root, yes: Yes = False, by: By = "", reason: Reason = "") -> None:
    """Take a changed noria.yaml into service.

    What changes is shown first, and kept in the audit trail.
    """
    from noria import bootstrap
    from noria.domain.status import AppliedProject
    from noria.projectfile import check_files, diff, parse_project, read_text
    from noria.settings.traffic import AT_START

    text = read_text(project, FILE_NAME)
    settings = parse_project(text, project)
    check_files(settings, text)
    state = bootstrap.state(settings)
    before = state.get(AppliedProject, bootstrap.APPLIED)
    if before is not None and before.text == text:
        out("noria.yaml is in service as it is.")
        return
    changes = diff(before.text, text) if before else "+ everything: this project was never applied"
    out(changes or "only comments and layout change")
    if not yes:
        typer.confirm("Take this into service?", abort=True)
    digest = bootstrap.apply(state, settings, text, actor(by), reason, changes)
    waits = "" if _is_up(settings) else " Nothing runs: `noria up` starts it."
    out(f"In service since now, as {digest[:12]}.{waits}")
    later = [f"server.{name}" for name in AT_START if f" server.{name}:" in changes]
    if later and not waits:
        out(f"{', '.join(later)}: what runs keeps the old value; stop `noria up` and start it again.")


def retrain(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Endpoint whose model is trained anew.")],
    project: Root,
    reason: Reason = "",
    by: By = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of it.")] = False,
) -> None:
    """Ask for a run of the training pipeline.

    A reason is needed, but for a dry run.
    """
    from noria import bootstrap
    from noria.training.asking import ask

    settings, state = opened(project)
    if dry_run:
        _would(settings, state, endpoint)
        return
    if not reason.strip():
        raise Refused("A run needs a reason.", "Say --reason: it stands in the audit trail.")
    ask(state, bootstrap.clock(), settings.project, endpoint, actor(by), reason)
    waits = "" if _is_up(settings) else " Nothing runs: it begins with the next `noria up`."
    out(f"A run for {endpoint} is asked for.{waits} `noria run list` shows it.")


def _would(settings: "Settings", state: "StateStore", endpoint: str) -> None:
    """Say what would become of a run that is asked for now."""
    from noria import bootstrap
    from noria.training.sources import count_labels
    from noria.training.triggers import Triggers

    training = known(settings, endpoint).training
    tables = bootstrap.records(settings)
    decision = Triggers(state, tables, bootstrap.clock(), lambda: settings.project).would(endpoint)
    if training is None or decision.hindrance:
        out(f"No run would begin: {decision.hindrance}.")
        raise typer.Exit(1)
    labels = count_labels(tables, endpoint)
    out(f"A run would begin: {training.trainer} would learn from {training.data} and {labels} labelled records.")


def rollback(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Endpoint to take back to its previous version.")],
    project: Root,
    reason: Reason,
    by: By = "",
) -> None:
    """Go back to the previous version at once.

    A rollout that is under way is stopped.
    """
    from noria import bootstrap

    settings, _ = opened(project)
    known(settings, endpoint)
    route = bootstrap.manual(settings).rollback(endpoint, actor(by), reason)
    out(f"{route.champion.ref} answers all of {endpoint} now.")


def _is_up(settings: "Settings") -> bool:
    from noria.supervisor import running

    return running(settings.run_dir) is not None
