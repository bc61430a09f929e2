"""How a provider is spoken to: OpenAI's own dialect, and what all others have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from routing.dialects import chunks, completions
from routing.dialects.chunks import StreamState, fault_of
from routing.dialects.demands import Demands, meet, no_tools, takes_format
from routing.dialects.unsupported import CannotCarry
from routing.dialects.usage import find_usage
from routing.kinds import Kind
from routing.table import DeploymentSpec

# Endpoints whose requests and answers differ from one provider to the next. At the others, those who have
# them take what OpenAI (for rerank: Cohere and Jina) takes.
WORDED = frozenset({"chat.completions", "embeddings"})
PATHS = {
    "chat.completions": "/chat/completions",
    "embeddings": "/embeddings",
    "moderations": "/moderations",
    "rerank": "/rerank",
    "images.generations": "/images/generations",
    "images.edits": "/images/edits",
    "audio.speech": "/audio/speech",
    "audio.transcriptions": "/audio/transcriptions",
    "audio.translations": "/audio/translations",
    "responses": "/responses",
    "messages": "/messages",
}


@dataclass(frozen=True, slots=True)
class Prefill:
    """How a last message of the assistant is marked, so that the model goes on with it: members of the
    message, and of the body."""

    message: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


class Dialect:
    """OpenAI's dialect, spoken by those whose answers need no repair.

    ``clean``: a stream's bytes and a plain answer pass as they came. A dialect that is not clean has
    every chunk decoded and repaired.
    """

    clean: ClassVar[bool] = True
    # Whether there is nothing but the endpoints of ``WORDED``, since the API is the provider's own.
    own_api: ClassVar[bool] = False
    # APIs beside chat that the provider speaks itself, by the names of ``PATHS``.
    natively: ClassVar[frozenset[str]] = frozenset()
    # How to have a text of the assistant continued; None: it is not known to be.
    prefill: ClassVar[Prefill | None] = None

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def natively_at(self, deployment: DeploymentSpec) -> frozenset[str]:  # noqa: ARG002  # for overriding
        """``natively`` of one deployment, where its provider's address decides."""
        return self.natively

    def url(self, deployment: DeploymentSpec, endpoint: str, *, stream: bool = False) -> str:  # noqa: ARG002  # for overriding
        """The full address of ``endpoint`` at the deployment's provider."""
        return deployment.provider.base_url + PATHS[endpoint]

    def headers(self, secret: str, request_id: str) -> dict[str, str]:
        """The headers of a request. Nothing of the client's own headers goes to a provider."""
        headers = {"content-type": "application/json", "x-request-id": request_id}
        if secret:
            headers[self.kind.auth_header] = self.kind.auth_prefix + secret
        return headers

    def body(
        self, deployment: DeploymentSpec, body: Mapping[str, Any], *, stream: bool
    ) -> tuple[bytes, list[str]]:
        """The client's body for this deployment, and the names of parameters that it could not carry
        unchanged. The model has the provider's name, and usage is always asked for. Raises CannotCarry."""
        changed = {**body, "model": deployment.model}
        if stream:
            changed["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        lost = self.adapt(deployment, changed)
        return orjson.dumps(changed), lost

    def form_of(self, endpoint: str) -> None:
        """Nothing, if forms can be sent there. Raises CannotCarry where there is no such endpoint."""
        if self.own_api:
            raise CannotCarry(endpoint)

    def plain_body(self, deployment: DeploymentSpec, endpoint: str, body: Mapping[str, Any]) -> bytes:
        """The body for an endpoint that is not in ``WORDED``. Raises CannotCarry where there is none."""
        if self.own_api:
            raise CannotCarry(endpoint)
        return orjson.dumps({**body, "model": deployment.model})

    def adapt(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:  # noqa: ARG002  # for overriding
        """Change a copy of the client's body in place, inner objects excepted; returns the names of
        parameters that could not be passed on."""
        if not body.get("tools", True):
            no_tools(body)
        return []

    def adapt_response(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:  # noqa: ARG002  # for overriding
        """What ``adapt`` does, with a body of the Responses API, whose ``input`` is a list of items."""
        return []

    def seals_thinking(self, deployment: DeploymentSpec) -> bool:  # noqa: ARG002  # for overriding
        """Whether the model gives its thinking sealed to who asks the Responses API for it, and refuses
        nobody who asks."""
        return False

    def thinks_beside_bound(self, deployment: DeploymentSpec) -> bool:  # noqa: ARG002  # for overriding
        """Whether the model's thinking is no part of what the request's output bound bounds."""
        return False

    def takes_format(self, deployment: DeploymentSpec, body: Mapping[str, Any]) -> bool:  # noqa: ARG002  # for overriding
        """Whether the provider itself keeps to the request's ``response_format``. If not, it is asked for in
        words, and the answer may be anything."""
        return True

    def read_usage(self, holder: Mapping[str, Any]) -> dict[str, Any] | None:
        """The usage object of a chunk or an answer, in OpenAI's spelling; None if it has none."""
        return find_usage(holder)

    def stream_usage(self, state: StreamState, chunk: Mapping[str, Any]) -> dict[str, Any] | None:  # noqa: ARG002  # for overriding
        """The usage that a stream has told with this chunk, in OpenAI's spelling; None if it tells none.
        A dialect that is told by and by keeps in ``state`` what came."""
        return self.read_usage(chunk)

    def fault(self, event: Any) -> dict[str, Any] | None:
        """The error that an event of a stream reports, as an object; None if it is no error."""
        return fault_of(event)

    def ends(self, event: Mapping[str, Any]) -> bool:  # noqa: ARG002  # for overriding
        """Whether an event is the last one of its stream, where no ``[DONE]`` follows."""
        return False

    def openai_answer(self, endpoint: str, answer: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002  # for overriding
        """A plain answer in OpenAI's shape, still to be repaired. Raises StreamFault for an error."""
        return answer

    def repair_chunk(self, state: StreamState, chunk: dict[str, Any]) -> list[dict[str, Any]]:  # noqa: ARG002  # for overriding
        """The chunks that the client gets for one of the provider's. Raises StreamFault."""
        return [chunk]

    def end_stream(self, state: StreamState) -> list[dict[str, Any]]:  # noqa: ARG002  # for overriding
        """Chunks that are still due when ``[DONE]`` came."""
        return []

    def repair_answer(self, answer: dict[str, Any], model: str) -> None:
        """Repair a plain chat completion in place. Raises FailedFinish."""


class Repaired(Dialect):
    """A dialect whose answers are repaired. ``demands`` says what a request must look like."""

    clean = False
    demands: ClassVar[Demands] = Demands()
    # Thinking may stand in the text, between tags.
    leaks: ClassVar[bool] = False

    def adapt(self, deployment: DeploymentSpec, body: dict[str, Any]) -> list[str]:
        """See Dialect."""
        if "messages" not in body:
            return []
        if not self.demands.asks_usage:
            body.pop("stream_options", None)
        return meet(self.demands_of(deployment), body)

    def takes_format(self, deployment: DeploymentSpec, body: Mapping[str, Any]) -> bool:
        """See Dialect."""
        return takes_format(self.demands_of(deployment), body)

    def demands_of(self, deployment: DeploymentSpec) -> Demands:  # noqa: ARG002  # for overriding
        """The demands for a deployment, where they depend on its model."""
        return self.demands

    def repair_chunk(self, state: StreamState, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """See Dialect."""
        state.leaks = self.leaks
        return chunks.repair(state, chunk)

    def repair_answer(self, answer: dict[str, Any], model: str) -> None:
        """See Dialect."""
        completions.repair(answer, model, leaks=self.leaks)


class OldBound(Repaired):
    """A dialect that differs in one thing: it knows the output bound as ``max_tokens`` alone."""

    demands = Demands(bound="max_tokens")
