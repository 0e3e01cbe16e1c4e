"""What a person is told about a project file that isn't right."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.domain.errors import InvalidProject
from noria.projectfile import (
    check_files,
    diff,
    json_schema,
    load_project,
    parse_project,
    parse_yaml,
)
from noria.settings import Policy, Project, Span

GOOD = """\
project: shop
endpoints:
  triage:
    task: classification
    policy: policies/triage.yaml
    training:
      data: data/messages.csv
"""
POLICY = """\
name: triage
intended_use: Sort customers' messages by mood.
forbidden_use: [decide about people]
owner: Ada
review_by: 2030-01-31
"""
TIMEOUT = "\n    timeout: 10s"


def problem_of(text: str) -> str:
    """What is said of a wrong project file."""
    with pytest.raises(InvalidProject) as caught:
        parse_project(text, Path())
    return caught.value.problem


def test_a_good_file_becomes_settings(tmp_path: Path) -> None:
    settings = parse_project(GOOD, tmp_path)
    assert settings.project.project == "shop"
    assert settings.root == tmp_path.resolve()


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("endpoints:", "endpoits:", 2, "endpoits: there is no such key; did you mean endpoints?"),
        ("classification", "clasification", 4, 'endpoints.triage.task: "clasification" isn\'t known; did you mean'),
        ("classification", "sorting", 4, "write one of classification, chat"),
        ("project: shop", "project: My Shop", 1, "write lower case letters, digits, - and _"),
        (
            "      data: data/messages.csv",
            "      seed: 3",
            6,
            "endpoints.triage.training.data: is missing; write `data:`",
        ),
        (
            "classification",
            "chat" + TIMEOUT.replace("10s", "10 parsecs"),
            5,
            "write a duration such as 10s, 5m, 1h or 1d",
        ),
        ("classification", "chat" + TIMEOUT.replace("10s", "0s"), 5, "write a duration above zero"),
        ("classification", "chat\n    redact: [email, fone]", 5, 'endpoints.triage.redact[1]: "fone" isn\'t known'),
        ("classification", "chat\n    monitors: {alpha: 2}", 5, "write a number below 1"),
        ("classification", "chat\n    rollout: {steps: [50, 10]}", 5, "write rising percentages between 1 and 99"),
        ("data/messages.csv", "data/messages.csv\n      schedule: every day", 8, "write a cron expression such as"),
        (
            "    training:\n      data: data/messages.csv\n",
            "",
            3,
            "give exactly one of training, gguf, registered, command, deployment",
        ),
        ("endpoints:", "default_endpoint: other\nendpoints:", 1, "name one of the endpoints below"),
        ("project: shop", "project: shop\nproject: shop", 2, "project: is written twice, first in line 1"),
        ("    policy: ", "\tpolicy: ", 5, "indent with spaces, not tabs"),
        ("policies/triage.yaml", "[", 7, "parsing a flow sequence that began in line 5"),
        ("task: classification", "task: &loop [*loop]", 4, "holds itself"),
        ("shop", "shop\x07", 1, "may not stand in YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line_its_key_and_what_to_write(old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    problem = problem_of(GOOD.replace(old, new, 1))
    assert f"noria.yaml:{line}: " in problem
    assert said in problem


def test_several_mistakes_are_all_listed_in_the_order_of_the_file() -> None:
    problem = problem_of(GOOD.replace("shop", "My Shop").replace("task", "tusk"))
    assert problem.startswith("3 mistakes:")
    assert [line.split(":")[1] for line in problem.splitlines()[1:]] == ["1", "3", "4"]


def test_a_file_that_is_not_a_mapping_is_told_which_keys_to_write() -> None:
    assert "write keys (project, default_endpoint" in problem_of("- shop\n")


def test_an_empty_file_is_told_what_is_missing() -> None:
    assert "project: is missing" in problem_of("")


def test_only_true_and_false_are_booleans_and_dates_stay_text() -> None:
    policy = parse_yaml(POLICY.replace("Ada", "no"), Policy, "policies/triage.yaml")
    assert policy.owner == "no"
    assert policy.review_by == "2030-01-31"


def test_a_policy_file_is_named_in_its_own_mistakes() -> None:
    with pytest.raises(InvalidProject) as caught:
        parse_yaml(POLICY.replace("2030-01-31", "soon"), Policy, "triage.yaml")
    assert caught.value.problem == 'triage.yaml:5: review_by: "soon" won\'t do; write a date as YYYY-MM-DD.'


def test_a_folder_without_a_project_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidProject, match=r"no noria\.yaml in") as caught:
        load_project(tmp_path)
    assert "noria init" in caught.value.remedy


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "noria.yaml").write_bytes(b"project: shop\n# caf\xe9\n")
    with pytest.raises(InvalidProject, match=r"noria\.yaml:2: this line isn't UTF-8"):
        load_project(tmp_path)


def test_a_folder_in_the_place_of_the_file_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "noria.yaml").mkdir()
    with pytest.raises(InvalidProject, match="can't be read"):
        load_project(tmp_path)


@pytest.mark.parametrize(("file", "there"), [("models/small.gguf", False), ("python:some_package/small.gguf", True)])
def test_a_model_file_beside_the_project_has_to_be_there_and_one_in_a_package_is_found_later(
    tmp_path: Path, file: str, there: bool
) -> None:
    text = (
        "project: shop\nendpoints:\n  a:\n    task: chat\n    policy: p.yaml\n"
        f'    gguf: {{gguf: "{file}", licence: MIT, source: ours}}\n'
    )
    with pytest.raises(InvalidProject) as caught:
        check_files(parse_project(text, tmp_path), text)
    assert ("noria.yaml:6: endpoints.a.gguf.gguf: there is no file models" not in caught.value.problem) is there


def test_files_that_the_project_names_and_nobody_wrote_are_listed_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(InvalidProject) as caught:
        check_files(parse_project(GOOD, tmp_path), GOOD)
    assert "noria.yaml:5: endpoints.triage.policy: there is no file policies/triage.yaml" in caught.value.problem
    assert "noria.yaml:7: endpoints.triage.training.data: there is no file data/messages.csv" in caught.value.problem


def test_a_project_whose_files_are_there_passes_and_a_wrong_policy_is_found(tmp_path: Path) -> None:
    for name, text in {"policies/triage.yaml": POLICY, "data/messages.csv": "text,label\n"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    settings = parse_project(GOOD, tmp_path)
    check_files(settings, GOOD)
    (tmp_path / "policies/triage.yaml").write_text(POLICY.replace("owner", "owned_by"))
    with pytest.raises(InvalidProject, match=r"policies/triage\.yaml:4: owned_by: there is no such key"):
        check_files(settings, GOOD)


def test_a_diff_names_keys_and_both_values() -> None:
    new = GOOD.replace("shop", "store").replace("    task: classification\n", "") + "    timeout: 5s\n"
    assert diff(GOOD, new).splitlines() == [
        '- endpoints.triage.task: "classification"',
        '+ endpoints.triage.timeout: "5s"',
        '~ project: "shop" → "store"',
    ]


def test_comments_and_layout_are_no_difference() -> None:
    assert diff(GOOD, "# the shop\n" + GOOD.replace("project: shop", "project:   'shop'")) == ""


def test_every_key_of_the_schema_that_a_person_writes_is_described() -> None:
    schema = json_schema()
    bare = [
        f"{owner}.{key}"
        for owner, part in [("Project", schema), *schema["$defs"].items()]
        for key, value in part.get("properties", {}).items()
        if owner != "Policy" and "description" not in value and "$ref" not in value and not _refers(value)
    ]
    assert bare == []
    assert set(schema["properties"]) == set(Project.model_fields)


def _refers(value: dict[str, object]) -> bool:
    """Whether a property's type is a part of its own, which has a description of its own."""
    return "$ref" in str(value)


