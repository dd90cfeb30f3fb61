"""A million rounds of a table that is never whole in memory: rounds per second, and peak memory beside a tenth of the rounds.

    python benchmarks/simulator/stream.py [--rows 1000000] [--policy thompson]

Writes seeded Parquet files (16 features, 4 models) to a temporary directory, and replays each in a process of its own with
`pointsman simulate --stream`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

D, K, GROUP = 16, 4, 50_000
CALL = "from pointsman.simulator.cli.simulate import simulate; simulate()"


def write(path: Path, rows: int) -> None:
    """Qualities linear in the features but for noise; costs of 1 : 4 : 16 : 64."""
    weight_kd = np.random.default_rng(1).standard_normal((K, D)) / np.sqrt(D)
    writer = None
    for start in range(0, rows, GROUP):
        n = min(GROUP, rows - start)
        rng = np.random.default_rng([0, start])
        x_nd = rng.standard_normal((n, D))
        quality_nk = np.clip(0.5 + 0.2 * x_nd @ weight_kd.T + 0.1 * rng.standard_normal((n, K)), 0.0, 1.0)
        cost_nk = 1e-4 * 4.0 ** np.arange(K) * np.exp(0.3 * rng.standard_normal((n, K)))
        table = pa.table(
            {
                "prompt_id": [str(start + i) for i in range(n)],
                "task": rng.choice(["chat", "code", "maths"], n),
                **{f"x/{i}": x_nd[:, i] for i in range(D)},
                **{f"quality/m{k}": quality_nk[:, k] for k in range(K)},
                **{f"cost/m{k}": cost_nk[:, k] for k in range(K)},
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def replay(path: Path, policy: str) -> tuple[float, float, float]:
    """Seconds, peak resident MiB and the mean quality of a replay in a new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    start = time.perf_counter()
    command = [
        sys.executable,
        "-c",
        CALL,
        "--table",
        str(path),
        "--stream",
        "--policy",
        policy,
        "--seeds",
        "1",
        "--json",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak >= before  # the largest child so far: the smaller file has to come first
    return time.perf_counter() - start, peak / 1024, json.loads(done.stdout)[0]["mean_quality"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--policy", default="thompson")
    arguments = parser.parse_args()
    sheet = Table(title=f"{arguments.policy}, d = {D} and the task, k = {K}, one process")
    for title in ("rounds", "file, MiB", "seconds", "rounds/s", "peak memory, MiB", "mean quality"):
        sheet.add_column(title, justify="right")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in (arguments.rows // 10, arguments.rows):
            path = Path(folder, f"{rows}.parquet")
            write(path, rows)
            seconds, peak, quality = replay(path, arguments.policy)
            peaks.append(peak)
            size = path.stat().st_size / 2**20
            sheet.add_row(
                f"{rows:,}", f"{size:.0f}", f"{seconds:.0f}", f"{rows / seconds:,.0f}", f"{peak:.0f}", f"{quality:.4f}"
            )
    console = Console(width=110)
    console.print(sheet)
    console.print(f"ten times the rounds took {peaks[1] / peaks[0]:.2f} × the memory")


if __name__ == "__main__":
    main()
