"""Every address and every role: what each may open and change, and that a refusal changes nothing.

The table below has a row for each URL name of the project. An address without a row fails the test, so
nobody can add a page without saying who may see it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import cache as attempts
from django.db import connection, transaction
from django.test import Client, override_settings
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django_scopes import scopes_disabled
from pytest_django.plugin import DjangoDbBlocker

from billing.exports.making import make_due
from billing.models import Checkout, LedgerEntry, LedgerTransaction, RequestContent
from billing.request_content import Content
from billing.services.codes import make_code
from billing.services.end_users import block_end_user
from billing.services.exports import request_export
from billing.services.quotas import set_quota
from billing.services.schedules import set_schedule
from billing.statements.making import make_through
from gateway.models import EmailDomain
from gateway.notifications.channels import add_channel
from gateway.single_sign_on.domains import claim_domain, record_of
from gateway.single_sign_on.providers import save_provider
from routing.models import ModelGroup
from tenants.models import Membership, Organization, TeamMembership
from tenants.permissions import Role
from tenants.services.invitations import invite
from tenants.services.keys import create_key, pause_key
from tests.billing.made_usage import Tenant, event, make_member, make_tenant, utc
from tests.name_server import NameServer
from tests.signed_in import proved

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume"),
]

# Django's admin guards its own addresses; django-allauth's have their rows in test_account_urls.py.
EXCLUDED = ("admin/", "accounts/")
ROLES = ("owner", "admin", "finance", "member", "viewer", "lead")
# In the order of ROLES. `lead` is a member who is admin of the team `search`; `member` is in that team.
ALL = (200, 200, 200, 200, 200, 200)
MANAGERS = (200, 200, 403, 403, 403, 403)
OWNERS = (200, 403, 403, 403, 403, 403)
PAYERS = (200, 403, 200, 403, 403, 403)
EXPORTERS = (200, 200, 200, 403, 403, 403)
# What everybody used, or at least a team.
WATCHED = (200, 200, 200, 403, 403, 200)
# A key or request of the team `search` that is not one's own.
WATCHERS = (200, 200, 200, 404, 404, 200)
# The operator area does not exist for members, whatever their role.
NOBODY = (404, 404, 404, 404, 404, 404)
# Only POST is answered; who may not write learns nothing else.
WRITE_ONLY = (405, 405, 403, 403, 403, 403)

READS: dict[str, tuple[int, ...]] = {
    "console:home": (302, 302, 302, 302, 302, 302),
    "console:organization_new": ALL,
    "console:confirm": ALL,
    # acme demands no second factor, so it leads on.
    "console:second_factor": (302, 302, 302, 302, 302, 302),
    "console:overview": ALL,
    "console:settings": MANAGERS,
    "console:keys": ALL,
    "console:keys_csv": ALL,
    "console:key_new": (200, 200, 403, 200, 403, 200),
    "console:key": WATCHERS,
    "console:key_edit": (200, 200, 403, 404, 403, 200),
    "console:key_rotate": (200, 200, 403, 404, 403, 200),
    "console:key_revoke": (200, 200, 403, 404, 404, 200),
    "console:key_pause": (405, 405, 405, 405, 405, 405),
    # For whoever may make a key at all; without a team the page says what is missing.
    "console:playground": (200, 200, 403, 200, 403, 200),
    "console:playground_key": (405, 405, 403, 405, 403, 405),
    "console:playground_usage": (200, 200, 403, 200, 403, 200),
    "console:models": ALL,
    "console:model": ALL,
    "console:model_why": ALL,
    "console:model_prices": EXPORTERS,
    "console:health": ALL,
    "console:quotas": ALL,
    "console:quotas_csv": ALL,
    "console:trial": ALL,
    "console:quota_save": (405, 405, 403, 403, 403, 405),
    "console:quota_raise": (405, 405, 403, 403, 403, 405),
    "console:end_users": WATCHED,
    "console:end_users_csv": WATCHED,
    "console:end_users_jsonl": WATCHED,
    "console:end_users_xlsx": WATCHED,
    "console:end_user": WATCHED,
    "console:end_user_limits": (405, 405, 403, 403, 403, 405),
    "console:end_user_standing": (405, 405, 403, 403, 403, 405),
    "console:members": ALL,
    "console:members_csv": ALL,
    "console:teams_csv": ALL,
    "console:invitations_csv": MANAGERS,
    "console:member_add": WRITE_ONLY,
    "console:roles": ALL,
    "console:member_role": WRITE_ONLY,
    "console:member_remove": MANAGERS,
    "console:team_new": WRITE_ONLY,
    "console:team": ALL,
    "console:team_leave": WRITE_ONLY,
    "console:invitation": (404, 404, 404, 404, 404, 404),
    "console:invitation_open": (302, 302, 302, 302, 302, 302),
    "console:invitation_new": MANAGERS,
    "console:invitation_resend": WRITE_ONLY,
    "console:invitation_revoke": WRITE_ONLY,
    # The way in, which is there for everybody; acme's provider does not answer.
    "console:sign_in_email": ALL,
    "console:sign_in_organization": ALL,
    "console:sign_in_start": (403, 403, 403, 403, 403, 403),
    "console:sign_in_callback": (403, 403, 403, 403, 403, 403),
    "console:single_sign_on": OWNERS,
    "console:single_sign_on_change": (405, 403, 403, 403, 403, 403),
    "console:domain_claim": (405, 403, 403, 403, 403, 403),
    "console:domain_drop": (405, 403, 403, 403, 403, 403),
    "console:domain_check": (405, 403, 403, 403, 403, 403),
    "console:notifications": MANAGERS,
    "console:deliveries_csv": MANAGERS,
    "console:notification_channel": WRITE_ONLY,
    "console:audit": MANAGERS,
    "console:audit_csv": MANAGERS,
    "console:costs": ALL,
    "console:costs_report_csv": ALL,
    "console:costs_report_jsonl": ALL,
    "console:costs_report_xlsx": ALL,
    "console:costs_usage_csv": EXPORTERS,
    "console:costs_usage_jsonl": EXPORTERS,
    "console:costs_usage_xlsx": EXPORTERS,
    "console:costs_focus_csv": EXPORTERS,
    "console:costs_focus_jsonl": EXPORTERS,
    "console:costs_focus_xlsx": EXPORTERS,
    "console:exports": EXPORTERS,
    "console:export_file": EXPORTERS,
    "console:export_checksum": EXPORTERS,
    "console:export_remove": (405, 405, 405, 403, 403, 403),
    "console:monthly_set": (405, 405, 405, 403, 403, 403),
    "console:monthly_remove": (405, 405, 405, 403, 403, 403),
    "console:price_history": EXPORTERS,
    "console:ledger": EXPORTERS,
    "console:ledger_csv": EXPORTERS,
    "console:funds": PAYERS,
    "console:code_redeem": (405, 403, 405, 403, 403, 403),
    "console:checkout": PAYERS,
    "console:payment_webhook": (405, 405, 405, 405, 405, 405),
    "console:statements": EXPORTERS,
    "console:statements_csv": EXPORTERS,
    "console:statement": EXPORTERS,
    "console:statement_pdf": EXPORTERS,
    "console:statement_csv": EXPORTERS,
    "console:requests": ALL,
    "console:request": WATCHERS,
    "console:request_content": WRITE_ONLY,
    "operator:tenants": NOBODY,
    "operator:tenants_csv": NOBODY,
    "operator:tenant": NOBODY,
    "operator:tenant_standing": NOBODY,
    "operator:tenant_visit": NOBODY,
    "operator:tenant_sign_in": NOBODY,
    "operator:tenant_domain": NOBODY,
    "operator:health": NOBODY,
    "operator:accounting": NOBODY,
    "operator:accounting_csv": NOBODY,
    "operator:margin": NOBODY,
    "operator:margin_csv": NOBODY,
    "operator:providers": NOBODY,
    "operator:providers_csv": NOBODY,
    "operator:provider": NOBODY,
    "operator:deployments": NOBODY,
    "operator:deployments_csv": NOBODY,
    "operator:deployment": NOBODY,
    "operator:deployment_prices": NOBODY,
    "operator:model_groups": NOBODY,
    "operator:model_groups_csv": NOBODY,
    "operator:model_group": NOBODY,
    "operator:price_sync": NOBODY,
    "operator:work": NOBODY,
    "operator:reconcile": NOBODY,
    "operator:reconcile_report": NOBODY,
    "operator:reconcile_csv": NOBODY,
    "operator:dead_letters": NOBODY,
    "operator:dead_letters_csv": NOBODY,
    "operator:dead_letter": NOBODY,
    "api:usage": EXPORTERS,
    "api:report": ALL,
    "api:keys": ALL,
}
# Addresses without an organization in them.
OPERATORS = {name for name in READS if name.startswith("operator:")}
SIGN_IN = {f"console:sign_in_{page}" for page in ("email", "organization", "start", "callback")}
WITHOUT_TENANT = OPERATORS | {
    *SIGN_IN,
    "console:home",
    "console:organization_new",
    "console:confirm",
    "console:second_factor",
    "console:invitation",
    "console:invitation_open",
    "console:payment_webhook",
}
# For people who have no account yet; whoever holds no token finds nothing.
PUBLIC = {*SIGN_IN, "console:invitation", "console:invitation_open", "console:payment_webhook"}
# What stands behind the question mark, of addresses that are nothing without it.
QUERIES = {"console:end_user": "?id=ada"}
# Addresses of one object.
WITH_OBJECT = (
    "console:key",
    "console:key_edit",
    "console:key_rotate",
    "console:key_pause",
    "console:key_revoke",
    "console:model",
    "console:model_why",
    "console:model_prices",
    "console:quota_save",
    "console:quota_raise",
    "console:notification_channel",
    "console:domain_drop",
    "console:domain_check",
    "console:member_role",
    "console:member_remove",
    "console:team",
    "console:team_leave",
    "console:invitation_resend",
    "console:invitation_revoke",
    "console:request",
    "console:request_content",
    "console:export_file",
    "console:export_checksum",
    "console:export_remove",
    "console:monthly_remove",
    "console:statement",
    "console:checkout",
    "console:statement_pdf",
    "console:statement_csv",
    "console:second_factor",
)


@dataclass(frozen=True)
class Write:
    """A POST with the status each role gets; 200 and 302 are the ones that change something."""

    name: str
    statuses: tuple[int, ...]
    data: dict[str, Any] = field(default_factory=dict)
    # In place of what the world gives for this address.
    kwargs: dict[str, Any] = field(default_factory=dict)


OWNED = (302, 403, 403, 403, 403, 403)
MANAGED = (302, 302, 403, 403, 403, 403)
ANYBODY = (302, 302, 302, 302, 302, 302)
# Words in braces stand for an id of the world.
WRITES = [
    Write(
        "settings",
        (302, 403, 403, 403, 403, 403),
        {"name": "Renamed", "time_zone": "Asia/Tokyo", "currency": "USD"},
    ),
    # A service key: a plain member may only make keys for themselves.
    Write("key_new", (200, 200, 403, 422, 403, 200), {"name": "new", "team": "{search}", "owner": ""}),
    Write(
        "key_new", (200, 200, 403, 200, 403, 200), {"name": "new", "team": "{search}", "owner": "{member}"}
    ),
    # In a team that is not theirs.
    Write("key_new", (200, 200, 403, 422, 403, 422), {"name": "new", "team": "{ads}", "owner": "{member}"}),
    Write("key_edit", (302, 302, 403, 404, 403, 302), {"name": "renamed"}),
    Write("key_edit", (302, 302, 403, 404, 403, 404), {"name": "renamed"}, {"key": "{banner}"}),
    Write("key_edit", (302, 302, 403, 302, 403, 302), {"name": "renamed"}, {"key": "{backend}"}),
    Write("key_rotate", (200, 200, 403, 404, 403, 200), {"overlap": "3600"}),
    # Keys one manages or owns; an owner resumes only what they paused.
    Write("key_pause", (302, 302, 403, 404, 404, 302), {"do": "pause"}),
    Write("key_pause", (302, 302, 403, 302, 404, 302), {"do": "pause"}, {"key": "{backend}"}),
    Write("key_pause", (302, 302, 403, 403, 404, 302), {"do": "resume"}, {"key": "{paused}"}),
    Write("key_revoke", (302, 302, 403, 404, 404, 302)),
    Write("key_revoke", (302, 302, 403, 302, 404, 302), {}, {"key": "{backend}"}),
    # Own keys, in teams of one's own or those one manages.
    Write("playground_key", (200, 200, 403, 200, 403, 200), {"team": "{search}"}),
    Write("playground_key", (200, 200, 403, 404, 403, 404), {"team": "{ads}"}),
    Write("quota_save", MANAGED, {"concurrency": "3"}, {"layer": "organization"}),
    Write("quota_save", MANAGED, {"budget_day": "3"}, {"layer": "end_user"}),
    Write("quota_save", (302, 302, 403, 403, 403, 302), {"concurrency": "3"}, {"layer": "team-{search}"}),
    Write("quota_save", MANAGED, {"concurrency": "3"}, {"layer": "team-{ads}"}),
    Write("quota_save", (302, 302, 403, 403, 403, 302), {"concurrency": "3"}, {"layer": "key-{batch}"}),
    Write("quota_save", (302, 302, 403, 403, 403, 404), {"concurrency": "3"}, {"layer": "key-{banner}"}),
    Write("quota_save", MANAGED, {"concurrency": "3"}, {"layer": "member-{member}"}),
    Write("end_user_limits", MANAGED, {"id": "ada", "budget_day": "3"}),
    Write("end_user_limits", MANAGED, {"id": "limited", "default": "1"}),
    Write("end_user_standing", MANAGED, {"id": "ada", "do": "block", "reason": "Spam"}),
    Write("end_user_standing", MANAGED, {"id": "blocked", "do": "unblock"}),
    Write("quota_raise", (302, 302, 403, 403, 403, 302), {"to": "9", "until_at": "2099-01-01T00:00"}),
    Write(
        "notifications",
        MANAGED,
        {"kind": "email", "name": "Mail", "topics": ["budget"], "recipients": "a@acme.example"},
    ),
    Write(
        "single_sign_on",
        OWNED,
        {"issuer": "https://login.acme.example", "client_id": "weir", "secret": "a secret"},
    ),
    Write("single_sign_on_change", OWNED, {"do": "remove"}),
    Write("domain_claim", OWNED, {"domain": "new.example"}),
    Write("domain_drop", OWNED),
    Write("domain_check", OWNED),
    Write("notification_channel", MANAGED, {"do": "test"}),
    Write("notification_channel", MANAGED, {"do": "off"}),
    Write("notification_channel", MANAGED, {"do": "remove"}),
    Write("member_add", MANAGED, {"email": "new@acme.example", "role": "member"}),
    # Only owners make owners, and only owners change them.
    Write("member_add", (302, 422, 403, 403, 403, 403), {"email": "new@acme.example", "role": "owner"}),
    Write("member_role", MANAGED, {"role": "viewer"}),
    Write("member_role", (302, 403, 403, 403, 403, 403), {"role": "member"}, {"member": "{other_owner}"}),
    Write("member_remove", MANAGED),
    Write("member_remove", (302, 403, 403, 403, 403, 403), {}, {"member": "{other_owner}"}),
    Write("team_new", MANAGED, {"name": "New", "slug": "new"}),
    Write("team", MANAGED, {"membership": "{viewer}", "role": "member"}),
    Write("team_leave", MANAGED),
    Write("invitation_new", MANAGERS, {"email": "new@acme.example", "role": "member", "days": "7"}),
    Write(
        "invitation_new",
        (200, 422, 403, 403, 403, 403),
        {"email": "new@acme.example", "role": "owner", "days": "7"},
    ),
    Write(
        "exports",
        (302, 302, 302, 403, 403, 403),
        {"what": "usage", "format": "csv", "from": "2026-03-01", "to": "2026-03-31"},
    ),
    Write("export_remove", (302, 302, 302, 403, 403, 403)),
    Write(
        "monthly_set",
        (302, 302, 302, 403, 403, 403),
        {"what": "usage", "format": "csv", "to": "{finance}"},
    ),
    # Who may not export gets nothing, whoever asks.
    Write(
        "monthly_set",
        (422, 422, 422, 403, 403, 403),
        {"what": "usage", "format": "csv", "to": "{member}"},
    ),
    Write("monthly_remove", (302, 302, 302, 403, 403, 403)),
    Write("funds", (302, 403, 302, 403, 403, 403), {"amount": "25"}),
    Write("code_redeem", (302, 403, 302, 403, 403, 403), {"code": "{code}"}),
    # Pays at the dummy provider.
    Write("checkout", (302, 403, 302, 403, 403, 403)),
    # Reading it is on record.
    Write("request_content", MANAGERS),
    Write("invitation_resend", MANAGERS),
    Write("invitation_resend", (200, 403, 403, 403, 403, 403), {}, {"invitation": "{owners_invitation}"}),
    Write("invitation_revoke", MANAGED),
    Write("invitation_revoke", (302, 403, 403, 403, 403, 403), {}, {"invitation": "{owners_invitation}"}),
    # One of their own, whatever they are elsewhere.
    Write("organization_new", ANYBODY, {"name": "New", "slug": "new", "time_zone": "UTC"}),
]


@dataclass
class World:
    """A tenant with a person for each role, another tenant, and addresses into the first."""

    acme: Tenant
    globex: Tenant
    people: dict[str, Membership]
    outsider: Membership
    ids: dict[str, Any]

    def client(self, role: str) -> Client:
        """A browser in which the person with ``role`` is signed in; ``anonymous`` is nobody."""
        client = Client(raise_request_exception=False)
        if role != "anonymous":
            client.force_login((self.outsider if role == "outsider" else self.people[role]).user)
            # What is asked of those who did so long ago is in test_confirmation.py.
            proved(client)
        return client

    def address(self, name: str, tenant: Tenant | None = None, **changes: Any) -> str:
        """The address called ``name``, with the objects of ``tenant``; the organization is always acme."""
        of = tenant or self.acme
        objects = {
            "key": of.batch.pk,
            "layer": f"team-{of.search.pk}",
            "slug": of.organization.slug,
            "name": "upstream",
            "report": 1,
            "letter": 1,
            "group": f"models-of-{of.organization.slug}",
            "domain": self.ids[f"domain_of_{of.organization.slug}"],
            "channel": self.ids[f"channel_of_{of.organization.slug}"],
            "quota": self.ids[f"quota_of_{of.organization.slug}"],
            "member": self.people["member"].pk if of is self.acme else of.ann.pk,
            "team": of.search.pk,
            "request_id": f"req-{of.organization.slug}",
            "invitation": self.ids[f"invitation_of_{of.organization.slug}"],
            "token": "unknown",
            "reference": self.ids[
                f"{'export' if 'export_' in name else 'checkout'}_of_{of.organization.slug}"
            ],
            "schedule": self.ids[f"schedule_of_{of.organization.slug}"],
            "provider": "dummy",
            "number": self.ids[f"statement_of_{of.organization.slug}"],
        }
        wanted = {word: value for word, value in objects.items() if word in parameters()[name]}
        wanted |= {word: self.filled(value) for word, value in changes.items()}
        if name not in WITHOUT_TENANT:
            wanted["organization"] = self.acme.organization.slug
        return reverse(name, kwargs=wanted) + QUERIES.get(name, "")

    def filled(self, value: Any) -> Any:
        """``value`` with ids for the words in braces."""
        return value.format(**self.ids) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def names() -> Iterator[NameServer]:
    """The one name server that is asked."""
    running = NameServer()
    yield running
    running.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the world's exports are."""
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def made(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, files: Path, names: NameServer
) -> Iterator[World]:
    """The world, made once, in a transaction around those of the tests."""
    with django_db_blocker.unblock(), transaction.atomic():
        with override_settings(EXPORT_DIR=files):
            made = make_world()
        with scopes_disabled():
            names.records = {claim.domain: [[record_of(claim)]] for claim in EmailDomain.objects.all()}
        yield made
        transaction.set_rollback(True)


