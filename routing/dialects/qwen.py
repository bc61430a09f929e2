"""Alibaba Qwen in compatible mode."""

from routing.dialects.base import Prefill, Repaired
from routing.dialects.demands import Demands


class Qwen(Repaired):
    """Knows no frequency penalty."""

    # https://help.aliyun.com/zh/model-studio/partial-mode
    prefill = Prefill({"partial": True})
    demands = Demands(bound="max_tokens", dropped=frozenset({"frequency_penalty"}))
