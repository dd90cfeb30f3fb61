"""What hard budgets have left: dollars reserved by decisions that are not folded yet, and the journal's counters that no two
processes together can pass.

The fold's own reserves are floats, and what decisions look at beforehand. What settles it is the counter: it is named by budget
holder, generation (where its pacer was made) and start of the period, and holds nano-dollars. A decision adds the most that it
can cost, rounded up to a nano-dollar, within the budget, rounded down; an outcome replaces that by what it did cost, rounded up.

>>> nanodollars(0.01), nanodollars(1.5e-9), nanodollars(1.5e-9, up=False)
(10000000, 2, 1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from pointsman.bandit.bucket import BucketState
from pointsman.bandit.catalog import Aggregation, Bucket, Budget
from pointsman.bandit.event import DecisionMade, OutcomeApplied
from pointsman.bandit.outcome import Signal, reserved
from pointsman.bandit.pacer import ActiveBudget, Pacer
from pointsman.bandit.state import State
from pointsman.server.journal.interface import COUNTER_MAX, Condition, Guard
from pointsman.server.names import bucket_name, project_name

_NANO = Decimal(10) ** 9


class Reservations:
    """Dollars that decisions reserve of hard budgets while it is not known whether they are durable, by holder.

    A decision counts from the moment it is made until it is folded, which is when the state counts it, or has failed.
    """

    def __init__(self) -> None:
        self._by_holder: dict[str, tuple[int, float]] = {}  # how many decisions reserve, and how much in all

    def reserved(self, holder: str) -> float:
        """Dollars reserved of ``holder``'s budget now."""
        return self._by_holder.get(holder, (0, 0.0))[1]

    def reserve(self, holders: Sequence[str], dollars: float) -> Callable[[], None]:
        """Reserve ``dollars`` for each of ``holders`` until the function returned is called, once."""
        if not dollars:
            return lambda: None
        self._add(holders, 1, dollars)
        return lambda: self._add(holders, -1, -dollars)

    def _add(self, holders: Sequence[str], count: int, dollars: float) -> None:
        for holder in holders:
            decisions, reserved = self._by_holder.pop(holder, (0, 0.0))
            if decisions + count:  # else nothing is reserved, without what is left by rounding
                self._by_holder[holder] = (decisions + count, reserved + dollars)


def holders(bucket: Bucket) -> tuple[str, str]:
    """The names of the holders of a bucket's own budget and of its project's."""
    return bucket_name(bucket.id), project_name(bucket.project)


def nanodollars(dollars: float, *, up: bool = True) -> int:
    """``dollars`` in whole nano-dollars, rounded up or down from the shortest decimal that stands for the float.

    So 0.01 is 10,000,000 exactly. Bounded by what a counter can hold.
    """
    nano = (Decimal(repr(dollars)) * _NANO).to_integral_value(ROUND_CEILING if up else ROUND_FLOOR)
    return max(-COUNTER_MAX, min(int(nano), COUNTER_MAX))


def decision_guards(
    state: State, bucket: BucketState, decisions: Sequence[DecisionMade], now_ns: int
) -> tuple[tuple[Condition, ...], tuple[Guard, ...]]:
    """What ``decisions`` of ``bucket``, made on ``state`` and appended as one group, demand of the journal for hard budgets.

    That bucket and project are as they were when the limits were read, and that all decisions together fit into each budget.
    """
    amount = sum(nanodollars(decision.max_cost) for decision in decisions if decision.max_cost)
    if not amount:
        return (), ()
    guards = []
    for holder, active in _hard_budgets(state, bucket, bucket.config.project):
        start_ns, end_ns = _period(active.budget, max(now_ns, state.time_ns))
        limit = nanodollars(active.budget.amount, up=False)
        guards.append(Guard(_counter(holder, active.pacer, start_ns), amount, limit, end_ns))
    own, of_project = holders(bucket.config)
    conditions = [Condition(own.encode(), bucket.version)]
    if bucket.config.project in state.projects:
        conditions.append(Condition(of_project.encode(), state.projects[bucket.config.project].version))
    return tuple(conditions), tuple(guards)


def outcome_guards(state: State, event: OutcomeApplied) -> tuple[tuple[Condition, ...], tuple[Guard, ...]]:
    """How an outcome adjusts the counters that its decision was charged to; the same change as ``pacer.count_outcome`` makes.

    A budget that was set anew since the decision has another counter, which the decision was not charged to. What is released
    depends on the bucket's rule for costs: so the bucket must be as it is in ``state``.
    """
    bucket = state.buckets.get(event.bucket)
    charged = [
        pair for pair in _hard_budgets(state, bucket, event.project) if event.state_position >= pair[1].pacer.born
    ]
    costs = [change for change in event.changes if change.signal is Signal.COST]
    if not (charged and costs):
        return (), ()
    rule = bucket.config.rules.cost if bucket is not None else Aggregation.LAST
    amount = 0
    for change in costs:
        before, after = reserved(change, event.max_cost, rule)
        amount += nanodollars(after) - nanodollars(before)
    guards = []
    for holder, active in charged if amount else ():
        start_ns, end_ns = _period(active.budget, event.decided_ns)
        guards.append(Guard(_counter(holder, active.pacer, start_ns), amount, None, end_ns))
    conditions = () if bucket is None else (Condition(bucket_name(event.bucket).encode(), bucket.version),)
    return conditions, tuple(guards)


def counters_of(state: State) -> Mapping[bytes, tuple[int, int]]:
    """What is used of every hard budget's counter according to ``state``, and when it ends.

    For journals whose decisions were made before there were counters.
    """
    counters: dict[bytes, tuple[int, int]] = {}
    for bucket in state.buckets.values():
        counters.update(_counters(_hard_budgets(state, bucket, "")))
    for project in state.projects:
        counters.update(_counters(_hard_budgets(state, None, project)))
    return counters


def _counters(budgets: Iterable[tuple[str, ActiveBudget]]) -> Iterator[tuple[bytes, tuple[int, int]]]:
    for holder, active in budgets:
        start_ns, end_ns = _period(active.budget, active.pacer.start_ns)
        yield _counter(holder, active.pacer, start_ns), (nanodollars(active.pacer.reserved), end_ns)


def _hard_budgets(state: State, bucket: BucketState | None, project: str) -> Iterator[tuple[str, ActiveBudget]]:
    """The hard budgets of a bucket and a project, each with the name of its holder."""
    if (
        bucket is not None
        and bucket.config.budget is not None
        and bucket.pacer is not None
        and bucket.config.budget.hard
    ):
        yield bucket_name(bucket.config.id), ActiveBudget(bucket.config.budget, bucket.pacer)
    holder = state.projects.get(project)
    if (
        holder is not None
        and holder.project.budget is not None
        and holder.pacer is not None
        and holder.project.budget.hard
    ):
        yield project_name(project), ActiveBudget(holder.project.budget, holder.pacer)


def _counter(holder: str, pacer: Pacer, start_ns: int) -> bytes:
    return f"{holder}\n{pacer.born}\n{start_ns}".encode()


def _period(budget: Budget, time_ns: int) -> tuple[int, int]:
    """When the period of ``time_ns`` begins and ends."""
    start_ns = time_ns - time_ns % budget.period_ns
    return start_ns, start_ns + budget.period_ns
