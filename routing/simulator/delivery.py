"""Sending an answer: plain or streamed, at its pace, with the fault it was asked to show."""

import orjson

from routing.simulator.behaviour import Behaviour
from routing.simulator.connection import Client
from routing.simulator.failures import JSON_TYPE, SERVER_ERROR, SimulatedError, error_object, planned
from routing.simulator.prompt import ChatPrompt
from routing.simulator.record import Outcome
from routing.simulator.reply import FINGERPRINT, Piece, Reply, plain_body

Headers = list[tuple[bytes, bytes]]

MARK: tuple[bytes, bytes] = (b"x-weir-simulator", b"true")
EVENTS_TYPE = b"text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def headers_for(content_type: bytes, number: int) -> Headers:
    """The headers of every answer; `number` counts requests and makes the request id."""
    return [
        (b"content-type", content_type),
        (b"x-request-id", b"req_sim%012d" % number),
        (b"openai-version", b"2020-10-01"),
        MARK,
    ]


async def send_body(
    client: Client, body: bytes, *, number: int, status: int = 200, content_type: bytes = JSON_TYPE
) -> None:
    """Send one whole answer."""
    headers = headers_for(content_type, number)
    headers.append((b"content-length", b"%d" % len(body)))
    await client.send({"type": "http.response.start", "status": status, "headers": headers})
    await client.send({"type": "http.response.body", "body": body})


async def send_failure(client: Client, failure: SimulatedError, *, number: int) -> Outcome:
    """Send an error answer."""
    headers = headers_for(failure.content_type, number)
    headers += [(name.encode(), value.encode()) for name, value in failure.headers.items()]
    headers.append((b"content-length", b"%d" % len(failure.body)))
    await client.send({"type": "http.response.start", "status": failure.status, "headers": headers})
    await client.send({"type": "http.response.body", "body": failure.body})
    return Outcome(failure.status, "error")


