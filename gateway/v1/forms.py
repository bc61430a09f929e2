"""A multipart body: its fields in memory, its files on disk, whatever their order.

Files are never held in memory as a whole: what is read goes to a temporary file without a name (in
UPLOAD_DIR), from where it is sent to a provider, and again to the next one if that fails.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from hashlib import blake2b
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final, cast

from django.conf import settings
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.v1.capacity import Hold
from gateway.v1.errors import BodyTooLarge, InvalidRequest

# Files up to this many bytes together stay in memory; larger ones are written and read in such pieces.
IN_MEMORY: Final = 256 * 1024
# Of all fields that are no files, together, and of parts.
MOST_FIELD_BYTES: Final = 1024 * 1024
MOST_PARTS: Final = 256
_QUOTED: Final = {'"': "%22", "\r": "%0D", "\n": "%0A"}
_TYPE: Final = re.compile(
    r"[\w!#$&^.+-]{1,60}/[\w!#$&^.+-]{1,60}(?:; ?[\w.+-]{1,40}=[\w.+\"-]{1,60}){0,4}", re.ASCII
)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


@dataclass(slots=True)
class Part:
    """One part. A file (``filename`` is not None) lies at ``start`` of the form's file, ``size`` bytes long;
    any other part has its ``value``."""

    name: str
    filename: str | None = None
    content_type: str = ""
    value: bytes = b""
    start: int = 0
    size: int = 0


class Form:
    """The parts of a body. ``close`` it when the request is over. One provider at a time reads it."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.size = 0
        self._digest = blake2b(digest_size=32)
        spool = SpooledTemporaryFile(IN_MEMORY, dir=str(settings.UPLOAD_DIR))  # noqa: SIM115  # until close()
        self._file = cast("IO[bytes]", spool)

    def close(self) -> None:
        """Forget the files."""
        self._file.close()

    def digest(self) -> bytes:
        """Equal for forms with the same parts, whatever their boundaries."""
        return self._digest.digest()

    def fields(self) -> dict[str, Any]:
        """The values of the parts that are no files, as text; of several with one name, the last."""
        return {
            part.name: part.value.decode("utf-8", "replace") for part in self.parts if part.filename is None
        }

    def files(self, *names: str) -> list[Part]:
        """The files of these names."""
        return [part for part in self.parts if part.filename is not None and part.name in names]

    def head(self, part: Part, size: int) -> bytes:
        """The first bytes of a file."""
        self._file.seek(part.start)
        return self._file.read(min(size, part.size))

    def posted(self, model: str) -> Posted:
        """The form as it is sent to a provider, with the provider's name of the model."""
        return Posted(self, model)

    # --- reading ---------------------------------------------------------------------------------

    def begin(self, part: Part) -> None:
        """A part begins."""
        part.start = self.size
        self.parts.append(part)
        for text in (part.name, part.filename or ""):
            raw = text.encode()
            self._digest.update(len(raw).to_bytes(8, "big") + raw)

    def more(self, piece: bytes) -> None:
        """Bytes of the part that began last."""
        part = self.parts[-1]
        part.size += len(piece)
        self._digest.update(piece)
        if part.filename is None:
            part.value += piece
        else:
            self.size += len(piece)

    def end(self) -> None:
        """The part that began last ends."""
        self._digest.update(b"end" + self.parts[-1].size.to_bytes(8, "big"))

    async def write(self, pieces: list[bytes]) -> None:
        """Put bytes of files behind those that are there."""
        await asyncio.to_thread(self._file.write, b"".join(pieces))

    async def read(self, start: int, size: int) -> bytes:
        """Bytes of files."""

        def at() -> bytes:
            self._file.seek(start)
            return self._file.read(size)

        return await asyncio.to_thread(at)


