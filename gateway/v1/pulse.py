"""What a worker feels of its deployments: requests in flight, and time to the first token."""

from __future__ import annotations

from collections import defaultdict

# Weight of the newest observation.
SMOOTHING = 0.2


class Pulse:
    """Counters by deployment id, of this worker alone."""

    def __init__(self) -> None:
        self._in_flight: defaultdict[int, int] = defaultdict(int)
        self._latency: dict[int, float] = {}

    def started(self, deployment_id: int) -> None:
        """A request went there."""
        self._in_flight[deployment_id] += 1

    def ended(self, deployment_id: int) -> None:
        """It is over, however it ended."""
        self._in_flight[deployment_id] -= 1

    def first_token(self, deployment_id: int, seconds: float) -> None:
        """Its first token came after so many seconds. A slow one counts at once, a fast one by and by."""
        known = self._latency.get(deployment_id)
        if known is None or seconds > known:
            self._latency[deployment_id] = seconds
        else:
            self._latency[deployment_id] = known + SMOOTHING * (seconds - known)

    def in_flight(self, deployment_id: int) -> int:
        """Requests there at this moment."""
        return self._in_flight.get(deployment_id, 0)

    def latency(self, deployment_id: int) -> float:
        """Seconds to the first token, smoothed; 0 if never measured."""
        return self._latency.get(deployment_id, 0.0)
