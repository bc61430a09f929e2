"""The simulator's own account of what it was asked: who came, what was sent, how it ended.

It holds neither prompts nor keys, so that tests and tenants can read it freely.
"""

import os
import time
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

KEPT = 1000
_MAX_MODELS = 500


@dataclass(slots=True)
class Outcome:
    """How a request ended.

    `end` is done, error (an error status was sent), client_gone, cut, truncated, reset, silence,
    error_midstream or aborted (the simulator stopped). Token counts are those of what was sent;
    None when no answer was begun.
    """

    status: int | None
    end: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    words_sent: int = 0


class Record:
    """Counts requests, keeps the last lines, and appends each to a file if it has one.

    A line is appended with one write, so that it survives the process being killed.
    """

    def __init__(self, path: Path | None) -> None:
        """Open `path` for appending. Raises OSError if that cannot be done."""
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._started = time.time()
        self.clear()

    def clear(self) -> None:
        """Forget the lines and counts in memory; the file stays as it is."""
        self._lines: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._count = 0
        self._active = 0
        self._peak = 0
        self._models: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def arrive(
        self, *, path: str, model: str | None, request_id: str | None, user: str | None, stream: bool
    ) -> dict[str, Any]:
        """Note a request's arrival; give the returned line back to `finish`."""
        self._count += 1
        self._active += 1
        self._peak = max(self._peak, self._active)
        name = model or "-"
        self._models[name if name in self._models or len(self._models) < _MAX_MODELS else "others"] += 1
        line = {
            "event": "arrive",
            "at": datetime.now(UTC).isoformat(),
            "n": self._count,
            "path": path,
            "model": model,
            "request_id": request_id,
            "user": user,
            "stream": stream,
        }
        self._append(line)
        return line

    def finish(self, arrival: dict[str, Any], outcome: Outcome) -> None:
        """Note how the request of that arrival ended."""
        self._active = max(0, self._active - 1)
        self._ends[outcome.end] += 1
        self._statuses[str(outcome.status)] += 1
        self._append(
            {
                **arrival,
                "event": "end",
                "at": datetime.now(UTC).isoformat(),
                "status": outcome.status,
                "end": outcome.end,
                "prompt_tokens": outcome.prompt_tokens,
                "completion_tokens": outcome.completion_tokens,
                "words_sent": outcome.words_sent,
            }
        )

    def _append(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        if self._file is not None:
            os.write(self._file, orjson.dumps(line) + b"\n")

    def lines(self, user: str | None = None) -> list[dict[str, Any]]:
        """The last KEPT lines, oldest first, of one user if given."""
        return [line for line in self._lines if user is None or line["user"] == user]

    def stats(self) -> dict[str, Any]:
        """Counts since the start or the last clear."""
        return {
            "requests": self._count,
            "active": self._active,
            "peak_active": self._peak,
            "by_model": dict(self._models),
            "by_end": dict(self._ends),
            "by_status": dict(self._statuses),
            "uptime_seconds": round(time.time() - self._started, 3),
        }
