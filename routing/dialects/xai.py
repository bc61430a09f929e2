"""xAI."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from routing.dialects import chunks
from routing.dialects.base import Repaired
from routing.dialects.chunks import StreamState
from routing.dialects.demands import Demands, loosened
from routing.table import DeploymentSpec

_REASONS = re.compile(r"grok-4|grok-code|grok-3-mini")
_SEALED: Final = "reasoning.encrypted_content"
_LOGPROBS: Final = "message.output_text.logprobs"


def _thinks(deployment: DeploymentSpec) -> bool:
    return _REASONS.match(deployment.model) is not None and "non-reasoning" not in deployment.model


class XAI(Repaired):
    """Refuses names in messages, strict tools, and some parameters for models that reason.

    Responses, which xAI prefers to chats, with what it ignores of them:
    https://docs.x.ai/developers/model-capabilities/text/generate-text and
    https://docs.x.ai/docs/api-reference#create-new-response. It looks no item up by its id.
    """

    demands = Demands(stripped=frozenset({"name"}), tool_names=False, loose_tools=True)
    natively = frozenset({"responses"})
    reasoning = replace(demands, dropped=frozenset({"stop", "frequency_penalty", "presence_penalty"}))

    def demands_of(self, deployment: DeploymentSpec) -> Demands:
        """See Repaired."""
        return self.reasoning if _REASONS.match(deployment.model) else self.demands

    def adapt_response(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:
        """See Dialect."""
        lost = super().adapt_response(deployment, body)
        if body.get("truncation") not in (None, "disabled"):
            lost.append("truncation")
        body.pop("truncation", None)
        if include := body.pop("include", None):
            body["include"] = [wanted for wanted in include if wanted == _SEALED]
            if _LOGPROBS in include:
                body["logprobs"] = True
            if not {_SEALED, _LOGPROBS}.issuperset(include):
                lost.append("include")
        if body.get("top_logprobs"):
            body["logprobs"] = True
        body["input"] = [
            {**item, "role": "system"} if item.get("role") == "developer" else item for item in body["input"]
        ]
        if isinstance(body.get("tools"), list):
            body["tools"] = loosened(body["tools"])
        return lost

    def seals_thinking(self, deployment: DeploymentSpec) -> bool:
        """See Dialect."""
        return _thinks(deployment)

    def thinks_beside_bound(self, deployment: DeploymentSpec) -> bool:
        """See Dialect. Of a response bounded to 16 tokens 198 of 199 were thought, and it was complete:
        https://github.com/vercel/ai, packages/xai/src/responses/__fixtures__/issue-17936-stream.chunks.txt."""
        return _thinks(deployment)

    def end_stream(self, state: StreamState) -> list[dict[str, Any]]:
        """See Dialect. An answer that calls tools may end with an empty finish reason."""
        return chunks.close(state)
