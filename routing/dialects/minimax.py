"""MiniMax."""

from routing.dialects.base import Repaired
from routing.dialects.demands import Demands


class MiniMax(Repaired):
    """The older name of the output bound is deprecated there."""

    leaks = True
    demands = Demands(bound="max_completion_tokens", formats="words")
