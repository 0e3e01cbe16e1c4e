"""Feedback over HTTP: checked, on disk before it is confirmed, and harmless when it is sent again."""

import pytest

from fakes.site import running

ID = "0" * 31 + "1"


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path) as made:
        yield made


async def test_a_label_is_on_disk_when_it_is_confirmed(site):
    status, answer, _ = await site.post("/feedback", {"request_id": ID, "label": "positive"})
    (written,) = site.feedback
    assert (status, answer) == (200, {"feedback_ids": [written.feedback_id]})
    assert (written.request_id, written.endpoint, written.label, written.source) == (ID, "triage", "positive", "human")


async def test_scores_comments_and_sources_are_taken_too(site):
    entry = {
        "request_id": ID,
        "endpoint": "assistant",
        "score": 0.5,
        "comment": "meh, ask ada@example.com",
        "source": "judge",
        "feedback_id": "f1",
    }
    assert (await site.post("/feedback", entry))[1] == {"feedback_ids": ["f1"]}
    (written,) = site.feedback
    assert (written.endpoint, written.score, written.source) == ("assistant", 0.5, "judge")
    assert "ada@example.com" not in written.comment


async def test_a_list_is_taken_as_a_whole_or_not_at_all(site):
    good = [{"request_id": ID, "label": str(n)} for n in range(5)]
    status, answer, _ = await site.post("/feedback", good)
    assert (status, len(set(answer["feedback_ids"]))) == (200, 5)
    assert (await site.post("/feedback", [*good, {"request_id": "nope", "label": "a"}]))[0] == 400
    assert len(site.feedback) == 5


async def test_the_same_entry_sent_again_has_the_same_identity(site):
    entry = {"request_id": ID, "label": "positive"}
    first, again, other = [
        (await site.post("/feedback", e))[1]["feedback_ids"][0] for e in (entry, entry, {**entry, "source": "judge"})
    ]
    assert first == again != other


async def test_numbers_and_booleans_are_labels_as_json_writes_them(site):
    for label in (3, True, 0.5):
        await site.post("/feedback", {"request_id": ID, "label": label})
    assert [f.label for f in site.feedback] == ["3", "true", "0.5"]


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"label": "a"}, "`request_id` is missing"),
        ({"request_id": "chatcmpl-1", "label": "a"}, "`request_id` is missing or not one of Noria's"),
        ({"request_id": ID}, "says nothing"),
        ({"request_id": ID, "label": ""}, "`label` is empty"),
        ({"request_id": ID, "label": ["a"]}, "`label` is empty or not a plain value"),
        ({"request_id": ID, "score": 1.5}, "`score` is not a number between 0 and 1"),
        ({"request_id": ID, "score": True}, "`score` is not a number"),
        ({"request_id": ID, "score": "1"}, "`score` is not a number"),
        ({"request_id": ID, "comment": 1}, "`comment` is not a text"),
        ({"request_id": ID, "label": "a", "source": "x" * 201}, "`source` is not a text of at most 200"),
        ({"request_id": ID, "label": "a", "lable": "b"}, "`lable` is not a field"),
        ([], "The list holds 0 entries"),
        ([{"request_id": ID, "label": "a"}] * 1001, "The list holds 1001 entries"),
        (["a"], "An entry is not an object"),
        ("a", "An entry is not an object"),
    ],
)
async def test_an_entry_that_cannot_be_understood_is_refused_with_its_field(site, entry, names):
    status, problem, headers = await site.post("/feedback", entry)
    assert (status, site.feedback) == (400, [])
    assert names in problem["message"]
    assert problem["remedy"]
    assert headers["x-request-id"]


async def test_an_endpoint_that_nobody_knows_is_told(site):
    status, problem, _ = await site.post("/feedback", {"request_id": ID, "label": "a", "endpoint": "nope"})
    assert (status, problem["error_code"]) == (404, "unknown_endpoint")


async def test_a_full_log_confirms_nothing(site):
    site.spool.full = True
    status, problem, headers = await site.post("/feedback", {"request_id": ID, "label": "a"})
    assert (status, problem["error_code"], headers["retry-after"]) == (503, "log_unavailable", "1")


async def test_feedback_is_posted(site):
    status, _, headers = await site.get("/feedback")
    assert (status, headers["allow"]) == (405, "POST")
