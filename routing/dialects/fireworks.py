"""Fireworks."""

from routing.dialects.base import Repaired
from routing.dialects.demands import BOOKKEEPING, Demands


class Fireworks(Repaired):
    """Refuses parameters it does not know."""

    demands = Demands(format_or_tools=True, bound="max_tokens", hushed=BOOKKEEPING - {"user"}, required="any")
