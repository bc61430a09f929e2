"""The older ``/v1/completions``: a prompt in, text out."""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.v1.errors import InvalidRequest
from gateway.v1.facts import Facts, chat_facts_of, decode, wrong_type
from gateway.v1.translation.shape import Object

# As OpenAI bounds an answer where the client does not.
DEFAULT_TOKENS: Final = 16
# What means the same to a chat.
_SAME: Final = (
    "model",
    "frequency_penalty",
    "logit_bias",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "user",
    "safety_identifier",
)


def completion_facts(raw: bytes, end_user_header: str) -> Facts:
    """Facts of a ``/v1/completions`` body; raises InvalidRequest naming the parameter."""
    asked = decode(raw)
    body = {name: asked[name] for name in _SAME if asked.get(name) is not None}
    body["messages"] = [{"role": "user", "content": _prompt(asked)}]
    most = asked.get("max_tokens")
    body["max_tokens"] = DEFAULT_TOKENS if most is None else most
    _refuse_what_no_chat_can(asked)
    return chat_facts_of(body, len(raw), end_user_header, asked=asked)


def _prompt(asked: Object) -> str:
    prompt = asked.get("prompt")
    if prompt is None:
        raise InvalidRequest(
            "Missing required parameter: 'prompt'.", param="prompt", code="missing_required_parameter"
        )
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list):
        raise wrong_type("prompt", "a string", prompt)
    raise InvalidRequest(
        "This gateway takes one prompt as text: neither several prompts in one request nor tokens.",
        param="prompt",
        code="unsupported_value",
    )


def _refuse_what_no_chat_can(asked: Object) -> None:
    n = asked.get("n") or 1
    for name, harmless in (
        ("echo", (None, False)),
        ("suffix", (None, "")),
        ("logprobs", (None,)),
        ("best_of", (None, n)),
    ):
        if asked.get(name) not in harmless:
            raise InvalidRequest(
                f"'{name}' is not supported: the models behind this gateway are asked as chats.",
                param=name,
                code="unsupported_parameter",
            )


class Completion:
    """Shows a chat answer as a ``text_completion``. The tools and the thinking of a chat have no place there."""

    def __init__(self, facts: Facts, request_id: str) -> None:
        self._id = f"cmpl-{request_id.removeprefix('req_')}"
        options = (facts.asked or {}).get("stream_options")
        self._wants_usage = isinstance(options, dict) and options.get("include_usage") is True

    def plain(self, answer: Object) -> Object:
        """See Shape."""
        return self._shown(answer, "message")

    def chunk(self, chunk: Object) -> bytes:
        """See Shape. A chunk that says nothing to this client is left out."""
        if not chunk.get("choices"):
            if not self._wants_usage:
                return b""
        elif not any(_says(choice) for choice in chunk["choices"]):
            return b""
        return b"data: " + orjson.dumps(self._shown(chunk, "delta")) + b"\n\n"

    def final(self) -> Object | None:
        """See Shape."""
        return None

    def done(self) -> bytes:
        """See Shape."""
        return b"data: [DONE]\n\n"

    def begun(self, sequence: int) -> None:
        """See Shape. No provider's own completions are passed on."""

    def failed(self, error: Object) -> bytes:
        """See Shape."""
        return b"data: " + orjson.dumps({"error": error}) + b"\n\n"

    def _shown(self, answer: Object, member: str) -> Object:
        kept = {
            name: answer[name]
            for name in ("created", "model", "system_fingerprint", "usage")
            if answer.get(name) is not None
        }
        choices = [
            {
                "text": (choice.get(member) or {}).get("content") or "",
                "index": choice.get("index", 0),
                "logprobs": None,
                "finish_reason": choice.get("finish_reason"),
            }
            for choice in answer.get("choices") or ()
        ]
        return {"id": self._id, "object": "text_completion", **kept, "choices": choices}


def _says(choice: dict[str, Any]) -> bool:
    return bool((choice.get("delta") or {}).get("content") or choice.get("finish_reason"))
