"""The evidence on one signal of a candidate: rewards, weights, predictions and range, in the rounds where it was reported.

>>> chosen_n = np.array([0, 1] * 50)
>>> evidence = Evidence(
...     signal="quality", low=0.0, high=1.0, reward_m=chosen_n * 1.0, weight_m=chosen_n * 2.0, q_mk=np.zeros((100, 2)),
...     target_mk=np.tile([0.0, 1.0], (100, 1)), logged_mk=np.full((100, 2), 0.5), chosen_m=chosen_n,
...     q_cross_mk=np.zeros((100, 2)),
... )
>>> float(dr_scores(evidence).mean()), dr_scores_by_model(evidence).mean(axis=0).tolist()
(1.0, [0.0, 1.0])
>>> evidence.bound(0.95, lower=True) < 1.0 <= evidence.bound(0.95, lower=False)
True
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointsman.simulator.offpolicy.estimators.reward_models import cross_fitted, past_only
from pointsman.simulator.offpolicy.estimators.scores import dr
from pointsman.simulator.offpolicy.evaluation.signals import SignalValues
from pointsman.simulator.offpolicy.intervals.betting import ControlVariate, lower_bounds, upper_bounds
from pointsman.simulator.offpolicy.logs.log import Array, Indices, Log


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The evidence on one signal, in the rounds where it was reported (m of n).

    ``reward_m`` are its values, in its own unit, within ``low`` to ``high``, on which bounds rest: they prove nothing unless
    ``range_is_known`` (beforehand, and not from the values). ``weight_m`` are the importance weights of the candidate;
    ``target_mk`` its distribution, ``logged_mk`` the logging policy's (``None`` if the log does not say); ``q_mk`` the rewards
    predicted from earlier rounds alone, ``q_cross_mk`` those by cross-fitting.
    """

    signal: str
    low: float
    high: float
    reward_m: Array
    weight_m: Array
    q_mk: Array
    target_mk: Array
    logged_mk: Array | None
    chosen_m: Indices
    q_cross_mk: Array
    range_is_known: bool = True

    def __len__(self) -> int:
        """The number of rounds, m."""
        return len(self.reward_m)

    @property
    def logged_mean(self) -> float:
        """The mean of the reported values."""
        return float(self.reward_m.mean())

    @property
    def is_supported(self) -> bool:
        """Whether the logging policy's support is known to cover the candidate's."""
        return self.logged_mk is not None and not bool(((self.target_mk > 0.0) & (self.logged_mk <= 0.0)).any())

    @property
    def unsupported(self) -> float:
        """The share of the candidate's choices that have no propensity; 0 where the log does not say."""
        return 0.0 if self.logged_mk is None else float(self.target_mk[self.logged_mk <= 0.0].sum() / len(self))

    def bounds(self, level: float, *, lower: bool, factor: float = 0.0, at: Indices | None = None) -> Array:
        """Anytime-valid bounds of V(candidate) - ``factor`` · V(logging policy), in the signal's unit: (len(at)).

        One after each count of reported rounds in ``at``, by default one after all of them; see ``betting.lower_bounds``.
        """
        compute = lower_bounds if lower else upper_bounds
        bound_m = compute(
            np.clip(self.reward_m - self.low, 0.0, self.high - self.low),
            self.weight_m,
            level,
            factor=factor,
            high=self.high - self.low,
            control_variate=self._control_variate(),
            at=np.array([len(self)]) if at is None else at,
        )
        return bound_m + self.low * (1.0 - factor)

    def bound(self, level: float, *, lower: bool, factor: float = 0.0) -> float:
        """The bound of :meth:`bounds` after all rounds."""
        return float(self.bounds(level, lower=lower, factor=factor)[0])

    def _control_variate(self) -> ControlVariate | None:
        """Predictions on the scale where ``low`` is 0; none without the whole logged distribution."""
        if self.logged_mk is None:
            return None
        predicted_mk = np.clip(self.q_mk - self.low, 0.0, self.high - self.low)
        return ControlVariate(predicted_mk, self.target_mk, self.logged_mk, self.chosen_m)


def evidence_of(log: Log, name: str, signal: SignalValues, target_nk: Array, weight_n: Array) -> Evidence:
    """The evidence on one signal of a candidate with the distributions ``target_nk`` and weights ``weight_n`` in all rounds."""
    reported_n = ~np.isnan(signal.value_n)
    value_n = np.where(reported_n, np.clip(signal.value_n, signal.low, signal.high), np.nan)
    rounds = (value_n, log.chosen_n, log.x_nd, log.group_n, len(log.models))
    return Evidence(
        signal=name,
        low=signal.low,
        high=signal.high,
        reward_m=value_n[reported_n],
        weight_m=weight_n[reported_n],
        q_mk=past_only(*rounds)[reported_n],
        target_mk=target_nk[reported_n],
        logged_mk=None if log.logged_nk is None else log.logged_nk[reported_n],
        chosen_m=log.chosen_n[reported_n],
        q_cross_mk=cross_fitted(*rounds)[reported_n],
        range_is_known=signal.range_is_known,
    )


def dr_scores(evidence: Evidence) -> Array:
    """Doubly robust scores of the candidate (m), by predictions from earlier rounds."""
    return dr(evidence.reward_m, evidence.weight_m, evidence.q_mk, evidence.target_mk, evidence.chosen_m).score_n


def dr_scores_by_model(evidence: Evidence) -> Array:
    """Doubly robust scores of every model alone, (m, k)."""
    rows = np.arange(len(evidence))
    if evidence.logged_mk is not None:
        propensity_m = evidence.logged_mk[rows, evidence.chosen_m]
    else:
        target_m, weight_m = evidence.target_mk[rows, evidence.chosen_m], evidence.weight_m
        propensity_m = np.divide(target_m, weight_m, out=np.ones(len(rows)), where=weight_m > 0.0)
    score_mk = evidence.q_mk.copy()
    score_mk[rows, evidence.chosen_m] += (evidence.reward_m - evidence.q_mk[rows, evidence.chosen_m]) / propensity_m
    return score_mk
