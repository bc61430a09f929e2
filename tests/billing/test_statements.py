"""Monthly statements: each posting in exactly one, locked, numbered without gaps, equal to the ledger."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO

import pypdf
import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django_scopes import scopes_disabled

from billing import ledger, reconcile, rollups
from billing.models import LedgerEntry, LedgerTransaction, Statement, StatementLine, UsageRollup
from billing.services.exchange_rates import set_exchange_rate
from billing.statements import making
from billing.statements.document import figure, pdf_of, places_of
from billing.statements.sheet import csv_of
from tenants.models import Organization
from tenants.permissions import Role
from tests.billing.made_usage import Tenant, event, make_member, make_tenant, utc
from tests.signed_in import signed_in

pytestmark = pytest.mark.django_db
D = Decimal
# Berlin is an hour ahead of UTC in January and February.
FEBRUARY, MARCH = utc("2026-02-10T12:00"), utc("2026-03-10T12:00")


@pytest.fixture
def acme() -> Tenant:
    return make_tenant("acme")


def use(tenant: Tenant, at: str, name: str, charge: str, group: str = "fast", team: str = "search") -> None:
    """A request of 100 tokens, summed and posted."""
    key = tenant.batch if team == "search" else tenant.banner
    event(key, at, f"{tenant.organization.slug}-{name}", charge, model_group=group, input_tokens=100)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_dirtybucket (organization_id, hour) VALUES (%s, date_trunc('hour', %s, 'UTC'))",
            [tenant.organization.pk, utc(at)],
        )
    rollups.refresh()
    ledger.post_usage()


def pay(tenant: Tenant, amount: str, at: str, reference: str = "wire-1", kind: str = "top_up") -> None:
    with scopes_disabled():
        made = LedgerTransaction.objects.create(
            organization=tenant.organization,
            kind=kind,
            reference=f"{tenant.organization.slug}-{reference}",
            posted_at=utc(at),
        )
        for account, sign in (("wallet", -1), ("cash", 1)):
            LedgerEntry.objects.create(
                transaction=made, organization=tenant.organization, account=account, amount=sign * D(amount)
            )


def lines(statement: Statement) -> list[tuple[str, str, str, str]]:
    """Kind or corrected month, team, model group, amount."""
    with scopes_disabled():
        found = (
            StatementLine.objects.filter(statement=statement).select_related("corrects").order_by("position")
        )
        return [
            (
                f"{line.corrects.month:%Y-%m}" if line.corrects else line.kind,
                line.team,
                line.model_group,
                f"{line.amount.normalize():f}",
            )
            for line in found
        ]


def january(tenant: Tenant) -> None:
    """10 paid in, 3.000000000001 used."""
    pay(tenant, "10", "2026-01-05T09:00")
    use(tenant, "2026-01-10T10:00", "a", "1.000000000001")
    use(tenant, "2026-01-11T10:00", "b", "1.5", group="quality")
    use(tenant, "2026-01-12T10:00", "c", "0.5", team="ads")


def test_a_month_is_stated_by_team_and_model_and_equals_the_ledger(acme: Tenant) -> None:
    january(acme)
    (statement,) = making.make_through(acme.organization, FEBRUARY)
    assert lines(statement) == [
        ("usage", "Search", "quality", "-1.5"),
        ("usage", "Search", "fast", "-1.000000000001"),
        ("usage", "Ads", "fast", "-0.5"),
        ("top_up", "", "", "10"),
    ]
    assert (statement.opening, statement.closing) == (D(0), D("6.999999999999"))
    assert statement.closing == ledger.balance(acme.organization)
    assert (statement.number, statement.month.isoformat()) == ("WEIR-2026-01-0001", "2026-01-01")
    assert statement.starts_at == datetime(2025, 12, 31, 23, tzinfo=UTC)
    assert statement.ends_at == datetime(2026, 1, 31, 23, tzinfo=UTC)


def test_the_end_of_the_month_is_that_of_the_organizations_zone(acme: Tenant) -> None:
    use(acme, "2026-01-31T22:30", "a", "1")
    use(acme, "2026-01-31T23:30", "b", "2")
    (statement,) = making.make_through(acme.organization, FEBRUARY)
    assert lines(statement) == [("usage", "Search", "fast", "-1")]
    (second,) = making.make_through(acme.organization, MARCH)
    assert (lines(second), second.opening) == ([("usage", "Search", "fast", "-2")], D(-1))


def test_it_is_made_six_hours_after_the_end_and_once(acme: Tenant) -> None:
    january(acme)
    end = utc("2026-01-31T23:00")
    assert making.make_through(acme.organization, end + timedelta(hours=6) - timedelta(seconds=1)) == []
    assert len(making.make_through(acme.organization, end + timedelta(hours=6))) == 1
    assert making.make_through(acme.organization, FEBRUARY) == []


def test_usage_that_comes_late_is_a_correction_in_the_next_statement(acme: Tenant) -> None:
    january(acme)
    (first,) = making.make_through(acme.organization, FEBRUARY)
    use(acme, "2026-01-10T10:30", "late", "0.25")
    use(acme, "2026-02-03T10:00", "d", "2")
    (second,) = making.make_through(acme.organization, MARCH)
    assert lines(second) == [
        ("usage", "Search", "fast", "-2"),
        ("2026-01", "Search", "fast", "-0.25"),
    ]
    assert (second.opening, second.closing) == (first.closing, first.closing - D("2.25"))
    assert second.closing == ledger.balance(acme.organization)
    with scopes_disabled():
        correction = StatementLine.objects.get(statement=second, corrects=first)
    assert (correction.requests, correction.tokens) == (1, 100)


def test_a_correction_of_a_corrected_month_counts_only_what_is_new(acme: Tenant) -> None:
    january(acme)
    making.make_through(acme.organization, FEBRUARY)
    use(acme, "2026-01-10T10:30", "late", "0.25")
    making.make_through(acme.organization, MARCH)
    use(acme, "2026-01-10T10:40", "later", "0.125")
    (third,) = making.make_through(acme.organization, utc("2026-04-10T12:00"))
    assert lines(third) == [("2026-01", "Search", "fast", "-0.125")]
    assert third.closing == ledger.balance(acme.organization)


def test_a_month_without_postings_has_no_statement_and_the_next_begins_where_the_last_ended(
    acme: Tenant,
) -> None:
    january(acme)
    (first,) = making.make_through(acme.organization, utc("2026-03-10T12:00"))
    use(acme, "2026-03-05T10:00", "d", "2")
    (second,) = making.make_through(acme.organization, utc("2026-04-10T12:00"))
    assert (f"{second.month:%Y-%m}", second.starts_at) == ("2026-03", first.ends_at)
    # Late usage of the month that was skipped lies in the statement that spans it.
    use(acme, "2026-02-05T10:00", "e", "1")
    (third,) = making.make_through(acme.organization, utc("2026-05-10T12:00"))
    assert lines(third) == [("2026-03", "Search", "fast", "-1")]


def test_several_months_are_made_oldest_first(acme: Tenant) -> None:
    for month in ("01", "02", "03"):
        use(acme, f"2026-{month}-10T10:00", month, "1")
    made = making.make_through(acme.organization, utc("2026-04-10T12:00"))
    assert [(f"{each.month:%m}", each.opening, each.closing) for each in made] == [
        ("01", D(0), D(-1)),
        ("02", D(-1), D(-2)),
        ("03", D(-2), D(-3)),
    ]


def test_numbers_go_on_over_all_organizations(acme: Tenant) -> None:
    globex = make_tenant("globex")
    for tenant in (acme, globex):
        january(tenant)
    assert [each.number for each in making.make_due(FEBRUARY)] == ["WEIR-2026-01-0001", "WEIR-2026-01-0002"]


def test_a_statement_that_fails_leaves_no_gap_and_delays_nobody(
    acme: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    globex = make_tenant("globex")
    for tenant in (acme, globex):
        january(tenant)
    with scopes_disabled():
        UsageRollup.objects.filter(organization=acme.organization, model_group="quality").update(charge=9)
    assert [each.number for each in making.make_due(FEBRUARY)] == ["WEIR-2026-01-0001"]
    assert "The statement of acme could not be made." in caplog.text
    with scopes_disabled():
        UsageRollup.objects.filter(organization=acme.organization, model_group="quality").update(
            charge=D("1.5")
        )
    assert [each.number for each in making.make_due(FEBRUARY)] == ["WEIR-2026-01-0002"]


def test_a_statement_waits_until_usage_is_summed(acme: Tenant) -> None:
    january(acme)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_dirtybucket (organization_id, hour) VALUES (%s, %s)",
            [acme.organization.pk, utc("2026-01-20T10:00")],
        )
    assert making.make_through(acme.organization, FEBRUARY) == []
    rollups.refresh()
    assert len(making.make_through(acme.organization, FEBRUARY)) == 1


def test_a_new_time_zone_neither_loses_nor_repeats_an_hour(acme: Tenant) -> None:
    january(acme)
    making.make_through(acme.organization, FEBRUARY)
    # By Honolulu's calendar these hours are still in January, which is locked.
    with scopes_disabled():
        Organization.objects.filter(pk=acme.organization.pk).update(time_zone="Pacific/Honolulu")
        acme.organization.refresh_from_db()
    use(acme, "2026-02-01T05:00", "d", "2")
    use(acme, "2026-02-28T23:30", "e", "3")
    (second,) = making.make_through(acme.organization, MARCH)
    assert second.starts_at == utc("2026-01-31T23:00")
    assert second.ends_at == utc("2026-03-01T10:00")
    assert second.closing == ledger.balance(acme.organization)


@pytest.mark.parametrize("table", ["statement", "statementline", "statementposting"])
@pytest.mark.parametrize("change", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_a_statement_cannot_be_changed(acme: Tenant, table: str, change: str) -> None:
    january(acme)
    making.make_through(acme.organization, FEBRUARY)
    with (
        pytest.raises(IntegrityError, match="only ever added"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(change.format(f"billing_{table}"))


def test_a_statement_that_does_not_add_up_is_refused_by_the_database(acme: Tenant) -> None:
    with pytest.raises(IntegrityError, match="do not add up"), scopes_disabled(), transaction.atomic():
        Statement.objects.create(
            organization=acme.organization,
            number="X",
            month="2026-01-01",
            starts_at=FEBRUARY,
            ends_at=MARCH,
            time_zone="UTC",
            issuer="Weir",
            customer="Acme",
            opening=D(0),
            closing=D(1),
        )
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def document_of(statement: Statement) -> tuple[str, bytes]:
    """The text of the PDF, and the CSV."""
    with scopes_disabled():
        found = list(
            StatementLine.objects.filter(statement=statement).select_related("corrects").order_by("position")
        )
    pdf = pdf_of(statement, found)
    assert pdf == pdf_of(statement, found)
    text = "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf)).pages)
    return text, csv_of(statement, found)


def test_the_documents_hold_every_digit(acme: Tenant) -> None:
    january(acme)
    making.make_through(acme.organization, FEBRUARY)
    use(acme, "2026-01-10T10:30", "late", "0.25")
    (statement,) = making.make_through(acme.organization, MARCH)
    text, sheet = document_of(statement)
    for words in (
        "Account statement", "Acme", "WEIR-2026-02-0001", "1 February 2026 to 28 February 2026",
        "Correction for 2026-01 (statement WEIR-2026-01-0001)", "6.749999999999", "6.999999999999", "Page 1 of 1",
    ):  # fmt: skip
        assert words in text
    rows = list(csv.DictReader(StringIO(sheet.decode(), newline="")))
    assert [(row["kind"], row["month"], row["amount"]) for row in rows] == [
        ("opening", "2026-02", "6.999999999999"),
        ("usage", "2026-01", "-0.25"),
        ("closing", "2026-02", "6.749999999999"),
    ]
    assert sum(D(row["amount"]) for row in rows[:-1]) == D(rows[-1]["amount"])


def test_a_long_statement_has_numbered_pages(acme: Tenant) -> None:
    for number in range(90):
        use(acme, "2026-01-10T10:00", str(number), "0.01", group=f"model-{number:02}")
    (statement,) = making.make_through(acme.organization, FEBRUARY)
    text, _ = document_of(statement)
    assert "Page 4 of 4" in text
    assert "model-89" in text


def test_figures_have_as_many_places_as_the_longest_needs() -> None:
    assert places_of([D("1.5"), D("2")]) == 2
    assert places_of([D("1.5"), D("0.000000000001")]) == 12
    assert figure(D("-1234567.5"), 3) == "\N{MINUS SIGN}1,234,567.500"


def test_the_command_makes_what_is_due_until_a_month(acme: Tenant) -> None:
    use(acme, "2026-01-10T10:00", "a", "1")
    use(acme, "2026-02-10T10:00", "b", "1")
    out = StringIO()
    call_command("statements", month="2026-01", stdout=out)
    assert out.getvalue() == "WEIR-2026-01-0001  acme  -1.000000000000\n"
    with pytest.raises(CommandError, match=r"--month: 'May' is no month"):
        call_command("statements", month="May")
    with pytest.raises(CommandError, match="--organization: there is no 'x'"):
        call_command("statements", organization="x")


def test_books_with_statements_balance(acme: Tenant) -> None:
    january(acme)
    making.make_through(acme.organization, FEBRUARY)
    assert [d for d in reconcile.compare().differences if "statement" in d.what] == []


def euros(tenant: Tenant, rate: str = "0.92", begins: str = "2026-01-20") -> None:
    set_exchange_rate(acting_user=None, currency="EUR", rate=D(rate), effective_from=utc(begins))
    tenant.organization.currency = "EUR"
    tenant.organization.save(update_fields=["currency"])


def test_it_is_invoiced_in_another_currency_at_the_rate_of_the_months_end_which_stays(acme: Tenant) -> None:
    euros(acme)
    pay(acme, "10", "2026-01-05T09:00")
    use(acme, "2026-01-10T10:00", "a", "12.5")
    (statement,) = making.make_through(acme.organization, FEBRUARY)
    set_exchange_rate(acting_user=None, currency="EUR", rate=D(2), effective_from=utc("2026-02-01"))
    statement.refresh_from_db()
    # 2.50 dollars are owed: 2.5 x 0.92.
    assert (statement.closing, statement.shown_currency, statement.rate) == (D("-2.5"), "EUR", D("0.92"))
    assert statement.invoiced == D("2.3")
    # The account goes on in dollars.
    use(acme, "2026-02-10T10:00", "b", "1")
    (second,) = making.make_through(acme.organization, MARCH)
    assert (second.opening, second.closing, second.invoiced) == (D("-2.5"), D("-3.5"), D(7))


def test_the_list_of_statements_can_be_had_with_every_digit(acme: Tenant) -> None:
    january(acme)
    euros(acme, begins="2026-02-20")
    use(acme, "2026-02-10T10:00", "d", "9.5")
    making.make_through(acme.organization, MARCH)
    owner = signed_in(make_member(acme.organization, "owner@acme.example", Role.OWNER).user)
    response = owner.get("/o/acme/statements/statements.csv")
    found = list(csv.reader(io.StringIO(b"".join(response).decode())))
    assert found[0][:7] == ["number", "month", "starts_at", "ends_at", "opening", "change", "closing"]
    assert found[0][7:] == ["currency", "closing_shown", "shown_currency", "rate"]
    january_ends, february_ends = "2026-01-31T23:00:00.000000Z", "2026-02-28T23:00:00.000000Z"
    # Times 0.92: 2.30000000000092, to twelve places.
    assert found[1][:4] == ["WEIR-2026-02-0001", "2026-02", january_ends, february_ends]
    assert found[1][4:7] == ["6.999999999999", "-9.50", "-2.500000000001"]
    assert found[1][7:] == ["USD", "-2.300000000001", "EUR", "0.920000000000"]
    assert found[2][:3] == ["WEIR-2026-01-0001", "2026-01", "2025-12-31T23:00:00.000000Z"]
    assert found[2][4:] == ["0.00", "6.999999999999", "6.999999999999", "USD", "6.999999999999", "USD", ""]
    page = owner.get("/o/acme/statements/").content.decode()
    assert 'href="/o/acme/statements/statements.csv"' in page


def test_the_document_names_what_is_invoiced_its_rate_and_the_dollars_behind_it(acme: Tenant) -> None:
    euros(acme)
    use(acme, "2026-01-10T10:00", "a", "12.5")
    (statement,) = making.make_through(acme.organization, FEBRUARY)
    with scopes_disabled():
        found = list(StatementLine.objects.filter(statement=statement).select_related("corrects"))
        text = " ".join(
            page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf_of(statement, found))).pages
        )
        rows = list(csv.DictReader(io.StringIO(csv_of(statement, found).decode("utf-8-sig"))))
    assert "EUR 11.50" in text
    assert "exactly 12.50 USD, 1 USD = 0.92 EUR" in text
    assert [(row["amount"], row["shown_amount"], row["shown_currency"], row["rate"]) for row in rows[1:]] == [
        ("-12.50", "-11.50", "EUR", "0.92"),
        ("-12.50", "-11.50", "EUR", "0.92"),
    ]


def test_without_a_rate_a_statement_is_made_in_dollars_rather_than_not_at_all(
    acme: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    euros(acme, begins="2026-02-05")
    use(acme, "2026-01-10T10:00", "a", "1")
    (statement,) = making.make_through(acme.organization, FEBRUARY)
    assert (statement.shown_currency, statement.rate, statement.invoiced) == ("USD", None, D(1))
    assert "made in US dollars" in caplog.text
    with scopes_disabled():
        document = pdf_of(statement, list(StatementLine.objects.filter(statement=statement)))
    text = " ".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(document)).pages)
    assert "US dollars: there was no rate for EUR" in " ".join(text.split())
