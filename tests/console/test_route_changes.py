"""Operators change deployments and model groups: what a preview says, what saving does and refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_scopes import scopes_disabled

from billing.services.prices import set_price
from routing.models import Deployment, GroupDeployment, ModelGroup, Provider
from routing.services.deployments import create_deployment
from routing.services.groups import Place, create_model_group
from routing.services.providers import create_provider
from tenants.models import AuditEntry, User

pytestmark = pytest.mark.django_db

SMALL, LARGE = "/operator/deployments/small/", "/operator/deployments/large/"
FAST = "/operator/groups/fast/"


@pytest.fixture(autouse=True)
def everywhere() -> Iterator[None]:
    """The operators' pages see all tenants."""
    with scopes_disabled():
        yield


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_user("olga@platform.example", is_staff=True))
    return client


def made(provider: Provider, name: str, **columns: Any) -> Deployment:
    """A deployment with a price."""
    found = create_deployment(acting_user=None, name=name, provider=provider, model=f"m-{name}", **columns)
    set_price(acting_user=None, deployment=found, input=Decimal(1), output=Decimal(2))
    return found


@pytest.fixture(autouse=True)
def routing(db: None) -> None:
    """``fast`` tries ``small``, then ``large``; ``spare`` has ``large`` alone."""
    provider = create_provider(
        acting_user=None, name="upstream", kind="generic", base_url="http://127.0.0.1:9/v1"
    )
    create_provider(acting_user=None, name="other", kind="generic", base_url="http://127.0.0.1:8/v1")
    small, large = made(provider, "small"), made(provider, "large")
    create_model_group(
        acting_user=None,
        name="fast",
        places=[Place(small, 1, 1), Place(large, 2, 1)],
        max_cost=Decimal("2.5"),
    )
    create_model_group(acting_user=None, name="spare", places=[Place(large)])


EXAMPLE = {"example-tokens": "1000", "example-output": "500"}


def deployment_form(**changes: Any) -> dict[str, Any]:
    """What the page of ``small`` sends if nothing was typed."""
    return {"provider": "upstream", "model": "m-small", "anything": "on", **EXAMPLE, **changes}


def group_form(places: list[tuple[str, str, str]] | None = None, **changes: Any) -> dict[str, Any]:
    """What the page of ``fast`` sends if nothing was typed."""
    rows = places if places is not None else [("small", "1", "1"), ("large", "2", "1")]
    sent = {
        f"places-{index}-{name}": value
        for index, row in enumerate(rows)
        for name, value in zip(("deployment", "priority", "weight"), row, strict=True)
    }
    fixed = {"strategy": "priority", "structured_output": "repair", "unsupported_params": "map"}
    switches = {"pin": "on", "affinity": "on", "max_cost": "2.5", "rules": "[]"}
    count = {"places-TOTAL_FORMS": str(len(rows)), "places-INITIAL_FORMS": "2"}
    return {**fixed, **switches, **count, **sent, **EXAMPLE, **changes}


def preview(client: Client, address: str, data: dict[str, Any], status: int = 200) -> str:
    response = client.post(address, {**data, "do": "preview"})
    assert response.status_code == status
    return str(response.content.decode())


def token_in(page: str) -> str:
    found = re.search(r'name="token" value="(\w+)"', page)
    assert found is not None
    return found.group(1)


def save(client: Client, address: str, data: dict[str, Any]) -> Any:
    """Preview, then save what was previewed."""
    token = token_in(preview(client, address, data))
    return client.post(address, {**data, "do": "save", "token": token})


def cells(page: str) -> list[list[str]]:
    """The rows of the preview's tables, tags and needless spaces left out."""
    shown = page.split('id="preview"')[1].split("</section>", maxsplit=1)[0]
    return [
        [
            " ".join(re.sub(r"<[^>]+>", " ", cell).split())
            for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)
        ]
        for row in re.findall(r"<tr>.*?</tr>", shown, re.DOTALL)
    ]


def entries() -> int:
    return AuditEntry.objects.count()


# --- Deployments ------------------------------------------------------------------------------------


def test_a_preview_shows_the_difference_and_how_candidates_move_and_changes_nothing(operator: Client) -> None:
    before = entries()
    # 1000 tokens are more than twice 400, so small cannot take the example.
    rows = cells(preview(operator, SMALL, deployment_form(context_window="400")))
    assert ["Context window", "unknown", "400"] in rows
    assert [
        "small",
        "1. priority 1",
        "left out: the request is longer than its context window of 400",
    ] in rows
    assert ["large", "2. priority 2", "1. priority 2"] in rows
    assert Deployment.objects.get(name="small").context_window is None
    assert entries() == before


