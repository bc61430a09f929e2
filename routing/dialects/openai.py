"""OpenAI and Azure OpenAI."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote, unquote

from routing.dialects.base import PATHS, Dialect, Repaired
from routing.dialects.chunks import StreamState
from routing.dialects.demands import Demands
from routing.table import DeploymentSpec

# Reasoning models refuse the older name of the output bound.
_REASONS = re.compile(r"(?:o\d|gpt-[5-9])(?:[-.]|$)")


def reasons(model: str) -> bool:
    """Whether it is a model that thinks before it answers."""
    return _REASONS.match(model) is not None


_VERSION: Final = re.compile(r"[?&]api-version=([^&]+)")
_DEPLOYMENT: Final = re.compile(r"/deployments/([^/?]+)")
# "Azure OpenAI Responses API is enabled only for api-version 2025-03-01-preview and later."
_RESPONSES_SINCE: Final = "2025-03-01-preview"
# What other providers say and want back in a message of the assistant and in its calls.
_THEIRS: Final = frozenset({"reasoning", "reasoning_content", "reasoning_details"})
_THEIRS_IN_CALLS: Final = frozenset({"index", "extra_content"})


def plain_messages(body: dict[str, Any], refused: frozenset[str]) -> None:
    """A conversation that was led elsewhere, without members that OpenAI does not know: ``refused`` of
    messages, and those of calls."""
    given = body.get("messages")
    for place, message in enumerate(given if isinstance(given, list) else ()):
        if not isinstance(message, dict) or message.get("role") != "assistant":
            continue
        calls = message.get("tool_calls")
        if isinstance(calls, list) and any(
            isinstance(call, dict) and not _THEIRS_IN_CALLS.isdisjoint(call) for call in calls
        ):
            calls = [
                {name: value for name, value in call.items() if name not in _THEIRS_IN_CALLS}
                for call in calls
            ]
        elif refused.isdisjoint(message):
            continue
        changed = {name: value for name, value in message.items() if name not in refused}
        if calls is not None:
            changed["tool_calls"] = calls
        if body["messages"] is given:
            body["messages"] = list(given)
        body["messages"][place] = changed


def plain_items(body: dict[str, Any], refused: frozenset[str]) -> None:
    """The items of a response's ``input`` without members that are refused in them."""
    body["input"] = [
        {name: value for name, value in item.items() if name not in refused} for item in body["input"]
    ]


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
        plain_messages(body, _THEIRS)
        return super().adapt(deployment, body)

    def adapt_response(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:
        """See Dialect. By their ids it would look items up, of which it keeps none."""
        plain_items(body, frozenset({"id"}))
        return super().adapt_response(deployment, body)

    def seals_thinking(self, deployment: DeploymentSpec) -> bool:
        """See Dialect. Models that do not think refuse to be asked."""
        return reasons(deployment.model)


class Azure(Repaired):
    """OpenAI's models with content-filter annotations in their streams: chunks without choices, without
    an id, choices without a delta. Models of others are hosted there too.

    Responses: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/responses. At the address of a
    resource they are there from one ``api-version`` on, and not at those that are no preview.
    """

    demands = Demands(developer=True)
    natively = frozenset({"responses"})

    def natively_at(self, deployment: DeploymentSpec) -> frozenset[str]:
        """See Dialect."""
        base = deployment.provider.base_url
        version = _VERSION.search(base)
        if version is None or "/openai/v1" in base:
            return self.natively
        named = version[1]
        dated = named[:1].isdigit()
        there = named >= _RESPONSES_SINCE and named.endswith("-preview") if dated else named == "preview"
        return self.natively if there else frozenset()

    def url(self, deployment: DeploymentSpec, endpoint: str, *, stream: bool = False) -> str:
        """See Dialect. An address with an ``api-version`` is that of a resource, whose deployments have an
        address each; without one it is that of the newer API, where the body names the deployment."""
        base, _, query = deployment.provider.base_url.partition("?")
        if "api-version=" not in query:
            return super().url(deployment, endpoint, stream=stream)
        root = base.rstrip("/")
        if root.endswith("/openai/v1"):
            return f"{root}{PATHS[endpoint]}?{query}"
        if endpoint == "responses":
            # The one address of a resource that names no deployment: the body does.
            root, _, _ = root.partition("/deployments/")
            return f"{root.removesuffix('/openai')}/openai{PATHS[endpoint]}?{query}"
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
        # Models of others are hosted there too, and may want their thinking back.
        plain_messages(body, frozenset({"reasoning_details"}))
        if "tools" not in body:
            # Refused without tools.
            body.pop("tool_choice", None)
        return super().adapt(deployment, body)

    def adapt_response(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:
        """See Dialect. An item that says how it ended is refused:
        https://github.com/BerriAI/litellm/issues/13484."""
        plain_items(body, frozenset({"id", "status"}))
        named = _DEPLOYMENT.search(deployment.provider.base_url)
        if named is not None:
            body["model"] = unquote(named[1])
        return super().adapt_response(deployment, body)

    def seals_thinking(self, deployment: DeploymentSpec) -> bool:
        """See Dialect. The model is known only where its deployment there is named after it."""
        return reasons(deployment.model)
