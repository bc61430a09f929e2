"""The drills in short: a crowd cannot overspend a key, no kill loses a request, no fault makes a liar."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.drills.verdict import Verdict, table

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def drill(*words: str) -> str:
    """Run a drill; returns what it printed, and fails with it unless everything held."""
    done = subprocess.run(
        [sys.executable, "manage.py", "drill", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("scenario", ["new end user"])
def test_a_crowd_spends_nearly_all_of_a_budget_and_never_more(scenario: str) -> None:
    shown = drill("never-over", "--workers", "2", "--clients", "100", "--only", scenario)
    assert "  held" in shown


def test_every_request_at_the_provider_has_one_event_whatever_is_killed() -> None:
    # PostgreSQL is the last to die, so that nobody starts anew and makes up for what it forgot.
    shown = drill("never-lost", "--relaxed", "--workers", "2", "--seconds", "4", "--seed", "8")
    assert "  held" in shown
    # Both workers' deaths had somebody to interrupt, or the round proved little.
    assert int(shown.splitlines()[-1].split()[-3]) > 0


def test_each_of_sixteen_faults_gets_a_whole_answer_or_an_honest_error() -> None:
    shown = drill("sixteen", "--relaxed", "--workers", "2", "--scale", "0.2")
    assert len([line for line in shown.splitlines() if line.endswith("  held")]) == 16


def test_callers_are_answered_while_redis_is_frozen_and_while_postgresql_is_stopped() -> None:
    shown = drill(
        *("outages", "--relaxed", "--workers", "2"), *("--redis-seconds", "4", "--postgres-seconds", "4")
    )
    assert shown.count("  held") == 2


def test_the_only_provider_is_not_hammered_and_comes_back_by_a_probe() -> None:
    shown = drill("lone", "--relaxed", "--workers", "2")
    assert shown.count("  held") == 1


def test_a_violation_is_in_the_table_and_below_it() -> None:
    rows = [
        Verdict({"round": "1", "charged": "0.99"}, []),
        Verdict({"round": "2", "charged": "1.01"}, ["over by 0.01"]),
    ]
    assert table(rows) == [
        "round  charged  verdict",
        "-----  -------  -------",
        "1      0.99     held",
        "2      1.01     BROKEN",
        "VIOLATION 2: over by 0.01",
    ]
