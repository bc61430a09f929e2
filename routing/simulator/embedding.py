"""Vectors that depend on the text alone: equal texts give equal vectors, of length 1."""

import base64
import hashlib
import math
import struct
from typing import Any

from routing.simulator.failures import invalid
from routing.simulator.prompt import count_words

DEFAULT_DIMENSIONS = 64
MAX_DIMENSIONS = 4096
MAX_INPUTS = 2048


def embed(body: dict[str, Any], model: str) -> tuple[dict[str, Any], int]:
    """The `list` of embeddings for a request and its prompt tokens.

    Tokens are words (for input given as token numbers: those numbers). With encoding_format
    base64 a vector is the base64 of little-endian 32-bit floats. Raises SimulatedError (400) for input
    that is empty or of another kind, and for dimensions outside 1 to MAX_DIMENSIONS.
    """
    inputs = _inputs(body.get("input"))
    dimensions = body.get("dimensions", DEFAULT_DIMENSIONS)
    if dimensions is None:
        dimensions = DEFAULT_DIMENSIONS
    if type(dimensions) is not int or not 1 <= dimensions <= MAX_DIMENSIONS:
        raise invalid(f"Invalid 'dimensions': expected 1 to {MAX_DIMENSIONS}.", param="dimensions")
    packed = body.get("encoding_format") == "base64"
    tokens = sum(count_words(item) if isinstance(item, str) else len(item) for item in inputs)
    data = []
    for index, item in enumerate(inputs):
        vector = _vector(item, dimensions)
        data.append(
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector).decode()
                if packed
                else list(struct.unpack(f"<{dimensions}f", vector)),
            }
        )
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}, tokens


def first_text(body: dict[str, Any]) -> str:
    """The first text of the input, where directives are looked for; empty without one."""
    given = body.get("input")
    if isinstance(given, list) and given:
        given = given[0]
    return given if isinstance(given, str) else ""


def _inputs(given: Any) -> list[str | list[int]]:
    one_of_tokens = isinstance(given, list) and given and all(type(item) is int for item in given)
    if isinstance(given, str) or one_of_tokens:
        given = [given]
    if not isinstance(given, list) or not given:
        raise invalid("Invalid 'input': expected a text, or a list that is not empty.", param="input")
    if len(given) > MAX_INPUTS:
        raise invalid(f"Invalid 'input': more than {MAX_INPUTS} inputs.", param="input")
    for item in given:
        of_tokens = isinstance(item, list) and all(type(token) is int for token in item)
        if not item or not (isinstance(item, str) or of_tokens):
            raise invalid("Invalid 'input': expected texts or lists of token numbers.", param="input")
    return given


def _vector(item: str | list[int], dimensions: int) -> bytes:
    """`dimensions` little-endian 32-bit floats, together of length 1."""
    text = item if isinstance(item, str) else repr(item)
    noise = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    raw = [value + 0.5 for value in struct.unpack(f"<{dimensions}h", noise)]
    length = math.sqrt(sum(value * value for value in raw))
    return struct.pack(f"<{dimensions}f", *(value / length for value in raw))
