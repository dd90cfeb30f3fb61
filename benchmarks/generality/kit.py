"""What the benchmarks of generality have in common: tables of drawn worlds, seeds over processes, means with intervals."""

from __future__ import annotations

import multiprocessing
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from scipy.stats import t as student

from pointsman.bandit.catalog import Mode, Objective
from pointsman.simulator.data.table import OutcomeTable

Array = npt.NDArray[np.float64]
Job = TypeVar("Job")
Result = TypeVar("Result")

QUALITY = Objective(Mode.QUALITY_FIRST)


def rng_of(name: str, seed: int) -> np.random.Generator:
    """The random numbers that draw the world ``name`` of a seed."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def outcome_table(
    name: str,
    models: Sequence[str],
    quality_nk: Array,
    x_nd: Array | None = None,
    *,
    tasks: Sequence[str] | None = None,
    cost_nk: Array | None = None,
    latency_nk: Array | None = None,
) -> OutcomeTable:
    """A table of what is given; everything else is unknown."""
    unknown_nk = np.full(quality_nk.shape, np.nan)
    rounds = len(quality_nk)
    return OutcomeTable(
        name=name,
        sha256="",
        models=tuple(models),
        prompt_ids=tuple(str(i) for i in range(rounds)),
        tasks=("all",) * rounds if tasks is None else tuple(tasks),
        texts=None,
        x_nd=x_nd,
        input_tokens_n=np.full(rounds, -1, dtype=np.int64),
        quality_nk=quality_nk,
        cost_nk=unknown_nk if cost_nk is None else cost_nk,
        latency_nk=unknown_nk if latency_nk is None else latency_nk,
        output_tokens_nk=unknown_nk,
    )


def over_processes(
    run: Callable[[Job], Result], jobs: Sequence[Job], processes: int, console: Console, description: str
) -> list[Result]:
    """What ``run`` gives for each job, in order; in this process if there is to be one only."""
    if processes == 1:
        return [run(job) for job in track(jobs, description=description, console=console)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("forkserver")) as pool:
        return list(track(pool.map(run, jobs), total=len(jobs), description=description, console=console))


def mean_and_half(values: Any) -> tuple[float, float]:
    """Mean, and half of its 95 % interval by the t distribution; NaN of a single value."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()), float(student.ppf(0.975, len(values) - 1)) * error
