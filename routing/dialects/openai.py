"""OpenAI and Azure OpenAI."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from routing.dialects.base import PATHS, Dialect, Repaired
from routing.dialects.chunks import StreamState
from routing.dialects.demands import Demands
from routing.table import DeploymentSpec

# Reasoning models refuse the older name of the output bound.
_REASONS = re.compile(r"(?:o\d|gpt-[5-9])(?:[-.]|$)")


def reasons(model: str) -> bool:
    """Whether it is a model that thinks before it answers."""
    return _REASONS.match(model) is not None


def rename_bound(deployment: DeploymentSpec, body: dict[str, Any]) -> None:
    """``max_tokens`` by its newer name, for models that know only that."""
    if "max_tokens" in body and reasons(deployment.model):
        old = body.pop("max_tokens")
        if body.get("max_completion_tokens") is None:
            body["max_completion_tokens"] = old


class OpenAI(Dialect):
    """The dialect itself."""

    natively = frozenset({"responses"})

    def adapt(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:
        """See Dialect."""
        rename_bound(deployment, body)
        return super().adapt(deployment, body)


class Azure(Repaired):
    """OpenAI's models with content-filter annotations in their streams: chunks without choices, without
    an id, choices without a delta. Models of others are hosted there too."""

    demands = Demands(developer=True)

    def url(self, deployment: DeploymentSpec, endpoint: str, *, stream: bool = False) -> str:
        """See Dialect. An address with an ``api-version`` is that of a resource, whose deployments have an
        address each; without one it is that of the newer API, where the body names the deployment."""
        base, _, query = deployment.provider.base_url.partition("?")
        if "api-version=" not in query:
            return super().url(deployment, endpoint, stream=stream)
        root = base.rstrip("/")
        if "/deployments/" not in root:
            root = f"{root.removesuffix('/openai')}/openai/deployments/{quote(deployment.model, safe='')}"
        return f"{root}{PATHS[endpoint]}?{query}"

    def repair_chunk(self, state: StreamState, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """See Dialect. What the filter says of the prompt comes alone, before the answer: it goes to the
        client with the answer's first chunk."""
        told = chunk.get("prompt_filter_results")
        if told and not chunk.get("choices"):
            state.counts["prompt_filter_results"] = told
            return []
        repaired = super().repair_chunk(state, chunk)
        if repaired and "prompt_filter_results" in state.counts:
            repaired[0]["prompt_filter_results"] = state.counts.pop("prompt_filter_results")
        return repaired

    def adapt(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:
        """See Dialect."""
        rename_bound(deployment, body)
        if "tools" not in body:
            # Refused without tools.
            body.pop("tool_choice", None)
        return super().adapt(deployment, body)
