"""Celery's tasks: harmless when repeated, and observable."""

from __future__ import annotations

import pytest
from celery import shared_task
from django_scopes import scopes_disabled

from billing import tasks
from billing.models import TaskRun
from gateway.celery import app

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


def test_every_task_may_run_again_at_once() -> None:
    with scopes_disabled():
        for task in (tasks.refresh_rollups, tasks.refresh_spans, tasks.post_usage, tasks.ensure_partitions):
            task()
            task()
