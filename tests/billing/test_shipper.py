"""The shipper: each journaled request becomes exactly one event, and its charge is settled once."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.utils import IntegrityError

from billing import journal, partitions
from billing.journal import JournalWriter
from billing.management.commands.ship import connection_parameters
from billing.models import DeadLetter
from billing.shipper import Shipper, ShipperRunning
from tests.billing.books import NOON, Books, stamp

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("committed")


@pytest.fixture
def books(slug: str, committed: None) -> Iterator[Books]:
    opened = Books.open(slug)
    yield opened
    opened.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    made = JournalWriter(tmp_path, uuid4())
    yield made
    made.close()


def shipping(directory: Path) -> AbstractContextManager[Shipper]:
    return closing(Shipper(directory, connection_parameters()))


def ship(directory: Path) -> int:
    """What a shipper started anew ships."""
    with shipping(directory) as shipper:
        return shipper.ship_once()


def letters(books: Books) -> list[DeadLetter]:
    return list(DeadLetter.objects.filter(record__contains=f'"{books.organization.id}-').order_by("id"))


def files(directory: Path) -> list[str]:
    return sorted(path.name.split("-")[-1] for path in directory.iterdir() if path.suffix == ".journal")


def test_an_ended_request_becomes_one_event(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    writer.begin(books.begin("a"))
    writer.end(books.end("a", charge="0.123456789012", tags={"app": "search", "n": "é"}))
    assert ship(tmp_path) == 1
    (event,) = books.events()
    assert event.request_id == books.request_id("a")
    assert (event.started_at, event.ended_at) == (NOON, NOON + timedelta(seconds=2))
    assert (event.charge, event.cost) == (Decimal("0.123456789012"), Decimal("0.08"))
    assert (event.input_tokens, event.output_tokens, event.usage_source) == (100, 20, "reported")
    assert event.tags == {"app": "search", "n": "é"}
    assert event.attempts == [{"deployment": "openai/small", "status": 200}]
    assert event.budget_ids == [books.wallet.id]
    assert books.marks() == {NOON}


def test_a_request_under_way_is_not_shipped(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    writer.begin(books.begin("a"))
    assert ship(tmp_path) == 0
    assert books.events() == []


def test_shipping_again_changes_nothing(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    budget = books.budget()
    for name in "abc":
        writer.end(books.end(name, charge="0.10", budget_ids=[books.wallet.id, budget.id]))
    assert ship(tmp_path) == 3
    with shipping(tmp_path) as shipper:
        assert shipper.ship_once() == 0
        assert shipper.ship_once() == 0
    assert books.counters() == (Decimal("0.30"), Decimal(0))
    assert books.counters(budget) == (Decimal("0.30"), Decimal(0))
    assert len(books.events()) == 3


def test_a_request_journaled_twice_is_charged_once(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    writer.end(books.end("a", charge="0.10"))
    writer.end(books.end("a", charge="0.10"))
    assert ship(tmp_path) == 1
    assert books.counters() == (Decimal("0.10"), Decimal(0))


def test_a_shipper_sees_only_what_is_new(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    with shipping(tmp_path) as shipper:
        writer.end(books.end("a"))
        assert shipper.ship_once() == 1
        writer.end(books.end("b"))
        assert shipper.ship_once() == 1
    assert len(books.events()) == 2


def test_a_charge_is_taken_from_the_workers_own_lease(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    other = uuid4()
    budget = books.budget(held="5")
    books.lease(budget, writer.worker, "3")
    books.lease(budget, other, "2")
    writer.end(books.end("a", charge="1.25", budget_ids=[budget.id]))
    ship(tmp_path)
    # Spent 1.25; held 5 - 1.25; the lease 3 - 1.25; the other worker's is untouched.
    assert books.counters(budget) == (Decimal("1.25"), Decimal("3.75"))
    assert books.leased(budget) == {writer.worker: Decimal("1.75"), other: Decimal(2)}


def test_what_exceeds_the_lease_is_spent_but_was_never_held(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    budget = books.budget(held="1")
    books.lease(budget, writer.worker, "0.40")
    books.lease(budget, uuid4(), "0.60")
    writer.end(books.end("a", charge="0.30", budget_ids=[budget.id]))
    writer.end(books.end("b", charge="0.30", budget_ids=[budget.id]))
    ship(tmp_path)
    # 0.60 spent; the lease had 0.40, so held falls from 1 to 0.60.
    assert books.counters(budget) == (Decimal("0.60"), Decimal("0.60"))
    assert books.leased(budget)[writer.worker] == 0


def test_a_request_counts_in_each_of_its_budgets_once(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    budget = books.budget()
    writer.end(books.end("a", charge="0.10", budget_ids=[books.wallet.id, budget.id, budget.id]))
    ship(tmp_path)
    assert books.counters() == (Decimal("0.10"), Decimal(0))
    assert books.counters(budget) == (Decimal("0.10"), Decimal(0))


def test_a_budget_that_is_gone_stops_nothing(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    writer.end(books.end("a", charge="0.10", budget_ids=[2**60, books.wallet.id]))
    assert ship(tmp_path) == 1
    assert books.counters() == (Decimal("0.10"), Decimal(0))


def test_an_organization_that_is_gone_stops_nothing(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    writer.end(books.end("a", organization_id=2**60))
    writer.end(books.end("b"))
    assert ship(tmp_path) == 2
    assert books.marks() == {NOON}


def test_of_two_directories_that_ship_the_same_request_one_counts(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    second = JournalWriter(tmp_path / "second", uuid4())
    writer.end(books.end("a", charge="0.10"))
    second.end(books.end("a", charge="0.10"))
    assert ship(tmp_path / "second") == 1
    assert ship(tmp_path) == 0
    assert books.counters() == (Decimal("0.10"), Decimal(0))
    second.close()


def test_the_hours_of_late_events_are_marked(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    late = NOON - timedelta(hours=3)
    writer.end(books.end("a"))
    writer.end(books.end("b", started_at=stamp(late + timedelta(minutes=59, seconds=59))))
    ship(tmp_path)
    assert books.marks() == {NOON, late}


def test_a_month_without_partition_gets_one(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    writer.end(books.end("a", started_at="2021-02-28T23:59:59.999999Z"))
    writer.end(books.end("b", started_at="2021-03-01T00:00:00.000000Z"))
    assert ship(tmp_path) == 2
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tableoid::regclass::text FROM billing_usageevent WHERE organization_id = %s ORDER BY 1",
            [books.organization.id],
        )
        found = [row[0] for row in cursor.fetchall()]
    assert found == ["billing_usageevent_2021_02", "billing_usageevent_2021_03"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"output_tokens": -1}, "CheckViolation"),
        ({"charge": "NaN"}, "CheckViolation"),
        ({"charge": "-0.01"}, "CheckViolation"),
        ({"charge": "1e30"}, "NumericValueOutOfRange"),
        ({"status": "ok"}, "InvalidTextRepresentation"),
        ({"team_id": None}, "NotNullViolation"),
        ({"started_at": "yesterday"}, "started_at is missing or no time."),
        ({"started_at": "2021-02-28T23:59:59"}, "started_at has no time zone."),
        ({"started_at": "2999-01-01T00:00:00Z"}, "started_at is in the future or before 2020."),
        ({"quantities": {"smells": "1"}}, "quantities holds a class that does not exist."),
        ({"quantities": {"seconds": "-1"}}, "quantities holds something that is no decimal."),
        ({"quantities": {"seconds": 1.5}}, "quantities holds something that is no decimal."),
        ({"t": "middle"}, "Neither a begin nor an end of a request."),
    ],
)
def test_a_record_that_cannot_be_is_put_aside_and_the_others_go_on(
    tmp_path: Path, books: Books, writer: JournalWriter, changes: dict[str, Any], reason: str
) -> None:
    for number in range(5):
        writer.end(books.end(f"before{number}", charge="0.10"))
    writer.end(books.end("bad") | changes)
    for number in range(3):
        writer.end(books.end(f"later{number}", charge="0.10"))
    assert ship(tmp_path) == 8
    assert len(books.events()) == 8
    assert books.counters() == (Decimal("0.80"), Decimal(0))
    (letter,) = letters(books)
    assert books.request_id("bad") in letter.record
    assert letter.reason.startswith(reason)
    # A shipper that starts anew meets the line again, and does not put it aside twice.
    assert ship(tmp_path) == 0
    assert len(letters(books)) == 1


def test_a_line_damaged_on_disk_is_put_aside(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    writer.end(books.end("a"))
    writer.end(books.end("b"))
    writer.end(books.end("c"))
    path = journal.segment_path(tmp_path, writer.worker, 1)
    name = books.request_id("b").encode()
    path.write_bytes(path.read_bytes().replace(name, name[:-1] + b"X"))
    assert ship(tmp_path) == 2
    (letter,) = letters(books)
    assert letter.reason == "The checksum does not match."


def test_labels_are_cut_to_their_columns(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    writer.end(books.end("a", end_user="u\0" + "x" * 300, error_code=None))
    assert ship(tmp_path) == 1
    (event,) = books.events()
    assert event.end_user == "u" + "x" * 255
    assert event.error_code == ""


def test_a_closed_segment_goes_when_all_its_requests_have_ended(tmp_path: Path, books: Books) -> None:
    writer = JournalWriter(tmp_path, uuid4())
    writer.begin(books.begin("a"))
    writer.rotate()
    writer.begin(books.begin("b"))
    writer.end(books.end("b"))
    writer.rotate()
    with shipping(tmp_path) as shipper:
        shipper.ship_once()
        # The first segment holds the begin of a, which is under way; the second is done with.
        assert files(tmp_path) == ["000001.journal", "000003.journal"]
        writer.end(books.end("a"))
        shipper.ship_once()
        assert files(tmp_path) == ["000003.journal"]
    writer.close()


def test_a_new_shipper_knows_what_ended_in_a_segment_that_is_gone(tmp_path: Path, books: Books) -> None:
    writer = JournalWriter(tmp_path, uuid4())
    writer.begin(books.begin("long"))
    writer.begin(books.begin("a"))
    writer.rotate()
    writer.end(books.end("a"))
    writer.rotate()
    ship(tmp_path)
    assert files(tmp_path) == ["000001.journal", "000003.journal"]
    with shipping(tmp_path) as shipper:
        shipper.ship_once()
        writer.end(books.end("long"))
        shipper.ship_once()
    assert files(tmp_path) == ["000003.journal"]
    writer.close()


def test_a_living_workers_last_segment_stays(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    writer.end(books.end("a"))
    ship(tmp_path)
    writer.end(books.end("b"))
    assert ship(tmp_path) == 1


def test_a_worker_that_closed_leaves_nothing_behind(tmp_path: Path, books: Books) -> None:
    writer = JournalWriter(tmp_path, uuid4())
    books.lease(books.wallet, writer.worker, "0")
    writer.begin(books.begin("a"))
    writer.end(books.end("a"))
    writer.close()
    assert ship(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shipper.lock"]
    assert books.leased() == {}


WORKER_PROGRAM = """
import json, sys, time
from pathlib import Path
from uuid import UUID
from billing.journal import JournalWriter
writer = JournalWriter(Path(sys.argv[1]), UUID(sys.argv[2]))
for line in sys.stdin:
    record = json.loads(line)
    (writer.begin if record["t"] == "begin" else writer.end)(record)
    print("written", flush=True)
