"""What is to be answered, whom it is asked, and what came back."""

from dataclasses import dataclass

from noria.domain.endpoint import Route, Target
from noria.domain.inference import Intent
from noria.serving.allowance import Charge
from noria.serving.cache import Kept, Wish
from noria.serving.replies import Reply
from noria.serving.rules import Rules
from noria.serving.streaming import Incoming
from noria.serving.wires import Call


@dataclass(slots=True)
class Order:
    """A request that is to be answered.

    Attributes:
        route: The endpoint's route when the request came.
        target: The version to ask.
        call: What to ask.
        intent: The record that the answer belongs to.
        rules: The endpoint's rules when the request came.
        tracestate: What the caller's trace carries along; empty for nothing.
        charge: What was set aside of its key's and its endpoint's limits; None if nothing was.
        wish: What it means for the endpoint's cache; None if it has nothing to do with one.
    """

    route: Route
    target: Target
    call: Call
    intent: Intent
    rules: Rules
    tracestate: str = ""
    charge: Charge | None = None
    wish: Wish | None = None


@dataclass(slots=True)
class Answered:
    """What came back from whom: an answer, or a stream that has begun and is still to be read."""

    target: Target
    reply: Reply
    stream: Incoming | None = None

    def kept(self, now_us: int) -> Kept:
        """The whole answer, for the cache; a stream must be at its end."""
        if self.stream is None:
            return Kept(self.reply.body, None, now_us)
        return Kept(self.stream.reply().body, tuple(self.stream.pieces or ()), now_us)


@dataclass(slots=True)
class Hop:
    """A version that is asked, by its own endpoint's rules.

    Attributes:
        endpoint: Whose version it is.
        target: The version.
        rules: The endpoint's.
        deadline: When the whole request is over, by the monotonic clock.
        whole: Ask for the answer in one piece.
        content: Wait for a stream's first content before it counts as begun.
    """

    endpoint: str
    target: Target
    rules: Rules
    deadline: float
    whole: bool
    content: bool
