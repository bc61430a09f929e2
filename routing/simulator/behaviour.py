"""What a model name and the directives in a message ask the simulator to do."""

import re
from dataclasses import dataclass, field, replace

from routing.simulator.failures import PLANNED_NAMES

DEFAULT_WORDS = 10
FAULT_WORDS = 60
MAX_WORDS = 100_000
SLOW_PACE = 0.2

# Faults that show after the answer has begun (or instead of it), not as an error status.
WIRE_FAULTS = (
    "reset",
    "silence",
    "first-token-slow",
    "cut",
    "truncated",
    "stall",
    "badjson",
    "nodone",
    "nousage",
    "error-midstream",
    "error-usage",
    "filtered",
    "flap",
)
# These break an answer part of the way, so they need one long enough to break.
_MIDWAY = frozenset({"cut", "truncated", "stall", "badjson", "error-midstream", "error-usage", "filtered"})

FAULTS = frozenset((*PLANNED_NAMES, *WIRE_FAULTS))

_DIRECTIVE = re.compile(
    r"(?<!\S)(words|pace_ms|cached|cache_write|audio|reasoning|stall_s|silence_s|first_s|after|calls"
    r"|retry_after|case|fault)=([A-Za-z0-9_.-]+)"
)
_WORDS_NAME = re.compile(r"sim-words-(\d{1,6})\Z")


@dataclass(frozen=True, slots=True)
class Directives:
    """The `name=value` words found in the last user message, with their defaults.

    Lengths are in words or tokens, `pace` and the other waits in seconds. None means not given.
    """

    words: int | None = None
    pace: float | None = None
    cached: int = 0
    cache_write: int | None = None
    audio: int = 0
    reasoning: int = 0
    stall: float = 30.0
    silence: float | None = None
    first: float = 3.0
    after: int | None = None
    calls: int = 1
    retry_after: str | None = None
    case: str | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How to answer one request.

    `fault` is a member of FAULTS or None; `once` makes it show only the first time per case;
    `words` is the reply's length before max_tokens; `pace` is seconds before each streamed word.
    """

    fault: str | None
    once: bool
    words: int
    pace: float
    directives: Directives = field(default_factory=Directives)

    def with_fault(self, fault: str | None) -> "Behaviour":
        """The same behaviour with another fault, or with none."""
        return replace(self, fault=fault)


def is_simulated(name: str) -> bool:
    """Whether the simulator answers to this model name."""
    return name.startswith("sim")


def read_directives(text: str) -> Directives:
    """Find the directives in a message. A value that is not a number where one is needed, or
    an unknown fault, leaves that directive at its default. Never raises."""
    if "=" not in text:
        return Directives()
    found: dict[str, str] = dict(_DIRECTIVE.findall(text))
    if not found:
        return Directives()
    fault = found.get("fault")
    words = _whole(found, "words")
    pace_ms = _seconds(found, "pace_ms")
    stall = _seconds(found, "stall_s")
    first = _seconds(found, "first_s")
    return Directives(
        words=words,
        pace=None if pace_ms is None else pace_ms / 1000,
        cached=_whole(found, "cached") or 0,
        cache_write=_whole(found, "cache_write"),
        audio=_whole(found, "audio") or 0,
        reasoning=_whole(found, "reasoning") or 0,
        stall=30.0 if stall is None else stall,
        silence=_seconds(found, "silence_s"),
        first=3.0 if first is None else first,
        after=_whole(found, "after"),
        calls=max(1, min(_whole(found, "calls") or 1, 20)),
        retry_after=found.get("retry_after"),
        case=found.get("case"),
        fault=fault if fault in FAULTS else None,
    )


def _whole(found: dict[str, str], name: str) -> int | None:
    value = found.get(name, "").rstrip(".")
    return min(int(value), MAX_WORDS) if re.fullmatch(r"[0-9]{1,9}", value) else None


def _seconds(found: dict[str, str], name: str) -> float | None:
    value = found.get(name, "").rstrip(".")
    if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", value):
        return None
    return min(float(value), 86_400_000.0 if name == "pace_ms" else 86_400.0)


def behaviour_of(model: str, directives: Directives) -> Behaviour:
    """Combine a model name with a message's directives; a directive wins over the name."""
    name, once = model, False
    if model.endswith("-once"):
        name, once = model[:-5], True
    elif model.endswith("-always"):
        name = model[:-7]
    fault = name[4:] if name.startswith("sim-") and name[4:] in FAULTS else None
    if fault is None:
        once = False
    if directives.fault is not None:
        fault = directives.fault
    words = FAULT_WORDS if fault in _MIDWAY else DEFAULT_WORDS
    if match := _WORDS_NAME.match(model):
        words = min(int(match[1]), MAX_WORDS)
    if directives.words is not None:
        words = directives.words
    pace = SLOW_PACE if model == "sim-slow" else 0.0
    if directives.pace is not None:
        pace = directives.pace
    return Behaviour(fault=fault, once=once, words=words, pace=pace, directives=directives)
