"""A budget's pacer: the multiplier that a budget adds to λ, so that spend tracks it, and the hard cap.

The dual of "best quality at a mean cost of at most B" is one number, quality per dollar. Gradient steps on it need a step
size, and no step size suits costs that differ a thousandfold. So the pacer solves for it (``bandit.multiplier``): it keeps the
scores of the last requests (means, draws and costs of every model), replays them at a trial multiplier, and takes the smallest
multiplier at which their mean cost is within the target. The target is made anew from what was spent, so that errors of
prediction, drift and late costs are made good (model-predictive control; the budgeted problem and its dual: Badanidiyuru,
Kleinberg & Slivkins, arXiv:1305.2545).

- For a budget per request the target is the budget plus a share of what was left unspent, or less a share of what was overspent.
  Early on a reserve is held back, so that what chance does to spend is seldom more than a hundredth of the budget
  (a buffer, as in Slivkins, Sankararaman & Foster, arXiv:2211.07484, that is given back later).
- For a budget per period it is what is left of it over the requests that are still expected (``bandit.demand``).

Spend counts a decision at its predicted cost from the moment it is made and at its reported cost once that is known: a cost
that comes late, or without quality, or never, does not let spend run away. A hard budget also counts what is *reserved*: each
decision at the most it can cost, until its cost is known; a model that could pass the cap is not eligible.

One pacer serves a bucket's budget or a project's, whose requests may come from different buckets with different models and
objectives: the scores of one request need nothing but themselves. The pacer is part of the fold.

>>> pacer, budget = new_pacer(position=1), Budget(0.01)
>>> pacer.counts[DECISIONS], pacer.sums[SPENT] = 1000, 9.0  # a dollar is left
>>> round(request_target(pacer, budget.amount), 5)  # dollars the next requests may cost
0.018
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pointsman.bandit import demand as forecast
from pointsman.bandit.catalog import Aggregation, Budget, QualityRange
from pointsman.bandit.demand import Demand, new_demand
from pointsman.bandit.event import DecisionMade, OutcomeApplied
from pointsman.bandit.multiplier import LAST_RANK, UNREACHABLE, Replay, Solution, solve
from pointsman.bandit.outcome import Signal, reserved
from pointsman.bandit.packed import Array
from pointsman.bandit.policy import INELIGIBLE, ArmScores, score_arms
from pointsman.bandit.predictions import Ints

RING, FIRST_ROWS = 256, 32
"""Most requests whose scores are kept and replayed, and how many there is room for at first."""
REPLAYED = 128
"""Requests, the last ones, that are replayed while no more than twice as many were decided; then the later half of all, because
the scores of the first were made when little was known."""
EVERY = 16
"""Decisions between two searches for the multiplier; the first ``EVERY`` decisions each search, and the last ones of a period."""
DEFICIT_HORIZONS, DEFICIT_DECLINE = (64.0, 192.0), 8.0
"""Fewest and most requests over which a deficit is made up, and decisions so far by which they fall by one, from the most on: one
dear call early on may cost a hundred requests' worth, for which cheap models that are much worse would have to pay at once."""
SURPLUS_HORIZONS, SURPLUS_GROWTH = (32.0, 256.0), 8.0
"""Fewest and most requests over which a surplus is spent, and decisions so far by which they grow by one: a steady multiplier is
worth more than to spend soon, but what a cold start left is to be spent before it is old."""
SURPLUS, SURPLUS_CALLS = 512.0, 3.0
"""Largest surplus that is carried over, in requests' worth of a budget per request, or in calls to the most expensive model if
those cost more: what a quiet time left is spent, but not for ever."""
MAX_RISE = 1.0
"""Most that a surplus adds to the target, in budgets per request."""
RESERVE_SDS = 24.0
"""Reserve that a budget per request holds back at first, in standard deviations of one request's cost: three of the deficit that
chance makes, which is made up over at least 64 requests."""
ALLOWED = 0.005
"""Share of what the budget has granted so far by which the reserve shrinks: overspending by that much is within tolerance."""
RESERVE_SHARE = 0.01
"""Largest share of what the budget has granted so far that is held back."""
EXPLORE_SHARE = 0.003
"""Largest share of the target that the exploration floor may cost."""
DECISIONS, TOTAL, START_NS, LAST_NS, BORN, NEXT_SEARCH = range(6)
"""Places of ``Pacer.counts``."""
SPENT, MULTIPLIER, TARGET, COST_SD, RESERVED, FORGONE = range(6)
"""Places of ``Pacer.sums``."""


