"""An OTLP collector over real HTTP: decodes the protobuf that it is sent, and answers as a test tells it."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass
class Post:
    """What somebody posted."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Span:
    """A span as it came over the wire; ids in hex, times in nanoseconds."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    kind: int
    status: int
    start: int
    end: int
    attributes: dict
    events: dict[str, int]
    resource: dict


@dataclass
class Collector:
    """What came, and what to answer."""

    answer: Callable[[Post], tuple[int, bytes]] = lambda post: (200, b"")
    posts: list[Post] = field(default_factory=list)
    url: str = ""

    @property
    def spans(self) -> list[Span]:
        """The spans of the posts that were taken."""
        found = []
        for post in self.posts:
            if post.path != "/v1/traces" or self.answer(post)[0] != 200:
                continue
            for group in ExportTraceServiceRequest.FromString(post.body).resource_spans:
                resource = _plain(group.resource.attributes)
                found += [_span(span, resource) for scope in group.scope_spans for span in scope.spans]
        return found

    @property
    def histograms(self) -> dict[str, list[tuple[dict, object]]]:
        """Name → the points of the last export: attributes, and the point itself."""
        last = next((post for post in reversed(self.posts) if post.path == "/v1/metrics"), None)
        if last is None:
            return {}
        found: dict[str, list[tuple[dict, object]]] = {}
        for group in ExportMetricsServiceRequest.FromString(last.body).resource_metrics:
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    points = metric.histogram.data_points
                    found[metric.name] = [(_plain(point.attributes), point) for point in points]
        return found

    def wait(self, happened: Callable[[], object], timeout_s: float = 30) -> None:
        """Wait until something became true."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert time.monotonic() < deadline, f"it did not happen; {len(self.posts)} posts came"
            time.sleep(0.01)


@contextmanager
def collecting(answer: Callable[[Post], tuple[int, bytes]] | None = None) -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector(answer) if answer else Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            post = Post(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            status, said = collector.answer(post)
            collector.posts.append(post)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _span(span, resource: dict) -> Span:
    return Span(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        kind=span.kind,
        status=span.status.code,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_plain(span.attributes),
        events={event.name: event.time_unix_nano for event in span.events},
        resource=resource,
    )


def _plain(attributes) -> dict:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: AnyValue):
    kind = value.WhichOneof("value")
    return [_value(v) for v in value.array_value.values] if kind == "array_value" else getattr(value, kind)
