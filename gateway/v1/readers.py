"""Who reads the plain answer of each endpoint."""

from __future__ import annotations

from collections.abc import Callable

from gateway.v1.answers import READERS, PlainAnswer
from gateway.v1.facts import Facts
from gateway.v1.images import image_answer
from gateway.v1.moderations import moderation_answer
from gateway.v1.reranking import rerank_answer
from gateway.v1.transcriptions import transcription_answer
from routing.dialects import Dialect

OTHERS: dict[str, Callable[[bytes, Facts, Dialect], PlainAnswer]] = {
    "moderations": moderation_answer,
    "rerank": rerank_answer,
    "images.generations": image_answer,
    "images.edits": image_answer,
    "audio.transcriptions": transcription_answer,
    "audio.translations": transcription_answer,
}


def read_answer(facts: Facts, raw: bytes, speaks: Dialect, model: str) -> PlainAnswer:
    """A provider's plain answer to a request, as the client gets it. ``model`` is the provider's name for
    it. Raises BadAnswer, ErrorAnswer."""
    reader = READERS.get(facts.endpoint)
    if reader is None:
        return OTHERS[facts.endpoint](raw, facts, speaks)
    return reader(raw, base64_wanted=facts.base64, speaks=speaks, model=model)
