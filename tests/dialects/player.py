"""A provider that answers with recorded bytes: the path of the request names the recording."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Recordings are sent in pieces of so many bytes: events, lines and letters are cut anywhere.
PIECE = 13


@dataclass(frozen=True)
class Recording:
    """A response: its bytes, without HTTP's own framing."""

    raw: bytes
    status: int = 200
    content_type: str = "text/event-stream"
    # Seconds between the last byte and the end of the response.
    linger: float = 0
    # What is played from the second time on; empty: the same.
    again: bytes = b""
    # The end of a path that is not there, and what is answered for it; empty: every path is.
    missing: str = ""
    instead: tuple[int, bytes] = (404, b'{"detail":"Not Found"}')


@dataclass
class Player:
    """A running player. ``asked`` has the last request body for each recording, ``paths`` its address."""

    url: str
    recordings: dict[str, Recording]
    asked: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)

    def base_url(self, name: str) -> str:
        """The base URL of a provider that plays the recording ``name``."""
        return f"{self.url}/{name}/v1"


@contextmanager
def running_player(recordings: dict[str, Recording]) -> Iterator[Player]:
    """Serve the recordings until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            name = self.path.split("/")[1]
            recording = player.recordings[name]
            raw = recording.again or recording.raw if name in player.asked else recording.raw
            player.asked[name] = json.loads(body) if body.startswith(b"{") else body
            player.paths[name] = self.path
            status = recording.status
            if recording.missing and self.path.endswith(recording.missing):
                status, raw = recording.instead
            self.send_response(status)
            if recording.content_type:
                self.send_header("content-type", recording.content_type)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for at in range(0, len(raw), PIECE):
                piece = raw[at : at + PIECE]
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            time.sleep(recording.linger)
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    player = Player(f"http://127.0.0.1:{server.server_address[1]}", recordings)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield player
    finally:
        server.shutdown()
        server.server_close()