@pytest.fixture
def world(made: World, files: Path, names: NameServer, db: None, settings: Any, tmp_path: Path) -> World:
    """The world as it was made, whatever other tests did to theirs."""
    settings.DNS_RESOLVER, settings.DNS_SECONDS = [names.address], 60.0
    # What counts attempts outlives a test.
    attempts.clear()
    settings.EXPORT_DIR = shutil.copytree(files, tmp_path / "world")
    return deepcopy(made)


def make_world() -> World:
    acme, globex = make_tenant("acme"), make_tenant("globex")
    for tenant in (acme, globex):
        group = ModelGroup.objects.create(name=f"models-of-{tenant.organization.slug}")
        tenant.organization.model_groups = [group.name]
        tenant.organization.save(update_fields=["model_groups"])
    organization = acme.organization
    people = {
        role: make_member(organization, f"{role}@acme.example", Role(role))
        for role in ROLES
        if role != "lead"
    }
    save_provider(
        acting_user=None,
        organization=organization,
        issuer="http://127.0.0.1:9",
        client_id="weir",
        secret="a secret",
    )
    people["lead"] = make_member(organization, "lead@acme.example", Role.MEMBER, acme.search)
    other_owner = make_member(organization, "other-owner@acme.example", Role.OWNER)
    with scopes_disabled():
        TeamMembership.objects.create(team=acme.search, membership=people["member"], role=Role.MEMBER.value)
        acme.backend.owner = people["member"]
        acme.backend.save(update_fields=["owner"])
        paused, _ = create_key(acting_user=None, team=acme.search, name="paused", owner=people["member"])
        pause_key(acting_user=people["owner"].user, key=paused)
    for tenant in (acme, globex):
        event(tenant.batch, "2026-03-01T10:00", f"req-{tenant.organization.slug}")
        with scopes_disabled():
            RequestContent.objects.create(
                organization=tenant.organization,
                request_id=f"req-{tenant.organization.slug}",
                started_at=utc("2026-03-01T10:00"),
                content=Content(None, None).sealed(),
            )
    invited = {
        name: invite(
            acting_user=None, organization=tenant.organization, email=f"{name}@x.example", role=role
        )[0]
        for name, tenant, role in (
            ("invitation_of_acme", acme, Role.MEMBER),
            ("invitation_of_globex", globex, Role.MEMBER),
            ("owners_invitation", acme, Role.OWNER),
        )
    }
    quotas = {
        f"quota_of_{tenant.organization.slug}": set_quota(
            acting_user=None, scope="team", target=tenant.search, metric="concurrency", limit=5
        ).pk
        for tenant in (acme, globex)
    }
    for tenant in (acme, globex):
        with scopes_disabled():
            channel, _ = add_channel(
                acting_user=None,
                organization=tenant.organization,
                kind="email",
                name=f"{tenant.organization.slug} mail",
                topics=["budget"],
                roles=["admin"],
            )
        quotas[f"channel_of_{tenant.organization.slug}"] = channel.pk
        claim = claim_domain(
            acting_user=None,
            organization=tenant.organization,
            domain=f"{tenant.organization.slug}.example",
        )
        quotas[f"domain_of_{tenant.organization.slug}"] = claim.pk
        block_end_user(acting_user=None, organization=tenant.organization, end_user="blocked")
        set_quota(
            acting_user=None,
            scope="end_user",
            target=tenant.organization,
            end_user="limited",
            metric="concurrency",
            limit=1,
        )
    statements = {}
    for tenant in (acme, globex):
        export = request_export(
            acting_user=None,
            organization=tenant.organization,
            what="report",
            by="team",
            format="csv",
            first=date(2026, 3, 1),
            last=date(2026, 3, 1),
        )
        statements[f"export_of_{tenant.organization.slug}"] = export.reference
        quotas[f"schedule_of_{tenant.organization.slug}"] = set_schedule(
            acting_user=None,
            organization=tenant.organization,
            what="statement",
            format="pdf",
            recipients=[
                make_member(tenant.organization, f"cfo@{tenant.organization.slug}.example", Role.FINANCE)
            ],
        ).pk
    make_due()
    for tenant in (acme, globex):
        with scopes_disabled():
            made_of = LedgerTransaction.objects.create(
                organization=tenant.organization,
                kind="top_up",
                reference=f"{tenant.organization.slug}-1",
                posted_at=utc("2026-03-01T10:00"),
            )
            for account, sign in (("wallet", -1), ("cash", 1)):
                LedgerEntry.objects.create(
                    transaction=made_of, organization=tenant.organization, account=account, amount=sign
                )
        (statement,) = make_through(tenant.organization, utc("2026-05-01T10:00"))
        statements[f"statement_of_{tenant.organization.slug}"] = statement.number
        with scopes_disabled():
            statements[f"checkout_of_{tenant.organization.slug}"] = Checkout.objects.create(
                organization=tenant.organization,
                reference=f"ref-{tenant.organization.slug}",
                provider="dummy",
                amount=25,
            ).reference
    ids = {
        "code": make_code(acting_user=None, amount=Decimal(5))[1],
        **statements,
        **quotas,
        "search": acme.search.pk,
        "ads": acme.ads.pk,
        "backend": acme.backend.pk,
        "batch": acme.batch.pk,
        "paused": paused.pk,
        "banner": acme.banner.pk,
        "other_owner": other_owner.pk,
        **{role: person.pk for role, person in people.items()},
        **{name: invitation.pk for name, invitation in invited.items()},
    }
    return World(
        acme, globex, people, make_member(globex.organization, "boss@globex.example", Role.OWNER), ids
    )


