"""What becomes of groups that are appended in order: the verdicts that every engine gives.

Judged from what the journal holds alone, by integers and bytes: two engines that judge the same groups in the same order agree.

>>> from pointsman.server.journal.interface import Condition, Entry, Guard
>>> judge = Judge({}, {}, last=0, time_ns=5)
>>> put = Group((Entry(b"put", b"key"),), conditions=(Condition(b"key", 0),), guards=(Guard(b"budget", 3, limit=5),))
>>> judge.judge(put)
Appended(positions=(1,), time_ns=5)
>>> judge.judge(put)
Conflict(key=b'key', span=Span(first=1, last=1))
>>> judge.judge(Group((Entry(b"more"),), guards=(Guard(b"budget", 3, limit=5),)))
Refused(counter=b'budget', used=3, position=1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pointsman.server.journal.interface import (
    COUNTER_MAX,
    Appended,
    Conflict,
    Group,
    Refused,
    Result,
    Span,
)


class Judge:
    """Judges groups in order, each after those before it.

    ``spans`` and ``used`` are what is stored of the keys and counters that the groups refer to. The groups are appended after
    position ``last`` and stamped ``time_ns``; ``next_position`` says where an entry goes, given the position before.
    """

    def __init__(
        self,
        spans: Mapping[bytes, Span],
        used: Mapping[bytes, int],
        last: int,
        time_ns: int,
        next_position: Callable[[int], int] = lambda position: position + 1,
    ) -> None:
        # plain tuples, as most are made for keys that nobody asks for again
        self._spans: dict[bytes, tuple[int, int]] = {key: (span.first, span.last) for key, span in spans.items()}
        self._used = dict(used)
        self._time_ns, self._next = time_ns, next_position
        self.last = last
        """Position of the last row, what was judged so far included."""
        self.changed_counters: dict[bytes, tuple[int, int]] = {}
        """What is used of each counter that was changed, and when it ends."""

    def judge(self, group: Group) -> Result:
        """The verdict on the next group; if it is appended, it counts for those that follow."""
        for condition in group.conditions:
            span = self._spans.get(condition.key)
            if (span[1] if span else 0) != condition.position:
                return Conflict(condition.key, Span(*span) if span else None)
        if group.guards and (refusal := self._charge(group)):
            return refusal
        return Appended(self._place(group), self._time_ns)

    def _charge(self, group: Group) -> Refused | None:
        """Add the amounts of a group's guards, unless one does not hold."""
        changed: dict[bytes, tuple[int, int]] = {}
        for guard in group.guards:
            used = changed[guard.counter][0] if guard.counter in changed else self._used.get(guard.counter, 0)
            if guard.limit is not None and (
                used + guard.amount > guard.limit or (guard.end_ns and self._time_ns >= guard.end_ns)
            ):
                return Refused(guard.counter, used, self.last)
            changed[guard.counter] = max(-COUNTER_MAX, min(used + guard.amount, COUNTER_MAX)), guard.end_ns
        self._used.update((counter, used) for counter, (used, _) in changed.items())
        self.changed_counters.update(changed)
        return None

    def _place(self, group: Group) -> tuple[int, ...]:
        """The positions of an appended group, which its keys are filed at."""
        positions = []
        for _ in group.entries:
            self.last = self._next(self.last)
            positions.append(self.last)
        for key in group.keys:
            self._file(key, positions[0], positions[-1])
        for position, entry in zip(positions, group.entries, strict=True):
            if entry.key:
                self._file(entry.key, position, position)
        return tuple(positions)

    def _file(self, key: bytes, first: int, last: int) -> None:
        span = self._spans.get(key)
        self._spans[key] = (first, last) if span is None else (span[0], max(span[1], last))
