"""Every fault, seen from a client."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.simulator.server import RunningSimulator, running_simulator

HELLO = [{"role": "user", "content": "hello there"}]
STATUSES = [
    ("sim-400", 400, None),
    ("sim-400-context", 400, "context_length_exceeded"),
    ("sim-400-filter", 400, "content_filter"),
    ("sim-401", 401, "invalid_api_key"),
    ("sim-402", 402, "insufficient_quota"),
    ("sim-403", 403, "permission_denied"),
    ("sim-404", 404, "model_not_found"),
    ("sim-429", 429, "rate_limit_exceeded"),
    ("sim-429-always", 429, "rate_limit_exceeded"),
    ("sim-429-quota", 429, "insufficient_quota"),
    ("sim-500", 500, None),
    ("sim-503", 503, "overloaded"),
    ("sim-529", 529, "overloaded"),
]


def chat(http: httpx.Client, model: str, *, text: str = "hello there", **more: object) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return http.post("/v1/chat/completions", json=body)


def stream_until_broken(http: httpx.Client, model: str, text: str) -> tuple[list[str], bool]:
    """The events of a stream, and whether the connection broke under it."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True}
    received = ""
    try:
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            for part in response.iter_text():
                received += part
    except httpx.RemoteProtocolError:
        return received.split("\n\n")[:-1], True
    return received.split("\n\n")[:-1], False


def words_in(events: list[str]) -> int:
    return sum('"delta":{"content":"' in event for event in events)


def test_an_answer_goes_on_from_the_assistants_last_words_unless_it_refuses_them(http: httpx.Client) -> None:
    ask = [{"role": "user", "content": "words=10"}, {"role": "assistant", "content": "one two three four"}]
    whole = http.post("/v1/chat/completions", json={"model": "sim-small", "messages": ask}).json()
    assert whole["usage"]["completion_tokens"] == 6
    assert whole["choices"][0]["message"]["content"].startswith(" ")
    refusing = {"model": "sim-400-prefill", "messages": ask}
    assert http.post("/v1/chat/completions", json=refusing).status_code == 400
    assert http.post("/v1/chat/completions", json={**refusing, "messages": ask[:1]}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "status", "code"), STATUSES)
def test_an_error_status_has_openais_error_object(
    http: httpx.Client, model: str, status: int, code: str | None, stream: bool
) -> None:
    response = chat(http, model, stream=stream)
    error = response.json()["error"]
    assert response.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["message"].startswith("[simulated] ")


def test_a_rate_limit_says_when_to_come_back(http: httpx.Client) -> None:
    assert chat(http, "sim-429").headers["retry-after"] == "1"
    assert chat(http, "sim-429", text="retry_after=7").headers["retry-after"] == "7"
    assert "retry-after" not in chat(http, "sim-503").headers


def test_the_sdk_raises_its_own_classes(sdk: Any) -> None:
    for model, kind in (
        ("sim-401", openai.AuthenticationError),
        ("sim-403", openai.PermissionDeniedError),
        ("sim-400-context", openai.BadRequestError),
        ("sim-429", openai.RateLimitError),
        ("sim-500", openai.InternalServerError),
        ("gpt-4", openai.NotFoundError),
    ):
        with pytest.raises(kind):
            sdk.chat.completions.create(model=model, messages=HELLO)


def test_an_unknown_model_is_not_found(http: httpx.Client) -> None:
    response = chat(http, "gpt-4")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_once_fails_the_first_time_for_each_user(http: httpx.Client, simulator: RunningSimulator) -> None:
    simulator.reset()
    statuses = [chat(http, "sim-429-once", user=name).status_code for name in ("a", "a", "b", "b", "a")]
    assert statuses == [429, 200, 429, 200, 200]


def test_once_takes_its_case_from_the_message_the_header_or_what_is_asked(
    http: httpx.Client, simulator: RunningSimulator
) -> None:
    simulator.reset()
    assert [chat(http, "sim-500-once", text=text).status_code for text in ("x", "x", "y")] == [500, 200, 500]
    assert [chat(http, "sim-500-once", text=f"{n} case=k").status_code for n in range(2)] == [500, 200]
    body = {"model": "sim-500-once", "messages": HELLO}
    headers = {"x-sim-case": "h"}
    statuses = [http.post("/v1/chat/completions", json=body, headers=headers).status_code for _ in range(2)]
    assert statuses == [500, 200]


def test_flap_fails_every_other_request(http: httpx.Client, simulator: RunningSimulator) -> None:
    simulator.reset()
    assert [chat(http, "sim-flap").status_code for _ in range(4)] == [503, 200, 503, 200]


def test_a_directive_brings_a_fault_to_any_model(http: httpx.Client) -> None:
    assert chat(http, "sim-small", text="hello fault=503").status_code == 503


def test_html_502_is_a_page(http: httpx.Client) -> None:
    response = chat(http, "sim-html-502")
    assert response.status_code == 502
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.text.startswith("<html>")


@pytest.mark.parametrize("stream", [False, True])
def test_reset_breaks_the_connection_before_any_header(http: httpx.Client, stream: bool) -> None:
    with pytest.raises(httpx.ReadError):
        chat(http, "sim-reset", stream=stream)


