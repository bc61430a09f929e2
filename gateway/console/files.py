"""Sending a file: piece by piece, whatever the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import IO, cast

from asgiref.sync import sync_to_async
from django.http import HttpResponse, StreamingHttpResponse

PIECE = 1 << 18


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """``file`` to its end, closed afterwards. Django would gather a plain iterator before sending it."""
    try:
        while piece := await sync_to_async(file.read)(PIECE):
            yield piece
    finally:
        file.close()


def sent(file: IO[bytes], size: int, *, name: str, content_type: str) -> HttpResponse:
    """A download of ``file``, of so many bytes, that the browser saves as ``name``."""
    response = StreamingHttpResponse(_pieces(file), content_type=content_type)
    response.headers["Content-Length"] = str(size)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    # Django's two kinds of response have no common type that the decorator of a view could name.
    return cast(HttpResponse, response)
