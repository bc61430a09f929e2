"""Zhipu GLM."""

from routing.dialects.base import Repaired
from routing.dialects.demands import Demands


class Zhipu(Repaired):
    """Knows no schema for an answer, only that it be JSON."""

    demands = Demands(bound="max_tokens", formats="json_object")
