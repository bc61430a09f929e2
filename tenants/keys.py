"""The secrets of API keys: how they are made, and the digest under which they are found.

A secret has 256 random bits, so one keyed hash protects it; a slow one would only cost time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string

from django.conf import settings

PREFIX = "sk-weir-"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_CHARACTERS = 43  # 62 ** 43 > 2 ** 256
SHORTEST_SECRET = 32
LONGEST_KEY = 512

_PREFIX_PARTS = re.compile(r"(?:[A-Za-z0-9]{1,12}[-_]){0,4}")
_KEY = re.compile(r"\bsk-[A-Za-z0-9._-]{20,}")
_CHARACTERS = re.compile(r"[A-Za-z0-9._~+/=-]+\Z")


class InvalidKey(ValueError):
    """A secret that cannot serve as an API key; the message says why and never quotes it."""


def digest(secret: str) -> str:
    """The HMAC-SHA256 of ``secret`` under API_KEY_PEPPER, as 64 hexadecimal digits."""
    return hmac.new(settings.API_KEY_PEPPER.encode(), secret.encode(), hashlib.sha256).hexdigest()


def generate() -> str:
    """A new secret: ``sk-weir-`` and 43 random characters."""
    return PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))


def prefix(secret: str) -> str:
    """The words before the random part, such as ``sk-weir-`` or ``sk-proj-``; at most 16 characters.

    Shown in lists, so it never holds a part of the secret: short words, with 32 characters left after them.
    """
    found = _PREFIX_PARTS.match(secret)
    words = found.group() if found else ""
    while words and (len(words) > 16 or len(secret) - len(words) < SHORTEST_SECRET):
        words = re.sub(r"[A-Za-z0-9]+[-_]\Z", "", words)
    return words


def concealed(text: str) -> str:
    """``text`` without what looks like an API key, for people who take one field for another."""
    return _KEY.sub("sk-…", text)


def check(secret: str) -> str:
    """``secret`` if it may serve as an API key brought from elsewhere.

    Raises ``InvalidKey`` if it has fewer than 32 characters after its prefix, more than 512 in all, or
    characters that an Authorization header cannot carry.
    """
    if len(secret) - len(prefix(secret)) < SHORTEST_SECRET:
        raise InvalidKey(f"A key's secret must have at least {SHORTEST_SECRET} characters after its prefix.")
    if len(secret) > LONGEST_KEY:
        raise InvalidKey(f"A key's secret must have at most {LONGEST_KEY} characters.")
    if not _CHARACTERS.match(secret):
        raise InvalidKey("A key's secret must consist of letters, digits and the characters . _ ~ + / = -")
    return secret
