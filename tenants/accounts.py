"""How django-allauth treats accounts here."""

from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.http import HttpRequest


def sign_up_open() -> bool:
    """Whether strangers may make an account and an organization of their own."""
    return bool(settings.SIGN_UP == "open")


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Strangers may sign up only where SIGN_UP says so; others come by invitation."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002  # allauth's signature
        """Whether the sign-up page takes new people."""
        return sign_up_open()
