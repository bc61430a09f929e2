"""DeepSeek."""

from routing.dialects.base import Repaired
from routing.dialects.demands import Demands


class DeepSeek(Repaired):
    """Wants text as one string. ``reasoning_content`` goes back to it as the client sends it."""

    demands = Demands(formats="json_object", bound="max_tokens", joined_text=True)
