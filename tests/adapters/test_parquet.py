"""Parquet from callers is read in a process of its own, which comes back whatever becomes of it."""

import asyncio
import contextlib
import io
import json
import os
import signal

import numpy as np
import pandas as pd
import psutil
import pytest

from noria.adapters.tables import parquet as parquet_module
from noria.adapters.tables.parquet import ParquetReader, frame
from noria.domain.errors import InvalidRequest, Overloaded, RequestTooLarge


def written(table: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    table.to_parquet(file)
    return file.getvalue()


SMALL = written(pd.DataFrame({"text": ["a", "b"]}, index=["x", "y"]))
RESULT = {"dataframe_split": {"columns": ["text"], "data": [["a"], ["b"]]}}


@pytest.fixture
async def reader():
    made = ParquetReader()
    yield made
    await made.aclose()


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "noria.adapters.tables.parquet" in p.cmdline()]


async def test_tables_are_read_by_one_child_and_an_index_is_no_column(reader):
    assert children() == []
    answers = await asyncio.gather(*(reader.read(SMALL) for _ in range(5)))
    assert [json.loads(a) for a in answers] == [RESULT] * 5
    assert len(children()) == 1
    await reader.aclose()
    assert children() == []


async def test_a_machine_on_which_no_child_can_be_started_is_none_that_is_asked_wrongly(reader, monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(Overloaded, match="can be started"):
        await reader.read(SMALL)
    monkeypatch.undo()
    assert json.loads(await reader.read(SMALL)) == RESULT


async def test_nobody_waits_for_ever_for_the_files_of_others(reader, monkeypatch):
    assert json.loads(await reader.read(SMALL)) == RESULT
    [child] = children()
    monkeypatch.setattr(parquet_module, "LONGEST_S", 0.01)
    async with reader._turn:
        with pytest.raises(Overloaded, match="being read"):
            await reader.read(SMALL)
    monkeypatch.undo()
    assert json.loads(await reader.read(SMALL)) == RESULT
    assert children() == [child]


async def test_a_child_that_was_killed_is_replaced_by_the_next_file(reader):
    await reader.read(SMALL)
    os.kill(children()[0].pid, signal.SIGKILL)
    assert json.loads(await reader.read(SMALL)) == RESULT


async def test_a_file_that_takes_too_long_is_refused_and_the_next_one_is_read(reader, monkeypatch):
    await reader.read(SMALL)
    os.kill(children()[0].pid, signal.SIGSTOP)
    monkeypatch.setattr(parquet_module, "LONGEST_S", 0.3)
    with pytest.raises(InvalidRequest, match=r"within 0\.3 seconds"):
        await reader.read(SMALL)
    monkeypatch.setattr(parquet_module, "LONGEST_S", 20.0)
    assert json.loads(await reader.read(SMALL)) == RESULT


async def test_a_small_file_that_unpacks_to_very_much_is_refused(reader):
    bomb = written(pd.DataFrame({"text": ["abc" * 50] * 900_000}))
    assert len(bomb) < 100_000
    with pytest.raises(RequestTooLarge):
        await reader.read(bomb)
    rows = written(pd.DataFrame({"n": np.zeros(parquet_module.MOST_ROWS + 1, dtype=np.int8)}))
    with pytest.raises(RequestTooLarge, match="more than 1000000 rows"):
        await reader.read(rows)
    assert json.loads(await reader.read(SMALL)) == RESULT


async def test_bytes_that_are_broken_anywhere_are_refused_and_break_nothing(reader):
    whole = written(pd.DataFrame({"text": [f"text {n}" for n in range(50)], "n": range(50)}))
    chance = np.random.default_rng(7)
    for _ in range(60):
        broken = bytearray(whole)
        for place in chance.integers(0, len(whole), 8):
            broken[place] ^= int(chance.integers(1, 256))
        with contextlib.suppress(InvalidRequest, RequestTooLarge):
            json.loads(await reader.read(bytes(broken)))
    assert json.loads(await reader.read(SMALL)) == RESULT


def test_values_keep_their_meaning():
    table = pd.DataFrame(
        {
            "flag": [True],
            "count": [2**53],
            "list": [[1, 2]],
            "bytes": [b"x"],
            "when": pd.to_datetime(["2024-01-02T03:04:05.000000006"]),
            "kind": pd.Categorical(["a"]),
            "nothing": [None],
        }
    )
    row = json.loads(frame(written(table)))["dataframe_split"]["data"][0]
    assert row == [True, 2**53, [1, 2], "eA==", "2024-01-02T03:04:05", "a", None]
