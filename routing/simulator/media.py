"""Fakes of what is neither chat nor embeddings: moderations, reranking, pictures, speech.

Each counts in a way that can be worked out by hand: see docs/simulator.md.
"""

import base64
import hashlib
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from routing.simulator.failures import invalid
from routing.simulator.prompt import count_words

# Tokens of one picture, and bytes of speech for each word.
IMAGE_TOKENS = 100
SPEECH_BYTES = 1_000
SIZES = ("256x256", "512x512", "1024x1024", "1024x1536", "1536x1024", "auto")
SPEECH_TYPES = {
    "mp3": b"audio/mpeg",
    "opus": b"audio/opus",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}


@dataclass(frozen=True, slots=True)
class Made:
    """An answer: its object, and the tokens that went in and came out."""

    answer: dict[str, Any]
    prompt_tokens: int
    tokens: int = 0


def moderate(body: dict[str, Any], model: str) -> Made:
    """One result for each input; flagged is what says ``harm``."""
    given = body.get("input")
    items: list[Any] = given if isinstance(given, list) else [given]
    if isinstance(given, list) and given and isinstance(given[0], dict):
        # Parts are one input together.
        items = [" ".join(str(part.get("text", "")) for part in given if isinstance(part, dict))]
    if not items or not all(isinstance(item, str) and item for item in items):
        raise invalid("Invalid 'input': expected a text, texts or parts.", param="input")
    results = []
    for item in items:
        found = "harm" in item.split()
        results.append(
            {
                "flagged": found,
                "categories": {"violence": found},
                "category_scores": {"violence": 0.9 if found else 0.1},
                "category_applied_input_types": {"violence": ["text"]},
            }
        )
    words = sum(count_words(item) for item in items)
    return Made({"id": f"modr-sim{_seed(body):016x}", "model": model, "results": results}, words)


def rerank(body: dict[str, Any], model: str) -> Made:
    """The documents by how many words of the query they share, best first. One search for each 100."""
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise invalid("Invalid 'query': expected a text.", param="query")
    if not isinstance(documents, list) or not documents:
        raise invalid("Invalid 'documents': expected texts.", param="documents")
    texts = [str(each.get("text", "")) if isinstance(each, dict) else str(each) for each in documents]
    asked = set(query.split())
    scores = [len(asked & set(text.split())) / len(asked) if asked else 0.0 for text in texts]
    order = sorted(range(len(texts)), key=lambda place: (-scores[place], place))
    results = []
    for place in order[: body.get("top_n") or len(order)]:
        result: dict[str, Any] = {"index": place, "relevance_score": scores[place]}
        if body.get("return_documents"):
            result["document"] = {"text": texts[place]}
        results.append(result)
    tokens = count_words(query) * len(texts) + sum(count_words(text) for text in texts)
    answer = {
        "id": f"rerank-sim{_seed(body):016x}",
        "model": model,
        "results": results,
        "meta": {"billed_units": {"search_units": -(-len(texts) // 100)}},
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Made(answer, tokens)


def draw(body: dict[str, Any], model: str) -> Made:  # noqa: ARG001  # one signature for all
    """``n`` pictures of one grey pixel, of 100 tokens each."""
    prompt, count = body.get("prompt"), body.get("n") or 1
    if not isinstance(prompt, str) or not prompt:
        raise invalid("Invalid 'prompt': expected a text.", param="prompt")
    if not isinstance(count, int) or not 1 <= count <= 10:
        raise invalid("Invalid 'n': expected 1 to 10.", param="n")
    if body.get("size") not in (None, *SIZES):
        raise invalid("Invalid 'size'.", param="size")
    seed = _seed(body)
    pictures = [png((seed + place) % 256) for place in range(count)]
    if body.get("response_format") == "url":
        data = [{"url": "data:image/png;base64," + base64.b64encode(each).decode()} for each in pictures]
    else:
        data = [{"b64_json": base64.b64encode(each).decode()} for each in pictures]
    words, tokens = count_words(prompt), IMAGE_TOKENS * count
    usage = {
        "input_tokens": words,
        "input_tokens_details": {"text_tokens": words, "image_tokens": 0},
        "output_tokens": tokens,
        "total_tokens": words + tokens,
    }
    return Made({"created": int(time.time()), "data": data, "usage": usage}, words, tokens)


def speak(body: dict[str, Any]) -> tuple[bytes, list[bytes]]:
    """The content type, and 1,000 bytes of noise for each word."""
    text = body.get("input")
    if not isinstance(text, str) or not text:
        raise invalid("Invalid 'input': expected a text.", param="input")
    if not body.get("voice"):
        raise invalid("Missing required parameter: 'voice'.", param="voice")
    form = body.get("response_format") or "mp3"
    kind = SPEECH_TYPES.get(form) if isinstance(form, str) else None
    if kind is None:
        raise invalid("Invalid 'response_format'.", param="response_format")
    noise = hashlib.shake_256(text.encode())
    whole = noise.digest(SPEECH_BYTES * count_words(text))
    return kind, [whole[start : start + SPEECH_BYTES] for start in range(0, len(whole), SPEECH_BYTES)]


def png(grey: int) -> bytes:
    """A picture of one pixel."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = zlib.compress(bytes((0, grey)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


# By address: what makes the answer, and the member that holds directives.
MAKERS: dict[str, tuple[Callable[[dict[str, Any], str], Made], str]] = {
    "/v1/moderations": (moderate, "input"),
    "/v1/rerank": (rerank, "query"),
    "/v1/images/generations": (draw, "prompt"),
}
SPEECH = "/v1/audio/speech"


def _seed(body: dict[str, Any]) -> int:
    return int.from_bytes(hashlib.blake2b(orjson.dumps(body), digest_size=8).digest(), "big")
