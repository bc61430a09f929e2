"""Errors as providers word them: the class, whose fault, what the client gets, and what it never gets."""

from __future__ import annotations

import json
import re

import pytest

from gateway.v1.error_bodies import ErrorBody
from gateway.v1.refusals import FAULTS, Refusal, _error, read_refusal
from tests.v1.refusal_samples import SAMPLES, Sample

# What the client gets for each class: status, type, code.
MAPPING = {
    "no_money": (502, "api_error", "provider_error"),
    "credential": (502, "api_error", "provider_error"),
    "unknown_model": (502, "api_error", "provider_error"),
    "failed": (502, "api_error", "provider_error"),
    "overloaded": (502, "api_error", "provider_overloaded"),
    "timeout": (504, "api_error", "provider_timeout"),
    "rate_limited": (429, "rate_limit_error", "provider_rate_limited"),
    "over_limit": (429, "rate_limit_error", "provider_rate_limited"),
    "context_window": (400, "invalid_request_error", "context_length_exceeded"),
    "content_filter": (400, "invalid_request_error", "content_filter"),
}
CLIENTS_FAULTS = {"refused", "context_window", "content_filter"}
# What the gateway says where it repeats nothing.
OWN_WORDS = {
    json.loads(_error(reason, {}, ErrorBody("", (), None, None)).body())["error"]["message"]
    for reason in FAULTS
}
NEVER_SHOWN = re.compile(
    r"https?:|sk-|\*\*|org[-_]|user_2|1fae4c51|0434ce69|0217abc|7f3a11|ep-2026|the secret of the prompt|<html"
)


def raw(body: object) -> bytes:
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def refusal_of(sample: Sample) -> Refusal:
    return read_refusal(sample.status, {}, raw(sample.body))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_error_has_its_class_and_every_class_its_answer(sample: Sample) -> None:
    refusal = refusal_of(sample)
    assert refusal.reason == sample.reason
    status, kind, code = MAPPING.get(sample.reason, (400, "invalid_request_error", sample.code))
    error = json.loads(refusal.error.body())["error"]
    assert (refusal.error.status, error["type"], error["code"]) == (status, kind, code)
    assert error["message"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_only_the_clients_own_fault_is_not_tried_elsewhere(sample: Sample) -> None:
    refusal = refusal_of(sample)
    assert refusal.moves_on == (sample.reason not in {"refused", "context_window", "content_filter"})
    assert refusal.fault == FAULTS[sample.reason]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_no_account_no_key_no_address_and_no_word_of_the_prompt_is_shown(sample: Sample) -> None:
    body = refusal_of(sample).error.body().decode()
    assert NEVER_SHOWN.search(body) is None


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_retry_that_cannot_help_is_advised_against(sample: Sample) -> None:
    hopeless = {
        *("refused", "context_window", "content_filter", "over_limit"),
        *("no_money", "credential", "unknown_model"),
    }
    told = (b"x-should-retry", b"false") in refusal_of(sample).error.headers
    assert told == (sample.reason in hopeless)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_an_error_that_breaks_off_at_any_byte_leaks_nothing_and_blames_nobody_wrongly(sample: Sample) -> None:
    whole = raw(sample.body)
    for cut in range(1, len(whole)):
        refusal = read_refusal(sample.status, {}, whole[:cut])
        error = json.loads(refusal.error.body())["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert NEVER_SHOWN.search(json.dumps(error)) is None, cut
        # Of the provider's own words none is shown, as what follows may say whose they are.
        assert error["message"] in OWN_WORDS, cut
        assert refusal.error.status >= 400
        # It stops at no other deployment that might have answered, and tells nobody to change a good request.
        assert refusal.fault != "client" or sample.reason in CLIENTS_FAULTS, cut


def by_name(name: str) -> Sample:
    (found,) = [sample for sample in SAMPLES if sample.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("openai-rate", b"2"),
        ("azure-rate", b"22"),
        ("moonshot-rate", b"1"),
        # 1 hour 34 minutes 52.896 seconds, rounded up
        ("groq-rate-with-billing", b"5693"),
        ("gemini-rate", b"35"),
    ],
)
def test_advice_that_stands_in_the_body_becomes_a_header(name: str, seconds: bytes) -> None:
    assert (b"retry-after", seconds) in refusal_of(by_name(name)).error.headers


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"retry-after": "7"}, b"7"),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"Wed, 21 Oct 2026 07:28:00 GMT"),
        ({"retry-after-ms": "1500"}, b"2"),
        # A header wins over the text.
        ({"retry-after": "9"}, b"9"),
    ],
)
def test_advice_in_a_header_is_passed_on(headers: dict[str, str], told: bytes) -> None:
    sample = by_name("openai-rate")
    assert (b"retry-after", told) in read_refusal(429, headers, raw(sample.body)).error.headers


def test_a_header_that_is_no_advice_is_not_repeated() -> None:
    refusal = read_refusal(429, {"retry-after": "soon\r\nx: y"}, b"{}")
    assert refusal.error.headers == []


def test_money_that_is_only_held_may_be_asked_for_again() -> None:
    body = raw(by_name("openrouter-no-money").body)
    assert read_refusal(402, {"retry-after": "3"}, body).reason == "rate_limited"


def test_the_parameter_that_a_provider_names_is_passed_on() -> None:
    assert refusal_of(by_name("openai-unsupported-parameter")).error.param == "max_tokens"


def test_a_refusal_says_what_was_wrong_in_the_providers_words() -> None:
    assert refusal_of(by_name("mistral-extra")).error.message == "Extra inputs are not permitted"
    assert (
        refusal_of(by_name("xai-context")).error.message
        == "This model's maximum prompt length is 131072 but the request contains 179111 tokens."
    )


def test_a_very_long_message_is_cut() -> None:
    assert len(read_refusal(400, {}, raw({"error": "word " * 1000})).error.message) == 500


def test_a_body_nested_without_end_is_read() -> None:
    body = {"error": {"message": "m", "metadata": {"raw": "{}"}}}
    for _ in range(20):
        body = {"error": {"message": "m", "metadata": {"raw": json.dumps(body)}}}
    assert read_refusal(400, {}, raw(body)).reason == "refused"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Bad key sk-abc123**** given", "Bad key […] given"),
        ("See https://console.example/keys for it", "See […] for it"),
        ("Ask ops@example.com about it", "Ask […] about it"),
        ("Not for organization org-abc123 here", "Not for organization […] here"),
        ("Your team 77ab of yours", "Your team […] of yours"),
        ("No 0217abcdef0123456789abcdef there", "No […] there"),
        ("Wrong (request_id: 7f3a11)", "Wrong ([…])"),
        ("Model accounts/acme/models/kimi is off", "Model […]/models/kimi is off"),
        ("field: 'x', value: 'my secret'", "field: 'x', value: […]"),
        ("1 error: bad [type=x, input_value='my secret']", "1 error: bad [type=x, […]"),
        ("[{'msg': 'bad', 'input': 'my secret'}]", "[{'msg': 'bad', […]"),
        ("Invalid 'temperature': use 0 to 2.", "Invalid 'temperature': use 0 to 2."),
    ],
)
def test_what_is_ours_or_the_clients_is_taken_out_of_a_message(said: str, shown: str) -> None:
    assert read_refusal(400, {}, raw({"error": {"message": said}})).error.message == shown
