"""Time of one in-process decision and of folding one outcome, and the error of the propensities.

    python benchmarks/core/decide.py [--json FILE]

d = 32, k = 8, one BLAS thread; medians over repeats. Peers, when installed (`pip install vowpalwabbit mabwiser`), run in the
same process on the same contexts: Vowpal Wabbit `cb_explore_adf --squarecb` (predict, learn) and MABWiser LinUCB (batch
predict). The propensity error is measured against adaptive quadrature over a grid of hard cases.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.integrate import quad
from scipy.stats import norm

from pointsman.bandit import catalog
from pointsman.bandit.bucket import BucketState, learn
from pointsman.bandit.decide import decide
from pointsman.bandit.encoder import Context
from pointsman.bandit.event import BucketPut, ModelPut, Record
from pointsman.bandit.outcome import Signal, SignalChange
from pointsman.bandit.policy import choose, score_arms
from pointsman.bandit.predictions import predictions_batch
from pointsman.bandit.propensity import argmax_propensities, normals
from pointsman.bandit.state import State, apply

D, K, BATCH, REPEATS = 32, 8, 4096, 9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    figures = {**ours(), **vowpal_wabbit(), **mabwiser(), **propensity_error()}
    table = Table(title=f"d = {D}, k = {K}, one thread, median of {REPEATS} repeats")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.3g}")
    Console(width=100).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


def microseconds(action: Callable[[], object], calls: int) -> float:
    """Median over repeats of the time of one call."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(calls):
            action()
        times.append((time.perf_counter() - start) / calls)
    return 1e6 * statistics.median(times)


def bucket() -> tuple[BucketState, np.ndarray]:
    """A bucket that has learned 4,000 outcomes, and contexts."""
    rng = np.random.default_rng(0)
    state = State()
    events = [ModelPut(catalog.Model(f"m{i}")) for i in range(K)]
    schema = catalog.Schema(embeddings=(catalog.EmbeddingFeature("e", D - 1),))
    for position, event in enumerate([*events, BucketPut(catalog.Bucket("b", schema=schema))], start=1):
        apply(state, Record(position, position, event))
    bucket_state = state.buckets["b"]
    vectors_nd = rng.normal(size=(BATCH, D - 1)) / np.sqrt(D - 1)
    effects_kd = 0.2 * rng.normal(size=(K, D - 1))
    for vector_d in vectors_nd[:4000]:
        k = int(rng.integers(K))
        quality = float(np.clip(0.5 + 0.03 * k + effects_kd[k] @ vector_d + 0.2 * rng.normal(), 0, 1))
        x_d = bucket_state.encoder.encode(Context(embeddings={"e": vector_d})).x_d
        learn(bucket_state, f"m{k}", x_d, outcome(quality))
    return bucket_state, vectors_nd


def outcome(quality: float) -> tuple[SignalChange, ...]:
    """One outcome with quality, cost and latency."""
    return (
        SignalChange(Signal.QUALITY, None, quality),
        SignalChange(Signal.COST, None, 0.001),
        SignalChange(Signal.LATENCY, None, 1.0),
    )


def ours() -> dict[str, float]:
    """The core's own times."""
    bucket_state, vectors_nd = bucket()
    rng = np.random.default_rng(1)
    encoded = [bucket_state.encoder.encode(Context(embeddings={"e": v})) for v in vectors_nd]
    objective, scale = (
        bucket_state.config.objective.resolve(bucket_state.config.quality_range),
        bucket_state.config.quality_range,
    )
    turns = itertools.cycle(encoded)
    everyone_bk, floor_b = np.zeros((1, K), dtype=np.int64), np.array([0.01])

    def draw_only() -> None:
        predicted = predictions_batch(bucket_state.posteriors, next(turns).x_d[None])
        scores = score_arms(objective, scale, predicted, everyone_bk)
        choose(scores, floor_b, rng, with_propensity=False)

    x_bd = np.array([encoded_context.x_d for encoded_context in encoded])
    nobody_bk, floors_b = np.zeros((BATCH, K), dtype=np.int64), np.full(BATCH, 0.01)

    def draw_batch(with_propensity: bool) -> None:
        scores = score_arms(objective, scale, predictions_batch(bucket_state.posteriors, x_bd), nobody_bk)
        choose(scores, floors_b, rng, with_propensity=with_propensity)

    ids = [b"0" * 16]
    everything = [b"0" * 16] * BATCH
    return {
        "decision without propensity, µs": microseconds(draw_only, 2000),
        "decision with propensity, as an event, µs": microseconds(
            lambda: decide(bucket_state, [next(turns)], ids, rng, health={}, now_ns=0, state_position=0), 2000
        ),
        f"batch of {BATCH} without propensities, µs each": microseconds(lambda: draw_batch(False), 1) / BATCH,
        f"batch of {BATCH} with propensities, µs each": microseconds(lambda: draw_batch(True), 1) / BATCH,
        f"batch of {BATCH} with propensities, as events, µs each": microseconds(
            lambda: decide(bucket_state, encoded, everything, rng, health={}, now_ns=0, state_position=0), 1
        )
        / BATCH,
        "fold of one outcome (quality, cost, latency), µs": microseconds(
            lambda: learn(bucket_state, "m3", next(turns).x_d, outcome(0.5)), 2000
        ),
        "encode an embedding, µs": microseconds(
            lambda: bucket_state.encoder.encode(Context(embeddings={"e": vectors_nd[0]})), 2000
        ),
    }


