"""Cross-origin requests of browser apps, for the origins that an organization names.

A preflight carries no key, so it is answered for an origin that any organization named: it only lets the
browser send the request. Whether the page may read the answer is said with that answer, by the key's own
organization. See the Fetch standard, "CORS protocol" (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

import re
from typing import Any, Final

from psycopg import AsyncConnection

from gateway.v1.errors import Headers
from gateway.v1.principals import Principal

# Seconds for which a browser may keep the answer to a preflight.
MAX_AGE: Final = b"3600"
# As long as any list of headers that SDKs send.
MOST_HEADERS = 4096
_NAMES = re.compile(rb"[a-zA-Z0-9_, -]*")


async def load_origins(connection: AsyncConnection[Any]) -> frozenset[bytes]:
    """The origins that organizations name, each as a browser sends it."""
    cursor = await connection.execute(
        "SELECT DISTINCT unnest(cors_origins) FROM tenants_organization WHERE suspended_at IS NULL"
    )
    return frozenset([origin.encode() for (origin,) in await cursor.fetchall()])


def preflight(headers: dict[bytes, bytes], origins: frozenset[bytes], methods: tuple[str, ...]) -> Headers:
    """What an OPTIONS is answered that is a preflight from one of ``origins``; nothing for another."""
    origin = headers.get(b"origin")
    if origin not in origins or b"access-control-request-method" not in headers:
        return []
    asked = headers.get(b"access-control-request-headers", b"")
    if len(asked) > MOST_HEADERS or not _NAMES.fullmatch(asked):
        asked = b"authorization, content-type"
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", ", ".join(methods).encode()),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", MAX_AGE),
        (b"vary", b"origin, access-control-request-method, access-control-request-headers"),
    ]


def readable(headers: dict[bytes, bytes], principal: Principal) -> Headers:
    """What lets the page that asked read the answer, and each of its headers; nothing to a page of an origin
    that the caller's organization does not name."""
    varies = (b"vary", b"origin")
    origin = headers.get(b"origin")
    if origin not in principal.cors_origins:
        return [varies]
    return [
        (b"access-control-allow-origin", origin),
        # Weir takes no cookies, so that this means all of them.
        (b"access-control-expose-headers", b"*"),
        varies,
    ]