@given(st.text())
def test_no_text_makes_the_parser_raise_anything_but_its_own_error(text: str) -> None:
    with contextlib.suppress(InvalidProject):
        parse_project(text, Path())


ELSEWHERE = """\
project: shop
upstreams:
  azure: {kind: azure, url: "https://r.openai.azure.com", key: AZURE_KEY}
endpoints:
  assistant:
    task: chat
    policy: policies/triage.yaml
    deployment: {upstream: azure, model: gpt-4o}
"""


def test_a_model_elsewhere_is_named_by_its_upstream(tmp_path: Path) -> None:
    project = parse_project(ELSEWHERE, tmp_path).project
    assert project.upstreams["azure"].key == "AZURE_KEY"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("upstream: azure", "upstream: other", "name one of the upstreams"),
        ("task: chat", "task: classification", "needs an upstream of kind mlflow or databricks"),
        (", key: AZURE_KEY", "", "name the environment variable that holds the key"),
        ("https://", "http://", "credentials go over https only"),
        ("https://", "https://ada:secret@", "without a user name or a password"),
        ("key: AZURE_KEY", "key: K, headers: {Authorization: x}", "is written by Noria itself"),
        ("key: AZURE_KEY", 'key: K, headers: {x-a: "b\\r\\nx-evil: 1"}', "each on one line"),
        ("kind: azure", "kind: openai, auth: entra", "auth: entra is for the kinds azure and databricks"),
        ("kind: azure", "kind: azure, api_version: ../x", "api_version"),
        (
            "deployment: {upstream: azure, model: gpt-4o}",
            "command: {run: [vllm, serve], licence: MIT, source: hub}",
            "write {port} where the command takes its port",
        ),
        (
            "deployment: {upstream: azure, model: gpt-4o}",
            'command: {run: [serve, "{port}"], wire: mlflow, licence: MIT, source: hub}',
            "write wire: mlflow for classification, wire: openai for chat",
        ),
    ],
)
def test_a_mistake_about_a_model_elsewhere_is_named(old: str, new: str, said: str) -> None:
    assert old in ELSEWHERE
    assert said in problem_of(ELSEWHERE.replace(old, new, 1))


