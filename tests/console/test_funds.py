"""Adding funds: checkouts at a real server that plays Stripe, its webhooks, the dummy provider, codes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from billing import ledger
from billing.models import Checkout, LedgerTransaction, RedeemableCode
from billing.services.codes import make_code, plain_code
from tenants.models import AuditEntry, User
from tests.billing.stripe_server import KEY, WEBHOOK_SECRET, PlayedStripe, event, signed
from tests.cast import Cast
from tests.console.conftest import SignIn
from tests.signed_in import signed_in

pytestmark = pytest.mark.django_db
FUNDS, WEBHOOK = "/o/acme/funds/", "/payments/stripe/"


@pytest.fixture
def finance(acme: Cast, sign_in: SignIn) -> Client:
    return sign_in(acme.fay)


@pytest.fixture
def stripe(settings: Any) -> Iterator[PlayedStripe]:
    played = PlayedStripe()
    settings.PAYMENTS = "stripe"
    settings.STRIPE_SECRET_KEY, settings.STRIPE_WEBHOOK_SECRET = KEY, WEBHOOK_SECRET
    settings.STRIPE_API_BASE = played.address
    settings.PUBLIC_URL = "https://weir.example"
    yield played
    played.close()


def begin(client: Client, amount: str = "25.50") -> Checkout:
    """Open a checkout by the form."""
    answer = client.post(FUNDS, {"amount": amount})
    assert answer.status_code == 302
    found: Checkout = Checkout.objects.latest("id")
    assert answer.headers["Location"] == f"{FUNDS}{found.reference}/"
    return found


def deliver(said: dict[str, Any], header: str | None = None) -> int:
    """Stripe's webhook, from nobody who is signed in; the status of the answer."""
    body = json.dumps(said).encode()
    client = Client(enforce_csrf_checks=True)
    sent = {"Stripe-Signature": signed(body) if header is None else header}
    return client.post(WEBHOOK, body, content_type="application/json", headers=sent).status_code


def balance(acme: Cast) -> Decimal:
    return ledger.balance(acme.organization)


def test_a_checkout_is_opened_at_the_provider_with_amount_and_address(
    acme: Cast, finance: Client, stripe: PlayedStripe
) -> None:
    checkout = begin(finance)
    ((form, headers),) = stripe.asked
    assert form["client_reference_id"] == headers["idempotency-key"] == checkout.reference
    assert form["line_items[0][price_data][unit_amount]"] == "2550"
    assert (form["line_items[0][price_data][currency]"], form["mode"]) == ("usd", "payment")
    assert form["success_url"] == f"https://weir.example{FUNDS}{checkout.reference}/"
    assert form["customer_email"] == "fay@acme.example"
    assert headers["authorization"] == f"Bearer {KEY}"
    page = finance.get(f"{FUNDS}{checkout.reference}/").content.decode()
    assert f'href="https://checkout.example/cs_test_{checkout.reference}"' in page
    assert balance(acme) == 0


def test_the_webhook_posts_what_was_paid_however_often_it_comes(
    acme: Cast, finance: Client, stripe: PlayedStripe
) -> None:
    checkout = begin(finance)
    said = event(checkout.reference, 2550)
    later = event(checkout.reference, 2550, "checkout.session.async_payment_succeeded")
    assert [deliver(each) for each in (said, said, later, said)] == [204] * 4
    assert balance(acme) == Decimal("25.50")
    posting = LedgerTransaction.objects.get(kind="top_up")
    assert (posting.reference, posting.actor) == (f"stripe:cs_test_{checkout.reference}", acme.fay.user)
    assert "Paid, and posted" in finance.get(f"{FUNDS}{checkout.reference}/").content.decode()
    assert AuditEntry.objects.filter(verb="topped up").count() == 1