def patterns(resolver: URLResolver, prefix: str = "", space: str = "") -> Iterator[tuple[str, str, set[str]]]:
    """Every address under ``resolver``: its route, its full name, the words in it."""
    for entry in resolver.url_patterns:
        route = prefix + str(entry.pattern)
        if route.startswith(EXCLUDED):
            continue
        if isinstance(entry, URLResolver):
            inner = f"{space}{entry.namespace}:" if entry.namespace else space
            yield from patterns(entry, route, inner)
        elif isinstance(entry, URLPattern):
            yield route, f"{space}{entry.name}" if entry.name else "", set(entry.pattern.converters)


@cache
def parameters() -> dict[str, set[str]]:
    """The words in each address by its name; ``organization`` stands in an outer part."""
    return {name: words for _, name, words in patterns(get_resolver())}


def contents() -> dict[str, str]:
    """A digest of every table of the project, which any change of any row changes."""
    with connection.cursor() as cursor:
        cursor.execute(digests())
        return dict(cursor.fetchall())


@cache
def digests() -> str:
    """The query of ``contents``: one for all tables, since it is asked some thousand times."""
    return " UNION ALL ".join(
        f"SELECT '{table}', md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), ''))"
        f" FROM {connection.ops.quote_name(table)} t"
        for table in sorted(
            model._meta.db_table
            for model in apps.get_models()
            if model._meta.app_label in {"tenants", "routing", "billing", "gateway"}
        )
    )


