"""``Idempotency-Key``: who asks the same again with the same key gets the first answer, and pays once.

Kept in Redis for IDEMPOTENCY_HOURS, apart for each API key, encrypted like credentials. A request takes the
key before a provider is asked and holds it while it runs; a whole answer is then kept in its place, anything
else lets go of it. With Redis away, requests with such a key are refused: they were promised to be charged
once.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import orjson
from django.conf import settings
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.v1.errors import NO_RETRY, Conflict, Headers, InvalidRequest, Unavailable
from gateway.v1.exchange import Exchange
from gateway.v1.principals import Principal
from routing.credentials import UndecipherableCredential, seal, unseal

logger = logging.getLogger(__name__)

HEADER: Final = b"idempotency-key"
REPLAYED: Final[tuple[bytes, bytes]] = (b"idempotent-replayed", b"true")
LONGEST_KEY: Final = 255
# Seconds for which a key stays taken after the worker that holds it has died.
HELD_SECONDS: Final = 60
# Redis answers within this many seconds, or is away.
PATIENCE_SECONDS: Final = 2.0
# Headers of the answer that belong to one request and not to what was answered.
_OWN: Final = frozenset(
    {
        *(b"x-request-id", b"request-id", b"content-length", b"vary"),
        *(b"access-control-allow-origin", b"access-control-expose-headers"),
    }
)
# What a key in Redis holds: these, the digest of the request, and the rest.
_RUNNING, _KEPT, _TOO_LARGE = b"r", b"k", b"t"
_DIGEST_BYTES: Final = 32

# Replaces the value of a key if it is still the expected one; with no milliseconds to live, deletes it.
_REPLACE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A whole answer. ``request_id`` is that of the request it was given to."""

    request_id: str
    model: str
    streamed: bool
    headers: Headers
    body: bytes


