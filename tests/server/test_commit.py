"""Whoever writes is told exactly once when the outcome is known, whatever it is and whatever became of the caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from pointsman.server.errors import UnavailableError
from pointsman.server.journal.commit import GroupCommit, Write
from pointsman.server.journal.interface import Appended, Conflict, Duplicate, Group, JournalError, Result
from pointsman.server.journal.sqlite import SqliteJournal
from tests.processes import WAIT, until
from tests.server.test_journal import one


class Rig:
    """A commit on a journal in ``directory``, what was folded, and which writes were settled, with how much folded then."""

    def __init__(self, directory: Path) -> None:
        self.journal = SqliteJournal(directory)
        self.folded: list[Result] = []
        self.settled: list[tuple[str, int]] = []
        self.fault: Exception | None = None
        self.commit = GroupCommit(self.journal, asyncio.get_running_loop(), lambda: 1, self._deliver)

    def _deliver(self, results: Sequence[tuple[Write, Result]]) -> None:
        if self.fault:
            raise self.fault
        self.folded += [result for _, result in results]

    async def write(self, name: str, group: Group) -> Result:
        return await self.commit.write(group, (), lambda: self.settled.append((name, len(self.folded))))

    def names(self) -> list[str]:
        return [name for name, _ in self.settled]


def test_settled_after_the_fold_for_every_result(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        assert isinstance(await rig.write("new", one(b"x", b"k", 0, b"once")), Appended)
        assert isinstance(await rig.write("again", one(b"x", b"k", 0, b"once")), Duplicate)
        assert isinstance(await rig.write("late", one(b"x", b"k", 0)), Conflict)
        assert rig.settled == [("new", 1), ("again", 2), ("late", 3)]
        rig.commit.close()
        with pytest.raises(UnavailableError, match="shutting down"):
            await rig.write("closed", one(b"x"))
        assert rig.names() == ["new", "again", "late", "closed"]
        rig.journal.close()

    asyncio.run(scenario())


def test_settled_when_the_journal_or_the_fold_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        append = rig.journal.append

        def full(*_: object) -> list[Result]:
            raise JournalError("the disk is full")

        rig.journal.append = full  # type: ignore[method-assign]
        with pytest.raises(UnavailableError, match="disk is full"):
            await rig.write("refused", one(b"x"))
        rig.journal.append = append  # type: ignore[method-assign]
        rig.fault = RuntimeError("cannot be folded")
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # it is raised there too, for the log
        with pytest.raises(UnavailableError, match="cannot be folded"):
            await rig.write("unfolded", one(b"x"))
        with pytest.raises(UnavailableError, match="cannot be folded"):
            await rig.write("broken", one(b"x"))
        assert rig.names() == ["refused", "unfolded", "broken"]
        rig.commit.close()
        rig.journal.close()

    asyncio.run(scenario())


def test_a_cancelled_caller_is_settled_when_its_write_is_folded_and_not_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        rig = Rig(tmp_path)
        started, go, append = threading.Event(), threading.Event(), rig.journal.append

        def slow(groups: Sequence[Group], now_ns: int) -> list[Result]:
            started.set()
            assert go.wait(WAIT)
            return append(groups, now_ns)

        rig.journal.append = slow  # type: ignore[method-assign]
        caller = asyncio.ensure_future(rig.write("gone", one(b"x")))
        await until(started.is_set, "the append has begun")
        caller.cancel()
        await asyncio.wait([caller])
        assert rig.settled == []
        go.set()
        assert isinstance(await rig.write("next", one(b"y")), Appended)
        assert rig.names() == ["gone", "next"]
        assert len(rig.folded) == 2
        rig.commit.close()
        rig.journal.close()

    asyncio.run(scenario())
