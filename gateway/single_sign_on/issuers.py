"""What is asked of a sign-in provider over HTTP: its discovery document, tokens, keys, and who somebody is.

OpenID Connect Core 1.0 (authorization code flow) and Discovery 1.0, with PKCE (RFC 7636). Addresses come
from an organization, so each is looked up and judged like a webhook's before it is asked.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
import jwt
import orjson

from gateway.notifications.addresses import BadAddress, resolve

TIMEOUT_SECONDS = 10.0
MOST_BYTES = 512 * 1024
# Asymmetric ones only: with a shared secret whoever knows the client's could sign for the issuer.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
# How far two clocks may be apart, in seconds.
LEEWAY = 60
DISCOVERY = "/.well-known/openid-configuration"


class IssuerError(ValueError):
    """The provider cannot be asked, or its answer cannot be trusted. The message is for people, without secrets."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What a discovery document says. ``userinfo`` may be empty."""

    issuer: str
    authorization: str
    token: str
    jwks: str
    userinfo: str
    # Whether the client's secret goes into the form rather than into the Authorization header.
    secret_in_form: bool


@dataclass(frozen=True, slots=True)
class Claims:
    """Who the provider says has signed in. ``email`` is as the provider wrote it."""

    subject: str
    email: str
    email_verified: bool
    name: str
    # When they did so, in Unix time; None if the provider does not say (Core 1.0, section 2).
    signed_in_at: float | None = None


