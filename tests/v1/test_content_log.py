"""Requests and answers are stored for who wants it, encrypted, and never in the way of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django_scopes import scope

from billing.models import ContentLoss, RequestContent
from billing.request_content import MOST_BYTES, MOST_READ, Content, Text
from gateway.v1.content_log import ContentLog, Heard
from gateway.v1.worker import database_dsn
from tenants.models import Organization
from tenants.services.organizations import create_organization, update_organization
from tests.browser.test_secrets import cached, files, leaks, rows
from tests.simulator.server import wait_until
from tests.stack import Stack, Tenant, wait_for_workers
from tests.v1.conftest import books_balance, events

PROMPT = "the orchard behind Ostrava is sold on Friday"


@pytest.fixture
def storing(stack: Stack, slug: str) -> Iterator[Tenant]:
    """A tenant that has requests and answers stored."""
    made = stack.tenant(f"{slug}-logs", log_content=True)
    yield made
    stack.settled()
    books_balance(made)


def ask(prompt: str = PROMPT, **more: Any) -> dict[str, Any]:
    return {"model": "sim-small", "messages": [{"role": "user", "content": prompt}], **more}


def stored(tenant: Tenant, count: int = 1) -> dict[str, Content]:
    """What is stored of the tenant's requests, once it is of ``count``."""
    with scope(organization=tenant.organization):
        wait_until(lambda: RequestContent.objects.count() >= count, 30)
        return {row.request_id: Content.opened(row.content) for row in RequestContent.objects.all()}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", ask()),
        ("/v1/chat/completions", ask(stream=True)),
        ("/v1/messages", ask(max_tokens=20, stream=True)),
        ("/v1/responses", {"model": "sim-small", "input": PROMPT}),
    ],
)
def test_what_is_stored_is_what_the_client_sent_and_got(
    storing: Tenant, path: str, body: dict[str, Any]
) -> None:
    with storing.http() as http:
        answer = http.post(path, json=body)
    assert answer.status_code == 200
    sent = answer.request.content
    assert stored(storing) == {
        answer.headers["x-request-id"]: Content(
            Text(sent.decode(), len(sent), cut=False),
            Text(answer.text, len(answer.content), cut=False),
        )
    }
    assert [event.request_id for event in events(storing)] == list(stored(storing))


def test_an_error_is_stored_as_the_answer(storing: Tenant) -> None:
    with storing.http() as http:
        answer = http.post("/v1/chat/completions", json=ask(max_tokens="many"))
    assert answer.status_code == 400
    (content,) = stored(storing).values()
    assert content.answered is not None
    assert content.answered.text == answer.text


def test_a_form_is_not_stored(storing: Tenant) -> None:
    with storing.http() as http:
        answer = http.post(
            "/v1/audio/transcriptions", data={"model": "nothing"}, files={"file": ("a.wav", b"RIFF" * 99)}
        )
    assert answer.status_code == 404
    (content,) = stored(storing).values()
    assert content.asked is None
    assert content.answered is not None
    assert "RIFF" not in content.answered.text


def found(stack: Stack, prompt: str) -> set[tuple[str, str]]:
    """Where in the database, in files and in Redis the prompt stands in any form."""
    secrets = {"prompt": prompt}
    return (
        leaks(rows(), secrets)
        | leaks(files(stack.data_dir.parent), secrets)
        | leaks(cached(stack.environment["REDIS_URL"]), secrets)
    )


def test_nothing_of_a_prompt_is_anywhere_unless_it_is_wanted_and_then_only_encrypted(
    stack: Stack, storing: Tenant, slug: str
) -> None:
    plain, wanted = stack.tenant(slug), f"{PROMPT} {slug}"
    for each in (plain, storing):
        with each.http() as http:
            assert http.post("/v1/chat/completions", json=ask(wanted)).status_code == 200
            assert http.post("/v1/chat/completions", json=ask(wanted, stream=True)).status_code == 200
    contents = stored(storing, 2)
    assert all(content.asked is not None and wanted in content.asked.text for content in contents.values())
    stack.settled()
    with scope(organization=plain.organization):
        assert not RequestContent.objects.exists()
    assert found(stack, wanted) == set()


def test_a_locked_table_holds_up_no_request_and_costs_no_content(storing: Tenant) -> None:
    with psycopg.connect(database_dsn()) as other:
        other.execute("LOCK TABLE billing_requestcontent")
        with storing.http() as http:
            for number in range(3):
                assert http.post("/v1/chat/completions", json=ask(f"{number}")).status_code == 200
        assert len(events(storing)) == 3
        other.rollback()
    assert len(stored(storing, 3)) == 3


def test_switched_off_nothing_more_is_stored(storing: Tenant) -> None:
    with storing.http() as http:
        http.post("/v1/chat/completions", json=ask())
        assert len(stored(storing)) == 1
        update_organization(acting_user=None, organization=storing.organization, log_content=False)
        wait_for_workers()
        http.post("/v1/chat/completions", json=ask())
        update_organization(acting_user=None, organization=storing.organization, log_content=True)
        wait_for_workers()
        last = http.post("/v1/chat/completions", json=ask())
    # A worker writes in order, yet there are two of them: the third request is stored, the second never.
    with scope(organization=storing.organization):
        wait_until(
            lambda: RequestContent.objects.filter(request_id=last.headers["x-request-id"]).exists(), 30
        )
    assert len(events(storing)) == 3
    assert len(stored(storing, 2)) == 2


