"""Why an answer ended: every provider's word for it, and OpenAI's."""

from __future__ import annotations

from typing import Final

STOP: Final = "stop"
LENGTH: Final = "length"
TOOL_CALLS: Final = "tool_calls"
CONTENT_FILTER: Final = "content_filter"

# Compared in lower case. OpenAI's own words stand for themselves.
_WORDS: Final = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "pause_turn"), STOP
    ),
    **dict.fromkeys(
        ("length", "max_tokens", "model_length", "model_context_window_exceeded", "compaction"), LENGTH
    ),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use"), TOOL_CALLS),
    **dict.fromkeys(
        (
            *("content_filter", "content_filtered", "sensitive", "refusal", "guardrail_intervened"),
            *("safety", "recitation", "blocklist", "prohibited_content", "spii", "language"),
            *("image_safety", "image_prohibited_content", "image_recitation"),
        ),
        CONTENT_FILTER,
    ),
    "function_call": "function_call",
}
# The provider failed or gave up: what came is not a whole answer.
_FAILURES: Final = frozenset(
    {
        *("error", "error_toxic", "network_error", "insufficient_system_resource", "abort"),
        *("malformed_function_call", "malformed_response", "unexpected_tool_call", "too_many_tool_calls"),
        *("missing_thought_signature", "other", "image_other"),
    }
)


class FailedFinish(Exception):
    """The provider gave a failure as the reason of the end; the message is its word for it."""


def openai_reason(word: object) -> str | None:
    """OpenAI's word for a provider's finish reason; None where none is given (null, absent, empty).

    Raises FailedFinish for a word that means failure. A word that nobody knows counts as ``stop``:
    the provider did say that it ended.
    """
    if not isinstance(word, str) or not word:
        return None
    lower = word.lower()
    if lower in _FAILURES:
        raise FailedFinish(word[:40])
    return _WORDS.get(lower, STOP)
