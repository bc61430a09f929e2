"""Streams in the shapes that Gemini's streamGenerateContent sends (provider-quirks.md 16)."""

from __future__ import annotations

from typing import Any

from tests.dialects.shapes import Replay, lines


def event(*parts: dict[str, Any], finish: str = "", **usage: int) -> dict[str, Any]:
    """An event with the parts of one candidate, and its counts so far."""
    candidate: dict[str, Any] = {"index": 0}
    if parts:
        candidate["content"] = {"parts": list(parts), "role": "model"}
    if finish:
        candidate["finishReason"] = finish
    told = {"candidates": [candidate], "modelVersion": "gemini-3-pro-preview", "responseId": "r1"}
    return {**told, "usageMetadata": usage} if usage else told


def call(name: str, /, **args: Any) -> dict[str, Any]:
    """A part that calls a function."""
    return {"functionCall": {"name": name, "args": args}}


GEMINI_REPLAYS = [
    Replay(
        "gemini-thought-then-text",
        "gemini",
        lines(
            event({"text": "Hm, ", "thought": True}, promptTokenCount=9, totalTokenCount=9),
            event({"text": "so.", "thought": True}),
            event({"text": "Hel"}, promptTokenCount=9, candidatesTokenCount=2, thoughtsTokenCount=185),
            event({"text": "lö 🌍"}),
            event(
                {"text": "", "thoughtSignature": "c2ln"},
                finish="STOP",
                promptTokenCount=9,
                cachedContentTokenCount=4,
                candidatesTokenCount=23,
                thoughtsTokenCount=185,
                totalTokenCount=217,
            ),
            done=False,
        ),
        text="Hellö 🌍",
        reasoning="Hm, so.",
        usage=(9, 208),
    ),
    Replay(
        "gemini-two-calls-without-ids",
        "gemini",
        lines(
            event({**call("weather", location="Zürich"), "thoughtSignature": "EpEg"}, call("now")),
            event(
                {"text": ""},
                finish="STOP",
                promptTokenCount=29,
                candidatesTokenCount=15,
                thoughtsTokenCount=804,
                totalTokenCount=848,
            ),
            done=False,
        ),
        tools=(("*", "weather", '{"location":"Zürich"}'), ("*", "now", "{}")),
        finish="tool_calls",
        usage=(29, 819),
    ),
    Replay(
        "gemini-call-and-end-in-one",
        "gemini",
        lines(
            event(
                {"text": "Sure."},
                {"functionCall": {"id": "fc_1", "name": "f", "args": {"a": 1}}},
                finish="STOP",
                promptTokenCount=5,
                toolUsePromptTokenCount=3,
                candidatesTokenCount=7,
            ),
            done=False,
        ),
        text="Sure.",
        tools=(("fc_1", "f", '{"a":1}'),),
        finish="tool_calls",
        usage=(8, 7),
    ),
    Replay(
        "gemini-too-long",
        "gemini",
        lines(
            event({"text": "Begun"}, finish="MAX_TOKENS", promptTokenCount=5, candidatesTokenCount=1),
            done=False,
        ),
        text="Begun",
        finish="length",
        usage=(5, 1),
    ),
    Replay(
        "gemini-unsafe-answer",
        "gemini",
        lines(event({"text": "I"}), event(finish="SAFETY"), done=False),
        text="I",
        finish="content_filter",
    ),
    Replay(
        "gemini-malformed-call",
        "gemini",
        lines(event(finish="MALFORMED_FUNCTION_CALL"), done=False),
        error="MALFORMED_FUNCTION_CALL",
    ),
    Replay(
        "gemini-blocked-prompt",
        "gemini",
        lines(
            {
                "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
                "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7},
            },
            done=False,
        ),
        usage=(7, 0),
        error="content_filter",
    ),
    Replay(
        "gemini-error-in-mid-stream",
        "gemini",
        lines(
            event({"text": "A"}, promptTokenCount=7, candidatesTokenCount=5),
            {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}},
            done=False,
        ),
        text="A",
        usage=(7, 5),
        error="UNAVAILABLE",
    ),
    Replay("gemini-cut", "gemini", lines(event({"text": "A"}), done=False), text="A", error=""),
]