def _ask(url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON that ``url`` answers to a GET, or to a POST of ``form``. Raises ``IssuerError``."""
    try:
        place = resolve(url)
    except BadAddress as error:
        raise IssuerError(f"{urlsplit(url).hostname or 'It'} cannot be asked. {error}") from None
    try:
        # By number, under the name that was checked; a redirect is not followed, it could lead anywhere.
        with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            request = client.build_request(
                "GET" if form is None else "POST",
                place.url,
                data=form,
                headers={"accept": "application/json", **(headers or {}), "host": place.host_header},
                extensions={"sni_hostname": place.host},
            )
            answer = client.send(request, stream=True)
            try:
                body = _read(answer, time.monotonic() + TIMEOUT_SECONDS)
            finally:
                answer.close()
    except httpx.HTTPError as error:
        raise IssuerError(f"{place.host} does not answer ({type(error).__name__}).") from None
    if not answer.is_success:
        raise IssuerError(f"{place.host} answered with status {answer.status_code}.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise IssuerError(f"{place.host} answered with something else than JSON.") from None


def _read(answer: httpx.Response, until: float) -> bytes:
    body = bytearray()
    for part in answer.iter_bytes():
        body += part
        if len(body) > MOST_BYTES or time.monotonic() > until:
            raise IssuerError("The provider's answer is too long, or takes too long.")
    return bytes(body)


def discover(issuer: str) -> Endpoints:
    """The endpoints of ``issuer``. Raises ``IssuerError``."""
    found = _ask(issuer.rstrip("/") + DISCOVERY)
    if not isinstance(found, dict):
        raise IssuerError("The provider's discovery document is no object.")
    # Discovery 1.0, section 4.3: else one provider could speak for another.
    if found.get("issuer") != issuer:
        raise IssuerError(
            f"The discovery document is of another issuer: {str(found.get('issuer', 'none'))[:200]}. "
            "Enter the issuer exactly so."
        )
    wanted = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    missing = [name for name in wanted if not isinstance(found.get(name), str)]
    if missing:
        raise IssuerError(f"The discovery document names no {', '.join(missing)}.")
    if urlsplit(found["authorization_endpoint"]).scheme not in {urlsplit(issuer).scheme, "https"}:
        raise IssuerError("The authorization endpoint must begin with https://.")
    methods = found.get("token_endpoint_auth_methods_supported") or []
    userinfo = found.get("userinfo_endpoint")
    return Endpoints(
        issuer=issuer,
        authorization=found["authorization_endpoint"],
        token=found["token_endpoint"],
        jwks=found["jwks_uri"],
        userinfo=userinfo if isinstance(userinfo, str) else "",
        secret_in_form="client_secret_post" in methods,
    )


def challenge(verifier: str) -> str:
    """The ``S256`` code challenge of ``verifier`` (RFC 7636, section 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def authorization_url(
    endpoints: Endpoints,
    *,
    client_id: str,
    redirect_uri: str,
    state: str,
    nonce: str,
    verifier: str,
    hint: str,
    most_age: int | None = None,
) -> str:
    """Where the browser goes to sign in. ``hint`` is the address that the person typed, or empty.

    With ``most_age``, in seconds, the provider is told to ask the person anew whatever session they have
    there, and to say when it did (Core 1.0, section 3.1.2.1).
    """
    asked = {
        "response_type": "code",
        "scope": "openid email profile",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge(verifier),
        "code_challenge_method": "S256",
    }
    if hint:
        asked["login_hint"] = hint
    if most_age is not None:
        asked |= {"prompt": "login", "max_age": str(most_age)}
    joint = "&" if urlsplit(endpoints.authorization).query else "?"
    return f"{endpoints.authorization}{joint}{urlencode(asked)}"


def redeem(
    endpoints: Endpoints,
    *,
    client_id: str,
    secret: str,
    code: str,
    redirect_uri: str,
    verifier: str,
    nonce: str,
) -> Claims:
    """Exchange ``code`` for tokens, and say who they are of. Raises ``IssuerError``."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    headers = {}
    if endpoints.secret_in_form:
        form |= {"client_id": client_id, "client_secret": secret}
    else:
        # RFC 6749, section 2.3.1: each half is encoded as in a form.
        pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    tokens = _ask(endpoints.token, form, headers)
    if not isinstance(tokens, dict) or not isinstance(tokens.get("id_token"), str):
        raise IssuerError("The provider gave no id_token.")
    claims = verified(tokens["id_token"], endpoints, client_id=client_id, nonce=nonce)
    if "email" not in claims and endpoints.userinfo and isinstance(tokens.get("access_token"), str):
        told = _ask(endpoints.userinfo, headers={"authorization": f"Bearer {tokens['access_token']}"})
        # Core 1.0, section 5.3.2: what is of another subject must not be used.
        if not isinstance(told, dict) or told.get("sub") != claims["sub"]:
            raise IssuerError("The provider's userinfo is of somebody else than its token.")
        claims = {**told, **claims}
    email, name, at = claims.get("email"), claims.get("name"), claims.get("auth_time")
    return Claims(
        subject=claims["sub"],
        email=email if isinstance(email, str) else "",
        # Some providers write it as text.
        email_verified=claims.get("email_verified") in (True, "true"),
        name=name[:150] if isinstance(name, str) else "",
        signed_in_at=float(at) if isinstance(at, int | float) and not isinstance(at, bool) else None,
    )


def verified(token: str, endpoints: Endpoints, *, client_id: str, nonce: str) -> dict[str, Any]:
    """The claims of an id_token that is signed by the issuer, for this client, for this sign-in, and in time.

    Core 1.0, section 3.1.3.7. Raises ``IssuerError``.
    """
    try:
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in ALGORITHMS:
            raise IssuerError("The token is signed by a method that is not taken.")
        claims: dict[str, Any] = jwt.decode(
            token,
            _key(endpoints.jwks, header),
            algorithms=[header["alg"]],
            audience=client_id,
            issuer=endpoints.issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
    except jwt.PyJWTError as error:
        raise IssuerError(f"The provider's token is not valid ({type(error).__name__}).") from None
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != client_id:
        raise IssuerError("The provider's token was given to another client.")
    if claims.get("nonce") != nonce:
        raise IssuerError("The provider's token belongs to another sign-in.")
    if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
        raise IssuerError("The provider's token names nobody.")
    return claims


def _key(jwks: str, header: Mapping[str, Any]) -> jwt.PyJWK:
    """The issuer's key that ``header`` names; without a name, its only one. Raises ``IssuerError``, ``PyJWTError``."""
    found = _ask(jwks)
    keys = found.get("keys") if isinstance(found, dict) else None
    usable = [
        key
        for key in (keys if isinstance(keys, list) else [])
        if isinstance(key, dict) and key.get("use", "sig") == "sig"
    ]
    if (name := header.get("kid")) is not None:
        usable = [key for key in usable if key.get("kid") == name]
    if len(usable) != 1:
        raise IssuerError("The provider's token is signed with none of its keys.")
    if usable[0].get("kty") not in {"RSA", "EC", "OKP"}:
        raise IssuerError("The provider's key is of a kind that is not taken.")
    return jwt.PyJWK(usable[0], algorithm=str(header["alg"]))
