"""Repairing a plain chat completion, so that it is as OpenAI would have given it."""

from __future__ import annotations

import os
import time
from typing import Any

from routing.dialects import reasoning
from routing.dialects.finish import STOP, TOOL_CALLS, openai_reason
from routing.dialects.think_tags import ThinkTags
from routing.dialects.tool_calls import repair_whole


def repair(answer: dict[str, Any], model: str, *, leaks: bool = False) -> None:
    """Rewrite a completion in place; what is not of a known shape is left for the reader to refuse.

    ``model`` stands in where the provider names none; ``leaks``: thinking may stand in the text, between tags.
    Raises FailedFinish where the provider says that
    it failed.
    """
    for name in ("x_groq", "base_resp"):
        answer.pop(name, None)
    if not answer.get("id"):
        answer["id"] = "chatcmpl-" + os.urandom(12).hex()
    if not answer.get("created"):
        answer["created"] = int(time.time())
    if not answer.get("model"):
        answer["model"] = model
    choices = answer.get("choices")
    for position, choice in enumerate(choices if isinstance(choices, list) else ()):
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            continue
        choice.pop("usage", None)
        message["role"] = "assistant"
        reasoning.unify(message)
        content = message.get("content")
        if leaks and isinstance(content, str):
            _take_out_thinking(message, content)
        calls = message.get("tool_calls")
        if isinstance(calls, list) and calls:
            message["tool_calls"] = repair_whole(calls, f"{answer['id']}:{position}")
        else:
            message.pop("tool_calls", None)
        word = choice.get("finish_reason")
        # The answer is a whole JSON document, so it did end, even if nothing says why.
        reason = openai_reason(word) or (TOOL_CALLS if message.get("tool_calls") else STOP)
        if word and word != reason:
            choice.setdefault("native_finish_reason", word)
        choice["finish_reason"] = reason


def _take_out_thinking(message: dict[str, Any], content: str) -> None:
    tags = ThinkTags()
    text, thinking = tags.split(content)
    held, thought = tags.end()
    message["content"], thinking = text + held, thinking + thought
    if thinking:
        given = message.get("reasoning_content")
        message["reasoning_content"] = (given if isinstance(given, str) else "") + thinking