def read_whole(response: Any) -> Any:
    """``response``, a streamed one read to its end."""
    if response.streaming:
        b"".join(response)
    return response


def test_every_address_has_a_row_and_every_row_an_address() -> None:
    found = {name: route for route, name, _ in patterns(get_resolver())}
    assert "" not in found, f"{found['']} has no name"
    assert set(found) - set(READS) == set(), "addresses without a row"
    assert set(READS) - set(found) == set(), "rows without an address"
    objects = {name for name, words in parameters().items() if words}
    assert objects - PUBLIC - OPERATORS - {name for name in READS if name.startswith("api:")} == set(
        WITH_OBJECT
    )


def test_every_address_that_takes_a_post_has_a_write() -> None:
    # What answers a manager's GET with 405 takes POST only.
    only_post = {name for name, statuses in READS.items() if statuses[0] == 405}
    # Whoever sends a webhook proves it by a signature, not by a role (tests/console/test_funds.py).
    only_post = {name.removeprefix("console:") for name in only_post - {"console:payment_webhook"}}
    assert only_post <= {write.name for write in WRITES}


@pytest.mark.parametrize("name", sorted(READS))
def test_who_may_read(world: World, name: str) -> None:
    before = contents()
    address = world.address(name)
    found = tuple(read_whole(world.client(role).get(address)).status_code for role in ROLES)
    assert found == READS[name]
    anonymous = world.client("anonymous").get(address)
    if name.startswith("api:"):
        assert anonymous.status_code == 401
    elif name in PUBLIC:
        assert anonymous.status_code == READS[name][0]
    else:
        assert (anonymous.status_code, anonymous.headers["Location"].split("?")[0]) == (
            302,
            "/accounts/login/",
        )
    if name not in WITHOUT_TENANT:
        assert world.client("outsider").get(address).status_code == 404
    after = contents()
    # Signing in writes the time of the last one, nothing else.
    assert {table for table in before if before[table] != after[table]} <= {"tenants_user"}


