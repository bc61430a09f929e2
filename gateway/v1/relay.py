"""The attempts of one request: try candidates in order until one answers, and pass its answer on."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from gateway.v1.contracts import INVALID_OUTPUT
from gateway.v1.errors import Headers
from gateway.v1.exchange import Exchange, Offer
from gateway.v1.failures import AttemptFailed, BrokenStream
from gateway.v1.fetch import Fetch, Send
from gateway.v1.hedge import Hedges
from gateway.v1.pulse import Pulse
from gateway.v1.resume import Resumption, resumable
from gateway.v1.stream import error_event
from gateway.v1.turns import Turns, retry_after_of
from gateway.v1.upstream import Upstream
from gateway.v1.usage_checks import UsageChecks


class Relay:
    """Relays exchanges through ``upstream``. One a worker."""

    def __init__(self, upstream: Upstream, pulse: Pulse, checks: UsageChecks) -> None:
        self._upstream = upstream
        self._checks = checks
        self._pulse = pulse
        self._hedges = Hedges(upstream, pulse)
        self._random = Random()  # noqa: S311  # spreads retries, guards nothing

    async def run(
        self,
        exchange: Exchange,
        offers: list[Offer],
        after_refusal: Callable[[str, set[int]], list[Offer]],
        headers: Headers,
        send: Send,
    ) -> tuple[str, int, str]:
        """Answer the exchange; returns ``(end_reason, status, error_code)``.

        ``after_refusal(reason, tried)`` gives more offers where a provider refused for a reason
        (``context_window``, ``content_filter``) that another model group may not share. Raises V1Error
        if nothing was sent to the client yet.
        """
        facts = exchange.facts
        assert facts is not None  # noqa: S101  # read before routing
        failure: AttemptFailed | None = None
        resuming: Resumption | None = None
        turns = Turns(self._pulse, exchange, offers, self._random)
        while not exchange.client_gone and (turn := await turns.next()) is not None:
            asked = () if resuming is None else resuming.asks(turn)
            fetch = Fetch(self._upstream, self._pulse, exchange, turn, *asked)
            try:
                if turn.offer.candidate.group.hedge:
                    fetch = await self._hedges.first(exchange, turns, fetch)
                    turn = fetch.turn
                async with fetch:
                    await fetch.begin()
                    if resuming is not None:
                        resuming.went_on(fetch)
                    elif turn.offer.candidate.group.resume and not fetch.native and resumable(facts):
                        resuming = Resumption(exchange, send)
                    await fetch.deliver(headers, resuming or send)
            except BrokenStream as cut:
                if resuming is None or not resuming.broke(fetch, cut, turns):
                    if not facts.binary:
                        await send({"type": "http.response.body", "body": error_event(cut.error)})
                    return cut.end_reason, 200, cut.error.code or ""
            except AttemptFailed as error:
                failure = error
                exchange.sent = resuming is not None
                if resuming is None:
                    # The tenant has nothing of it, however the request ends.
                    exchange.usage, exchange.seen_output_tokens = None, 0
                # An answer that was made to its end is asked for, whether or not it says how much.
                whole = error.reason == INVALID_OUTPUT
                exchange.waste(fetch.attempt, turn.offer, fetch.used if whole else fetch.spent)
                turn.retry_after = retry_after_of(error.error.headers)
                turns.failed(turn, error.reason)
                if not error.moves_on:
                    turns.instead(after_refusal(error.reason, turns.tried) if resuming is None else ())
            else:
                self._checks.sample(fetch)
                return "completed", 200, ""
            finally:
                turns.ended(turn, fetch.attempt.reason)
        if resuming is not None:
            return await resuming.give_up()
        if failure is None:
            raise turns.nobody()
        exchange.end_reason = failure.end_reason
        raise failure.error
