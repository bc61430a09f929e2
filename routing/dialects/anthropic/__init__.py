"""Anthropic, by its own Messages API.

Its OpenAI-compatible endpoint ignores much of a request without a word and caches nothing, so it is not
used. Services that speak the Messages API too (DeepSeek, MiniMax, Moonshot) are reached in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from routing.dialects import chunks
from routing.dialects.anthropic import answers, requests
from routing.dialects.base import PATHS, Prefill, Repaired
from routing.dialects.chunks import StreamState, fault_of
from routing.table import DeploymentSpec

# https://platform.claude.com/docs/en/api/versioning
VERSION = "2023-06-01"


class Anthropic(Repaired):
    """Chat completions become messages, and messages become chat completions."""

    own_api = True
    natively = frozenset({"messages"})
    # Newer models refuse it with a 400.
    prefill = Prefill()

    def url(self, deployment: DeploymentSpec, endpoint: str, *, stream: bool = False) -> str:  # noqa: ARG002  # see Dialect
        """See Dialect. The version may stand in the base URL or not, as the SDKs leave it out."""
        base = deployment.provider.base_url
        root = base if base.endswith("/v1") else f"{base}/v1"
        return root + ("/messages" if endpoint == "chat.completions" else PATHS[endpoint])

    def headers(self, secret: str, request_id: str) -> dict[str, str]:
        """See Dialect."""
        return {**super().headers(secret, request_id), "anthropic-version": VERSION}

    def body(
        self, deployment: DeploymentSpec, body: Mapping[str, Any], *, stream: bool
    ) -> tuple[bytes, list[str]]:
        """See Dialect."""
        if "messages" not in body:
            return super().body(deployment, body, stream=stream)
        made, lost = requests.messages_request(deployment, body)
        if stream:
            made["stream"] = True
        return orjson.dumps(made), lost

    def takes_format(self, deployment: DeploymentSpec, body: Mapping[str, Any]) -> bool:
        """See Dialect."""
        return requests.takes_format(requests.generation(deployment.model), body)

    def fault(self, event: Any) -> dict[str, Any] | None:
        """See Dialect. Events are told apart by their type, and the first carries a ``message``."""
        kind = event.get("type") if isinstance(event, dict) else None
        return None if isinstance(kind, str) and kind in answers.EVENTS else fault_of(event)

    def ends(self, event: Mapping[str, Any]) -> bool:
        """See Dialect."""
        return event.get("type") == "message_stop"

    def stream_usage(self, state: StreamState, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """See Dialect. The first event counts the prompt, the last one the answer; it may revise both."""
        return answers.stream_usage(state, event)

    def repair_chunk(self, state: StreamState, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """See Dialect."""
        made = answers.chunk_of(state, chunk)
        return [] if made is None else chunks.repair(state, made)

    def openai_answer(self, endpoint: str, answer: dict[str, Any]) -> dict[str, Any]:
        """See Dialect."""
        return answers.completion(answer) if endpoint == "chat.completions" else answer
