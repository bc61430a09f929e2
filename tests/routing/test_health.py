"""Circuits: pure, so time is a number."""

from __future__ import annotations

from random import Random

import pytest

from routing.circuit import FAULTS_IN_A_ROW, Outcome, outcome_of
from routing.health import Health, Visit, question

ONE = ("key",)
TWO = ("good", "bad")


def health() -> Health:
    return Health(Random(1))


def attempt(
    circuits: Health, outcome: Outcome, now: float, keys: tuple[str, ...] = ONE, **options: float
) -> Visit | None:
    visit = circuits.enter(1, keys, now)
    if visit is not None:
        circuits.ended(visit, outcome, now, **options)
    return visit


def opened(now: float = 0.0) -> Health:
    circuits = health()
    for _ in range(FAULTS_IN_A_ROW):
        assert attempt(circuits, Outcome.FAULT, now) is not None
    return circuits


def test_faults_in_a_row_open_the_circuit() -> None:
    circuits = health()
    for _ in range(4):
        attempt(circuits, Outcome.FAULT, 0)
    assert circuits.wait(1, ONE, 0) == 0
    attempt(circuits, Outcome.FAULT, 0)
    # Two seconds, a fifth more or less.
    assert 1.6 <= circuits.wait(1, ONE, 0) <= 2.4
    assert circuits.enter(1, ONE, 1.5) is None


def test_a_success_between_faults_begins_the_count_again() -> None:
    circuits = health()
    for outcome in [Outcome.FAULT] * 4 + [Outcome.OK] + [Outcome.FAULT] * 4:
        attempt(circuits, outcome, 0)
    assert circuits.wait(1, ONE, 0) == 0


def test_half_of_twenty_failing_within_the_window_opens_it() -> None:
    circuits = health()
    for number in range(19):
        attempt(circuits, Outcome.FAULT if number % 2 else Outcome.OK, 0)
    assert circuits.wait(1, ONE, 0) == 0
    attempt(circuits, Outcome.FAULT, 0)
    assert circuits.wait(1, ONE, 0) > 0


def test_faults_older_than_the_window_are_forgotten() -> None:
    circuits = health()
    for number in range(18):
        attempt(circuits, Outcome.FAULT if number % 2 else Outcome.OK, 0)
    for number in range(4):
        attempt(circuits, Outcome.FAULT if number % 2 else Outcome.OK, 31)
    assert circuits.wait(1, ONE, 31) == 0


@pytest.mark.parametrize("outcome", [Outcome.NEUTRAL])
def test_what_is_not_the_providers_fault_never_opens_it(outcome: Outcome) -> None:
    circuits = health()
    for _ in range(100):
        attempt(circuits, outcome, 0)
    assert circuits.wait(1, ONE, 0) == 0


def test_after_the_pause_one_request_at_a_time_is_the_probe() -> None:
    circuits = opened()
    probe = circuits.enter(1, ONE, 3)
    assert probe is not None
    assert circuits.enter(1, ONE, 3) is None
    assert circuits.wait(1, ONE, 3) == float("inf")
    circuits.answered(probe, 4)
    assert circuits.wait(1, ONE, 4) == 0
    assert circuits.enter(1, ONE, 4) is not None


def test_a_failed_probe_pauses_for_longer_up_to_a_bound() -> None:
    circuits, now, pauses = opened(), 0.0, []
    for _ in range(6):
        pauses.append(circuits.wait(1, ONE, now))
        now += pauses[-1]
        attempt(circuits, Outcome.FAULT, now)
    for pause, middle in zip(pauses, [2, 4, 8, 16, 20, 20], strict=True):
        assert 0.8 * middle <= pause <= 1.2 * middle


def test_a_probe_without_a_verdict_leaves_the_place_to_the_next() -> None:
    circuits = opened()
    assert attempt(circuits, Outcome.NEUTRAL, 3) is not None
    assert circuits.enter(1, ONE, 3) is not None
    assert circuits.enter(1, ONE, 3) is None


