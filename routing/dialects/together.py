"""Together."""

from routing.dialects.base import OldBound


class Together(OldBound):
    """Leaves the thinking of some models in the text."""

    leaks = True
