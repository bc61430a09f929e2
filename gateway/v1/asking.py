"""What a provider is asked for a request, by the model group's rule for what the provider cannot honour; and
whether its answer keeps to what the client asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.v1.contracts import HEADER, INVALID_OUTPUT, Broken, Contract
from gateway.v1.errors import Headers
from gateway.v1.exchange import Exchange
from gateway.v1.facts import Facts
from gateway.v1.failures import invalid_output
from gateway.v1.forms import Posted
from routing.dialects import WORDED, CannotCarry, Dialect
from routing.table import DeploymentSpec, GroupSpec


def ask(
    speaks: Dialect, deployment: DeploymentSpec, group: GroupSpec, facts: Facts
) -> tuple[bytes | Posted, list[str]]:
    """The body for the provider, and the names of the client's parameters that it does not carry as they
    were. Raises CannotCarry for what may not be left out."""
    if facts.form is not None:
        speaks.form_of(facts.endpoint)
        return facts.form.posted(deployment.model), []
    if facts.endpoint not in WORDED:
        return speaks.plain_body(deployment, facts.endpoint, facts.body), []
    body = facts.body_for(deployment.max_output_tokens)
    payload, lost = speaks.body(deployment, body, stream=facts.stream)
    if not lost or group.unsupported_params == "map":
        return payload, lost
    if group.unsupported_params == "strict":
        raise CannotCarry(lost[0])
    # Not even brought nearer: a bounded temperature is another one than the client's.
    kept = {name: value for name, value in body.items() if name not in lost}
    return speaks.body(deployment, kept, stream=facts.stream)[0], lost


async def kept(
    exchange: Exchange,
    contract: Contract,
    keep: Callable[[Contract, bytes], Awaitable[tuple[bytes, bool]]],
    answer: bytes,
) -> tuple[bytes, Headers]:
    """The answer as it keeps to its contract, and the header that tells how. Raises AttemptFailed."""
    mended = False
    if contract.checks:
        try:
            answer, mended = await keep(contract, answer)
        except Broken as broken:
            raise invalid_output(broken, moves_on=contract.again) from None
    again = any(attempt.reason == INVALID_OUTPUT for attempt in exchange.attempts)
    word = contract.word(mended=mended, asked_again=again)
    hidden = exchange.principal.hidden_headers if exchange.principal is not None else ()
    return answer, [(HEADER, word.encode())] if word and HEADER not in hidden else []
