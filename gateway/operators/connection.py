"""Does a provider answer to its credentials? One real request for its list of models with each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from routing.dialects import dialect
from routing.models import Provider
from routing.services.providers import stored_secrets

# However long the provider's own timeouts are: a person waits for this.
LONGEST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one request. ``said`` never quotes the provider, whose errors may quote a secret."""

    credential: str
    good: bool
    said: str
    milliseconds: int
    models: frozenset[str] = frozenset()


def try_connection(provider: Provider) -> list[Trial]:
    """One request with each credential of ``provider``, or one without where it has none."""
    labels = [str(each) for each in provider.credentials.order_by("pk")]
    timeout = httpx.Timeout(LONGEST_SECONDS, connect=min(provider.connect_timeout, LONGEST_SECONDS))
    with httpx.Client(timeout=timeout, follow_redirects=False) as client:
        secrets = list(zip(labels, stored_secrets(provider), strict=True))
        if not secrets:
            return [_try(client, provider, "none", "")]
        return [
            Trial(label, False, "It cannot be decrypted with CREDENTIAL_KEYS.", 0)
            if secret is None
            else _try(client, provider, label, secret)
            for label, secret in secrets
        ]


def _try(client: httpx.Client, provider: Provider, label: str, secret: str) -> Trial:
    headers = dialect(provider.kind, provider.base_url.rstrip("/")).headers(secret, f"test-{uuid4().hex}")
    address = httpx.URL(provider.base_url)
    path = address.path.rstrip("/")
    if "api-version" in address.params and not path.endswith("/openai"):
        # An Azure resource lists its models beside its deployments.
        path = f"{path.partition('/openai')[0]}/openai"
    address = address.copy_with(path=f"{path}/models")
    began = time.monotonic()
    try:
        response = client.get(address, headers=headers)
        taken = round((time.monotonic() - began) * 1000)
        models = frozenset(_models(response)) if response.is_success else frozenset[str]()
    except httpx.TimeoutException:
        return Trial(label, False, "No answer in time.", round((time.monotonic() - began) * 1000))
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        # Only the kind: a message may quote what was sent.
        return Trial(
            label, False, f"No connection ({type(error).__name__}).", round((time.monotonic() - began) * 1000)
        )
    if response.is_success:
        return Trial(label, True, f"Answered {response.status_code}.", taken, models)
    words = {401: "the credential is refused", 403: "the credential is refused", 429: "its rate limit"}
    why = words.get(response.status_code, "see the provider's status")
    return Trial(label, False, f"Answered {response.status_code}: {why}.", taken)


def _models(response: httpx.Response) -> Iterable[str]:
    """The names in a list of models, as OpenAI (``data``) and Gemini (``models``) write it."""
    try:
        body: Any = response.json()
    except ValueError:
        return
    found = body.get("data") or body.get("models") if isinstance(body, dict) else None
    for entry in found if isinstance(found, list) else ():
        name = (entry.get("id") or entry.get("name")) if isinstance(entry, dict) else None
        if isinstance(name, str):
            yield name.removeprefix("models/")
