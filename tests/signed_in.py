"""Browsers of people who are signed in, and who proved who they are some time ago."""

from __future__ import annotations

import time

from django.test import Client

from tenants.models import User

BACKEND = "django.contrib.auth.backends.ModelBackend"


def proved(client: Client, ago: float = 0) -> Client:
    """``client``, whose person signed in with the password ``ago`` seconds before; danger does not ask for now."""
    session = client.session
    session["account_authentication_methods"] = [{"method": "password", "at": time.time() - ago}]
    session["account_authentication_methods_user"] = session["_auth_user_id"]
    session.save()
    return client


def signed_in(user: User, ago: float = 0) -> Client:
    """A browser in which ``user`` signed in ``ago`` seconds before."""
    client = Client()
    client.force_login(user, backend=BACKEND)
    return proved(client, ago)
