"""Asking for a run, in any process: the loop decides whether it is granted, and says so in the audit trail."""

from noria.domain.errors import Refused, UnknownEndpoint
from noria.domain.events import RetrainRequested
from noria.ports import Clock, StateStore
from noria.settings import Project


def ask(state: StateStore, clock: Clock, project: Project, endpoint: str, actor: str, reason: str) -> RetrainRequested:
    """Ask for a run in somebody's name.

    Raises:
        UnknownEndpoint: The project has none of that name.
        Refused: Noria doesn't train its model, or nobody is named.
    """
    known = project.endpoints.get(endpoint)
    if known is None:
        raise UnknownEndpoint(
            f"This project has no endpoint {endpoint}.", f"Its endpoints: {', '.join(project.endpoints)}."
        )
    if known.training is None:
        raise Refused(
            f"{endpoint} serves a model file and is not trained.",
            f"Add another file with `noria model add {endpoint}`.",
        )
    if not actor.strip():
        raise Refused("A run needs somebody who asks for it.", "Say who.")
    event = RetrainRequested(endpoint=endpoint, actor=actor.strip(), reason=reason, at=clock.now())
    with state.change(actor.strip(), "retrain.requested", endpoint, reason=reason) as change:
        change.emit(event)
    return event
