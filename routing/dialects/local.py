"""Servers that people run themselves: Ollama and LM Studio. Others need no more than repair."""

from __future__ import annotations

from typing import Any

from routing.dialects.base import Repaired
from routing.dialects.demands import Demands
from routing.table import DeploymentSpec


class Ollama(Repaired):
    """Ignores some parameters without a word; the client is told."""

    demands = Demands(bound="max_tokens", dropped=frozenset({"tool_choice", "logit_bias", "n", "user"}))


class LMStudio(Repaired):
    """Takes a tool choice only as a word, and a response format only as a schema or text."""

    demands = Demands(named_by_offer=True)

    def adapt(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:
        """See Dialect."""
        lost = super().adapt(deployment, body)
        form = body.get("response_format")
        if isinstance(form, dict) and form.get("type") == "json_object":
            del body["response_format"]
            lost.append("response_format")
        return lost