class Recorder:
    """A ``send`` that remembers what it sends, up to IDEMPOTENCY_MAX_BYTES. With a ``claim``, a whole answer
    is kept before the client has its end, so that it can ask again at once."""

    def __init__(self, send: Send, exchange: Exchange) -> None:
        self.send = send
        self.claim: Claim | None = None
        self._exchange = exchange
        self._headers: Headers = []
        self._good = False
        self._pieces: list[bytes] = []
        self._size = 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Take one ASGI message."""
        if message["type"] == "http.response.start":
            self._headers = list(message["headers"])
            self._good = message["status"] == 200
        else:
            piece = message.get("body", b"")
            self._size += len(piece)
            if self._size <= settings.IDEMPOTENCY_MAX_BYTES:
                self._pieces.append(piece)
            else:
                self._pieces.clear()
            ended = self._good and self._exchange.whole and not message.get("more_body", False)
            if ended and self.claim is not None:
                claim, self.claim = self.claim, None
                await claim.keep(self._answer())
        await self.send(message)

    def _answer(self) -> Kept | None:
        """What was sent; None if it was too large to remember."""
        facts = self._exchange.facts
        assert facts is not None  # noqa: S101  # read before anything is answered
        if self._size > settings.IDEMPOTENCY_MAX_BYTES:
            return None
        headers = [
            (name, value)
            for name, value in self._headers
            if name not in _OWN and not name.startswith(b"x-ratelimit-")
        ]
        body = b"".join(self._pieces)
        return Kept(self._exchange.request_id, facts.model, facts.stream, headers, body)


class Claim:
    """A key that one request has taken. Ended once, by ``keep`` or ``release``; neither ever raises."""

    def __init__(self, redis: Any, name: str, digest: bytes, running: bytes) -> None:
        self._redis = redis
        self._name = name
        self._digest = digest
        self._running = running
        self._holding = asyncio.create_task(self._hold())

    async def keep(self, answer: Kept | None) -> None:
        """Keep the answer; None: only that there was one, which was too large."""
        if answer is None:
            value = _TOO_LARGE + self._digest
        else:
            value = _KEPT + self._digest + await asyncio.to_thread(_sealed, answer)
        await self._end(value, settings.IDEMPOTENCY_HOURS * 3_600_000)

    async def release(self) -> None:
        """There is no answer to keep: the same may be asked again."""
        await self._end(b"", 0)

    async def _end(self, value: bytes, milliseconds: int) -> None:
        self._holding.cancel()
        try:
            await self._redis.eval(_REPLACE, 1, self._name, self._running, value, milliseconds)
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("The end of an idempotent request could not be kept: %s", type(error).__name__)

    async def _hold(self) -> None:
        """Keep the key taken for as long as the request runs."""
        while True:
            await asyncio.sleep(HELD_SECONDS / 3)
            with suppress(RedisError, OSError, TimeoutError):
                milliseconds = HELD_SECONDS * 1000
                await self._redis.eval(_REPLACE, 1, self._name, self._running, self._running, milliseconds)


class IdempotencyKeys:
    """The keys of all clients, as one worker asks for them."""

    def __init__(self, redis_url: str) -> None:
        self._redis: Any = Redis.from_url(
            redis_url, socket_timeout=PATIENCE_SECONDS, socket_connect_timeout=PATIENCE_SECONDS
        )

    async def take(
        self, principal: Principal, key: bytes, path: str, body: bytes, request_id: str
    ) -> Claim | Kept | Conflict:
        """Take ``key`` for a request with ``body`` to ``path``; or what was answered to it before; or why it
        cannot be taken. Raises InvalidRequest for a key that is none, Unavailable."""
        if not 0 < len(key) <= LONGEST_KEY:
            raise InvalidRequest(
                f"Invalid 'Idempotency-Key': expected 1 to {LONGEST_KEY} characters.",
                param="Idempotency-Key",
                code="invalid_value",
            )
        name = f"weir:once:{principal.key_id}:{_digest(key).decode()}"
        digest = _digest(path.encode(), body)
        running = _RUNNING + digest + request_id.encode()
        try:
            if await self._redis.set(name, running, nx=True, px=HELD_SECONDS * 1000):
                return Claim(self._redis, name, digest, running)
            found: bytes | None = await self._redis.get(name)
        except (RedisError, OSError, TimeoutError):
            raise Unavailable(
                "The gateway cannot look up idempotency keys at the moment. Nothing was asked or charged.",
                headers=[(b"retry-after", b"2")],
            ) from None
        return await _known(found, digest)

    async def close(self) -> None:
        """Hang up."""
        await self._redis.aclose()


async def _known(found: bytes | None, digest: bytes) -> Kept | Conflict:
    """What a taken key tells to a request with ``digest``. None: it was let go at this moment."""
    running = Conflict(
        "A request with this Idempotency-Key is under way. Try again when it has ended.",
        code="idempotency_in_progress",
        headers=[(b"retry-after", b"1")],
    )
    if found is None:
        return running
    state, first, rest = found[:1], found[1 : 1 + _DIGEST_BYTES], found[1 + _DIGEST_BYTES :]
    if not hmac.compare_digest(first, digest):
        return Conflict(
            "This Idempotency-Key was used with another request. Use a new key for a new request.",
            code="idempotency_conflict",
            headers=NO_RETRY,
        )
    if state == _RUNNING:
        return running
    with suppress(UndecipherableCredential):
        if state == _KEPT:
            return await asyncio.to_thread(_opened, rest)
    return Conflict(
        "This request was answered and charged before, and its answer is not kept (it was too large, or its"
        " encryption key is gone). Use a new Idempotency-Key to ask, and pay, again.",
        code="idempotency_answer_gone",
        headers=NO_RETRY,
    )


def _digest(*parts: bytes) -> bytes:
    """Keyed, so that Redis's content does not tell whether somebody asked a given thing."""
    found = blake2b(key=settings.API_KEY_PEPPER.encode()[:64], digest_size=_DIGEST_BYTES // 2)
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest().encode()


def _sealed(answer: Kept) -> bytes:
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.headers]
    about = orjson.dumps([answer.request_id, answer.model, answer.streamed, headers])
    return seal(zlib.compress(about + b"\n" + answer.body, 1))


def _opened(content: bytes) -> Kept:
    about, _, body = zlib.decompress(unseal(content)).partition(b"\n")
    request_id, model, streamed, headers = orjson.loads(about)
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return Kept(request_id, model, streamed, pairs, body)
