"""Whether ten million updates with forgetting leave a posterior as good as new.

    python benchmarks/core/numerics.py [--updates 10000000] [--half-life 10000] [--json FILE]

One cell, d = 32, contexts whose covariance has a condition number of 10⁴, through the same call that the fold makes. The truth is
made beside it in extended precision from the same stream: sums that fade as declared, and a batch solve at the end.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bandit.posterior import (
    INTERCEPT_PRECISION,
    PRECISION,
    QUALITY,
    REFRESH,
    Prior,
    add_models,
    empty,
    observe_all,
    predict,
    unpack,
)

D = 32
Long = np.longdouble


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=10_000_000)
    parser.add_argument("--half-life", type=float, default=10_000.0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    figures = compare(arguments.updates, arguments.half_life)
    table = Table(title=f"{arguments.updates:,} updates, half-life {arguments.half_life:g}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3g}")
    Console(width=100).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


def compare(updates: int, half_life: float) -> dict[str, float]:
    """Worst relative errors of covariance and predictions, and the least eigenvalue of the covariance."""
    rng = np.random.default_rng(0)
    rotation_dd = np.linalg.qr(rng.normal(size=(D, D)))[0]
    scale_d = np.geomspace(1.0, 1e-2, D)  # of the contexts; their covariance has its square
    effect_d = rng.normal(size=D) * 0.1
    prior = Prior(0.5, 0.5)
    posteriors = add_models(empty(D), 1, [prior] * 4)
    every = max(1, min(REFRESH, int(half_life / 8)))
    share = Long(2.0) ** (-Long(every) / Long(half_life))
    prior_dd = np.diag(np.full(D, PRECISION)).astype(Long)
    prior_dd[-1, -1] = INTERCEPT_PRECISION
    start_d = np.zeros(D, dtype=Long)
    start_d[-1] = Long(INTERCEPT_PRECISION) * Long(prior.intercept)
    precision_dd, eta_d = prior_dd.copy(), start_d.copy()
    with Progress() as progress:
        task = progress.add_task("updates", total=updates)
        for begin in range(0, updates, every):
            n = min(every, updates - begin)
            x_nd = (rng.normal(size=(n, D)) * scale_d) @ rotation_dd
            x_nd[:, -1] = 1.0
            y_n = x_nd @ effect_d + 0.1 * rng.normal(size=n)
            for x_d, y in zip(x_nd, y_n, strict=True):
                observe_all(posteriors, 0, x_d, ((QUALITY, float(y)),), half_life=half_life)
            wide_nd = x_nd.astype(Long)
            precision_dd += wide_nd.T @ wide_nd
            eta_d += wide_nd.T @ y_n.astype(Long)
            if n == every:
                precision_dd = share * precision_dd + (1 - share) * prior_dd
                eta_d = share * eta_d + (1 - share) * start_d
            progress.advance(task, n)
    design = posteriors.designs[posteriors.design_r[QUALITY]]
    cov_dd = unpack(design.cov_kp[0], D)
    exact_dd = solve(precision_dd, np.eye(D, dtype=Long))
    exact_d = solve(precision_dd, eta_d[:, None])[:, 0]
    probe_nd = (rng.normal(size=(200, D)) * scale_d) @ rotation_dd
    probe_nd[:, -1] = 1.0
    mean_error = variance_error = 0.0
    noise = float(posteriors.b_kr[0, QUALITY] / (posteriors.a_kr[0, QUALITY] - 1.0))
    for x_d in probe_nd:
        mean_kr, variance_kr = predict(posteriors, x_d)
        wide_d = x_d.astype(Long)
        mean, quadratic = wide_d @ exact_d, wide_d @ exact_dd @ wide_d
        mean_error = max(mean_error, float(abs(mean_kr[0, QUALITY] - mean) / abs(mean)))
        variance_error = max(variance_error, float(abs(variance_kr[0, QUALITY] / noise - quadratic) / quadratic))
    return {
        "predicted mean, worst relative error": mean_error,
        "predicted variance, worst relative error": variance_error,
        "covariance, worst error relative to its largest entry": float(
            np.abs(cov_dd - exact_dd).max() / np.abs(exact_dd).max()
        ),
        "least eigenvalue of the covariance": float(np.linalg.eigvalsh(cov_dd).min()),
        "largest over least eigenvalue of the precision": float(np.linalg.cond(precision_dd.astype(np.float64))),
    }


def solve(matrix_dd: np.ndarray, right_dm: np.ndarray) -> np.ndarray:
    """Cholesky in extended precision, for which LAPACK has nothing."""
    d = len(matrix_dd)
    factor_dd = np.zeros((d, d), dtype=Long)
    for j in range(d):
        rest = matrix_dd[j:, j] - factor_dd[j:, :j] @ factor_dd[j, :j]
        factor_dd[j:, j] = rest / np.sqrt(rest[0])
    half = right_dm.astype(Long).copy()
    for j in range(d):
        half[j] = (half[j] - factor_dd[j, :j] @ half[:j]) / factor_dd[j, j]
    for j in reversed(range(d)):
        half[j] = (half[j] - factor_dd[j + 1 :, j] @ half[j + 1 :]) / factor_dd[j, j]
    return half


if __name__ == "__main__":
    main()
