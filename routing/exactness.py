"""How exactly a model group keeps to what a client asks: the names of its settings' values."""

from __future__ import annotations

# What becomes of an answer that is not valid against the schema asked for: its JSON is cut out of the text,
# or the request is also made again, or neither.
STRUCTURED_OUTPUT = ("repair", "retry", "fail")
# What becomes of a parameter that a provider cannot honour: brought as near as the provider can, left out, or
# refused. The client is told of all.
UNSUPPORTED_PARAMS = ("map", "drop", "strict")


def structured_output_choices() -> list[tuple[str, str]]:
    """Choices for a model field; a callable, so that a new one needs no migration."""
    return [(name, name) for name in STRUCTURED_OUTPUT]


def unsupported_params_choices() -> list[tuple[str, str]]:
    """Choices for a model field; a callable, so that a new one needs no migration."""
    return [(name, name) for name in UNSUPPORTED_PARAMS]
