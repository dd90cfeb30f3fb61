"""What every journal engine must do. A new engine joins by being added to ``engine``."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pointsman.server.journal.interface import (
    Appended,
    Behind,
    Conflict,
    Duplicate,
    Entry,
    Group,
    Journal,
    JournalError,
    Span,
)
from pointsman.server.journal.sqlite import SqliteJournal

Open = Callable[[], Journal]


@pytest.fixture(params=["sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens (again) the same journal; what was opened before is closed."""
    opened: list[Journal] = []

    def open_it() -> Journal:
        if opened:
            opened[-1].close()
        opened.append(SqliteJournal(tmp_path / "journal"))
        return opened[-1]

    yield open_it
    if opened:
        opened[-1].close()


def one(data: bytes, key: bytes = b"", expect: int | None = None, once: bytes = b"") -> Group:
    return Group((Entry(data, key, expect),), once)


def test_positions_run_from_1_without_gaps(engine: Open) -> None:
    journal = engine()
    assert journal.last_position() == 0
    assert journal.append([one(b"a"), Group((Entry(b"b"), Entry(b"c")))], 5) == [Appended(1, 1, 5), Appended(2, 2, 5)]
    assert journal.append([one(b"d")], 6) == [Appended(4, 1, 6)]
    assert [(row.position, row.time_ns, row.data) for row in journal.read(1)] == [
        (1, 5, b"a"),
        (2, 5, b"b"),
        (3, 5, b"c"),
        (4, 6, b"d"),
    ]
    assert journal.last_position() == 4


def test_reading_a_range(engine: Open) -> None:
    journal = engine()
    journal.append([one(bytes([i])) for i in range(100)] * 25, 1)
    assert [row.position for row in journal.read(2499)] == [2499, 2500]
    assert [row.position for row in journal.read(1000, 1002)] == [1000, 1001, 1002]
    assert list(journal.read(2501)) == []
    assert sum(1 for _ in journal.read(1)) == 2500


def test_time_never_goes_back(engine: Open) -> None:
    journal = engine()
    journal.append([one(b"a")], 100)
    assert journal.append([one(b"b")], 50) == [Appended(2, 1, 100)]
    journal = engine()
    assert journal.append([one(b"c")], 7) == [Appended(3, 1, 100)]


def test_everything_is_there_after_reopening(engine: Open) -> None:
    journal = engine()
    journal.append([one(b"a", b"k", 0, once=b"o")], 1)
    journal = engine()
    assert journal.last_position() == 1
    assert journal.span(b"k") == Span(1, 1)
    assert journal.append([one(b"again", once=b"o")], 2) == [Duplicate(1, 1)]
    assert journal.append([one(b"b", b"k", 1)], 2) == [Appended(2, 1, 2)]


def test_a_group_is_written_once(engine: Open) -> None:
    journal = engine()
    twice = Group((Entry(b"a"), Entry(b"b")), once=b"o")
    assert journal.append([one(b"z"), twice, twice], 1) == [Appended(1, 1, 1), Appended(2, 2, 1), Duplicate(2, 2)]
    assert journal.append([twice], 2) == [Duplicate(2, 2)]
    assert journal.last_position() == 3


def test_a_group_without_entries_asks_and_writes_nothing(engine: Open) -> None:
    journal = engine()
    asked = Group((), once=b"o")
    groups = [asked, one(b"a", once=b"o"), asked, one(b"b")]
    assert journal.append(groups, 1) == [Appended(1, 0, 1), Appended(1, 1, 1), Duplicate(1, 1), Appended(2, 1, 1)]
    assert journal.append([asked], 2) == [Duplicate(1, 1)]
    assert journal.last_position() == 2


def test_an_expectation_that_fails_writes_nothing(engine: Open) -> None:
    journal = engine()
    first = [one(b"a", b"k", 0), one(b"b", b"k", 0), one(b"c", b"k", 1)]
    assert journal.append(first, 1) == [Appended(1, 1, 1), Conflict(b"k", 1), Appended(2, 1, 1)]
    half = Group((Entry(b"x"), Entry(b"y", b"k", 1)), once=b"o")
    assert journal.append([half], 2) == [Conflict(b"k", 2)]
    assert journal.append([Group((Entry(b"x"), Entry(b"y", b"k", 2)), once=b"o")], 2) == [Appended(3, 2, 2)]
    assert journal.append([one(b"n", b"new", 3)], 2) == [Conflict(b"new", 0)]
    assert journal.span(b"k") == Span(1, 4)
    assert journal.span(b"new") is None
    assert [row.data for row in journal.read(1)] == [b"a", b"c", b"x", b"y"]


