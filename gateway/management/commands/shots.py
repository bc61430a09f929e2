"""``manage.py shots``: pictures of every page of the console, what each weighs, and whether all can use it."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.test.testcases import LiveServerThread
from django.urls import URLResolver, get_resolver, resolve, reverse

from gateway.management.inspection import TICK, Inspector, Shot
from tenants.models import User

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from gateway.management.sample import Sample

CHROMIUM = "/usr/bin/chromium"
# Addresses of the console that are no pages: forms that are only sent, and files.
NO_PAGE = {
    "quota_save",
    "quota_raise",
    "request_content",
    "notification_channel",
    "end_user_limits",
    "end_user_standing",
    *(f"end_users_{format_}" for format_ in ("csv", "jsonl", "xlsx")),
    "member_add",
    "member_role",
    "team_new",
    "team_leave",
    "invitation_resend",
    "invitation_revoke",
    *(
        f"costs_{what}_{format_}"
        for what in ("report", "usage", "focus")
        for format_ in ("csv", "jsonl", "xlsx")
    ),
    "export_file",
    "export_checksum",
    "export_remove",
    "monthly_set",
    "monthly_remove",
    "key_pause",
    "playground_key",
    "playground_usage",
    "ledger_csv",
    "keys_csv",
    "quotas_csv",
    "members_csv",
    "teams_csv",
    "invitations_csv",
    "deliveries_csv",
    "audit_csv",
    "statements_csv",
    "statement_csv",
    "statement_pdf",
    "code_redeem",
    "payment_webhook",
    "sign_in_start",
    "sign_in_callback",
    "single_sign_on_change",
    "domain_claim",
    "domain_drop",
    "domain_check",
    # Only where a second factor is demanded of somebody who has none.
    "second_factor",
}


def shots_of(sample: Sample) -> Iterator[Shot]:
    """Every page, full and empty; the main ones dark and narrow too."""
    owner, acme, empty = sample.owner, sample.acme.slug, sample.empty.slug
    login = reverse("account_login")
    wrong = (("[name=login]", owner), ("[name=password]", "wrong"))
    yield Shot("login", login)
    yield Shot("login-dark", login, dark=True)
    yield Shot("login-wrong", login, fill=wrong, submit="main button[type=submit]")
    yield Shot("sign-up", reverse("account_signup"))
    yield Shot(
        "sign-up-wrong",
        reverse("account_signup"),
        fill=(("[name=email]", "x@y.example"), ("[name=password1]", "password12")),
        submit="main button[type=submit]",
    )
    yield Shot("sign-up-sent", reverse("account_email_verification_sent"))
    yield Shot("sign-up-link-dead", reverse("account_confirm_email", args=["unknown"]))
    founding = reverse("console:organization_new")
    yield Shot("organization-new", founding, owner)
    yield Shot("organization-new-dark", founding, owner, dark=True)
    yield Shot("organization-new-narrow", founding, owner, narrow=True)
    yield Shot(
        "organization-new-taken",
        founding,
        owner,
        fill=(("[name=name]", "Acme"), ("[name=slug]", acme)),
        submit="main button.primary",
    )
    yield from _single_sign_on(acme)
    yield Shot("password-reset", reverse("account_reset_password"))
    yield from _account(owner)
    yield Shot("choose", "/", owner)
    pages = {
        name: reverse(f"console:{name}", args=[acme])
        for name in (
            "overview",
            "keys",
            "key_new",
            "playground",
            "models",
            "health",
            "quotas",
            "end_users",
            "trial",
            "notifications",
            "single_sign_on",
            "members",
            "invitation_new",
            "roles",
            "costs",
            "exports",
            "price_history",
            "ledger",
            "statements",
            "funds",
            "requests",
            "audit",
            "settings",
        )
    }
    pages |= _of_one_object(sample)
    for name, url in pages.items():
        yield Shot(name, url, owner)
        yield Shot(f"{name}-dark", url, owner, dark=True)
        yield Shot(f"{name}-narrow", url, owner, narrow=True)
        if name not in {"key", "request", "roles", "model", "model_why", "model_prices"}:
            yield Shot(f"{name}-empty", url.replace(acme, empty, 1), sample.newcomer)
    yield from _sure(pages, owner)
    yield from _reports(pages["costs"], owner)
    yield Shot("checkout", reverse("console:checkout", args=[acme, sample.checkout]), owner)
    yield Shot("statement", reverse("console:statement", args=[acme, sample.statement]), owner)
    yield Shot(
        "statement-narrow", reverse("console:statement", args=[acme, sample.statement]), owner, narrow=True
    )
    yield from _end_users(pages, owner)
    key = [acme, sample.key.pk]
    yield Shot("key-edit", reverse("console:key_edit", args=key), owner)
    yield Shot("key-rotate", reverse("console:key_rotate", args=key), owner)
    yield Shot("key-revoke", reverse("console:key_revoke", args=key), owner)
    yield Shot(
        "key-new-wrong",
        pages["key_new"],
        owner,
        fill=(("[name=name]", "late"), ("[name=expires_on]", "2020-01-01")),
        submit=".primary",
    )
    yield Shot("key-secret", pages["key_new"], owner, fill=(("[name=name]", "fresh-app"),), submit=".primary")
    mixed = reverse("console:model_prices", args=[acme, sample.model])
    yield Shot("model_prices-mixed", mixed, owner)
    yield Shot("members-viewer", pages["members"], sample.viewer)
    yield from _settings(pages["settings"], sample)
    yield Shot("model-why-left-out", f"{pages['model_why']}?tokens=9000000&needs=vision&region=eu", owner)
    yield Shot("model-why-wrong", f"{pages['model_why']}?tokens=many&region=EU!", owner)
    yield Shot("keys-none-match", f"{pages['keys']}?q=nothing", owner)
    yield Shot("keys-all", f"{pages['keys']}?state=all", owner)
    yield Shot("quotas-edit", f"{pages['quotas']}?edit=team-{sample.key.team_id}", owner)
    yield Shot("quotas-edit-narrow", f"{pages['quotas']}?edit=team-{sample.key.team_id}", owner, narrow=True)
    yield Shot("team", reverse("console:team", args=[acme, sample.key.team_id]), owner)
    yield Shot("member-remove", reverse("console:member_remove", args=[acme, sample.key.owner_id]), owner)
    invite = (("[name=email]", "gwen@acme.example"),)
    yield Shot("invitation-sent", pages["invitation_new"], owner, fill=invite, submit=".primary")
    twice = (("[name=email]", "eve@acme.example"),)
    yield Shot("invitation-twice", pages["invitation_new"], owner, fill=twice, submit=".primary")
    link = reverse("console:invitation_open", args=[sample.invitation])
    yield Shot("invitation-join", link)
    yield Shot("invitation-join-dark", link, dark=True)
    yield Shot("invitation-join-narrow", link, narrow=True)
    yield Shot("invitation-other", link, sample.viewer)
    yield Shot("invitation-unknown", reverse("console:invitation"))
    yield Shot("overview-member", pages["overview"], sample.member)
    yield Shot("quotas-raise", f"{pages['quotas']}?raise={sample.raised}#raise", owner)
    yield Shot("quotas-member", pages["quotas"], sample.member)
    yield Shot("keys-viewer", pages["keys"], sample.viewer)
    yield Shot("forbidden", pages["audit"], sample.viewer)
    yield Shot("no-organization", "/", sample.operator)
    yield Shot("key-paused", pages["key"], owner, submit="button[value=pause]")
    yield Shot("not-found", reverse("console:keys", args=[acme]) + "999999/", owner)


def _of_one_object(sample: Sample) -> dict[str, str]:
    """The addresses of pages about one thing, by the picture's name."""
    acme = sample.acme.slug
    return {
        "key": reverse("console:key", args=[acme, sample.key.pk]),
        "request": reverse("console:request", args=[acme, sample.request]),
        "end_user": f"{reverse('console:end_user', args=[acme])}?id=anna.k",
        "model": reverse("console:model", args=[acme, sample.model]),
        "model_why": reverse("console:model_why", args=[acme, sample.model]),
        "model_prices": reverse("console:model_prices", args=[acme, "fast"]),
    }


