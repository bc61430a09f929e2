"""What the journal says of a request: a line before it goes upstream, a line when it ends."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from billing.journal import JournalFull, JournalWriter
from billing.pricing import charge_of
from billing.token_usage import ESTIMATED, TokenUsage
from gateway.v1.errors import Unavailable
from gateway.v1.exchange import Exchange
from tenants.keys import concealed

# The tag that tells the console which quota refused a request.
REFUSED_BY = "weir.refused_by"
# The tag of a request whose answer was bounded to what a budget had left, in tokens.
LOWERED_TO = "weir.max_tokens_lowered"
# The tag that names the classes a provider used although nothing prices them.
UNPRICED = "weir.unpriced"
# The tag of a request that was given the answer of another once more.
REPLAY_OF = "weir.replay_of"

logger = logging.getLogger(__name__)


class Journal:
    """Writes exchanges to the worker's journal (``billing.journal``)."""

    def __init__(self, writer: JournalWriter) -> None:
        self._writer = writer

    def begin(self, exchange: Exchange) -> None:
        """Record that the exchange goes upstream. Raises Unavailable if that cannot be recorded."""
        facts, offer = exchange.facts, exchange.offer
        assert facts is not None and offer is not None  # noqa: S101, PT018  # admission comes first
        estimate = facts.counted or TokenUsage(facts.input_tokens, 0, 0, 0, 0, ESTIMATED)
        cost, _ = charge_of(estimate, offer.cost_rates, None, Decimal(0))
        record = {"t": "begin", **_identity(exchange)}
        record["estimated_input_tokens"] = facts.input_tokens
        record["estimated_cost"] = f"{cost:f}"
        try:
            self._writer.begin(record)
        except JournalFull:
            raise Unavailable("The gateway cannot record requests at the moment, so it takes none.") from None
        exchange.begun = True

    def end(self, exchange: Exchange, usage: TokenUsage) -> None:
        """Record how it ended. If the disk is full, the writer keeps the line of a begun request."""
        record = {"t": "end", **_identity(exchange)}
        record.update(
            ended_at=_time(datetime.now(UTC)),
            status=exchange.status,
            end_reason=exchange.end_reason,
            error_code=exchange.error_code,
            attempts=[attempt.as_row() for attempt in exchange.attempts],
            input_tokens=usage.input,
            cached_input_tokens=usage.cached_input,
            cache_write_tokens=usage.cache_write,
            output_tokens=usage.output,
            reasoning_tokens=usage.reasoning,
            usage_source=usage.source,
            cost=f"{exchange.cost:f}",
            charge=f"{exchange.charge:f}",
            first_token_ms=exchange.first_token_ms,
            duration_ms=exchange.elapsed_ms(),
        )
        if usage.quantities:
            record["quantities"] = {name: f"{amount:f}" for name, amount in usage.quantities.items()}
            if exchange.unpriced:
                # Not the tenant's bill, since it asked for nothing of the kind; the operator's to see.
                record["tags"] = {**record["tags"], UNPRICED: ", ".join(exchange.unpriced)}
                logger.warning("%s used what has no price: %s.", exchange.request_id, exchange.unpriced)
        try:
            self._writer.end(record)
        except JournalFull:
            # A begun request's line is kept in memory by the writer; a refused one cost nothing.
            return


def _identity(exchange: Exchange) -> dict[str, Any]:
    """What both lines say: whose request, for what, at which prices."""
    principal, facts, offer = exchange.principal, exchange.facts, exchange.offer
    assert principal is not None  # noqa: S101  # nobody's request is not journaled
    deployment = offer.candidate.deployment if offer is not None else None
    return {
        "request_id": exchange.request_id,
        "started_at": _time(exchange.started_at),
        "organization_id": principal.organization_id,
        "team_id": principal.team_id,
        "key_id": principal.key_id,
        "member_id": principal.member_id,
        "end_user": facts.end_user if facts is not None else "",
        "model_group": offer.candidate.group.name
        if offer is not None
        else (concealed(facts.model)[:100].replace("\x00", "") if facts else ""),
        "endpoint": exchange.endpoint,
        "streamed": facts is not None and facts.stream,
        "deployment": deployment.name if deployment is not None else "",
        "provider": deployment.provider.name if deployment is not None else "",
        "provider_model": deployment.model if deployment is not None else "",
        "cost_price_id": offer.cost_rates.price_id if offer is not None else None,
        "charge_price_id": offer.price_rates.price_id if offer is not None and offer.price_rates else None,
        "markup": f"{principal.markup:f}",
        "budget_ids": exchange.budget_ids,
        "tags": _tags(exchange),
    }


def _tags(exchange: Exchange) -> dict[str, str]:
    given = exchange.facts.tags if exchange.facts is not None else {}
    if exchange.refusal:
        return {**given, REFUSED_BY: exchange.refusal}
    if exchange.replay_of:
        return {**given, REPLAY_OF: exchange.replay_of}
    if exchange.lowered_to is not None:
        return {**given, LOWERED_TO: str(exchange.lowered_to)}
    return {**given}


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