def test_late_news_of_earlier_attempts_change_nothing() -> None:
    circuits = health()
    late = [circuits.enter(1, ONE, 0) for _ in range(10)]
    for _ in range(FAULTS_IN_A_ROW):
        attempt(circuits, Outcome.FAULT, 0)
    pause = circuits.wait(1, ONE, 0)
    for visit, outcome in zip(late, [Outcome.OK, Outcome.FAULT] * 5, strict=True):
        assert visit is not None
        circuits.ended(visit, outcome, 1)
    assert circuits.wait(1, ONE, 1) == pause - 1


def test_late_faults_do_not_open_it_again_after_a_successful_probe() -> None:
    circuits = health()
    late = [circuits.enter(1, ONE, 0) for _ in range(10)]
    for _ in range(FAULTS_IN_A_ROW):
        attempt(circuits, Outcome.FAULT, 0)
    attempt(circuits, Outcome.OK, 3)
    for visit in late:
        assert visit is not None
        circuits.ended(visit, Outcome.FAULT, 4)
    assert circuits.wait(1, ONE, 4) == 0


def test_a_rate_limit_rests_for_as_long_as_the_provider_asks() -> None:
    circuits = health()
    attempt(circuits, Outcome.LIMIT, 0, retry_after=7.0)
    assert circuits.wait(1, ONE, 0) == 7
    assert circuits.why(1, ONE, 0) == "rate_limited"
    assert circuits.why(1, ONE, 7) == ""


def test_a_rate_limit_that_says_nothing_rests_for_longer_each_time() -> None:
    circuits, now, pauses = health(), 0.0, []
    for _ in range(3):
        attempt(circuits, Outcome.LIMIT, now)
        pauses.append(circuits.wait(1, ONE, now))
        now += pauses[-1]
    for pause, middle in zip(pauses, [1, 2, 4], strict=True):
        assert 0.8 * middle <= pause <= 1.2 * middle


def test_a_fault_with_a_wish_rests_for_as_long_as_that() -> None:
    circuits = health()
    attempt(circuits, Outcome.FAULT, 0, retry_after=9.0)
    assert circuits.wait(1, ONE, 0) == 9


def test_a_refused_credential_goes_and_the_others_serve() -> None:
    circuits = health()
    while circuits.wait(1, ("bad",), 0) == 0:
        visit = circuits.enter(1, TWO, 0)
        assert visit is not None
        circuits.ended(visit, Outcome.CREDENTIAL if visit.fingerprint == "bad" else Outcome.OK, 0)
    assert circuits.wait(1, TWO, 0) == 0
    served = [circuits.enter(1, TWO, 1) for _ in range(20)]
    assert {visit.fingerprint for visit in served if visit is not None} == {"good"}


def test_the_last_credential_takes_the_deployment_along_but_no_other_deployment() -> None:
    circuits = health()
    attempt(circuits, Outcome.CREDENTIAL, 0)
    assert circuits.enter(1, ONE, 1) is None
    assert circuits.enter(2, ONE, 1) is not None


def test_a_new_credential_has_no_past() -> None:
    circuits = health()
    attempt(circuits, Outcome.CREDENTIAL, 0)
    assert circuits.enter(1, ("new",), 1) is not None


def test_what_another_worker_opened_is_closed_here_and_mended_by_its_probe() -> None:
    circuits = health()
    circuits.adopt((1, ""), 5.0, "failing", 1, 0)
    assert circuits.wait(1, ONE, 0) == 5
    circuits.mend((1, ""), 1)
    assert circuits.wait(1, ONE, 1) == 0


CHAT, EMBEDDINGS = question("chat.completions", "m"), question("embeddings", "m")


