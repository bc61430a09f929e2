"""The kinds of provider Weir knows, with the address of those that have a fixed one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of provider is reached.

    ``base_url`` is the root of its API, empty where each customer has an own one.
    ``auth_header`` carries the credential, after ``auth_prefix``.
    """

    name: str
    label: str
    base_url: str = ""
    auth_header: str = "Authorization"
    auth_prefix: str = "Bearer "
    needs_credential: bool = True


# Addresses as the providers document them.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("openai", "OpenAI", "https://api.openai.com/v1"),
        Kind("azure", "Azure OpenAI", auth_header="api-key", auth_prefix=""),
        Kind("deepseek", "DeepSeek", "https://api.deepseek.com/v1"),
        Kind("qwen", "Alibaba Qwen", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
        Kind("moonshot", "Moonshot Kimi", "https://api.moonshot.ai/v1"),
        Kind("zhipu", "Zhipu GLM", "https://api.z.ai/api/paas/v4"),
        Kind("doubao", "ByteDance Doubao", "https://ark.cn-beijing.volces.com/api/v3"),
        Kind("minimax", "MiniMax", "https://api.minimax.io/v1"),
        Kind("mistral", "Mistral", "https://api.mistral.ai/v1"),
        Kind("groq", "Groq", "https://api.groq.com/openai/v1"),
        Kind("together", "Together", "https://api.together.ai/v1"),
        Kind("fireworks", "Fireworks", "https://api.fireworks.ai/inference/v1"),
        Kind("xai", "xAI", "https://api.x.ai/v1"),
        Kind("openrouter", "OpenRouter", "https://openrouter.ai/api/v1"),
        Kind(
            "gemini",
            "Google Gemini",
            "https://generativelanguage.googleapis.com/v1beta",
            auth_header="x-goog-api-key",
            auth_prefix="",
        ),
        Kind(
            "anthropic",
            "Anthropic",
            "https://api.anthropic.com/v1",
            auth_header="x-api-key",
            auth_prefix="",
        ),
        Kind("vllm", "vLLM", needs_credential=False),
        Kind("sglang", "SGLang", needs_credential=False),
        Kind("ollama", "Ollama", "http://127.0.0.1:11434/v1", needs_credential=False),
        Kind("llamacpp", "llama.cpp", needs_credential=False),
        Kind("lmstudio", "LM Studio", "http://127.0.0.1:1234/v1", needs_credential=False),
        Kind("generic", "OpenAI-compatible", needs_credential=False),
        Kind("simulator", "Simulator (not a real model)", needs_credential=False),
    )
}


def kind_choices() -> list[tuple[str, str]]:
    """Choices for a model field; a callable, so that a new kind needs no migration."""
    return [(kind.name, kind.label) for kind in KINDS.values()]