def test_nothing_and_large_values(engine: Open) -> None:
    journal = engine()
    assert journal.append([], 1) == []
    big = bytes(range(256)) * 8192
    journal.append([one(b""), one(big, key=b"\x00" * 200)], 1)
    assert [row.data for row in journal.read(1)] == [b"", big]
    assert journal.span(b"\x00" * 200) == Span(2, 2)


def test_many_threads_append_and_read(engine: Open) -> None:
    journal = engine()
    seen: list[int] = []

    def writer(number: int) -> None:
        for i in range(40):
            (result,) = journal.append([one(f"{number}.{i}".encode(), f"k{number}".encode())], 1)
            assert isinstance(result, Appended)
            seen.append(result.first)
            rows = list(journal.read(result.first, result.first))
            assert rows[0].data == f"{number}.{i}".encode()

    threads = [threading.Thread(target=writer, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(1, 241))


def test_reading_while_writing_sees_whole_groups_in_order(engine: Open) -> None:
    journal = engine()
    stop = threading.Event()
    faults: list[str] = []

    def reader() -> None:
        while not stop.is_set():
            end = journal.last_position()
            rows = list(journal.read(1))
            if [row.position for row in rows] != list(range(1, len(rows) + 1)):
                faults.append("a gap")
            if len(rows) < end or len(rows) % 3:
                faults.append(f"{len(rows)} rows when {end} were durable")

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(200):
        journal.append([Group(tuple(Entry(f"{i}.{j}".encode()) for j in range(3)))], i)
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert [row.data for row in journal.read(1)] == [f"{i}.{j}".encode() for i in range(200) for j in range(3)]


def test_of_many_threads_with_the_same_expectation_one_wins(engine: Open) -> None:
    journal = engine()
    results: list[Appended | Conflict | Duplicate] = []

    def writer(number: int) -> None:
        for i in range(20):
            results.extend(journal.append([one(f"{number}".encode(), f"k{i}".encode(), 0)], 1))

    threads = [threading.Thread(target=writer, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(result, Appended) for result in results) == 20
    assert sum(isinstance(result, Conflict) for result in results) == 60
    assert journal.last_position() == 20


def test_of_many_threads_with_the_same_once_one_writes(engine: Open) -> None:
    journal = engine()
    results: list[Appended | Conflict | Duplicate] = []

    def writer() -> None:
        for i in range(20):
            results.extend(journal.append([Group((Entry(b"a"), Entry(b"b")), once=f"o{i}".encode())], 1))

    threads = [threading.Thread(target=writer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = {result.first for result in results if isinstance(result, Appended)}
    assert len(written) == 20
    assert {result.first for result in results if isinstance(result, Duplicate)} == written
    assert all(result.count == 2 for result in results if isinstance(result, Duplicate))


def test_it_behaves_as_a_list_would(engine: Open) -> None:
    """Random groups against a model of the journal that is a list and two dictionaries, reopened now and then."""
    rng = random.Random(0)
    journal = engine()
    rows: list[tuple[int, bytes]] = []
    lasts: dict[bytes, list[int]] = {}
    onces: dict[bytes, tuple[int, int]] = {}
    time_ns = 0
    for step in range(300):
        groups = []
        for _ in range(rng.randint(0, 4)):
            entries = tuple(
                Entry(
                    rng.randbytes(rng.randint(0, 30)),
                    rng.choice([b"", b"p", b"q", b"\x00", b"\xff" * 40]),
                )
                for _ in range(rng.randint(1, 3))
            )
            last = lasts.get(entries[0].key, [0])[-1]
            if entries[0].key and rng.random() < 0.5:
                expect = rng.choice([last, 0, 1])
                entries = (Entry(entries[0].data, entries[0].key, expect), *entries[1:])
            groups.append(Group(entries, rng.choice([b"", b"", b"o%d" % rng.randint(0, 200)])))
        now_ns = rng.randint(0, 10 * step + 1)
        expected: list[Appended | Conflict | Duplicate] = []
        stamp = max(now_ns, time_ns)
        for group in groups:
            first_entry = group.entries[0]
            last = lasts.get(first_entry.key, [0])[-1]
            if group.once in onces:
                expected.append(Duplicate(*onces[group.once]))
            elif first_entry.expect is not None and first_entry.expect != last:
                expected.append(Conflict(first_entry.key, last))
            else:
                first = len(rows) + 1
                expected.append(Appended(first, len(group.entries), stamp))
                for entry in group.entries:
                    rows.append((stamp, entry.data))
                    if entry.key:
                        lasts.setdefault(entry.key, []).append(len(rows))
                if group.once:
                    onces[group.once] = (first, len(group.entries))
                time_ns = stamp
        assert journal.append(groups, now_ns) == expected
        assert journal.last_position() == len(rows)
        if rng.random() < 0.05:
            journal = engine()
    assert len(rows) > 300
    assert [(row.time_ns, row.data) for row in journal.read(1)] == rows
    for key, found in lasts.items():
        assert journal.span(key) == Span(found[0], found[-1])


def test_many_keys(engine: Open) -> None:
    journal = engine()
    for start in range(0, 20_000, 5000):
        journal.append([one(b"", b"key %d" % i, 0) for i in range(start, start + 5000)], 1)
    assert journal.span(b"key 0") == Span(1, 1)
    assert journal.span(b"key 19999") == Span(20_000, 20_000)
    assert journal.span(b"key 20000") is None


def test_a_fault_leaves_nothing_half_written_and_the_journal_usable(engine: Open) -> None:
    journal = engine()
    journal.append([one(b"a")], 1)
    with pytest.raises(JournalError):
        journal.append([one(b"b", b"k", once=b"o"), one("not bytes at all", b"k")], 2**70)  # type: ignore[arg-type]
    assert journal.last_position() == 1
    assert journal.span(b"k") is None
    assert journal.append([one(b"b", b"k", 0, once=b"o")], 3) == [Appended(2, 1, 3)]


@pytest.fixture(params=["sqlite"])
def share(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same journal once more, to be used at the same time as what was opened before."""
    holder = SqliteJournal(tmp_path / "journal")
    opened: list[Journal] = []

    def open_it() -> Journal:
        opened.append(SqliteJournal(tmp_path / "journal", shared=True))
        return opened[-1]

    yield open_it
    for journal in (*opened, holder):
        journal.close()


def test_writers_that_share_a_journal_write_one_order(share: Open) -> None:
    a, b = share(), share()
    assert a.append([one(b"a", b"k", 0, once=b"o")], 100) == [Appended(1, 1, 100)]
    assert b.last_position() == 1
    groups = [one(b"again", once=b"o"), one(b"stale", b"k", 0), one(b"b", b"k", 1)]
    assert b.append(groups, 50) == [Duplicate(1, 1), Conflict(b"k", 1), Appended(2, 1, 100)]
    assert a.last_position() == 2
    assert a.append([one(b"c")], 7) == [Appended(3, 1, 100)]
    assert [row.data for row in b.read(1)] == [b"a", b"b", b"c"]
    assert a.span(b"k") == Span(1, 2)


def test_a_group_that_has_not_seen_what_another_wrote_is_refused(share: Open) -> None:
    a, b = share(), share()
    a.append([one(b"a")], 1)
    a.append([one(b"b")], 1)
    own = Group((Entry(b"own"),), seen=0)  # all that came after 0 is its own
    assert a.append([own], 1) == [Appended(3, 1, 1)]
    for seen in (0, 2):
        assert b.append([Group((Entry(b"x"),), seen=seen)], 1) == [Behind(3)]
    assert b.append([Group((Entry(b"d"),), b"o", seen=3), Group((Entry(b"e"),), seen=3)], 1) == [
        Appended(4, 1, 1),
        Appended(5, 1, 1),
    ]
    assert b.append([Group((Entry(b"again"),), b"o", seen=0)], 1) == [
        Duplicate(4, 1)
    ]  # what it asks has an answer already
    assert a.append([Group((Entry(b"x"),), seen=3), one(b"f")], 1) == [Behind(5), Appended(6, 1, 1)]
    assert b.append([Group((Entry(b"x"),), seen=5)], 1) == [Behind(6)]
    assert [row.data for row in a.read(1)] == [b"a", b"b", b"own", b"d", b"e", b"f"]


def test_many_writers_that_share_a_journal(share: Open) -> None:
    """Increments of a number that is read from the journal, each resting on having seen everything: none gets lost."""

    def writer(journal: Journal) -> None:
        done = 0
        while done < 40:
            rows = list(journal.read(1))
            number = int(rows[-1].data) if rows else 0
            (result,) = journal.append([Group((Entry(b"%d" % (number + 1)),), seen=len(rows))], 1)
            done += isinstance(result, Appended)

    threads = [threading.Thread(target=writer, args=(share(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [int(row.data) for row in share().read(1)] == list(range(1, 121))