class Posted:
    """A form on its way to a provider."""

    def __init__(self, form: Form, model: str) -> None:
        self._form = form
        boundary = f"weir-{secrets.token_hex(16)}"
        self.content_type = f"multipart/form-data; boundary={boundary}"
        parts = [Part("model", value=model.encode()), *(p for p in form.parts if p.name != "model")]
        self._parts = [(_opening(boundary, part), part) for part in parts]
        self._closing = f"--{boundary}--\r\n".encode()
        self.size = len(self._closing) + sum(
            len(opening) + (len(part.value) if part.filename is None else part.size) + 2
            for opening, part in self._parts
        )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes of the body, in pieces."""
        for opening, part in self._parts:
            if part.filename is None:
                yield opening + part.value + b"\r\n"
                continue
            yield opening
            done = 0
            while done < part.size:
                piece = await self._form.read(part.start + done, min(IN_MEMORY, part.size - done))
                done += len(piece)
                yield piece
            yield b"\r\n"
        yield self._closing


def _opening(boundary: str, part: Part) -> bytes:
    lines = [f"--{boundary}", f'Content-Disposition: form-data; name="{_quoted(part.name)}"']
    if part.filename is not None:
        lines[1] += f'; filename="{_quoted(part.filename)}"'
        kind = part.content_type if _TYPE.fullmatch(part.content_type) else "application/octet-stream"
        lines.append(f"Content-Type: {kind}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _quoted(text: str) -> str:
    return re.sub(r'["\r\n]', lambda found: _QUOTED[found.group()], text)


class _Reader:
    """Takes the parser's callbacks."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.pending: list[bytes] = []
        self.waiting = 0
        self.ended = False
        self._field, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._fields = 0

    def callbacks(self) -> Any:
        """By the names that python-multipart gives them."""
        return {
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self.form.end,
            "on_end": self._on_end,
        }

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _on_headers(self) -> None:
        headers, self._headers = self._headers, {}
        _, options = parse_options_header(headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None or len(self.form.parts) >= MOST_PARTS:
            raise _malformed()
        filename = options.get(b"filename")
        kind = headers.get(b"content-type", b"").decode("latin-1")
        shown = None if filename is None else filename.decode("utf-8", "replace")
        self.form.begin(Part(name.decode("utf-8", "replace"), shown, kind))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        self.form.more(piece)
        if self.form.parts[-1].filename is None:
            self._fields += len(piece)
            if self._fields > MOST_FIELD_BYTES:
                raise BodyTooLarge(f"The fields of the form are larger than {MOST_FIELD_BYTES} bytes.")
        else:
            self.pending.append(piece)
            self.waiting += len(piece)

    def _on_end(self) -> None:
        self.ended = True


async def read_form(receive: Receive, headers: dict[bytes, bytes], hold: Hold) -> Form | None:
    """The form of a request; None if the client left before it was whole. The caller closes it.

    Raises InvalidRequest, BodyTooLarge, or Unavailable where the worker has no room on its disk.
    """
    kind, options = parse_options_header(headers.get(b"content-type", b""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest(
            "The request must be multipart/form-data with a boundary.", code="invalid_content_type"
        )
    limit: int = settings.MAX_UPLOAD_BYTES
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge(f"The request body is larger than {limit} bytes.")
    await asyncio.to_thread(os.makedirs, settings.UPLOAD_DIR, 0o700, exist_ok=True)
    form = Form()
    try:
        if await _fill(
            form, receive, MultipartParser(boundary, (reader := _Reader(form)).callbacks()), reader, hold
        ):
            return form
    except BaseException:
        form.close()
        raise
    form.close()
    return None


async def _fill(form: Form, receive: Receive, parser: MultipartParser, reader: _Reader, hold: Hold) -> bool:
    """Read it all; False if the client left."""
    limit: int = settings.MAX_UPLOAD_BYTES
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise BodyTooLarge(f"The request body is larger than {limit} bytes.")
        hold.spool(size)
        try:
            parser.write(piece)
        except MultipartParseError:
            raise _malformed() from None
        more = message.get("more_body", False)
        if reader.pending and (reader.waiting >= IN_MEMORY or not more):
            await form.write(reader.pending)
            reader.pending, reader.waiting = [], 0
        if not more:
            break
    if not reader.ended:
        raise _malformed()
    return True


def _malformed() -> InvalidRequest:
    return InvalidRequest("The request body is not a valid multipart form.", code="invalid_form")
