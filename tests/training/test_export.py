import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noria.domain.errors import InvalidData
from noria.training.datasets import SCHEMA
from noria.training.datasets.export import examples, lengths

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {"text": "late again", "label": "bad"},
        {"text": "Hi", "label": "Hello!", "messages": json.dumps(CHAT), "rejected": "Go away"},
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "train.parquet")
    return tmp_path


def test_rows_become_chats_that_end_with_what_was_wanted(folder: Path) -> None:
    label, chat = examples(folder, "train")
    assert label["messages"] == [{"role": "user", "content": "late again"}, {"role": "assistant", "content": "bad"}]
    assert chat["messages"] == [*CHAT, {"role": "assistant", "content": "Hello!"}]


def test_preferences_are_of_rows_with_a_rejected_answer_only(folder: Path) -> None:
    (pair,) = examples(folder, "train", preference=True)
    assert pair["input"] == {"messages": CHAT}
    assert pair["preferred_output"] == [{"role": "assistant", "content": "Hello!"}]
    assert pair["non_preferred_output"] == [{"role": "assistant", "content": "Go away"}]


def test_what_is_too_long_is_counted(folder: Path) -> None:
    found = lengths(examples(folder, "train"), 30)
    assert (found.examples, found.too_long) == (2, 1)
    assert found.longest > 30
    assert lengths(iter(()), 30).longest == 0


def test_a_folder_without_rows_is_explained(folder: Path) -> None:
    with pytest.raises(InvalidData, match="has no dataset"):
        next(examples(folder, "holdout"))
