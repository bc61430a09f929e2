"""A real HTTP server that plays Stripe: opens checkouts, and signs webhooks as Stripe does."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

KEY, WEBHOOK_SECRET = "sk_test_51Hsecret", "whsec_test_secret"


class PlayedStripe:
    """``asked`` holds the form and headers of each request. ``status`` is what the next answers have."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], dict[str, str]]] = []
        self.status = 200
        played = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                played.asked.append((form, {name.lower(): value for name, value in self.headers.items()}))
                if self.path != "/v1/checkout/sessions":
                    played.status = 404
                session = f"cs_test_{form.get('client_reference_id', '')}"
                good = {
                    "id": session,
                    "object": "checkout.session",
                    "url": f"https://checkout.example/{session}",
                }
                bad = {
                    "error": {"message": f"Invalid API Key provided: {KEY}", "type": "invalid_request_error"}
                }
                body = json.dumps(good if played.status == 200 else bad).encode()
                self.send_response(played.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def event(
    reference: str, cents: int, kind: str = "checkout.session.completed", **changes: Any
) -> dict[str, Any]:
    """A webhook's body; https://docs.stripe.com/api/checkout/sessions/object."""
    session = {
        "id": f"cs_test_{reference}",
        "object": "checkout.session",
        "client_reference_id": reference,
        "amount_total": cents,
        "currency": "usd",
        "payment_status": "paid",
    } | changes
    return {"id": "evt_1", "object": "event", "type": kind, "data": {"object": session}}


def signed(body: bytes, secret: str = WEBHOOK_SECRET, at: int | None = None) -> str:
    """The header; https://docs.stripe.com/webhooks#verify-manually."""
    moment = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"
