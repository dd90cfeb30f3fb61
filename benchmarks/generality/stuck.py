"""Does any seed stay with the second best? Worst seeds, not only means, in small worlds where something is easily missed.

    python benchmarks/generality/stuck.py [--seeds N] [--rounds N] [--only NAME,NAME] [--quick]

Each seed draws a world, which `thompson` (our policy, default settings) and the rivals of the simulator replay once, in the same
order. Regret is against the best model for each context, in expected quality. A seed is stuck if in the last quarter of the
rounds a fifth or more of what the worst choices would lose is still lost. The interval is the mean's, of 95 %, by the t
distribution.
"""

from __future__ import annotations

import argparse
import os
import zlib

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from pointsman.bandit.catalog import Mode, Objective
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.world import make_world, order_of

Array = npt.NDArray[np.float64]

POLICIES = ("thompson", "linucb", "beta-thompson", "epsilon-greedy")
QUALITY = Objective(Mode.QUALITY_FIRST)
PLAIN = {
    "gaps": (0.6, 0.75, 0.85),
    "two": (0.5, 0.6),
    "ten": tuple(np.linspace(0.3, 0.8, 10)),
    "thirty": tuple(np.linspace(0.3, 0.85, 30)),
    "one-percent": (0.005, 0.01, 0.03),
    "duplicates": (0.5, 0.5, 0.5, 0.7, 0.7, 0.7),
}
"""Worlds without features: the models' qualities."""
NEWS = {"news-4": (4, 0.0), "news-7": (7, 0.0), "news-5-noise": (5, 0.1)}
"""Two users at two times of day who like one item each time: how many items, and how many answers are wrong."""
STUCK = 0.2
"""Share of the worst choices' loss from which a seed is stuck."""
QUICK = ("gaps", "two", "news-4", "news-7")


def expected(name: str, rounds: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
    """Expected quality (n, k) and features (n, d) of a world."""
    if name in PLAIN:
        return np.repeat(rng.permutation(PLAIN[name])[None], rounds, axis=0), None
    if name in NEWS:
        items, noise = NEWS[name]
        user_n, time_n = rng.integers(2, size=rounds), rng.integers(2, size=rounds)
        liked_n = np.array([[0, 2], [1, 0]])[user_n, time_n]
        quality_nk = np.full((rounds, items), noise)
        quality_nk[np.arange(rounds), liked_n] = 1.0 - noise
        return quality_nk, np.stack([user_n == 0, user_n == 1, time_n == 0, time_n == 1], axis=1).astype(np.float64)
    x_nd = rng.standard_normal((rounds, 16))  # "strong": four models, effects of four logits
    effect_kd = rng.standard_normal((4, 16))
    return 1.0 / (1.0 + np.exp(-x_nd @ effect_kd.T - 0.5 * rng.standard_normal(4))), x_nd


def regrets(name: str, rounds: int, seed: int) -> tuple[dict[str, Array], float]:
    """What each policy loses, round by round, and what the worst choice loses on average."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    mean_nk, x_nd = expected(name, rounds, rng)
    shape = mean_nk.shape
    table = OutcomeTable(
        name=name,
        sha256="",
        models=tuple(f"m{i:02d}" for i in range(shape[1])),
        prompt_ids=tuple(str(i) for i in range(rounds)),
        tasks=("all",) * rounds,
        texts=None,
        x_nd=x_nd,
        input_tokens_n=np.full(rounds, -1, dtype=np.int64),
        quality_nk=(rng.random(shape) < mean_nk).astype(np.float64),
        cost_nk=np.full(shape, np.nan),
        latency_nk=np.full(shape, np.nan),
        output_tokens_nk=np.full(shape, np.nan),
    )
    world = make_world(table, Features("none" if x_nd is None else "x", "one"))
    loss_nk = mean_nk.max(axis=1, keepdims=True) - mean_nk
    order = order_of(world, seed)
    lost = {
        policy: (play(world, Run(parse_policy(policy), QUALITY, None, seed, 0)) * loss_nk).sum(axis=1)[order]
        for policy in POLICIES
    }
    return lost, float(loss_nk.max(axis=1).mean())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true", help=", ".join(QUICK))
    arguments = parser.parse_args()
    names = (
        arguments.only.split(",") if arguments.only else list(QUICK if arguments.quick else [*PLAIN, *NEWS, "strong"])
    )
    shown = Table("world", *POLICIES, title="regret: mean ± 95 %, worst seed, stuck seeds")
    for name in names:
        runs = [regrets(name, arguments.rounds, seed) for seed in range(arguments.seeds)]
        cells = []
        for policy in POLICIES:
            total_s = np.array([lost[policy].sum() for lost, _ in runs])
            last = arguments.rounds // 4
            stuck = sum(lost[policy][-last:].mean() > STUCK * worst for lost, worst in runs)
            error = float(student.ppf(0.975, len(runs) - 1) * total_s.std(ddof=1) / np.sqrt(len(runs)))
            cells.append(f"{total_s.mean():.1f} ± {error:.1f}, {total_s.max():.0f}, {stuck}")
        shown.add_row(name, *cells)
    Console(width=150).print(shown)


if __name__ == "__main__":
    main()
