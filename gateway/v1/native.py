"""Requests in the words of an API that the provider speaks itself: sent on and answered without translation.

The client's own body goes to the provider, with the provider's name of the model, and what comes back is the
client's. So what a chat has no words for (``cache_control`` above all) has its effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from billing.token_usage import from_openai
from gateway.v1.answers import BadAnswer, ErrorAnswer, PlainAnswer, without_prices
from gateway.v1.contracts import Contract
from gateway.v1.exchange import Exchange
from gateway.v1.facts import Facts
from gateway.v1.translation.shape import Object
from routing.dialects import CannotCarry, Dialect, fault_of
from routing.dialects.anthropic import answers as anthropic
from routing.table import DeploymentSpec, GroupSpec

MESSAGES: Final = "messages"
RESPONSES: Final = "responses"
# Members of a request that stay here: what they ask for is not priced, or is this gateway's own business.
_KEPT_BACK: Final = {
    MESSAGES: (),
    RESPONSES: ("previous_response_id", "metadata", "background", "conversation", "prompt"),
}
# Of those, what the client is told of.
_UNPRICED: Final = {MESSAGES: ("speed", "inference_geo"), RESPONSES: ()}
# Members that a response always has at OpenAI, if only as null.
_NULLABLE: Final = ("error", "incomplete_details", "instructions", "temperature", "top_p")
# Kinds of items and blocks that are thinking.
_THOUGHTS: Final = frozenset({"reasoning", "thinking", "redacted_thinking"})
_ENCRYPTED: Final = "reasoning.encrypted_content"


def spoken_by(
    speaks: Dialect, deployment: DeploymentSpec, exchange: Exchange, facts: Facts, contract: Contract | None
) -> str:
    """The API in which a provider is asked instead of in a chat; empty: in a chat.

    An answer that must be looked into before the client has it is asked for in a chat.
    """
    if facts.native is None or exchange.endpoint not in speaks.natively_at(deployment):
        return ""
    return "" if contract is not None and contract.checks else exchange.endpoint


def native_body(
    speaks: Dialect, api: str, deployment: DeploymentSpec, group: GroupSpec, facts: Facts
) -> tuple[bytes, list[str]]:
    """The body for the provider, and the names of the client's parameters that it does not carry. Raises
    CannotCarry where the group does not allow that."""
    assert facts.native is not None  # noqa: S101  # by spoken_by()
    lost = [name for name in _UNPRICED[api] if facts.native.get(name) is not None]
    body = {
        name: value
        for name, value in facts.native.items()
        if name not in _KEPT_BACK[api] and name not in lost
    }
    body["model"] = deployment.model
    # The bound that was reserved, which a budget may have lowered.
    bound = facts.body_for(deployment.max_output_tokens).get("max_tokens")
    if api == MESSAGES:
        body["max_tokens"] = bound
    else:
        if bound is not None:
            body["max_output_tokens"] = bound
        # What is kept is kept here.
        body["store"] = False
        if facts.kept and speaks.seals_thinking(deployment):
            # Without it, a model's thinking could not go on in the next response.
            include = body.get("include") or []
            body["include"] = [*include, *(() if _ENCRYPTED in include else (_ENCRYPTED,))]
        lost += speaks.adapt_response(deployment, body)
    if lost and group.unsupported_params == "strict":
        raise CannotCarry(lost[0])
    return orjson.dumps(body), lost


def native_answer(api: str, raw: bytes, exchange: Exchange, facts: Facts) -> PlainAnswer:
    """A provider's plain answer, as the client gets it. Raises BadAnswer, and ErrorAnswer where the provider
    reports an error with status 200."""
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadAnswer("It is not JSON.") from None
    if api == MESSAGES:
        if not (isinstance(answer, dict) and answer.get("type") == "message"):
            raise _no_answer(answer, "message")
        if not isinstance(answer.get("content"), list):
            raise BadAnswer("It has no content.")
        usage = answer.get("usage")
        told = from_openai(anthropic.usage_of(usage)) if isinstance(usage, dict) else None
        return PlainAnswer(raw, told, sum(map(len, said(answer["content"]))))
    if not (isinstance(answer, dict) and answer.get("object") == "response"):
        raise _no_answer(answer, "response")
    if answer.get("status") not in ("completed", "incomplete"):
        error = answer.get("error")
        raise ErrorAnswer(error if isinstance(error, dict) else {"message": "The response failed."})
    if not isinstance(answer.get("output"), list):
        raise BadAnswer("It has no output.")
    own(answer, exchange, facts)
    usage = answer.get("usage")
    told = from_openai(usage) if isinstance(usage, dict) else None
    return PlainAnswer(orjson.dumps(answer), told, sum(map(len, said(answer["output"]))))


def native_messages(raw: bytes) -> Iterator[dict[str, Any]]:
    """All that the model wrote in a good plain answer, as messages of a chat, which is read when the first is
    asked for."""
    answer = orjson.loads(raw)
    for part in answer.get("content") or answer.get("output") or ():
        kind = part.get("type") if isinstance(part, dict) else None
        yield {"reasoning_content" if kind in _THOUGHTS else "content": "".join(said([part]))}


def says_all(facts: Facts) -> bool:
    """Whether the chat that a request was read as says all that the provider was asked in the client's own
    words. What was thought before is not in it."""
    native = facts.native or {}
    items = native.get("input")
    thoughts = any(item.get("type") in _THOUGHTS for item in items) if isinstance(items, list) else False
    return not (
        facts.dropped or thoughts or any("reasoning_content" in message for message in facts.body["messages"])
    )


def _no_answer(answer: Any, wanted: str) -> BadAnswer:
    fault = fault_of(answer)
    return BadAnswer(f"It is no {wanted}.") if fault is None else ErrorAnswer(fault)


def own(response: Object, exchange: Exchange, facts: Facts) -> None:
    """Make a provider's response this gateway's, in place: its id, and what is kept here. Members that have
    no value are there, as OpenAI's are, and what the provider charges us is not."""
    asked = facts.asked or {}
    response["id"] = f"resp_{exchange.request_id.removeprefix('req_')}"
    response["store"] = facts.kept
    response["previous_response_id"] = asked.get("previous_response_id")
    response["metadata"] = asked.get("metadata") or {}
    for name in _NULLABLE:
        response.setdefault(name, None)
    usage = response.get("usage")
    if isinstance(usage, dict):
        response["usage"] = without_prices(usage)


def said(found: Any) -> Iterator[str]:
    """The texts that the model wrote, in content blocks of a message or items of a response: what it said,
    thought and called."""
    if isinstance(found, list):
        for each in found:
            yield from said(each)
    elif isinstance(found, Mapping):
        for name in ("text", "thinking", "refusal", "name", "arguments"):
            if isinstance(found.get(name), str):
                yield found[name]
        if found.get("input"):
            yield orjson.dumps(found["input"]).decode()
        for name in ("content", "summary"):
            yield from said(found.get(name))
