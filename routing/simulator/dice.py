"""A small deterministic source of choices: the same seed gives the same answers everywhere."""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import orjson

T = TypeVar("T")
_MASK = (1 << 64) - 1

# Members of a request that do not change what is answered, only how it is delivered.
_DELIVERY = frozenset({"stream", "stream_options"})


class Dice:
    """Pseudo-random whole numbers (splitmix64) from an integer seed. Not for secrets."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def throw(self) -> int:
        """The next whole number, 0 to 2**64 - 1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1; `limit` is at least 1."""
        return self.throw() % limit

    def pick(self, choices: Sequence[T]) -> T:
        """One member of a sequence that is not empty."""
        return choices[self.throw() % len(choices)]

    def token(self, length: int) -> str:
        """`length` lower-case hexadecimal characters."""
        text = ""
        while len(text) < length:
            text += f"{self.throw():016x}"
        return text[:length]


def seed_of(body: dict[str, Any]) -> int:
    """A 64-bit seed from a request body. Member order, `stream` and `stream_options` do not
    matter, so that a streamed answer says the same as a plain one."""
    kept = {name: value for name, value in body.items() if name not in _DELIVERY}
    text = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)
    return seed_of_bytes(text)


def seed_of_bytes(text: bytes) -> int:
    """A 64-bit seed from bytes."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
