"""Groq."""

from __future__ import annotations

import re
from dataclasses import replace

from routing.dialects.base import Prefill, Repaired
from routing.dialects.demands import Demands
from routing.table import DeploymentSpec

# Models that can be held to a schema. https://console.groq.com/docs/structured-outputs
_SCHEMAS = re.compile(r"openai/gpt-oss|moonshotai/|meta-llama/llama-4")


class Groq(Repaired):
    """Refuses null members in messages, knows no ``top_k``, and a schema only with some models."""

    # https://console.groq.com/docs/prefilling
    prefill = Prefill()
    demands = Demands(
        dropped=frozenset({"top_k"}),
        no_nulls=True,
        stripped=frozenset({"reasoning_content"}),
        format_or_tools=True,
    )
    loose = replace(demands, formats="json_object")

    def demands_of(self, deployment: DeploymentSpec) -> Demands:
        """See Repaired."""
        return self.demands if _SCHEMAS.match(deployment.model) else self.loose
