"""`noria feedback import`: what a file says of answers gets into the log, once."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from noria.cli import app
from noria.domain.errors import InvalidRequest

ASKED = [f"{n:032x}" for n in range(3)]


def run(project: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--project", str(project), *words])


def said(project: Path) -> list[dict]:
    sql = "SELECT request_id, label, score, comment, source FROM feedback ORDER BY request_id"
    return json.loads(run(project, "records", "query", sql, "--json").stdout)


def test_lines_of_json_are_put_into_the_log_once_however_often_they_are_imported(project, tmp_path):
    entries = [
        {"request_id": ASKED[0], "label": "positive"},
        {"request_id": ASKED[1], "score": 0.5, "comment": "write to jo@example.com", "source": "judge"},
    ]
    file = tmp_path / "said.jsonl"
    file.write_text("\n".join(map(json.dumps, entries)) + "\n\n")
    assert run(project, "feedback", "import", str(file)).stdout == "2 entries are in the log.\n"
    assert json.loads(run(project, "feedback", "import", str(file), "--json").stdout) == {"entries": 2}
    assert said(project) == [
        {"request_id": ASKED[0], "label": "positive", "score": None, "comment": None, "source": "human"},
        {"request_id": ASKED[1], "label": None, "score": 0.5, "comment": "write to [email]", "source": "judge"},
    ]


def test_a_table_is_put_into_the_log_and_empty_cells_say_nothing(project, tmp_path):
    file = tmp_path / "said.csv"
    file.write_text(f"request_id,label,score\n{ASKED[0]},positive,\n{ASKED[1]},,1\n")
    assert run(project, "feedback", "import", str(file)).exit_code == 0
    assert [(row["label"], row["score"]) for row in said(project)] == [("positive", None), (None, 1.0)]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("said.jsonl", f'{{"request_id":"{ASKED[0]}","label":"x"}}\nnonsense\n', "Line 2 of said.jsonl: An entry"),
        ("said.csv", f"request_id,score\n{ASKED[0]},1\n{ASKED[1]},7\n", "Line 3 of said.csv: `score`"),
        ("said.csv", f"request_id,label,stars\n{ASKED[0]},x,5\n", "Line 2 of said.csv: `stars`"),
        ("said.csv", "request_id,label\nnobody,x\n", "Line 2 of said.csv: `request_id`"),
        ("said.xlsx", "", "said.xlsx says no kind of file"),
    ],
)
def test_a_file_with_a_mistake_is_refused_as_a_whole_and_the_line_is_named(project, tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    done = run(project, "feedback", "import", str(tmp_path / name))
    assert isinstance(done.exception, InvalidRequest)
    assert problem in done.exception.problem
    assert said(project) == []


def test_a_file_that_is_not_there_is_said_so(project, tmp_path):
    refused = run(project, "feedback", "import", str(tmp_path / "no.csv")).exception
    assert isinstance(refused, InvalidRequest)
    assert refused.problem == f"{tmp_path / 'no.csv'} can't be read: No such file or directory."
