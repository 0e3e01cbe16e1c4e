"""Verdicts: what the gates decided about a version, and what people say to it."""

from typing import TYPE_CHECKING, Annotated

import typer

from noria.cli.shared import AsJson, Reason, Root, known, opened, out, print_json, print_table
from noria.domain.errors import NoriaError

if TYPE_CHECKING:
    from noria.domain.approval import Approval
    from noria.domain.gate import Verdict
    from noria.ports import StateStore
    from noria.release.approvals import Approvals

verdict = typer.Typer(no_args_is_help=True, help="What the gates decided about a version, and people said to it.")
Which = Annotated[
    str, typer.Argument(metavar="ENDPOINT|ID", help="An endpoint (its newest verdict) or a verdict's id.")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the verdict that waits; noria verdict list shows it.")]


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    verdict.command("list")(verdict_list)
    verdict.command("show")(verdict_show)
    verdict.command("approve")(verdict_approve)
    verdict.command("refuse")(verdict_refuse)
    verdict.command("override")(verdict_override)
    app.add_typer(verdict, name="verdict")


def verdict_list(
    project: Root,
    endpoint: Annotated[str, typer.Option(metavar="NAME", help="Only this endpoint's.")] = "",
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that wait for approval.")] = False,
    json: AsJson = False,
) -> None:
    """List verdicts, newest first, with what waits for whom."""
    from noria.api.status import verdict_status
    from noria.domain.approval import Approval
    from noria.domain.gate import Verdict

    settings, state = opened(project)
    if endpoint:
        known(settings, endpoint)
    found = [
        (each, verdict_status(each, state.get(Approval, each.id)))
        for each in state.find(Verdict, endpoint=endpoint or None)
    ]
    found = [(each, said) for each, said in found if not waiting or said["standing"] == "waiting"]
    if json:
        print_json([said for _, said in found])
        return
    print_table(
        ("id", "endpoint", "version", "", "decided", "why it gets no traffic"),
        [(v.id, v.endpoint, v.ref, said["standing"], v.decided_at, said["obstacle"]) for v, said in found],
        "No verdict waits for approval." if waiting else "No candidate has been judged yet.",
    )


def verdict_show(which: Which, project: Root, json: AsJson = False) -> None:
    """Show what each gate found, against what, and whom it waits for."""
    from noria.api.status import verdict_status
    from noria.domain.approval import Approval, standing

    state = opened(project)[1]
    found = _verdict(state, which)
    approval = state.get(Approval, found.id)
    if json:
        print_json(verdict_status(found, approval))
        return
    decided = standing(found, None) if not found.needs_approval else "passed"
    out(f"{found.id}: {found.ref} for {found.endpoint} {decided} at {found.decided_at:%Y-%m-%d %H:%M}")
    out(f"compared with {found.champion or 'nobody: the first version'}; policy {found.policy_hash[:12]}")
    if found.override_by:
        out(f"overridden by {found.override_by}: {found.override_reason}")
    if approval is not None:
        _tell(approval)
    print_table(
        ("gate", "", "what it found"),
        [(r.gate, "passed" if r.passed else "FAILED", r.summary) for r in found.results],
        "No gate has run.",
    )


def verdict_approve(
    which: Id,
    project: Root,
    reason: Reason,
    by: Annotated[str, typer.Option(metavar="NAME", help="Your name: an approval is a person's.")],
) -> None:
    """Let a version that passed its gates go to its rollout.

    Where its policy asks for approval. Whoever asked for the run or uploaded the version may not, unless the policy
    says so; nor may anybody whom the policy doesn't name, if it names people.
    """
    approved = _approvals(project).approve(which, by, reason)
    out(f"Verdict {approved.verdict_id} is approved by {approved.by}; its rollout is next: `noria status --watch`.")


def verdict_refuse(
    which: Id,
    project: Root,
    reason: Reason,
    by: Annotated[str, typer.Option(metavar="NAME", help="Your name: a refusal is a person's.")],
) -> None:
    """Keep a version that passed its gates out of the traffic.

    By whoever might approve it. The version stays in the registry, and may be judged once more.
    """
    refused = _approvals(project).refuse(which, by, reason)
    out(f"Verdict {refused.verdict_id} is refused by {refused.by}; its version gets no traffic.")


def verdict_override(
    which: Which,
    project: Root,
    reason: Reason,
    by: Annotated[str, typer.Option(metavar="NAME", help="Your name: an override is a person's.")],
) -> None:
    """Let a version go to its rollout that the gates refused, or that nobody approved.

    By name and with a reason; both are kept for ever.
    """
    from noria import bootstrap

    settings, state = opened(project)
    found = _verdict(state, which)
    new = bootstrap.manual(settings).override(found.id, by, reason)
    out(f"{new.ref} goes to its rollout on {by}'s word ({new.id}).")


def _approvals(project: Root) -> "Approvals":
    from noria import bootstrap
    from noria.release.approvals import Approvals

    return Approvals(opened(project)[1], bootstrap.clock())


def _tell(approval: "Approval") -> None:
    """Where an approval stands, and what may be done."""
    out(f"it {approval.ending}" if approval.waits else approval.ending)
    if approval.requested_by:
        out(f"asked for by {', '.join(approval.requested_by)}")
    if approval.waits:
        out(f"noria verdict approve {approval.verdict_id} --by NAME --reason TEXT (or refuse)")


def _verdict(state: "StateStore", which: str) -> "Verdict":
    """A verdict by its id, or an endpoint's newest.

    Raises:
        NoriaError: There is none.
    """
    from noria.domain.gate import Verdict

    found = state.get(Verdict, which) or next(iter(state.find(Verdict, endpoint=which, limit=1)), None)
    if found is None:
        raise NoriaError(
            f"There is no verdict {which}, and none about an endpoint of that name.", "See `noria status`."
        )
    return found
