"""Kept responses: found by the team that made them, gone on from, deleted, and never in plain text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
from django.db import connection
from django_scopes import scope, scopes_disabled

from gateway.models import StoredResponse
from gateway.tasks import delete_expired_responses
from tenants.services.keys import create_key
from tenants.services.teams import create_team
from tests.stack import Stack, Tenant
from tests.v1.conftest import books_balance, events


@pytest.fixture
def keeper(stack: Stack, slug: str) -> Any:
    """A tenant that keeps responses."""
    made = stack.tenant(f"{slug}-keeps", store_responses=True)
    yield made
    stack.settled()
    books_balance(made)


def rows(tenant: Tenant) -> list[StoredResponse]:
    with scope(organization=tenant.organization):
        return list(StoredResponse.objects.order_by("created_at"))


def test_a_kept_response_is_found_with_its_input_and_deleted(keeper: Tenant) -> None:
    sdk = keeper.client()
    made = sdk.responses.create(model="sim-small", input="one two three")
    assert made.model_dump()["store"] is True
    assert sdk.responses.retrieve(made.id).to_dict() == made.to_dict()
    items: list[Any] = list(sdk.responses.input_items.list(made.id))
    assert [(item.type, item.content[0].text) for item in items] == [("message", "one two three")]
    sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)
    assert len(events(keeper)) == 1


def test_a_conversation_goes_on_from_the_last_response_and_pays_for_all_of_it(keeper: Tenant) -> None:
    sdk = keeper.client()
    first = sdk.responses.create(model="sim-small", input="one two three")
    with sdk.responses.stream(model="sim-small", input="four", previous_response_id=first.id) as stream:
        second = stream.get_final_response()
    third = sdk.responses.create(model="sim-small", input="five", previous_response_id=second.id)
    assert first.usage is not None
    assert second.usage is not None
    assert third.usage is not None
    # Three words, then with the ten of the answer and one more, then again so.
    assert [first.usage.input_tokens, second.usage.input_tokens, third.usage.input_tokens] == [3, 14, 25]
    assert third.previous_response_id == second.id
    sdk.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model="sim-small", input="six", previous_response_id=third.id)
    assert caught.value.code == "previous_response_not_found"


def test_instructions_are_not_carried_over(keeper: Tenant) -> None:
    sdk = keeper.client()
    first = sdk.responses.create(model="sim-small", input="one", instructions="be very brief")
    second = sdk.responses.create(model="sim-small", input="two", previous_response_id=first.id)
    assert second.usage is not None
    assert second.usage.input_tokens == 12


def test_nothing_is_kept_for_who_did_not_ask_for_it(tenant: Tenant, keeper: Tenant) -> None:
    made = tenant.client().responses.create(model="sim-small", input="one", store=True)
    assert made.model_dump()["store"] is False
    with pytest.raises(openai.NotFoundError):
        tenant.client().responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError, match="does not keep responses"):
        tenant.client().responses.create(model="sim-small", input="a", previous_response_id=made.id)
    declined = keeper.client().responses.create(model="sim-small", input="one", store=False)
    assert declined.model_dump()["store"] is False
    assert (rows(tenant), rows(keeper)) == ([], [])


def test_to_others_a_kept_response_does_not_exist(keeper: Tenant, tenant: Tenant) -> None:
    made = keeper.client().responses.create(model="sim-small", input="one")
    team = create_team(acting_user=None, organization=keeper.organization, slug="other", name="Other")
    _, secret = create_key(acting_user=None, team=team, name="key", owner=keeper.owner)
    for other in (tenant.client(), keeper.client(secret)):
        for ask in (other.responses.retrieve, other.responses.delete):
            with pytest.raises(openai.NotFoundError):
                ask(made.id)
        with pytest.raises(openai.BadRequestError):
            other.responses.create(model="sim-small", input="a", previous_response_id=made.id)
    assert len(rows(keeper)) == 1


def test_what_is_kept_is_nowhere_in_plain_text(keeper: Tenant) -> None:
    made = keeper.client().responses.create(model="sim-small", input="mellifluous")
    (row,) = rows(keeper)
    assert row.pk == made.id
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r::text, encode(r.content, 'escape') FROM gateway_storedresponse r WHERE id = %s",
            [made.id],
        )
        text = "".join(cursor.fetchone())
    assert "mellifluous" not in text
    assert "simulated" not in text


def test_an_expired_response_is_not_found_and_then_deleted(keeper: Tenant) -> None:
    sdk = keeper.client()
    old, young = (sdk.responses.create(model="sim-small", input="one") for _ in range(2))
    with scopes_disabled():
        StoredResponse.objects.filter(pk=old.id).update(
            expires_at=datetime.now(tz=UTC) - timedelta(seconds=1)
        )
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(old.id)
    delete_expired_responses()
    assert [row.pk for row in rows(keeper)] == [young.id]
    lives = rows(keeper)[0].expires_at - datetime.now(tz=UTC)
    assert timedelta(days=29) < lives <= timedelta(days=30)


def test_input_items_come_in_pages(keeper: Tenant) -> None:
    asked: list[Any] = [{"role": "user", "content": word} for word in ("one", "two", "three")]
    made = keeper.client().responses.create(model="sim-small", input=asked)
    listed: Any = keeper.client().responses.input_items.list(made.id, limit=2, order="asc")
    assert [item.content[0].text for item in listed] == ["one", "two", "three"]
    with keeper.http() as http:
        page = http.get(f"/v1/responses/{made.id}/input_items?limit=2").json()
        assert [item["content"][0]["text"] for item in page["data"]] == ["three", "two"]
        assert page["has_more"] is True
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][1]["id"])
        refused = http.get(f"/v1/responses/{made.id}/input_items?limit=200")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")


def test_an_incomplete_response_is_kept_and_a_broken_one_is_not(
    keeper: Tenant, stack: Stack, slug: str
) -> None:
    from tests.v1.test_faults import grouped

    made = keeper.client().responses.create(model="sim-small", input="one two three", max_output_tokens=4)
    assert keeper.client().responses.retrieve(made.id).status == "incomplete"
    name = grouped(stack, keeper, slug, "sim-cut")
    with pytest.raises(openai.APIError):
        list(keeper.client().responses.create(model=name, input="one", stream=True))
    assert [row.pk for row in rows(keeper)] == [made.id]
