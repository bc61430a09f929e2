"""What a shape does: one a request, told of the chat answer, saying what the client gets."""

from __future__ import annotations

from typing import Any, Protocol

Object = dict[str, Any]


class Shape(Protocol):
    """Shows one chat answer in an API's own words: either ``plain`` once, or ``chunk`` for each of a
    stream's chunks and then ``done`` or ``failed``."""

    def plain(self, answer: Object) -> Object:
        """The body for a whole chat completion."""
        ...

    def chunk(self, chunk: Object) -> bytes:
        """The events for a chat chunk; the usage chunk comes last."""
        ...

    def final(self) -> Object | None:
        """The whole answer of a stream that came to its end, if it is to be announced; what is changed
        in it before ``done`` reaches the client."""
        ...

    def done(self) -> bytes:
        """What ends a stream that came to its end."""
        ...

    def begun(self, sequence: int) -> None:
        """A stream that passed without it has come to its event number ``sequence``."""
        ...

    def failed(self, error: Object) -> bytes:
        """What ends a stream that broke. ``error`` is the inner object of an OpenAI error. Nothing that
        reads like a good end may be among it."""
        ...
