"""Conformance suite of journal engines. A new engine joins by being added to ``engine`` and ``share``."""

from __future__ import annotations

import asyncio
import functools
import random
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.server.journal.interface import (
    COUNTER_MAX,
    Appended,
    Base,
    Condition,
    Conflict,
    Entry,
    Group,
    Guard,
    Journal,
    JournalError,
    Refused,
    Result,
    Row,
    Span,
    Unknown,
    read_all,
    read_whole,
)
from pointsman.server.journal.sqlite import SqliteJournal
from tests.server.memory_journal import Faults, MemoryJournal, MemoryLog

Open = Callable[[], Awaitable[Journal]]
PATIENCE = 60.0
"""Seconds after which something that should happen is taken never to happen."""


def scenario(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on an event loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(test(**fixtures), PATIENCE))  # type: ignore[arg-type]

    return run


class Opener:
    """Opens the same journal again and again: at the same time (``shared``), or after the one before was closed."""

    def __init__(self, kind: str, directory: Path, shared: bool) -> None:
        self.kind, self.directory, self.shared = kind, directory, shared
        self.log = MemoryLog()
        self.opened: list[Journal] = []
        if kind == "sqlite-shared":
            self.holder = SqliteJournal(directory)

    async def __call__(self) -> Journal:
        if not self.shared and self.opened:
            await self.opened[-1].close()
        journal: Journal
        if self.kind == "memory":
            journal = MemoryJournal(self.log)
        else:
            journal = SqliteJournal(self.directory, shared=self.kind == "sqlite-shared")
        self.opened.append(journal)
        return journal


