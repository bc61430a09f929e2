"""Moderations, reranking, pictures and speech: routed, limited, metered and priced as chat is."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from billing.services.prices import set_price
from billing.services.quotas import set_quota
from gateway.v1.images import tokens_of
from routing.models import GroupDeployment, Provider
from tests.simulator.server import wait_until
from tests.stack import Tenant
from tests.v1.conftest import events
from tests.v1.test_errors import wait_for_model

# Address, body, price, charge and the quantities of its event; each worked out by hand.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, str], str, dict[str, str]]] = {
    # 15 bytes are 4 tokens, as estimated.
    "moderations": ("/v1/moderations", {"input": "one two threes!"}, {"input": "2"}, "0.000008", {}),
    "rerank by search": (
        "/v1/rerank",
        {"query": "small boats", "documents": ["a river", "small boats pass", "boats"]},
        {"search": "0.002"},
        "0.002",
        {"searches": "1"},
    ),
    # Twice three words of the query, and six of documents.
    "rerank by token": (
        "/v1/rerank",
        {"query": "small boats", "documents": ["a river", "small boats pass", "boats"]},
        {"input": "1"},
        "0.000012",
        {"searches": "1"},
    ),
    "images by piece": (
        "/v1/images/generations",
        {"prompt": "a grey cat", "n": 3, "size": "1024x1024"},
        {"image": "0.04"},
        "0.12",
        {"images": "3", "image_output": "300"},
    ),
    # 3 at 5 and 200 at 40 per million.
    "images by token": (
        "/v1/images/generations",
        {"prompt": "a grey cat", "n": 2},
        {"input": "5", "image_output": "40"},
        "0.008015",
        {"images": "2", "image_output": "200"},
    ),
    # 13 characters at 15 per million; 13 bytes are one second of 20 tokens.
    "speech by character": (
        "/v1/audio/speech",
        {"input": "one two three", "voice": "alloy"},
        {"character": "15"},
        "0.000195",
        {"characters": "13", "seconds": "1", "audio_output": "20"},
    ),
    "speech by second": (
        "/v1/audio/speech",
        {"input": "one two three", "voice": "alloy"},
        {"second": "0.00025"},
        "0.00025",
        {"characters": "13", "seconds": "1", "audio_output": "20"},
    ),
    # At a quarter of the speed 13 bytes take 3.47 seconds.
    "slow speech by second": (
        "/v1/audio/speech",
        {"input": "one two three", "voice": "alloy", "speed": 0.25},
        {"second": "0.00025"},
        "0.001",
        {"characters": "13", "seconds": "4", "audio_output": "80"},
    ),
}


def priced(tenant: Tenant, name: str, price: dict[str, str], *models: str, provider: str = "") -> str:
    """A model group whose cost and price are ``price``, known to the workers."""
    stack = tenant.stack
    Provider.objects.create(
        name=name,
        kind="simulator",
        base_url=stack.simulator.base_url,
        first_token_timeout=5,
        idle_timeout=5,
    )
    terms: dict[str, Any] = {of: Decimal(rate) for of, rate in price.items()}
    group = stack.group(name, price=None)
    for position, model in enumerate(models or ("sim-small",)):
        deployment = stack.deployment(f"{name}-{position}", model, cost=None, provider=provider or name)
        set_price(acting_user=None, deployment=deployment, **terms)
        GroupDeployment.objects.create(group=group, deployment=deployment, priority=position)
    with tenant.http() as http:
        wait_for_model(http, name)
    return name


def post(tenant: Tenant, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    with tenant.http() as http:
        return http.post(path, json=body, headers=headers)


@pytest.mark.parametrize("case", list(CASES))
def test_what_is_asked_is_metered_and_priced(tenant: Tenant, slug: str, case: str) -> None:
    path, body, price, charge, quantities = CASES[case]
    model = priced(tenant, slug, price)
    answer = post(tenant, path, {**body, "model": model, "user": slug})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-weir-deployment"] == f"{slug}-0"
    (event,) = events(tenant)
    assert (event.end_reason, event.endpoint) == ("completed", path.removeprefix("/v1/").replace("/", "."))
    assert (event.charge, event.cost) == (Decimal(charge), Decimal(charge))
    assert event.quantities == quantities
    assert event.end_user == slug
    assert event.tags == {}


@pytest.mark.parametrize("case", list(CASES))
def test_without_a_price_of_its_own_nothing_is_asked(tenant: Tenant, slug: str, case: str) -> None:
    path, body, *_ = CASES[case]
    model = priced(tenant, slug, {"image": "1"} if "speech" in case else {"second": "1"})
    refused = post(tenant, path, {**body, "model": model, "user": slug})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_priced")
    assert tenant.stack.simulator.log(slug) == []


@pytest.mark.parametrize("case", list(CASES))
def test_the_worst_case_is_reserved_before_a_provider_is_asked(tenant: Tenant, slug: str, case: str) -> None:
    path, body, price, charge, _ = CASES[case]
    model = priced(tenant, slug, price)
    set_quota(
        acting_user=None,
        scope="key",
        target=tenant.key,
        metric="budget",
        limit=Decimal(charge) - Decimal("0.0000001"),
        period="day",
    )
    wait_until(
        lambda: post(tenant, path, {**body, "model": model, "user": f"{slug}-warm"}).status_code == 429
    )
    refused = post(tenant, path, {**body, "model": model, "user": slug})
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert tenant.stack.simulator.log(slug) == []


@pytest.mark.parametrize("case", list(CASES))
def test_another_deployment_answers_where_the_first_fails(tenant: Tenant, slug: str, case: str) -> None:
    path, body, price, charge, _ = CASES[case]
    model = priced(tenant, slug, price, "sim-503", "sim-small")
    answer = post(tenant, path, {**body, "model": model})
    assert (answer.status_code, answer.headers["x-weir-attempts"]) == (200, "2")
    (event,) = events(tenant)
    assert event.charge == Decimal(charge)


def test_the_sdk_reads_each_of_them(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"input": "1", "image": "0.01", "character": "1"})
    sdk = tenant.client()
    judged = sdk.moderations.create(model=model, input=["all well", "some harm"])
    assert [result.flagged for result in judged.results] == [False, True]
    parts: list[Any] = [
        {"type": "text", "text": "some harm"},
        {"type": "image_url", "image_url": {"url": "https://a"}},
    ]
    assert sdk.moderations.create(model=model, input=parts).results[0].flagged
    pictures = sdk.images.generate(model=model, prompt="a cat", n=2)
    assert pictures.data is not None
    assert [base64.b64decode(each.b64_json or "")[:4] for each in pictures.data] == [b"\x89PNG"] * 2
    assert pictures.usage is not None
    assert pictures.usage.output_tokens == 200
    with sdk.audio.speech.with_streaming_response.create(
        model=model, voice="alloy", input="one two", response_format="wav"
    ) as spoken:
        assert spoken.headers["content-type"] == "audio/wav"
        assert len(spoken.read()) == 2_000


def test_rerank_gives_the_best_with_their_documents(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"search": "1"})
    body = {
        "model": model,
        "query": "small boats",
        "documents": ["a river", {"text": "small boats pass"}, "boats"],
        "top_n": 2,
        "return_documents": True,
    }
    results = post(tenant, "/v1/rerank", body).json()["results"]
    assert [(each["index"], each["relevance_score"]) for each in results] == [(1, 1.0), (2, 0.5)]
    assert results[0]["document"] == {"text": "small boats pass"}


def test_pictures_without_reported_tokens_are_charged_as_reserved(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"input": "0", "image_output": "10"}, "sim-nousage")
    assert post(tenant, "/v1/images/generations", {"model": model, "prompt": "a cat"}).status_code == 200
    (event,) = events(tenant)
    # 8,192 at 10 per million.
    assert (event.charge, event.usage_source) == (Decimal("0.08192"), "estimated")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/moderations", {}, "input"),
        ("/v1/moderations", {"input": [3]}, "input[0]"),
        ("/v1/rerank", {"query": "a"}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": [1]}, "documents[0]"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": 0}, "top_n"),
        ("/v1/images/generations", {}, "prompt"),
        ("/v1/images/generations", {"prompt": "a", "n": 11}, "n"),
        ("/v1/images/generations", {"prompt": "a", "stream": True, "n": 2}, "n"),
        ("/v1/audio/speech", {"voice": "alloy"}, "input"),
        ("/v1/audio/speech", {"input": "a"}, "voice"),
        ("/v1/audio/speech", {"input": "a", "voice": "alloy", "stream_format": "sse"}, "stream_format"),
    ],
)
def test_a_wrong_parameter_is_named(tenant: Tenant, path: str, body: dict[str, Any], param: str) -> None:
    refused = post(tenant, path, {"model": "sim-small", **body})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_speech_that_breaks_off_never_looks_whole_and_is_charged(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"character": "15"}, "sim-cut")
    with pytest.raises(httpx.RemoteProtocolError):
        post(tenant, "/v1/audio/speech", {"model": model, "input": "one two three four", "voice": "alloy"})
    (event,) = events(tenant)
    assert (event.end_reason, event.charge) == ("cut", Decimal("0.00027"))


def test_a_client_that_leaves_speech_stops_it_and_frees_its_slot(tenant: Tenant, slug: str) -> None:
    set_quota(acting_user=None, scope="key", target=tenant.key, metric="concurrency", limit=Decimal(1))
    model = priced(tenant, slug, {"character": "15"})
    body = {"model": model, "input": "pace_ms=900 " + "word " * 99, "voice": "alloy", "user": slug}
    with tenant.http() as http, http.stream("POST", "/v1/audio/speech", json=body) as answer:
        assert len(next(answer.iter_raw())) >= 1_000
    assert tenant.stack.simulator.wait_for_end(slug)[-1]["end"] == "client_gone"
    short = {"model": model, "input": "one", "voice": "alloy"}
    wait_until(lambda: post(tenant, "/v1/audio/speech", short).status_code == 200)
    first = events(tenant)[0]
    # 507 characters at 15 per million: the provider was asked for all of them.
    assert (first.end_reason, first.charge) == ("client_gone", Decimal("0.007605"))


def test_speech_is_replayed_byte_for_byte(tenant: Tenant, slug: str) -> None:
    model = priced(tenant, slug, {"character": "15"})
    body = {"model": model, "input": "one two three", "voice": "alloy", "user": slug}
    headers = {"Idempotency-Key": slug}
    first = post(tenant, "/v1/audio/speech", body, **headers)
    again = post(tenant, "/v1/audio/speech", body, **headers)
    assert (again.content, again.headers["content-type"]) == (first.content, "audio/mpeg")
    # An answer can be here before its end is in the journal.
    wait_until(lambda: [event.end_reason for event in events(tenant)] == ["completed", "replay"])


def test_a_provider_with_an_api_of_its_own_is_not_asked(tenant: Tenant, slug: str) -> None:
    Provider.objects.create(name=f"{slug}-own", kind="anthropic", base_url=tenant.stack.simulator.base_url)
    model = priced(tenant, slug, {"input": "1"}, provider=f"{slug}-own")
    with pytest.raises(openai.BadRequestError) as caught:
        tenant.client().moderations.create(model=model, input="one")
    assert caught.value.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        (None, 8_192),
        ("auto", 8_192),
        ("1024x1536", 8_192),
        # 9,216 a square, times (2,000,000 + 4,194,304) / 4,000,000, rounded up.
        ("2048x2048", 14_272),
        # Pixels of 3840x2160 are the most: 9,216 times 10,294,400 / 4,000,000.
        ("3840x2160", 23_719),
        ("99999x99999", 23_719),
        ("0x0", 8_192),
        (1024, 8_192),
    ],
)
def test_a_large_picture_has_more_tokens(size: object, tokens: int) -> None:
    assert tokens_of(size) == tokens
