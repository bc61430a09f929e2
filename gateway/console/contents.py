"""What was asked and answered in one request, for who may read it and says so by a button."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from billing import stored_content
from billing.access import usage_event, visible_to
from billing.request_content import MOST_BYTES, Text
from billing.services.contents import show_content
from gateway.console.access import TenantRequest, requires
from gateway.v1.stream import chunks, messages_of
from routing.credentials import UndecipherableCredential
from tenants.permissions import Permission


@requires(Permission.VIEW_CONTENT)
@require_POST
def request_content(request: TenantRequest, *, request_id: str) -> HttpResponse:
    """``/o/<organization>/requests/<request id>/content/``. Each time it is asked for is in the audit log."""
    organization = request.tenant.organization
    event = usage_event(organization, request_id, visible_to(request.tenant, Permission.VIEW_CONTENT))
    stored = stored_content.stored_content(organization, request_id)
    if event is None or stored is None:
        raise Http404
    try:
        content = show_content(acting_user=request.user, organization=organization, stored=stored)
    except UndecipherableCredential:
        content = None
    answered = content.answered if content is not None else None
    answer = render(
        request,
        "console/requests/content.html",
        {
            "event": event,
            "readable": content is not None,
            "asked": content.asked if content is not None else None,
            "asked_text": pretty(content.asked) if content is not None else "",
            "answered": answered,
            "answered_text": pretty(answered),
            "said": said(answered.text) if answered is not None else "",
            "most_bytes": MOST_BYTES,
        },
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


def pretty(body: Text | None) -> str:
    """``body`` with an indent, if it is JSON and whole."""
    if body is None:
        return ""
    try:
        return orjson.dumps(orjson.loads(body.text), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return body.text


def said(text: str) -> str:
    """The text that the events of a stream bring together; empty where ``text`` is no stream."""
    if not text.startswith(("data:", "event:", ":")):
        return ""
    return "".join(piece for chunk in chunks(text.encode()) for piece in _pieces(chunk))


def _pieces(chunk: dict[str, Any]) -> Iterator[str]:
    """The text in one event of a chat, a completion, a response or a message."""
    found: list[Any] = [message.get("content") for message in messages_of(chunk, "delta")]
    choices = chunk.get("choices")
    found += [choice.get("text") for choice in choices or () if isinstance(choice, dict)]
    delta = chunk.get("delta")
    if chunk.get("type") == "response.output_text.delta":
        found.append(delta)
    elif chunk.get("type") == "content_block_delta" and isinstance(delta, dict):
        found.append(delta.get("text"))
    yield from (piece for piece in found if isinstance(piece, str))
