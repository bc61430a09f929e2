"""A conversation goes on where its prompt is cached, while that saves money."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from typing import Any, cast
from uuid import uuid4

import orjson
import pytest
from django.conf import settings
from redis.exceptions import RedisError

from billing.pricing import Rates
from billing.token_usage import REPORTED, TokenUsage
from gateway.v1.affinity import Affinity, Home, conversation_of, keep
from gateway.v1.exchange import Attempt, Exchange, Offer
from gateway.v1.facts import Facts, chat_facts
from gateway.v1.pulse import Pulse, fingerprints
from gateway.v1.rates import History, RateBook
from routing.credentials import encrypt
from routing.models import Credential, GroupDeployment, Provider
from routing.policy import Candidate
from routing.table import Member
from tests.routing.test_policy import A, B, C, group
from tests.stack import Stack, Tenant
from tests.v1.conftest import events
from tests.v1.test_errors import wait_for_model
from tests.v1.test_faults import grouped

LONG = "word " * 1200
LATER = 4e9


def facts(*messages: tuple[str, str], **body: Any) -> Facts:
    asked = {"model": "g", "messages": [{"role": role, "content": text} for role, text in messages], **body}
    return chat_facts(orjson.dumps(asked), "")


def book(**cached: str | None) -> RateBook:
    """Input at $1 for each, cached input at the given price, output at $4."""
    rates = {
        deployment.id: Rates(1, Decimal(1), None if price is None else Decimal(price), None, Decimal(4))
        for deployment in (A, B, C)
        if (price := cached.get(deployment.name, "0.1")) or True
    }
    since = (datetime(2020, 1, 1, tzinfo=UTC),)
    return RateBook({name: History(since, (each,)) for name, each in rates.items()}, {}, {})


def kept(home: Home, rates: RateBook, pulse: Pulse | None = None, **options: Any) -> tuple[list[str], str]:
    members = tuple(Member(each, priority, 1) for priority, each in ((1, A), (1, B), (2, C)))
    among = group("g", *members, **options)
    found = [Candidate(among, member.deployment) for member in members]
    asked = facts(("user", LONG))
    order, credential = keep(found, home, asked, pulse or Pulse(), rates, Exchange("chat.completions"))
    return [each.deployment.name for each in order], credential


CREDENTIAL = fingerprints(B.provider)[0]


def test_the_home_of_a_conversation_comes_first_with_its_credential() -> None:
    assert kept(Home(B.id, CREDENTIAL, 2000, LATER), book()) == (["b", "a", "c"], CREDENTIAL)
    assert kept(Home(A.id, CREDENTIAL, 2000, LATER), book()) == (["a", "b", "c"], CREDENTIAL)


@pytest.mark.parametrize("price", ["1", None])
def test_without_a_lower_price_for_cached_input_nothing_changes(price: str | None) -> None:
    assert kept(Home(B.id, CREDENTIAL, 2000, LATER), book(b=price)) == (["a", "b", "c"], "")


def test_a_home_that_is_dearer_in_the_whole_is_left() -> None:
    dear = dict(book().costs)
    dear[B.id] = History(dear[B.id].since, (Rates(1, Decimal(2), Decimal("0.1"), None, Decimal(9)),))
    assert kept(Home(B.id, CREDENTIAL, 2000, LATER), RateBook(dear, {}, {})) == (["a", "b", "c"], "")


def test_priority_is_not_turned_round() -> None:
    assert kept(Home(C.id, CREDENTIAL, 2000, LATER), book()) == (["a", "b", "c"], "")
    assert kept(Home(C.id, CREDENTIAL, 2000, LATER), book(), strategy="weighted")[0] == ["c", "a", "b"]


def test_a_home_that_is_out_or_has_lost_its_credential_is_left() -> None:
    assert kept(Home(B.id, "gone", 2000, LATER), book()) == (["a", "b", "c"], "")
    pulse = Pulse()
    for _ in range(5):
        visit = pulse.enter(B)
        assert visit is not None
        pulse.ended(visit, "failed")
    assert kept(Home(B.id, CREDENTIAL, 2000, LATER), book(), pulse) == (["a", "b", "c"], "")


def test_a_conversation_is_known_by_key_by_session_or_by_its_opening() -> None:
    opening = facts(("system", "Be kind."), ("user", "Hi"))
    later = facts(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "More"))
    other = facts(("system", "Be kind."), ("user", "Ho"))
    assert conversation_of(opening, 1) == conversation_of(later, 1)
    assert conversation_of(opening, 1) != conversation_of(other, 1)
    assert conversation_of(opening, 1) != conversation_of(opening, 2)
    keyed = [facts(("user", text), prompt_cache_key="k") for text in ("x", "y")]
    assert conversation_of(keyed[0], 1) == conversation_of(keyed[1], 1)
    other.session = opening.session = "s"
    assert conversation_of(opening, 1) == conversation_of(other, 1)


def answered(conversation: bytes, tokens: int) -> tuple[Exchange, TokenUsage]:
    """An exchange that A answered whole."""
    exchange = Exchange("chat.completions", conversation=conversation)
    exchange.offer = Offer(Candidate(group("g", Member(A, 1, 1)), A), book().costs[A.id].rates[0], None)
    visit = Pulse().enter(A)
    assert visit is not None
    exchange.attempts = [Attempt("a", "p", 0, reason="ok", visit=visit)]
    return exchange, TokenUsage(tokens, 0, 0, 1, 0, REPORTED)


async def _told(tokens: int) -> Home | None:
    conversation = uuid4().bytes
    one, other = Affinity(settings.REDIS_URL), Affinity(settings.REDIS_URL)
    try:
        one.answered(*answered(conversation, tokens))
        await one.share()
        await other.share()
        return other.home(conversation)
    finally:
        await one.close()
        await other.close()


def test_what_one_worker_saw_another_knows() -> None:
    home = asyncio.run(_told(1024))
    assert home is not None
    assert home[:3] == (A.id, CREDENTIAL, 1024)
    assert asyncio.run(_told(1023)) is None


async def _without_redis() -> Home | None:
    alone = Affinity("redis://127.0.0.1:1/0")
    alone.answered(*answered(b"x", 5000))
    with pytest.raises(RedisError):
        await alone.share()
    await alone.close()
    return alone.home(b"x")


def test_with_redis_away_a_worker_goes_by_what_it_saw() -> None:
    home = asyncio.run(_without_redis())
    assert home is not None
    assert home.deployment_id == A.id


def test_turns_of_a_conversation_stay_with_one_deployment(stack: Stack, tenant: Tenant, slug: str) -> None:
    name = grouped(stack, tenant, slug, "sim-small", "sim-small", "sim-small", strategy="weighted")
    completions: Any = tenant.client().chat.completions
    ask: dict[str, Any] = {"model": name, "messages": [{"role": "user", "content": LONG}], "max_tokens": 5}
    first = completions.with_raw_response.create(**ask).headers["x-weir-deployment"]
    # Until both workers know.
    sleep(1.2)
    served = {completions.with_raw_response.create(**ask).headers["x-weir-deployment"] for _ in range(12)}
    assert served == {first}
    assert {event.deployment for event in events(tenant)} == {first}


class _Listening(BaseHTTPRequestHandler):
    """A provider that answers everybody and notes the credentials it was asked with."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # the library's name
        self.rfile.read(int(self.headers["content-length"]))
        cast("_Provider", self.server).asked.append(self.headers["authorization"])
        answer = orjson.dumps(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "yes"},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 2000, "completion_tokens": 1, "total_tokens": 2001},
            }
        )
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Say nothing."""


class _Provider(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Listening)
        self.asked: list[str] = []


def test_turns_of_a_conversation_stay_with_one_of_two_credentials(
    stack: Stack, tenant: Tenant, slug: str
) -> None:
    server = _Provider()
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    provider = Provider.objects.create(name=slug, kind="generic", base_url=url)
    for secret in ("one", "two"):
        Credential.objects.create(provider=provider, ciphertext=encrypt(secret))
    deployment = stack.deployment(f"{slug}-0", "m", provider=slug)
    GroupDeployment.objects.create(group=stack.group(slug), deployment=deployment)
    with tenant.http() as http:
        wait_for_model(http, slug)
    sleep(1)
    completions = tenant.client().chat.completions
    for conversation in range(3):
        ask: Any = [{"role": "user", "content": f"{conversation} {LONG}"}]
        server.asked.clear()
        completions.create(model=slug, messages=ask, max_tokens=5)
        # Until both workers know.
        sleep(1.2)
        for _ in range(8):
            completions.create(model=slug, messages=ask, max_tokens=5)
        assert len(server.asked) == 9
        assert len(set(server.asked)) == 1
    server.shutdown()
    server.server_close()
