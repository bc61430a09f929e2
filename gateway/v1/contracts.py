"""What an answer must be valid against: a schema that its provider could not be held to, and the parameters of
tools where a model group demands it. Checking, mending, and refusing what cannot be mended.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from gateway.v1.errors import InvalidRequest
from gateway.v1.stream import DONE
from routing.dialects import Dialect
from routing.dialects.structured import asked_schema
from routing.table import DeploymentSpec, GroupSpec

# The reason of an attempt whose answer broke its contract.
INVALID_OUTPUT: Final = "invalid_output"
HEADER: Final = b"x-weir-structured-output"
# Longer answers are checked in a thread: a millisecond of checking is a millisecond for everybody else.
MOST_IN_LOOP: Final = 16_384
# Places in a text where a JSON value may begin that are tried.
MOST_STARTS: Final = 20
# Ends after which an answer is not whole, as the client is told by the very reason.
_UNFINISHED: Final = ("length", "content_filter")
_decoder = json.JSONDecoder()


class Broken(Exception):
    """The answer breaks its contract; the message says where, without quoting it."""


@dataclass(frozen=True, slots=True)
class Contract:
    """``content`` is valid against its schema, calls of ``tools`` against their parameters. ``mends``: a text
    around the JSON may be cut away. ``native``: the provider itself was held to the schema."""

    content: Validator | None
    tools: Mapping[str, Validator]
    mends: bool
    native: bool
    # Whether it is asked for again if an answer breaks it.
    again: bool = False

    @property
    def checks(self) -> bool:
        """Whether there is anything to check."""
        return self.content is not None or bool(self.tools)

    def word(self, *, mended: bool, asked_again: bool) -> str:
        """What the client is told of how it was kept; empty where there is nothing to tell."""
        if asked_again:
            return "retried"
        if mended:
            return "repaired"
        return "native" if self.native else "lowered" if self.content is not None else ""

    async def keep(self, choices: list[dict[str, Any]]) -> dict[int, str]:
        """Check the choices of an answer, given as ``{"index", "finish_reason", "message"}``. Returns the
        mended content of those that needed it, by index. Raises Broken."""
        size = sum(len(choice["message"].get("content") or "") for choice in choices)
        if size > MOST_IN_LOOP:
            return await asyncio.to_thread(self._keep, choices)
        return self._keep(choices)

    def _keep(self, choices: list[dict[str, Any]]) -> dict[int, str]:
        mended: dict[int, str] = {}
        for choice in choices:
            message = choice["message"]
            if choice["finish_reason"] in _UNFINISHED or message.get("refusal"):
                continue
            calls = message.get("tool_calls") or ()
            for call in calls:
                self._check_call(call["function"])
            if self.content is None or calls:
                continue
            text = message.get("content") or ""
            kept = self._kept(text)
            if kept != text:
                mended[choice["index"]] = kept
        return mended

    def _check_call(self, function: Mapping[str, Any]) -> None:
        validator = self.tools.get(function["name"])
        if validator is None:
            return
        try:
            arguments = orjson.loads(function["arguments"])
        except orjson.JSONDecodeError:
            raise Broken("The arguments of a tool call are not JSON.") from None
        if not _valid(validator, arguments):
            raise Broken("The arguments of a tool call are not valid against the tool's parameters.")

    def _kept(self, text: str) -> str:
        """The text, or the part of it that is valid."""
        assert self.content is not None  # noqa: S101  # asked before
        valid_json = False
        for candidate, value in _candidates(text) if self.mends else _whole(text):
            valid_json = True
            if _valid(self.content, value):
                return candidate
        if valid_json:
            raise Broken("The answer is not valid against the schema of the request.")
        raise Broken("The answer is not JSON.")


def contract_for(
    speaks: Dialect, deployment: DeploymentSpec, body: Mapping[str, Any], group: GroupSpec
) -> Contract | None:
    """What the answer of one deployment must keep to; None where nothing is asked. Raises InvalidRequest
    for a schema that is none."""
    form = body.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    structured = kind in ("json_schema", "json_object")
    demanded = group.validate_tools and bool(body.get("tools"))
    if not structured and not demanded:
        return None
    native = structured and speaks.takes_format(deployment, body)
    content = None
    if structured and not native:
        schema = asked_schema(form)
        content = _validator({"type": "object"} if schema is None else schema, "response_format")
    tools = dict(_parameters(body["tools"])) if demanded else {}
    way = group.structured_output
    return Contract(content, tools, way != "fail", native, way == "retry")


def _parameters(tools: Any) -> Iterator[tuple[str, Validator]]:
    for position, tool in enumerate(tools if isinstance(tools, list) else ()):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            continue
        parameters = function.get("parameters")
        if isinstance(parameters, dict):
            yield function["name"], _validator(parameters, f"tools[{position}].function.parameters")


def _validator(schema: dict[str, Any], param: str) -> Validator:
    """A validator that never fetches a reference. ``pattern`` is not checked: an expression of the client's
    may take for ever on a text of the model's."""
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except (SchemaError, RecursionError):
        raise InvalidRequest(
            f"Invalid schema for '{param}'.", param=param, code="invalid_json_schema"
        ) from None
    # Untyped there.
    without = extend(kind, dict.fromkeys(("pattern", "patternProperties"), _unchecked))  # type: ignore[no-untyped-call]
    found: Validator = without(schema, registry=Registry())
    return found


