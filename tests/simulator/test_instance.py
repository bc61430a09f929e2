"""Values made for JSON Schemas, checked by pydantic models and by hand."""

import json
import re
import time
import uuid
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from routing.simulator.instance import instance_of


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str = Field(min_length=12, max_length=14)
    code: str = Field(pattern=r"^\d{5}-[A-Z]{2}$")


class Node(BaseModel):
    value: int
    children: list["Node"]
    next: "Node | None"


class Person(BaseModel):
    age: int = Field(ge=18, lt=21)
    share: float = Field(gt=0, le=1)
    even: int = Field(multiple_of=7, ge=50)
    born: date
    seen: datetime
    took: timedelta
    key: uuid.UUID
    price: Decimal
    colour: Colour
    kind: Literal["x", "y"]
    home: Address
    others: list[Address] = Field(min_length=2, max_length=3)
    maybe: Address | None
    scores: dict[str, int]
    pair: tuple[int, str]
    unique: set[int] = Field(min_length=4)
    tree: Node


@pytest.mark.parametrize("seed", range(20))
def test_a_model_accepts_what_is_made_from_its_own_schema(seed: int) -> None:
    made = instance_of(Person.model_json_schema(), seed)
    person = Person.model_validate_json(json.dumps(made))
    assert len(person.scores) == 1  # a map shows an entry
    assert set(made) == set(Person.model_fields)


def test_the_same_seed_makes_the_same_value_and_another_seed_another() -> None:
    schema = Person.model_json_schema()
    assert instance_of(schema, 1) == instance_of(schema, 1)
    assert instance_of(schema, 1) != instance_of(schema, 2)


@pytest.mark.parametrize(
    ("schema", "allowed"),
    [
        ({"const": {"a": 1}}, [{"a": 1}]),
        ({"enum": [3]}, [3]),
        ({"type": "null"}, [None]),
        ({"type": ["null", "string"]}, [None]),
        ({"type": "boolean"}, [True, False]),
        ({"type": "integer", "minimum": -5, "exclusiveMaximum": -3}, [-5, -4]),
        ({"type": "number", "multipleOf": 0.5, "minimum": 2.2, "maximum": 2.9}, [2.5]),
        ({"type": "array", "items": {"const": 1}, "maxItems": 0}, [[]]),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": "a"}], "items": False}, [[1, "a"]]),
        ({"anyOf": [{"const": 5}, {"type": "string"}]}, [5]),
        ({"allOf": [{"type": "integer", "minimum": 4}, {"maximum": 4}]}, [4]),
        ({"allOf": [{"type": "integer", "minimum": 4}, {"minimum": 9, "maximum": 9}]}, [9]),
        ({"definitions": {"a/b": {"const": 2}}, "$ref": "#/definitions/a~1b"}, [2]),
        ({"type": "object", "additionalProperties": {"const": 1}, "minProperties": 1}, [{"key0": 1}]),
        ({"type": "object", "required": ["x"], "properties": {"x": {"const": 1}}}, [{"x": 1}]),
    ],
)
def test_a_keyword_is_obeyed(schema: dict[str, Any], allowed: list[Any]) -> None:
    for seed in range(10):
        assert instance_of(schema, seed) in allowed


def test_unique_items_differ() -> None:
    for items in ({"enum": [1, 2, 3]}, {"type": "string"}, {"type": "integer", "minimum": 9}):
        made = instance_of({"type": "array", "items": items, "uniqueItems": True, "minItems": 3}, 1)
        assert len(made) == len(set(made)) == 3


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[A-Z]{3}-\d{4}$",
        r"^(foo|bar)+[a-z0-9_.-]*@x\.com$",
        r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
        r"^\w+\s\w+$",
        r"^[^a-y]+$",
        r"^(a|b)\1$",
        r"colou?r",
    ],
)
def test_a_pattern_is_found_in_the_text(pattern: str) -> None:
    for seed in range(10):
        assert re.search(pattern, instance_of({"type": "string", "pattern": pattern}, seed))


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "string", "minLength": 10**12},
        {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
        {"type": "string", "pattern": "^(?=b)(a+)+$"},
        {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}},
        {
            "$ref": "#/$defs/n0",
            "$defs": {f"n{i}": {"allOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(60)},
        },
        {
            "$ref": "#/$defs/n0",
            "$defs": {
                f"n{i}": {
                    "required": ["a", "b"],
                    "properties": {key: {"$ref": f"#/$defs/n{i + 1}"} for key in "ab"},
                }
                for i in range(60)
            },
        },
        {"type": "integer", "minimum": "x", "required": 5, "properties": []},
        {"type": 5},
        {"allOf": [{"minLength": "x"}, {"minLength": 3}]},
    ],
)
def test_a_schema_made_to_exhaust_comes_to_an_end(schema: dict[str, Any]) -> None:
    start = time.monotonic()
    json.dumps(instance_of(schema, 1))
    assert time.monotonic() - start < 10  # a hang would take hours
