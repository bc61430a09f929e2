"""The shapes that a corpus of replays must have (provider-quirks.md, section 29), each by its number and with what
replays it. Streams are cut at every byte by ``test_streams``; what is no stream is cut here.
"""

from __future__ import annotations

import json

import pytest

from gateway.v1.answers import BadAnswer, ErrorAnswer, chat_answer
from gateway.v1.repairing import RepairingScanner
from routing.dialects import dialect
from tests.clients.wire import SAY_TEXT, WIRES, chat, chat_stream
from tests.dialects.corpus import REPLAYS
from tests.dialects.test_wire import NO_MONEY, OTHERS, PLAIN
from tests.v1.refusal_samples import SAMPLES

# In the order of the list: a replay of the corpus, or a recording of the wire tests behind "wire:", a kind of
# `tests.clients.wire` behind "kind:", an error body behind "error:", a form of `test_streams` behind "form:".
SHAPES: dict[str, tuple[str, ...]] = {
    "openai-text+usage": ("openai-text",),
    "openai-tools(split args)": ("openai-tools",),
    "openai-obfuscation": ("kind:openai",),
    "azure-prefilter-chunk": ("azure-filter-annotations",),
    "azure-annotation-without-delta": ("azure-filter-annotations",),
    "azure-block-no-usage": ("azure-block-without-usage",),
    "deepseek-thinking+keepalive": ("deepseek-thinking-and-tools", "kind:deepseek"),
    "deepseek-nonstream-blank-lines": ("wire:blank-lines-before-the-answer",),
    "deepseek-DSML-leak": ("deepseek-tool-markup-as-text",),
    "alibaba-shuffled-keys+empty-id": ("qwen-shuffled-keys-and-empty-ids",),
    "alibaba-inspection-mid-stream": ("qwen-inspection-in-mid-stream",),
    "kimi-usage-in-choice": ("kimi-usage-in-the-choice",),
    "glm-no-finish-key": ("glm-without-finish-key-role-everywhere",),
    "glm-sensitive": ("glm-sensitive",),
    "minimax-think-tags": ("minimax-think-tags-in-pieces",),
    "minimax-usage-after-finish": ("minimax-usage-after-finish",),
    "minimax-placeholder-usage": ("kind:minimax",),
    "minimax-200-base_resp": ("minimax-no-money-inside", "wire:no-money-with-status-200"),
    "mistral-no-index": ("mistral-without-index",),
    "mistral-thinking-array-then-string": ("mistral-thinking-array-then-string",),
    "groq-x_groq": ("groq-own-member-and-channel", "groq-usage-twice"),
    "groq-event-error-no-DONE": ("groq-error-event-without-done",),
    "together-text+delta+bigint-seed": ("together-text-and-delta-big-seed",),
    "xai-split-reasoning-usage": ("xai-reasoning-beside-the-completion",),
    "xai-200-json-error": ("xai-json-instead-of-a-stream", "error:xai-unavailable-200"),
    "openrouter-comments+double-finish": ("openrouter-comments-and-two-finishes",),
    "openrouter-error-chunk": ("openrouter-error-chunk",),
    "openrouter-missing-arguments": ("openrouter-missing-arguments",),
    "gemini-compat-no-index": ("gemini-compatible-without-index-id-and-created",),
    "gemini-array-error": ("gemini-compatible-error-in-an-array", "error:gemini-array"),
    "anthropic-native(ping, dup start, revised input, refusal)": (
        "anthropic-text-and-pings",
        "anthropic-two-starts-and-a-revised-input",
        "anthropic-refusal-without-content",
    ),
    "anthropic-compat-index-1": ("anthropic-compatible-index-one-no-arguments",),
    # Converse is not spoken: this is what a relay makes of usage that comes before the end.
    "bedrock-metadata-before-stop": ("relay-usage-before-the-end",),
    "cohere-null-args": ("cohere-null-arguments",),
    "vllm-named-tool-stop": ("vllm-named-tool-stops",),
    "sglang-null-keys": ("sglang-null-keys-and-abort", "azure-deepseek-null-members"),
    "llamacpp-mid-error": ("llamacpp-error-in-mid-stream",),
    "lmstudio-event-error": ("lmstudio-error-event",),
    "ollama-no-details": ("ollama-whole-call-and-own-finish",),
    "CRLF": ("form:crlf",),
    "no-space data:": ("form:no-space",),
    "multi-line data": ("data-in-two-lines",),
    "split UTF-8": ("form:byte-by-byte",),
    "cut without [DONE]": ("cut-without-a-finish-reason",),
    "error body as octet-stream/HTML/empty": (
        "wire:an-error-as-octets",
        "wire:a-page-of-a-proxy",
        "wire:nothing",
        "error:an-html-page",
        "error:nothing-at-all",
    ),
}
FORMS = {"form:crlf", "form:no-space", "form:byte-by-byte"}


def test_every_shape_of_the_list_is_replayed() -> None:
    there = {replay.name for replay in REPLAYS} | FORMS
    there |= {f"wire:{name}" for name in OTHERS} | {f"kind:{name}" for name in WIRES}
    there |= {f"error:{sample.name}" for sample in SAMPLES}
    assert len(SHAPES) == 45
    assert {name for names in SHAPES.values() for name in names} <= there


@pytest.mark.parametrize("kind", WIRES)
def test_a_stream_of_every_kind_may_be_cut_at_any_byte(kind: str) -> None:
    raw = chat_stream(WIRES[kind], SAY_TEXT)

    def scan(*pieces: bytes) -> tuple[list[bytes], bool, object]:
        # A kind that passes as bytes is repaired here too: it must need none.
        scanner = RepairingScanner(dialect(kind), wants_usage=False, model="m")
        scanner._state.id, scanner._state.created = "c1", 1
        sent = b"".join(scanner.feed(piece) for piece in pieces) + scanner.finish()
        said = [event for event in sent.split(b"\n\n") if not event.startswith(b":")]
        return said, scanner.complete, scanner.usage

    expected = scan(raw)
    assert expected[1]
    for cut in range(1, len(raw)):
        assert scan(raw[:cut], raw[cut:]) == expected, cut


@pytest.mark.parametrize("kind", WIRES)
def test_a_plain_answer_that_is_not_whole_is_never_taken_for_one(kind: str) -> None:
    raw = chat(WIRES[kind], SAY_TEXT)
    assert chat_answer(raw, speaks=dialect(kind), model="m").usage is not None
    for cut in range(len(raw)):
        with pytest.raises(BadAnswer):
            chat_answer(raw[:cut], speaks=dialect(kind), model="m")


def test_blank_lines_before_an_answer_may_be_any_part_of_it() -> None:
    for cut in range(len(PLAIN)):
        with pytest.raises(BadAnswer):
            chat_answer(PLAIN[:cut], speaks=dialect("deepseek"))
    assert json.loads(chat_answer(PLAIN, speaks=dialect("deepseek")).body)["choices"]


def test_an_error_inside_a_success_is_one_only_when_it_is_whole() -> None:
    for cut in range(len(NO_MONEY)):
        with pytest.raises(BadAnswer) as caught:
            chat_answer(NO_MONEY[:cut], speaks=dialect("minimax"))
        assert not isinstance(caught.value, ErrorAnswer)
    with pytest.raises(ErrorAnswer):
        chat_answer(NO_MONEY, speaks=dialect("minimax"))