@pytest.fixture(params=["sqlite", "sqlite-shared", "memory"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens (again) the same journal; what was opened before is closed."""
    return Opener(request.param, tmp_path / "journal", shared=False)


@pytest.fixture(params=["sqlite-shared", "memory"])
def share(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same journal once more, to be used at the same time as what was opened before."""
    return Opener(request.param, tmp_path / "journal", shared=True)


def group_of(data: bytes, key: bytes = b"", expect: int | None = None, once: bytes = b"") -> Group:
    """A group of one entry: filed under ``key``, whose last row must be at ``expect``; and only once under ``once``."""
    conditions = [Condition(once, 0)] if once else []
    if expect is not None:
        conditions.append(Condition(key, expect))
    return Group((Entry(data, key),), (once,) if once else (), tuple(conditions))


def at(*positions: int, time_ns: int = 1) -> Appended:
    return Appended(positions, time_ns)


async def rows_of(journal: Journal, first: int = 1, last: int | None = None) -> list[Row]:
    last = await journal.end() if last is None else last
    return [row async for rows in read_all(journal, first, last) for row in rows]


async def data_of(journal: Journal) -> list[bytes]:
    return [row.data for row in await rows_of(journal)]


async def followed(journal: Journal, after: int, last: int) -> list[Row]:
    """What the tail brings from ``after`` to ``last``."""
    rows: list[Row] = []
    async with aclosing(journal.tail(after)) as tail:  # type: ignore[type-var]
        async for batch in tail:
            rows += batch
            if rows[-1].position >= last:
                break
    return rows


@scenario
async def test_positions_run_from_1_and_time_is_stamped(engine: Open) -> None:
    journal = await engine()
    assert await journal.end() == 0
    groups = [group_of(b"a"), Group((Entry(b"b"), Entry(b"c")))]
    assert await journal.append(groups, 5) == [at(1, time_ns=5), at(2, 3, time_ns=5)]
    assert await journal.append([group_of(b"d")], 6) == [at(4, time_ns=6)]
    assert await rows_of(journal) == [Row(1, 5, b"a"), Row(2, 5, b"b"), Row(3, 5, b"c"), Row(4, 6, b"d")]
    assert await journal.end() == 4
    await journal.close()


def test_a_group_without_entries_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one entry"):
        Group(())


@scenario
async def test_reading_a_range_in_bounded_chunks(engine: Open) -> None:
    journal = await engine()
    await journal.append([group_of(bytes([i])) for i in range(100)] * 25, 1)
    assert [row.position for row in await journal.read(2499, 10_000)] == [2499, 2500]
    assert [row.position for row in await journal.read(1000, 1002)] == [1000, 1001, 1002]
    assert await journal.read(2501, 3000) == []
    assert len(await journal.read(1, 2500)) == 1000
    assert len(await rows_of(journal)) == 2500
    await journal.close()


@scenario
async def test_time_never_goes_back(engine: Open) -> None:
    journal = await engine()
    await journal.append([group_of(b"a")], 100)
    assert await journal.append([group_of(b"b")], 50) == [at(2, time_ns=100)]
    journal = await engine()
    assert await journal.append([group_of(b"c")], 7) == [at(3, time_ns=100)]
    await journal.close()


@scenario
async def test_everything_is_there_after_reopening(engine: Open) -> None:
    journal = await engine()
    guarded = Group((Entry(b"a", b"k"),), (b"o",), (Condition(b"k", 0),), (Guard(b"c", 3, 5),))
    await journal.append([guarded], 1)
    journal = await engine()
    assert await journal.end() == 1
    assert await journal.span(b"k") == await journal.span(b"o") == Span(1, 1)
    assert await journal.append([group_of(b"again", once=b"o")], 2) == [Conflict(b"o", Span(1, 1))]
    assert await journal.append([Group((Entry(b"x"),), guards=(Guard(b"c", 3, 5),))], 2) == [Refused(b"c", 3, 1)]
    assert await journal.append([group_of(b"b", b"k", 1)], 2) == [at(2, time_ns=2)]
    await journal.close()


@scenario
async def test_a_group_is_written_once(engine: Open) -> None:
    journal = await engine()
    twice = Group((Entry(b"a"), Entry(b"b")), (b"o",), (Condition(b"o", 0),))
    assert await journal.append([group_of(b"z"), twice, twice], 1) == [at(1), at(2, 3), Conflict(b"o", Span(2, 3))]
    assert await journal.append([twice], 2) == [Conflict(b"o", Span(2, 3))]
    assert await journal.end() == 3
    await journal.close()


@scenario
async def test_a_condition_that_does_not_hold_writes_nothing(engine: Open) -> None:
    journal = await engine()
    first = [group_of(b"a", b"k", 0), group_of(b"b", b"k", 0), group_of(b"c", b"k", 1)]
    assert await journal.append(first, 1) == [at(1), Conflict(b"k", Span(1, 1)), at(2)]
    half = Group((Entry(b"x"), Entry(b"y", b"k")), (b"o",), (Condition(b"o", 0), Condition(b"k", 1)))
    assert await journal.append([half], 2) == [Conflict(b"k", Span(1, 2))]
    assert await journal.span(b"o") is None
    both = Group((Entry(b"x"), Entry(b"y", b"k")), (b"o",), (Condition(b"o", 0), Condition(b"k", 2)))
    assert await journal.append([both], 2) == [at(3, 4, time_ns=2)]
    assert await journal.append([group_of(b"n", b"new", 3)], 2) == [Conflict(b"new", None)]
    other = Group((Entry(b"free"),), conditions=(Condition(b"k", 4),))
    assert await journal.append([other], 2) == [at(5, time_ns=2)]  # a condition on what the group does not file
    assert await journal.span(b"k") == Span(1, 4)
    assert await data_of(journal) == [b"a", b"c", b"x", b"y", b"free"]
    await journal.close()


@scenario
async def test_guards_bound_counters(engine: Open) -> None:
    journal = await engine()

    def guarded(*guards: Guard) -> Group:
        return Group((Entry(b"g"),), guards=guards)

    own, project = functools.partial(Guard, b"own"), functools.partial(Guard, b"project")
    assert await journal.append([guarded(own(5, 5)), guarded(own(1, 5)), guarded(own(1, 6))], 1) == [
        at(1),
        Refused(b"own", 5, 1),
        at(2),
    ]
    both = guarded(own(1, 100), project(3, 2))  # the second does not hold: neither is added
    assert await journal.append([both, guarded(own(0, 6), project(2, 2))], 1) == [Refused(b"project", 0, 2), at(3)]
    assert await journal.append([guarded(own(-4)), guarded(own(4, 6)), guarded(own(10)), guarded(own(0, 15))], 1) == [
        at(4),
        at(5),
        at(6),
        Refused(b"own", 16, 6),
    ]
    assert await journal.append([guarded(own(1, 20), own(4, 20)), guarded(own(1, 17), own(0))], 1) == [
        Refused(b"own", 17, 6),
        at(7),
    ]
    conflict = Group((Entry(b"g", b"k"),), conditions=(Condition(b"k", 3),), guards=(own(1, 0),))
    assert await journal.append([conflict], 1) == [Conflict(b"k", None)]  # conditions come first
    assert await journal.append([guarded(own(COUNTER_MAX)), guarded(own(1, COUNTER_MAX))], 1) == [
        at(8),
        Refused(b"own", COUNTER_MAX, 8),
    ]
    await journal.close()


@scenario
async def test_a_counter_whose_period_has_ended_takes_adjustments_only(engine: Open) -> None:
    journal = await engine()

    def guarded(amount: int, limit: int | None) -> Group:
        return Group((Entry(b"g"),), guards=(Guard(b"c", amount, limit, end_ns=100),))

    assert await journal.append([guarded(3, 5)], 99) == [at(1, time_ns=99)]
    assert await journal.append([guarded(1, 5), guarded(-1, None)], 100) == [Refused(b"c", 3, 1), at(2, time_ns=100)]
    assert await journal.append([guarded(1, 5)], 50) == [Refused(b"c", 2, 2)]  # a clock behind the journal's time
    await journal.compact(Base(1, 99), b"s")
    assert await journal.append([guarded(1, 5)], 50) == [Refused(b"c", 2, 2)]
    await journal.compact(Base(2, 100), b"s")  # the journal starts after the period: the counter is forgotten
    assert await journal.append([guarded(1, 5)], 50) == [Refused(b"c", 0, 2)]
    await journal.close()


@scenario
async def test_nothing_and_large_values(engine: Open) -> None:
    journal = await engine()
    assert await journal.append([], 1) == []
    big = bytes(range(256)) * 8192
    await journal.append([group_of(b""), group_of(big, key=b"\x00" * 200)], 1)
    assert await data_of(journal) == [b"", big]
    assert await journal.span(b"\x00" * 200) == Span(2, 2)
    await journal.close()


@scenario
async def test_appends_at_the_same_time_are_taken_in_order(engine: Open) -> None:
    journal = await engine()
    appends = [journal.append([group_of(b"%d" % i, b"k", expect=i)], 1) for i in range(50)]
    assert await asyncio.gather(*(asyncio.ensure_future(append) for append in appends)) == [
        [at(i + 1)] for i in range(50)
    ]
    await journal.close()


@scenario
async def test_the_tail_brings_every_row_once_in_order_from_anywhere(engine: Open) -> None:
    journal = await engine()
    await journal.append([group_of(b"%d" % i) for i in range(2500)], 1)
    tails = [asyncio.create_task(followed(journal, after, 2700)) for after in (0, 1234, 2500, 2600)]
    for i in range(2500, 2700, 4):
        await journal.append([Group(tuple(Entry(b"%d" % (i + j)) for j in range(3))), group_of(b"%d" % (i + 3))], i)
        if i % 40 == 0:
            tails.append(asyncio.create_task(followed(journal, i - 100, 2700)))
    expected = await rows_of(journal)
    for rows in await asyncio.gather(*tails):
        assert rows == expected[-len(rows) :]
    assert sorted(len(tail.result()) for tail in tails)[:3] == [100, 120, 160]
    await journal.close()


@scenario
async def test_reading_while_writing_sees_whole_groups_in_order(engine: Open) -> None:
    journal = await engine()
    writing = True

    async def reader() -> None:
        while writing:
            end = await journal.end()
            rows = await rows_of(journal)
            assert [row.position for row in rows] == list(range(1, len(rows) + 1))
            assert len(rows) >= end
            assert len(rows) % 3 == 0
            await asyncio.sleep(0)  # an engine in memory never suspends its reader

    readers = [asyncio.create_task(reader()) for _ in range(2)]
    for i in range(60):
        await journal.append([Group(tuple(Entry(f"{i}.{j}".encode()) for j in range(3)))], i)
    writing = False
    await asyncio.gather(*readers)
    assert await data_of(journal) == [f"{i}.{j}".encode() for i in range(60) for j in range(3)]
    await journal.close()


@scenario
async def test_of_many_with_the_same_condition_one_wins(engine: Open) -> None:
    journal = await engine()
    groups = [group_of(b"%d" % n, b"k%d" % i, 0) for n in range(4) for i in range(20)]
    results = await asyncio.gather(*(asyncio.ensure_future(journal.append([group], 1)) for group in groups))
    won = [isinstance(result, Appended) for (result,) in results]
    assert won == [True] * 20 + [False] * 60
    assert await journal.end() == 20
    await journal.close()


class ListJournal:
    """A journal as a list and two dictionaries, for groups of one time; the test's own idea of it."""

    def __init__(self) -> None:
        self.rows: list[bytes] = []
        self.filed: dict[bytes, list[int]] = {}
        self.used: dict[bytes, int] = {}

    def append(self, group: Group) -> Result:
        for condition in group.conditions:
            filed = self.filed.get(condition.key, [])
            if (filed[-1] if filed else 0) != condition.position:
                return Conflict(condition.key, Span(filed[0], filed[-1]) if filed else None)
        used = dict(self.used)
        for guard in group.guards:
            before = used.get(guard.counter, 0)
            if guard.limit is not None and before + guard.amount > guard.limit:
                return Refused(guard.counter, before, len(self.rows))
            used[guard.counter] = before + guard.amount
        self.used = used
        positions = tuple(range(len(self.rows) + 1, len(self.rows) + 1 + len(group.entries)))
        for position, entry in zip(positions, group.entries, strict=True):
            self.rows.append(entry.data)
            if entry.key:
                self.filed.setdefault(entry.key, []).append(position)
        for key in group.keys:
            self.filed[key] = sorted({*self.filed.get(key, []), *positions})
        return Appended(positions, 1)


KEYS = [b"p", b"q", b"\x00", b"\xff" * 40]
GROUPS = st.builds(
    Group,
    st.lists(st.builds(Entry, st.binary(max_size=8), st.sampled_from([b"", *KEYS])), min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(KEYS[:2]), max_size=1).map(tuple),
    st.lists(st.builds(Condition, st.sampled_from(KEYS), st.integers(0, 6)), max_size=2).map(tuple),
    st.lists(
        st.builds(Guard, st.sampled_from([b"c", b"d"]), st.integers(-3, 5), st.none() | st.integers(0, 9)), max_size=2
    ).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(GROUPS, max_size=5), max_size=6))
def test_all_engines_give_the_same_verdicts_and_rows(appends: list[list[Group]]) -> None:
    """The same groups in the same order, also against a model of the journal that is a list and two dictionaries."""

    async def on(journal: Journal) -> tuple[list[Result], list[bytes], list[Span | None]]:
        results = [result for groups in appends for result in await journal.append(groups, 1)]
        rows, spans = await data_of(journal), [await journal.span(key) for key in KEYS]
        await journal.close()
        return results, rows, spans

    with tempfile.TemporaryDirectory() as directory:
        on_sqlite = asyncio.run(on(SqliteJournal(Path(directory))))
    model = ListJournal()
    expected = [model.append(group) for groups in appends for group in groups]
    spans = [Span(model.filed[key][0], model.filed[key][-1]) if key in model.filed else None for key in KEYS]
    assert on_sqlite == (expected, model.rows, spans)

    async def in_memory() -> tuple[list[Result], list[bytes], list[Span | None]]:
        return await on(MemoryJournal(MemoryLog()))

    assert asyncio.run(in_memory()) == on_sqlite


@scenario
async def test_many_keys(engine: Open) -> None:
    journal = await engine()
    for start in range(0, 8000, 2000):
        await journal.append([group_of(b"", b"key %d" % i) for i in range(start, start + 2000)], 1)
    assert await journal.span(b"key 0") == Span(1, 1)
    assert await journal.span(b"key 7999") == Span(8000, 8000)
    assert await journal.span(b"key 8000") is None
    await journal.close()


@scenario
async def test_a_fault_leaves_nothing_half_written_and_the_journal_usable(engine: Open) -> None:
    journal = await engine()
    await journal.append([group_of(b"a")], 1)
    with pytest.raises(JournalError):
        await journal.append([group_of(b"b", b"k", once=b"o"), group_of("not bytes at all", b"k")], 2**70)  # type: ignore[arg-type]
    assert await journal.end() == 1
    assert await journal.span(b"k") is None
    assert await journal.append([group_of(b"b", b"k", 0, once=b"o")], 3) == [at(2, time_ns=3)]
    await journal.close()


async def compacted(journal: Journal) -> None:
    """A journal of 6 rows that starts from position 4: row 2 is permanent, row 3 was open until 70."""
    await journal.append([group_of(b"1", b"gone", once=b"o")], 7)
    await journal.append([Group((Entry(b"2", b"kept", permanent=True), Entry(b"3", expire_ns=70)))], 7)
    await journal.append([group_of(b"4", b"gone"), group_of(b"5", b"new", once=b"p"), group_of(b"6", b"kept")], 7)
    assert await journal.open_until(2) == 0
    assert await journal.open_until(4) == 70
    await journal.compact(Base(4, 7), b"state")


@pytest.mark.parametrize("swept", [False, True])
@scenario
async def test_a_compacted_journal(engine: Open, swept: bool) -> None:
    journal = await engine()
    await compacted(journal)
    if swept:
        await journal.sweep(lambda: False)
    for _ in range(2):
        assert (await journal.base(), await journal.base_state()) == (Base(4, 7), b"state")
        assert await journal.end() == 6
        assert [row.position for row in await rows_of(journal)] == [2, 5, 6]
        assert await journal.span(b"kept") == Span(2, 6)
        assert await journal.span(b"gone") is None
        assert await journal.span(b"o") is None
        assert await journal.open_until(6) == 0
        journal = await engine()
    # the same verdicts, whether the space was freed or not
    groups = [
        group_of(b"7", b"kept", 6),
        group_of(b"8", b"gone", 0, once=b"o"),
        group_of(b"x", b"gone", 4),
        group_of(b"x", once=b"p"),
    ]
    assert await journal.append(groups, 1) == [
        at(7, time_ns=7),
        at(8, time_ns=7),
        Conflict(b"gone", Span(8, 8)),
        Conflict(b"p", Span(5, 5)),
    ]
    await journal.sweep(lambda: False)
    assert await journal.span(b"gone") == await journal.span(b"o") == Span(8, 8)
    with pytest.raises(ValueError, match="expected a base after 4"):
        await journal.compact(Base(4, 7), b"")
    with pytest.raises(ValueError, match="expected a base after 4"):
        await journal.compact(Base(9, 7), b"")
    await journal.compact(Base(8, 7), b"all")
    await journal.sweep(lambda: False)
    journal = await engine()
    assert (await journal.end(), await journal.base(), await journal.base_state()) == (8, Base(8, 7), b"all")
    assert await journal.append([group_of(b"next", b"gone", 0)], 1) == [at(9, time_ns=7)]
    await journal.close()


@pytest.mark.parametrize("swept", [False, True])
@scenario
async def test_what_was_compacted_is_missed_and_not_passed_over(engine: Open, swept: bool) -> None:
    """Also where the first of the rows that are asked for is permanent, so that something is there at that position."""
    journal = await engine()
    permanent = Group((Entry(b"0", b"k0", permanent=True),))
    await journal.append([permanent, *(group_of(b"%d" % i) for i in range(1, 5)), permanent, group_of(b"6")], 1)
    reading = read_whole(journal, 1, 7)
    await journal.compact(Base(4, 1), b"state")
    if swept:
        await journal.sweep(lambda: False)
    with pytest.raises(JournalError, match="compacted"):
        await anext(reading)
    for _ in range(2):
        with pytest.raises(JournalError, match="compacted"):
            await followed(journal, 0, 7)
        assert [row.position for row in await followed(journal, 4, 7)] == [5, 6, 7]
        journal = await engine()
    assert [row.position async for rows in read_whole(journal, 5, 7) for row in rows] == [5, 6, 7]
    await journal.compact(Base(7, 1), b"state")
    with pytest.raises(JournalError, match="compacted"):
        assert [row async for rows in read_whole(journal, 5, 7) for row in rows]
    await journal.close()


@scenario
async def test_writers_that_share_a_journal_write_one_order(share: Open) -> None:
    a, b = await share(), await share()
    assert await a.append([group_of(b"a", b"k", 0, once=b"o")], 100) == [at(1, time_ns=100)]
    assert await b.end() == 1
    groups = [group_of(b"again", once=b"o"), group_of(b"stale", b"k", 0), group_of(b"b", b"k", 1)]
    assert await b.append(groups, 50) == [Conflict(b"o", Span(1, 1)), Conflict(b"k", Span(1, 1)), at(2, time_ns=100)]
    assert await a.append([group_of(b"c")], 7) == [at(3, time_ns=100)]
    assert await data_of(b) == [b"a", b"b", b"c"]
    assert await a.span(b"k") == Span(1, 2)
    await asyncio.gather(a.close(), b.close())


@scenario
async def test_the_tail_includes_other_writers_rows_in_order(share: Open) -> None:
    writers = [await share() for _ in range(3)]
    tails = [asyncio.create_task(followed(writer, 0, 240)) for writer in writers]

    async def write(number: int, writer: Journal) -> None:
        for i in range(40):
            await writer.append([group_of(b"%d.%d" % (number, i)), group_of(b"%d.%d'" % (number, i))], i)

    await asyncio.gather(*(write(number, writer) for number, writer in enumerate(writers)))
    expected = await rows_of(writers[0])
    assert len(expected) == 240
    assert [row.time_ns for row in expected] == sorted(row.time_ns for row in expected)
    for tail in tails:
        assert await tail == expected
    await asyncio.gather(*(writer.close() for writer in writers))


@scenario
async def test_no_two_writers_pass_a_limit_together(share: Open) -> None:
    writers = [await share() for _ in range(3)]

    async def spend(writer: Journal) -> int:
        spent = 0
        while True:
            (result,) = await writer.append([Group((Entry(b"x"),), guards=(Guard(b"c", 7, 1000),))], 1)
            if not isinstance(result, Appended):
                assert result == Refused(b"c", 994, 142)
                return spent
            spent += 1

    assert sum(await asyncio.gather(*(spend(writer) for writer in writers))) == 142
    await asyncio.gather(*(writer.close() for writer in writers))


@scenario
async def test_increments_of_many_writers_are_not_lost(share: Open) -> None:
    """A number that is read from the journal and written back on condition that nobody else did."""

    async def write(writer: Journal) -> None:
        done = 0
        while done < 15:
            span = await writer.span(b"n")
            rows = await writer.read(span.last, span.last) if span else []
            number = int(rows[0].data) if rows else 0
            group = group_of(b"%d" % (number + 1), b"n", span.last if span else 0)
            (result,) = await writer.append([group], 1)
            done += isinstance(result, Appended)

    writers = [await share() for _ in range(3)]
    await asyncio.gather(*(write(writer) for writer in writers))
    assert [int(data) for data in await data_of(writers[0])] == list(range(1, 46))
    await asyncio.gather(*(writer.close() for writer in writers))


@pytest.mark.parametrize("seed", range(20))
@scenario
async def test_an_unknown_append_is_settled_by_appending_it_again(seed: int) -> None:
    """The rule that engines whose appends can be unknown must keep, on the one that has such appends."""
    rng = random.Random(seed)
    log = MemoryLog(gap=lambda: rng.random() < 0.2)
    faults = Faults(rng, 0.2, 0.2, 0.3, 0.3, lambda: group_of(b"foreign"))
    journal = MemoryJournal(log, faults)
    for i in range(60):
        group = group_of(b"own %d" % i, b"k%d" % i, 0)
        answers: list[Result] = await journal.append([group], i)
        while isinstance(answers[-1], Unknown):
            answers += await journal.append([group], i)
        assert isinstance(answers[-1], Appended)
        assert log.entries[answers[-1].positions[0]].data == b"own %d" % i
        assert [row.data for row in log.rows].count(b"own %d" % i) == 1
        assert journal.unanswered == []
    positions = [row.position for row in log.rows]
    assert positions == sorted(set(positions))
    assert positions[-1] > len(positions)
