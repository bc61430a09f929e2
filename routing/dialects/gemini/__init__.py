"""Google Gemini, by its own generateContent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from routing.dialects import chunks
from routing.dialects.base import Repaired
from routing.dialects.chunks import StreamState
from routing.dialects.gemini import answers, requests
from routing.table import DeploymentSpec


class Gemini(Repaired):
    """Chat completions and embeddings, each by its own method of a model."""

    own_api = True

    def url(self, deployment: DeploymentSpec, endpoint: str, *, stream: bool = False) -> str:
        """See Dialect."""
        if endpoint == "embeddings":
            method = "batchEmbedContents"
        else:
            method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"{deployment.provider.base_url}/{quote(requests.full_name(deployment.model))}:{method}"

    def body(
        self, deployment: DeploymentSpec, body: Mapping[str, Any], *, stream: bool
    ) -> tuple[bytes, list[str]]:
        """See Dialect."""
        if "messages" not in body:
            made, lost = requests.embedding_request(deployment, body)
        else:
            made, lost = requests.content_request(deployment, body, stream=stream)
        return orjson.dumps(made), lost

    def takes_format(self, deployment: DeploymentSpec, body: Mapping[str, Any]) -> bool:
        """See Dialect."""
        return requests.takes_format(requests.version(deployment.model), body)

    def stream_usage(self, state: StreamState, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """See Dialect. Every event counts what came so far."""
        return answers.stream_usage(state, event)

    def repair_chunk(self, state: StreamState, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """See Dialect."""
        return chunks.repair(state, answers.chunk_of(state, chunk))

    def openai_answer(self, endpoint: str, answer: dict[str, Any]) -> dict[str, Any]:
        """See Dialect."""
        return answers.embeddings(answer) if endpoint == "embeddings" else answers.completion(answer)
