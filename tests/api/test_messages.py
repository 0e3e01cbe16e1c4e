"""Bodies that come in pieces hold memory together, and give it back."""

import pytest

from noria.api.messages import Request, Room
from noria.domain.errors import Overloaded

MOST, SLOW_S = 10_000, 5.0
SCOPE = {"type": "http", "method": "POST", "path": "/predict", "headers": []}


def asked(room: Room, *pieces: bytes) -> Request:
    """A request whose body comes in those pieces."""
    left = list(pieces)

    async def receive():
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return Request(dict(SCOPE), receive, "id", room)


async def test_bodies_hold_no_more_than_their_bound_together():
    room = Room()
    first = asked(room, b"a" * 500, b"b" * 500)
    assert len(await first.body(MOST, SLOW_S, 1200)) == 1000
    second = asked(room, b"a" * 500, b"b" * 500)
    with pytest.raises(Overloaded):
        await second.body(MOST, SLOW_S, 1200)
    second.let_go()
    first.let_go()
    assert room.taken == 0
    assert len(await asked(room, b"a" * 500, b"b" * 500).body(MOST, SLOW_S, 1200)) == 1000


async def test_what_comes_at_once_is_bounded_by_the_number_of_requests_alone():
    room = Room()
    assert len(await asked(room, b"a" * 5000).body(MOST, SLOW_S, 1200)) == 5000
    assert room.taken == 0
