"""Fakes of what takes a form: pictures to edit, and sound to be written down. Files are not kept."""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from routing.simulator.connection import Receive
from routing.simulator.failures import invalid
from routing.simulator.media import Made, draw
from routing.simulator.prompt import count_words

# As much of a file as is looked at, bytes of a second of sound that says nothing of itself, most words.
HEAD, SECOND, WORDS = 4096, 16_000, 100
PICTURE_TOKENS = 10


@dataclass(frozen=True, slots=True)
class Told:
    """An answer that is text."""

    text: bytes
    prompt_tokens: int
    tokens: int


async def read_form(receive: Receive, headers: dict[bytes, bytes]) -> dict[str, Any] | None:
    """The fields of a form as text, its files as ``{"size": bytes, "head": first bytes}``; None if the client
    left. Raises SimulatedError (400)."""
    _, options = parse_options_header(headers.get(b"content-type", b""))
    found: dict[str, Any] = {}
    header: dict[bytes, bytes] = {}
    names: dict[str, Any] = {"field": b"", "value": b"", "name": "", "file": False}

    def on_header() -> None:
        header[names["field"].lower()] = names["value"]
        names.update(field=b"", value=b"")

    def on_headers() -> None:
        _, about = parse_options_header(header.get(b"content-disposition", b""))
        header.clear()
        names.update(name=about.get(b"name", b"").decode(), file=b"filename" in about)
        if names["file"]:
            found.setdefault(names["name"], []).append({"size": 0, "head": b""})
        else:
            found[names["name"]] = ""

    def on_data(data: bytes, start: int, end: int) -> None:
        if not names["file"]:
            found[names["name"]] += data[start:end].decode("utf-8", "replace")
            return
        file = found[names["name"]][-1]
        file["size"] += end - start
        if len(file["head"]) < HEAD:
            file["head"] += data[start:end][:HEAD]

    def on_field(data: bytes, start: int, end: int) -> None:
        names["field"] += data[start:end]

    def on_value(data: bytes, start: int, end: int) -> None:
        names["value"] += data[start:end]

    try:
        parser = MultipartParser(
            options.get(b"boundary", b"none"),
            {
                "on_header_field": on_field,
                "on_header_value": on_value,
                "on_header_end": on_header,
                "on_headers_finished": on_headers,
                "on_part_data": on_data,
            },
        )
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parser.write(message.get("body", b""))
            if not message.get("more_body", False):
                return found
    except MultipartParseError:
        raise invalid("Could not parse multipart form.") from None


def _one(body: dict[str, Any], name: str) -> dict[str, Any]:
    files = body.get(name)
    if not isinstance(files, list) or not files or not files[0]["size"]:
        raise invalid(f"Missing required parameter: '{name}'.", param=name)
    file: dict[str, Any] = files[0]
    return file


def seconds_of(file: dict[str, Any]) -> float:
    """How long a file plays: by a plain WAV header, else by its size."""
    head = file["head"]
    if head[:4] == b"RIFF" and head[36:40] == b"data":
        rate, data = struct.unpack_from("<I", head, 28)[0], struct.unpack_from("<I", head, 40)[0]
        return float(data / rate)
    return float(-(-file["size"] // SECOND))


def write_down(body: dict[str, Any], model: str) -> Made | Told:  # noqa: ARG001  # one signature for all
    """A word for each second, up to WORDS."""
    file = _one(body, "file")
    seconds = seconds_of(file)
    words = max(1, min(round(seconds), WORDS))
    text = " ".join(["[simulated]", *["word"] * (words - 1)])
    prompt = count_words(body.get("prompt", ""))
    form = body.get("response_format", "json")
    if form in ("text", "srt", "vtt"):
        return Told(text.encode() + b"\n", prompt, words)
    answer: dict[str, Any] = {"text": text, "usage": {"type": "duration", "seconds": seconds}}
    if form == "verbose_json":
        answer |= {"task": "transcribe", "language": "english", "duration": seconds, "segments": []}
    elif form != "json":
        raise invalid("Invalid 'response_format'.", param="response_format")
    return Made(answer, prompt, words)


def edit(body: dict[str, Any], model: str) -> Made:
    """As many pictures as asked for; each picture that came counts PICTURE_TOKENS."""
    name = "image" if "image" in body else "image[]"
    _one(body, name)
    count = body.get("n", "1")
    if not re.fullmatch(r"[0-9]{1,2}", count):
        raise invalid("Invalid 'n': expected 1 to 10.", param="n")
    asked = {key: value for key, value in body.items() if isinstance(value, str)}
    made = draw({**asked, "n": int(count)}, model)
    usage, seen = made.answer["usage"], PICTURE_TOKENS * len(body[name])
    usage["input_tokens_details"]["image_tokens"] = seen
    usage["input_tokens"] += seen
    usage["total_tokens"] += seen
    return Made(made.answer, made.prompt_tokens + seen, made.tokens)


# By address: what makes the answer, and the field that holds directives.
FORMS: dict[str, tuple[Callable[[dict[str, Any], str], Made | Told], str]] = {
    "/v1/images/edits": (edit, "prompt"),
    "/v1/audio/transcriptions": (write_down, "prompt"),
    "/v1/audio/translations": (write_down, "prompt"),
}
