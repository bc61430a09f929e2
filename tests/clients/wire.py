"""A provider of every kind at once, as each is on the wire (provider-quirks.md 0.1-0.7): ``/KIND/...`` is its address.

It says the same whichever kind it plays: what the last word of the request asks for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from routing.kinds import KINDS
from tests.dialects.anthropic_corpus import block, delta, end, events, start, stop
from tests.dialects.native_corpus import begun, called, counted, message, response, stream

TEXT = "Hellö 🌍"
CITY = '{"city": "Zürich"}'
# What a request says to be answered with text, with an object, with a call of the tool `weather`.
SAY_TEXT, SAY_CITY, SAY_CALL = "say text", "say city", "say call"
PROMPT, COMPLETION = 12, 5
# Bytes are sent in pieces of so many, so that events, lines and letters are cut anywhere.
PIECE = 29
USAGE: dict[str, Any] = {
    "prompt_tokens": PROMPT,
    "completion_tokens": COMPLETION,
    "total_tokens": PROMPT + COMPLETION,
}
# xAI counts thinking beside the completion.
XAI_USAGE: dict[str, Any] = {
    "prompt_tokens": PROMPT,
    "completion_tokens": 1,
    "total_tokens": PROMPT + COMPLETION,
    "completion_tokens_details": {"reasoning_tokens": 4},
}


@dataclass(frozen=True)
class Wire:
    """How a kind that is like OpenAI writes its answers."""

    # The first delta; None: the role comes with the first content.
    first: dict[str, Any] | None = None
    role: str = "once"  # once, always, never
    # Where usage is: last, finish, choice, after, groq.
    usage: str = "finish"
    counts: dict[str, Any] = field(default_factory=lambda: USAGE)
    # Members of every chunk, of every delta, and of every choice.
    chunk: dict[str, Any] = field(default_factory=dict)
    delta: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=lambda: {"finish_reason": None})
    # Words for the ends.
    stop: str = "stop"
    before: bytes = b""
    # Whether a call comes in one piece, and members that its pieces lack or repeat.
    whole_call: bool = False
    bare_call: bool = False
    later: dict[str, Any] = field(default_factory=dict)
    named: bool = True
    call_id: str = "call_a"


_ROLE = {"role": "assistant", "content": ""}
_THINKS = {"role": "assistant", "content": None, "reasoning_content": ""}
_NULLS = {"role": None, "content": None, "reasoning_content": None, "tool_calls": None}
_FILTERED = (
    b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":'
    b'[{"prompt_index":0,"content_filter_results":{}}]}\n\n'
)
WIRES = {
    "openai": Wire({**_ROLE, "refusal": None}, usage="last", chunk={"usage": None, "obfuscation": "x"}),
    "simulator": Wire(_ROLE, usage="last"),
    "azure": Wire(
        _ROLE,
        usage="last",
        chunk={"usage": None, "obfuscation": "x"},
        choice={"finish_reason": None, "content_filter_results": {}},
        before=_FILTERED,
    ),
    "deepseek": Wire(_THINKS, chunk={"usage": None}, before=b": keep-alive\n\n"),
    "qwen": Wire(_THINKS, usage="last", chunk={"usage": None}, later={"id": ""}),
    "moonshot": Wire(usage="choice"),
    "zhipu": Wire(role="always", choice={}),
    "doubao": Wire(delta={"reasoning_content": ""}, role="always", usage="last"),
    "minimax": Wire(role="never", usage="after", chunk={"usage": {"total_tokens": 0, "total_characters": 0}}),
    "mistral": Wire(_ROLE, whole_call=True, bare_call=True, call_id="abcdefghi"),
    "groq": Wire(_ROLE, usage="groq", delta={"channel": "final"}, whole_call=True),
    "together": Wire(
        role="always", stop="eos", chunk={"usage": None}, choice={"text": "", "finish_reason": None}
    ),
    "fireworks": Wire(_ROLE, choice={"finish_reason": ""}),
    "xai": Wire(usage="last", counts=XAI_USAGE, choice={}, whole_call=True),
    "openrouter": Wire(
        role="always", usage="after", chunk={"provider": "X"}, before=b": OPENROUTER PROCESSING\n\n" * 2
    ),
    "vllm": Wire(_ROLE, usage="last", choice={"finish_reason": None, "stop_reason": None, "token_ids": None}),
    "sglang": Wire(_ROLE, usage="last", delta=_NULLS, choice={"finish_reason": None, "matched_stop": None}),
    "ollama": Wire(role="always", usage="last", whole_call=True),
    "llamacpp": Wire({"role": "assistant", "content": None}, usage="last", chunk={"timings": {}}),
    "lmstudio": Wire(_ROLE, usage="last"),
    "generic": Wire(role="never", named=False),
}


def chat(wire: Wire, word: str) -> bytes:
    """A plain chat completion."""
    said: dict[str, Any] = {"role": "assistant", "content": CITY if word == SAY_CITY else TEXT}
    if word == SAY_CALL:
        said = {"role": "assistant", "content": None, "tool_calls": [_call(wire, CITY)]}
    choice = {**wire.choice, "index": 0, "message": said, "finish_reason": _finish(wire, word)}
    named = {"id": "c1", "created": 1762317021, "model": "m"} if wire.named else {}
    answer = {**named, "object": "chat.completion", "choices": [choice], "usage": wire.counts}
    blanks = b"\n\n\n" if wire.before.startswith(b":") else b""
    return blanks + json.dumps(answer).encode()


def chat_stream(wire: Wire, word: str) -> bytes:
    """The same as a stream."""
    named = {"id": "c1", "created": 1762317021, "model": "m"} if wire.named else {}
    top = {**named, "object": "chat.completion.chunk", **wire.chunk}
    written = [wire.before]

    def write(change: dict[str, Any] | None, finish: str | None = None, **more: Any) -> None:
        choices = []
        if change is not None:
            role = {"role": "assistant"} if wire.role == "always" else {}
            choice = {"index": 0, "delta": {**wire.delta, **role, **change}, **wire.choice}
            choices = [{**choice, **({"finish_reason": finish} if finish else {}), **more.pop("inner", {})}]
        made = {**top, "choices": choices, **more}
        written.append(b"data: " + json.dumps(made, ensure_ascii=False).encode() + b"\n\n")

    deltas = _deltas(wire, word)
    if wire.first is not None:
        write(wire.first)
    elif wire.role == "once":
        deltas[0] = {"role": "assistant", **deltas[0]}
    for change in deltas:
        write(change)
    finish = _finish(wire, word)
    match wire.usage:
        case "finish":
            write({}, finish, usage=wire.counts)
        case "choice":
            write({}, finish, inner={"usage": wire.counts})
        case "groq":
            write({}, finish, x_groq={"id": "req_1", "usage": wire.counts})
        case "after":
            write({}, finish)
            write({}, finish if wire.role == "always" else None, usage=wire.counts)
        case _:
            write({}, finish)
            write(None, usage=wire.counts)
    return b"".join(written) + b"data: [DONE]\n\n"


def _deltas(wire: Wire, word: str) -> list[dict[str, Any]]:
    if word != SAY_CALL:
        text = CITY if word == SAY_CITY else TEXT
        return [{"content": text[:4]}, {"content": text[4:]}]
    if wire.whole_call:
        return [{"tool_calls": [_call(wire, CITY)]}]
    first = {"index": 0, **_call(wire, "")}
    rest = [
        {"tool_calls": [{"index": 0, **wire.later, "function": {"arguments": part}}]}
        for part in (CITY[:12], CITY[12:])
    ]
    return [{"tool_calls": [first]}, *rest]


def _call(wire: Wire, arguments: str) -> dict[str, Any]:
    bare = {"id": wire.call_id, "function": {"name": "weather", "arguments": arguments}}
    return bare if wire.bare_call else {"index": 0, "type": "function", **bare}


def _finish(wire: Wire, word: str) -> str:
    return "tool_calls" if word == SAY_CALL else wire.stop


def messages(word: str, *, streamed: bool) -> bytes:
    """Anthropic's answer."""
    usage = {"input_tokens": PROMPT, "output_tokens": COMPLETION}
    text = CITY if word == SAY_CITY else TEXT
    called_ = word == SAY_CALL
    if not streamed:
        content: dict[str, Any] = {"type": "text", "text": text}
        if called_:
            content = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": json.loads(CITY)}
        whole = start()["message"] | {"content": [content], "usage": usage}
        return json.dumps(whole | {"stop_reason": "tool_use" if called_ else "end_turn"}).encode()
    if called_:
        told = [block(0, "tool_use", id="toolu_1", name="weather", input={})]
        told += [delta(0, "input_json_delta", partial_json=part) for part in ("", CITY[:12], CITY[12:])]
    else:
        told = [block(0, "text", text=""), {"type": "ping"}]
        told += [delta(0, "text_delta", text=part) for part in (text[:4], text[4:])]
    ended = end("tool_use" if called_ else "end_turn", COMPLETION)
    return events(start(input_tokens=PROMPT), *told, stop(0), *ended)


