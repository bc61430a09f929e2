"""How long a ``/v1/messages`` request is: counted by its provider, where that can, and else estimated here."""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.v1.errors import V1Error
from gateway.v1.exchange import Exchange, Offer
from gateway.v1.facts import Facts
from gateway.v1.native import MESSAGES
from gateway.v1.offers import offers_for
from gateway.v1.principals import Principal
from gateway.v1.upstream import UpstreamError
from gateway.v1.worker import Worker
from routing.dialects import dialect

# What of a request can be counted (docs.anthropic.com, "Count Message tokens"); all else would be refused.
_COUNTED: Final = ("messages", "system", "tools", "tool_choice", "thinking", "output_config")
# Seconds that a count may take: an estimate at once is worth more than a count that is late.
PATIENCE: Final = 5.0


async def counted(worker: Worker, principal: Principal, facts: Facts) -> int:
    """Tokens of the prompt. Whoever would be asked first is asked to count, if it speaks the API; what it
    answers says nothing of its health."""
    exchange = Exchange(MESSAGES, principal=principal, facts=facts)
    try:
        offer = offers_for(worker, exchange)[0]
    except V1Error:
        return facts.input_tokens
    found = await _asked(worker, exchange, facts, offer) if facts.native is not None else None
    return facts.input_tokens if found is None else found


async def _asked(worker: Worker, exchange: Exchange, facts: Facts, offer: Offer) -> int | None:
    deployment = offer.candidate.deployment
    provider = deployment.provider
    speaks = dialect(provider.kind.name, provider.base_url)
    if MESSAGES not in speaks.natively_at(deployment) or facts.native is None:
        return None
    visit = worker.pulse.enter(deployment, "", facts.endpoint)
    if visit is None:
        return None
    if visit.probes:
        # Whether it is well again is for a real request to tell.
        worker.pulse.ended(visit, "")
        return None
    try:
        body: dict[str, Any] = {name: facts.native[name] for name in _COUNTED if name in facts.native}
        answer = worker.upstream.post(
            f"{speaks.url(deployment, MESSAGES)}/count_tokens",
            speaks.headers(
                provider.secrets[visit.credential] if provider.secrets else "", exchange.request_id
            ),
            orjson.dumps({**body, "model": deployment.model}),
            connect_timeout=provider.connect_timeout,
            silence=max(provider.first_token_timeout, provider.idle_timeout),
            total_timeout=PATIENCE,
        )
        async with answer:
            await answer.open(PATIENCE)
            told = orjson.loads(await answer.read_all(PATIENCE)) if answer.status == 200 else None
    except (UpstreamError, orjson.JSONDecodeError):
        return None
    finally:
        worker.pulse.ended(visit, "")
    count = told.get("input_tokens") if isinstance(told, dict) else None
    return count if type(count) is int and count >= 0 else None
