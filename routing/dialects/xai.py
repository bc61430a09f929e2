"""xAI."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from routing.dialects import chunks
from routing.dialects.base import Repaired
from routing.dialects.chunks import StreamState
from routing.dialects.demands import Demands
from routing.table import DeploymentSpec

_REASONS = re.compile(r"grok-4|grok-code|grok-3-mini")


class XAI(Repaired):
    """Refuses names in messages, strict tools, and some parameters for models that reason."""

    demands = Demands(stripped=frozenset({"name"}), tool_names=False, loose_tools=True)
    reasoning = replace(demands, dropped=frozenset({"stop", "frequency_penalty", "presence_penalty"}))

    def demands_of(self, deployment: DeploymentSpec) -> Demands:
        """See Repaired."""
        return self.reasoning if _REASONS.match(deployment.model) else self.demands

    def end_stream(self, state: StreamState) -> list[dict[str, Any]]:
        """See Dialect. An answer that calls tools may end with an empty finish reason."""
        return chunks.close(state)
