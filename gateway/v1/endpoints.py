"""Which addresses ask a model, and how: the one table. A new endpoint is one line here.

``read`` makes facts of the body (``facts.endpoint`` says what a provider is asked: see
``routing.dialects.base.PATHS`` and ``gateway.v1.readers``), ``shape`` shows a chat answer in the
API's own words where the client asked in another than chat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.v1.error_shapes import ANTHROPIC, OPENAI, ErrorShape
from gateway.v1.facts import Facts, chat_facts, embedding_facts
from gateway.v1.forms import Form
from gateway.v1.images import edit_facts, generation_facts
from gateway.v1.moderations import moderation_facts
from gateway.v1.reranking import rerank_facts
from gateway.v1.speech import speech_facts
from gateway.v1.transcriptions import transcription_facts, translation_facts
from gateway.v1.translation.completions import Completion, completion_facts
from gateway.v1.translation.message_requests import message_facts
from gateway.v1.translation.messages import Message
from gateway.v1.translation.response_requests import response_facts
from gateway.v1.translation.responses import Response
from gateway.v1.translation.shape import Shape


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that asks a model, by POST. ``name`` is what the usage record says."""

    name: str
    # The body and the X-End-User header; raises InvalidRequest. None: the body is a form.
    read: Callable[[bytes, str], Facts] | None = None
    # The facts and the request's id. None: what the provider answers is what the client gets.
    shape: Callable[[Facts, str], Shape] | None = None
    # Whether answers can be kept and gone on from (``gateway.v1.stored``).
    kept: bool = False
    # The same for a body that is a multipart form.
    form: Callable[[Form, str], Facts] | None = None


ENDPOINTS: dict[str, Endpoint] = {
    "/v1/chat/completions": Endpoint("chat.completions", chat_facts),
    "/v1/completions": Endpoint("completions", completion_facts, Completion),
    "/v1/responses": Endpoint("responses", response_facts, Response, kept=True),
    "/v1/messages": Endpoint("messages", message_facts, Message),
    "/v1/embeddings": Endpoint("embeddings", embedding_facts),
    "/v1/moderations": Endpoint("moderations", moderation_facts),
    "/v1/rerank": Endpoint("rerank", rerank_facts),
    "/v1/images/generations": Endpoint("images.generations", generation_facts),
    "/v1/images/edits": Endpoint("images.edits", form=edit_facts),
    "/v1/audio/transcriptions": Endpoint("audio.transcriptions", form=transcription_facts),
    "/v1/audio/translations": Endpoint("audio.translations", form=translation_facts),
    "/v1/audio/speech": Endpoint("audio.speech", speech_facts),
}


def errors_of(path: str) -> ErrorShape:
    """In whose words an address tells its errors."""
    return ANTHROPIC if path == "/v1/messages" or path.startswith("/v1/messages/") else OPENAI
