"""Experiments: compare versions on callers, or beside the traffic on labelled rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.cli.shared import AsJson, By, Reason, Root, actor, err, known, opened, out, print_json, print_table
from noria.domain.experiment import Metric

if TYPE_CHECKING:
    from noria.domain.experiment import Experiment
    from noria.ports import StateStore
    from noria.settings import Settings

experiment = typer.Typer(no_args_is_help=True, help="Versions compared with one another.")
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Endpoint that the versions answer for.")]
Versions = Annotated[
    list[str],
    typer.Argument(metavar="VERSION...", help="MODEL/VERSION, or the number of a version of the endpoint's own model."),
]


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    experiment.command("start")(experiment_start)
    experiment.command("status")(experiment_status)
    experiment.command("list")(experiment_list)
    experiment.command("stop")(experiment_stop)
    experiment.command("run")(experiment_run)
    app.add_typer(experiment, name="experiment")


def experiment_start(
    endpoint: Endpoint,
    versions: Versions,
    project: Root,
    reason: Reason,
    by: By = "",
    metric: Annotated[Metric, typer.Option(help="By what the better version is found.")] = Metric.SUCCESS,
    max_requests: Annotated[int, typer.Option(min=1, metavar="N", help="Requests after which it ends.")] = 5000,
    alpha: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Chance of finding a difference where there is none.")
    ] = 0.05,
    margin: Annotated[
        float, typer.Option(min=0, help="Versions that differ by less are as good as equal; 0 to go on.")
    ] = 0.0,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="More traffic to what does better (Thompson sampling).")
    ] = False,
    floor: Annotated[
        int, typer.Option(min=1, max=50, help="Per cent that each version keeps of an adaptive split.")
    ] = 10,
    promote: Annotated[bool, typer.Option("--promote", help="Make a winner the champion.")] = False,
) -> None:
    """Compare versions with the champion on callers.

    The traffic is split among them; each needs a verdict that passed. It ends by itself when one is better, when a
    version fails more often than the champion, or at the last request; then the champion answers everything again,
    unless --promote was said.
    """
    from noria import bootstrap
    from noria.release.experimenting import Experimenting, Wanted

    settings, state = opened(project)
    known(settings, endpoint)
    made = Experimenting(state, bootstrap.clock()).start(
        Wanted(
            endpoint=endpoint,
            versions=versions,
            metric=metric,
            alpha=alpha,
            max_requests=max_requests,
            margin=margin,
            floor=floor if adaptive else 0,
            promote=promote,
            by=actor(by),
            reason=reason,
        )
    )
    names = ", ".join(f"{variant.ref} ({variant.weight} %)" for variant in made.variants)
    out(f"Experiment {made.id} begins: {names}. `noria experiment status {endpoint}` shows it.")


def experiment_status(
    which: Annotated[
        str, typer.Argument(metavar="ENDPOINT|ID", help="An endpoint (its newest experiment) or an experiment's id.")
    ],
    project: Root,
    json: AsJson = False,
) -> None:
    """Show each version's numbers, with intervals that hold whenever you look, and what they come to."""
    found = _find(opened(project)[1], which)
    if json:
        print_json(described(found))
        return
    _show(found)


def experiment_list(project: Root, json: AsJson = False) -> None:
    """List experiments, newest first."""
    from noria.domain.experiment import Experiment

    found = opened(project)[1].find(Experiment, limit=100)
    if json:
        print_json([described(each) for each in found])
        return
    print_table(
        ("experiment", "endpoint", "state", "versions", "requests", "what came of it"),
        [
            (e.id, e.endpoint, e.state.value, ", ".join(v.ref for v in e.variants), e.requests, _sentence(e))
            for e in found
        ],
        "No experiment yet; noria experiment start compares versions on callers.",
    )


def experiment_stop(endpoint: Endpoint, project: Root, reason: Reason, by: By = "") -> None:
    """End an experiment undecided; the champion answers everything again."""
    from noria import bootstrap
    from noria.release.experimenting import Experimenting

    settings, state = opened(project)
    known(settings, endpoint)
    stopped = Experimenting(state, bootstrap.clock()).stop(endpoint, actor(by), reason)
    out(f"Experiment {stopped.id} is over; {stopped.variants[0].ref} answers all of {endpoint}.")


