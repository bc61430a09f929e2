"""Celery's tasks: harmless when repeated, and observable."""

from __future__ import annotations

import orjson
import pytest
from celery import shared_task
from django.conf import settings
from django_scopes import scopes_disabled
from redis import Redis

from billing import tasks
from billing.models import TaskRun
from gateway.celery import app
from tests.billing.books import Books

pytestmark = pytest.mark.django_db


@shared_task(base=tasks.PlatformTask, name="tests.fails")
def fails() -> None:
    raise LookupError("as it must")


def test_what_became_of_a_task_is_kept() -> None:
    tasks.refresh_rollups()
    tasks.refresh_rollups()
    run = TaskRun.objects.get(name="refresh_rollups")
    assert (run.runs, run.failures, run.error) == (2, 0, "")
    assert run.ended_at is not None
    assert run.ended_at >= run.started_at
    assert run.succeeded_at == run.ended_at


def test_a_failure_is_kept_by_its_kind_and_still_raised() -> None:
    with pytest.raises(LookupError):
        fails()
    run = TaskRun.objects.get(name="fails")
    assert (run.runs, run.failures, run.error, run.succeeded_at) == (1, 1, "LookupError", None)


def test_every_task_on_the_clock_exists_and_has_a_time_limit() -> None:
    app.loader.import_default_modules()
    for entry in app.conf.beat_schedule.values():
        task = app.tasks[entry["task"]]
        assert task.soft_time_limit is not None
        assert task.time_limit is not None
        assert task.soft_time_limit < task.time_limit


def messages(name: str) -> set[int]:
    """The organizations that messages in Celery's queue name, of the task ``name``. Leaves the queue empty."""
    with Redis.from_url(settings.REDIS_URL) as redis:
        found = [orjson.loads(raw)["headers"] for raw in redis.lrange("celery", 0, -1)]
        redis.delete("celery")
    return {
        orjson.loads(head["argsrepr"].strip("(),"))
        for head in found
        if head["task"] == f"billing.tasks.{name}"
    }


def test_each_organization_is_a_message_of_its_own(slug: str) -> None:
    one, other = Books.open(slug), Books.open(f"{slug}-x")
    for each in (one, other):
        each.ship(each.end("a"))
    ids = {one.organization.id, other.organization.id}
    tasks.refresh_rollups()
    assert messages("refresh_rollups_of") == ids
    for organization_id in ids:
        tasks.refresh_rollups_of(organization_id)
    tasks.post_usage()
    assert messages("post_usage_of") == ids
    tasks.make_statements()
    assert messages("make_statements_of") >= ids


def test_every_task_may_run_again_at_once() -> None:
    with scopes_disabled():
        for task in (tasks.refresh_rollups, tasks.refresh_spans, tasks.post_usage, tasks.ensure_partitions):
            task()
            task()