@dataclass(slots=True)
class Pacer:
    """A budget's state; changed in place by the fold.

    ``decisions``, ``spent`` and ``reserved`` count since the start (of the period, for a budget per period, which began at
    ``start_ns``). ``multiplier`` is in quality (scaled to [0, 1]) per dollar, ``target`` in dollars per request. The ring of n
    rows, which grows to ``RING``, holds in row ``total % n`` a request's scores as they are replayed (``bandit.multiplier``),
    its bucket's generation, and what the models' expected quality was at the bucket's average context (NaN if unknown).
    """

    counts: npt.NDArray[np.int64]
    sums: Array
    mean_nk: Array
    draw_nk: Array
    cost_nk: Array
    rank_nk: Ints
    floor_n: Array
    loss_n: Array
    level_nk: Array
    generation_n: npt.NDArray[np.int64]
    demand: Demand

    @property
    def decisions(self) -> int:
        """Decisions since the start."""
        return int(self.counts[DECISIONS])

    @property
    def total(self) -> int:
        """Decisions since the ring was started: it holds the last of them."""
        return int(self.counts[TOTAL])

    @property
    def start_ns(self) -> int:
        """When the period began."""
        return int(self.counts[START_NS])

    @property
    def last_ns(self) -> int:
        """When the last decision was made."""
        return int(self.counts[LAST_NS])

    @property
    def born(self) -> int:
        """Position at which the pacer was made: what was decided on an earlier state is not its business."""
        return int(self.counts[BORN])

    @property
    def spent(self) -> float:
        """Dollars since the start: reported, and predicted where nothing is reported yet."""
        return float(self.sums[SPENT])

    @property
    def multiplier(self) -> float:
        """The budget's multiplier, added to λ, in quality (scaled to [0, 1]) per dollar."""
        return float(self.sums[MULTIPLIER])

    @property
    def target(self) -> float:
        """Dollars that the next requests may cost on average."""
        return float(self.sums[TARGET])

    @property
    def cost_sd(self) -> float:
        """Standard deviation, in dollars, of what the replayed requests cost at the multiplier."""
        return float(self.sums[COST_SD])

    @property
    def forgone(self) -> float:
        """Dollars of a budget per request that were left unspent for too long to be spent any more."""
        return float(self.sums[FORGONE])

    @property
    def reserved(self) -> float:
        """Dollars since the start: reported, and the most that it can be where nothing is reported yet."""
        return float(self.sums[RESERVED])


@dataclass(frozen=True, slots=True)
class ActiveBudget:
    """A budget that a decision draws on, its state, and the dollars reserved for decisions that are not folded yet."""

    budget: Budget
    pacer: Pacer
    pending: float = 0.0


def new_pacer(position: int) -> Pacer:
    """A pacer of which nothing was decided yet, made at journal position ``position``."""
    counts = np.zeros(NEXT_SEARCH + 1, dtype=np.int64)
    counts[BORN] = position
    return Pacer(
        counts=counts,
        sums=np.zeros(FORGONE + 1),
        mean_nk=np.full((FIRST_ROWS, 0), INELIGIBLE),
        draw_nk=np.full((FIRST_ROWS, 0), INELIGIBLE),
        cost_nk=np.zeros((FIRST_ROWS, 0)),
        rank_nk=np.full((FIRST_ROWS, 0), LAST_RANK, dtype=np.int64),
        floor_n=np.full(FIRST_ROWS, np.nan),
        loss_n=np.full(FIRST_ROWS, np.nan),
        level_nk=np.full((FIRST_ROWS, 0), np.nan),
        generation_n=np.zeros(FIRST_ROWS, dtype=np.int64),
        demand=new_demand(),
    )