"""


def killed_worker(directory: Path, worker: UUID, records: list[dict[str, Any]]) -> None:
    """A worker in a process of its own, killed with SIGKILL after it wrote ``records``."""
    import json

    child = subprocess.Popen(
        [sys.executable, "-c", WORKER_PROGRAM, str(directory), str(worker)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for record in records:
        child.stdin.write(json.dumps(record) + "\n")
        child.stdin.flush()
        assert child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL


def test_after_kill_9_every_request_is_accounted_for_and_the_leases_return(
    tmp_path: Path, books: Books
) -> None:
    worker = uuid4()
    budget = books.budget(held="6")
    books.lease(budget, worker, "4")
    books.lease(budget, UUID(int=7), "2")
    killed_worker(
        tmp_path,
        worker,
        [
            books.begin("a", budget_ids=[budget.id]),
            books.begin("b", budget_ids=[budget.id]),
            books.end("a", charge="0.50", budget_ids=[budget.id]),
        ],
    )
    # The kernel may have cut a line short.
    with journal.segment_path(tmp_path, worker, 1).open("ab") as file:
        file.write(b'1234abcd {"t":"end","req')

    assert ship(tmp_path) == 2
    ended, interrupted = books.events()
    assert (ended.end_reason, ended.charge) == ("completed", Decimal("0.50"))
    assert (interrupted.end_reason, interrupted.status) == ("interrupted", 500)
    assert (interrupted.cost, interrupted.charge) == (Decimal("0.05"), Decimal(0))
    assert (interrupted.input_tokens, interrupted.output_tokens) == (40, 0)
    assert (interrupted.usage_source, interrupted.attempts) == ("estimated", [])
    assert interrupted.ended_at >= interrupted.started_at
    # 0.50 spent from the lease of 4; the other 3.50 came back: 6 - 4 = 2 held by the other worker.
    assert books.counters(budget) == (Decimal("0.50"), Decimal(2))
    assert books.leased(budget) == {UUID(int=7): Decimal(2)}
    assert [path.name for path in tmp_path.iterdir()] == ["shipper.lock"]
    assert letters(books) == []


def test_of_heirs_that_race_as_processes_one_inherits(tmp_path: Path, books: Books) -> None:
    from tests.stack import environment_for

    worker = uuid4()
    budget = books.budget(held="4")
    books.lease(budget, worker, "4")
    records = [books.end(f"r{number}", charge="0.01", budget_ids=[budget.id]) for number in range(40)]
    killed_worker(tmp_path, worker, [books.begin("open", budget_ids=[budget.id]), *records])
    heirs = [
        subprocess.Popen(
            [sys.executable, "manage.py", "ship", "--once", "--directory", str(tmp_path)],
            cwd=ROOT,
            env=environment_for(tmp_path),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [heir.communicate(timeout=120) for heir in heirs]
    done = [heir.returncode == 0 for heir in heirs]
    assert any(done), said
    # Those that were refused say why; those that came after the heir found nothing left.
    assert all("Another shipper" in err for ok, (_, err) in zip(done, said, strict=True) if not ok), said
    shipped = [out for ok, (out, _) in zip(done, said, strict=True) if ok]
    assert max(shipped).startswith("41 events")
    assert all(each.startswith("0 events") for each in sorted(shipped, reverse=True)[1:])
    assert len(books.events()) == 41
    assert books.counters(budget) == (Decimal("0.40"), Decimal(0))
    assert books.leased(budget) == {}


def test_winding_up_may_be_repeated_after_a_stop_midway(tmp_path: Path, books: Books) -> None:
    writer = JournalWriter(tmp_path, uuid4())
    writer.begin(books.begin("a"))
    writer.rotate()
    writer.end(books.end("b"))
    writer.close()
    kept = {path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".journal"}
    assert ship(tmp_path) == 2
    # As if the heir had been stopped before it removed the segments, but after the lock file went.
    for path, content in kept.items():
        path.write_bytes(content)
    assert ship(tmp_path) == 0
    assert files(tmp_path) == []
    assert len(books.events()) == 2


def test_a_living_worker_is_not_inherited(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    books.lease(books.wallet, writer.worker, "1")
    writer.begin(books.begin("a"))
    ship(tmp_path)
    assert books.events() == []
    assert books.leased() == {writer.worker: Decimal(1)}


def test_leases_of_a_worker_whose_journal_is_lost_return_on_demand(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    lost = uuid4()
    budget = books.budget(held="3")
    books.lease(budget, lost, "2")
    books.lease(budget, writer.worker, "1")
    call_command("ship", directory=tmp_path, abandon=lost, stdout=StringIO())
    assert books.counters(budget) == (Decimal(0), Decimal(1))
    assert books.leased(budget) == {writer.worker: Decimal(1)}
    with pytest.raises(CommandError, match="has a journal here"):
        call_command("ship", directory=tmp_path, abandon=writer.worker)
    assert books.leased(budget) == {writer.worker: Decimal(1)}


def test_two_shippers_that_settle_the_same_budgets_agree(tmp_path: Path, books: Books) -> None:
    # The records name their budgets in opposite orders; the counters are locked in one.
    second = books.budget()
    orders = [[books.wallet.id, second.id], [second.id, books.wallet.id]]
    directories = [tmp_path / "one", tmp_path / "two"]
    for directory, order in zip(directories, orders, strict=True):
        writer = JournalWriter(directory, uuid4())
        for number in range(150):
            writer.end(books.end(f"{directory.name}{number}", charge="0.01", budget_ids=order))
            if number % 10 == 9:
                writer.rotate()
        writer.close()
    shippers = [shipping(directory) for directory in directories]
    with shippers[0] as one, shippers[1] as two, ThreadPoolExecutor(2) as pool:
        shipped = [done.result(timeout=60) for done in [pool.submit(each.ship_once) for each in (one, two)]]
    assert shipped == [150, 150]
    assert books.counters() == (Decimal(3), Decimal(0))
    assert books.counters(second) == (Decimal(3), Decimal(0))


def test_a_directory_has_one_shipper(tmp_path: Path) -> None:
    with shipping(tmp_path):
        with pytest.raises(ShipperRunning):
            Shipper(tmp_path, connection_parameters())
        with pytest.raises(CommandError, match="Another shipper"):
            call_command("ship", "--once", directory=tmp_path)
    ship(tmp_path)


def test_what_could_not_be_shipped_is_shipped_later(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    nowhere = connection_parameters() | {"host": str(tmp_path), "port": 1}
    shipper = Shipper(tmp_path, nowhere)
    writer.end(books.end("a"))
    with pytest.raises(psycopg.OperationalError):
        shipper.ship_once()
    shipper.close()
    assert ship(tmp_path) == 1


def test_a_lost_connection_is_replaced(tmp_path: Path, books: Books, writer: JournalWriter) -> None:
    stop = threading.Event()
    parameters = connection_parameters() | {"application_name": "weir-lost"}
    with closing(Shipper(tmp_path, parameters)) as shipper:
        loop = threading.Thread(target=shipper.run, args=(stop, 0.02))
        writer.end(books.end("a"))
        loop.start()
        wait_for(lambda: len(books.events()) == 1)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'weir-lost'"
            )
            assert len(cursor.fetchall()) == 1
        writer.end(books.end("b"))
        wait_for(lambda: len(books.events()) == 2)
        # The last round ships what was written before the stop.
        writer.end(books.end("c"))
        stop.set()
        loop.join(timeout=30)
    assert len(books.events()) == 3


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_the_command_ships_until_it_is_terminated(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    from tests.stack import environment_for

    child = subprocess.Popen(
        [sys.executable, "manage.py", "ship", "--directory", str(tmp_path)],
        cwd=ROOT,
        env=environment_for(tmp_path),
    )
    try:
        writer.end(books.end("a"))
        wait_for(lambda: len(books.events()) == 1)
    finally:
        child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=60) == 0
    with (tmp_path / "shipper.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_settlement_that_fails_leaves_nothing_half_done(
    tmp_path: Path, books: Books, writer: JournalWriter
) -> None:
    # Another process holds the wallet, so the shipper cannot finish; nothing of its batch may show.
    writer.end(books.end("a"))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT FROM billing_budget WHERE id = %s FOR UPDATE", [books.wallet.id])
        shipper = Shipper(tmp_path, connection_parameters() | {"options": "-c lock_timeout=200"})
        with pytest.raises(psycopg.errors.LockNotAvailable):
            shipper.ship_once()
        shipper.close()
    assert books.events() == []
    assert books.marks() == set()
    assert ship(tmp_path) == 1


@pytest.mark.parametrize(
    "statement", ["UPDATE billing_usageevent SET charge = 0", "DELETE FROM billing_usageevent"]
)
def test_an_event_is_never_changed(
    tmp_path: Path, books: Books, writer: JournalWriter, statement: str
) -> None:
    writer.end(books.end("a"))
    ship(tmp_path)
    with pytest.raises(IntegrityError, match="only ever added"), connection.cursor() as cursor:
        cursor.execute(f"{statement} WHERE organization_id = %s", [books.organization.id])
    assert len(books.events()) == 1


@pytest.mark.django_db
def test_partitions_are_made_once() -> None:
    month = datetime(2022, 12, 31, 23, 59, tzinfo=UTC)
    with connection.cursor() as cursor:
        made = [partitions.ensure(cursor, month), partitions.ensure(cursor, month)]
    assert made == [True, False]
    assert partitions.after(month).isoformat() == "2023-01-01"
