"""What was asked and answered in a request, in the form in which it is stored. Pure but for the keys."""

from __future__ import annotations

import re
import zlib
from dataclasses import asdict, dataclass
from typing import Final

import orjson

from routing.credentials import seal, unseal

# Of a request, and of an answer, so many bytes are stored.
MOST_BYTES: Final = 256 * 1024
# So much of a request is looked at: what is left out of it does not count.
MOST_READ: Final = 512 * 1024
# Files, pictures and sounds within JSON. Begun only where such a run begins, so that each byte is looked at once.
_BASE64: Final = re.compile(rb"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{1024,}+={0,2}")


def _left_out(found: re.Match[bytes]) -> bytes:
    return b"(%d characters of base64 left out)" % len(found[0])


@dataclass(frozen=True, slots=True)
class Text:
    """A body as it is stored. ``size``: bytes of all of it; ``cut``: there was more."""

    text: str
    size: int
    cut: bool

    @classmethod
    def of(cls, body: bytes, size: int) -> Text:
        """The first of ``body``, itself the beginning of ``size`` bytes, without files within it."""
        kept = _BASE64.sub(_left_out, body)
        return cls(
            kept[:MOST_BYTES].decode(errors="replace"), size, len(kept) > MOST_BYTES or size > len(body)
        )


@dataclass(frozen=True, slots=True)
class Content:
    """What was asked and what the client got. None: it was no text (a form with files, sound)."""

    asked: Text | None
    answered: Text | None

    def sealed(self) -> bytes:
        """As it is stored: compressed, and encrypted as credentials are."""
        return seal(zlib.compress(orjson.dumps(asdict(self)), 1))

    @classmethod
    def opened(cls, sealed: bytes | memoryview) -> Content:
        """What ``sealed`` made. Raises ``UndecipherableCredential``."""
        found = orjson.loads(zlib.decompress(unseal(sealed)))
        return cls(*(Text(**found[name]) if found[name] else None for name in ("asked", "answered")))
