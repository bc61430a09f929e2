"""The Celery application. ``celery -A gateway worker`` and ``celery -A gateway beat`` find it here."""

import os
from typing import Any

from celery import Celery
from celery.schedules import crontab

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
app = Celery("weir")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    "rollups": {"task": "billing.tasks.refresh_rollups", "schedule": 2.0, "options": {"expires": 10}},
    "spans": {"task": "billing.tasks.refresh_spans", "schedule": 60.0, "options": {"expires": 50}},
    "ledger": {"task": "billing.tasks.post_usage", "schedule": 5.0, "options": {"expires": 30}},
    "grants": {"task": "billing.tasks.expire_grants", "schedule": 60.0, "options": {"expires": 50}},
    "statements": {"task": "billing.tasks.make_statements", "schedule": 3600.0, "options": {"expires": 3000}},
    "exports": {"task": "billing.tasks.make_exports", "schedule": 5.0, "options": {"expires": 5}},
    "old_exports": {"task": "billing.tasks.remove_expired_exports", "schedule": 3600.0},
    "monthly": {"task": "gateway.tasks.send_monthly", "schedule": 60.0, "options": {"expires": 50}},
    "notices": {"task": "gateway.tasks.notice", "schedule": 10.0, "options": {"expires": 10}},
    "deliveries": {"task": "gateway.tasks.deliver_due", "schedule": 5.0, "options": {"expires": 5}},
    "partitions": {"task": "billing.tasks.ensure_partitions", "schedule": 3600.0},
    "reconcile": {"task": "billing.tasks.reconcile_books", "schedule": crontab(hour=2, minute=30)},
    "details": {"task": "billing.tasks.remove_details", "schedule": crontab(hour=3, minute=40)},
    "visits": {"task": "gateway.tasks.close_visits", "schedule": 60.0, "options": {"expires": 60}},
    "responses": {"task": "gateway.tasks.delete_expired_responses", "schedule": 3600.0},
}


@app.on_after_configure.connect
def _schedule_optional(sender: Celery, **_signal: Any) -> None:
    """Put on the clock what a setting switches off. Settings cannot be read before this."""
    from django.conf import settings

    if settings.PROBE_SECONDS > 0:
        sender.conf.beat_schedule["probes"] = {
            "task": "gateway.tasks.probe",
            "schedule": settings.PROBE_SECONDS,
            "options": {"expires": settings.PROBE_SECONDS},
        }
    if settings.OPERATOR_EMAILS:
        sender.conf.beat_schedule["operators"] = {
            "task": "gateway.tasks.tell_operators",
            "schedule": 10.0,
            "options": {"expires": 10},
        }
