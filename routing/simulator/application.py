"""The simulator as an ASGI application: addresses, keys, bodies, and which answer is given."""

import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import orjson

from routing.simulator import fast
from routing.simulator.behaviour import Behaviour, behaviour_of, is_simulated, read_directives
from routing.simulator.catalogue import models
from routing.simulator.connection import ASGIApp, Client, Receive, Scope, Send
from routing.simulator.delivery import deliver_bytes, deliver_chat, deliver_plain, send_body, send_failure
from routing.simulator.dice import seed_of, seed_of_bytes
from routing.simulator.embedding import embed, first_text
from routing.simulator.failures import (
    PLANNED_NAMES,
    SimulatedError,
    failure,
    invalid,
    not_found,
    planned,
    unknown_model,
    wrong_key,
)
from routing.simulator.media import MAKERS, SPEECH, speak
from routing.simulator.prompt import read_prompt
from routing.simulator.record import Outcome, Record
from routing.simulator.reply import compose
from routing.simulator.uploads import FORMS, Told, read_form

MAX_BODY = 64 * 1024 * 1024
_MAX_CASES = 100_000

_CHAT = "/v1/chat/completions"
_EMBEDDINGS = "/v1/embeddings"


def create_app(log_path: Path | None = None, *, require_key: bool = False) -> ASGIApp:
    """The simulator as an ASGI application of one process.

    Lines about requests are appended to `log_path` if given (OSError if it cannot be opened).
    With `require_key` a request without a bearer key is refused.
    """
    return Simulator(Record(log_path), require_key=require_key)