def asks(circuits: Health, what: str, outcome: Outcome, now: float, times: int = 1) -> int:
    """How many of so many attempts were let through."""
    passed = 0
    for _ in range(times):
        visit = circuits.enter(1, ONE, now, question=what)
        if visit is not None:
            circuits.ended(visit, outcome, now)
            passed += 1
    return passed


def test_a_model_that_the_provider_keeps_not_knowing_is_left_alone() -> None:
    circuits = health()
    assert asks(circuits, CHAT, Outcome.UNKNOWN, 0, 20) == FAULTS_IN_A_ROW
    assert 4 <= circuits.wait(1, ONE, 0, CHAT) <= 6
    assert circuits.why(1, ONE, 0, CHAT) == "unknown_model"
    # One probe after the pause, which makes the next one longer.
    assert asks(circuits, CHAT, Outcome.UNKNOWN, 6, 20) == 1
    assert 8 <= circuits.wait(1, ONE, 6, CHAT) <= 12
    assert asks(circuits, CHAT, Outcome.OK, 20, 20) == 20


def test_embeddings_that_a_chat_model_does_not_have_close_it_for_no_chat() -> None:
    circuits = health()
    asks(circuits, EMBEDDINGS, Outcome.UNKNOWN, 0, 20)
    assert circuits.wait(1, ONE, 0) == 0
    assert asks(circuits, CHAT, Outcome.OK, 0, 20) == 20
    assert asks(circuits, EMBEDDINGS, Outcome.OK, 0) == 0


def test_who_answered_lately_is_not_closed_by_requests_that_name_what_is_not_there() -> None:
    circuits = health()
    asks(circuits, CHAT, Outcome.OK, 0)
    assert asks(circuits, CHAT, Outcome.UNKNOWN, 59, 20) == 20
    assert asks(circuits, CHAT, Outcome.UNKNOWN, 61, 20) == FAULTS_IN_A_ROW


def test_who_was_answered_lately_does_not_take_another_workers_word_that_a_model_is_unknown() -> None:
    circuits = health()
    circuits.adopt((1, CHAT), 50, "unknown_model", 1, 0)
    assert circuits.wait(1, ONE, 0, CHAT) == 50
    circuits = health()
    asks(circuits, CHAT, Outcome.OK, 0)
    circuits.adopt((1, CHAT), 50, "unknown_model", 1, 0)
    assert circuits.wait(1, ONE, 0, CHAT) == 0


def test_another_model_of_the_deployment_begins_without_a_past() -> None:
    circuits = health()
    asks(circuits, CHAT, Outcome.UNKNOWN, 0, 20)
    assert asks(circuits, question("chat.completions", "corrected"), Outcome.OK, 0, 5) == 5


def test_an_open_circuit_tells_what_the_deployment_is_known_to_answer() -> None:
    circuits = health()
    asks(circuits, CHAT, Outcome.OK, 0)
    asks(circuits, EMBEDDINGS, Outcome.FAULT, 0, FAULTS_IN_A_ROW)
    (found,) = circuits.open_circuits()
    assert (found[0], found[1].asks) == ((1, ""), "chat.completions")


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("ok", Outcome.OK),
        ("connect", Outcome.FAULT),
        ("timeout_first_token", Outcome.FAULT),
        ("timeout", Outcome.FAULT),
        ("overloaded", Outcome.FAULT),
        ("failed", Outcome.FAULT),
        ("broken", Outcome.FAULT),
        ("bad_answer", Outcome.FAULT),
        ("no_end", Outcome.FAULT),
        ("rate_limited", Outcome.LIMIT),
        ("credential", Outcome.CREDENTIAL),
        ("no_money", Outcome.CREDENTIAL),
        ("unknown_model", Outcome.UNKNOWN),
        ("context_window", Outcome.NEUTRAL),
        ("refused", Outcome.NEUTRAL),
        ("", Outcome.NEUTRAL),
    ],
)
def test_who_is_to_blame_for_the_end_of_an_attempt(reason: str, outcome: Outcome) -> None:
    assert outcome_of(reason) is outcome
