"""A small OpenID Connect provider over real HTTP, which can also be told to lie."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, SECRET = "weir:console", "a secret/with+signs"


@cache
def _key() -> rsa.RSAPrivateKey:
    """A key takes a tenth of a second to make, so all providers of a run have the same."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class LittleProvider:
    """Signs in, without asking, whoever ``person`` describes.

    ``claims`` replace or (None) remove claims of the id_token, ``document`` those of the discovery
    document; ``told`` is what userinfo says; ``signer`` and ``algorithm`` sign. ``asks`` makes the
    authorization endpoint a page with a link instead of a redirect.
    """

    def __init__(self) -> None:
        self.person: dict[str, Any] = {
            "sub": "u-1",
            "email": "ann@acme.example",
            "email_verified": True,
            "name": "Ann Archer",
        }
        self.claims: dict[str, Any] = {}
        self.document: dict[str, Any] = {}
        self.told: dict[str, Any] | None = None
        self.key = _key()
        self.signer: Any = self.key
        self.algorithm = "RS256"
        self.asks = False
        self.status = 200
        self.paths: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        played = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                played.paths.append(urlsplit(self.path).path)
                played.get(self)

            def do_POST(self) -> None:
                played.paths.append(urlsplit(self.path).path)
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                played.token(self, form)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realm"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        known = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }
        return {name: value for name, value in (known | self.document).items() if value is not None}

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        """Discovery, keys, userinfo, and the page on which a person would sign in."""
        path = urlsplit(handler.path).path.removeprefix("/realm")
        if path == "/.well-known/openid-configuration":
            answer(handler, self.discovery(), self.status)
        elif path == "/keys":
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
            answer(handler, {"keys": [{**public, "kid": "k1", "use": "sig"}]})
        elif path == "/userinfo":
            answer(handler, self.told or self.person)
        elif path == "/authorize":
            there = self.authorize(handler.path)
            if self.asks:
                body = f"<html lang=en><title>Acme</title><a href='{there}'>I am {self.person['email']}</a></html>"
                handler.send_response(200)
                handler.send_header("Content-Type", "text/html")
                handler.end_headers()
                handler.wfile.write(body.replace("&", "&amp;").encode())
            else:
                handler.send_response(302)
                handler.send_header("Location", there)
                handler.end_headers()
        elif path == "/favicon.ico":
            # Browsers ask for it by themselves.
            handler.send_response(204)
            handler.end_headers()
        else:
            answer(handler, {}, 404)

    def authorize(self, url: str) -> str:
        """Where the authorization endpoint leads the browser that came to ``url``."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert set(asked["scope"].split()) == {"openid", "email", "profile"}
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, handler: BaseHTTPRequestHandler, form: Mapping[str, str]) -> None:
        """The token endpoint: takes a code once, from its client, with its verifier."""
        asked = self._codes.pop(form.get("code", ""), None)
        pair = f"{form.get('client_id')}:{form.get('client_secret')}"
        if (given := handler.headers.get("Authorization", "")).startswith("Basic "):
            pair = ":".join(map(unquote, base64.b64decode(given[6:]).decode().split(":")))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or pair != f"{CLIENT_ID}:{SECRET}"
            or form.get("redirect_uri") != asked["redirect_uri"]
            or base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]
        ):
            answer(handler, {"error": "invalid_grant"}, 400)
            return
        id_token = self.signed(asked["nonce"])
        answer(handler, {"access_token": "at", "token_type": "Bearer", "id_token": id_token})

    def signed(self, nonce: str) -> str:
        """An id_token."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            **self.person,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.signer, self.algorithm, headers={"kid": "k1"})


def answer(handler: BaseHTTPRequestHandler, content: Any, status: int = 200) -> None:
    """Send ``content`` as JSON."""
    body = json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