class Simulator:
    """The ASGI application. Its state (record, cases seen) lives in this process's memory."""

    def __init__(self, record: Record, *, require_key: bool) -> None:
        self.record = record
        self._require_key = require_key
        self._cases: set[tuple[str, str]] = set()
        self._flaps: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection. Only `http` is understood."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send, self.record)
            return
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        client = Client(scope, receive, send)
        try:
            if scope["path"].startswith("/_sim/"):
                await self._own(scope, client)
            else:
                await self._serve(scope, receive, client)
        finally:
            client.unwatch()

    async def _own(self, scope: Scope, client: Client) -> None:
        """The simulator's own pages, which are not part of the protocol and are not recorded."""
        call = (scope["method"], scope["path"])
        if call == ("GET", "/_sim/health"):
            answer: Any = {"status": "ok"}
        elif call == ("GET", "/_sim/log"):
            query = parse_qs(scope["query_string"].decode("latin-1"))
            answer = self.record.lines(query["user"][0] if "user" in query else None)
        elif call == ("GET", "/_sim/stats"):
            answer = self.record.stats()
        elif call == ("POST", "/_sim/reset"):
            self.record.clear()
            self._cases.clear()
            self._flaps.clear()
            answer = {"status": "reset"}
        else:
            await send_failure(client, not_found(*call), number=0)
            return
        await send_body(client, orjson.dumps(answer), number=0)

    async def _serve(self, scope: Scope, receive: Receive, client: Client) -> None:
        method, path = scope["method"], scope["path"]
        key = request_id = case = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                key = value
            elif name == b"x-request-id":
                request_id = value.decode("latin-1")
            elif name == b"x-sim-case":
                case = value.decode("latin-1")
        too_big: SimulatedError | None = None
        raw: bytes | None = b""
        parsed: Any = None
        try:
            if method == "POST" and path in FORMS:
                parsed = await read_form(receive, dict(scope["headers"]))
                raw = b"" if parsed is not None else None
            else:
                raw = await _read(receive) if method == "POST" else b""
        except SimulatedError as error:
            too_big = error
        try:
            parsed = orjson.loads(raw) if raw else parsed
        except orjson.JSONDecodeError:
            parsed = None
        body: dict[str, Any] = parsed if isinstance(parsed, dict) else {}
        model, user = body.get("model"), body.get("user") or body.get("safety_identifier")
        arrival = self.record.arrive(
            path=path,
            model=model if isinstance(model, str) else None,
            request_id=request_id,
            user=user if isinstance(user, str) else None,
            stream=body.get("stream") is True,
        )
        number: int = arrival["n"]
        outcome = Outcome(None, "aborted")
        try:
            if raw is None:
                outcome = Outcome(None, "client_gone")
                return
            if too_big is not None:
                raise too_big
            self._check_key(key)
            if method == "GET" and (path == "/v1/models" or path.startswith("/v1/models/")):
                await send_body(client, orjson.dumps(models(path)), number=number)
                outcome = Outcome(200, "done")
            elif method == "POST" and path in (_CHAT, _EMBEDDINGS, SPEECH, *MAKERS, *FORMS):
                if not isinstance(parsed, dict):
                    raise invalid(
                        "We could not parse the JSON body of your request. The API expects a JSON object."
                    )
                outcome = await self._answer(client, path, parsed, case or arrival["user"], number)
            else:
                raise not_found(method, path)
        except SimulatedError as error:
            outcome = await send_failure(client, error, number=number)
        finally:
            self.record.finish(arrival, outcome)

    def _check_key(self, key: bytes | None) -> None:
        if key is None:
            if self._require_key:
                raise wrong_key(missing=True)
        elif key.lower() == b"bearer bad":
            raise wrong_key(missing=False)

    async def _answer(
        self, client: Client, path: str, body: dict[str, Any], case: str | None, number: int
    ) -> Outcome:
        if path == _CHAT:
            return await self._chat(client, body, case, number)
        if path == _EMBEDDINGS:
            return await self._embeddings(client, body, case, number)
        return await self._media(client, path, body, case, number)

    async def _chat(self, client: Client, body: dict[str, Any], case: str | None, number: int) -> Outcome:
        model = _model(body)
        if model.startswith("sim-fast") and (answer := fast.rendered(model)) is not None:
            options = body.get("stream_options")
            return await fast.deliver(
                client,
                answer,
                number=number,
                stream=body.get("stream") is True,
                include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            )
        prompt = read_prompt(body, model, case or _case_of(body.get("messages")))
        behaviour = self._due(prompt.behaviour, model, prompt.case)
        if behaviour.fault == "400-prefill" and prompt.prefill is None:
            behaviour = behaviour.with_fault(None)
        ended = await _refuse(client, behaviour)
        if ended is not None:
            return ended
        if behaviour is not prompt.behaviour:
            prompt = prompt.with_behaviour(behaviour)
        reply = compose(prompt, seed_of(body))
        return await deliver_chat(client, prompt, reply, number=number, created=int(time.time()))

    async def _embeddings(
        self, client: Client, body: dict[str, Any], case: str | None, number: int
    ) -> Outcome:
        model = _model(body)
        directives = read_directives(first_text(body))
        case = directives.case or case or _case_of(body.get("input"))
        behaviour = self._due(behaviour_of(model, directives), model, case)
        ended = await _refuse(client, behaviour)
        if ended is not None:
            return ended
        answer, tokens = embed(body, model)
        if behaviour.fault == "nousage":
            del answer["usage"]
        return await deliver_plain(
            client,
            behaviour,
            orjson.dumps(answer),
            number=number,
            prompt_tokens=tokens,
            tokens=0,
            words=len(answer["data"]),
        )

    async def _media(
        self, client: Client, path: str, body: dict[str, Any], case: str | None, number: int
    ) -> Outcome:
        model = _model(body)
        make, named = MAKERS.get(path) or FORMS.get(path) or (None, "input")
        said = body.get(named)
        directives = read_directives(said if isinstance(said, str) else "")
        case = directives.case or case or _case_of(said)
        behaviour = self._due(behaviour_of(model, directives), model, case)
        ended = await _refuse(client, behaviour)
        if ended is not None:
            return ended
        if make is None:
            kind, pieces = speak(body)
            return await deliver_bytes(client, behaviour, kind, pieces, number=number)
        made = make(body, model)
        if isinstance(made, Told):
            await send_body(client, made.text, number=number, content_type=b"text/plain; charset=utf-8")
            return Outcome(200, "done", made.prompt_tokens, made.tokens, 1)
        if behaviour.fault == "nousage":
            made.answer.pop("usage", None)
            made.answer.pop("meta", None)
        return await deliver_plain(
            client,
            behaviour,
            orjson.dumps(made.answer),
            number=number,
            prompt_tokens=made.prompt_tokens,
            tokens=made.tokens,
            words=1,
        )

    def _due(self, behaviour: Behaviour, model: str, case: str) -> Behaviour:
        """The behaviour for this very request: without a fault that has had its turn."""
        if behaviour.fault == "flap":
            self._flaps[model] += 1
            return behaviour.with_fault("503" if self._flaps[model] % 2 == 1 else None)
        if not behaviour.once:
            return behaviour
        if (model, case) in self._cases:
            return behaviour.with_fault(None)
        if len(self._cases) >= _MAX_CASES:
            self._cases.clear()
        self._cases.add((model, case))
        return behaviour


async def _refuse(client: Client, behaviour: Behaviour) -> Outcome | None:
    """Show a fault that takes the place of an answer; None when there is an answer to give.

    Raises SimulatedError for a fault that is an error status.
    """
    fault, directives = behaviour.fault, behaviour.directives
    if fault in PLANNED_NAMES and fault is not None:
        raise planned(fault, directives.retry_after)
    if fault == "reset":
        await client.reset()
        return Outcome(None, "reset")
    if fault == "silence":
        client.watch()
        while directives.silence is None:
            if not await client.pause(3600):
                return Outcome(None, "client_gone")
        if not await client.pause(directives.silence):
            return Outcome(None, "client_gone")
        await client.hang_up()
        return Outcome(None, "silence")
    return None


def _model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("you must provide a model parameter")
    if not is_simulated(model):
        raise unknown_model(model)
    return model


def _case_of(content: Any) -> str:
    """The case of a request that names none: what it asks."""
    return f"{seed_of_bytes(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)):016x}"


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None if the client left meanwhile. Raises SimulatedError (413) if it is too big."""
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise failure(413, "The request is too large.", code="request_too_large")
    return b"".join(parts)


async def _lifespan(receive: Receive, send: Send, record: Record) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            record.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
