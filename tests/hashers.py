"""Passwords that are hashed quickly: by design it takes a third of a second, and tests do it a thousand times."""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class QuickPBKDF2(PBKDF2PasswordHasher):
    """Django's own hash, made once instead of a million times; the servers that tests start can check it."""

    iterations = 1
