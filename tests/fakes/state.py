"""A state store in memory, with the semantics of the real one: nouns go through JSON, changes are all or nothing."""

import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field

from noria.adapters.codec import decode, decode_event, encode, encode_event
from noria.adapters.state.account import drafted
from noria.domain.audit import AuditEvent, AuditHead


@dataclass
class _Memory:
    revision: int = 0
    nouns: dict = field(default_factory=dict)  # (kind, id) → (changed, endpoint, body)
    events: dict = field(default_factory=dict)  # id → (kind, body)
    handled: set = field(default_factory=set)
    audit: list = field(default_factory=list)

    def fork(self):
        return _Memory(self.revision, copy(self.nouns), copy(self.events), self.handled, copy(self.audit))


class _Change:
    def __init__(self, memory):
        self.memory = memory

    def get(self, kind, id):
        found = self.memory.nouns.get((kind.__name__, id))
        return None if found is None else decode(kind, found[2])

    def put(self, noun):
        self.memory.revision += 1
        key = getattr(noun, "id", "") or noun.endpoint
        entry = (self.memory.revision, getattr(noun, "endpoint", ""), encode(noun))
        self.memory.nouns[type(noun).__name__, key] = entry

    def emit(self, event):
        if event.id not in self.memory.events:
            self.memory.revision += 1
            self.memory.events[event.id] = encode_event(event)

    def seal(self, entry):
        sealed = (self.get(AuditHead, "audit") or AuditHead()).seal(entry)
        self.memory.audit.append(sealed)
        self.put(AuditHead(sequence=sealed.sequence, hash=sealed.hash))


class FakeState:
    """Implements ports.StateStore."""

    def __init__(self, clock):
        self._clock = clock
        self._memory = _Memory()
        self._lock = threading.Lock()
        self._thread = threading.local()

    def get(self, kind, id):
        return _Change(self._memory).get(kind, id)

    def find(self, kind, *, endpoint=None, limit=1000):
        rows = [
            (changed, body)
            for (name, _), (changed, at, body) in self._memory.nouns.items()
            if name == kind.__name__ and endpoint in (None, at)
        ]
        return [decode(kind, body) for _, body in sorted(rows, reverse=True)[:limit]]

    @contextmanager
    def change(self, actor: str, action: str, subject: str, *, reason: str = "", evidence: Mapping | None = None):
        entry = drafted(self._clock.now(), actor, action, subject, reason, evidence)
        with self.note() as change:
            yield change
            change.seal(entry)

    @contextmanager
    def note(self):
        if getattr(self._thread, "changing", False):
            raise RuntimeError("a change of state can't begin inside another one: it would wait for itself")
        with self._lock:
            self._thread.changing = True
            try:
                change = _Change(self._memory.fork())
                yield change
                self._memory = change.memory
            finally:
                self._thread.changing = False

    def revision(self):
        return self._memory.revision

    def pending_events(self, limit=100):
        waiting = (e for key, e in self._memory.events.items() if key not in self._memory.handled)
        return [decode_event(*event) for event in itertools.islice(waiting, limit)]

    def mark_handled(self, event_id):
        self._memory.handled.add(event_id)

    def audit_trail(self, *, after=0, limit=None) -> Iterator[AuditEvent]:
        later = [e for e in self._memory.audit if e.sequence > after]
        yield from later[:limit]

    def close(self):
        """Nothing to close."""
