"""What operators are told of providers that fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from django.conf import settings as django_settings
from django.core import mail
from django_scopes import scope
from redis import Redis

from billing.models import TaskRun
from gateway.models import Delivery
from gateway.notifications.channels import add_channel
from gateway.notifications.operators import outages, tell
from gateway.tasks import notice, tell_operators
from gateway.v1.board import CIRCUITS
from routing.models import Deployment, ModelGroup
from routing.services.deployments import create_deployment
from routing.services.groups import Place, create_model_group
from routing.services.providers import create_provider
from tenants.models import Plan
from tests.cast import Cast, make_cast

pytestmark = pytest.mark.django_db


@pytest.fixture
def board() -> Iterator[Redis]:
    with Redis.from_url(django_settings.REDIS_URL) as redis:
        redis.delete(CIRCUITS)
        yield redis
        redis.delete(CIRCUITS)


@pytest.fixture(autouse=True)
def mailed(settings: Any) -> None:
    settings.OPERATOR_EMAILS = ["ops@platform.example"]
    settings.PUBLIC_URL = "https://weir.example"


@pytest.fixture
def routes(db: None) -> dict[str, Deployment]:
    """``fast`` has both deployments, ``deep`` only large."""
    provider = create_provider(
        acting_user=None, name="upstream", kind="generic", base_url="http://127.0.0.1:9/v1"
    )
    found = {
        name: create_deployment(acting_user=None, name=name, provider=provider, model=name)
        for name in ("small", "large")
    }
    both = [Place(found["small"]), Place(found["large"])]
    create_model_group(acting_user=None, name="fast", places=both, check_links=False)
    create_model_group(acting_user=None, name="deep", places=both[1:], check_links=False)
    return found


def opened(
    board: Redis, deployment: Deployment, why: str = "failing", name: str = "", seconds: float = 60
) -> None:
    """Post an open circuit, as a worker does."""
    posted = {"until": time.time() + seconds, "why": why, "openings": 1}
    board.hset(CIRCUITS, f"{deployment.pk}:{name}", orjson.dumps(posted))


def test_operators_hear_what_fails_and_what_nothing_else_answers_for(
    board: Redis, routes: dict[str, Deployment]
) -> None:
    opened(board, routes["large"])
    tell_operators()
    (message,) = mail.outbox
    assert message.to == ["ops@platform.example"]
    assert message.subject == "large at upstream is failing"
    assert "large at upstream: circuit open, not asked until" in message.body
    assert "It serves deep, fast." in message.body
    assert "Nothing else answers for deep." in message.body
    assert "https://weir.example/operator/health/" in message.body


def test_an_outage_is_told_once_an_hour_and_new_ones_at_once(
    board: Redis, routes: dict[str, Deployment]
) -> None:
    TaskRun.objects.create(name="tell_operators", started_at=datetime.now(UTC))
    now = datetime(2026, 3, 1, 10, 59, tzinfo=UTC)
    opened(board, routes["large"])
    assert [tell(now), tell(now)] == [1, 0]
    opened(board, routes["small"])
    assert [tell(now), tell(now)] == [1, 0]
    # Another hour: both again, in one message.
    assert tell(now + timedelta(minutes=1)) == 2
    assert [message.subject for message in mail.outbox] == [
        "large at upstream is failing",
        "small at upstream is failing",
        "2 deployments are failing",
    ]
    assert "Nothing else answers for deep, fast." in mail.outbox[2].body


@pytest.mark.parametrize(
    ("why", "told"), [("failing", 1), ("credential", 1), ("unknown_model", 1), ("rate_limited", 0)]
)
def test_a_rate_limit_is_no_outage(board: Redis, routes: dict[str, Deployment], why: str, told: int) -> None:
    opened(board, routes["large"], why)
    assert len(outages(datetime.now(UTC))) == told


def test_several_circuits_of_a_deployment_are_one_outage(board: Redis, routes: dict[str, Deployment]) -> None:
    opened(board, routes["large"], "credential", name="a", seconds=30)
    opened(board, routes["large"], name="", seconds=90)
    (outage,) = outages(datetime.now(UTC))
    assert outage.why == "circuit open"


def test_a_circuit_whose_pause_is_over_is_not_told(board: Redis, routes: dict[str, Deployment]) -> None:
    opened(board, routes["large"], seconds=-1)
    assert outages(datetime.now(UTC)) == []


def test_without_addresses_nobody_is_told(board: Redis, routes: dict[str, Deployment], settings: Any) -> None:
    settings.OPERATOR_EMAILS = []
    opened(board, routes["large"])
    tell_operators()
    assert mail.outbox == []


def test_a_mail_server_that_is_away_fails_the_task_and_the_next_look_tells(
    board: Redis, routes: dict[str, Deployment], settings: Any
) -> None:
    opened(board, routes["large"])
    working = settings.EMAIL_BACKEND
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    with pytest.raises(OSError, match="refused"):
        tell_operators()
    assert TaskRun.objects.get(name="tell_operators").error == "ConnectionRefusedError"
    settings.EMAIL_BACKEND = working
    tell_operators()
    assert len(mail.outbox) == 1


# --- The tenants' own channels ----------------------------------------------------------------------


@pytest.fixture
def acme(routes: dict[str, Deployment]) -> Cast:
    cast = make_cast("acme")
    with scope(organization=cast.organization):
        add_channel(
            acting_user=None,
            organization=cast.organization,
            kind="email",
            name="mail",
            topics=["outage"],
            recipients=["ops@acme.example"],
        )
    return cast


def told(acme: Cast) -> list[str]:
    notice()
    with scope(organization=acme.organization):
        return list(Delivery.objects.order_by("pk").values_list("text", flat=True))


def test_a_tenant_hears_once_of_what_it_may_use(
    board: Redis, routes: dict[str, Deployment], acme: Cast
) -> None:
    opened(board, routes["large"])
    (text,) = told(acme)
    assert text.startswith("The deployment large fails and is not asked for a while. It serves deep, fast.")
    assert told(acme) == [text]


def test_a_tenant_hears_nothing_of_groups_that_it_or_its_plan_may_not_use(
    board: Redis, routes: dict[str, Deployment], acme: Cast
) -> None:
    opened(board, routes["large"])
    acme.organization.model_groups = ["fast"]
    acme.organization.plan = Plan.objects.create(name="small", model_groups=["deep"])
    acme.organization.save(update_fields=["model_groups", "plan"])
    assert told(acme) == []


@pytest.mark.parametrize("why", ["rate_limited", "unknown_model"])
def test_a_tenant_hears_nothing_of_what_is_no_outage(
    board: Redis, routes: dict[str, Deployment], acme: Cast, why: str
) -> None:
    opened(board, routes["large"], why)
    assert told(acme) == []


def test_a_deployment_in_no_group_is_nobodys_matter(
    board: Redis, routes: dict[str, Deployment], acme: Cast
) -> None:
    opened(board, routes["large"])
    ModelGroup.objects.all().delete()
    assert told(acme) == []