def experiment_run(
    endpoint: Endpoint,
    versions: Versions,
    project: Root,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV or Parquet with text and label; default is what the last run held out."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="Rows that are asked at most.")] = 1000,
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Chance that any interval is wrong.")] = 0.05,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with a picture, too.")] = None,
    json: AsJson = False,
) -> None:
    """Compare versions on labelled rows, beside the traffic.

    Each is brought up where it would serve and asked the same rows. No verdict is needed, since no caller is answered.
    The first version is what the others are compared with.
    """
    from noria import bootstrap
    from noria.release.comparison_page import COLUMNS, cells, page

    settings, _ = opened(project)
    known(settings, endpoint)
    texts, labels, source = bootstrap.labelled_rows(settings, endpoint, data)
    model = settings.project.model_name(endpoint)
    refs = [f"{model}/{each}" if each.isdigit() else each for each in versions]
    with _kept_up(settings), bootstrap.offline(settings, endpoint, err) as compare:
        found = compare.compare(endpoint, refs, texts[:rows], labels[:rows], source, alpha)
    if html is not None:
        html.write_text(page(found), encoding="utf-8")
    if json:
        print_json(found.to_json())
        return
    out(f"{found.rows} rows from {found.data}: {found.sentence}")
    print_table(COLUMNS, [cells(row) for row in found.versions], "")


@contextmanager
def _kept_up(settings: "Settings") -> Iterator[None]:
    """Model servers end by themselves where no worker is; while nothing else runs here, this process stands for it."""
    from noria.domain.errors import AlreadyRunning
    from noria.worker import hold_lock

    try:
        lock = hold_lock(settings.run_dir / "worker.lock")
    except AlreadyRunning:
        yield
        return
    with lock:
        yield


def described(found: "Experiment") -> dict[str, Any]:
    """An experiment as JSON values: its own fields, its standings and the sentence that they come to."""
    from dataclasses import asdict

    from noria.release.standings import standings

    def numbers(intervals: Any) -> dict[str, Any]:
        return {name: [_finite(i.value), _finite(i.low), _finite(i.high)] for name, i in intervals.items()}

    rows = [
        {
            "ref": row.ref,
            "weight": row.weight,
            "requests": row.requests,
            "measures": numbers(row.measures),
            "against_champion": numbers(row.against),
        }
        for row in standings(found)
    ]
    shown = asdict(found)
    del shown["tallies"], shown["seen"], shown["weighed"]
    return {**shown, "requests": found.requests, "standings": rows, "sentence": _sentence(found)}


def _show(found: "Experiment") -> None:
    from noria.release.standings import shown, standings

    out(f"{found.id} on {found.endpoint}: {found.state.value}, {found.requests} requests of {found.max_requests}")
    out(_sentence(found))
    rows = standings(found)
    names = ("success", "errors", "latency", "latency_p95", "cost")
    print_table(
        ("version", "traffic", "requests", "success", "errors", "median", "95th percentile", "cost"),
        [(r.ref, f"{r.weight} %", r.requests, *(shown(name, r.measures[name]) for name in names)) for r in rows],
        "",
    )
    out()
    print_table(
        ("difference from the champion", "success", "errors", "median", "95th percentile", "cost"),
        [(r.ref, *(shown(name, r.against[name]) for name in names)) for r in rows[1:]],
        "",
    )
    sure = f"{1 - found.alpha:.0%}"
    out(f"Intervals of a measure hold together at every look with {sure} confidence; {found.metric} decides.")


def _sentence(found: "Experiment") -> str:
    from noria.release.standings import outcome

    return found.verdict or outcome(found).sentence


def _finite(value: float) -> float | None:
    return value if value - value == 0 else None


def _find(state: "StateStore", which: str) -> "Experiment":
    """An experiment by its id, or an endpoint's newest.

    Raises:
        Refused: There is none.
    """
    from noria.domain.errors import Refused
    from noria.domain.experiment import Experiment

    found = state.get(Experiment, which) or next(iter(state.find(Experiment, endpoint=which, limit=1)), None)
    if found is None:
        raise Refused(
            f"There is no experiment {which}, and none on an endpoint of that name.", "See noria experiment list."
        )
    return found
