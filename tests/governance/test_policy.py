"""Policy files: what they say, what is wrong with them, and what changes their hash."""

from datetime import date, timedelta

import pytest

from noria.domain.errors import InvalidProject
from noria.governance.policy import expired, load_policy

TEXT = """\
name: triage
intended_use: Sort messages by mood.
forbidden_use:
  - Judge a person.
owner: care team
review_by: 2027-12-31
rules:
  margin: 0.05
"""


def written(folder, text):
    path = folder / "policies" / "triage.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_policy_is_read_with_its_hash(tmp_path):
    policy, digest = load_policy(written(tmp_path, TEXT))
    assert policy.rules.margin == 0.05
    assert policy.owner == "care team"
    assert len(digest) == 64


def test_the_hash_is_of_what_it_says_not_of_how_it_is_laid_out(tmp_path):
    _, before = load_policy(written(tmp_path, TEXT))
    _, commented = load_policy(written(tmp_path, f"# why\n{TEXT}languages: [en]\n"))
    _, changed = load_policy(written(tmp_path, TEXT.replace("0.05", "0.06")))
    assert commented == before
    assert changed != before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEXT.replace("margin: 0.05", "margin: 2"), r"policies/triage\.yaml:8: rules\.margin"),
        (TEXT.replace("owner: care team\n", ""), "owner"),
        (TEXT.replace("rules:", "ruels:"), r"policies/triage\.yaml:7: ruels"),
        (TEXT.replace("2027-12-31", "soon"), r"policies/triage\.yaml:6: review_by"),
        (TEXT.replace("2027-12-31", "2027-13-31"), "2027-13-31 is not a day"),
        ("name: [", r"policies/triage\.yaml:"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, text, says):
    with pytest.raises(InvalidProject, match=says):
        load_policy(written(tmp_path, text))


def test_a_policy_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidProject, match=r"triage\.yaml"):
        load_policy(tmp_path / "triage.yaml")


def test_a_policy_is_good_on_its_last_day_and_expired_on_the_next():
    assert not expired("2027-12-31", date(2027, 12, 31))
    assert expired("2027-12-31", date(2028, 1, 1))


def test_a_policy_asks_people_only_where_it_says_so(tmp_path):
    assert load_policy(written(tmp_path, TEXT))[0].approval is None
    asking, _ = load_policy(written(tmp_path, f"{TEXT}approval: {{people: [' ada '], expires: 36h}}\n"))
    assert asking.approval.people == ("ada",)
    assert (asking.approval.expires, asking.approval.four_eyes) == (timedelta(hours=36), True)
    assert load_policy(written(tmp_path, f"{TEXT}approval: {{}}\n"))[0].approval.expires == timedelta(days=3)


@pytest.mark.parametrize("wrong", ["{expires: 0s}", "{people: ['']}", "{roles: [owner]}", "{four_eyes: perhaps}"])
def test_a_mistake_in_what_it_asks_of_people_is_named_with_its_place(tmp_path, wrong):
    with pytest.raises(InvalidProject, match=r"policies/triage\.yaml:9: approval"):
        load_policy(written(tmp_path, f"{TEXT}approval: {wrong}\n"))
