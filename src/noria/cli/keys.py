"""API keys: `noria key create`, `noria key list`, `noria key revoke`."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noria.cli.shared import (
    AsJson,
    By,
    Reason,
    Root,
    actor,
    duration,
    err,
    known,
    opened,
    out,
    print_json,
    print_table,
    when,
)
from noria.domain.errors import InvalidRequest
from noria.domain.key import KeyRole

if TYPE_CHECKING:
    from noria.domain.key import ApiKey
    from noria.domain.limits import Limits

key = typer.Typer(no_args_is_help=True, help="API keys: who may ask what, until when, and how much.")


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    key.command()(create)
    key.command("list")(list_keys)
    key.command()(revoke)
    app.add_typer(key, name="key")


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the log calls whoever uses it.")],
    project: Root,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="ENDPOINT", help="An endpoint that it may ask; again for more. Default is all."),
    ] = None,
    role: Annotated[
        list[KeyRole] | None,
        typer.Option(
            metavar="ROLE",
            help="client (ask, give feedback), viewer (console, status, metrics) or admin (both); again for more.",
            show_default="client",
        ),
    ] = None,
    expires: Annotated[str, typer.Option(metavar="DURATION", help="When it ends by itself: 12h, 30d.")] = "",
    requests_per_minute: Annotated[int | None, typer.Option(metavar="N", min=1, help="Most requests.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Most input and output tokens together.")
    ] = None,
    usd_per_day: Annotated[float | None, typer.Option(metavar="USD", help="Most money on a day, UTC.")] = None,
    by: By = "",
    reason: Reason = "",
    json: AsJson = False,
) -> None:
    """Make an API key.

    Its token is printed once; only its hash is kept. Once a key was made, nobody gets in without one.
    """
    from noria import bootstrap
    from noria.domain.limits import Limits
    from noria.governance import keys

    settings, state = opened(project)
    for one in endpoint or ():
        known(settings, one)
    if usd_per_day is not None and not 0 < usd_per_day < float("inf"):
        raise InvalidRequest("A budget is more than nothing.", "Say for example --usd-per-day 5.")
    first = not keys.any_ever(state)
    made, token = keys.create(
        state,
        bootstrap.clock(),
        name,
        actor(by),
        endpoints=endpoint or (),
        roles=role or (KeyRole.CLIENT,),
        expires_in=duration(expires, "--expires") if expires else None,
        limits=Limits(
            requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, usd_per_day=usd_per_day
        ),
        reason=reason,
    )
    if json:
        print_json({**_public(made, bootstrap.clock().now()), "token": token})
    else:
        out(token)
    err(f"This is the only time that the token of {name} ({made.id}) is shown: keep it where secrets are kept.")
    if first:
        err("It is the first key of this project: from now on every request needs one, the console's pages too.")


def list_keys(project: Root, json: AsJson = False) -> None:
    """Show the API keys, those that were revoked or expired too.

    Tokens are never shown: only their hashes are kept.
    """
    from noria import bootstrap
    from noria.governance import keys

    now = bootstrap.clock().now()
    settings, state = opened(project)
    spent = bootstrap.spending(settings)
    shown = [{**_public(one, now), "usd_today": spent(f"key:{one.id}")} for one in keys.every(state)]
    if json:
        print_json(shown)
        return
    print_table(
        ("name", "id", "state", "roles", "endpoints", "limits", "today", "created", "by", "expires"),
        [
            (
                one["name"],
                one["id"],
                one["state"],
                one["roles"],
                one["endpoints"] or "all",
                {limit: value for limit, value in one["limits"].items() if value is not None} or "none",
                f"${one['usd_today']:.4f}",
                one["created_at"],
                one["created_by"],
                one["expires_at"] and when(one["expires_at"]),
            )
            for one in shown
        ],
        "There are no API keys: only this machine can ask.",
    )


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME|ID", help="The key's name or id.")],
    project: Root,
    reason: Reason,
    by: By = "",
) -> None:
    """End an API key, within a second and for ever.

    Revoking the last one doesn't open the door: make a new one.
    """
    from noria import bootstrap
    from noria.governance import keys

    revoked = keys.revoke(opened(project)[1], bootstrap.clock(), name, actor(by), reason)
    out(f"revoked {revoked.name} ({revoked.id})")


def _public(one: "ApiKey", now: datetime) -> dict[str, Any]:
    """A key as values, with what it is now (`state`) and without its hash."""
    limits: Limits = one.limits
    return {
        "id": one.id,
        "name": one.name,
        "state": "revoked" if one.revoked_at else "expired" if one.expired(now) else "active",
        "roles": [role.value for role in one.roles],
        "endpoints": list(one.endpoints),
        "limits": {
            "requests_per_minute": limits.requests_per_minute,
            "tokens_per_minute": limits.tokens_per_minute,
            "usd_per_day": limits.usd_per_day,
        },
        "created_at": one.created_at,
        "created_by": one.created_by,
        "expires_at": one.expires_at,
        "revoked_at": one.revoked_at,
    }
