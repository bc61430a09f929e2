"""The ledger page: each posting with the balance after it, filters, the download, who may see it."""

from __future__ import annotations

import csv
import io
import re
from datetime import datetime
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_scopes import scopes_disabled

from billing import ledger, wallet_lines
from billing.models import LedgerEntry, LedgerTransaction, ReconcileReport
from billing.services.exchange_rates import set_exchange_rate
from billing.services.wallet import top_up
from gateway.console import ledger as pages
from tenants.models import Organization, User
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, make_member, make_tenant, utc
from tests.signed_in import signed_in

pytestmark = pytest.mark.django_db

LEDGER = "/o/acme/ledger/"


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


@pytest.fixture
def finance(acme: Tenant) -> Client:
    return signed_in(make_member(acme.organization, "fin@acme.example", Role.FINANCE).user)


def post(
    tenant: Tenant, kind: str, amount: str, at: str, *, memo: str = "", hour: datetime | None = None
) -> None:
    """A posting that moves the wallet by ``amount``, on a chosen date."""
    other = {"usage": "revenue", "top_up": "cash"}.get(kind, "adjustment")
    with scopes_disabled():
        made = LedgerTransaction.objects.create(
            organization=tenant.organization,
            kind=kind,
            reference=f"{tenant.organization.slug}:{LedgerTransaction.objects.count()}",
            memo=memo,
            usage_hour=hour,
            posted_at=utc(at),
        )
        for account, sign in (("wallet", -1), (other, 1)):
            LedgerEntry.objects.create(
                transaction=made,
                organization=tenant.organization,
                account=account,
                amount=sign * Decimal(amount),
            )


def make_month(tenant: Tenant) -> None:
    """10 paid in, 2.5 and 0.000000000001 used, 1 given: 8.499999999999 are left."""
    post(tenant, "top_up", "10", "2026-03-01T09:00", memo="invoice 7")
    post(tenant, "usage", "-2.5", "2026-03-02T11:00", hour=utc("2026-03-02T10:00"))
    post(tenant, "usage", "-0.000000000001", "2026-03-03T11:00", hour=utc("2026-03-03T10:00"))
    post(tenant, "adjustment", "1", "2026-03-31T22:30", memo="goodwill")


def rows(client: Client, query: str = "") -> list[list[str]]:
    """The cells of the table: date, kind, what for, amount, balance."""
    page = client.get(f"{LEDGER}?{query}").content.decode()
    if "<tbody>" not in page:
        return []
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    return [
        [
            " ".join(re.sub(r"<[^>]+>", " ", cell).replace("$ ", "$").split())
            for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, flags=re.DOTALL)
        ]
        for row in body.split("<tr")[1:]
    ]


def exact(client: Client, query: str = "") -> list[tuple[str, str]]:
    """The exact amount and balance of each row, from their titles."""
    page = client.get(f"{LEDGER}?{query}").content.decode()
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    titles = re.findall(r'class="money[^"]*" title="\$([^"]+)"', body)
    return list(zip(titles[::2], titles[1::2], strict=True))


def downloaded(tenant: Tenant, **asked: str) -> list[dict[str, str]]:
    """The lines of the CSV."""
    selection = pages.asked_for({k.rstrip("_"): v for k, v in asked.items()}, tenant.organization).selection

    async def gathered() -> bytes:
        return b"".join(
            [piece async for piece in wallet_lines.streamed_lines(tenant.organization, selection)]
        )

    text = async_to_sync(gathered)().decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_each_posting_has_its_amount_and_the_balance_after_it(acme: Tenant, finance: Client) -> None:
    make_month(acme)
    assert exact(finance) == [
        ("1.00", "8.499999999999"),
        ("-0.000000000001", "7.499999999999"),
        ("-2.50", "7.50"),
        ("10.00", "10.00"),
    ]


def test_a_row_names_kind_and_purpose_at_local_time(acme: Tenant, finance: Client) -> None:
    make_month(acme)
    # 22:30 UTC on 31 March is 0:30 on 1 April in Berlin, which is on summer time by then.
    newest, *_, usage, oldest = rows(finance)
    assert newest[:2] == ["1 Apr 2026, 00:30", "Adjustment"]
    assert newest[2].startswith("goodwill ")
    assert usage[:3] == ["2 Mar 2026, 12:00", "Usage", "Requests of 2 Mar 2026, 11:00"]
    assert oldest[0:2] == ["1 Mar 2026, 10:00", "Top-up"]


