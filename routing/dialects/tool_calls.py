"""Tool calls as OpenAI gives them: index always, id, type and name once, arguments a string of JSON."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

# Inside one JSON object this stands only within a string.
_TWO_OBJECTS: Final = re.compile(r"\}\s*\{")
_decoder = json.JSONDecoder()


@dataclass(slots=True)
class Call:
    """One call of a stream, as far as it came. ``last`` is the last character of the arguments that is
    not blank; empty where there is none."""

    index: int
    id: str
    name: str = ""
    last: str = ""
    _pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        """The arguments so far. Costs as much as they are long."""
        return "".join(self._pieces)

    @property
    def whole(self) -> bool:
        """Whether the arguments are a complete JSON object: nothing of this call can follow."""
        return self.last == "}" and _object_end(self.arguments) is not None

    def add(self, arguments: str) -> None:
        """Take in what a piece brings."""
        if arguments:
            self._pieces.append(arguments)
            self.last = arguments.rstrip()[-1:] or self.last


@dataclass(slots=True)
class ToolCalls:
    """The calls of one choice of a stream. ``seed`` makes ids where a provider gives none."""

    seed: str
    calls: list[Call] = field(default_factory=list)
    _by_index: dict[int, Call] = field(default_factory=dict)

    def repair(self, pieces: list[Any]) -> list[dict[str, Any]]:
        """The pieces of one delta, as the client gets them."""
        repaired: list[dict[str, Any]] = []
        for piece in pieces:
            if isinstance(piece, dict):
                repaired += self._piece(piece)
        return repaired

    def fill(self) -> list[dict[str, Any]]:
        """Pieces for calls that ended without arguments: ``{}``, as a tool without parameters is called."""
        empty = [call for call in self.calls if not call.last]
        for call in empty:
            call.add("{}")
        return [{"index": call.index, "function": {"arguments": "{}"}} for call in empty]

    def _piece(self, piece: dict[str, Any]) -> list[dict[str, Any]]:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        given_id, name = _text(piece.get("id")), _text(function.get("name"))
        arguments = arguments_text(function.get("arguments"))
        call, new = self._call(piece.get("index"), given_id, name, arguments)
        rest, more = "", ""
        if not call.last and arguments.strip() == "null":
            arguments = ""
        if _TWO_OBJECTS.search(call.last + arguments):
            # Some relays put the arguments of several calls behind each other under one index.
            arguments, rest = _split(call.arguments, arguments)
        call.add(arguments)
        shown: dict[str, Any] = {"index": call.index}
        if new:
            call.name = name
            shown |= {name: value for name, value in piece.items() if name not in _OWN and value is not None}
            shown |= {"id": call.id, "type": "function", "function": {"name": name, "arguments": arguments}}
        else:
            more = _more_of_name(call, name)
            call.name += more
            shown["function"] = {"name": more, "arguments": arguments} if more else {"arguments": arguments}
        told = [shown] if new or arguments or more else []
        if rest:
            again = {"function": {"name": call.name, "arguments": rest}}
            return [*told, *self._piece({**again, "index": piece.get("index"), "id": self._made_id()})]
        return told

    def _call(self, index: Any, given_id: str, name: str, arguments: str) -> tuple[Call, bool]:
        """The call that a piece belongs to, and whether it is its first piece."""
        known = self._by_index.get(index) if isinstance(index, int) else self._without_index(given_id, name)
        if known is not None and not self._starts_another(known, given_id, name, arguments):
            return known, False
        taken = {call.id for call in self.calls}
        new_id = given_id if given_id and given_id not in taken else self._made_id()
        call = Call(len(self.calls), new_id)
        self.calls.append(call)
        if isinstance(index, int):
            self._by_index[index] = call
        return call, True

    def _without_index(self, given_id: str, name: str) -> Call | None:
        if given_id:
            return next((call for call in self.calls if call.id == given_id), None)
        return self.calls[-1] if self.calls and not name else None

    @staticmethod
    def _starts_another(known: Call, given_id: str, name: str, arguments: str) -> bool:
        if given_id and given_id != known.id and (name or known.whole):
            return True
        # After a complete object nothing of the same call can follow.
        return bool(name) and arguments.lstrip().startswith("{") and known.whole

    def _made_id(self) -> str:
        digest = hashlib.sha256(f"{self.seed}:{len(self.calls)}".encode()).hexdigest()
        return f"call_{digest[:24]}"


_OWN: Final = frozenset({"index", "id", "type", "function"})


def arguments_text(arguments: object) -> str:
    """Arguments as a string, also where they came as an object; empty for none."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()


def repair_whole(calls: list[Any], seed: str) -> list[dict[str, Any]]:
    """The tool calls of a plain answer. Unknown members stay: some must be sent back to the provider."""
    repaired = []
    taken: set[str] = set()
    for position, call in enumerate(calls):
        if not isinstance(call, dict):
            continue
        function = call.get("function")
        function = dict(function) if isinstance(function, dict) else {}
        function["name"] = _text(function.get("name"))
        arguments = arguments_text(function.get("arguments"))
        function["arguments"] = "{}" if arguments.strip() in ("", "null") else arguments
        given = _text(call.get("id"))
        if not given or given in taken:
            given = f"call_{hashlib.sha256(f'{seed}:{position}'.encode()).hexdigest()[:24]}"
        taken.add(given)
        rest = {name: value for name, value in call.items() if name not in _OWN and value is not None}
        repaired.append({**rest, "id": given, "type": "function", "function": function})
    return repaired


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _more_of_name(call: Call, name: str) -> str:
    """What a later piece adds to a call's name: nothing if it repeats it."""
    if not name or name == call.name or call.last:
        return ""
    return name[len(call.name) :] if call.name and name.startswith(call.name) else name


def _object_end(text: str) -> int | None:
    """Where the JSON object at the start of ``text`` ends; None if it is not complete."""
    try:
        return _decoder.raw_decode(text.lstrip())[1] + len(text) - len(text.lstrip())
    except ValueError:
        return None


def _split(before: str, piece: str) -> tuple[str, str]:
    """``piece`` in two if, behind ``before``, an object ends in it and another begins."""
    end = _object_end(before + piece)
    if end is None or not (before + piece)[end:].lstrip().startswith("{"):
        return piece, ""
    border = max(end - len(before), 0)
    return piece[:border], piece[border:]
