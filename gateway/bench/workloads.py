"""What is asked: the same bytes of everybody."""

from __future__ import annotations

import json
from dataclasses import dataclass

CHUNKS = 100
# The role, the words, the finish reason, the usage, [DONE].
EVENTS = CHUNKS + 4


@dataclass(frozen=True, slots=True)
class Workload:
    """One way of asking. ``rate`` is requests a second (None: as fast as answers come), ``events`` the
    events of a stream (None: a plain answer)."""

    name: str
    title: str
    model: str
    connections: int
    rate: float | None = None
    events: int | None = None

    def body(self) -> str:
        """The request's body, as JSON."""
        asked: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": "You are a helpful assistant. Answer in one short paragraph."},
                {"role": "user", "content": "What does a weir do to a river, and why are they built?"},
            ],
            "max_completion_tokens": 200,
            "temperature": 0.2,
        }
        if self.events is not None:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(asked)


WORKLOADS = (
    Workload("plain", "Plain request, 32 connections, as fast as answers come", "sim-fast", 32),
    Workload(
        "steady",
        "Plain request, 200 a second on 32 connections: latency without a queue",
        "sim-fast",
        32,
        rate=200,
    ),
    Workload(
        "stream",
        f"Stream of {CHUNKS} chunks, 64 connections, as fast as they come",
        f"sim-fast-{CHUNKS}",
        64,
        events=EVENTS,
    ),
    Workload(
        "paced",
        f"Stream of {CHUNKS} chunks, one every 5 ms, 80 streams a second on 64 connections",
        f"sim-fast-{CHUNKS}-5ms",
        64,
        rate=80,
        events=EVENTS,
    ),
)
