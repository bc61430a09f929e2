"""One request from its key to its end: what is known of it, and what it cost."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from billing.pricing import Rates, charge_of
from billing.token_usage import ESTIMATED, NOTHING, TokenUsage
from gateway.v1.facts import Facts
from gateway.v1.principals import Principal
from gateway.v1.stream import StreamScanner
from routing.health import Visit
from routing.policy import Candidate

CLIENT_GONE_STATUS = 499  # nginx's number for a client that closed first
ZERO = Decimal(0)

# Ends after which the provider is taken to have worked for the tokens it was seen to handle.
# docs/accounting.md has the whole table.
_USED = frozenset({"completed", "client_gone", "cut"})


def new_request_id() -> str:
    """``req_``, the time in milliseconds and 80 random bits, in hexadecimal.

    In the order of time, so that an index on ids grows at its end and a large table takes rows as fast
    as a small one.
    """
    return f"req_{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


@dataclass(slots=True)
class Attempt:
    """One try at one deployment. Times are milliseconds from the start of the request."""

    deployment: str
    provider: str
    started_ms: int
    status: int = 0
    reason: str = ""
    first_token_ms: int | None = None
    duration_ms: int = 0
    # Parameters of the client's that the provider was not sent as they were.
    dropped: list[str] = field(default_factory=list)
    # Whether it went on with what another one had begun.
    resumed: bool = False
    # US dollars that the provider may ask for although the tenant has nothing of it.
    wasted: Decimal = ZERO
    # Leave to ask the deployment, which the pulse wants back.
    visit: Visit = field(kw_only=True)

    def as_row(self) -> dict[str, Any]:
        """As it stands in the usage event."""
        row: dict[str, Any] = {
            "deployment": self.deployment,
            "provider": self.provider,
            "status": self.status,
            "reason": self.reason,
            "started_ms": self.started_ms,
            "first_token_ms": self.first_token_ms,
            "duration_ms": self.duration_ms,
        }
        if self.resumed:
            row["resumed"] = True
        if self.wasted:
            row["wasted"] = f"{self.wasted:f}"
        return {**row, "dropped": self.dropped} if self.dropped else row


@dataclass(frozen=True, slots=True)
class Offer:
    """A candidate and the prices it would be charged by."""

    candidate: Candidate
    cost_rates: Rates
    price_rates: Rates | None
    # Fingerprint of the credential to ask with if it works; empty: any.
    credential: str = ""


@dataclass(slots=True)
class Exchange:
    """The state of one request. Written by the rooms it passes through, read by the journal."""

    endpoint: str
    request_id: str = field(default_factory=new_request_id)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.perf_counter)
    principal: Principal | None = None
    facts: Facts | None = None
    offer: Offer | None = None
    attempts: list[Attempt] = field(default_factory=list)
    budget_ids: list[int] = field(default_factory=list)
    # As the provider reported it, for the whole request.
    usage: TokenUsage | None = None
    # What the provider of a resumed answer asks for, where the tenant pays for the whole as one.
    billed: TokenUsage | None = None
    # Where it reports nothing: what was seen of the answer.
    seen_output_tokens: int = 0
    # The conversation it goes on with, where that can matter for who answers; empty otherwise.
    conversation: bytes = b""
    # Who reads the stream that is under way.
    scanner: StreamScanner | None = None
    # Whether a provider has the request.
    sent: bool = False
    # Whether the client has the start of the answer.
    answering: bool = False
    # Whether the answer is in the words of the client's API already.
    native: bool = False
    # Whether what is sent next ends a whole answer.
    whole: bool = False
    client_gone: bool = False
    # Whether its answer is kept for the same Idempotency-Key, so that it is made to its end.
    once: bool = False
    # The request whose answer it was given again; empty: none.
    replay_of: str = ""
    # Seconds from the start after which the client gives up; None: it did not say.
    patience: float | None = None
    begun: bool = False
    finished: bool = False
    status: int = 0
    end_reason: str = ""
    error_code: str = ""
    # Tokens each choice was bounded to because a budget had no more.
    lowered_to: int | None = None
    # What refused it, in the words the client got.
    refusal: str = ""
    first_token_ms: int | None = None
    cost: Decimal = ZERO
    charge: Decimal = ZERO
    # Classes that the provider reported and that nothing prices.
    unpriced: list[str] = field(default_factory=list)

    def elapsed_ms(self) -> int:
        """Milliseconds since the request came in."""
        return int((time.perf_counter() - self.clock) * 1000)

    def ended(self, end_reason: str, status: int, error_code: str = "") -> TokenUsage:
        """Set how it ended and what it cost; returns the usage it is charged for."""
        self.end_reason, self.status, self.error_code = end_reason, status, error_code
        usage = self._charged_usage()
        if self.offer is not None and usage is not NOTHING:
            assert self.principal is not None  # noqa: S101  # an offer is made to somebody
            self.cost, self.charge = charge_of(
                usage, self.offer.cost_rates, self.offer.price_rates, self.principal.markup
            )
            if self.billed is not None:
                self.cost, _ = charge_of(self.billed, self.offer.cost_rates, None, ZERO)
            if usage.quantities:
                rates = self.offer.price_rates or self.offer.cost_rates
                self.unpriced = rates.unpriced(usage, self.endpoint)
            if end_reason == "interrupted":
                # The gateway's own stop is not the tenant's bill.
                self.charge = ZERO
        for attempt in self.attempts:
            self.cost += attempt.wasted
        return usage

    def waste(self, attempt: Attempt, offer: Offer, usage: TokenUsage | None) -> None:
        """The provider of ``attempt`` may ask for ``usage``, of which the tenant has nothing."""
        if usage is not None:
            attempt.wasted, _ = charge_of(usage, offer.cost_rates, None, ZERO)

    def _charged_usage(self) -> TokenUsage:
        if not self.sent or self.facts is None:
            return NOTHING
        if self.end_reason == "interrupted":
            # As the shipper records it after a crash: the provider has the prompt, the tenant has nothing.
            return self.facts.counted or TokenUsage(self.facts.input_tokens, 0, 0, 0, 0, ESTIMATED)
        if self.end_reason not in _USED:
            return NOTHING
        if self.usage is not None:
            return self.usage
        if self.facts.counted is not None:
            return self.facts.counted
        return TokenUsage(self.facts.input_tokens, 0, 0, self.seen_output_tokens, 0, ESTIMATED)
