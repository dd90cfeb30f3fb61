"""Every model's outcome in every round of a replay, under a schedule of changes.

``unfold`` makes of a table, an order of its rows and a schedule what every model would have answered in every round. It reads
no random number but those that its seed gives, so that all policies meet the same world.

A table holds outcomes, or with ``Noise`` what outcomes are on average: then each round draws its own around them, and what a
choice was worth is known exactly.

>>> round(shift_to(np.array([0.2, 0.9]), level=0.7, quality=QualityRange()), 9)  # 0.4 and, clipped, 1.0
0.2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from pointsman.bandit.catalog import QualityRange
from pointsman.bandit.outcome import Signal
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.world.changes import (
    FeedbackLate,
    FeedbackLost,
    LatencyFactor,
    ModelAdded,
    Outage,
    PriceFactor,
    QualityDrift,
    QualityLevel,
    Schedule,
    WorldChange,
    check_schedule,
)

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_LOST, _NOISE, _FAILED, _LATE = 2, 3, 4, 5
"""Which of a seed's random streams says what feedback is lost, what outcomes are drawn, which calls fail and what is late
(``simulator.run.replay`` has the others)."""
QUALITY_NOISE = ("exact", "binary", "graded")
"""How qualities may spread around their means (``Noise``)."""
_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class PriceNotice:
    """Policies are told that the list prices of ``model`` are now ``factor`` times the original ones."""

    model: str
    factor: float


@dataclass(frozen=True, slots=True)
class NewModelNotice:
    """Policies are told that they may now choose ``model``."""

    model: str


Notice = PriceNotice | NewModelNotice


@dataclass(frozen=True, slots=True)
class Noise:
    """How outcomes spread around what they are on average, given in the table.

    ``quality`` is ``exact`` (no spread), ``binary`` (1 with that probability, else 0) or ``graded`` (Beta, as sharp as
    ``concentration`` > 0 observations); the two want qualities in [0, 1]. ``cost`` and ``latency`` are log standard deviations
    of factors with mean 1; with ``latency_tail`` > 1 latency is Pareto with that index instead: from 2 down its variance is
    infinite.
    """

    quality: str = "exact"
    concentration: float = 5.0
    cost: float = 0.0
    latency: float = 0.0
    latency_tail: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedOutcome:
    """The expected value of every call, (t, k): the outcomes themselves, or with ``Noise`` what they are on average."""

    quality_tk: Array
    cost_tk: Array
    latency_tk: Array


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """The outcome of one call: ``quality`` in the table's units, cost in dollars, latency in seconds; NaN where unknown.

    ``quality_reported`` says whether the caller reports the quality. A call that failed has ``success`` False.
    """

    quality: float
    cost: float
    latency: float
    output_tokens: float
    success: bool = True
    quality_reported: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Rounds:
    """Every model's outcome in every round, (t, k); fields as in ``CallOutcome``.

    ``row_t`` are rows of the table, ``available_tk`` says which models are in the catalogue, ``notices`` what policies are told
    before a round, ``delay_t`` how many rounds later the outcome is learned. Policies are measured by ``expected``.
    """

    row_t: Indices
    quality_tk: Array
    cost_tk: Array
    latency_tk: Array
    output_tokens_tk: Array
    success_tk: Flags
    quality_reported_tk: Flags
    available_tk: Flags
    delay_t: Indices
    expected: ExpectedOutcome
    notices: Mapping[int, tuple[Notice, ...]]

    def __len__(self) -> int:
        """The number of rounds."""
        return len(self.row_t)

    def outcome(self, t: int, model: int) -> CallOutcome:
        """The outcome of calling model number ``model`` in round ``t``."""
        success = bool(self.success_tk[t, model])
        return CallOutcome(
            quality=float(self.quality_tk[t, model]),
            cost=float(self.cost_tk[t, model]),
            latency=float(self.latency_tk[t, model]),
            output_tokens=float(self.output_tokens_tk[t, model]),
            success=success,
            quality_reported=success and bool(self.quality_reported_tk[t, model]),
        )


def unfold(
    table: OutcomeTable,
    order: Sequence[int],
    schedule: Schedule = (),
    quality: QualityRange | None = None,
    seed: int = 0,
    noise: Noise | None = None,
) -> Rounds:
    """The rounds of ``table`` when its rows come in ``order`` (which may repeat some) under ``schedule``.

    Changes of the same thing add up in the order in which they are given. With ``noise`` the table is of averages. Raises
    ``SettingError`` for a schedule that makes no sense.
    """
    quality = QualityRange() if quality is None else quality
    check_schedule(table.models, quality, schedule)
    timeline = _Timeline(table, np.asarray(order, dtype=np.intp), quality, seed)
    for change in schedule:
        timeline.apply(change)
    failure_tk = timeline.failure_tk
    success_tk = np.ones(failure_tk.shape, dtype=np.bool_)
    if failure_tk.any():
        success_tk = np.random.default_rng([seed, _FAILED]).random(failure_tk.shape) >= failure_tk
    mean = ExpectedOutcome(timeline.quality_tk, timeline.cost_tk, timeline.latency_tk)
    drawn = mean if noise is None else _draw(mean, noise, np.random.default_rng([seed, _NOISE]))
    outcome = ExpectedOutcome(
        np.where(success_tk, drawn.quality_tk, quality.min),
        np.where(success_tk | np.isnan(drawn.cost_tk), drawn.cost_tk, 0.0),
        np.where(success_tk, drawn.latency_tk, np.nan),
    )
    return Rounds(
        row_t=timeline.row_t,
        quality_tk=outcome.quality_tk,
        cost_tk=outcome.cost_tk,
        latency_tk=outcome.latency_tk,
        output_tokens_tk=np.where(success_tk, table.output_tokens_nk[timeline.row_t], np.nan),
        success_tk=success_tk,
        quality_reported_tk=timeline.quality_reported_tk,
        available_tk=timeline.available_tk,
        delay_t=_delays(timeline.mean_delay_t, seed),
        expected=outcome if noise is None else _with_failures(mean, failure_tk, quality),
        notices=timeline.notices(),
    )


class _Timeline:
    """The rounds (t) of k models as a schedule's changes are applied to them, one after the other.

    Means of quality, cost and latency; the probability of a failure; the factor of list prices that was announced; the mean
    delay of outcomes in rounds.
    """

    def __init__(self, table: OutcomeTable, row_t: Indices, quality: QualityRange, seed: int) -> None:
        self._table, self._quality, self.row_t = table, quality, row_t
        shape = len(row_t), len(table.models)
        self.quality_tk, self.cost_tk = table.quality_nk[row_t], table.cost_nk[row_t]
        self.latency_tk = table.latency_nk[row_t]
        self.quality_reported_tk, self.available_tk = np.ones(shape, dtype=np.bool_), np.ones(shape, dtype=np.bool_)
        self.failure_tk, self.mean_delay_t = np.zeros(shape), np.zeros(len(row_t))
        self._announced_tk = np.ones(shape)
        self._loss_draw_t = np.random.default_rng([seed, _LOST]).random(len(row_t))
        self._joined: dict[int, list[str]] = {}

    def apply(self, change: WorldChange) -> None:
        """Apply one change to the rounds in which it holds."""
        when = slice(change.start, None if isinstance(change, ModelAdded) else change.end)
        if isinstance(change, FeedbackLate):
            self.mean_delay_t[when] += change.rounds
        elif isinstance(change, FeedbackLost):
            kept_t = self._loss_draw_t[when] >= change.share
            models = self._table.models if change.model is None else (change.model,)
            for model in models:
                self.quality_reported_tk[when, self._table.models.index(model)] &= kept_t
        else:
            self._apply_to_model(change, when, self._table.models.index(change.model))

    def _apply_to_model(
        self,
        change: PriceFactor | QualityLevel | QualityDrift | LatencyFactor | Outage | ModelAdded,
        when: slice,
        model: int,
    ) -> None:
        low, high = self._quality.min, self._quality.max
        match change:
            case PriceFactor():
                self.cost_tk[when, model] *= change.factor
                if change.announced:
                    self._announced_tk[when, model] *= change.factor
            case LatencyFactor():
                self.latency_tk[when, model] *= change.factor
            case QualityLevel():
                shift = shift_to(self._table.quality_nk[:, model], change.level, self._quality)
                self.quality_tk[when, model] = np.clip(self.quality_tk[when, model] + shift, low, high)
            case QualityDrift():
                part_t = np.clip((np.arange(len(self.row_t)) - change.start) / (change.end - change.start), 0.0, 1.0)
                drifted_t = np.clip(self.quality_tk[:, model] + change.by * part_t, low, high)
                self.quality_tk[change.start :, model] = drifted_t[change.start :]
            case Outage():
                self.failure_tk[when, model] = 1.0 - (1.0 - self.failure_tk[when, model]) * (1.0 - change.share)
            case ModelAdded():
                self.available_tk[: change.start, model] = False
                if 0 < change.start < len(self.row_t):
                    self._joined.setdefault(change.start, []).append(change.model)

    def notices(self) -> dict[int, tuple[Notice, ...]]:
        """Notices to policies before a round, by round: first of new models, then of list prices."""
        notices: dict[int, tuple[Notice, ...]] = {
            t: tuple(NewModelNotice(model) for model in models) for t, models in self._joined.items()
        }
        before_tk = np.vstack([np.ones((1, len(self._table.models))), self._announced_tk[:-1]])
        for t, model in np.argwhere(self._announced_tk != before_tk).tolist():
            price = PriceNotice(self._table.models[model], float(self._announced_tk[t, model]))
            notices[t] = (*notices.get(t, ()), price)
        return notices


def _with_failures(mean: ExpectedOutcome, failure_tk: Array, quality: QualityRange) -> ExpectedOutcome:
    """Means of calls that fail with these probabilities: a failed one has the least quality and costs nothing."""
    return ExpectedOutcome(
        (1.0 - failure_tk) * mean.quality_tk + failure_tk * quality.min,
        (1.0 - failure_tk) * mean.cost_tk,
        mean.latency_tk,
    )


def _draw(mean: ExpectedOutcome, noise: Noise, rng: np.random.Generator) -> ExpectedOutcome:
    """Outcomes around their means; every round draws as many numbers whatever the means are, so that worlds compare."""
    shape = mean.quality_tk.shape
    quality_tk = mean.quality_tk
    uniform_tk = rng.random(shape)
    if noise.quality == "binary":
        quality_tk = (uniform_tk < mean.quality_tk).astype(np.float64)
    elif noise.quality == "graded":
        inside_tk = np.clip(mean.quality_tk, 1e-9, 1.0 - 1e-9)
        quality_tk = np.asarray(
            betaincinv(noise.concentration * inside_tk, noise.concentration * (1.0 - inside_tk), uniform_tk),
            dtype=np.float64,
        )
    cost_factor_tk = np.exp(noise.cost * rng.standard_normal(shape) - noise.cost**2 / 2.0)
    if noise.latency_tail is None:
        latency_factor_tk = np.exp(noise.latency * rng.standard_normal(shape) - noise.latency**2 / 2.0)
    else:
        tail = noise.latency_tail
        latency_factor_tk = (tail - 1.0) / tail * (1.0 - rng.random(shape)) ** (-1.0 / tail)
    return ExpectedOutcome(quality_tk, mean.cost_tk * cost_factor_tk, mean.latency_tk * latency_factor_tk)


def _delays(mean_t: Array, seed: int) -> Indices:
    """Geometric numbers of rounds (0, 1, …) with these means."""
    if not mean_t.any():
        return np.zeros(len(mean_t), dtype=np.intp)
    return np.random.default_rng([seed, _LATE]).geometric(1.0 / (1.0 + mean_t)).astype(np.intp) - 1


def shift_to(quality_n: Array, level: float, quality: QualityRange) -> float:
    """The shift of every quality, clipped to the range, at which the mean is ``level``."""
    low, high = quality.min - float(quality_n.max()), quality.max - float(quality_n.min())
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        below = float(np.clip(quality_n + middle, quality.min, quality.max).mean()) < level
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2.0


def table_outcome(table: OutcomeTable, row: int, model: int) -> CallOutcome:
    """The outcome in the table of calling model number ``model`` on the prompt of ``row``."""
    return CallOutcome(
        quality=float(table.quality_nk[row, model]),
        cost=float(table.cost_nk[row, model]),
        latency=float(table.latency_nk[row, model]),
        output_tokens=float(table.output_tokens_nk[row, model]),
    )


def report_of(outcome: CallOutcome, *, success: bool) -> dict[Signal, float]:
    """The report of a caller on ``outcome``: its known signals, and whether the call succeeded if ``success``."""
    cells = {
        Signal.QUALITY: outcome.quality if outcome.quality_reported else np.nan,
        Signal.COST: outcome.cost,
        Signal.LATENCY: outcome.latency,
        Signal.OUTPUT_TOKENS: outcome.output_tokens,
    }
    reported = {signal: float(value) for signal, value in cells.items() if not np.isnan(value)}
    return reported | ({Signal.SUCCESS: float(outcome.success)} if success else {})