@pytest.mark.parametrize("name", WITH_OBJECT)
def test_another_tenants_object_is_not_found_in_ones_own_organization(world: World, name: str) -> None:
    owner = world.client("owner")
    address = world.address(name, world.globex)
    before = contents()
    if READS[name][0] != 405:
        assert owner.get(address).status_code == 404
    if READS[name][0] == 405 or name.removeprefix("console:") in {write.name for write in WRITES}:
        assert (
            owner.post(
                address, {"role": "viewer", "concurrency": "1", "name": "x", "overlap": "0"}
            ).status_code
            == 404
        )
    assert contents() == before


@pytest.mark.parametrize("write", WRITES, ids=lambda write: f"{write.name} {write.data} {write.kwargs}")
def test_who_may_write_and_a_refusal_changes_nothing(world: World, write: Write) -> None:
    name = f"console:{write.name}"
    address = world.address(name, **write.kwargs)
    data = {word: world.filled(value) for word, value in write.data.items()}
    outside = (write.statuses[0] if name in WITHOUT_TENANT else 404, 302)
    for role, expected in zip((*ROLES, "outsider", "anonymous"), (*write.statuses, *outside), strict=True):
        client = world.client(role)
        before = contents()
        # Each role finds the world as it was.
        with transaction.atomic():
            response = client.post(address, data)
            after = contents()
            transaction.set_rollback(True)
        assert response.status_code == expected, role
        allowed = expected in (200, 302) and role != "anonymous"
        assert (before != after) is allowed, (
            f"{role}: {[table for table in before if before[table] != after[table]]}"
        )
        if role == "anonymous":
            assert response.headers["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("write", WRITES, ids=lambda write: f"{write.name} {write.data} {write.kwargs}")
def test_a_post_from_another_site_is_refused(world: World, write: Write) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.people["owner"].user)
    before = contents()
    data = {word: world.filled(value) for word, value in write.data.items()}
    assert client.post(world.address(f"console:{write.name}", **write.kwargs), data).status_code == 403
    assert contents() == before


