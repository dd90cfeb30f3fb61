"""What decisions hold of hard budgets between being made and being folded: the state does not count them yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pointsman.bandit.catalog import Bucket
from pointsman.server.names import bucket_name, project_name


class Pending:
    """Dollars that decisions hold of hard budgets while it is not known whether they are durable, by holder.

    A decision counts from the moment it is made until it is folded, which is when the state counts it, or has failed.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, float]] = {}  # by holder: how many hold, and how much in all

    def held(self, holder: str) -> float:
        """Dollars held for ``holder`` now."""
        return self._held.get(holder, (0, 0.0))[1]

    def hold(self, holders: Sequence[str], dollars: float) -> Callable[[], None]:
        """Hold ``dollars`` for each of ``holders`` until the function returned is called, once."""
        if not dollars:
            return lambda: None
        self._add(holders, 1, dollars)
        return lambda: self._add(holders, -1, -dollars)

    def _add(self, holders: Sequence[str], count: int, dollars: float) -> None:
        for holder in holders:
            known, held = self._held.pop(holder, (0, 0.0))
            if known + count:  # else nothing is held, without what is left by rounding
                self._held[holder] = (known + count, held + dollars)


def holders(bucket: Bucket) -> tuple[str, str]:
    """Under which names a bucket's own budget and its project's are kept count of."""
    return bucket_name(bucket.id), project_name(bucket.project)