def restart_ring(pacer: Pacer) -> None:
    """Forget, in place, the requests to replay, because they cost something else now; what was spent stays."""
    pacer.counts[TOTAL] = pacer.counts[NEXT_SEARCH] = 0


def to_arrays(pacer: Pacer) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays by name."""
    own = {name: getattr(pacer, name) for name in ("counts", "sums", *_EMPTY)}
    return {**own, **forecast.to_arrays(pacer.demand)}


def from_arrays(named: Mapping[str, npt.NDArray[Any]]) -> Pacer:
    """The pacer of ``to_arrays``; of one from before demand was counted, what it spent and where it stood."""
    if len(named["counts"]) <= NEXT_SEARCH:
        pacer = new_pacer(int(named["counts"][BORN]))
        pacer.counts[:NEXT_SEARCH], pacer.sums[:] = named["counts"], named["sums"]
        pacer.sums[COST_SD] = 0.0  # held the time between decisions
        restart_ring(pacer)
        return pacer
    own = {name: named[name] for name in ("counts", "sums", *_EMPTY)}
    return Pacer(**own, demand=forecast.from_arrays(named))


def multiplier_for(active: ActiveBudget, scores: ArmScores, cost_bk: Array) -> float:
    """The multiplier for the next requests (quality per dollar); while the ring is empty, the one at which these keep to the
    budget. ``scores`` are theirs at a multiplier of 0, ``cost_bk`` their expected costs in dollars.
    """
    if active.pacer.total:
        return active.pacer.multiplier
    floor_b, loss_b = _floors(scores)
    mean_bk = np.where(scores.eligible_bk, scores.mean_bk, INELIGIBLE)
    replay = Replay(mean_bk, mean_bk, cost_bk, scores.rank_bk, floor_b, loss_b)
    return solve(replay, _present_target(active), active.pacer.multiplier).multiplier


def is_unaffordable(pacer: Pacer) -> bool:
    """Whether no choice kept the last requests within the target: then costs are charged at best (``bandit.optimism``), so that a
    model that only looks dear is tried again.
    """
    return pacer.total > 0 and pacer.multiplier >= UNREACHABLE


def affordable(active: ActiveBudget, cost_bk: Array) -> float:
    """The largest exploration floor at which the even draw costs at most ``EXPLORE_SHARE`` of the target; 0 while one call to the
    dearest model costs more than what is left unspent of a budget per request and a hundredth of what it has granted.
    """
    pacer, amount = active.pacer, active.budget.amount
    if not active.budget.period_ns:
        granted = amount * (pacer.decisions + 1)
        if float(cost_bk.max()) > max(granted - pacer.spent - pacer.forgone, 0.0) + RESERVE_SHARE * granted:
            return 0.0
    target = active.pacer.target if active.pacer.total else _present_target(active)
    return EXPLORE_SHARE * max(target, 0.0) / max(float(cost_bk.mean()), 1e-300)


def remaining(active: ActiveBudget, now_ns: int) -> float:
    """Dollars of a hard budget that are neither spent nor reserved at ``now_ns``."""
    now_ns = max(now_ns, active.pacer.last_ns)  # a clock that was put back does not open a period again
    reserved = active.pacer.reserved if _period(active.budget, now_ns) == active.pacer.start_ns else 0.0
    return active.budget.amount - reserved - active.pending


def count_decision(
    pacer: Pacer,
    budget: Budget,
    quality: QualityRange | None,
    event: DecisionMade,
    time_ns: int,
    level_k: Array | None = None,
) -> None:
    """Count a decision's predicted cost, in place, and solve for the multiplier every few decisions.

    ``quality`` is the scale of its bucket, ``None`` if that was deleted: then its scores are not replayed. ``level_k`` is the
    expected quality of its models, scaled to [0, 1], at the bucket's average context: by as much as that has changed since a
    request of the same bucket, the request's scores are out of date when they are replayed.
    """
    new_period = False
    if budget.period_ns:
        start_ns = _period(budget, time_ns)
        new_period = start_ns != pacer.start_ns
        if new_period:
            pacer.counts[DECISIONS], pacer.counts[START_NS] = 0, start_ns
            pacer.sums[SPENT] = pacer.sums[RESERVED] = 0.0
        forecast.count(pacer.demand, time_ns, budget.period_ns)
    pacer.counts[LAST_NS] = time_ns
    pacer.sums[SPENT] += event.predicted.cost_k[event.chosen]
    pacer.sums[RESERVED] += event.max_cost
    pacer.counts[DECISIONS] += 1
    if quality is None:
        return
    _remember_scores(pacer, quality, event, level_k)
    pacer.counts[TOTAL] += 1
    if new_period or pacer.total <= EVERY or pacer.total >= pacer.counts[NEXT_SEARCH]:
        _search(pacer, budget, time_ns)


def count_outcome(pacer: Pacer, budget: Budget, event: OutcomeApplied, rule: Aggregation) -> None:
    """Count, in place, the reported cost of a decision instead of what was counted for it so far.

    Its reservation is released at the first report, unless by ``rule``, the bucket's, more parts of the cost may come. A decision
    of an earlier period, or from before the pacer was made, changes nothing any more.
    """
    in_period = not budget.period_ns or _period(budget, event.decided_ns) == pacer.start_ns
    if not in_period or event.state_position < pacer.born:
        return
    for change in event.changes:
        if change.signal is Signal.COST:
            pacer.sums[SPENT] += change.after - (event.expected_cost if change.before is None else change.before)
            before, after = reserved(change, event.max_cost, rule)
            pacer.sums[RESERVED] += after - before


def request_target(pacer: Pacer, amount: float) -> float:
    """Dollars that the next requests may cost on average under a budget of ``amount`` dollars per request.

    A surplus beyond what may be carried over is forgone, in place.
    """
    granted = amount * pacer.decisions
    unspent = granted - pacer.spent - pacer.forgone
    used_nk = pacer.cost_nk[: min(pacer.total, len(pacer.cost_nk))]
    cost_of_dearest = float(used_nk.max(axis=1).mean()) if used_nk.size else 0.0
    largest_surplus = max(SURPLUS * amount, SURPLUS_CALLS * cost_of_dearest)
    pacer.sums[FORGONE] += max(0.0, unspent - largest_surplus)
    reserve = max(0.0, min(RESERVE_SDS * pacer.cost_sd - ALLOWED * granted, RESERVE_SHARE * granted))
    surplus = min(unspent, largest_surplus) - reserve
    if surplus < 0.0:
        fewest, most = DEFICIT_HORIZONS
        return amount + surplus / max(most - pacer.decisions / DEFICIT_DECLINE, fewest)
    fewest, most = SURPLUS_HORIZONS
    horizon = min(max(pacer.decisions / SURPLUS_GROWTH, fewest), most)
    return amount + min(surplus / horizon, MAX_RISE * amount)


def _search(pacer: Pacer, budget: Budget, time_ns: int) -> None:
    """Set the target, solve for the multiplier on the last requests, and say when to search next, in place."""
    every = EVERY
    if budget.period_ns:
        end_ns = pacer.start_ns + budget.period_ns
        expected = forecast.remaining(pacer.demand, time_ns, end_ns, budget.period_ns)
        pacer.sums[TARGET] = (budget.amount - pacer.spent) / max(expected, 1.0)
        every = min(EVERY, max(1, int(expected) // EVERY))
    else:
        pacer.sums[TARGET] = request_target(pacer, budget.amount)
    pacer.counts[NEXT_SEARCH] = pacer.total + every
    solution = solve_for_target(pacer)
    pacer.sums[MULTIPLIER], pacer.sums[COST_SD] = solution.multiplier, solution.cost_sd


def solve_for_target(pacer: Pacer) -> Solution:
    """The multiplier for the target on the last requests (``REPLAYED``), their scores shifted by what was learned since."""
    rows, newest = len(pacer.mean_nk), (pacer.total - 1) % len(pacer.mean_nk)
    replayed = min(pacer.total, rows, max(REPLAYED, pacer.total // 2))
    row_b = np.arange(pacer.total - replayed, pacer.total) % rows
    same_b = pacer.generation_n[row_b] == pacer.generation_n[newest]
    shift_bk = np.where(same_b[:, None], pacer.level_nk[newest] - pacer.level_nk[row_b], 0.0)
    np.nan_to_num(shift_bk, copy=False)
    replay = Replay(
        mean_bk=pacer.mean_nk[row_b] + shift_bk,
        draw_bk=pacer.draw_nk[row_b] + shift_bk,
        cost_bk=pacer.cost_nk[row_b],
        rank_bk=pacer.rank_nk[row_b],
        floor_b=pacer.floor_n[row_b],
        loss_b=pacer.loss_n[row_b],
    )
    return solve(replay, pacer.target, pacer.multiplier)


def _remember_scores(pacer: Pacer, quality: QualityRange, event: DecisionMade, level_k: Array | None) -> None:
    """Put the scores of a decision into the ring, in place."""
    scores = score_arms(
        event.objective, quality, event.predicted.batch(), event.exclusions_k[None], by_price=event.by_price
    )
    k = len(event.models)
    _make_room(pacer, k)
    n, eligible_k = pacer.total % len(pacer.mean_nk), scores.eligible_bk[0] & (event.draw_k > 0.5 * INELIGIBLE)
    value_by_name: dict[str, Array | Ints | float | int] = {
        "mean_nk": np.where(eligible_k, scores.mean_bk[0], INELIGIBLE),
        "draw_nk": np.where(eligible_k, event.draw_k - scores.shift_bk[0], INELIGIBLE),
        "cost_nk": event.predicted.cost_k,
        "rank_nk": LAST_RANK if scores.rank_bk is None else scores.rank_bk[0],
        "level_nk": np.nan if level_k is None else level_k,
    }
    for name, value_k in value_by_name.items():
        ring_nk = getattr(pacer, name)
        ring_nk[n, :k], ring_nk[n, k:] = value_k, _EMPTY[name]
    pacer.floor_n[n : n + 1], pacer.loss_n[n : n + 1] = _floors(scores)
    pacer.generation_n[n] = event.generation


_EMPTY = {
    "mean_nk": INELIGIBLE,
    "draw_nk": INELIGIBLE,
    "cost_nk": 0.0,
    "rank_nk": LAST_RANK,
    "level_nk": np.nan,
    "floor_n": np.nan,
    "loss_n": np.nan,
    "generation_n": 0,
}
"""What the ring's arrays hold where there is no model or request."""