def test_saving_makes_the_previewed_change_with_an_audit_entry(operator: Client) -> None:
    response = save(
        operator,
        SMALL,
        deployment_form(context_window="400", anything="", capabilities=["tools"], region="eu"),
    )
    assert response.headers["Location"] == SMALL
    small = Deployment.objects.get(name="small")
    assert (small.context_window, small.capabilities, small.region) == (400, ["tools"], "eu")
    entry = AuditEntry.objects.get(target_type="deployment", verb="changed")
    assert entry.actor is not None
    assert entry.actor.email == "olga@platform.example"
    assert entry.detail["context_window"] == {"from": None, "to": 400}


def test_what_was_typed_after_the_preview_is_previewed_not_saved(operator: Client) -> None:
    token = token_in(preview(operator, SMALL, deployment_form(context_window="400")))
    sent = {**deployment_form(context_window="4"), "do": "save", "token": token}
    page = operator.post(SMALL, sent).content.decode()
    assert "This is not the change that was previewed" in page
    assert ["Context window", "unknown", "4"] in cells(page)
    assert Deployment.objects.get(name="small").context_window is None


def test_what_another_operator_changed_meanwhile_is_not_overwritten_unseen(operator: Client) -> None:
    data = deployment_form(context_window="400")
    token = token_in(preview(operator, SMALL, data))
    Deployment.objects.filter(name="small").update(region="us")
    page = operator.post(SMALL, {**data, "do": "save", "token": token}).content.decode()
    assert ["Region", "us", "not said"] in cells(page)
    assert Deployment.objects.get(name="small").region == "us"


def test_an_untouched_form_changes_nothing(operator: Client) -> None:
    page = preview(operator, SMALL, deployment_form())
    assert "Nothing changes" in page
    assert 'value="save"' not in page


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"provider": "nobody"}, "Select a valid choice"),
        ({"model": ""}, "This field is required"),
        ({"context_window": "0"}, "greater than or equal to 1"),
        ({"region": "EU West"}, "Use 1 to 40 lower-case letters"),
        ({"capabilities": ["flying"]}, "Select a valid choice"),
        ({"example-tokens": "-1"}, "greater than or equal to 0"),
    ],
)
def test_a_deployment_that_cannot_be_is_refused_at_its_field(
    operator: Client, wrong: dict[str, Any], said: str
) -> None:
    page = preview(operator, SMALL, deployment_form(**wrong), status=422)
    assert said in page
    assert 'id="preview"' not in page


def test_the_preview_shows_every_group_of_the_deployment(operator: Client) -> None:
    page = preview(operator, LARGE, deployment_form(model="m-large", region="eu"))
    shown = page.split('id="preview"')[1]
    assert re.findall(r"<h2 class=\"break\">(\w+)</h2>", shown) == ["fast", "spare"]
    assert "Candidates change" not in shown


# --- Groups -----------------------------------------------------------------------------------------


def test_draining_a_deployment_shows_who_takes_over(operator: Client) -> None:
    data = group_form([("small", "1", "0"), ("large", "2", "1")])
    rows = cells(preview(operator, FAST, data))
    assert ["small", "1. priority 1", "left out: drained: its weight is 0"] in rows
    assert ["large", "2. priority 2", "1. priority 2"] in rows
    assert GroupDeployment.objects.get(deployment__name="small").weight == 1
    assert save(operator, FAST, data).status_code == 302
    assert GroupDeployment.objects.get(deployment__name="small").weight == 0
    assert AuditEntry.objects.filter(target_type="modelgroup", verb="set deployments").count() == 1


def test_strategy_fallbacks_rules_and_limits_are_saved(operator: Client) -> None:
    rules = [{"when": {"needs": ["vision"]}, "deployments": ["large"]}]
    data = group_form(
        strategy="cheapest",
        on_error="spare",
        rules=json.dumps(rules),
        max_cost="1",
        regions="eu us",
        hedge="on",
    )
    assert save(operator, FAST, data).status_code == 302
    group = ModelGroup.objects.get(name="fast")
    assert (group.strategy, group.fallbacks, group.rules) == ("cheapest", {"on_error": ["spare"]}, rules)
    assert (group.max_cost, group.regions, group.hedge, group.resume) == (
        Decimal(1),
        ["eu", "us"],
        True,
        False,
    )


