"""Judges that others wrote, against the whole stack."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.stack import Stack, Tenant
from tests.v1.test_faults import grouped

# In such a name llm-comply sees models that reason; with another it skips those checks.
REASONS = "gpt-5-and-claude-sonnet-4"


def judged(tenant: Tenant, model: str, form: str) -> dict[str, Any]:
    """What llm-comply says of one API."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "llm_comply.cli", "--format", form, "--json"),
            *("-u", f"{tenant.stack.url}/v1", "-k", tenant.secret, "-m", model),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize(("form", "checks"), [("openai-chat", 9), ("open-responses", 13), ("anthropic", 9)])
def test_llm_comply_finds_nothing_wrong(
    stack: Stack, tenant: Tenant, slug: str, form: str, checks: int
) -> None:
    model = grouped(stack, tenant, f"{REASONS}-{slug}", "sim-small")
    report = judged(tenant, model, form)
    # What it would only warn of, such as thinking that was asked for and not shown, is a fault here.
    # Compaction is not offered.
    warned = [result["id"] for result in report["results"] if result.get("warnings")]
    assert warned == (["compact-response"] if form == "open-responses" else [])
    assert [result for result in report["results"] if result["status"] != "passed"] == []
    assert report["summary"]["passed"] == report["summary"]["total"] == checks
