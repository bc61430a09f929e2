"""``manage.py explain`` tells the order of candidates and why the others are left out."""

from __future__ import annotations

import io
import re
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from routing.models import Deployment, GroupDeployment
from tests.simulator.server import wait_until
from tests.stack import Stack
from tests.v1.test_faults import grouped


def explained(**options: object) -> str:
    output = io.StringIO()
    call_command("explain", stdout=output, **options)
    return output.getvalue()


def test_it_lists_the_order_and_the_reason_of_each_removal(stack: Stack, slug: str) -> None:
    stack.tenant(slug)
    group = stack.group(slug, "sim-small", "sim-large", "sim-fast", fallbacks={"on_error": ["sim-small"]})
    drained = Deployment.objects.get(name=f"{slug}-1-sim-large")
    GroupDeployment.objects.filter(group=group, deployment=drained).update(weight=0)
    Deployment.objects.filter(name=f"{slug}-2-sim-fast").update(capabilities=["vision"])
    lines = explained(
        key=f"{slug}/team/key", model=slug, tokens=1000, output=100, needs=["tools"]
    ).splitlines()
    assert lines[0] == f"{slug}: priority, 1000 + 100 tokens"
    # 1000 x 1.00 and 100 x 4.00 US dollars per million.
    assert lines[1] == f"   1. {slug}-0-sim-small, sim-small at simulator, up to $0.0014"
    assert lines[2].startswith("   2. sim-small-0-sim-small (by sim-small)")
    assert lines[3].endswith("drained: its weight is 0")
    assert lines[4].endswith("cannot do: tools")


def test_it_tells_which_circuit_is_open_and_until_when(stack: Stack, slug: str) -> None:
    tenant = stack.tenant(slug)
    grouped(stack, tenant, slug, "sim-503", "sim-small")
    ask: dict[str, Any] = {"model": slug, "messages": [{"role": "user", "content": "x"}]}

    def resting() -> bool:
        with tenant.http() as http:
            assert http.post("/v1/chat/completions", json=ask).status_code == 200
        first, second = explained(key=f"{slug}/team/key", model=slug).splitlines()[1:]
        found = re.search(r"circuit open, resting until \d\d:\d\d:\d\d UTC$", second)
        return f"1. {slug}-1-sim-small" in first and f"2. {slug}-0-sim-503" in second and found is not None

    wait_until(resting)


@pytest.mark.parametrize(
    ("key", "model", "problem"),
    [
        ("nobody/team/key", "sim-small", "There is no key"),
        ("{slug}/team/key", "nothing", "There is no model group"),
    ],
)
def test_it_says_what_is_not_there(stack: Stack, slug: str, key: str, model: str, problem: str) -> None:
    stack.tenant(slug)
    with pytest.raises(CommandError, match=problem):
        explained(key=key.format(slug=slug), model=model)


def test_it_tells_ceiling_and_region(stack: Stack, slug: str) -> None:
    stack.tenant(slug)
    stack.group(slug, "sim-small", "sim-large")
    Deployment.objects.filter(name=f"{slug}-1-sim-large").update(region="eu")
    dear = explained(key=f"{slug}/team/key", model=slug, tokens=1000, output=100, max_cost=Decimal("0.001"))
    # 1000 x 2.00 and 100 x 8.00 US dollars per million.
    assert dear.count("may cost up to $0.0028, more than the ceiling of $0.001 for a request") == 2
    _, first, second = explained(key=f"{slug}/team/key", model=slug, region=["eu"]).splitlines()
    assert first.startswith(f"   1. {slug}-1-sim-large")
    assert second.endswith("is in no region, not in the region eu")


def test_it_shows_a_deployment_asked_for_by_name_alone(stack: Stack, slug: str) -> None:
    stack.tenant(slug)
    stack.group(slug, "sim-small", "sim-large")
    lines = explained(key=f"{slug}/team/key", model=f"{slug}/{slug}-1-sim-large").splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"   1. {slug}-1-sim-large")
    with pytest.raises(CommandError, match="has no deployment nothing"):
        explained(key=f"{slug}/team/key", model=f"{slug}/nothing")
