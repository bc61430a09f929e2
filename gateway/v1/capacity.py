"""How much a worker takes on at a time, so that too much is refused at once instead of waiting."""

from __future__ import annotations

from gateway.v1.errors import Headers, Unavailable

RETRY_AFTER: Headers = [(b"retry-after", b"1")]


class Hold:
    """The place of one request. Given back exactly once, by ``release``."""

    __slots__ = ("_bytes", "_capacity", "_released", "_spooled")

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._bytes = 0
        self._spooled = 0
        self._released = False

    def buffer(self, size: int) -> None:
        """Hold so many bytes of a body in all. Raises Unavailable if that is more than there is room for."""
        more = size - self._bytes
        if more > 0:
            self._capacity.buffered += more
            self._bytes = size
            if self._capacity.buffered > self._capacity.most_bytes:
                raise Unavailable(
                    "The gateway holds as many request bodies as it can. Try again shortly.",
                    code="gateway_overloaded",
                    headers=RETRY_AFTER,
                )

    def spool(self, size: int) -> None:
        """Hold so many bytes on disk in all. Raises Unavailable if that is more than there is room for."""
        self._capacity.spooled += size - self._spooled
        self._spooled = size
        if self._capacity.spooled > self._capacity.most_spooled:
            raise Unavailable(
                "The gateway holds as many uploads as it can. Try again shortly.",
                code="gateway_overloaded",
                headers=RETRY_AFTER,
            )

    def release(self) -> None:
        """The request is over."""
        if not self._released:
            self._released = True
            self._capacity.in_flight -= 1
            self._capacity.buffered -= self._bytes
            self._capacity.spooled -= self._spooled


class Capacity:
    """Requests in flight and bytes of their bodies, in memory and on disk, of one worker, each with its
    bound."""

    def __init__(self, most_requests: int, most_bytes: int, most_spooled: int = 0) -> None:
        self.most_requests = most_requests
        self.most_bytes = most_bytes
        self.in_flight = 0
        self.buffered = 0
        self.most_spooled = most_spooled
        self.spooled = 0

    def take(self) -> Hold:
        """A place for one more request. Raises Unavailable if there is none."""
        if self.in_flight >= self.most_requests:
            raise Unavailable(
                "The gateway has as many requests in flight as it can take. Try again shortly.",
                code="gateway_overloaded",
                headers=RETRY_AFTER,
            )
        self.in_flight += 1
        return Hold(self)
