"""Addresses under ``/v1`` that ask no model: what there is, what was kept, what something would cost.

Each is authenticated, and none is usage. A new one is one line in ``RESOURCES``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from gateway.v1.errors import Headers, InvalidRequest
from gateway.v1.facts import narrow
from gateway.v1.offers import no_model
from gateway.v1.principals import Principal
from gateway.v1.token_counts import counted
from gateway.v1.translation.message_requests import counted_facts
from gateway.v1.worker import Worker
from routing.table import GroupSpec

# Items on a page of a listing.
MOST_ITEMS = 100


@dataclass(frozen=True, slots=True)
class Asking:
    """One request for a resource. ``name`` is what its address names, ``raw`` the body of a POST,
    ``headers`` those of the request; ``limits`` gathers ``x-ratelimit-*`` headers for the answer."""

    worker: Worker
    principal: Principal
    request_id: str
    name: str
    query: str
    raw: bytes
    headers: Mapping[bytes, bytes]
    limits: Headers

    def parameter(self, name: str) -> str | None:
        """The last value of a parameter of the query string."""
        values = parse_qs(self.query).get(name)
        return values[-1] if values else None


# Answers with the body, to be sent as JSON; raises V1Error.
Handler = Callable[[Asking], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Resource:
    """An address, or a family of them, with what each method does."""

    path: re.Pattern[str]
    methods: Mapping[str, Handler]


async def list_models(asking: Asking) -> dict[str, Any]:
    """The model groups that the key may use."""
    return {"object": "list", "data": [_model(group) for group in _usable(asking)]}


async def show_model(asking: Asking) -> dict[str, Any]:
    """One of them."""
    name = unquote(asking.name)
    found = next((group for group in _usable(asking) if group.name == name), None)
    if found is None:
        raise no_model(name)
    return _model(found)


def _usable(asking: Asking) -> list[GroupSpec]:
    groups = asking.worker.table.groups
    return [group for name, group in sorted(groups.items()) if asking.principal.may_use(name)]


def _model(group: GroupSpec) -> dict[str, Any]:
    return {"id": group.name, "object": "model", "created": group.created, "owned_by": "weir"}


async def count_tokens(asking: Asking) -> dict[str, Any]:
    """How many tokens a ``/v1/messages`` request has. Takes one of the requests per minute."""
    facts = counted_facts(asking.raw, "")
    if facts.model not in asking.worker.table.groups or not asking.principal.may_use(facts.model):
        raise no_model(facts.model)
    asking.limits.extend(await asking.worker.admission.one_request(asking.principal, asking.request_id))
    narrow(facts, asking.headers)
    return {"input_tokens": await counted(asking.worker, asking.principal, facts)}


async def show_response(asking: Asking) -> dict[str, Any]:
    """A kept response."""
    response, _ = await asking.worker.stored.find(asking.principal, asking.name)
    return response


async def delete_response(asking: Asking) -> dict[str, Any]:
    """Delete it."""
    await asking.worker.stored.forget(asking.principal, asking.name)
    return {"id": asking.name, "object": "response", "deleted": True}


async def list_input_items(asking: Asking) -> dict[str, Any]:
    """What it was asked with, newest first unless ``order=asc``, in pages of ``limit`` behind ``after``."""
    order, limit = asking.parameter("order") or "desc", asking.parameter("limit") or "20"
    if order not in ("asc", "desc"):
        raise InvalidRequest(
            "Invalid 'order': expected 'asc' or 'desc'.", param="order", code="invalid_value"
        )
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= MOST_ITEMS):
        raise InvalidRequest(
            f"Invalid 'limit': expected a number from 1 to {MOST_ITEMS}.", param="limit", code="invalid_value"
        )
    _, items = await asking.worker.stored.find(asking.principal, asking.name)
    if order == "desc":
        items.reverse()
    after = asking.parameter("after")
    if after is not None:
        place = next((place for place, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise InvalidRequest("Invalid 'after': no such item.", param="after", code="invalid_value")
        items = items[place + 1 :]
    page = items[: int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > len(page),
    }


RESOURCES = (
    Resource(re.compile(r"/v1/models"), {"GET": list_models}),
    Resource(re.compile(r"/v1/models/(.+)"), {"GET": show_model}),
    Resource(re.compile(r"/v1/responses/(resp_[^/]+)"), {"GET": show_response, "DELETE": delete_response}),
    Resource(re.compile(r"/v1/responses/(resp_[^/]+)/input_items"), {"GET": list_input_items}),
    Resource(re.compile(r"/v1/messages/count_tokens"), {"POST": count_tokens}),
)


def resource_at(path: str) -> tuple[Resource, str] | None:
    """The resource at an address, and what the address names."""
    for resource in RESOURCES:
        match = resource.path.fullmatch(path)
        if match is not None:
            return resource, match.group(1) if match.lastindex else ""
    return None
