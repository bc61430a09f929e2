"""Make a value that is valid for a JSON Schema, so that a tool call or a structured answer
carries arguments a client can really check."""

from typing import Any

from routing.simulator.dice import Dice
from routing.simulator.scalar import WORDS, bound, make_number, make_string

_OPTIONAL_DEPTH = 4  # optional members are left out below this depth, so that recursion ends
_LAST_DEPTH = 40
_MAX_NODES = 4_000
_MAX_ITEMS = 1_000
_MAX_BRANCHES = 50


def instance_of(schema: Any, seed: int) -> Any:
    """A JSON value valid for `schema`, always the same for the same seed.

    Understood: boolean schemas, type (also lists), enum, const, properties, required,
    additionalProperties, minProperties, items, prefixItems, minItems, maxItems, uniqueItems,
    minLength, maxLength, pattern, format, minimum, maximum, exclusiveMinimum, exclusiveMaximum,
    multipleOf, nullable, allOf (merged), anyOf and oneOf (the first that ends), $ref within the
    document. `not`, `if` and `contains` are not looked at. Never raises: what cannot be made
    becomes null.
    """
    try:
        return _Maker(schema, Dice(seed)).make(schema, 0)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None  # not a JSON Schema at all: bounds that are no numbers, for instance


class _Maker:
    def __init__(self, root: Any, dice: Dice) -> None:
        self.root = root
        self.dice = dice
        self.nodes = 0

    def make(self, schema: Any, depth: int) -> Any:
        self.nodes += 1
        if depth > _LAST_DEPTH or self.nodes > _MAX_NODES * 4:
            return None
        if not isinstance(schema, dict):
            return self.dice.pick(WORDS)
        schema = self.flat(schema, depth, 0)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return self.dice.pick(schema["enum"])
        kind = self.kind_of(schema, depth)
        if kind == "object":
            return self.make_object(schema, depth)
        if kind == "array":
            return self.make_array(schema, depth)
        if kind == "string":
            return make_string(schema, self.dice)
        if kind in ("integer", "number"):
            return make_number(schema, self.dice, whole=kind == "integer")
        if kind == "boolean":
            return self.dice.below(2) == 1
        return None

    def flat(self, schema: dict[str, Any], depth: int, hops: int) -> dict[str, Any]:
        """Resolve $ref, allOf, anyOf and oneOf into one plain schema."""
        merged = {
            name: value for name, value in schema.items() if name not in ("$ref", "allOf", "anyOf", "oneOf")
        }
        self.nodes += 1
        if hops > _LAST_DEPTH or self.nodes > _MAX_NODES * 4:
            return merged
        parts: list[Any] = []
        if isinstance(schema.get("$ref"), str):
            parts.append(self.resolve(schema["$ref"]))
        if isinstance(schema.get("allOf"), list):
            parts.extend(schema["allOf"][:100])
        for name in ("anyOf", "oneOf"):
            branches = schema.get(name)
            if isinstance(branches, list) and branches:
                parts.append(self.branch(branches, depth))
        for part in parts:
            if isinstance(part, dict):
                merged = _merge(merged, self.flat(part, depth, hops + 1))
        return merged

    def branch(self, branches: list[Any], depth: int) -> Any:
        """The first branch, or when deep the one that ends soonest."""
        if depth < _OPTIONAL_DEPTH or len(branches) > _MAX_BRANCHES:
            return branches[0]
        return min(branches, key=lambda branch: self.height(branch, ()))

    def height(self, schema: Any, above: tuple[str, ...]) -> int:
        """How many levels a value needs at least; _LAST_DEPTH for one that never ends."""
        self.nodes += 1
        if not isinstance(schema, dict) or self.nodes > _MAX_NODES * 2:
            return 0
        heights = [0]
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if reference in above or len(above) > _LAST_DEPTH:
                return _LAST_DEPTH
            heights.append(self.height(self.resolve(reference), (*above, reference)))
        for name in ("anyOf", "oneOf"):
            branches = schema.get(name)
            if isinstance(branches, list) and branches:
                heights.append(min(self.height(branch, above) for branch in branches))
        parts: list[Any] = list(schema["allOf"]) if isinstance(schema.get("allOf"), list) else []
        properties, required = schema.get("properties"), schema.get("required")
        if isinstance(properties, dict) and isinstance(required, list):
            parts += [properties[name] for name in required if name in properties]
        if bound(schema, "minItems", 0) > 0:
            parts.append(schema.get("items"))
        heights += [1 + self.height(part, above) for part in parts]
        return min(max(heights), _LAST_DEPTH)

    def resolve(self, reference: str) -> Any:
        """Follow a JSON pointer within the document; {} when it leads nowhere."""
        if not reference.startswith("#"):
            return {}
        here = self.root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(here, dict) and name in here:
                here = here[name]
            elif isinstance(here, list) and name.isdigit() and int(name) < len(here):
                here = here[int(name)]
            else:
                return {}
        return here

    def kind_of(self, schema: dict[str, Any], depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            simple = [name for name in kind if name not in ("object", "array")]
            kind = (simple if depth >= _OPTIONAL_DEPTH and simple else kind or ["null"])[0]
        if isinstance(kind, str):
            return kind
        for name, marks in (
            ("object", ("properties", "required", "additionalProperties", "minProperties")),
            ("array", ("items", "prefixItems", "minItems")),
            ("integer", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
        ):
            if any(mark in schema for mark in marks):
                return name
        return "string"

    def make_object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        listed, needed = schema.get("properties"), schema.get("required")
        properties: dict[str, Any] = listed if isinstance(listed, dict) else {}
        required: list[str] = (
            [name for name in needed if isinstance(name, str)] if isinstance(needed, list) else []
        )
        full = depth < _OPTIONAL_DEPTH and self.nodes < _MAX_NODES
        names = [name for name in properties if full or name in required]
        names += [name for name in required if name not in properties]
        extra = schema.get("additionalProperties", True)
        made = {
            name: self.make(properties.get(name, extra), depth + 1)
            for name in names
            if properties.get(name) is not False
        }
        # A map such as dict[str, int] shows one entry even where none is demanded.
        is_map = full and not properties and isinstance(extra, dict)
        least = max(bound(schema, "minProperties", 0), 1 if is_map else 0)
        for number in range(min(least - len(made), _MAX_ITEMS)):
            made[f"key{number}"] = self.make(extra, depth + 1)
        return made

    def make_array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        head = schema.get("prefixItems")
        heads = head if isinstance(head, list) else []
        rest = schema.get("items", True)
        wanted = 1 if depth < _OPTIONAL_DEPTH and self.nodes < _MAX_NODES and rest is not False else 0
        count = max(bound(schema, "minItems", 0), wanted, len(heads))
        if "maxItems" in schema:
            count = min(count, bound(schema, "maxItems", count))
        made: list[Any] = []
        for index in range(min(count, _MAX_ITEMS)):
            part = heads[index] if index < len(heads) else rest
            value = self.make(part, depth + 1)
            if schema.get("uniqueItems") is True:
                for _ in range(50):
                    if value not in made:
                        break
                    value = self.another(part, value, made, depth)
            made.append(value)
        return made

    def another(self, part: Any, value: Any, made: list[Any], depth: int) -> Any:
        """A value not in the list yet, for arrays whose items must differ."""
        if isinstance(part, dict):
            flat = self.flat(part, depth, 0)
            if isinstance(flat.get("enum"), list):
                return next((choice for choice in flat["enum"] if choice not in made), value)
            if isinstance(value, int) and not isinstance(value, bool):
                return max(item for item in made if isinstance(item, int)) + int(flat.get("multipleOf", 1))
        if isinstance(value, str) and not (
            isinstance(part, dict) and ("format" in part or "pattern" in part)
        ):
            return f"{value}{len(made)}"
        return self.make(part, depth + 1)


def _merge(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Both schemas at once: members join, bounds narrow, lists of choices intersect."""
    merged = dict(left)
    for name, value in right.items():
        mine = merged.get(name)
        if mine is None:
            merged[name] = value
        elif name == "properties" and isinstance(mine, dict) and isinstance(value, dict):
            both = {
                key: {"allOf": [mine[key], part]} if key in mine and mine[key] != part else part
                for key, part in value.items()
            }
            merged[name] = {**mine, **both}
        elif name == "required" and isinstance(mine, list) and isinstance(value, list):
            merged[name] = [*mine, *(item for item in value if item not in mine)]
        elif name == "enum" and isinstance(mine, list) and isinstance(value, list):
            merged[name] = [item for item in mine if item in value] or mine
        elif name in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            merged[name] = max(mine, value)
        elif name in ("maximum", "exclusiveMaximum", "maxLength", "maxItems"):
            merged[name] = min(mine, value)
    return merged
