"""The examples that show how to call Noria are run as they stand, against a real server."""

import asyncio
import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from fakes.site import running
from fakes.upstream import reply, talker

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how-to/use-noria-from-the-openai-client.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CURL = re.findall(r"^curl .*$", PAGE + (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
WORDS = ("It", " is", " on", " its", " way.")


def predicts(asked):
    frame = asked.json.get("dataframe_split") or {"data": [[item] for item in asked.json["inputs"]]}
    return reply({"predictions": ["parcel" if "parcel" in row[0] else "other" for row in frame["data"]]})


@pytest.fixture
async def site(tmp_path):
    async with running(tmp_path, predicts, talker(*WORDS)) as made:
        yield made


def run(code: str) -> str:
    """What an example prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "example", "exec"), {"__name__": "__main__"})
    return said.getvalue()


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
async def test_every_python_example_works(site, code):
    said = await asyncio.to_thread(run, code.replace("http://127.0.0.1:8480", site.url))
    assert "It is on its way." in said or "parcel" in said
    assert {kind for kind, _ in site.endings} == {"answered"}


async def test_the_examples_say_what_they_promise(site):
    whole, stream, raw, _, lists, table = [
        await asyncio.to_thread(run, code.replace("http://127.0.0.1:8480", site.url)) for code in PYTHON
    ]
    assert whole == "It is on its way. 5\n['assistant']\n"
    assert stream == "It is on its way.\ntokens: 12\n"
    assert raw == "assistant/1 It is on its way.\n"
    assert lists == "['triage', 'assistant']\n{'predictions': ['parcel']}\n"
    assert table == "['parcel', 'other']\n"
    assert site.intents[0].client_request_id == ""
    assert "order-4711" in {intent.client_request_id for intent in site.intents}
    assert [(f.endpoint, f.score, f.comment) for f in site.feedback] == [("assistant", 1.0, "helped")]
    assert site.feedback[0].request_id in {intent.request_id for intent in site.intents}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", CURL)
async def test_every_curl_example_works(site, line):
    host = site.url.removeprefix("http://")
    command = re.sub(r"(127\.0\.0\.1|localhost):8480", host, line).replace('"…"', f'"{"0" * 32}"')
    done = await asyncio.to_thread(subprocess.run, [*shlex.split(command), "--fail"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.rpartition("\n\n")[2])