SPARE = """\
  spare:
    task: chat
    policy: policies/triage.yaml
    gguf: {gguf: m.gguf, licence: MIT, source: here}
"""


@pytest.mark.parametrize(
    ("fallbacks", "said"),
    [
        ("[nobody]", "name other endpoints"),
        ("[triage]", "name other endpoints"),
        ("[spare]", "name endpoints of the same task"),
    ],
)
def test_a_fallback_that_could_never_answer_is_named(fallbacks: str, said: str) -> None:
    text = GOOD + f"    routing: {{fallbacks: {fallbacks}}}\n" + SPARE
    assert said in problem_of(text)


@pytest.mark.parametrize(
    ("sticky", "fine"), [("[tenant]", True), ('["header:x-team"]', True), ('["header:"]', False), ('["a b"]', False)]
)
def test_what_callers_are_known_by_is_a_key_or_a_header(sticky: str, fine: bool) -> None:
    text = GOOD + f"    routing: {{sticky: {sticky}}}\n"
    if fine:
        parse_project(text, Path())
    else:
        assert "sticky" in problem_of(text)


# --- monitors ---


def watched_as(monitors: str) -> str:
    return f"{GOOD}    monitors: {{{monitors}}}\n"


@pytest.mark.parametrize(
    "monitors",
    [
        "watch: [text, quality]",
        "watch: [input_length, error, feature.age, output_refusal]",
        "slices: [requester, model, metadata.team, prediction, feature.plan]",
        "window: 1h, granularities: [1d, 30d]",
        "baseline: first",
        "baseline: {since: 2026-01-01T00:00:00Z, until: 2026-02-01}",
        "floors: {quality: 0.8, error: 0.02}",
    ],
)
def test_monitors_may_watch_any_observed_column_in_slices_and_longer_windows(monitors: str, tmp_path: Path) -> None:
    parse_project(watched_as(monitors), tmp_path)


@pytest.mark.parametrize(
    ("monitors", "said"),
    [
        (
            "watch: [tone]",
            "tone can't be watched: write text, length, prediction, quality, judge:NAME, feature.NAME or one of",
        ),
        ("watch: [feature.]", "feature. can't be watched"),
        ("watch: [text, text]", "name each only once"),
        ("watch: [text, input]", "text is input, length is input_length"),
        ("slices: [execution_duration_ms]", "is no slice: write requester, model, metadata.KEY"),
        ("window: 1h, granularities: [90m]", "write whole multiples of window"),
        ("window: 1h, granularities: [1h]", "write whole multiples of window"),
        ("baseline: last", "training"),
        ("baseline: {since: 2026-02-01, until: 2026-01-01}", "until lies after its since"),
        ("floors: {input_length: 0.5}", "input_length has no floor: write quality, judge:NAME or one of"),
        ("floors: {quality: 80}", "80 won't do; write 1 or less"),
    ],
)
def test_a_monitor_that_cannot_be_is_said_plainly(monitors: str, said: str) -> None:
    assert said in problem_of(watched_as(monitors))


def test_a_span_without_a_time_zone_is_in_utc(tmp_path: Path) -> None:
    text = watched_as("baseline: {since: 2026-01-01, until: 2026-01-02T01:00:00+01:00}")
    baseline = parse_project(text, tmp_path).project.endpoints["triage"].monitors.baseline
    assert isinstance(baseline, Span)
    assert [baseline.since.isoformat(), baseline.until.isoformat()] == [
        "2026-01-01T00:00:00+00:00",
        "2026-01-02T00:00:00+00:00",
    ]


# --- where is counted ---


@pytest.mark.parametrize("master", ["local", "local[*]", "local[4]", "local[2,3]", "spark://10.0.0.1:7077", "yarn"])
def test_monitors_may_count_on_spark(master: str, tmp_path: Path) -> None:
    spark = f'compute: {{engine: spark, spark: {{master: "{master}", configuration: {{spark.executor.memory: 4g}}}}}}\n'
    compute = parse_project(GOOD + spark, tmp_path).project.compute
    assert (compute.engine, compute.spark.master) == ("spark", master)
    assert compute.spark.configuration == {"spark.executor.memory": "4g"}


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        ("engine: dask", "write one of local, spark"),
        ("processes: 0", "write 1 or more"),
        ("spark: {master: 'local[0]'}", "write local[N], local[*], spark://HOST:PORT, k8s://URL or yarn"),
        ("spark: {master: 'http://x'}", "write local[N], local[*], spark://HOST:PORT, k8s://URL or yarn"),
        ("spark: {configuration: {executor.memory: 4g}}", "begin executor.memory with spark."),
    ],
)
def test_an_engine_that_cannot_be_is_said_plainly(compute: str, said: str) -> None:
    assert said in problem_of(f"{GOOD}compute: {{{compute}}}\n")