def _single_sign_on(acme: str) -> Iterator[Shot]:
    """The way in through an organization's provider."""
    address, place = reverse("console:sign_in_email"), reverse("console:sign_in_organization", args=[acme])
    unknown = (("[name=email]", "ann@unknown.example"),)
    yield Shot("sign-in-email", address)
    yield Shot("sign-in-email-dark", address, dark=True)
    yield Shot("sign-in-email-unknown", address, fill=unknown, submit="main button[type=submit]")
    yield Shot("sign-in-organization", place)
    yield Shot("sign-in-organization-narrow", place, narrow=True)
    yield Shot("sign-in-failed", reverse("console:sign_in_callback", args=[acme]))


def _end_users(pages: dict[str, str], owner: str) -> Iterator[Shot]:
    """End users that are blocked, limited and not found; requests that would not pass."""
    blocked = pages["end_user"].replace("anna.k", "user-2096")
    yield Shot("end-user-blocked", blocked, owner)
    yield Shot("end-user-blocked-dark", blocked, owner, dark=True)
    yield Shot("end-user-edit", f"{pages['end_user']}&edit=limits", owner)
    yield Shot("end-user-edit-narrow", f"{pages['end_user']}&edit=limits", owner, narrow=True)
    for suffix, dark, narrow in (("", False, False), ("-dark", True, False), ("-narrow", False, True)):
        large = f"{pages['trial']}?tokens=50000&output=200000&end_user=anna.k"
        yield Shot(f"trial-refused{suffix}", large, owner, dark, narrow)
    yield Shot("trial-blocked", f"{pages['trial']}?end_user=user-2096", owner)
    yield Shot("trial-wrong", f"{pages['trial']}?tokens=many&output=0", owner)
    yield Shot("end-users-none-match", f"{pages['end_users']}?q=customer-42", owner)


