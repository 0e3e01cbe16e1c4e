"""`noria init`, `noria schema`, `noria version`, and how a command finds its project."""

import csv
import json
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from noria.cli import app
from noria.cli.shared import _root_of
from noria.cli.start import _next_year, _project_name, write_project
from noria.domain.errors import InvalidProject, Refused
from noria.projectfile import check_files, load_project, parse_yaml, read_text
from noria.settings import Policy
from noria.templates.starter import messages


def noria(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "noria.cli", *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("with_llm", [True, False])
def test_what_init_writes_is_valid_as_it_is(tmp_path: Path, with_llm: bool) -> None:
    write_project(tmp_path / "My Shop!", with_llm=with_llm)
    settings = load_project(tmp_path / "My Shop!")
    assert settings.project.project == "my-shop"
    assert ("assistant" in settings.project.endpoints) is with_llm
    check_files(settings, read_text(settings.root, "noria.yaml"))
    name = "policies/assistant.yaml"
    parse_yaml(read_text(settings.root, name), Policy, name)


def test_the_language_model_can_be_switched_on_by_taking_the_marks_away(project: Path) -> None:
    text = (project / "noria.yaml").read_text()
    head, _, rest = text.partition("#  assistant:")
    (project / "noria.yaml").write_text(head + "  assistant:" + rest.replace("\n#", "\n"))
    assert "assistant" in load_project(project).project.endpoints


def test_init_keeps_what_is_there_and_never_writes_over_a_project(project: Path) -> None:
    (project / "noria.yaml").unlink()
    (project / "policies" / "triage.yaml").write_text("mine")
    written = dict(write_project(project, with_llm=False))
    assert written[project / "policies" / "triage.yaml"] is False
    assert (project / "policies" / "triage.yaml").read_text() == "mine"
    with pytest.raises(Refused, match="is there already"):
        write_project(project, with_llm=False)


def test_editors_find_the_schema_that_init_leaves(project: Path) -> None:
    first = (project / "noria.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=.noria/noria.schema.json"
    assert json.loads((project / ".noria" / "noria.schema.json").read_text())["title"] == "noria.yaml"


def test_the_starter_messages_are_the_same_every_time_and_all_different() -> None:
    first = messages()
    assert first == messages()
    assert len({m.text for m in first}) == len(first) == 600
    groups = Counter(m.group for m in first)
    assert set(groups.values()) == {150}
    assert min(Counter(m.label for m in first).values()) > 150


def test_the_starter_file_has_the_columns_that_training_wants(project: Path) -> None:
    with (project / "data" / "messages.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"text", "label", "group"}
    assert {row["label"] for row in rows} == {"negative", "neutral", "positive"}


@pytest.mark.parametrize(
    ("folder", "name"),
    [("shop", "shop"), ("My Shop!", "my-shop"), ("_x_", "x"), ("日本", "project"), ("a" * 80, "a" * 63)],
)
def test_any_folder_gives_a_valid_project_name(folder: str, name: str) -> None:
    assert _project_name(Path("/") / folder) == name


def test_the_first_review_is_due_in_a_year_even_on_a_leap_day() -> None:
    assert _next_year(date(2027, 5, 1)) == date(2028, 5, 1)
    assert _next_year(date(2028, 2, 29)) == date(2029, 3, 1)


def test_init_says_what_to_do_next(tmp_path: Path) -> None:
    done = noria("init", "shop", cwd=tmp_path)
    assert done.returncode == 0
    assert "Next: cd shop && noria up" in done.stderr
    assert "synthetic" in done.stderr


def test_a_failure_is_two_lines_and_no_traceback(tmp_path: Path) -> None:
    done = noria("status", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first == f"error: There is no noria.yaml in {tmp_path} or in any folder above it."
    assert "noria init" in second


def test_a_folder_that_may_not_be_written_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = noria("init", str(tmp_path / "file" / "shop"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_project_is_the_nearest_one_above_or_the_one_that_is_named(project: Path, tmp_path: Path) -> None:
    def context(before: Path | None) -> SimpleNamespace:
        root = SimpleNamespace(params={"project": before})
        return SimpleNamespace(find_root=lambda: root)

    assert _root_of(context(None), project) == project
    assert _root_of(context(project), Path()) == project
    with pytest.raises(InvalidProject, match=r"no noria\.yaml in"):
        _root_of(context(None), tmp_path)


def test_the_schema_is_printed_and_written(tmp_path: Path) -> None:
    runner = CliRunner()
    printed = runner.invoke(app, ["schema"])
    assert json.loads(printed.stdout)["required"] == ["project", "endpoints"]
    runner.invoke(app, ["schema", "--to", str(tmp_path / "deep" / "schema.json")])
    assert json.loads((tmp_path / "deep" / "schema.json").read_text()) == json.loads(printed.stdout)


def test_help_imports_nothing_heavy() -> None:
    heavy = ("pydantic", "sqlalchemy", "mlflow", "pyarrow", "rich")
    code = f"import sys, noria.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_port_that_no_machine_has_is_refused(project: Path) -> None:
    refused = CliRunner().invoke(app, ["up", "--project", str(project), "--port", "99999"])
    assert refused.exit_code == 2
    assert "less than or equal to 65535" in refused.output
