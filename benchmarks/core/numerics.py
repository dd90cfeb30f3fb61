"""Whether ten million outcomes with forgetting leave a posterior as good as new.

    python benchmarks/core/numerics.py [--updates 10000000] [--half-life 10000,64,0] [--json FILE]

One model, d = 32, contexts whose covariance has a condition number of 10⁴, and outcomes of quality, cost, latency and output
tokens, which are always the same number, through the call that the fold makes. Beside it the truth is made in extended precision
from the same stream: sums of the same observations that decay as declared (and where the change detector raised an alarm), solved
as one batch with iterative refinement. Both are compared ``CHECKS`` times, half of them where the most rank-one updates have
passed since the last factorisation. The bar of the predictions is 1e-8 relative. A half-life of 0 means never to forget.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from pointsman.bandit import catalog
from pointsman.bandit.bucket import BucketState, learn, response_value
from pointsman.bandit.event import BucketPut, ModelPut, Record
from pointsman.bandit.outcome import Signal, SignalChange
from pointsman.bandit.packed import unpack
from pointsman.bandit.posterior import (
    COST,
    INTERCEPT_PRECISION,
    LATENCY,
    PRIOR_A,
    QUALITY,
    TOKENS,
    noise,
    predict,
    prior_precision,
)
from pointsman.bandit.state import State, apply
from pointsman.bandit.updates import ESS_AFTER_ALARM, REFRESH, log_decay

D, CHECKS, PROBES, BAR = 32, 40, 64, 1e-8
SIGNALS = (
    (Signal.QUALITY, QUALITY),
    (Signal.COST, COST),
    (Signal.LATENCY, LATENCY),
    (Signal.OUTPUT_TOKENS, TOKENS),
)
Array = npt.NDArray[np.float64]
Long = np.longdouble
Longs = npt.NDArray[np.longdouble]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=10_000_000)
    parser.add_argument("--half-life", default="10000,64,0", help="in outcomes; several with commas between")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    if np.finfo(Long).eps > 1e-18:
        parser.error("this machine's long double is no wider than a double: there is no truth to compare with")
    figures = {text: compare(arguments.updates, float(text)) for text in arguments.half_life.split(",")}
    table = Table(title=f"{arguments.updates:,} outcomes; bar of the predictions {BAR:g}")
    table.add_column("what")
    for text in figures:
        table.add_column(f"half-life {text}" if float(text) else "never forgets", justify="right")
    for name in next(iter(figures.values())):
        table.add_row(name, *(f"{errors_by_name[name]:.3g}" for errors_by_name in figures.values()))
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


def compare(updates: int, half_life: float) -> dict[str, float]:
    """Worst relative errors of predictions and covariances, least eigenvalue of a covariance, all over the run's checks."""
    rng = np.random.default_rng(0)
    stream, bucket = Stream(rng), new_bucket(half_life)
    truth = Truth(bucket)
    interval = REFRESH if not half_life else max(1, min(REFRESH, int(half_life / 8)))
    blocks = -(-updates // interval)
    checked = {int(block) for block in np.linspace(0, blocks - 1, CHECKS)}
    worst = {
        "predicted mean, worst relative error": 0.0,
        "predicted variance, worst relative error": 0.0,
        "… of a response that never varies": 0.0,
        "covariance, worst error relative to its largest entry": 0.0,
        "least eigenvalue of a covariance": math.inf,
        "largest over least eigenvalue of a covariance": 0.0,
    }

    def check() -> None:
        for name, value in zip(worst, errors(bucket, truth, stream.contexts(PROBES)), strict=True):
            worst[name] = min(worst[name], value) if "least" in name.split()[0] else max(worst[name], value)

    alarms = 0
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task(f"half-life {half_life:g}", total=blocks * interval)
        for block in range(blocks):
            x_nd, values_n4 = stream.draw(interval)
            observed, before = 0, log_decays(bucket)
            for i, (x_d, values) in enumerate(zip(x_nd, values_n4.tolist(), strict=True)):
                if i == interval - 1 and block in checked:
                    truth.observe(x_nd[observed:i], values_n4[observed:i])
                    observed = i
                    check()
                learn(bucket, "m", x_d, [SignalChange(s, None, v) for (s, _), v in zip(SIGNALS, values, strict=True)])
                after = log_decays(bucket)
                if after != before:
                    truth.observe(x_nd[observed : i + 1], values_n4[observed : i + 1])
                    observed, regular = i + 1, 0.0
                    if half_life and i == interval - 1:
                        share = Long(2.0) ** (-Long(interval) / Long(half_life))
                        truth.decay(range(len(SIGNALS)), share)
                        regular = float(np.log(share))
                    alarmed = [r for r in range(len(SIGNALS)) if after[r] - before[r] < regular - 1e-6]
                    alarms += len(alarmed)
                    for r in alarmed:
                        truth.decay([r], Long(ESS_AFTER_ALARM) / truth.mass(r))
                    before = after
            truth.observe(x_nd[observed:], values_n4[observed:])
            if block in checked:
                check()
            progress.advance(task, interval)
    return {**worst, "alarms of the change detector": float(alarms)}


def new_bucket(half_life: float) -> BucketState:
    """A bucket with one model, made through the fold."""
    schema = catalog.Schema(embeddings=(catalog.EmbeddingFeature("e", D - 1),))
    state, config = State(), catalog.Bucket("b", schema=schema, half_life=half_life)
    apply(state, Record(1, 1, ModelPut(catalog.Model("m"))))
    apply(state, Record(2, 2, BucketPut(config)))
    return state.buckets["b"]


def log_decays(bucket: BucketState) -> list[float]:
    """The log decays by response."""
    return [log_decay(bucket.posteriors, 0, response) for _, response in SIGNALS]


class Stream:
    """Contexts and outcomes: quality and the logarithms of the others are linear in the context, with noise but for tokens."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.rotation_dd = np.linalg.qr(rng.normal(size=(D, D)))[0]
        self.scale_d = np.geomspace(1.0, 1e-2, D)  # their covariance has its square
        self.effect_d4 = rng.normal(size=(D, 4)) * (0.1, 0.1, 0.1, 0.0)
        self.effect_d4[-1] = 0.5, -7.0, 0.3, np.log(40.0)

    def contexts(self, n: int) -> Array:
        """Contexts (n, d) as the encoder gives them: in single precision, the intercept last."""
        x_nd = (self.rng.normal(size=(n, D)) * self.scale_d) @ self.rotation_dd
        x_nd[:, -1] = 1.0
        return np.asarray(x_nd.astype(np.float32).astype(np.float64))

    def draw(self, n: int) -> tuple[Array, Array]:
        """Contexts (n, d) and values (n, 4) of quality, dollars, seconds, tokens."""
        x_nd = self.contexts(n)
        values_n4 = x_nd @ self.effect_d4 + self.rng.normal(size=(n, 4)) * (0.1, 0.05, 0.4, 0.0)
        values_n4[:, 1:] = np.exp(values_n4[:, 1:])
        values_n4[:, 3] = 40.0
        return x_nd, values_n4


class Truth:
    """The sums of a model's posterior by response, in extended precision."""

    def __init__(self, bucket: BucketState) -> None:
        self.bucket = bucket
        posteriors, responses = bucket.posteriors, [response for _, response in SIGNALS]
        self.intercept_r, self.b_r = posteriors.prior_kr2[0, responses].astype(Long).T
        self.prior_rdd = np.array(
            [np.diag(prior_precision(posteriors.ridge_d(response), INTERCEPT_PRECISION)) for response in responses]
        ).astype(Long)
        self.eta0_rd = np.zeros((len(SIGNALS), D), dtype=Long)
        self.eta0_rd[:, -1] = Long(INTERCEPT_PRECISION) * self.intercept_r
        # sums over observations, without the prior
        self.precision_rdd = np.zeros((len(SIGNALS), D, D), dtype=Long)
        self.eta_rd = np.zeros((len(SIGNALS), D), dtype=Long)
        self.square_r, self.weight_r = np.zeros(len(SIGNALS), dtype=Long), np.zeros(len(SIGNALS), dtype=Long)

    def observe(self, x_nd: Array, values_n4: Array) -> None:
        """Add observations, each of weight 1."""
        if not len(x_nd):
            return
        y_n4 = np.array(
            [[response_value(self.bucket, r, v) for (_, r), v in zip(SIGNALS, row, strict=True)] for row in values_n4]
        ).astype(Long)
        wide_nd = x_nd.astype(Long)
        self.precision_rdd += wide_nd.T @ wide_nd
        self.eta_rd += y_n4.T @ wide_nd
        self.square_r += (y_n4 * y_n4).sum(axis=0)
        self.weight_r += len(x_nd)

    def decay(self, rows: Sequence[int], share: np.longdouble) -> None:
        """Let what was observed of some responses count ``share`` as much."""
        for sums in (self.precision_rdd, self.eta_rd, self.square_r, self.weight_r):
            for row in rows:
                sums[row] *= share

    def mass(self, row: int) -> np.longdouble:
        """What the observations of a response count."""
        return Long(self.weight_r[row])

    def solve(self, row: int) -> tuple[Longs, Longs, float]:
        """Mean and Σ of θ, and E[σ²], of one response."""
        precision_dd = self.precision_rdd[row] + self.prior_rdd[row]
        eta_d = self.eta_rd[row] + self.eta0_rd[row]
        solution = refined(precision_dd, np.column_stack([eta_d, np.eye(D, dtype=Long)]))
        mean_d, cov_dd = solution[:, 0], solution[:, 1:]
        spread = self.square_r[row] + Long(INTERCEPT_PRECISION) * self.intercept_r[row] ** 2 - mean_d @ eta_d
        return mean_d, cov_dd, (self.b_r[row] + spread / 2) / (PRIOR_A + self.weight_r[row] / 2 - 1)


def refined(matrix_dd: Longs, right_dm: Longs) -> Longs:
    """Solve in double precision, with residuals in extended precision until nothing is left of them."""
    inverse_dd = np.linalg.inv(matrix_dd.astype(np.float64)).astype(Long)
    found_dm = inverse_dd @ right_dm
    for _ in range(6):
        found_dm += inverse_dd @ (right_dm - matrix_dd @ found_dm)
    return found_dm


def errors(bucket: BucketState, truth: Truth, probe_nd: Array) -> tuple[float, ...]:
    """Worst relative errors of means, variances and Σ, in the order of ``compare``; least eigenvalue and condition of Σ."""
    posteriors = bucket.posteriors
    predicted = [predict(posteriors, x_d) for x_d in probe_nd]
    mean_error = cov_error = condition = 0.0
    variance_errors = []
    least = math.inf
    for row, (_, response) in enumerate(SIGNALS):
        mean_d, exact_dd, exact_noise = truth.solve(row)
        wide_nd = probe_nd.astype(Long)
        mean_n, variance_n = wide_nd @ mean_d, ((wide_nd @ exact_dd) * wide_nd).sum(axis=1) * exact_noise
        got_n, spread_n = (np.array([prediction[i][0, response] for prediction in predicted]) for i in range(2))
        mean_error = max(mean_error, float(np.abs(got_n / mean_n - 1).max()))
        noise_error = float(abs(noise(posteriors)[0, response] / exact_noise - 1))
        variance_errors.append(max(noise_error, float(np.abs(spread_n / variance_n - 1).max())))
        cov_dd = unpack(posteriors.designs[posteriors.design_r[response]].cov_kp[0], D)
        cov_error = max(cov_error, float(np.abs(cov_dd - exact_dd).max() / np.abs(exact_dd).max()))
        eigen_d = np.linalg.eigvalsh(cov_dd)
        least, condition = min(least, float(eigen_d[0])), max(condition, float(eigen_d[-1] / eigen_d[0]))
    return mean_error, max(variance_errors[:-1]), variance_errors[-1], cov_error, least, condition


if __name__ == "__main__":
    main()
