"""Servers that people run themselves. Whether they take the thinking out of the text is up to their settings."""

from __future__ import annotations

from typing import Any

from routing.dialects.base import Prefill, Repaired
from routing.dialects.demands import Demands
from routing.table import DeploymentSpec


class LocalServer(Repaired):
    """SGLang, llama.cpp."""

    leaks = True


class VLLM(LocalServer):
    """vLLM."""

    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    prefill = Prefill(body={"continue_final_message": True, "add_generation_prompt": False})


class Ollama(LocalServer):
    """Ignores some parameters without a word; the client is told."""

    demands = Demands(bound="max_tokens", dropped=frozenset({"tool_choice", "logit_bias", "n", "user"}))


class LMStudio(LocalServer):
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