def _sure(pages: dict[str, str], owner: str) -> Iterator[Shot]:
    """What is said before something is removed."""
    sure = "details.sure summary"
    yield Shot("notifications-remove", pages["notifications"], owner, submit=sure)
    yield Shot("notifications-remove-narrow", pages["notifications"], owner, narrow=True, submit=sure)
    yield Shot("single_sign_on-give-up", pages["single_sign_on"], owner, submit=sure)


def _operator_shots(sample: Sample) -> Iterator[Shot]:
    """The pages of the operator area."""
    area = {
        name.replace("_", "-"): reverse(f"operator:{name}")
        for name in (
            "tenants",
            "health",
            "accounting",
            "margin",
            "providers",
            "deployments",
            "model_groups",
            "price_sync",
            "work",
            "reconcile",
            "dead_letters",
        )
    }
    area["tenant"] = reverse("operator:tenant", args=[sample.acme.slug])
    area["provider"] = reverse("operator:provider", args=["simulator"])
    yield Shot("area-provider-take-out", area["provider"], sample.operator, submit="details.sure summary")
    yield Shot("area-tenant-domain", area["tenant"], sample.operator, submit="details.sure summary")
    area["deployment"] = reverse("operator:deployment", args=["sonnet"])
    area["deployment-prices"] = reverse("operator:deployment_prices", args=["gpt-small"])
    area["group"] = reverse("operator:model_group", args=[sample.model])
    area["dead-letter"] = reverse("operator:dead_letter", args=[sample.letter])
    area["reconcile-report"] = reverse("operator:reconcile_report", args=[sample.report])
    for name, url in area.items():
        yield Shot(f"area-{name}", url, sample.operator)
        yield Shot(f"area-{name}-dark", url, sample.operator, dark=True)
        yield Shot(f"area-{name}-narrow", url, sample.operator, narrow=True)
    group, preview = reverse("operator:model_group", args=[sample.model]), "button[value=preview]"
    drain = (("[name=places-0-weight]", "0"), ("[name=example-tokens]", "200000"))
    wrong = (("[name=on_error]", "nowhere"),)
    for suffix, dark, narrow in (("", False, False), ("-dark", True, False), ("-narrow", False, True)):
        operator = sample.operator
        yield Shot(f"area-group-preview{suffix}", group, operator, dark, narrow, drain, preview)
        small = (("[name=context_window]", "100"),)
        url = area["deployment"]
        yield Shot(f"area-deployment-preview{suffix}", url, operator, dark, narrow, small, preview)
    yield Shot("area-group-refused", group, sample.operator, fill=wrong, submit=preview)
    # Last of the area, since the visit stays open.
    begin = (("[name=reason]", "Ticket 4711: they cannot see their spend"),)
    submit = "button[value=start]"
    yield Shot("area-visit", area["tenant"], sample.operator, fill=begin, submit=submit)
    for name, page in (("visit", "overview"), ("visit-keys", "keys")):
        url = reverse(f"console:{page}", args=[sample.acme.slug])
        yield Shot(name, url, sample.operator)
        yield Shot(f"{name}-dark", url, sample.operator, dark=True)
        yield Shot(f"{name}-narrow", url, sample.operator, narrow=True)
    yield Shot("area-tenant-visited", area["tenant"], sample.operator)
    yield Shot("operator", reverse("admin:index"), sample.operator)
    yield Shot("operator-provider", reverse("admin:routing_provider_add"), sample.operator)
    yield Shot("operator-organization", reverse("admin:tenants_organization_add"), sample.operator)
    yield Shot("area-none-match", f"{area['tenants']}?q=nothing", sample.operator)


