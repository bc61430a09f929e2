"""``manage.py bench``: its sums, its table, and one short run of the whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.bench import load, measure, peers
from gateway.bench.load import Report
from gateway.bench.measure import Process
from gateway.bench.table import PROVIDER, WEIR, Cell, columns, table
from gateway.bench.workloads import EVENTS, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert measure.percentile(values, 0.5) == 3.0
    assert measure.percentile(values, 0.99) == 5.0
    assert measure.percentile(values, 0.2) == 1.0
    assert measure.percentile([7.0], 0.5) == 7.0


def test_of_two_hundred_values_two_are_above_the_99th_percentile() -> None:
    assert measure.percentile([float(n) for n in range(1, 201)], 0.99) == 198.0


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        measure.percentile([], 0.5)


def test_cpu_and_memory_are_read_from_proc_although_the_name_has_parentheses() -> None:
    # Fields 14 and 15 are ticks in user and kernel mode, 24 is pages.
    line = (
        "42 (a) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 250 50 9 9 20 0 4 0 1000 99999 300 18446744073709551615"
    )
    assert measure.parse_stat(line, ticks=100, page=4096) == (42, Process(7, 3.0, 0.5, 1_228_800))


def test_cpu_and_memory_are_read_from_ps() -> None:
    assert measure.parse_ps("  42     7   2000   1:02.50") == (42, Process(7, 62.5, 0.0, 2_048_000))
    assert measure.parse_ps("42 7 1 1-02:03:04") == (42, Process(7, 93_784.0, 0.0, 1024))


def test_a_program_is_charged_for_its_children_and_not_for_others() -> None:
    of = {
        number: Process(parent, 0, 0, 0) for number, parent in ((1, 0), (10, 1), (11, 10), (12, 11), (20, 1))
    }
    assert sorted(measure.tree(10, of)) == [10, 11, 12]
    assert measure.tree(99, of) == []


def test_what_this_process_uses_is_seen() -> None:
    before = measure.used([os.getpid()])
    while measure.used([os.getpid()]).cpu_seconds <= before.cpu_seconds:
        sum(range(100_000))
    assert before.rss_bytes > 1_000_000


@pytest.mark.parametrize(
    ("status", "body", "events", "said"),
    [
        (200, b'{"choices":[{"finish_reason":"stop"}]}', None, ""),
        (200, b'{"choices":[{"finish_reason":"stop"', None, "an incomplete answer"),
        (429, b"slow down", None, "status 429: slow down"),
        (200, b"data: {}\n\ndata: [DONE]\n\n", 2, ""),
        (200, b"data: {}\n\ndata: {}\n\n", 2, "a stream without [DONE] at its end"),
        (200, b"data: [DONE]\n\n", 2, "a stream of 1 events, not 2"),
    ],
)
def test_only_a_whole_answer_counts(status: int, body: bytes, events: int | None, said: str) -> None:
    assert load.fault(status, body, events) == said


def cell(peer: str, *, requests: int, p50: float, p99: float, cpu: float) -> Cell:
    report = Report(
        requests=requests, seconds=2.0, p50=p50, p99=p99, cpu_seconds=cpu, rss_bytes=50_000_000, warm=1
    )
    return Cell("plain", peer, report, {})


CELLS = [
    cell(PROVIDER, requests=20_000, p50=1.0, p99=2.0, cpu=1.0),
    cell("Envoy 1.2.3", requests=10_000, p50=1.5, p99=3.0, cpu=0.5),
    cell(WEIR, requests=4_000, p50=2.25, p99=7.0, cpu=1.0),
]


def test_the_table_shows_what_is_added_and_how_much_more_than_the_floor() -> None:
    title, heading, direct, floor, weir = table(WORKLOADS[0], CELLS, "Envoy 1.2.3")
    assert title == WORKLOADS[0].title
    assert " ".join(heading.split()) == (
        "requests/s x Envoy p50 ms p99 ms added p50 added p99 CPU us x Envoy core busy MB"
    )
    assert direct.split() == [*PROVIDER.split(), "10,000", "2.00", "1.00", "2.00"]
    assert floor.split()[2:] == ["5,000", "1.00", "1.50", "3.00", "+0.50", "+1.00", "50", "1.00", "25%", "50"]
    assert weir.removeprefix(WEIR).split() == (
        ["2,000", "0.40", "2.25", "7.00", "+1.25", "+5.00", "250", "5.00", "50%", "50"]
    )


def test_without_a_floor_the_table_has_no_ratios() -> None:
    _, heading, _, weir = table(WORKLOADS[0], [CELLS[0], CELLS[2]], None)
    assert "x" not in heading.split()
    assert weir.removeprefix(WEIR).split() == ["2,000", "2.25", "7.00", "+1.25", "+5.00", "250", "50%", "50"]


def test_at_a_fixed_rate_speeds_are_not_compared() -> None:
    *_, weir = table(WORKLOADS[1], CELLS, "Envoy 1.2.3")
    assert weir.removeprefix(WEIR).split()[:3] == ["2,000", "2.25", "7.00"]


def test_columns_are_aligned() -> None:
    assert columns([["", "n"], ["ab", "12"], ["c", ""]]) == ["     n", "ab  12", "c"]


def test_envoy_passes_everything_on_and_sets_no_limit() -> None:
    resources = peers.envoy_configuration(1001, 1002)["static_resources"]
    text = json.dumps(resources)
    assert '"port_value": 1001' in text
    assert '"port_value": 1002' in text
    assert '"timeout": "0s"' in text


@pytest.mark.slow
def test_a_short_run_measures_everything_and_leaves_nothing(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "manage.py", "bench", "--quick", "--only", "plain", "stream", "--json", str(result)],
        cwd=ROOT,
        env={**os.environ, "WEIR_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    floor = found["machine"]["floor"]
    assert [cell["peer"] for cell in found["cells"]] == [PROVIDER, *([floor] if floor else []), WEIR] * 2
    answered = 0
    for cell in found["cells"]:
        report = cell["report"]
        assert report["errors"] == []
        assert report["requests"] > 0
        assert 0 < report["p50"] <= report["p99"]
        assert report["rss_bytes"] > 1_000_000
        if cell["peer"] == WEIR:
            answered += report["warm"] + report["requests"]
            assert set(cell["beside"]) == {"shipper", "PostgreSQL", "Redis"}
        if cell["workload"] == "stream":
            assert 0 < report["first_p50"] <= report["p99"]
    # Every request of the gateway is on the books, and only those.
    assert found["requests"] == answered
    assert f"Books: {answered:,} requests answered and accounted for" in done.stdout
    assert not (tmp_path / "data" / "bench").exists()


def test_a_stream_has_an_event_for_each_word_and_four_more() -> None:
    assert EVENTS == 104


def test_the_bench_of_ingestion_ships_sums_and_reports_what_it_made(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, "manage.py", "bench_ingest", "--events", "3000", "--ship", "400"),
            *("--busy-hour", "2000", "--keys", "50", "--members", "10", "--json", str(figures)),
        ],
        cwd=ROOT,
        env=os.environ | {"WEIR_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert found["books"] == "balanced"
    assert found["shipped, events/s"] > 0
    assert "report by end_user, ms" in found