def test_a_payment_that_is_not_settled_yet_is_posted_when_it_is(
    acme: Cast, finance: Client, stripe: PlayedStripe
) -> None:
    checkout = begin(finance)
    # Out of order: the late success may even come before the completion.
    assert deliver(event(checkout.reference, 2550, payment_status="unpaid")) == 204
    assert balance(acme) == 0
    deliver(event(checkout.reference, 2550, "checkout.session.async_payment_succeeded"))
    deliver(event(checkout.reference, 2550, payment_status="unpaid"))
    assert balance(acme) == Decimal("25.50")


@pytest.mark.parametrize("kind", ["none", "nonsense", "no digest", "of another body", "by another secret"])
def test_a_wrong_signature_is_refused(acme: Cast, finance: Client, stripe: PlayedStripe, kind: str) -> None:
    said = event(begin(finance).reference, 2550)
    headers = {
        "none": "",
        "nonsense": "nonsense",
        "no digest": "t=1,v1=00",
        "of another body": signed(b"something else"),
        "by another secret": signed(json.dumps(said).encode(), secret="whsec_other"),  # made up
    }
    assert deliver(said, headers[kind]) == 400
    assert balance(acme) == 0


def test_a_webhook_that_is_old_is_refused(acme: Cast, finance: Client, stripe: PlayedStripe) -> None:
    said = event(begin(finance).reference, 2550)
    assert deliver(said, signed(json.dumps(said).encode(), at=1_700_000_000)) == 400


@pytest.mark.parametrize(
    "said",
    [
        event("unknown", 2550),
        event("{ours}", 2550, "charge.succeeded"),
        event("{ours}", 2550, currency="eur"),
        event("{ours}", 2550, client_reference_id=None),
        event("{ours}", 2550, id="cs_test_of_another"),
    ],
)
def test_what_is_no_payment_of_ours_posts_nothing(
    acme: Cast, finance: Client, stripe: PlayedStripe, said: dict[str, Any]
) -> None:
    checkout = begin(finance)
    assert deliver(json.loads(json.dumps(said).replace("{ours}", checkout.reference))) == 204
    assert balance(acme) == 0