def test_a_rule_is_tried_on_the_example_request(operator: Client) -> None:
    rules = json.dumps([{"when": {"input_tokens_over": 999}, "use": "spare"}])
    page = preview(operator, FAST, group_form(rules=rules))
    assert "Served by fast before, by spare after." in page
    assert ["large", "2. priority 2", "1. priority 1"] in cells(page)
    page = preview(operator, FAST, group_form(rules=rules) | {"example-tokens": "999"})
    assert "Served by" not in page


def test_another_group_whose_candidates_move_is_shown_too(operator: Client) -> None:
    ModelGroup.objects.filter(name="spare").update(fallbacks={"on_error": ["fast"]})
    page = preview(operator, FAST, group_form([("large", "1", "1")]))
    assert re.findall(r"<h2 class=\"break\">(\w+)</h2>", page.split('id="preview"')[1]) == ["fast", "spare"]
    assert ["small", "2. by fast", "not looked at"] in cells(page)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"on_error": "nowhere"}, "on_error leads to nowhere, which is not a model group"),
        ({"on_error": "fast"}, "on_error goes in a circle: fast -&gt; fast"),
        ({"on_error": "spare, spare"}, "spare is in the list twice"),
        ({"rules": '[{"when": {}, "use": "spare"}]'}, "rules[0].when: must give a condition"),
        ({"rules": '[{"when": {"plan": "gold"}, "use": "spare"}]'}, "there is no plan &#x27;gold&#x27;"),
        ({"rules": '[{"when": {"needs": ["tools"]}, "deployments": ["x"]}]'}, "x is no deployment of fast"),
        ({"rules": "[{"}, "Enter a valid JSON"),
        ({"rules": '["\\u0000"]'}, "U+0000"),
        ({"regions": "EU"}, "regions:"),
        ({"max_cost": "-1"}, "greater than or equal to 0"),
        ({"places": [("nobody", "1", "1")]}, "There is no deployment nobody"),
        ({"places": [("small", "1", "1"), ("small", "2", "1")]}, "small is there twice"),
        ({"places": [("small", "1", "-1")]}, "greater than or equal to 0"),
        ({"places": []}, "No deployment of fast has a price"),
    ],
)
def test_what_apply_refuses_is_refused_and_nothing_changes(
    operator: Client, changes: dict[str, Any], said: str
) -> None:
    before = entries()
    page = preview(operator, FAST, group_form(**changes), status=422)
    assert said in page
    sent = operator.post(FAST, {**group_form(**changes), "do": "save", "token": "x"})
    assert sent.status_code == 422
    assert entries() == before
    assert ModelGroup.objects.get(name="fast").rules == []


def test_what_was_typed_is_still_there_after_a_refusal(operator: Client) -> None:
    page = preview(operator, FAST, group_form(on_error="nowhere", regions="eu"), status=422)
    assert 'value="nowhere"' in page
    assert 'value="eu"' in page


# --- Lists ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/operator/deployments/", "/operator/groups/"])
def test_a_list_is_searched_and_paged_and_asks_no_more_for_more_rows(operator: Client, address: str) -> None:
    def counted() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert operator.get(address).status_code == 200
        return len(queries)

    before = counted()
    provider = Provider.objects.get(name="upstream")
    for number in range(60):
        place = Place(made(provider, f"z{number:02}"))
        create_model_group(acting_user=None, name=f"z{number:02}", places=[place])
    assert counted() == before
    first = operator.get(address).content.decode()
    # 50 of 62 rows on the first page: the first two names, then z00 to z47.
    assert "z47" in first
    assert "z48" not in first
    assert "z59" in operator.get(f"{address}?after=z47").content.decode()
    assert "z05" not in operator.get(f"{address}?q=z59").content.decode()


@pytest.mark.parametrize("address", [SMALL, FAST])
def test_a_preview_asks_no_more_for_more_deployments_and_groups(operator: Client, address: str) -> None:
    rows = [("small", "1", "1"), ("large", "2", "1")]

    def counted() -> int:
        data = deployment_form(region="eu") if address == SMALL else group_form(rows, hedge="on")
        with CaptureQueriesContext(connection) as queries:
            assert "What changes" in preview(operator, address, data)
        return len(queries)

    before = counted()
    provider = Provider.objects.get(name="upstream")
    fast, small = ModelGroup.objects.get(name="fast"), Deployment.objects.get(name="small")
    for number in range(12):
        added = made(provider, f"z{number:02}")
        GroupDeployment.objects.create(group=fast, deployment=added)
        create_model_group(acting_user=None, name=f"g{number:02}", places=[Place(small)])
        rows.append((added.name, "1", "1"))
    assert counted() == before