@pytest.mark.parametrize("name", sorted(set(READS) - {f"console:{write.name}" for write in WRITES}))
def test_a_page_that_is_only_read_changes_nothing_by_a_post(world: World, name: str) -> None:
    client = world.client("owner")
    before = contents()
    response = read_whole(client.post(world.address(name), {"name": "x", "role": "owner"}))
    assert response.status_code < 500
    assert contents() == before


@pytest.mark.parametrize("name", sorted(set(READS) - WITHOUT_TENANT))
def test_a_suspended_organization_does_not_exist(world: World, name: str) -> None:
    Organization.objects.filter(slug="acme").update(suspended_at="2026-01-01T00:00Z")
    assert world.client("owner").get(world.address(name)).status_code == 404


@pytest.mark.parametrize("name", sorted(set(READS) - WITHOUT_TENANT))
def test_an_operator_who_is_no_member_does_not_get_in(world: World, name: str) -> None:
    operator = world.outsider.user
    operator.is_staff = operator.is_superuser = True
    operator.save(update_fields=["is_staff", "is_superuser"])
    assert world.client("outsider").get(world.address(name)).status_code == 404


def visitor(world: World) -> Client:
    """The browser of an operator who is no member, on a visit to acme."""
    operator = world.outsider.user
    operator.is_staff = operator.is_superuser = True
    operator.save(update_fields=["is_staff", "is_superuser"])
    client = world.client("outsider")
    address = reverse("operator:tenant_visit", args=["acme"])
    started = client.post(address, {"do": "start", "reason": "ticket 1", "minutes": "15"})
    assert started.status_code == 302
    return client


def test_a_visiting_operator_reads_what_a_viewer_reads(world: World) -> None:
    client, before = visitor(world), contents()
    viewer = ROLES.index("viewer")
    for name in sorted(set(READS) - WITHOUT_TENANT):
        response = read_whole(client.get(world.address(name)))
        assert response.status_code == READS[name][viewer], name
        if response.status_code == 200 and response.headers["Content-Type"].startswith("text/html"):
            assert "is visiting" in response.content.decode(), name
    assert contents() == before


def test_a_visiting_operator_writes_nothing(world: World) -> None:
    client, before = visitor(world), contents()
    for write in WRITES:
        if f"console:{write.name}" in WITHOUT_TENANT:
            continue
        data = {word: world.filled(value) for word, value in write.data.items()}
        address = world.address(f"console:{write.name}", **write.kwargs)
        for method in (client.post, client.put, client.patch, client.delete):
            assert method(address, data).status_code == 403, write
    assert contents() == before
