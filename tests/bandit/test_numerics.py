"""Learning stays exact: whatever contexts, values, forgetting, delays, corrections and alarms come, a bucket's posteriors are
those of a batch solve in extended precision of the same weighted observations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from pointsman.bandit.bucket import BucketState, learn, response_value
from pointsman.bandit.catalog import Bucket, Model, NumberFeature, QualityRange, Schema
from pointsman.bandit.encoder import CLIP
from pointsman.bandit.event import BucketPut, ModelPut, Record
from pointsman.bandit.outcome import Signal, SignalChange
from pointsman.bandit.packed import unpack
from pointsman.bandit.posterior import COST, LATENCY, PRIOR_A, QUALITY, noise, predict, prior_precision
from pointsman.bandit.state import State, apply
from pointsman.bandit.updates import ESS_AFTER_ALARM, REFRESH, log_decay

SIGNALS = ((Signal.QUALITY, QUALITY), (Signal.COST, COST), (Signal.LATENCY, LATENCY))
BAR = 1e-8
Array = npt.NDArray[np.float64]
Long = np.longdouble
Longs = npt.NDArray[np.longdouble]

pytestmark = pytest.mark.skipif(bool(np.finfo(Long).eps > 1e-18), reason="long double is no wider than double here")


def new_bucket(dim: int, half_life: float, quality: tuple[float, float] = (0.0, 1.0)) -> BucketState:
    schema = Schema(numbers=tuple(NumberFeature(f"x{i}") for i in range(dim - 1)))
    config = Bucket("b", schema=schema, half_life=half_life, quality_range=QualityRange(*quality))
    state = State()
    apply(state, Record(1, 1, ModelPut(Model("m"))))
    apply(state, Record(2, 2, BucketPut(config)))
    return state.buckets["b"]


@dataclass
class Truth:
    """A bucket, the list of its outcomes, and the exact log decays at each decision, by response."""

    bucket: BucketState
    x: list[Array] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    since: list[list[np.longdouble]] = field(default_factory=list)
    log_decay: list[np.longdouble] = field(default_factory=lambda: [Long(0)] * len(SIGNALS))
    alarms: int = 0

    def stored_log_decays(self) -> list[float]:
        return [log_decay(self.bucket.posteriors, 0, response) for _, response in SIGNALS]

    def weights(self, row: int) -> Longs:
        return np.exp(self.log_decay[row] - np.array([start[row] for start in self.since]))

    def tell(
        self, x_d: Array, values: list[float], decided: tuple[list[float], list[np.longdouble]] | None = None
    ) -> None:
        """Learn an outcome of a decision that was made at the log decays ``decided`` (the bucket's, the exact ones)."""
        before = self.stored_log_decays()
        recorded, exact = decided or (before, list(self.log_decay))
        changes = [SignalChange(s, None, v, c) for (s, _), v, c in zip(SIGNALS, values, recorded, strict=True)]
        learn(self.bucket, "m", x_d, changes)
        self.x.append(x_d)
        self.values.append(values)
        self.since.append(exact)
        self._forget(before)

    def correct(self, number: int, row: int, value: float) -> None:
        """Learn a correction of an outcome."""
        before, then = (
            self.values[number][row],
            self.stored_log_decays()[row] - float(self.log_decay[row] - self.since[number][row]),
        )
        learn(self.bucket, "m", self.x[number], [SignalChange(SIGNALS[row][0], before, value, then)])
        self.values[number][row] = value

    def _forget(self, before: list[float]) -> None:
        half_life = self.bucket.config.half_life
        interval = max(1, min(REFRESH, int(half_life / 8)))
        regular = Long(0)
        if half_life and len(self.x) % interval == 0:
            regular = -Long(interval) / Long(half_life) * np.log(Long(2))
        for row, now in enumerate(self.stored_log_decays()):
            self.log_decay[row] += regular
            if now - before[row] < float(regular) - 1e-6:  # further than declared: an alarm of the change detector
                self.alarms += 1
                self.log_decay[row] += np.log(Long(ESS_AFTER_ALARM) / self.weights(row).sum())

    def check(self, probe_nd: Array) -> float:
        """The worst error of predictions at ``probe_nd``, relative to what they should be."""
        posteriors = self.bucket.posteriors
        predicted = [predict(posteriors, x_d) for x_d in probe_nd]
        x_nd, worst = np.array(self.x, dtype=Long), 0.0
        for row, (_, response) in enumerate(SIGNALS):
            w_n = self.weights(row)
            y_n = np.array([response_value(self.bucket, response, values[row]) for values in self.values], dtype=Long)
            intercept, b = posteriors.prior_kr2[0, response].astype(Long)
            prior_d = prior_precision(posteriors.ridge_d(response), float(posteriors.mass_k[0])).astype(Long)
            precision_dd = (x_nd * w_n[:, None]).T @ x_nd + np.diag(prior_d)
            eta_d = x_nd.T @ (w_n * y_n)
            eta_d[-1] += prior_d[-1] * intercept
            solution = refined(precision_dd, np.column_stack([eta_d, np.eye(len(eta_d))]))
            mean_d, cov_dd = solution[:, 0], solution[:, 1:]
            b += (w_n @ (y_n * y_n) + prior_d[-1] * intercept**2 - mean_d @ eta_d) / 2
            exact_noise = b / (PRIOR_A + w_n.sum() / 2 - 1)
            mean_n = probe_nd @ mean_d
            variance_n = ((probe_nd @ cov_dd) * probe_nd).sum(axis=1) * exact_noise
            got_n, spread_n = (np.array([prediction[i][0, response] for prediction in predicted]) for i in range(2))
            # a mean may be nearly nothing: what counts is the larger of it and its standard deviation
            unit_n = np.maximum(np.abs(mean_n), np.sqrt(variance_n))
            worst = max(worst, float((np.abs(got_n - mean_n) / unit_n).max()))
            worst = max(worst, float(np.abs(spread_n / variance_n - 1).max()))
            worst = max(worst, float(abs(noise(posteriors)[0, response] / exact_noise - 1)))
            cov_now_dd = unpack(posteriors.designs[posteriors.design_r[response]].cov_kp[0], len(eta_d))
            assert np.linalg.eigvalsh(cov_now_dd)[0] > 0.0
            assert posteriors.b_kr[0, response] > 0.0
        return worst


def refined(matrix_dd: Longs, right_dm: Longs) -> Longs:
    """Solve with residuals in extended precision until nothing is left of them."""
    inverse_dd = np.linalg.inv(matrix_dd.astype(np.float64)).astype(Long)
    found_dm = inverse_dd @ right_dm
    for _ in range(8):
        found_dm += inverse_dd @ (right_dm - matrix_dd @ found_dm)
    return found_dm


def contexts(rng: np.random.Generator, n: int, dim: int, scale: float, gap: float) -> Array:
    """Contexts as the encoder gives them, (n, d): columns of very different size, two of them all but collinear."""
    x_nd = rng.normal(size=(n, dim)) * np.geomspace(scale, 1e-3, dim)
    if dim > 2:
        x_nd[:, 1] = x_nd[:, 0] + gap * x_nd[:, 1]
    x_nd[:, -1] = 1.0
    return np.clip(x_nd, -CLIP, CLIP).astype(np.float32).astype(np.float64)


@settings(max_examples=40, phases=[Phase.generate])  # nothing of 600 outcomes is worth shrinking
@given(
    seed=st.integers(0, 2**32 - 1),
    dim=st.sampled_from((1, 2, 3, 8, 16)),
    half_life=st.sampled_from((0.0, 8.0, 11.5, 64.0, 1000.0, 10_000.0)),
    scale=st.sampled_from((1e-3, 1.0, 5.0, 100.0)),
    gap=st.sampled_from((0.0, 1e-6, 1e-2, 1.0)),
    quality=st.sampled_from(((0.0, 1.0), (-1e6, 1e6), (0.0, 1e-3))),
    kind=st.sampled_from(("anything", "calm", "jump")),
    late=st.integers(0, 40),
    wrong=st.floats(0, 0.3),
)
def test_learning_is_a_batch_solve(
    seed: int,
    dim: int,
    half_life: float,
    scale: float,
    gap: float,
    quality: tuple[float, float],
    kind: str,
    late: int,
    wrong: float,
) -> None:
    """``late`` outcomes arrive after that many others; a share ``wrong`` of them is corrected later."""
    rng = np.random.default_rng(seed)
    truth = Truth(new_bucket(dim, half_life, quality))
    n = 600
    x_nd = contexts(rng, n, dim, scale, gap)
    if kind == "anything":  # that is believed
        values_n3 = np.column_stack([rng.random(n), 10 ** rng.uniform(-9, 6, n), 10 ** rng.uniform(-5, 6, n)])
    elif kind == "calm":  # the same cost and latency each time, quality all but so
        values_n3 = np.column_stack([0.7 + 1e-9 * rng.random(n), np.full(n, 1e6), np.full(n, 1e-4)])
    else:  # that raises alarms
        values_n3 = np.column_stack([rng.random(n) / 10, 10 ** rng.uniform(-7, -6, n), 10 ** rng.uniform(-1, 0, n)])
        values_n3[n // 2 :] *= 9.0, 1e6, 10.0
    values_n3[:, 0] = quality[0] + (quality[1] - quality[0]) * values_n3[:, 0]
    waiting = []
    for x_d, values in zip(x_nd, values_n3.tolist(), strict=True):
        waiting.append((x_d, values, (truth.stored_log_decays(), list(truth.log_decay))))
        if len(waiting) > late:
            truth.tell(*waiting.pop(int(rng.integers(len(waiting)))))
        if truth.x and rng.random() < wrong:
            number, row = int(rng.integers(len(truth.x))), int(rng.integers(3))
            truth.correct(number, row, float(values_n3[rng.integers(n), row]))
    event(f"alarms: {truth.alarms > 0}")
    assert truth.check(np.vstack([x_nd[-20:], contexts(rng, 20, dim, 1.0, 1.0)])) < BAR


@pytest.mark.parametrize("half_life", [64.0, 2048.0])
def test_alarms_leave_a_batch_solve_too(half_life: float) -> None:
    rng, dim, n = np.random.default_rng(0), 6, 3 * REFRESH
    truth = Truth(new_bucket(dim, half_life))
    x_nd = contexts(rng, n, dim, 1.0, 1e-6)
    for i, x_d in enumerate(x_nd):
        level = 0.9 if i < n // 2 else 0.2
        truth.tell(x_d, [float(np.clip(level + 0.05 * rng.normal(), 0, 1)), 1e-3 * math.exp(0.1 * rng.normal()), 1.0])
    assert truth.alarms > 0
    assert len({int(r) for r in truth.bucket.posteriors.design_r[[QUALITY, COST]]}) == 2
    assert truth.check(x_nd[-40:]) < BAR


def test_what_is_between_two_factorisations_stays_exact() -> None:
    """The most rank-one updates in a row, at d = 32, with the largest contexts there are."""
    rng, dim = np.random.default_rng(1), 32
    truth = Truth(new_bucket(dim, 0.0))
    x_nd = np.where(rng.random((4 * REFRESH - 1, dim)) < 0.5, -CLIP, CLIP)
    x_nd[:, 1] = x_nd[:, 0]
    x_nd[:, -1] = 1.0
    for i, x_d in enumerate(x_nd, start=1):
        truth.tell(x_d, [float(rng.random()), 10 ** rng.uniform(-9, 6), 10 ** rng.uniform(-4, 6)])
        if i % REFRESH in (REFRESH - 1, 0):
            assert truth.check(x_nd[i - 20 : i]) < BAR