def test_the_balance_on_the_page_is_that_of_the_ledger(acme: Tenant, finance: Client) -> None:
    make_month(acme)
    page = finance.get(LEDGER)
    assert page.context["balance"] == ledger.balance(acme.organization) == Decimal("8.499999999999")
    assert page.context["paid_in"] == Decimal(11)


def test_a_filter_leaves_the_running_balance_as_it_was(acme: Tenant, finance: Client) -> None:
    make_month(acme)
    assert exact(finance, "kind=usage") == [("-0.000000000001", "7.499999999999"), ("-2.50", "7.50")]
    assert exact(finance, "kind=adjustment") == [("1.00", "8.499999999999")]


def test_dates_are_days_of_the_organizations_zone(acme: Tenant, finance: Client) -> None:
    make_month(acme)
    assert [row[1] for row in rows(finance, "from=2026-03-02&to=2026-03-31")] == ["Usage", "Usage"]
    assert [row[1] for row in rows(finance, "from=2026-04-01")] == ["Adjustment"]
    assert rows(finance, "to=2026-02-28") == []


def test_pages_join_without_a_gap_and_balances_go_on(
    acme: Tenant, finance: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE", 3)
    make_month(acme)
    first = finance.get(LEDGER)
    older = first.context["older"]
    assert len(first.context["lines"]) == 3
    assert exact(finance, f"before={older}") == [("10.00", "10.00")]
    assert finance.get(f"{LEDGER}?before={older}").context["older"] is None


def test_the_last_balance_of_the_csv_is_the_balance_of_the_page(
    acme: Tenant, finance: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wallet_lines, "CHUNK", 2)
    make_month(acme)
    lines = downloaded(acme)
    assert [line["amount"] for line in lines] == ["10.00", "-2.50", "-0.000000000001", "1.00"]
    assert Decimal(lines[-1]["balance"]) == finance.get(LEDGER).context["balance"]
    assert sum(Decimal(line["amount"]) for line in lines) == Decimal(lines[-1]["balance"])
    assert (lines[1]["usage_hour"], lines[1]["currency"]) == ("2026-03-02T10:00:00.000000Z", "USD")


def test_the_csv_takes_the_filters_of_the_page(acme: Tenant) -> None:
    make_month(acme)
    lines = downloaded(acme, kind="usage", from_="2026-03-03")
    assert [(line["amount"], line["balance"]) for line in lines] == [("-0.000000000001", "7.499999999999")]


def test_a_memo_stays_text_in_a_spreadsheet_and_a_negative_amount_a_number(acme: Tenant) -> None:
    post(acme, "adjustment", "-3", "2026-03-01T09:00", memo="=1+1")
    assert [(line["memo"], line["amount"]) for line in downloaded(acme)] == [("'=1+1", "-3.00")]


def test_the_download_is_an_attachment(acme: Tenant, finance: Client) -> None:
    response = finance.get(f"{LEDGER}ledger.csv?kind=top_up&from=2026-03-01&to=2026-03-31")
    assert response.headers["Content-Disposition"] == (
        'attachment; filename="ledger-acme-top_up-2026-03-01-2026-03-31.csv"'
    )


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("kind=gift", "kind: “gift” is no kind of posting."),
        ("from=March", "from: “March” is no date."),
        ("from=2026-03-02&to=2026-03-01", "to: the last day is before the first."),
        ("to=0001-01-01", "to: 0001-01-01 is out of range."),
    ],
)
def test_what_cannot_be_understood_is_said(acme: Tenant, finance: Client, query: str, message: str) -> None:
    page = finance.get(f"{LEDGER}?{query}")
    assert (page.status_code, message in page.content.decode()) == (200, True)
    refused = finance.get(f"{LEDGER}ledger.csv?{query}")
    assert (refused.status_code, message in refused.content.decode()) == (400, True)


@pytest.mark.parametrize("before", ["x", "-1", "٣", "9" * 40, ""])
def test_a_wrong_page_is_the_first_one(acme: Tenant, finance: Client, before: str) -> None:
    make_month(acme)
    assert len(finance.get(LEDGER, {"before": before}).context["lines"]) == 4


