"""Groq."""

from routing.dialects.base import Repaired
from routing.dialects.demands import Demands


class Groq(Repaired):
    """Refuses null members in messages, and knows no ``top_k``."""

    demands = Demands(dropped=frozenset({"top_k"}), no_nulls=True, stripped=frozenset({"reasoning_content"}))
