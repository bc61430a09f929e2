"""What headers say of waiting, and how often a deployment is asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from gateway.v1.pulse import Pulse
from gateway.v1.turns import patience_of, retry_after_of
from tests.routing.test_policy import A, B


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"7", 7.0), (b"1.5", 1.5), (b"soon", None), (b"-3", None), (b"inf", None), (b"nan", None)],
)
def test_retry_after_in_seconds(value: bytes, seconds: float | None) -> None:
    assert retry_after_of([(b"x-should-retry", b"false"), (b"retry-after", value)]) == seconds


def test_retry_after_as_a_date() -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)
    found = retry_after_of([(b"retry-after", format_datetime(at, usegmt=True).encode())])
    assert found is not None
    assert 30 < found <= 90


def test_no_retry_after() -> None:
    assert retry_after_of([]) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({b"x-stainless-read-timeout": b"600"}, 600.0),
        ({b"x-stainless-timeout": b"30", b"x-stainless-read-timeout": b"45.5"}, 30.0),
        ({b"x-stainless-timeout": b"never"}, None),
        ({b"x-stainless-timeout": b"0"}, None),
        ({b"x-stainless-timeout": b"nan"}, None),
    ],
)
def test_how_long_the_caller_waits(headers: dict[bytes, bytes], seconds: float | None) -> None:
    assert patience_of(headers) == seconds


def test_of_the_requests_to_a_deployment_a_tenth_may_be_sent_again_and_ten_at_once() -> None:
    pulse = Pulse(lambda: 0.0)
    assert [pulse.may_retry(A.id) for _ in range(11)] == [True] * 10 + [False]
    for _ in range(21):
        pulse.enter(A)
    assert [pulse.may_retry(A.id) for _ in range(3)] == [True, True, False]
    assert pulse.may_retry(B.id)