def test_another_tenants_postings_are_never_in(acme: Tenant, finance: Client) -> None:
    globex = make_tenant("globex")
    make_month(acme)
    post(globex, "top_up", "500", "2026-03-01T09:00", memo="theirs")
    make_month(globex)
    assert len(rows(finance)) == 4
    assert downloaded(acme)[-1]["balance"] == "8.499999999999"


def test_an_empty_ledger_says_what_will_be_there(acme: Tenant, finance: Client) -> None:
    page = finance.get(LEDGER).content.decode()
    assert "Nothing is posted yet" in page
    assert "No limit" in page
    assert downloaded(acme) == []


def test_what_can_be_spent_counts_what_is_held(acme: Tenant, finance: Client) -> None:
    organization = acme.organization
    with scopes_disabled():
        organization.billing = "prepaid"
        organization.save(update_fields=["billing"])
    top_up(acting_user=None, organization=organization, amount=Decimal(10), reference="r1")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_budget SET spent = 3, held = 0.5 WHERE organization_id = %s", [organization.pk]
        )
    assert finance.get(LEDGER).context["spendable"] == Decimal("6.5")


def test_the_page_says_when_the_books_balanced(acme: Tenant, finance: Client) -> None:
    ReconcileReport.objects.create(balanced=True, at=utc("2026-03-01T02:00"))
    assert "Books balanced at 1 Mar 2026, 03:00" in finance.get(LEDGER).content.decode()


def test_queries_do_not_grow_with_rows(acme: Tenant, finance: Client) -> None:
    make_month(acme)
    with CaptureQueriesContext(
        connection,
    ) as few:
        finance.get(LEDGER)
    for _ in range(5):
        make_month(acme)
    with CaptureQueriesContext(connection) as many:
        finance.get(LEDGER)
    assert len(many) == len(few)


@pytest.fixture
def operator(db: None) -> Client:
    return signed_in(User.objects.create_superuser("olga@platform.example", "x"))


def operate(client: Client, organization: Organization, **changes: str) -> str:
    """Send the operator's form of an organization; returns the message shown."""
    data = {"name": organization.name, "time_zone": "Europe/Berlin", "billing": "prepaid", "markup": "0"}
    address = f"/admin/tenants/organization/{organization.pk}/change/"
    response = client.post(address, data | changes, follow=True)
    return " ".join(str(message) for message in response.context["messages"])


def test_an_operator_adjusts_and_refunds(acme: Tenant, finance: Client, operator: Client) -> None:
    organization = acme.organization
    operate(operator, organization, top_up="10", reference="wire-1")
    operate(operator, organization, adjustment="-1", reason="Double credit", reference="a1")
    operate(operator, organization, refund="4", refunded="wire-1", reason="Contract ended", reference="b1")
    assert exact(finance) == [
        ("-4.00", "5.00"),
        ("-1.00", "9.00"),
        ("10.00", "10.00"),
    ]
    refund, adjustment, _ = rows(finance)
    assert (refund[1], adjustment[1]) == ("Refund", "Adjustment")
    assert adjustment[2] == "Double credit a1 · olga@platform.example"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adjustment": "1"}, "needs a person and a reason"),
        ({"refund": "1", "refunded": "wire-9", "reason": "x"}, "no top-up with the reference 'wire-9'"),
        ({"refund": "11", "refunded": "wire-1", "reason": "x"}, "10.00 US dollars are left"),
    ],
)
def test_what_the_books_refuse_is_a_message_and_changes_nothing(
    acme: Tenant, operator: Client, changes: dict[str, str], message: str
) -> None:
    organization = acme.organization
    operate(operator, organization, top_up="10", reference="wire-1")
    assert message in operate(operator, organization, name="Renamed", **changes)
    organization.refresh_from_db()
    assert (organization.name, ledger.balance(organization)) == ("Acme", Decimal(10))


def test_an_organization_with_another_currency_sees_about_how_much_its_balance_is(
    acme: Tenant, finance: Client
) -> None:
    post(acme, "top_up", "10", "2026-01-05T09:00")
    assert "about" not in finance.get(LEDGER).content.decode()
    set_exchange_rate(
        acting_user=None, currency="EUR", rate=Decimal("0.92"), effective_from=utc("2026-01-01")
    )
    Organization.objects.update(currency="EUR")
    assert "about EUR 9.20" in finance.get(LEDGER).content.decode()
