"""What export writes, apply takes back without a change; and it writes no secret."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django_scopes import scope

from billing.models import Budget
from billing.services.prices import set_price
from billing.services.quotas import set_quota
from gateway.configuration.apply import apply_configuration, load
from gateway.configuration.export import export, variable
from routing.models import Provider
from routing.services import create_deployment, create_model_group, create_provider
from routing.services.groups import Place
from tenants.models import ApiKey, Organization
from tenants.services.keys import update_key
from tests.cast import make_cast
from tests.configuration.filed import ENVIRONMENT, apply, changed, shown

pytestmark = pytest.mark.django_db
NAMES = {"OPENAI_API_KEY": ENVIRONMENT["OPENAI_API_KEY"]}


def applied_again(text: str) -> list[str]:
    configuration, document = load(text, "export.yaml", NAMES)
    return shown(apply_configuration(configuration, document))


def test_an_export_applied_to_the_same_database_changes_nothing() -> None:
    apply()
    assert applied_again(export()) == []


def test_an_export_of_what_was_made_by_hand_changes_nothing_either() -> None:
    cast = make_cast(
        "acme", credit_limit=Decimal("500.00"), markup=Decimal("0.125"), time_zone="Asia/Kathmandu"
    )
    for period, limit in (("day", "5"), ("month", "50.5")):
        set_quota(
            acting_user=None,
            scope="member",
            target=cast.bob,
            metric="budget",
            limit=Decimal(limit),
            period=period,
            hard=False,
            alert_at=[Decimal("0.5"), Decimal(1)],
        )
    provider = create_provider(acting_user=None, name="own", kind="vllm", base_url="http://127.0.0.1:9/v1")
    own = create_deployment(acting_user=None, name="own", provider=provider, model="own")
    set_price(acting_user=None, deployment=own, input=Decimal("0.5"))
    create_model_group(acting_user=None, name="fast", places=[Place(own)])
    for metric, limit, period in (("concurrency", "3", ""), ("budget", "2.5", "week")):
        set_quota(
            acting_user=None,
            scope="team",
            target=cast.search,
            metric=metric,
            limit=Decimal(limit),
            period=period,
            model_group="fast",
        )
    update_key(
        acting_user=None,
        key=cast.search_key,
        name='odd: "${name}"',
        expires_at=datetime(2027, 5, 1, 12, 30, tzinfo=UTC),
        allowed_ips=[],
        model_groups=[],
    )
    text = export()
    assert re.search(r"model_groups:\n +fast:\n +concurrency: 3\n", text)
    assert applied_again(text) == []
    with scope(organization=cast.organization):
        assert ApiKey.objects.filter(name='odd: "${name}"').count() == 1


def test_an_export_holds_no_secret() -> None:
    made = apply().made[0].secret
    text = export()
    for secret in (*ENVIRONMENT.values(), made):
        assert secret not in text
    assert re.findall(r"\$\{(\w+)\}", text) == ["OPENAI_API_KEY"]


def test_an_export_makes_the_same_again_in_an_empty_database() -> None:
    apply()
    text = export()
    with scope(organization=Organization.objects.get()):
        assert Budget.objects.get(quota=None).limit == 100
    Provider.objects.all()
    assert 'balance: "100.00"' in text
    assert "expires_at: 2027-12-31\n" in text


def test_amounts_are_written_as_quoted_decimals() -> None:
    apply(changed(('{input: "2.50"', '{input: "0.000001"')))
    assert re.search(r'input: "0\.000001"', export())


def test_what_the_file_cannot_say_is_left_out_and_remarked() -> None:
    apply()
    create_deployment(acting_user=None, name="free", provider=Provider.objects.get(name="local"), model="m")
    text = export()
    assert "# The deployment free has no price and is left out.\n" in text
    assert applied_again(text) == []


def test_an_empty_database_exports_an_empty_file() -> None:
    assert apply(export()).changes == []


@pytest.mark.parametrize(
    ("provider", "number", "expected"),
    [
        ("openai", 0, "OPENAI_API_KEY"),
        ("openai", 1, "OPENAI_API_KEY_2"),
        ("my-azure.eu", 0, "MY_AZURE_EU_API_KEY"),
        ("01ai", 0, "PROVIDER_01AI_API_KEY"),
    ],
)
def test_a_variable_is_named_after_its_provider(provider: str, number: int, expected: str) -> None:
    assert variable(provider, number, set()) == expected


def test_two_providers_never_share_a_variable() -> None:
    taken: set[str] = set()
    assert [variable(name, 0, taken) for name in ("a-b", "a.b")] == ["A_B_API_KEY", "A_B_API_KEY_2"]
