"""Whoever writes is told exactly once what became of it, whatever it is and whatever became of the caller; the fold follows the
journal's tail and nothing else, whatever the engine does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from pointsman.bandit import event as e
from pointsman.server.errors import UnavailableError
from pointsman.server.journal import commit
from pointsman.server.journal.commit import GroupCommit
from pointsman.server.journal.interface import (
    Appended,
    Condition,
    Conflict,
    Entry,
    Group,
    Guard,
    JournalError,
    Refused,
    Result,
    Row,
    Unknown,
)
from tests.server.memory_journal import Faults, MemoryJournal, MemoryLog
from tests.server.test_journal import group_of, scenario


def deleted(name: str) -> e.ModelDeleted:
    """An event, any."""
    return e.ModelDeleted(name)


class Rig:
    """A commit on a journal in memory, what was folded, and which writes were settled, with how much folded then."""

    def __init__(self, journal: MemoryJournal) -> None:
        self.journal = journal
        self.folded: list[tuple[Row, e.Event | None]] = []
        self.settled: list[tuple[str, int]] = []
        self.fault: Exception | None = None
        self.broken = 0
        self.commit = GroupCommit(journal, lambda: 1, self._fold, on_broken=self._on_broken)
        self.commit.start()

    def _fold(self, rows: Sequence[tuple[Row, e.Event | None]]) -> None:
        if self.fault:
            raise self.fault
        self.folded += rows

    def _on_broken(self) -> None:
        self.broken += 1

    async def write(self, name: str, group: Group) -> Result:
        events = [deleted(name) for _ in group.entries]
        return await self.commit.write(group, events, lambda: self.settled.append((name, len(self.folded))))

    def names(self) -> list[str]:
        return [name for name, _ in self.settled]

    async def close(self) -> None:
        await self.commit.close()
        await self.journal.close()


def of(name: str) -> Group:
    """A group that can be appended once."""
    return group_of(name.encode(), b"key of " + name.encode(), 0)


@scenario
async def test_settled_after_the_fold_for_every_result() -> None:
    rig = Rig(MemoryJournal(MemoryLog()))
    assert isinstance(await rig.write("new", of("x")), Appended)
    assert isinstance(await rig.write("again", of("x")), Conflict)
    dear = Group((Entry(b"y", b"y"),), conditions=(Condition(b"y", 0),), guards=(Guard(b"c", 2, 1),))
    assert await rig.write("dear", dear) == Refused(b"c", 0, 1)
    assert rig.settled == [("new", 1), ("again", 1), ("dear", 1)]
    assert rig.folded == [(Row(1, 1, b"x"), deleted("new"))]  # its event was at hand
    await rig.commit.close()
    with pytest.raises(UnavailableError, match="shutting down"):
        await rig.write("closed", of("z"))
    assert rig.names() == ["new", "again", "dear", "closed"]


@scenario
async def test_a_group_that_could_be_appended_twice_is_refused() -> None:
    rig = Rig(MemoryJournal(MemoryLog()))
    for group in (group_of(b"x"), Group((Entry(b"x"),), conditions=(Condition(b"other", 0),))):
        with pytest.raises(ValueError, match="condition on a key that the group is filed under"):
            await rig.write("x", group)
    await rig.close()


@scenario
async def test_settled_when_the_journal_or_the_fold_fails() -> None:
    rig = Rig(MemoryJournal(MemoryLog()))
    append = rig.journal.append

    async def full(*_: object) -> list[Result]:
        raise JournalError("the disk is full")

    rig.journal.append = full  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match="disk is full"):
        await rig.write("refused", of("x"))
    rig.journal.append = append  # type: ignore[method-assign]
    rig.fault = RuntimeError("cannot be folded")
    waiting = asyncio.ensure_future(rig.commit.wait_folded(1))
    with pytest.raises(UnavailableError, match="cannot be folded"):
        await rig.write("unfolded", of("x"))
    with pytest.raises(UnavailableError, match="cannot be folded"):
        await waiting
    with pytest.raises(UnavailableError, match="cannot be folded"):
        await rig.write("broken", of("y"))
    assert rig.names() == ["refused", "unfolded", "broken"]
    assert rig.broken == 1
    await rig.close()


@scenario
async def test_a_cancelled_caller_is_settled_when_its_write_is_folded_and_not_before() -> None:
    rig = Rig(MemoryJournal(MemoryLog()))
    go, begun, append = asyncio.Event(), asyncio.Event(), rig.journal.append

    async def slow(groups: Sequence[Group], now_ns: int) -> list[Result]:
        begun.set()
        await go.wait()
        return await append(groups, now_ns)

    rig.journal.append = slow  # type: ignore[method-assign]
    caller = asyncio.ensure_future(rig.write("gone", of("x")))
    await begun.wait()
    caller.cancel()
    await asyncio.wait([caller])
    settled = asyncio.ensure_future(rig.commit.wait_settled())
    await asyncio.sleep(0)
    assert rig.settled == []
    assert not settled.done()
    go.set()
    await settled
    assert rig.settled == [("gone", 1)]
    assert isinstance(await rig.write("next", of("y")), Appended)
    assert rig.names() == ["gone", "next"]
    assert len(rig.folded) == 2
    await rig.close()


@scenario
async def test_groups_submitted_during_an_append_form_the_next_one() -> None:
    rig = Rig(MemoryJournal(MemoryLog()))
    sizes: list[int] = []
    append = rig.journal.append

    async def counted(groups: Sequence[Group], now_ns: int) -> list[Result]:
        sizes.append(len(groups))
        return await append(groups, now_ns)

    rig.journal.append = counted  # type: ignore[method-assign]
    first = asyncio.ensure_future(rig.write("0", of("0")))
    while not sizes:
        await asyncio.sleep(0)
    await asyncio.gather(first, *(rig.write(str(i), of(str(i))) for i in range(1, 20)))
    assert sizes == [1, 19]
    assert [row.data for row, _ in rig.folded] == [str(i).encode() for i in range(20)]
    await rig.close()


@pytest.mark.parametrize("seed", range(12))
@scenario
async def test_nothing_is_lost_or_duplicated_under_journal_faults(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost answers, appends that land late or never, others' rows and gaps in between, a tail in pieces."""
    monkeypatch.setattr(commit, "RETRY", 0.0001)
    monkeypatch.setattr(commit, "LONGEST_RETRY", 0.001)
    rng = random.Random(seed)
    log = MemoryLog(gap=lambda: rng.random() < 0.2)
    foreign = iter(range(10**6))
    faults = Faults(rng, 0.15, 0.15, 0.15, 0.3, lambda: of(f"foreign {next(foreign)}"), in_pieces=True)
    rig = Rig(MemoryJournal(log, faults))

    async def caller(number: int) -> list[tuple[str, Result]]:
        results = []
        for i in range(12):
            name = f"{number}.{i}"
            pair = Group(
                (Entry(name.encode(), name.encode()), Entry(name.encode() + b"'")), (), (Condition(name.encode(), 0),)
            )
            results.append((name, await rig.write(name, rng.choice([of(name), pair]))))
            await asyncio.sleep(0)
        return results

    results = [pair for pairs in await asyncio.gather(*(caller(n) for n in range(8))) for pair in pairs]
    rows = {row.position: row for row in log.rows}
    for name, result in results:
        assert isinstance(result, Appended), name  # each was appended, and once
        assert rows[result.positions[0]].data == name.encode()
        assert sum(row.data == name.encode() for row in log.rows) == 1
    await rig.commit.wait_folded(await rig.journal.end())
    assert [row for row, _ in rig.folded] == log.rows  # folded: all, in order, once
    assert sorted(rig.names()) == sorted(name for name, _ in results)
    await rig.close()
    assert rig.commit._own == {}


