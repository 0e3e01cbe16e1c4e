"""Documents fail with the code: what they name exists, where they point leads somewhere, what they show runs."""

import ast
import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from noria import bootstrap
from noria.cli import app
from noria.projectfile import advice, parse_project, parse_yaml
from noria.settings import Policy, Project

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("src/noria/templates/*.yaml"), ROOT / "Makefile"]
)
MARKDOWN = [page for page in PAGES if page.suffix == ".md"]
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLE = "project: example\nendpoints: {a: {task: classification, policy: p.yaml, training: {data: d.csv}}}\n"
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\((?P<to>[^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of every fenced block."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield match["language"], match["text"]


def commands_in(page: Path) -> Iterator[list[str]]:
    """Every `noria …` in the page's code, in blocks and in sentences, as argument lists."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line for language, block in blocks(page) if language in ("", "sh", "bash", "ini") for line in block.splitlines()
    ]
    lines += re.findall(r"`((?:noria) [^`\n]+)`", BLOCK.sub("", text))
    for line in lines:
        for part in re.split(r"&&|;(?![^\"]*\")", line.split(" #")[0]):
            words = shlex.split(part, comments=True) if part.count('"') % 2 == 0 and part.count("'") % 2 == 0 else []
            starts = [i for i, word in enumerate(words) if word == "noria" or word.endswith("/noria")]
            if starts and (starts[0] == 0 or words[0].startswith("ExecStart")):
                yield words[starts[0] + 1 :]


@functools.cache
def command_tree() -> Any:
    return typer.main.get_command(app)


def wrong_with(words: list[str]) -> str:
    """Why a command line can't be meant; empty if it can."""
    command: Any = command_tree()
    rest = list(words)
    while hasattr(command, "commands"):
        if rest[:1] == ["--project"]:
            rest = rest[2:]
        if not rest or rest[0] in ("…", "..."):
            return ""
        if rest[0] not in command.commands:
            return f"there is no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if word.startswith("-") and word.split("=")[0] not in options | {"--help", "-h"}:
            return f"there is no option {word}"
    return ""


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    wrong = {" ".join(words): problem for words in commands_in(page) if (problem := wrong_with(words))}
    assert wrong == {}


def test_the_check_of_commands_notices_what_does_not_exist() -> None:
    assert wrong_with(["statsu"]) == "there is no command statsu"
    assert wrong_with(["audit", "verify", "--jsn"]) == "there is no option --jsn"
    assert wrong_with(["--project", "x", "audit", "verify", "--json"]) == ""


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    sections = "|".join(name for name, field in Project.model_fields.items() if name != "project")
    named = re.findall(rf"`((?:{sections})(?:\.[A-Za-z_\[\]]+)+)`", page.read_text(encoding="utf-8"))
    unknown = [key for key in named if advice.type_at(Project, _path(key)) is None]
    assert unknown == []


def _path(key: str) -> tuple[str | int, ...]:
    """A dotted key as a path; NAME stands for any name."""
    return tuple(
        part for dotted in key.split(".") for part in ([dotted[:-2], 0] if dotted.endswith("[]") else [dotted])
    )


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_yaml_example_is_valid(page: Path) -> None:
    for language, text in blocks(page):
        if language != "yaml":
            continue
        keys = yaml.safe_load(text)
        if "intended_use" in keys:
            parse_yaml(text, Policy, name_of(page))
        elif "endpoints" in keys or "project" in keys:
            parse_project(text if "project" in keys else f"project: example\n{text}", ROOT, name_of(page))


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    targets = [match["to"].partition("#")[0] for match in LINK.finditer(text)]
    local = [target for target in targets if target and "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_python_example_compiles(page: Path) -> None:
    for language, text in blocks(page):
        if language == "python":
            ast.parse(text)


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert named - targets == set()


def test_the_reference_is_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_every_environment_variable_is_in_the_reference() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    read = set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", sources))
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert {
        name
        for name in read
        if name.startswith(("NORIA", "MLFLOW_TRACKING", "APPLICATIONINSIGHTS")) and f"`{name}`" not in page
    } == set()


def test_every_how_to_is_in_the_list() -> None:
    folder = ROOT / "docs" / "how-to"
    listed = set(re.findall(r"\(([a-z-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in folder.glob("*.md")} - {"README.md"}


def strings_in(path: Path) -> Iterator[str]:
    """Every string of a Python file, docstrings too; the whole text of a template."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_command_that_a_message_names_exists() -> None:
    known = set(command_tree().commands) | {"--project"}
    sources = [path for path in (ROOT / "src").rglob("*") if path.suffix in (".py", ".j2", ".yaml")]
    named = {
        (name_of(path), word)
        for path in sources
        for text in strings_in(path)
        for word in re.findall(r"(?<![./\w-])noria (-?-?[a-z]+)", text)
    }
    assert {(where, word) for where, word in named if word not in known} == set()


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_query_that_a_page_shows_is_answered(page: Path, tmp_path: Path) -> None:
    tables = bootstrap.records(parse_project(EXAMPLE, tmp_path))
    for words in commands_in(page):
        if words[:2] == ["records", "query"] and len(words) > 2:
            tables.query(words[2])


def metrics_shown() -> dict[str, set[str]]:
    """Metric → labels, as the reference has them."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(noria_\w+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    shown = {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels in rows}
    for name, kind, _ in rows:
        if kind == "histogram":
            shown |= {f"{name}{end}": shown[name] | {"le"} for end in ("_bucket", "_sum", "_count")}
    return shown


@pytest.mark.parametrize("page", MARKDOWN, ids=name_of)
def test_every_metric_that_a_page_names_exists_with_the_labels_that_it_asks_for(page: Path) -> None:
    shown = metrics_shown()
    text = page.read_text(encoding="utf-8")
    assert {name for name in re.findall(r"\bnoria_[a-z_]+\b", text) if name not in shown} == set()
    for name, selector in re.findall(r"\b(noria_[a-z_]+)\{([^}]*)\}", text):
        assert set(re.findall(r"(\w+)\s*[!=]", selector)) <= shown[name]
    for wanted, name in re.findall(r"by \(([^)]*)\) \((?:rate|increase)?\(?(noria_[a-z_]+)", text):
        assert {label.strip() for label in wanted.split(",")} <= shown[name]
