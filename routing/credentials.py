"""Providers' credentials at rest: encrypted with the first of CREDENTIAL_KEYS, readable with all."""

from __future__ import annotations

from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class UndecipherableCredential(ValueError):
    """None of CREDENTIAL_KEYS decrypts what is stored."""


@lru_cache(maxsize=4)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def _current() -> MultiFernet:
    return _fernet(tuple(settings.CREDENTIAL_KEYS))


def seal(content: bytes) -> bytes:
    """``content`` under the first key."""
    return _current().encrypt(content)


def unseal(ciphertext: bytes | memoryview) -> bytes:
    """The content. Raises ``UndecipherableCredential``, whose message quotes nothing."""
    try:
        return _current().decrypt(bytes(ciphertext))
    except InvalidToken:
        raise UndecipherableCredential(
            "A stored credential cannot be decrypted. Is the key it was made with missing from CREDENTIAL_KEYS?"
        ) from None


def encrypt(secret: str) -> bytes:
    """``secret`` under the first key."""
    return seal(secret.encode())


def decrypt(ciphertext: bytes | memoryview) -> str:
    """The secret. Raises ``UndecipherableCredential``, whose message quotes nothing."""
    return unseal(ciphertext).decode()


def rotate(ciphertext: bytes | memoryview) -> bytes:
    """The same secret under the first key. Raises ``UndecipherableCredential``."""
    try:
        return _current().rotate(bytes(ciphertext))
    except InvalidToken:
        raise UndecipherableCredential(
            "A stored credential cannot be decrypted. Is the key it was made with missing from CREDENTIAL_KEYS?"
        ) from None
