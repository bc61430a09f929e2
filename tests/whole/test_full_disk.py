"""A disk that is full stops requests before they cost anything, and loses none."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.stack import Stack
from tests.v1.conftest import books_balance, events
from tests.whole.test_leaks import callers, nothing_stays


@contextmanager
def full_disk(stack: Stack) -> Iterator[None]:
    """As on a full disk: no worker can make a file longer."""
    assert stack.server is not None
    pid = stack.server.pid
    workers = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    before = [resource.prlimit(worker, resource.RLIMIT_FSIZE) for worker in workers]
    try:
        for worker, (_, hard) in zip(workers, before, strict=True):
            resource.prlimit(worker, resource.RLIMIT_FSIZE, (0, hard))
        yield
    finally:
        for worker, limits in zip(workers, before, strict=True):
            resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)


def test_while_the_disk_is_full_nothing_reaches_a_provider_and_nothing_stays_reserved(
    stack: Stack, slug: str
) -> None:
    tenant = stack.tenant(slug)
    people = callers(tenant, ["anybody"])

    def ask(user: str) -> int:
        body: dict[str, Any] = {
            "model": "sim-small",
            "messages": [{"role": "user", "content": "hi"}],
            "user": f"{slug}-{user}",
        }
        with tenant.http(people[0].secret) as http:
            return http.post("/v1/chat/completions", json=body).status_code

    assert ask("before") == 200
    with full_disk(stack):
        # More than the slots that it has: each is given back.
        assert [ask("meanwhile") for _ in range(8)] == [503] * 8
        assert stack.simulator.log(f"{slug}-meanwhile") == []
    assert ask("after") == 200
    assert [event.end_user for event in events(tenant) if event.charge] == [f"{slug}-before", f"{slug}-after"]
    nothing_stays(stack, tenant, people)
    books_balance(tenant)