def gemini(word: str, *, streamed: bool) -> bytes:
    """Gemini's answer."""
    usage = {
        "promptTokenCount": PROMPT,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": COMPLETION - 2,
        "totalTokenCount": PROMPT + COMPLETION,
    }
    text = CITY if word == SAY_CITY else TEXT
    parts: list[Any] = [{"text": text[:4]}, {"text": text[4:]}]
    if word == SAY_CALL:
        parts = [{"functionCall": {"name": "weather", "args": json.loads(CITY)}, "thoughtSignature": "c2ln"}]

    def candidate(found: list[Any], **more: Any) -> dict[str, Any]:
        content = {"parts": found, "role": "model"}
        named = {"modelVersion": "gemini-theirs", "responseId": "r1", "usageMetadata": usage}
        return {"candidates": [{"content": content, "index": 0, **more}], **named}

    if not streamed:
        return json.dumps(candidate(parts, finishReason="STOP")).encode()
    told = [candidate([part]) for part in parts] + [candidate([{"text": ""}], finishReason="STOP")]
    return b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in told)


def responses(word: str, *, streamed: bool) -> bytes:
    """OpenAI's own response."""
    if word == SAY_CALL:
        told, item = called(0, "call_a", "weather", CITY[:12], CITY[12:])
    else:
        text = CITY if word == SAY_CITY else TEXT
        told, item = message(0, text[:4], text[4:])
    whole = response("completed", output=[item], usage=counted(PROMPT, 0, COMPLETION, 0))
    if not streamed:
        return json.dumps(whole).encode()
    return stream(*begun(), *told, {"type": "response.completed", "response": whole})


def answer(path: str, raw: bytes) -> tuple[bytes, bool]:
    """What is answered at an address, and whether that is a stream."""
    kind = path.split("/")[1]
    word = next(word for word in (SAY_CITY, SAY_CALL, SAY_TEXT) if word.encode() in raw)
    streamed = bool(json.loads(raw).get("stream")) or ":streamGenerateContent" in path
    if kind == "gemini":
        return gemini(word, streamed=streamed), streamed
    if kind == "anthropic":
        return messages(word, streamed=streamed), streamed
    if path.endswith("/responses"):
        return responses(word, streamed=streamed), streamed
    wire = WIRES[kind]
    return chat_stream(wire, word) if streamed else chat(wire, word), streamed


@contextmanager
def running_wire() -> Iterator[str]:
    """Serve every kind until the block is left; gives the address before their names."""
    assert {*WIRES, "gemini", "anthropic"} == set(KINDS)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw, streamed = answer(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream" if streamed else "application/json")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for at in range(0, len(raw), PIECE):
                piece = raw[at : at + PIECE]
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
