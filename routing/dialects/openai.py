"""OpenAI and Azure OpenAI."""

from __future__ import annotations

import re
from typing import Any

from routing.dialects.base import Dialect, Repaired
from routing.dialects.demands import Demands
from routing.table import DeploymentSpec

# Reasoning models refuse the older name of the output bound.
_REASONS = re.compile(r"(?:o\d|gpt-[5-9])(?:[-.]|$)")


def rename_bound(deployment: DeploymentSpec, body: dict[str, Any]) -> None:
    """``max_tokens`` by its newer name, for models that know only that."""
    if "max_tokens" in body and _REASONS.match(deployment.model):
        old = body.pop("max_tokens")
        if body.get("max_completion_tokens") is None:
            body["max_completion_tokens"] = old


class OpenAI(Dialect):
    """The dialect itself."""

    def adapt(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:
        """See Dialect."""
        rename_bound(deployment, body)
        return super().adapt(deployment, body)


class Azure(Repaired):
    """OpenAI's models with content-filter annotations in their streams: chunks without choices, without
    an id, choices without a delta. Models of others are hosted there too."""

    demands = Demands(developer=True)

    def adapt(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:
        """See Dialect."""
        rename_bound(deployment, body)
        if "tools" not in body:
            # Refused without tools.
            body.pop("tool_choice", None)
        return super().adapt(deployment, body)