async def deliver_plain(
    client: Client,
    behaviour: Behaviour,
    body: bytes,
    *,
    number: int,
    prompt_tokens: int,
    tokens: int,
    words: int,
) -> Outcome:
    """Send a plain answer with its waits and faults.

    `tokens` are the completion tokens and `words` the words of the whole answer. A broken
    delivery counts no words as sent, because the client cannot use half a JSON object.
    """
    directives, fault = behaviour.directives, behaviour.fault
    if fault in ("error-midstream", "error-usage"):
        return await send_failure(client, planned("500", directives.retry_after), number=number)
    gone = Outcome(None, "client_gone", prompt_tokens, tokens, 0)
    wait = behaviour.pace * words + (directives.first if fault == "first-token-slow" else 0)
    if wait > 0:
        client.watch()
        if not await client.pause(wait):
            return gone
    if client.left():
        return gone
    if fault in ("badjson", "truncated"):
        body = body[: len(body) // 2]
    if fault not in ("cut", "stall"):
        await send_body(client, body, number=number)
        return Outcome(200, "done", prompt_tokens, tokens, words)
    headers = headers_for(JSON_TYPE, number)
    headers.append((b"content-length", b"%d" % len(body)))
    half = len(body) // 2
    client.watch()
    await client.send({"type": "http.response.start", "status": 200, "headers": headers})
    await client.send({"type": "http.response.body", "body": body[:half], "more_body": True})
    if fault == "cut":
        await client.hang_up()
        return Outcome(200, "cut", prompt_tokens, tokens, 0)
    if not await client.pause(directives.stall):
        return Outcome(200, "client_gone", prompt_tokens, tokens, 0)
    await client.send({"type": "http.response.body", "body": body[half:]})
    return Outcome(200, "done", prompt_tokens, tokens, words)


async def deliver_bytes(
    client: Client, behaviour: Behaviour, content_type: bytes, pieces: list[bytes], *, number: int
) -> Outcome:
    """Send bytes piece by piece at their pace. Cut, stall and truncated strike after half of them, or after
    as many as directed."""
    directives, fault = behaviour.directives, behaviour.fault
    at = -1
    if fault in ("cut", "stall", "truncated", "error-midstream", "error-usage"):
        at = len(pieces) // 2 if directives.after is None else min(directives.after, len(pieces))
    client.watch()
    headers = headers_for(content_type, number)
    await client.send({"type": "http.response.start", "status": 200, "headers": headers})
    for place, piece in enumerate(pieces):
        if place == at and fault == "stall":
            if not await client.pause(directives.stall):
                return Outcome(200, "client_gone", place, 0, place)
        elif place == at:
            await client.hang_up()
            return Outcome(200, "cut", place, 0, place)
        if not await client.pause(behaviour.pace):
            return Outcome(200, "client_gone", place, 0, place)
        await client.send({"type": "http.response.body", "body": piece, "more_body": True})
    await client.send({"type": "http.response.body", "body": b""})
    return Outcome(200, "done", len(pieces), 0, len(pieces))


async def deliver_chat(
    client: Client, prompt: ChatPrompt, reply: Reply, *, number: int, created: int
) -> Outcome:
    """Send a chat answer the way it was asked for."""
    if prompt.stream:
        return await _Stream(client, prompt, reply, created).deliver(number)
    return await deliver_plain(
        client,
        prompt.behaviour,
        orjson.dumps(plain_body(prompt, reply, created)),
        number=number,
        prompt_tokens=prompt.words,
        tokens=reply.usage["completion_tokens"],
        words=sum(choice.words for choice in reply.choices),
    )


class _Stream:
    """One streamed chat answer."""

    def __init__(self, client: Client, prompt: ChatPrompt, reply: Reply, created: int) -> None:
        self.client = client
        self.prompt = prompt
        self.reply = reply
        self.fault = prompt.behaviour.fault
        self.words = 0
        self.reasoning = 0
        shared = orjson.dumps(
            {
                "id": reply.identity,
                "object": "chat.completion.chunk",
                "created": created,
                "model": prompt.model,
                "service_tier": "default",
                "system_fingerprint": FINGERPRINT,
            }
        )
        self.head = b"data: " + shared[:-1] + b',"choices":['
        self.usage = prompt.include_usage and self.fault != "nousage"
        self.tail = b'],"usage":null}\n\n' if self.usage else b"]}\n\n"

    def chunk(self, index: int, delta: bytes, finish: bytes = b"null") -> bytes:
        """One event with one choice; `delta` and `finish` are JSON."""
        choice = b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}' % (index, delta, finish)
        return self.head + choice + self.tail

    def outcome(self, end: str) -> Outcome:
        """The outcome so far: what was sent is what counts."""
        return Outcome(200, end, self.prompt.words, self.words + self.reasoning, self.words)

    async def write(self, body: bytes, *, more: bool = True) -> None:
        await self.client.send({"type": "http.response.body", "body": body, "more_body": more})

    async def deliver(self, number: int) -> Outcome:
        client, behaviour = self.client, self.prompt.behaviour
        client.watch()
        await client.send(
            {"type": "http.response.start", "status": 200, "headers": headers_for(EVENTS_TYPE, number)}
        )
        if self.fault == "first-token-slow":
            await self.write(b"")  # the headers go out; the first chunk waits
            if not await client.pause(behaviour.directives.first):
                return self.outcome("client_gone")
        for index, choice in enumerate(self.reply.choices):
            await self.write(self.chunk(index, choice.opening))
            self.reasoning += choice.reasoning
        ended = await self.pieces()
        if ended is not None:
            return ended
        for index, choice in enumerate(self.reply.choices):
            await self.write(self.chunk(index, b"{}", b'"%b"' % choice.finish.encode()))
        if self.usage:
            usage = orjson.dumps(self.reply.usage)
            await self.write(self.head + b'],"usage":' + usage + b"}\n\n")
        await self.write(b"" if self.fault == "nodone" else DONE, more=False)
        return self.outcome("done")

    async def pieces(self) -> Outcome | None:
        """Send the pieces one by one; an Outcome when the answer ended on the way."""
        behaviour, client = self.prompt.behaviour, self.client
        pieces = _in_turn(self.reply)
        at = _fault_place(self.fault, behaviour.directives.after, len(pieces))
        for place, piece in enumerate(pieces):
            if place == at:
                ended = await self.strike()
                if ended is not None:
                    return ended
            if not await client.pause(behaviour.pace):
                return self.outcome("client_gone")
            await self.write(self.chunk(piece.choice, piece.delta))
            self.words += piece.words
        if at == len(pieces):
            return await self.strike()
        return None

    async def strike(self) -> Outcome | None:
        """Show the fault in the middle of the stream. None when the stream then goes on."""
        if self.fault == "cut":
            await self.client.hang_up()
            return self.outcome("cut")
        if self.fault == "truncated":
            await self.write(b"", more=False)
            return self.outcome("truncated")
        if self.fault in ("error-midstream", "error-usage"):
            error = error_object(SERVER_ERROR, "server_error", None, None)
            if self.fault == "error-usage":
                sent = self.words + self.reasoning
                error["usage"] = {**self.reply.usage, "completion_tokens": sent}
                error["usage"]["total_tokens"] = self.prompt.words + sent
            event = orjson.dumps(error)
            await self.write(b"data: " + event + b"\n\n", more=False)
            return self.outcome("error_midstream")
        if self.fault == "badjson":
            await self.write(self.head[: len(self.head) // 2] + b"\n\n")
        elif self.fault == "stall" and not await self.client.pause(self.prompt.behaviour.directives.stall):
            return self.outcome("client_gone")
        return None


def _fault_place(fault: str | None, after: int | None, total: int) -> int:
    """Before which piece a fault strikes; -1 for none. Cut: two thirds, others: half."""
    if fault not in ("cut", "truncated", "stall", "badjson", "error-midstream", "error-usage"):
        return -1
    if after is not None:
        return min(after, total)
    return total * 2 // 3 if fault == "cut" else total // 2


def _in_turn(reply: Reply) -> list[Piece]:
    """The pieces of all choices: the first of each, then the second of each, and so on."""
    if len(reply.choices) == 1:
        return list(reply.choices[0].pieces)
    longest = max(len(choice.pieces) for choice in reply.choices)
    return [
        choice.pieces[place]
        for place in range(longest)
        for choice in reply.choices
        if place < len(choice.pieces)
    ]
