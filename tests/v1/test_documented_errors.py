"""docs/errors.md names every code that a client can get from this gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from gateway.v1.errors import InvalidRequest
from gateway.v1.translation.response_requests import response_facts

ROOT = Path(settings.BASE_DIR)


def codes() -> Iterator[str]:
    """The words that stand as ``code``, as an argument or as a class's own, anywhere in gateway/v1."""
    for path in (ROOT / "gateway" / "v1").rglob("*.py"):
        yield from re.findall(r'\bcode ?= ?"([a-z_]+)"', path.read_text(encoding="utf-8"))


def test_every_code_is_documented() -> None:
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")))
    found = set(codes())
    # Else the search has lost its way.
    assert {"insufficient_quota", "unsupported_tool", "provider_timeout"} <= found
    assert found - documented == set()


def test_what_asks_openai_to_go_on_or_to_keep_is_refused_by_its_name() -> None:
    told = {}
    for name in ("background", "conversation", "context_management", "prompt"):
        try:
            response_facts(b'{"model": "m", "input": "hi", "%s": {"a": 1}}' % name.encode(), "")
        except InvalidRequest as error:
            told[error.param] = error.code
    assert told == dict.fromkeys(
        ("background", "conversation", "context_management", "prompt"), "unsupported_parameter"
    )
    assert response_facts(b'{"model": "m", "input": "hi", "background": false}', "").native is not None