def _reports(costs: str, owner: str) -> Iterator[Shot]:
    """The costs page compared, by month, and with its downloads open."""
    compared = f"{costs}?by=team&compare=before"
    yield Shot("costs-compared", compared, owner)
    yield Shot("costs-compared-dark", compared, owner, dark=True)
    yield Shot("costs-compared-narrow", compared, owner, narrow=True)
    yield Shot("costs-tag", f"{costs}?by=tag:feature", owner)
    yield Shot("costs-tag-narrow", f"{costs}?by=tag:feature", owner, narrow=True)
    yield Shot("costs-months", f"{costs}?by=month&from=2026-01-01", owner)
    yield Shot("costs-download", costs, owner, submit=".page-head summary")
    yield Shot("costs-download-narrow", costs, owner, narrow=True, submit=".page-head summary")


def _account(owner: str) -> Iterator[Shot]:
    """The pages of one's own account."""
    yield Shot("password-change", reverse("account_change_password"), owner)
    signed_in = reverse("usersessions_list")
    yield Shot("signed-in", signed_in, owner)
    yield Shot("signed-in-dark", signed_in, owner, dark=True)
    yield Shot("signed-in-narrow", signed_in, owner, narrow=True)
    yield Shot("passkeys", reverse("mfa_list_webauthn"), owner)
    yield Shot("two-factor", reverse("mfa_index"), owner)
    yield Shot("sign-out", reverse("account_logout"), owner)
    again = reverse("account_reauthenticate")
    yield Shot("confirm", again, owner)
    yield Shot("confirm-dark", again, owner, dark=True)
    yield Shot("confirm-narrow", again, owner, narrow=True)
    yield Shot("confirm-elsewhere", reverse("console:confirm"), owner)


def _settings(page: str, sample: Sample) -> Iterator[Shot]:
    """The page of settings with an origin that ends in a slash, and asking whether details shall go; what is then
    left of a request."""
    owner = sample.owner
    wrong = (("[name=cors_origins]", "https://app.acme.example/"),)
    save = ".form-foot .primary"
    yield Shot("settings-wrong", page, owner, fill=wrong, submit=save)
    fewer = (("[name=keep_details_days]", "30"),)
    yield Shot("settings-stores", page, owner, fill=(("[name=log_content]", TICK),), submit=save)
    for suffix, dark, narrow in (("", False, False), ("-dark", True, False), ("-narrow", False, True)):
        yield Shot(f"settings-removes{suffix}", page, owner, dark, narrow, fewer, save)
    old = reverse("console:request", args=[sample.acme.slug, sample.old_request])
    yield Shot("request-old", old, owner)
    yield Shot("request-old-narrow", old, owner, narrow=True)
    request, show = old.replace(sample.old_request, sample.request), "form[action$='/content/'] button"
    for suffix, dark, narrow in (("", False, False), ("-dark", True, False), ("-narrow", False, True)):
        yield Shot(f"request-content{suffix}", request, owner, dark, narrow, submit=show)


def without_picture(shots: list[Shot]) -> set[str]:
    """The names of the console's pages that no picture shows."""
    shown = {resolve(urlsplit(shot.url).path).url_name for shot in shots}
    return set(_names(get_resolver("gateway.console.urls"))) - shown - NO_PAGE