def test_a_provider_that_refuses_is_a_message_without_its_words(
    acme: Cast, finance: Client, stripe: PlayedStripe, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stripe.status = 401
    page = finance.post(FUNDS, {"amount": "25"})
    assert page.status_code == 422
    assert "does not answer as it should" in page.content.decode()
    for text in (page.content.decode(), caplog.text):
        assert KEY not in text
        assert WEBHOOK_SECRET not in text


@pytest.mark.parametrize("amount", ["4.99", "50000.01", "25.001", "", "x", "NaN", "-5"])
def test_a_wrong_amount_is_said_and_asks_no_provider(
    finance: Client, stripe: PlayedStripe, amount: str
) -> None:
    assert finance.post(FUNDS, {"amount": amount}).status_code == 422
    assert stripe.asked == []


def test_the_webhook_of_a_provider_that_is_not_used_does_not_exist(settings: Any) -> None:
    settings.PAYMENTS = "dummy"
    assert deliver(event("x", 100)) == 404
    settings.PAYMENTS = ""
    assert Client().post("/payments/dummy/", b"{}", content_type="application/json").status_code == 404


def test_without_a_provider_only_codes_are_taken(finance: Client, settings: Any) -> None:
    settings.PAYMENTS = ""
    page = finance.get(FUNDS).content.decode()
    assert "Continue to payment" not in page
    assert "Redeem a code" in page
    assert finance.post(FUNDS, {"amount": "25"}).status_code == 404


def test_the_dummy_pays_by_a_button_once(acme: Cast, finance: Client, settings: Any) -> None:
    settings.PAYMENTS = "dummy"
    checkout = begin(finance)
    for _ in range(2):
        assert finance.post(f"{FUNDS}{checkout.reference}/").status_code in (200, 302)
    assert balance(acme) == Decimal("25.50")


def test_the_dummys_webhook_needs_its_signature(acme: Cast, finance: Client, settings: Any) -> None:
    settings.PAYMENTS = "dummy"
    body = json.dumps({"reference": begin(finance).reference, "amount": "25.50"})
    sent = {"X-Dummy-Signature": "00"}
    answer = Client().post("/payments/dummy/", body, content_type="application/json", headers=sent)
    assert (answer.status_code, balance(acme)) == (400, Decimal(0))


def test_a_checkout_of_stripe_is_not_paid_by_the_dummys_button(
    acme: Cast, finance: Client, stripe: PlayedStripe
) -> None:
    checkout = begin(finance)
    assert finance.post(f"{FUNDS}{checkout.reference}/").status_code == 404
    assert balance(acme) == 0


# --- Codes -----------------------------------------------------------------------------------------


def redeem(client: Client, text: str) -> str:
    """Redeem by the form; the page that follows."""
    return client.post(f"{FUNDS}code/", {"code": text}, follow=True).content.decode()


def test_a_code_is_redeemed_once_and_stored_as_a_digest(acme: Cast, finance: Client) -> None:
    code, text = make_code(acting_user=None, amount=Decimal("12.5"))
    assert plain_code(text) not in str(RedeemableCode.objects.values().get())
    page = redeem(finance, f" {text.lower().replace('-', ' ')} ")
    assert f"Redeemed: Code ending in {code.last_four}." in page
    assert balance(acme) == Decimal("12.5")
    assert "was redeemed before" in redeem(finance, text)
    assert balance(acme) == Decimal("12.5")
    assert ledger.balances(acme.organization)["codes"] == Decimal("12.5")
    assert AuditEntry.objects.filter(verb="redeemed", actor=acme.fay.user).count() == 1


def test_a_code_redeemed_by_another_organization_is_used(
    acme: Cast, other: Cast, finance: Client, sign_in: SignIn
) -> None:
    _, text = make_code(acting_user=None, amount=Decimal(5))
    sign_in(other.ann).post("/o/other/funds/code/", {"code": text})
    assert "was redeemed before" in redeem(finance, text)
    assert (balance(acme), balance(other)) == (Decimal(0), Decimal(5))


def test_letters_that_look_like_digits_are_read_as_digits() -> None:
    assert plain_code("oIl0-abcd") == "0110ABCD"


def test_a_code_that_is_over_or_unknown_is_refused(acme: Cast, finance: Client) -> None:
    code, text = make_code(
        acting_user=None, amount=Decimal(5), expires_at=timezone.now() + timedelta(hours=1)
    )
    RedeemableCode.objects.filter(pk=code.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "can no longer be redeemed" in redeem(finance, text)
    assert "There is no such code" in redeem(finance, "0000-0000")
    assert balance(acme) == 0


def test_the_command_prints_codes_that_work(
    acme: Cast, finance: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("codes", "7.25", count=2, memo="fair")
    first, second = capsys.readouterr().out.split()
    redeem(finance, first)
    redeem(finance, second)
    assert balance(acme) == Decimal("14.5")
    for wrong in ({"amount": "x"}, {"amount": "-1"}, {"amount": "5", "expires": "2020-01-01"}):
        with pytest.raises(CommandError):
            call_command("codes", wrong.pop("amount"), **wrong)


def test_an_operator_makes_a_code_that_is_shown_once(db: None) -> None:
    client = signed_in(User.objects.create_superuser("olga@platform.example", "x"))
    page = client.post("/admin/billing/redeemablecode/add/", {"amount": "30", "memo": "prize"}, follow=True)
    (shown,) = [str(message) for message in page.context["messages"] if "is worth" in str(message)]
    assert RedeemableCode.objects.get().last_four in shown.split()[0]


def test_the_ledger_offers_funds_to_those_who_may_add_them(acme: Cast, sign_in: SignIn) -> None:
    assert "Add funds" in sign_in(acme.fay).get("/o/acme/ledger/").content.decode()
    assert "Add funds" not in sign_in(acme.adam).get("/o/acme/ledger/").content.decode()
