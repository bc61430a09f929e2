"""Where a model group leads beside its own deployments: fallbacks and rules, and what is wrong with some.

The configuration file, the admin and every other door check by this. Pure but for what is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

FALLBACK_REASONS = ("on_error", "on_context_window", "on_content_filter")
# What requests can need of a deployment, as `gateway.v1.facts` tells it.
CAPABILITIES = ("audio", "json_schema", "streaming", "tools", "vision")
# What can be said of a deployment: it streams unless it is said not to.
ABILITIES = ("audio", "json_schema", "no_streaming", "tools", "vision")


def one_of(*words: str) -> AfterValidator:
    """A validator for a closed set of words."""

    def check(value: str) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value

    return AfterValidator(check)


Capability = Annotated[str, one_of(*CAPABILITIES)]
Ability = Annotated[str, one_of(*ABILITIES)]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Count = Annotated[int, Field(ge=0, le=1_000_000_000_000 - 1)]


class Block(BaseModel):
    """A mapping in the file: known fields only, of exactly their kind."""

    # Errors must not quote values: they may be secrets.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class FallbacksBlock(Block):
    """Other groups to try, by what went wrong."""

    on_error: list[str] = []
    on_context_window: list[str] = []
    on_content_filter: list[str] = []


class WhenBlock(Block):
    """The conditions of a rule; all that are given must hold."""

    plan: str | None = None
    team: str | None = None
    input_tokens_over: Count | None = None
    needs: Annotated[list[Capability], Field(min_length=1)] | None = None
    region: Annotated[list[Region], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _something(self) -> WhenBlock:
        if not self.model_dump(exclude_none=True):
            raise ValueError("must give a condition: plan, team, input_tokens_over, needs or region")
        return self


class RuleBlock(Block):
    """Where requests go that fulfil ``when``: to another group, or to some deployments of this one."""

    when: WhenBlock
    use: str | None = None
    deployments: Annotated[list[str], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> RuleBlock:
        if (self.use is None) == (self.deployments is None):
            raise ValueError("must give either use (a group) or deployments (of this group)")
        return self


_FALLBACKS = TypeAdapter(FallbacksBlock)
_RULES = TypeAdapter(list[RuleBlock])


def misshapen(fallbacks: Any, rules: Any) -> list[str]:
    """What is wrong with fallbacks and rules by themselves, each with the field's name."""
    found: list[str] = []
    for field, shape, value in (("fallbacks", _FALLBACKS, fallbacks), ("rules", _RULES, rules)):
        try:
            shape.validate_python(value)
        except ValidationError as error:
            for each in error.errors(include_url=False, include_context=False, include_input=False):
                path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in each["loc"])
                unknown = each["type"] == "extra_forbidden"
                said = "is not a known field" if unknown else each["msg"].removeprefix("Value error, ")
                found.append(f"{field}{path}: {said}")
    if not found:
        for index, earlier in unreachable(rules):
            found.append(
                f"rules[{index}]: is never reached, because rules[{earlier}] matches whatever it does"
            )
    return found


def unreachable(rules: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Rules that can never be the first to match: the place of each, and of the earlier one that covers it."""
    found = []
    for index, rule in enumerate(rules):
        for earlier in range(index):
            if _implied(rules[earlier]["when"], rule["when"]):
                found.append((index, earlier))
                break
    return found


def _implied(general: Mapping[str, Any], special: Mapping[str, Any]) -> bool:
    """Whether every request that fulfils ``special`` fulfils ``general``."""
    for name, value in general.items():
        if name not in special:
            return False
        match name:
            case "input_tokens_over":
                holds = special[name] >= value
            case "needs":
                holds = set(special[name]) >= set(value)
            case "region":
                holds = set(special[name]) <= set(value)
            case _:
                holds = special[name] == value
        if not holds:
            return False
    return True


def neighbours(fallbacks: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """The groups that a group leads to, by reason: each kind of fallback, and ``rules``."""
    found = {reason: set(fallbacks.get(reason, ())) for reason in FALLBACK_REASONS}
    found["rules"] = {rule["use"] for rule in rules if rule.get("use")}
    return found


def find_cycle(edges: Mapping[str, set[str]]) -> list[str] | None:
    """A way through ``edges`` (names by name) that ends where it begins, such as [a, b, a]; None if none is."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str] | None:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return None
        for target in sorted(edges.get(name, ())):
            if found := walk(target, [*way, name]):
                return found
        done.add(name)
        return None

    for start in sorted(edges):
        if found := walk(start, []):
            return found
    return None
