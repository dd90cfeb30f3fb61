"""The state that one process folds, and whom it tells of every event.

>>> from pointsman.bandit.catalog import Model
>>> fold = Fold(State())
>>> fold.observers.append(lambda record: print(record.position))
>>> fold.apply([(Row(1, 5, b""), e.ModelPut(Model("gpt")))])
1
>>> list(fold.state.models)
['gpt']
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pointsman.bandit import event as e
from pointsman.bandit.state import State, apply
from pointsman.server.journal.interface import Row
from pointsman.server.state.rows import decode

log = logging.getLogger("pointsman.fold")


class Fold:
    """The fold of a journal so far. Touched on one event loop only, so nothing here locks."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.before: Callable[[e.Event], None] | None = None
        """Called with an event that is about to be applied, while it is set."""
        self.observers: list[Callable[[e.Record], None]] = []
        """Told, in order, of every event that was applied."""

    def apply(self, rows: Sequence[tuple[Row, e.Event | None]]) -> None:
        """Apply rows in order, each with its event or ``None`` if it is to be decoded. Raises whatever is wrong with them."""
        for row, event in rows:
            record = decode(row, self.state.terms) if event is None else e.Record(row.position, row.time_ns, event)
            if self.before is not None:
                self.before(record.event)
            log_bucket_reset(record, apply(self.state, record))
            for observe in self.observers:
                observe(record)


def log_bucket_reset(record: e.Record, error: Exception | None) -> None:
    """Log that a bucket could not learn from an event and has started afresh, if so."""
    if error is not None:
        assert isinstance(record.event, e.DecisionMade | e.OutcomeApplied)
        log.error(
            "buckets/%s cannot learn from the event at position %d, so it has started afresh there; all others go on. This "
            "is a defect of the service: please report it",
            record.event.bucket,
            record.position,
            exc_info=error,
        )