def test_cut_ends_the_connection_after_forty_of_sixty_words(http: httpx.Client) -> None:
    events, broken = stream_until_broken(http, "sim-cut", "hello")
    assert broken
    assert words_in(events) == 40
    assert not any('"finish_reason":"' in event or "[DONE]" in event for event in events)


def test_cut_happens_after_as_many_words_as_asked(http: httpx.Client) -> None:
    events, broken = stream_until_broken(http, "sim-cut", "after=3")
    assert broken
    assert words_in(events) == 3


def test_cut_of_a_plain_answer_leaves_the_body_unfinished(http: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        chat(http, "sim-cut")


def test_truncated_ends_cleanly_without_a_finish(http: httpx.Client) -> None:
    events, broken = stream_until_broken(http, "sim-truncated", "hello")
    assert not broken
    assert words_in(events) == 30
    assert not any('"finish_reason":"' in event or "[DONE]" in event for event in events)


def test_stall_pauses_in_the_middle_and_then_goes_on(http: httpx.Client) -> None:
    start = time.monotonic()
    events, broken = stream_until_broken(http, "sim-stall", "stall_s=0.3")
    assert time.monotonic() - start >= 0.3
    assert not broken
    assert words_in(events) == 60
    assert events[-1] == "data: [DONE]"


def test_stall_of_a_plain_answer_pauses_in_its_body(http: httpx.Client) -> None:
    assert chat(http, "sim-stall", text="stall_s=0.1").json()["usage"]["completion_tokens"] == 60


@pytest.mark.parametrize("stream", [False, True])
def test_silence_never_sends_a_header(http: httpx.Client, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post(
            "/v1/chat/completions",
            json={"model": "sim-silence", "messages": HELLO, "stream": stream},
            timeout=0.3,
        )


def test_silence_can_end_by_hanging_up(http: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        chat(http, "sim-silence", text="silence_s=0.1")


def test_slow_waits_before_each_word(http: httpx.Client) -> None:
    start = time.monotonic()
    events, _ = stream_until_broken(http, "sim-slow", "words=3")
    assert time.monotonic() - start >= 0.6
    assert words_in(events) == 3


def test_first_token_slow_sends_headers_at_once_and_content_later(http: httpx.Client) -> None:
    body = {
        "model": "sim-first-token-slow",
        "messages": [{"role": "user", "content": "first_s=0.4"}],
        "stream": True,
    }
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        at_headers = time.monotonic()
        next(response.iter_text())
        assert time.monotonic() - at_headers >= 0.3


def test_badjson_breaks_one_event_and_goes_on(http: httpx.Client) -> None:
    events, broken = stream_until_broken(http, "sim-badjson", "hello")
    assert not broken
    unreadable = 0
    for event in events[:-1]:
        try:
            json.loads(event.removeprefix("data: "))
        except json.JSONDecodeError:
            unreadable += 1
    assert unreadable == 1
    assert words_in(events) == 60
    assert events[-1] == "data: [DONE]"


def test_badjson_of_a_plain_answer_cannot_be_parsed(http: httpx.Client) -> None:
    response = chat(http, "sim-badjson")
    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        response.json()


def test_nodone_ends_after_the_finish(http: httpx.Client) -> None:
    events, broken = stream_until_broken(http, "sim-nodone", "hello")
    assert not broken
    assert '"finish_reason":"stop"' in events[-1]


def test_nousage_gives_none_though_asked(http: httpx.Client) -> None:
    response = chat(http, "sim-nousage", stream=True, stream_options={"include_usage": True})
    assert '"usage"' not in response.text
    assert response.text.endswith("data: [DONE]\n\n")
    assert "usage" not in chat(http, "sim-nousage").json()


def test_error_midstream_comes_after_some_words_and_ends_the_stream(http: httpx.Client, sdk: Any) -> None:
    events, broken = stream_until_broken(http, "sim-error-midstream", "hello")
    assert not broken
    assert words_in(events) == 30
    assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    with pytest.raises(openai.APIError):
        list(sdk.chat.completions.create(model="sim-error-midstream", messages=HELLO, stream=True))
    assert chat(http, "sim-error-midstream").status_code == 500


def test_filtered_ends_with_content_filter(sdk: Any) -> None:
    answer = sdk.chat.completions.create(model="sim-filtered", messages=HELLO)
    assert answer.choices[0].finish_reason == "content_filter"
    assert answer.usage.completion_tokens == 30


def test_faults_hold_for_embeddings_too(http: httpx.Client) -> None:
    def ask(model: str) -> httpx.Response:
        return http.post("/v1/embeddings", json={"model": model, "input": "one two"})

    assert ask("sim-429").status_code == 429
    assert ask("gpt-4").status_code == 404
    with pytest.raises(httpx.RemoteProtocolError):
        ask("sim-cut")


def test_a_bad_key_is_refused_and_not_repeated(http: httpx.Client) -> None:
    response = http.get("/v1/models", headers={"authorization": "Bearer bad"})
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert "bad" not in response.text


def test_a_missing_key_is_refused_only_where_one_is_required(
    http: httpx.Client, simulator: RunningSimulator, tmp_path: Path
) -> None:
    assert http.get("/v1/models").status_code == 200
    with running_simulator(tmp_path / "log", "--require-key") as strict:
        assert httpx.get(f"{strict.base_url}/models").status_code == 401
        given = httpx.get(f"{strict.base_url}/models", headers={"authorization": "Bearer sk-any"})
        assert given.status_code == 200