@scenario
async def test_a_caller_is_answered_when_a_write_stays_unknown_and_its_reservation_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commit, "RETRY", 0.001)
    monkeypatch.setattr(commit, "UNKNOWN_PATIENCE", 0.005)
    rig = Rig(MemoryJournal(MemoryLog()))
    append = rig.journal.append

    async def lost(groups: Sequence[Group], now_ns: int) -> list[Result]:
        return [Unknown("no connection") for _ in groups]

    rig.journal.append = lost  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match="not known whether this was written"):
        await rig.write("x", of("x"))
    assert rig.settled == []
    rig.journal.append = append  # type: ignore[method-assign]
    await rig.commit.wait_settled()  # it is found, or written now
    assert rig.settled == [("x", 1)]
    await rig.close()


@scenario
async def test_closing_abandons_unknown_writes() -> None:
    rig = Rig(MemoryJournal(MemoryLog(), Faults(random.Random(0), dropped=1.0)))
    writing = asyncio.ensure_future(rig.write("x", of("x")))
    while not rig.commit._settling:
        await asyncio.sleep(0)
    await rig.close()
    with pytest.raises(UnavailableError, match="not known whether this was written"):
        await writing
    assert rig.names() == ["x"]


@scenario
async def test_a_fault_while_something_is_unknown_does_not_leave_it_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "RETRY", 0.0001)
    rig = Rig(MemoryJournal(MemoryLog()))
    append = rig.journal.append
    answers = iter([[Unknown("no connection")], RuntimeError("unforeseen"), RuntimeError("unforeseen")])

    async def faulty(groups: Sequence[Group], now_ns: int) -> list[Result]:
        answer = next(answers, None)
        if isinstance(answer, RuntimeError):
            raise answer
        return list(answer) if answer else await append(groups, now_ns)

    rig.journal.append = faulty  # type: ignore[method-assign]
    assert isinstance(await rig.write("x", of("x")), Appended)
    await rig.commit.wait_settled()
    assert rig.settled == [("x", 1)]
    await rig.close()


@scenario
async def test_a_caller_is_answered_even_if_the_retry_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "RETRY", 0.0001)
    monkeypatch.setattr(commit, "UNKNOWN_PATIENCE", 0.005)
    rig = Rig(MemoryJournal(MemoryLog()))
    tries: list[int] = []

    async def silent(groups: Sequence[Group], now_ns: int) -> list[Result]:
        tries.append(len(groups))
        if len(tries) > 1:
            await asyncio.Event().wait()
        return [Unknown("no connection") for _ in groups]

    rig.journal.append = silent  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match="not known whether this was written"):
        await rig.write("x", of("x"))
    assert rig.settled == []
    await rig.close()
    assert rig.names() == ["x"]


class LateJournal(MemoryJournal):
    """A journal whose tail brings nothing until somebody has asked for its end."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.asked = asyncio.Event()

    async def end(self) -> int:
        self.asked.set()
        return await super().end()

    async def tail(self, after: int) -> AsyncIterator[Sequence[Row]]:
        async for rows in super().tail(after):
            await self.asked.wait()
            yield rows


@scenario
async def test_closing_folds_what_others_have_written_by_then() -> None:
    log = MemoryLog()
    rig, other = Rig(LateJournal(log)), MemoryJournal(log)
    await other.append([of(str(i)) for i in range(5)], 1)
    await rig.close()
    assert [row for row, _ in rig.folded] == log.rows
