"""Every address under ``accounts/``: what strangers and people who are signed in get, and that it changes nothing.

These pages are django-allauth's and belong to a person, not to an organization, so roles do not come into
it; tests/console/test_url_matrix.py has the other addresses. One without a row fails here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.apps import apps
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from tenants.models import User
from tests.signed_in import signed_in

pytestmark = pytest.mark.django_db

# A status, or where a redirect leads.
Outcome = int | str
LOGIN = "/accounts/login/"
CONFIRM = "/accounts/reauthenticate/"
# What a row says: a stranger's GET and empty POST, then the same two of somebody who signed in long ago,
# has a password and no second factor.
Row = tuple[Outcome, Outcome, Outcome, Outcome]
# Only read, by everybody: it says what happened and holds nothing of anybody.
NOTE: Row = (200, 405, 200, 405)
# A form of one's own.
OWN: Row = (LOGIN, LOGIN, 200, 200)
# As OWN, after the password once more.
CONFIRMED: Row = (LOGIN, LOGIN, CONFIRM, CONFIRM)
# About a second factor, which this person does not have.
NO_FACTOR: Row = (LOGIN, LOGIN, 404, 404)
# No provider of that name.
NO_PROVIDER: Row = (404, 404, 404, 404)

ROWS: dict[str, Row] = {
    "login/": (200, 200, "/", "/"),
    # Asks before it signs out.
    "logout/": ("/", "/", 200, "/"),
    "inactive/": NOTE,
    "signup/": (200, 200, "/", "/"),
    "reauthenticate/": OWN,
    # Shown to all, changed after the password once more.
    "email/": (LOGIN, LOGIN, 200, "/accounts/email/"),
    "confirm-email/": NOTE,
    # A link that was never sent: the page says so, confirming finds nothing.
    r"^confirm-email/(?P<key>[-:\w]+)/$": (200, 404, 200, 404),
    "password/change/": OWN,
    "password/set/": (LOGIN, LOGIN, "/accounts/password/change/", "/accounts/password/change/"),
    "password/reset/": (200, 200, 200, 200),
    "password/reset/done/": NOTE,
    # A link that was never sent: the page says so.
    r"^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": (200, 200, 200, 200),
    "password/reset/key/done/": NOTE,
    # Nobody is half signed in.
    "login/code/confirm/": (LOGIN, LOGIN, "/", "/"),
    "2fa/authenticate/": (LOGIN, LOGIN, "/", "/"),
    "2fa/": (LOGIN, LOGIN, 200, 405),
    "2fa/reauthenticate/": CONFIRMED,
    "2fa/totp/activate/": CONFIRMED,
    "2fa/totp/deactivate/": NO_FACTOR,
    "2fa/webauthn/": (LOGIN, LOGIN, 200, 405),
    "2fa/webauthn/add/": CONFIRMED,
    "2fa/webauthn/reauthenticate/": CONFIRMED,
    "2fa/webauthn/keys/<int:pk>/remove/": CONFIRMED,
    "2fa/webauthn/keys/<int:pk>/edit/": CONFIRMED,
    # A script is told what a passkey must sign.
    "2fa/webauthn/login/": (LOGIN, LOGIN, "/", "/"),
    "2fa/recovery-codes/": (LOGIN, LOGIN, 404, 405),
    "2fa/recovery-codes/generate/": CONFIRMED,
    "2fa/recovery-codes/download/": NO_FACTOR,
    "sessions/": (LOGIN, LOGIN, 200, "/accounts/sessions/"),
    "3rdparty/": OWN,
    # Nobody comes from a provider.
    "3rdparty/signup/": (LOGIN, LOGIN, LOGIN, LOGIN),
    "3rdparty/login/cancelled/": NOTE,
    "3rdparty/login/error/": (401, 405, 401, 405),
    # Addresses of older releases of django-allauth.
    **{
        f"social/{old}": (f"/accounts/3rdparty/{new}",) * 4
        for old, new in (
            ("login/cancelled/", "login/cancelled/"),
            ("login/error/", "login/error/"),
            ("signup/", "signup/"),
            ("connections/", ""),
        )
    },
    r"oidc/^(?P<provider_id>[^/]+)/login/": NO_PROVIDER,
    r"oidc/^(?P<provider_id>[^/]+)/login/callback/": NO_PROVIDER,
}
# What stands in an address in place of each pattern.
FILLED = {
    r"^confirm-email/(?P<key>[-:\w]+)/$": "confirm-email/unknown/",
    r"^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": "password/reset/key/1-unknown/",
    r"^(?P<provider_id>[^/]+)": "unknown",
    "<int:pk>": "1",
}


def routes(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    """The route of every address, from the root on."""
    for entry in resolver.url_patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from routes(entry, route)
        elif isinstance(entry, URLPattern):
            yield route


def address(route: str) -> str:
    """An address that ``route``, the part after ``accounts/``, answers."""
    for pattern, text in FILLED.items():
        route = route.replace(pattern, text)
    return f"/accounts/{route}"


def person(name: str) -> User:
    """Somebody with a password and a proven address."""
    user = User.objects.create_user(email=f"{name}@acme.example", password="correct horse battery")
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)
    return user


def browser(user: User | None) -> Client:
    """A browser in which ``user`` signed in too long ago to count as just confirmed; of nobody for None."""
    client = Client(raise_request_exception=False)
    if user:
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def outcome(response: Any) -> Outcome:
    """The status of ``response``, or the path it redirects to."""
    return (
        str(response.headers["Location"]).split("?")[0]
        if "Location" in response.headers
        else response.status_code
    )


def contents() -> dict[str, str]:
    """A digest of every table about people and organizations; sessions come and go with each visit."""
    digests = {}
    with connection.cursor() as cursor:
        for model in apps.get_models():
            if model._meta.app_label in {"account", "mfa", "socialaccount", "tenants"}:
                table = connection.ops.quote_name(model._meta.db_table)
                cursor.execute(
                    f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t"
                )
                digests[model._meta.db_table] = cursor.fetchone()[0]
    return digests


def test_every_account_address_has_a_row_and_every_row_an_address() -> None:
    prefix = "accounts/"
    found = {route.removeprefix(prefix) for route in routes(get_resolver()) if route.startswith(prefix)}
    assert found - set(ROWS) == set(), "addresses without a row"
    assert set(ROWS) - found == set(), "rows without an address"


@pytest.mark.parametrize("route", ROWS)
def test_who_gets_what_and_nothing_changes(route: str) -> None:
    ann = person("ann")
    found: list[Outcome] = []
    for user in (None, ann):
        for method in ("get", "post"):
            client = browser(user)
            before = contents()
            found.append(outcome(getattr(client, method)(address(route))))
            assert contents() == before, (user, method)
    assert tuple(found) == ROWS[route]


@pytest.mark.parametrize("action", ["action_remove", "action_primary", "action_send"])
def test_another_persons_address_is_not_theirs_to_change(action: str) -> None:
    ann, bob = person("ann"), person("bob")
    client = browser(ann)
    before = contents()
    client.post("/accounts/email/", {"email": bob.email, action: ""})
    assert contents() == before


def test_an_address_of_ones_own_goes_by_the_same_post() -> None:
    ann = person("ann")
    EmailAddress.objects.create(user=ann, email="second@acme.example", verified=True)
    signed_in(ann).post("/accounts/email/", {"email": "second@acme.example", "action_remove": ""})
    assert [row.email for row in EmailAddress.objects.filter(user=ann)] == ["ann@acme.example"]


@pytest.mark.parametrize("route", [route for route, row in ROWS.items() if row[3] != 405])
def test_a_post_from_another_site_is_refused(route: str) -> None:
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.force_login(person("ann"), backend="django.contrib.auth.backends.ModelBackend")
    before = contents()
    assert client.post(address(route)).status_code == 403
    assert contents() == before
