"""How each kind of provider wants to be spoken to, and how its answers become OpenAI's.

One small module a kind that differs. Anthropic and Gemini are reached through their own APIs, all others
through an OpenAI-compatible endpoint.
"""

from __future__ import annotations

from dataclasses import replace

from routing.dialects.anthropic import Anthropic
from routing.dialects.base import WORDED, Dialect, Repaired
from routing.dialects.chunks import StreamFault, StreamState, fault_of
from routing.dialects.deepseek import DeepSeek
from routing.dialects.finish import FailedFinish
from routing.dialects.fireworks import Fireworks
from routing.dialects.gemini import Gemini
from routing.dialects.groq import Groq
from routing.dialects.local import VLLM, LMStudio, LocalServer, Ollama
from routing.dialects.minimax import MiniMax
from routing.dialects.mistral import Mistral
from routing.dialects.moonshot import Moonshot
from routing.dialects.openai import Azure, OpenAI
from routing.dialects.qwen import Qwen
from routing.dialects.simulator import Simulator
from routing.dialects.together import Together
from routing.dialects.unsupported import CannotCarry
from routing.dialects.xai import XAI
from routing.dialects.zhipu import Zhipu
from routing.kinds import KINDS

_CLASSES: dict[str, type[Dialect]] = {
    "openai": OpenAI,
    "azure": Azure,
    "deepseek": DeepSeek,
    "qwen": Qwen,
    "moonshot": Moonshot,
    "zhipu": Zhipu,
    "together": Together,
    "minimax": MiniMax,
    "mistral": Mistral,
    "groq": Groq,
    "fireworks": Fireworks,
    "xai": XAI,
    "anthropic": Anthropic,
    "gemini": Gemini,
    "ollama": Ollama,
    "vllm": VLLM,
    "sglang": LocalServer,
    "llamacpp": LocalServer,
    "lmstudio": LMStudio,
    "simulator": Simulator,
}
# A kind without a class of its own asks nothing special of a request, and its answers are repaired.
_DIALECTS: dict[str, Dialect] = {name: _CLASSES.get(name, Repaired)(kind) for name, kind in KINDS.items()}


# Google's own OpenAI-compatible endpoint, which takes the credential as OpenAI does.
_GEMINI_COMPATIBLE = Repaired(replace(KINDS["gemini"], auth_header="Authorization", auth_prefix="Bearer "))


def dialect(kind: str, base_url: str = "") -> Dialect:
    """The dialect of a provider kind; KeyError for an unknown one. A Gemini address that ends in
    ``/openai`` is that of its compatible endpoint."""
    if kind == "gemini" and base_url.endswith("/openai"):
        return _GEMINI_COMPATIBLE
    return _DIALECTS[kind]


__all__ = (
    "WORDED",
    "CannotCarry",
    "Dialect",
    "FailedFinish",
    "StreamFault",
    "StreamState",
    "dialect",
    "fault_of",
)
