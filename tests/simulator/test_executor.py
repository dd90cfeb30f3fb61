"""The same results over processes and over a real cluster, also when one of its workers is killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from simulator.executor import spread
from simulator.experiment import Result, Task, run_all
from simulator.utility import SettingError, parse_objective
from simulator.world import UNIT, Run
from simulator.world_file import Place, read_world

pytest.importorskip("distributed", reason="the extra dask is not installed")
ROOT = Path(__file__).parents[2]
WAIT = 60.0
"""Seconds after which a process that should have answered is taken to hang."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """The address of a scheduler, and its two workers, each a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    started: list[subprocess.Popen[str]] = []

    def start(*command: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + command[0], *command[1:]],
                stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT,
            )
        )  # fmt: skip
        return started[-1]

    def said(process: subprocess.Popen[str], pattern: str) -> str:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            found = re.search(pattern, line)
            if found:
                return found[1]
        raise AssertionError("".join(lines))

    try:
        scheduler = start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-jupyter")
        address = said(scheduler, r"Scheduler at:\s+(tcp://\S+)")
        workers = [
            start("dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny", "--host", "127.0.0.1")
            for _ in range(2)
        ]
        for worker in workers:
            said(worker, r"(Registered to)")
        yield address, workers
    finally:
        for process in reversed(started):
            process.kill()
            process.wait(WAIT)
            assert process.stderr is not None
            process.stderr.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    path = tmp_path / "made.yaml"
    path.write_text(
        "models: {small: {quality: 0.4, cost: 0.001}, large: {quality: 0.8, cost: 0.01}}\nfeatures: {dimensions: 3}\n"
        "rounds: 150\n"
    )
    return read_world(path)


def tasks(place: Place, seeds: int) -> list[Task]:
    quality = parse_objective("QUALITY_FIRST", UNIT)
    return [
        Task(0, "QUALITY_FIRST", Run(policy, quality, None, seed, 0, place.rounds, place.schedule))
        for policy in ("thompson", "epsilon-greedy")
        for seed in range(seeds)
    ]


def same(one: list[Result], other: list[Result]) -> None:
    assert [result.row for result in one] == [result.row for result in other]
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left.regret_c, right.regret_c)
        np.testing.assert_array_equal(left.share_ck, right.share_ck)


def slowly(shared: tuple[Path, int], item: int) -> tuple[int, int]:
    """Long enough that a worker is killed in the middle; says which process did it."""
    folder, factor = shared
    (folder / f"{item}-{os.getpid()}").touch()
    time.sleep(0.2)
    return factor * item, os.getpid()


def test_a_cluster_gives_the_same_and_survives_a_worker(
    cluster: tuple[str, list[subprocess.Popen[str]]], place: Place, tmp_path: Path
) -> None:
    """One test, for a killed worker does not come back."""
    address, workers = cluster
    here = run_all([place.world], tasks(place, 3), jobs=1)
    progress: list[int] = []
    there = run_all([place.world], tasks(place, 3), jobs=1, done=lambda: progress.append(1), executor=address)
    same(here, there)
    assert len(progress) == 6

    results = spread((tmp_path, 10), slowly, list(range(20)), 1, address)
    got = [next(results)]
    victim = next(worker for worker in workers if worker.pid != got[0][1])
    victim.send_signal(signal.SIGKILL)
    got += list(results)
    assert [value for value, _ in got] == [10 * item for item in range(20)]
    begun = {int(path.name.split("-")[0]) for path in tmp_path.glob("*-*") if path.name.endswith(f"-{victim.pid}")}
    done_by_victim = {value // 10 for value, pid in got if pid == victim.pid}
    assert begun - done_by_victim, "the worker was killed while it had work, which another did again"

    same(here, run_all([place.world], tasks(place, 3), jobs=1, executor=address))


def test_what_fails_in_a_cluster_is_said_here(cluster: tuple[str, list[subprocess.Popen[str]]]) -> None:
    with pytest.raises(ZeroDivisionError):
        list(spread(1, divided, [0], 1, cluster[0]))


def divided(shared: int, item: int) -> float:
    return shared / item


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.executor.CONNECT_S", 0.5)
    with pytest.raises(SettingError, match=r"--executor tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        list(spread(1, divided, [1], 1, "tcp://127.0.0.1:9"))


def test_a_cluster_of_other_versions_is_refused(
    cluster: tuple[str, list[subprocess.Popen[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.0.0+other")
    with pytest.raises(SettingError, match=r"expected python .*pointsman 0\.0\.0\+other.*, got python"):
        list(spread(1, divided, [1], 1, cluster[0]))


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with contextlib.suppress(StopIteration), pytest.raises(SettingError, match=r"pointsman\[dask\]"):
        next(spread(1, divided, [1], 1, "tcp://127.0.0.1:9"))
