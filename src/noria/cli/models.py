"""Model versions and their cards."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noria.cli.shared import AsJson, By, Reason, Root, actor, console, known, opened, out, print_json, print_table
from noria.domain.errors import NotReady, Refused

if TYPE_CHECKING:
    from noria.domain.model import ModelVersion

model = typer.Typer(no_args_is_help=True, help="Registered models and their versions.")
card = typer.Typer(no_args_is_help=True, help="Model cards.")


def add_to(app: typer.Typer) -> None:
    """Add this file's commands."""
    model.command("list")(model_list)
    model.command("add")(model_add)
    card.command("show")(card_show)
    app.add_typer(model, name="model")
    app.add_typer(card, name="card")


def model_list(project: Root, json: AsJson = False) -> None:
    """List every endpoint's versions.

    Newest first, with their aliases and metrics.
    """
    from noria import bootstrap

    settings, _ = opened(project)
    registry = bootstrap.registry(settings)
    rows: list[tuple[str, ModelVersion, list[str]]] = []
    for endpoint in settings.project.endpoints:
        name = settings.project.model_name(endpoint)
        aliases = registry.aliases(name)
        for found in registry.versions(name):
            rows.append((endpoint, found, sorted(a for a, version in aliases.items() if version == found.version)))
    if json:
        print_json([{"endpoint": endpoint, "aliases": named, **asdict(v)} for endpoint, v, named in rows])
        return
    print_table(
        ("endpoint", "version", "alias", "created", "flavor", "licence", "metrics"),
        [
            (endpoint, v.ref, ", ".join(named), v.created_at, v.flavor.value, v.licence, _metrics(v))
            for endpoint, v, named in rows
        ],
        "No version is registered yet; `noria up` brings every endpoint its first one.",
    )


def _metrics(version: "ModelVersion") -> str:
    """A version's first metrics."""
    return " ".join(f"{name}={value:.3g}" for name, value in list(version.metrics.items())[:4])


def model_add(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Endpoint that the version is for.")],
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="PATH of a model, hf:OWNER/REPO[/FILE][@REVISION], models:/NAME/VERSION, or UPSTREAM:MODEL.",
        ),
    ],
    project: Root,
    licence: Annotated[str, typer.Option(metavar="SPDX", help="SPDX identifier of the weights' licence.")] = "",
    source: Annotated[str, typer.Option(metavar="TEXT", help="Where the weights come from.")] = "",
    trust: Annotated[
        bool, typer.Option("--trust", help="Answer for files that can run code when loaded; needs --by and --reason.")
    ] = False,
    by: By = "",
    reason: Reason = "",
) -> None:
    """Register a model as a new version.

    A path is the folder of an MLflow model, a .gguf, .skops or .onnx file, or a folder with config.json
    and safetensors.
    Its gates and its rollout follow by themselves; a version that is there already is judged once more.
    """
    from noria import bootstrap
    from noria.training.adding import Wanted

    settings, state = opened(project)
    known(settings, endpoint)
    if trust and not by.strip():
        raise Refused("Trust is a person's, and has a reason.", "Say --by NAME and --reason TEXT.")
    wanted = Wanted(
        endpoint=endpoint, what=what, licence=licence, source=source, by=actor(by), reason=reason, trust=trust
    )
    version = bootstrap.additions(settings, state).add(wanted)
    out(f"{version.ref} is registered (SHA-256 {version.checksum[:12]}…); its gates are next: `noria status --watch`.")


def card_show(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Endpoint whose champion's card is shown.")],
    project: Root,
    version: Annotated[str, typer.Option(metavar="VERSION", help="A version or an alias.")] = "champion",
    raw: Annotated[bool, typer.Option("--raw", help="Print the Markdown as it is.")] = False,
) -> None:
    """Show a version's model card."""
    from noria import bootstrap

    settings, _ = opened(project)
    known(settings, endpoint)
    registry = bootstrap.registry(settings)
    found = registry.version(settings.project.model_name(endpoint), version)
    text = _card_text(registry.download(found, "card"), found.ref)
    if raw:
        out(text)
        return
    from rich.markdown import Markdown

    console().print(Markdown(text.split("---\n", 2)[2] if text.startswith("---\n") else text))


def _card_text(path: Path, ref: str) -> str:
    """The card's Markdown.

    Raises:
        NotReady: The version has none yet.
    """
    file = path / "README.md" if path.is_dir() else path
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        raise NotReady(f"{ref} has no card yet.", "It is written when the version is registered.") from None