def vowpal_wabbit() -> dict[str, float]:
    """Vowpal Wabbit's predict and learn, if it is installed."""
    try:
        import vowpalwabbit
    except ImportError:
        return {}
    workspace = vowpalwabbit.Workspace("--cb_explore_adf --squarecb --quiet -q sa --cb_type mtr")
    rng = np.random.default_rng(0)
    shared = "shared |s " + " ".join(f"f{i}:{v:.5f}" for i, v in enumerate(rng.normal(size=D - 1)))
    plain = [shared, *(f"|a m{k}" for k in range(K))]
    examples = [shared, *(f"{'0:0.5:0.125 ' if k == 0 else ''}|a m{k}" for k in range(K))]
    for _ in range(200):
        workspace.learn(examples)
    parsed = workspace.parse(plain, vowpalwabbit.LabelType.CONTEXTUAL_BANDIT)
    return {
        "Vowpal Wabbit squarecb predict, a new context, µs": microseconds(lambda: workspace.predict(plain), 500),
        "Vowpal Wabbit squarecb predict, the same parsed context again, µs": microseconds(
            lambda: workspace.predict(parsed), 500
        ),
        "Vowpal Wabbit squarecb learn, a new context, µs": microseconds(lambda: workspace.learn(examples), 500),
    }


def mabwiser() -> dict[str, float]:
    """MABWiser's LinUCB batch predict, if it is installed."""
    try:
        from mabwiser.mab import MAB, LearningPolicy
    except ImportError:
        return {}
    rng = np.random.default_rng(0)
    contexts_nd = rng.normal(size=(BATCH, D))
    mab = MAB(list(range(K)), LearningPolicy.LinUCB(alpha=1.0))
    mab.fit(rng.integers(K, size=BATCH), rng.random(BATCH), contexts_nd)
    return {"MABWiser LinUCB batch predict, µs each": microseconds(lambda: mab.predict(contexts_nd), 1) / BATCH}


def propensity_error() -> dict[str, float]:
    """Largest error over near-ties, spread scales and point masses, against adaptive quadrature and Monte Carlo."""
    rng = np.random.default_rng(2)
    worst = worst_sum = 0.0
    for ratio, gap, k in itertools.product((1.0, 10.0, 1e3, 1e6), (0.0, 0.1, 1.0, 5.0), (2, 3, 8, 20)):
        sd_k = np.geomspace(1.0, 1.0 / ratio, k)
        mean_k = gap * rng.standard_normal(k)
        p_k = argmax_propensities(normals(mean_k, sd_k))
        worst_sum = max(worst_sum, abs(p_k.sum() - 1.0))
        for arm in {0, k - 1}:
            worst = max(worst, abs(p_k[arm] - exact(mean_k, sd_k, arm)))
    mean_k, sd_k = rng.normal(size=8) * 0.1, rng.uniform(0.02, 0.1, 8)
    draws = rng.normal(mean_k, sd_k, size=(1_000_000, 8)).argmax(axis=1)
    shares_k = np.bincount(draws, minlength=8) / len(draws)
    p_k = argmax_propensities(normals(mean_k, sd_k))
    deviation = float((np.abs(shares_k - p_k) / np.sqrt(np.maximum(p_k * (1 - p_k), 1e-12) / len(draws))).max())
    return {
        "propensity: worst error against adaptive quadrature": worst,
        "propensity: worst |sum - 1|": worst_sum,
        "propensity: worst deviation from 10⁶ Monte Carlo draws, in standard errors": deviation,
    }


def exact(mean_k: np.ndarray, sd_k: np.ndarray, arm: int) -> float:
    """P(arm wins) by adaptive quadrature over its own draw, told where every arm's distribution turns."""

    def integrand(z: float) -> float:
        u = mean_k[arm] + sd_k[arm] * z
        others = np.arange(len(mean_k)) != arm
        return float(norm.pdf(z) * np.prod(norm.cdf((u - mean_k[others]) / sd_k[others])))

    turns = ((mean_k[:, None] + sd_k[:, None] * np.array([-6, -2, 0, 2, 6]) - mean_k[arm]) / sd_k[arm]).ravel()
    edges = np.unique(np.clip(np.concatenate([[-9.0, 9.0], turns]), -9, 9))
    return sum(quad(integrand, a, b, epsabs=1e-13, epsrel=1e-10)[0] for a, b in itertools.pairwise(edges))


if __name__ == "__main__":
    main()
