"""``manage.py explain`` tells the order of candidates and why the others are left out."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from routing.models import Deployment, GroupDeployment
from tests.stack import Stack


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