def _names(resolver: URLResolver) -> Iterator[str]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _names(pattern)
        elif pattern.name:
            yield pattern.name


@contextmanager
def scratch_database() -> Iterator[None]:
    """A database of its own beside the real one, made anew and removed in the end."""
    real = settings.DATABASES["default"]["NAME"]
    connection.settings_dict["TEST"]["NAME"] = f"shots_{real}"
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        yield
    finally:
        connection.creation.destroy_test_db(real, verbosity=0)


@contextmanager
def served() -> Iterator[str]:
    """The console on a free port; yields its address."""
    thread = LiveServerThread("127.0.0.1", StaticFilesHandler, connections_override={})
    thread.daemon = True
    thread.start()
    thread.is_ready.wait()
    if thread.error:
        raise thread.error
    try:
        yield f"http://127.0.0.1:{thread.port}"
    finally:
        thread.terminate()


def session_of(email: str) -> str:
    """A session in which ``email`` is signed in, without hashing a password for every picture."""
    from allauth.usersessions.models import UserSession
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    user = User.objects.get(email=email)
    store = SessionStore()
    store[SESSION_KEY] = str(user.pk)
    store[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    store[HASH_SESSION_KEY] = user.get_session_auth_hash()
    # As after a sign-in, so that danger does not ask.
    store["account_authentication_methods"] = [{"method": "password", "at": time.time()}]
    store["account_authentication_methods_user"] = str(user.pk)
    store.save()
    agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0"
    UserSession.objects.create(user=user, session_key=store.session_key, ip="203.0.113.7", user_agent=agent)
    return str(store.session_key)


class Command(BaseCommand):
    """Takes the pictures."""

    help = (
        "Take pictures of every page of the console into var/shots, with sample data in a scratch database."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", help="only pictures whose name begins so")
        parser.add_argument(
            "--pictures", default="", help="no pictures but of those whose name begins so; all are looked at"
        )
        parser.add_argument("--output", type=Path, default=settings.WEIR_DATA_DIR / "shots")
        parser.add_argument("--browser", default=CHROMIUM, help="the Chromium to drive")

    def handle(self, *_: Any, **options: Any) -> None:
        if not Path(options["browser"]).exists():
            raise CommandError(
                f"There is no {options['browser']}. Install Chromium, or name it with --browser."
            )
        settings.DEBUG = False
        settings.ALLOWED_HOSTS = ["127.0.0.1"]
        settings.LOGGING_CONFIG = None
        with scratch_database(), served() as base, TemporaryDirectory() as files:
            settings.EXPORT_DIR = Path(files)
            # The services need the app registry and the scratch database.
            from gateway.management.sample import make_sample

            settings.PUBLIC_URL = base
            sample = make_sample()
            shots = [*shots_of(sample), *_operator_shots(sample)]
            missing = without_picture(shots)
            if missing:
                raise CommandError(f"No picture shows {', '.join(sorted(missing))}.")
            chosen = tuple(options["names"])
            self.take(base, [shot for shot in shots if shot.name.startswith(chosen or "")], options)

    def take(self, base: str, shots: list[Shot], options: dict[str, Any]) -> None:
        """Look at the pages of ``shots`` and take pictures; complain of what is wrong with them."""
        from playwright.sync_api import sync_playwright

        output: Path = options["output"]
        output.mkdir(parents=True, exist_ok=True)

        def picture(page: Page, shot: Shot) -> None:
            if shot.name.startswith(options["pictures"]):
                page.screenshot(path=output / f"{shot.name}.png", full_page=True)

        problems: list[str] = []
        # Playwright runs an event loop in this thread, so the database is asked before.
        sessions = {shot.person: session_of(shot.person) for shot in shots if shot.person}
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options["browser"], args=["--no-sandbox"])
            for found in Inspector(browser, base, sessions, picture).inspect(shots):
                self.stdout.write(f"{found.weight / 1024:6.0f} KB  {found.shot.name}")
                problems += found.problems
            browser.close()
        for problem in problems:
            self.stderr.write(self.style.ERROR(problem))
        if problems:
            raise CommandError(f"{len(problems)} problems.")