# --- one part alone ---------------------------------------------------------------------------------


def exchange_of(organization_id: int, request_id: str) -> Any:
    return SimpleNamespace(
        principal=SimpleNamespace(organization_id=organization_id),
        request_id=request_id,
        started_at=datetime(2026, 11, 23, 12, tzinfo=UTC),
    )


def heard(asked: bytes, *pieces: bytes, content_type: bytes = b"application/json") -> Heard:
    """What is heard of an exchange."""

    async def send(message: Any) -> None:
        pass

    async def run() -> Heard:
        made = Heard(send)
        made.ask(asked)
        await made(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]}
        )
        for piece in pieces:
            await made({"type": "http.response.body", "body": piece, "more_body": True})
        return made

    return asyncio.run(run())


def written(organization: Organization, *names: str, most: int = 10) -> tuple[list[str], list[int]]:
    """The requests that are stored after ``names`` were to be, of which ``most`` may wait; the losses of the day."""

    async def run() -> None:
        log = ContentLog(database_dsn(), most_waiting=most)
        for name in names:
            log.add(exchange_of(organization.pk, name), heard_one)
        assert len(log.waiting) == min(most, len(names))
        await log.write()
        assert (len(log.waiting), dict(log.lost)) == (0, {})
        await log.close()

    heard_one = heard(b"{}", b"{}")
    asyncio.run(run())
    with scope(organization=organization):
        return (
            [row.request_id for row in RequestContent.objects.order_by("pk")],
            [loss.requests for loss in ContentLoss.objects.filter(day=date(2026, 11, 23))],
        )


def test_what_has_no_room_is_dropped_and_counted(committed: None, slug: str) -> None:
    organization = create_organization(acting_user=None, slug=slug, name=slug, log_content=True)
    assert written(organization, "a", "b", "c", "d", "e", most=2) == (["a", "b"], [3])
    assert written(organization, "c", "d", most=1) == (["a", "b", "c"], [4])


def test_what_can_never_be_written_holds_up_nothing_else(committed: None, slug: str) -> None:
    organization = create_organization(acting_user=None, slug=slug, name=slug, log_content=True)
    assert written(organization, "longer than any column of ids " * 3) == ([], [1])
    assert written(organization, "a") == (["a"], [1])


def test_nothing_is_stored_of_who_has_it_off_by_then(committed: None, slug: str) -> None:
    organization = create_organization(acting_user=None, slug=slug, name=slug)
    assert written(organization, "a") == ([], [])


def test_without_a_database_it_waits_and_raises_nothing() -> None:
    async def run() -> int:
        log = ContentLog("postgresql://127.0.0.1:1/none")
        log.add(exchange_of(1, "a"), heard_one)
        await log.write()
        return len(log.waiting)

    heard_one = heard(b"{}", b"{}")
    assert asyncio.run(run()) == 1


def test_an_answer_is_remembered_up_to_its_bound_and_its_size_is_known() -> None:
    listened = heard(b"a" * (MOST_READ + 1), b"b" * MOST_BYTES, b"cc")
    assert listened.asked is not None
    assert listened.answer is not None
    assert (len(listened.asked), listened.asked_size) == (MOST_READ, MOST_READ + 1)
    assert (len(listened.answer), listened.answer_size) == (MOST_BYTES, MOST_BYTES + 2)


def test_sound_is_not_remembered() -> None:
    assert heard(b"{}", b"ID3", content_type=b"audio/mpeg").answer is None


def test_of_a_long_body_the_beginning_is_stored() -> None:
    long = b"ab " * MOST_BYTES
    cut = Text.of(long, len(long))
    assert (len(cut.text), cut.size, cut.cut) == (MOST_BYTES, 3 * MOST_BYTES, True)
    assert Text.of(b"ab", 2) == Text("ab", 2, cut=False)
    assert Text.of(b"ab", 3) == Text("ab", 3, cut=True)


def test_files_within_a_body_are_left_out() -> None:
    picture = b'{"url":"data:image/png;base64,' + b"iVBOR" * 300_000 + b'=","text":"look"}'
    assert Text.of(picture, len(picture)) == Text(
        '{"url":"data:image/png;base64,(1500001 characters of base64 left out)","text":"look"}',
        len(picture),
        cut=False,
    )
    word = b"x" * 1023
    assert Text.of(word, 1023).text == word.decode()


def test_what_is_sealed_is_opened_again_and_cannot_be_read_before() -> None:
    content = Content(Text(PROMPT, 44, cut=False), None)
    sealed = content.sealed()
    assert Content.opened(sealed) == content
    assert PROMPT.encode() not in sealed
    assert sealed.startswith(b"gAAAA")