def _make_room(pacer: Pacer, k: int) -> None:
    """Let the ring have as many columns as a request has models, and twice the rows when it is full the first time, in place."""
    rows, width = pacer.mean_nk.shape
    more_rows = rows if pacer.total == rows < RING else 0
    more_columns = max(0, k - width)
    if not (more_rows or more_columns):
        return
    grow = ((0, more_rows), (0, more_columns))
    for name, empty in _EMPTY.items():
        array = getattr(pacer, name)
        setattr(pacer, name, np.pad(array, grow[: array.ndim], constant_values=empty))


def _floors(scores: ArmScores) -> tuple[Array, Array]:
    """Absolute floors and losses against the best arm at a multiplier of 0, each (b); NaN where there is none."""
    none_b = np.full(len(scores.mean_bk), np.nan)
    if scores.floor_b is None:
        return none_b, none_b
    if scores.relative:
        return none_b, scores.mean_bk.max(axis=1) - scores.floor_b
    return scores.floor_b, none_b


def _period(budget: Budget, time_ns: int) -> int:
    """Start of the period that contains ``time_ns``; 0 for a budget without periods."""
    return time_ns - time_ns % budget.period_ns if budget.period_ns else 0


def _start_target(budget: Budget) -> float:
    """Dollars per request before any traffic was observed: the budget per request, or a hundredth of one per period."""
    return budget.amount if not budget.period_ns else 0.01 * budget.amount


def _present_target(active: ActiveBudget) -> float:
    """Dollars per request while the ring is empty: the last target if there was one."""
    pacer = active.pacer
    searched = pacer.decisions > 0 and pacer.target != 0.0
    return pacer.target if searched else _start_target(active.budget)
