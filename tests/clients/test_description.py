"""Whatever fits OpenAI's description of an operation, and what does not: never a 5xx, every error in shape.

``openai.json`` is the part of OpenAI's published description (github.com/openai/openai-openapi, version
2.3.0, MIT) that Weir implements, without its prose. ``DESCRIPTION_EXAMPLES=500`` looks longer, at other
requests each time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.errors import UnsupportedSchema

from gateway.v1.endpoints import ENDPOINTS
from gateway.v1.resources import RESOURCES, resource_at
from tests.stack import Tenant
from tests.v1.test_media import priced

USUAL = 25
EXAMPLES = int(os.environ.get("DESCRIPTION_EXAMPLES", USUAL))
SCHEMA = schemathesis.openapi.from_path(str(Path(__file__).parent / "openai.json"))
OPERATIONS: dict[str, Any] = {
    each.label: each
    for found in SCHEMA.get_all_operations()
    if isinstance(found, Ok) and (each := found.ok())
}
DESCRIPTION: dict[str, Any] = json.loads((Path(__file__).parent / "openai.json").read_bytes())
# Theirs who first offered them, not OpenAI's.
OTHERS = {"POST /messages", "POST /rerank", "POST /messages/count_tokens"}
PRICE = dict.fromkeys(
    ("input", "output", "audio_input", "audio_output", "image", "second", "character", "search"), "0.000001"
)


@st.composite
def cases(draw: st.DrawFn, operation: Any) -> Any:
    """A request that fits the operation's description, or one that does not."""
    mode = draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
    try:
        return draw(operation.as_strategy(generation_mode=mode))
    except UnsupportedSchema:
        # Some schemas' opposites are more than the library can make.
        reject()


@pytest.mark.parametrize("label", list(OPERATIONS))
def test_no_request_fails_and_every_error_is_in_shape(tenant: Tenant, slug: str, label: str) -> None:
    model = priced(tenant, slug, PRICE)
    served = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=EXAMPLES == USUAL,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=cases(OPERATIONS[label]), known=st.integers(0, 3))
    def play(case: Any, known: int) -> None:
        nonlocal served
        if known and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = model
        answer = case.call(
            base_url=f"{tenant.stack.url}/v1",
            headers={"Authorization": f"Bearer {tenant.secret}"},
            timeout=30,
        )
        shown = f"{answer.status_code} {answer.content[:300]!r} for {case.body!r}"[:2000]
        assert answer.status_code < 500, shown
        served += 1
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}, shown
            assert isinstance(error["message"], str), shown
            assert isinstance(error["type"], str), shown
            assert error["param"] is None or isinstance(error["param"], str), shown
            assert error["code"] is None or isinstance(error["code"], str), shown

    play()
    assert served


# What each operation with a JSON body needs at least; ``model`` besides.
NEEDED: dict[str, dict[str, Any]] = {
    "POST /chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "POST /completions": {"prompt": "hi"},
    "POST /responses": {"input": "hi"},
    "POST /embeddings": {"input": "hi"},
    "POST /moderations": {"input": "hi"},
    "POST /images/generations": {"prompt": "hi"},
    "POST /audio/speech": {"input": "hi", "voice": "alloy"},
}
SHAPE = {"message", "type", "param", "code"}
WRONG: list[Any] = [None, True, -1, 0, 10**30, 1.5, "", "x", [], [None], [1], ["x"], [[]], [{}], {}]
WRONG += [{"": None}, {"type": "x"}, {"type": None}, [{"role": None}], [{"role": "user", "content": [1]}]]


@pytest.mark.parametrize("label", list(NEEDED))
def test_a_wrong_value_in_any_place_is_no_failure(tenant: Tenant, slug: str, label: str) -> None:
    """Each member that the description names, with each of ``WRONG`` in an otherwise good request."""
    model = priced(tenant, slug, PRICE)
    path = label.split()[1]
    described = DESCRIPTION["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    failed = []
    with tenant.http() as http:
        for name in [*members(described), *NEEDED[label], "model", "unknown"]:
            for value in WRONG:
                body = {"model": model, **NEEDED[label], name: value}
                answer = http.post(f"/v1{path}", json=body)
                keys = set(answer.json()["error"]) if answer.status_code >= 400 else SHAPE
                if answer.status_code >= 500 or keys != SHAPE:
                    failed.append(f"{name}={value!r}: {answer.status_code} {answer.text[:200]}")
    assert failed == []


def members(schema: dict[str, Any]) -> dict[str, None]:
    """The members that a body may have, wherever its schema names them."""
    found: dict[str, None] = {}
    if "$ref" in schema:
        found |= members(DESCRIPTION["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    for each in (*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        found |= members(each)
    return found | dict.fromkeys(schema.get("properties", {}))


def test_the_description_holds_every_operation_that_is_served() -> None:
    served = {f"POST {path.removeprefix('/v1')}" for path in ENDPOINTS} - OTHERS
    assert served <= set(OPERATIONS)
    rest = set(OPERATIONS) - served
    found = set()
    for label in rest:
        method, path = label.split()
        at = resource_at("/v1" + path.replace("{model}", "m").replace("{response_id}", "resp_1"))
        assert at is not None, label
        found.add((at[0].path.pattern, method))
    ours = {(each.path.pattern, method) for each in RESOURCES for method in each.methods}
    assert {f"{method} {pattern.removeprefix('/v1')}" for pattern, method in ours - found} <= OTHERS
