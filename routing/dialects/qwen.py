"""Alibaba Qwen in compatible mode."""

from routing.dialects.base import Repaired
from routing.dialects.demands import Demands


class Qwen(Repaired):
    """Knows no frequency penalty."""

    demands = Demands(bound="max_tokens", dropped=frozenset({"frequency_penalty"}))
