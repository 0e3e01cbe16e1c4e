"""Rollouts: what is on its way, how it does beside its champion, and what a person may do about it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.cli.shared import AsJson, By, Reason, Root, actor, known, opened, out, print_json, print_table, printable

if TYPE_CHECKING:
    from noria.domain.rollout import Rollout
    from noria.ports import StateStore
    from noria.release.steering import Steering
    from noria.settings import Settings

rollout = typer.Typer(no_args_is_help=True, help="Candidates on their way to the traffic.")
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Endpoint whose rollout is under way.")]
Which = Annotated[
    str, typer.Argument(metavar="ENDPOINT|ID", help="An endpoint (its newest rollout) or a rollout's id.")
]
SHOWN = 5
"""Requests with differing answers that are shown."""
_CUT = 60


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    rollout.command("list")(rollout_list)
    rollout.command("show")(rollout_show)
    rollout.command("pause")(rollout_pause)
    rollout.command("resume")(rollout_resume)
    rollout.command("abort")(rollout_abort)
    app.add_typer(rollout, name="rollout")


def rollout_list(
    project: Root,
    endpoint: Annotated[str, typer.Option(metavar="NAME", help="Only this endpoint's.")] = "",
    json: AsJson = False,
) -> None:
    """List rollouts, newest first."""
    from noria.api.status import rollout_status
    from noria.domain.rollout import Rollout

    settings, state = opened(project)
    if endpoint:
        known(settings, endpoint)
    found = state.find(Rollout, endpoint=endpoint or None, limit=100)
    if json:
        print_json([rollout_status(each) for each in found])
        return
    print_table(
        ("endpoint", "version", "stage", "traffic", "since", "why"),
        [(r.endpoint, r.ref, _stage(r), f"{r.weight} %", r.changed_at, _why(r)) for r in found],
        "No rollout yet: a candidate that passes its gates goes shadow, canary, champion.",
    )


def rollout_show(which: Which, project: Root, json: AsJson = False) -> None:
    """Show how a candidate does beside its champion.

    Counts and evidence of each guard, whether the shadow's answers were the same, and what happened.
    """
    from noria.api.status import rollout_status

    settings, state = opened(project)
    found = _find(state, which)
    examples = _differing(settings, found)
    if json:
        print_json(rollout_status(found) | {"examples": examples})
        return
    share = f" at {found.weight} % of the traffic" if found.weight else ""
    out(f"{found.ref} for {found.endpoint}: {_stage(found)}{share} (verdict {found.verdict_id})")
    if found.paused:
        out(f"paused by {found.paused}")
    out(_agreement(found))
    print_table(("guard", "candidate", "champion", "evidence", "rolls back at"), _guards(found), "No guard watches it.")
    if examples:
        out()
        print_table(("request", "champion said", "candidate said"), [tuple(e.values()) for e in examples], "")
    out()
    print_table(
        ("at", "stage", "traffic", "why"),
        [(change.at, change.stage.value, f"{change.weight} %", change.reason) for change in found.history],
        "It has only begun.",
    )


def rollout_pause(endpoint: Endpoint, project: Root, reason: Reason, by: By = "") -> None:
    """Let a candidate move no further up.

    Its guards stay awake: it is still rolled back if it does worse than its champion.
    """
    found = _steering(project, endpoint).pause(endpoint, actor(by), reason)
    out(f"{found.ref} stays {_place(found)} until noria rollout resume {endpoint}.")


def rollout_resume(endpoint: Endpoint, project: Root, reason: Reason, by: By = "") -> None:
    """Let a paused candidate go on from where it stands."""
    found = _steering(project, endpoint).resume(endpoint, actor(by), reason)
    out(f"{found.ref} goes on, {_place(found)}.")


def rollout_abort(endpoint: Endpoint, project: Root, reason: Reason, by: By = "") -> None:
    """Take a candidate out of the traffic for good.

    The champion answers everything at once. noria rollback does this too, and goes back to the champion before where
    no rollout is under way.
    """
    found = _steering(project, endpoint).abort(endpoint, actor(by), reason)
    out(f"{found.ref} is out of the traffic of {endpoint}.")


def _steering(project: Any, endpoint: str) -> "Steering":
    from noria import bootstrap
    from noria.release.steering import Steering

    settings, state = opened(project)
    known(settings, endpoint)
    return Steering(state, bootstrap.clock())


def _find(state: "StateStore", which: str) -> "Rollout":
    """A rollout by its id, or an endpoint's newest.

    Raises:
        Refused: There is none.
    """
    from noria.domain.errors import Refused
    from noria.domain.rollout import Rollout

    newest = state.get(Rollout, which) or next(iter(state.find(Rollout, endpoint=which, limit=1)), None)
    if newest is None:
        raise Refused(f"There is no rollout {which}, and none of an endpoint of that name.", "See noria rollout list.")
    return newest


def _stage(found: "Rollout") -> str:
    word = found.stage.value.replace("_", " ")
    return f"{word}, paused" if found.paused and not found.stage.finished else word


def _place(found: "Rollout") -> str:
    return f"at {found.weight} % of the traffic" if found.weight else f"in {found.stage.value}"


def _why(found: "Rollout") -> str:
    return found.history[-1].reason if found.history else ""


def _agreement(found: "Rollout") -> str:
    if not found.compared:
        return "No shadow answer was compared with its champion's yet."
    same, words = found.agreed / found.compared, found.similarity / found.compared
    return (
        f"Of {found.compared} requests that both answered in the shadow, {same:.1%} got the same answer; "
        f"on average {words:.1%} of the words are the same."
    )


def _guards(found: "Rollout") -> list[tuple[object, ...]]:
    from math import exp

    from noria.release.watched import GUARDS

    rows: list[tuple[object, ...]] = []
    for name in found.guards:
        guard = GUARDS[name]
        (bad, of), (bad_a, of_a) = guard.look(found.candidate), guard.look(found.champion)
        if found.stage.finished:  # all stages together: nothing more is counted
            bad_a, of_a, bad, of = found.past.get(name, (0, 0, 0, 0))
        evidence = exp(min(found.log_e.get(name, 0.0), 700))
        limit = f" (over {found.slow_ms:.0f} ms)" if name == "latency" and found.slow_ms else ""
        rows.append(
            (name, f"{bad} of {of} {guard.counts}{limit}", f"{bad_a} of {of_a}", evidence, exp(found.log_threshold))
        )
    return rows


def _differing(settings: "Settings", found: "Rollout") -> list[dict[str, str]]:
    """The first requests whose two answers differ, read from the log: what was erased there doesn't show here."""
    if not found.differing:
        return []
    from noria import bootstrap
    from noria.evaluation.payloads import outputs

    ids = ", ".join(f"'{name}'" for name in found.differing[:SHOWN])
    where = f"databricks_request_id IN ({ids}) OR shadow_of IN ({ids})"
    query = f"SELECT databricks_request_id AS id, shadow_of, response FROM inference WHERE {where}"  # noqa: S608
    rows = bootstrap.log(settings).query(query).to_pylist()
    said: dict[str, dict[str, str]] = {}
    for row in rows:
        name, side = (row["shadow_of"], "candidate") if row["shadow_of"] else (row["id"], "champion")
        text = printable(" ".join(outputs(row["response"] or "")))
        said.setdefault(name, {})[side] = text if len(text) <= _CUT else text[: _CUT - 1] + "…"
    return [
        {"request": name, "champion": said[name].get("champion", ""), "candidate": said[name].get("candidate", "")}
        for name in found.differing[:SHOWN]
        if name in said
    ]
