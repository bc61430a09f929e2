"""Responses that an organization keeps, so that the next request can go on from one by its id.

Kept only where the organization asked for it (``store_responses``), encrypted like credentials, and
deleted when they expire. They belong to the team whose key made them: to every other they do not exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import orjson
import psycopg
from django.conf import settings
from psycopg_pool import AsyncConnectionPool

from billing.patience import REQUEST_SECONDS, patient
from gateway.v1.errors import InvalidRequest, NotFound, Unavailable
from gateway.v1.principals import Principal
from gateway.v1.translation.shape import Object
from routing.credentials import UndecipherableCredential, decrypt, encrypt

logger = logging.getLogger(__name__)

# Responses one behind the other that one request may go on from.
LONGEST_CHAIN = 500

_INSERT = """
INSERT INTO gateway_storedresponse (id, organization_id, team_id, previous_id, content, expires_at)
VALUES (%s, %s, %s, %s, %s, now() + %s * interval '1 day')
"""
_ONE = "SELECT content FROM gateway_storedresponse WHERE id = %s AND team_id = %s AND expires_at > now()"
_DELETE = "DELETE FROM gateway_storedresponse WHERE id = %s AND team_id = %s AND expires_at > now()"
# The response and those it goes on from, oldest first, no more than are allowed together.
_CHAIN = """
WITH RECURSIVE chain AS (
    SELECT previous_id, content, 1 AS depth, length(content)::bigint AS size
    FROM gateway_storedresponse WHERE id = %(id)s AND team_id = %(team)s AND expires_at > now()
    UNION ALL
    SELECT r.previous_id, r.content, chain.depth + 1, chain.size + length(r.content)
    FROM chain JOIN gateway_storedresponse r ON r.id = chain.previous_id
    WHERE r.team_id = %(team)s AND r.expires_at > now() AND chain.depth < %(most)s AND chain.size < %(bytes)s
)
SELECT previous_id, content FROM chain ORDER BY depth DESC
"""


class StoredResponses:
    """The kept responses, over the worker's pool."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    async def keep(self, principal: Principal, response: Object, items: Sequence[Object]) -> bool:
        """Keep a response with the items it was asked with; whether that worked. Never raises: the
        answer is there, and is told to be not kept."""
        try:
            content = await asyncio.to_thread(_sealed, response, items)
            await self._run(
                _INSERT,
                (
                    response["id"],
                    principal.organization_id,
                    principal.team_id,
                    response.get("previous_response_id") or "",
                    content,
                    settings.RESPONSE_DAYS,
                ),
            )
        except psycopg.Error as error:
            logger.warning("A response could not be kept: %s", type(error).__name__)
            return False
        return True

    async def find(self, principal: Principal, name: str) -> tuple[Object, list[Object]]:
        """A response and the items it was asked with. Raises NotFound, Unavailable."""
        rows = await self._read(_ONE, (name, principal.team_id))
        if not rows:
            raise _missing(name)
        return await asyncio.to_thread(_opened, rows[0][0])

    async def forget(self, principal: Principal, name: str) -> None:
        """Delete a response. Raises NotFound, Unavailable."""
        try:
            deleted = await self._run(_DELETE, (name, principal.team_id))
        except psycopg.Error:
            raise _away() from None
        if not deleted:
            raise _missing(name)

    async def earlier(self, principal: Principal, name: str) -> list[Object]:
        """All items, asked and answered, up to and with a response, oldest first. Raises InvalidRequest
        where it or one before it is not there, Unavailable."""
        parameters = {
            "id": name,
            "team": principal.team_id,
            "most": LONGEST_CHAIN,
            "bytes": settings.MAX_BODY_BYTES,
        }
        rows = await self._read(_CHAIN, parameters) if principal.stores_responses else []
        if not rows or rows[0][0]:
            raise no_previous(name, stores=principal.stores_responses, begun=bool(rows))
        return await asyncio.to_thread(_joined, [content for _, content in rows])

    async def _run(self, statement: str, parameters: Any) -> int:
        async with patient(self._pool, REQUEST_SECONDS) as connection:
            count: int = (await connection.execute(statement, parameters)).rowcount
            return count

    async def _read(self, query: str, parameters: Any) -> list[Any]:
        try:
            async with patient(self._pool, REQUEST_SECONDS) as connection:
                rows: list[Any] = await (await connection.execute(query, parameters)).fetchall()
                return rows
        except psycopg.Error:
            raise _away() from None


def no_previous(name: str, *, stores: bool, begun: bool = False) -> InvalidRequest:
    """The error for a response that cannot be gone on from. ``begun``: it is there, but not all before it."""
    shown = name[:100] if name.isprintable() else "?"
    message = f"Previous response with id '{shown}' not found."
    if not stores:
        message += " This organization does not keep responses; send the conversation as input."
    elif begun:
        message = f"The conversation before '{shown}' is not all there: part of it expired, was deleted, or is too long."
    return InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")


def _missing(name: str) -> NotFound:
    shown = name[:100] if name.isprintable() else "?"
    return NotFound(f"Response with id '{shown}' not found.", code="response_not_found")


def _away() -> Unavailable:
    return Unavailable(
        "The gateway cannot look up responses at the moment.", headers=[(b"retry-after", b"2")]
    )


def _sealed(response: Object, items: Sequence[Object]) -> bytes:
    return encrypt(orjson.dumps({"response": response, "input": items}).decode())


def _opened(content: bytes) -> tuple[Object, list[Object]]:
    try:
        kept = orjson.loads(decrypt(content))
    except UndecipherableCredential:
        # As good as gone: its key was taken out of CREDENTIAL_KEYS.
        raise NotFound("The response can no longer be read.", code="response_not_found") from None
    return kept["response"], kept["input"]


def _joined(contents: Sequence[bytes]) -> list[Object]:
    items: list[Object] = []
    for content in contents:
        response, asked = _opened(content)
        items += asked
        items += response["output"]
    return items
