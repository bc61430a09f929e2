"""The simulator, which speaks as OpenAI does."""

from routing.dialects.base import Dialect, Prefill


class Simulator(Dialect):
    """Continues a last message of the assistant, which OpenAI does not."""

    prefill = Prefill()
