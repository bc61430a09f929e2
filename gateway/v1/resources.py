"""Addresses under ``/v1`` that ask no model: what there is, what was kept, what something would cost.

Each is authenticated, and none is usage. A new one is one line in ``RESOURCES``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from gateway.v1.errors import Headers
from gateway.v1.offers import no_model
from gateway.v1.principals import Principal
from gateway.v1.translation.message_requests import counted_facts
from gateway.v1.worker import Worker
from routing.table import GroupSpec


@dataclass(frozen=True, slots=True)
class Asking:
    """One request for a resource. ``name`` is what its address names, ``raw`` the body of a POST;
    ``limits`` gathers ``x-ratelimit-*`` headers for the answer."""

    worker: Worker
    principal: Principal
    request_id: str
    name: str
    query: str
    raw: bytes
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
    """About how many tokens a ``/v1/messages`` request has. Takes one of the requests per minute."""
    facts = counted_facts(asking.raw, "")
    if facts.model not in asking.worker.table.groups or not asking.principal.may_use(facts.model):
        raise no_model(facts.model)
    asking.limits.extend(await asking.worker.admission.one_request(asking.principal, asking.request_id))
    return {"input_tokens": facts.input_tokens}


RESOURCES = (
    Resource(re.compile(r"/v1/models"), {"GET": list_models}),
    Resource(re.compile(r"/v1/models/(.+)"), {"GET": show_model}),
    Resource(re.compile(r"/v1/messages/count_tokens"), {"POST": count_tokens}),
)


def resource_at(path: str) -> tuple[Resource, str] | None:
    """The resource at an address, and what the address names."""
    for resource in RESOURCES:
        match = resource.path.fullmatch(path)
        if match is not None:
            return resource, match.group(1) if match.lastindex else ""
    return None
