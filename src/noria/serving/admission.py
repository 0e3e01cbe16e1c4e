"""What stands before a model is asked: an endpoint that exists, room for one more, a body that can be read, and a
version that is picked.

Everything that may refuse a request refuses it here, before its intent is written.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from noria.domain.endpoint import Role, Route, Wire, choose
from noria.domain.errors import NoriaError, Overloaded
from noria.domain.inference import Intent
from noria.domain.key import NOBODY, ApiKey
from noria.serving import bodies, wires
from noria.serving.allowance import Charge
from noria.serving.cache import wish
from noria.serving.orders import Order
from noria.serving.passage import Passages
from noria.serving.router import Router
from noria.serving.rules import Rules
from noria.serving.tracing import Trace, continue_trace
from noria.serving.wires import Call, Form


@dataclass(slots=True, kw_only=True)
class Inbound:
    """A request as the transport hands it over.

    Attributes:
        request_id: Noria's own id for it.
        form: How it is put.
        body: As received.
        endpoint: Endpoint that the address names; empty if it names none.
        content_type: As the caller declared it; empty if not at all.
        session: Whoever should be answered by the same version again, empty if nobody says.
        metadata: The header x-noria-metadata, JSON.
        client_request_id: The caller's own id for it.
        key: The API key that it came with; None where none is needed.
        trace: The trace it belongs to.
        header: Any other header's value, by its lower-case name; empty if it wasn't sent.
        notes: Why the body isn't what was sent, as codes.
        left: Asked when the wait for the answer is cancelled: whether the caller left, or else we stop.
    """

    request_id: str
    form: Form
    body: bytes
    endpoint: str = ""
    content_type: str = ""
    session: str = ""
    metadata: bytes = b""
    client_request_id: str = ""
    key: ApiKey | None = None
    trace: Trace = field(default_factory=lambda: continue_trace(""))
    header: Callable[[bytes], str] = lambda _: ""
    notes: tuple[str, ...] = ()
    left: Callable[[], bool] = lambda: True

    @property
    def requester(self) -> str:
        """Who asks, as the log calls him."""
        return self.key.name if self.key is not None else NOBODY

    @property
    def named(self) -> dict[str, str]:
        """What a line of the process's log names, as `passage.about` does for an intent."""
        return {"request_id": self.request_id, "trace_id": self.trace.trace_id}


class Admission:
    """Turns requests into orders, or refuses them.

    Args:
        router: Who answers.
        passages: Knows how many requests are under way.
    """

    def __init__(self, router: Router, passages: Passages) -> None:
        self._router = router
        self._passages = passages

    def endpoint(self, inbound: Inbound) -> str:
        """The endpoint that is meant; it need not exist.

        Raises:
            InvalidRequest: The body should name it and doesn't.
        """
        if inbound.endpoint:
            return inbound.endpoint
        if inbound.form.names_its_endpoint:
            return wires.endpoint_named(inbound.body)
        return self._router.project.default

    def exists(self, endpoint: str) -> bool:
        """Whether the project has that endpoint, so that what is asked of it has a record."""
        return endpoint in self._router.project.endpoints

    def endpoint_unread(self, inbound: Inbound) -> str:
        """The endpoint that the address alone names, where the body could not be had; empty if none, or none that
        exists."""
        endpoint = inbound.endpoint or ("" if inbound.form.names_its_endpoint else self._router.project.default)
        return endpoint if self.exists(endpoint) else ""

    def order(self, inbound: Inbound, endpoint: str, received_us: int) -> Order:
        """What is to be done: which version is asked, what, and for how long at most.

        Raises:
            UnknownEndpoint: There is no such endpoint.
            NoriaError: The request is refused.
        """
        if inbound.key is not None:
            inbound.key.check(endpoint)
        if self._passages.under_way >= self._router.project.server.max_requests:
            raise Overloaded(f"{self._passages.under_way} requests are under way already.", "Come back in a second.")
        route, rules = self._router.route(endpoint), self._router.rules(endpoint)
        charge = None
        if inbound.key is not None or rules.limits is not None:
            charge = self._passages.allowances.admit(
                inbound.key,
                endpoint,
                rules.limits,
                inbound.body,
                counts_tokens=route.wire is Wire.OPENAI,
                price=lambda: self._router.price(endpoint, route.champion.ref),
            )
        try:
            return self._order(inbound, route, rules, received_us, charge)
        except Exception:
            if charge is not None:
                self._passages.allowances.give_back(charge)
            raise

    def _order(self, inbound: Inbound, route: Route, rules: Rules, received_us: int, charge: Charge | None) -> Order:
        """The request understood, and a version picked for it."""
        bodies.check_media(inbound.content_type)
        call = wires.understand(inbound.form, inbound.body, inbound.content_type, route.wire, route.endpoint)
        if call.stream and self._passages.streams >= self._router.project.server.max_streams:
            raise Overloaded(f"{self._passages.streams} streams are under way already.", "Come back in a second.")
        metadata = {**bodies.read_metadata_header(inbound.metadata), **call.metadata}
        target = choose(route, _who(rules, inbound, metadata, call).encode())
        intent = Intent(
            request_id=inbound.request_id,
            endpoint=route.endpoint,
            model=target.model,
            version=target.version,
            role=target.role,
            received_us=received_us,
            request=call.record,
            client_request_id=inbound.client_request_id,
            requester=inbound.requester,
            trace_id=inbound.trace.trace_id,
            span_id=inbound.trace.span_id,
            parent_span_id=inbound.trace.parent_span_id,
            sampled=inbound.trace.sampled,
            metadata=metadata,
            policy_hash=route.policy_hash,
            errors=inbound.notes + call.notes,
        )
        asked = None
        if rules.cache is not None:
            asked = wish(rules.cache, target.ref, inbound.form, call, inbound.header(b"cache-control"))
        return Order(route, target, call, intent, rules, inbound.trace.state, charge, asked)

    def refused(self, inbound: Inbound, endpoint: str, received_us: int, error: NoriaError) -> Intent:
        """The intent of a request that no version was picked for, under the champion if there is one."""
        route = self._router.snapshot.routes.get(endpoint)
        champion = route.champion if route else None
        return Intent(
            request_id=inbound.request_id,
            endpoint=endpoint,
            model=champion.model if champion else self._router.project.model_name(endpoint),
            version=champion.version if champion else "",
            role=Role.CHAMPION,
            received_us=received_us,
            request=bodies.recordable(inbound.body),
            client_request_id=inbound.client_request_id,
            requester=inbound.requester,
            trace_id=inbound.trace.trace_id,
            span_id=inbound.trace.span_id,
            parent_span_id=inbound.trace.parent_span_id,
            sampled=inbound.trace.sampled,
            policy_hash=route.policy_hash if route else "",
            errors=(error.code,),
        )


def _who(rules: Rules, inbound: Inbound, metadata: dict[str, str], call: Call) -> str:
    """Whoever is always answered by the same version; the request itself where nobody is named."""
    for name in rules.sticky:
        if value := metadata.get(name) if isinstance(name, str) else inbound.header(name):
            return value
    return call.user or inbound.session or inbound.request_id
