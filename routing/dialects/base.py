"""The dialect that everybody claims to speak: OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from routing.kinds import Kind
from routing.table import DeploymentSpec

PATHS = {"chat.completions": "/chat/completions", "embeddings": "/embeddings"}


class Dialect:
    """How to address and authenticate a request, and what to change in its body."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def url(self, deployment: DeploymentSpec, endpoint: str) -> str:
        """The full address of ``endpoint`` at the deployment's provider."""
        return deployment.provider.base_url + PATHS[endpoint]

    def headers(self, secret: str, request_id: str) -> dict[str, str]:
        """The headers of a request. Nothing of the client's own headers goes to a provider."""
        headers = {"content-type": "application/json", "x-request-id": request_id}
        if secret:
            headers[self.kind.auth_header] = self.kind.auth_prefix + secret
        return headers

    def body(self, deployment: DeploymentSpec, body: Mapping[str, Any], *, stream: bool) -> bytes:
        """The client's body for this deployment: the provider's name of the model, and always usage."""
        changed = {**body, "model": deployment.model}
        if stream:
            changed["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return orjson.dumps(changed)
