"""The programs a running gateway consists of."""

from __future__ import annotations

import sys

from django.conf import settings

from gateway.supervisor import Child

# What the server gives its requests after the worker's own draining (gateway.draining), in seconds.
LAST_SECONDS = 2


def python(name: str, *words: str, stage: int, stop_seconds: float = 15.0) -> Child:
    """A child that is a Python program of this environment."""
    return Child(name, [sys.executable, *words], stage=stage, stop_seconds=stop_seconds)


def manage(name: str, *words: str, stage: int) -> Child:
    """A child that is a management command."""
    return python(name, "manage.py", *words, stage=stage)


def gateway_children(host: str, port: int, workers: int) -> list[Child]:
    """What a gateway consists of, in the order of starting; the stages are the order of stopping.

    The server drains first; the shipper ends after it, so that the last requests reach the database.
    """
    server = python(
        "server",
        *("-m", "uvicorn", "gateway.asgi:application", "--host", host, "--port", str(port)),
        *("--workers", str(workers), "--loop", "uvloop", "--http", "httptools", "--lifespan", "on"),
        *("--ws", "none", "--no-access-log", "--no-server-header", "--log-level", "warning"),
        *("--timeout-keep-alive", "75", "--timeout-graceful-shutdown", str(LAST_SECONDS)),
        *("--timeout-worker-healthcheck", "30"),
        stage=0,
        stop_seconds=settings.SHUTDOWN_DELAY_SECONDS + settings.SHUTDOWN_SECONDS + LAST_SECONDS + 10,
    )
    worker = python(
        "worker",
        # Celery warns root at length, in a container too.
        *("-W", "ignore::UserWarning:celery.platforms"),
        *("-m", "celery", "--quiet", "-A", "gateway", "worker", "--concurrency", "2"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"),
        stage=2,
        stop_seconds=30,
    )
    beat = python(
        "beat",
        *("-m", "celery", "--quiet", "-A", "gateway", "beat", "--loglevel", "WARNING", "--pidfile="),
        *("--schedule", str(settings.WEIR_DATA_DIR / "celerybeat-schedule")),
        stage=1,
    )
    return [server, manage("ship", "ship", stage=1), worker, beat]


def simulator_child(port: int) -> Child:
    """The simulated provider; it ends last, so that draining requests get their answers."""
    log = str(settings.WEIR_DATA_DIR / "simulator.jsonl")
    return python("simulator", "-m", "routing.simulator", "--port", str(port), "--log", log, stage=3)