def _unchecked(*_: Any) -> None:
    return None


def _valid(validator: Validator, value: Any) -> bool:
    try:
        return bool(validator.is_valid(value))
    except (Unresolvable, RecursionError):
        return False


def _whole(text: str) -> Iterator[tuple[str, Any]]:
    try:
        yield text, orjson.loads(text)
    except orjson.JSONDecodeError:
        return


_FENCED: Final = re.compile(r"```(?:json|JSON)?[ \t]*\r?\n(.*?)\r?\n?```", re.DOTALL)


def _candidates(text: str) -> Iterator[tuple[str, Any]]:
    """Parts of the text that are JSON, the likeliest first: all of it, what stands in a fence, what begins
    with a bracket somewhere."""
    yield from _whole(text)
    for fenced in _FENCED.findall(text):
        yield from _whole(fenced.strip())
    for found, _ in zip(re.finditer(r"[{\[]", text), range(MOST_STARTS), strict=False):
        try:
            end = _decoder.raw_decode(text, found.start())[1]
        except (ValueError, RecursionError):
            continue
        yield from _whole(text[found.start() : end])


async def kept_answer(contract: Contract, body: bytes) -> tuple[bytes, bool]:
    """A plain answer as it keeps to its contract, and whether it was mended for that. Raises Broken."""
    answer = orjson.loads(body)
    mended = await contract.keep(answer["choices"])
    for choice in answer["choices"]:
        if choice["index"] in mended:
            choice["message"]["content"] = mended[choice["index"]]
    return (orjson.dumps(answer), True) if mended else (body, False)


async def kept_stream(contract: Contract, events: bytes) -> tuple[bytes, bool]:
    """The events of a whole stream, likewise. Raises Broken."""
    mended = await contract.keep(_choices(events))
    return (_mended_events(events, mended), True) if mended else (events, False)


def _choices(events: bytes) -> list[dict[str, Any]]:
    """The choices that the chunks of a whole stream, as a client gets them, amount to."""
    found: dict[int, dict[str, Any]] = {}
    for chunk in _chunks(events):
        for piece in chunk.get("choices") or ():
            choice = found.setdefault(
                piece.get("index") or 0,
                {"index": piece.get("index") or 0, "finish_reason": None, "message": {}},
            )
            choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
            message, delta = choice["message"], piece.get("delta") or {}
            for name in ("content", "refusal"):
                if delta.get(name):
                    message[name] = message.get(name, "") + delta[name]
            for call in delta.get("tool_calls") or ():
                calls = message.setdefault("tool_calls", [])
                while len(calls) <= (call.get("index") or 0):
                    calls.append({"function": {"name": "", "arguments": ""}})
                known, function = calls[call.get("index") or 0]["function"], call.get("function") or {}
                known["name"] += function.get("name") or ""
                known["arguments"] += function.get("arguments") or ""
    return list(found.values())


def _mended_events(events: bytes, mended: Mapping[int, str]) -> bytes:
    """The events with the content of some choices in place of theirs, each whole in its first piece."""
    left = dict(mended)
    written = []
    for chunk in _chunks(events):
        for piece in chunk.get("choices") or ():
            delta = piece.get("delta") or {}
            index = piece.get("index") or 0
            if index in mended and delta.get("content"):
                delta["content"] = left.pop(index, "")
        written.append(b"data: " + orjson.dumps(chunk) + b"\n\n")
    return b"".join(written) + DONE


def _chunks(events: bytes) -> Iterator[dict[str, Any]]:
    for event in events.split(b"\n\n"):
        data = event.removeprefix(b"data:").strip()
        if data.startswith(b"{"):
            yield orjson.loads(data)
