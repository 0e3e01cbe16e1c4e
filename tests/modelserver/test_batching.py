"""Order, separation of callers, failures that stay alone, and limits."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.domain.errors import NotReady, Overloaded, UpstreamFailed
from noria.modelserver.batching import Answer, Batcher, Call


class Model:
    """Answers each row with itself in capitals, notes its batches, and waits while its gate is closed."""

    def __init__(self) -> None:
        self.batches: list[Call] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, call: Call) -> Answer:
        self.batches.append(call)
        self.entered.release()
        assert self.gate.wait(30)
        if "bad" in call.rows:
            raise ValueError("bad input")
        if "crash" in call.rows:
            raise RuntimeError("the model is broken")
        return Answer([row.upper() for row in call.rows], [{row: 1.0} for row in call.rows])

    async def busy(self) -> None:
        """Return once a call is in the model."""
        await asyncio.to_thread(self.entered.acquire)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def batcher(model: Model) -> Iterator[Batcher]:
    made = Batcher(model, max_batch=4, max_queue=8)
    yield made
    model.gate.set()
    made.close()


def call(*rows: str, **more: Any) -> Call:
    return Call(list(rows), **more)


async def waiting(batcher: Batcher, calls: list[Call]) -> list["asyncio.Task[Answer]"]:
    """Tasks that are in the queue, in this order."""
    tasks = [asyncio.create_task(batcher.submit(each)) for each in calls]
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_call_is_answered_at_once(batcher: Batcher, model: Model) -> None:
    assert await batcher.submit(call("a", "b")) == Answer(["A", "B"], [{"a": 1.0}, {"b": 1.0}])
    assert model.batches == [call("a", "b")]


async def test_what_gathers_while_the_model_is_busy_is_taken_together_in_order(batcher: Batcher, model: Model) -> None:
    model.gate.clear()
    first = await waiting(batcher, [call("a")])
    await model.busy()
    others = await waiting(batcher, [call("b"), call("c", "d"), call("e"), call("f")])
    model.gate.set()
    answers = [(await task).predictions for task in (*first, *others)]
    assert answers == [["A"], ["B"], ["C", "D"], ["E"], ["F"]]
    assert [batch.rows for batch in model.batches] == [["a"], ["b", "c", "d", "e"], ["f"]]


async def test_a_call_with_more_rows_than_a_batch_goes_alone(batcher: Batcher, model: Model) -> None:
    model.gate.clear()
    first = await waiting(batcher, [call("a")])
    await model.busy()
    others = await waiting(batcher, [call("b"), call(*"cdefgh"), call("i")])
    model.gate.set()
    await asyncio.gather(*first, *others)
    assert [len(batch.rows) for batch in model.batches] == [1, 1, 6, 1]


async def test_calls_of_different_shapes_are_never_put_together(batcher: Batcher, model: Model) -> None:
    model.gate.clear()
    first = await waiting(batcher, [call("a")])
    await model.busy()
    others = await waiting(batcher, [call("b", params="{}"), call("c", columns=("x",)), call("d", columns=("x",))])
    model.gate.set()
    await asyncio.gather(*first, *others)
    assert model.batches[1:] == [call("b", params="{}"), call("c", "d", columns=("x",))]


async def test_one_bad_input_fails_alone(batcher: Batcher, model: Model) -> None:
    model.gate.clear()
    first = await waiting(batcher, [call("a")])
    await model.busy()
    others = await waiting(batcher, [call("b"), call("bad"), call("c")])
    model.gate.set()
    await asyncio.gather(*first)
    assert (await others[0]).predictions == ["B"]
    with pytest.raises(ValueError, match="bad input"):
        await others[1]
    assert (await others[2]).predictions == ["C"]


async def test_a_model_that_raises_goes_on_with_the_next_call(batcher: Batcher) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        await batcher.submit(call("crash"))
    assert (await batcher.submit(call("a"))).predictions == ["A"]


async def test_a_caller_that_leaves_is_taken_out_of_the_queue(batcher: Batcher, model: Model) -> None:
    model.gate.clear()
    first = await waiting(batcher, [call("a")])
    await model.busy()
    leaver, stayer = await waiting(batcher, [call("b"), call("c")])
    leaver.cancel()
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(*first, stayer)
    assert [batch.rows for batch in model.batches] == [["a"], ["c"]]


async def test_a_caller_that_leaves_while_the_model_computes_disturbs_nobody(batcher: Batcher, model: Model) -> None:
    model.gate.clear()
    (leaver,) = await waiting(batcher, [call("a")])
    await model.busy()
    leaver.cancel()
    model.gate.set()
    assert (await batcher.submit(call("b"))).predictions == ["B"]


async def test_a_full_queue_turns_callers_away(batcher: Batcher, model: Model) -> None:
    model.gate.clear()
    first = await waiting(batcher, [call("a")])
    await model.busy()
    others = await waiting(batcher, [call("b")] * 8)
    with pytest.raises(Overloaded):
        await batcher.submit(call("c"))
    model.gate.set()
    await asyncio.gather(*first, *others)
    assert (await batcher.submit(call("c"))).predictions == ["C"]


async def test_closing_answers_what_waits_and_takes_nothing_new(model: Model) -> None:
    batcher = Batcher(model)
    model.gate.clear()
    tasks = await waiting(batcher, [call("a")])
    await model.busy()
    tasks += await waiting(batcher, [call("b")])
    closing = asyncio.create_task(asyncio.to_thread(batcher.close))
    await asyncio.sleep(0.1)
    with pytest.raises(NotReady):
        await batcher.submit(call("c"))
    model.gate.set()
    await closing
    assert [(await task).predictions for task in tasks] == [["A"], ["B"]]


async def test_a_model_that_loses_rows_is_a_failure() -> None:
    batcher = Batcher(lambda call: Answer(call.rows[1:]))
    with pytest.raises(UpstreamFailed, match="1 predictions for 2 rows"):
        await batcher.submit(call("a", "b"))
    batcher.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "bad", "crash"]), min_size=1, max_size=5), min_size=1, max_size=30))
def test_every_caller_gets_the_answer_to_its_own_rows(rows: list[list[str]]) -> None:
    async def ask_all() -> list[Answer | BaseException]:
        batcher = Batcher(Model(), max_batch=6, max_queue=100)
        try:
            return await asyncio.gather(*(batcher.submit(call(*each)) for each in rows), return_exceptions=True)
        finally:
            await asyncio.to_thread(batcher.close)

    for asked, answer in zip(rows, asyncio.run(ask_all()), strict=True):
        if "bad" in asked or "crash" in asked:
            assert isinstance(answer, ValueError if "bad" in asked else RuntimeError)
        else:
            assert isinstance(answer, Answer)
            assert answer.predictions == [row.upper() for row in asked]
