"""The attempts of one request: try candidates in order until one answers, and pass its answer on."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from gateway.v1.errors import Headers
from gateway.v1.exchange import Exchange, Offer
from gateway.v1.failures import AttemptFailed, BrokenStream
from gateway.v1.fetch import Fetch, Send
from gateway.v1.pulse import Pulse
from gateway.v1.stream import error_event
from gateway.v1.turns import Turns, retry_after_of
from gateway.v1.upstream import Upstream


class Relay:
    """Relays exchanges through ``upstream``. One a worker."""

    def __init__(self, upstream: Upstream, pulse: Pulse) -> None:
        self._upstream = upstream
        self._pulse = pulse
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
        failure: AttemptFailed | None = None
        turns = Turns(self._pulse, exchange, offers, self._random)
        while not exchange.client_gone and (turn := await turns.next()) is not None:
            fetch = Fetch(self._upstream, self._pulse, exchange, turn)
            try:
                async with fetch:
                    await fetch.begin()
                    await fetch.deliver(headers, send)
            except BrokenStream as cut:
                if exchange.facts is None or not exchange.facts.binary:
                    await send({"type": "http.response.body", "body": error_event(cut.error)})
                return cut.end_reason, 200, cut.error.code or ""
            except AttemptFailed as error:
                failure = error
                exchange.sent = False
                exchange.waste(fetch.attempt, turn.offer, fetch.spent)
                turn.retry_after = retry_after_of(error.error.headers)
                turns.failed(turn, error.reason)
                if not error.moves_on:
                    turns.instead(after_refusal(error.reason, turns.tried))
            else:
                return "completed", 200, ""
            finally:
                turns.ended(turn, fetch.attempt.reason)
        if failure is None:
            raise turns.nobody()
        exchange.end_reason = failure.end_reason
        raise failure.error
