"""Moonshot Kimi."""

from __future__ import annotations

import re
from dataclasses import replace

from routing.dialects.base import Prefill, Repaired
from routing.dialects.demands import Demands
from routing.table import DeploymentSpec

# Models that always think take no temperature but 1.
_THINKS = re.compile(r"kimi-k3|kimi-.*thinking")


class Moonshot(Repaired):
    """Temperatures up to 1, tools by the model's own choice, text as one string."""

    # https://platform.kimi.ai/docs/guide/use-partial-mode-feature-of-kimi-api
    prefill = Prefill({"partial": True})
    demands = Demands(
        bound="max_tokens",
        dropped=frozenset({"seed", "top_k"}),
        joined_text=True,
        required="",
        plain_schema=True,
        most_temperature=1.0,
    )
    thinking = replace(demands, dropped=demands.dropped | {"temperature"})

    def demands_of(self, deployment: DeploymentSpec) -> Demands:
        """See Repaired."""
        return self.thinking if _THINKS.match(deployment.model) else self.demands
