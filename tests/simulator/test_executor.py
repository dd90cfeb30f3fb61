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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.executor import check_executor, map_over
from pointsman.simulator.run.experiment import PlannedRun, RunResult, run_all
from pointsman.simulator.world.file import Scenario, read_scenario
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT
from tests.processes import ROOT, WAIT, environment, wait_until


@dataclass(frozen=True, slots=True)
class Cluster:
    """A scheduler and its workers, each a process of its own."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@contextlib.contextmanager
def started(folder: Path, workers: int, allowed_failures: int = 3) -> Iterator[Cluster]:
    """A cluster of so many workers; an item may take ``allowed_failures`` of them before it is given up."""
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    variables = {**environment(), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures)}
    processes: list[subprocess.Popen[bytes]] = []

    def log() -> Path:
        return folder / f"{len(processes)}.log"

    def start(command: str, *arguments: str) -> None:
        with log().open("wb") as file:  # not a pipe, which is full when nobody reads it
            line = [sys.executable, "-m", f"distributed.cli.{command}", "--host", "127.0.0.1", *arguments]
            processes.append(subprocess.Popen(line, stderr=file, stdout=file, env=variables, cwd=ROOT))

    def wait_for_log(pattern: str) -> str:
        """The first group of ``pattern`` in the log of the process that was started last, once it is there."""
        file, process = folder / f"{len(processes) - 1}.log", processes[-1]
        wait_until(lambda: re.search(pattern, file.read_text()) or process.poll() is not None, f"{pattern} in {file}")
        match = re.search(pattern, file.read_text())
        assert match, f"{pattern} is not in: {file.read_text()}"
        return match[1]

    try:
        start("dask_scheduler", "--port", "0", "--no-dashboard", "--no-jupyter")
        address = wait_for_log(r"Scheduler at:\s+(tcp://\S+)")
        for _ in range(workers):
            start("dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny")
            wait_for_log("(Registered to)")
        yield Cluster(address, processes[0], processes[1:])
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait(WAIT)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Scenario:
    path = tmp_path / "made.yaml"
    path.write_text(
        "models: {small: {quality: 0.4, cost: 0.001}, large: {quality: 0.8, cost: 0.01}}\nfeatures: {dimensions: 3}\n"
        "rounds: 150\n"
    )
    return read_scenario(path)


def tasks(place: Scenario, seeds: int) -> list[PlannedRun]:
    quality = parse_objective("QUALITY_FIRST", UNIT)
    return [
        PlannedRun(0, "QUALITY_FIRST", Run(parse_policy(policy), quality, None, seed, 0, place.rounds, place.schedule))
        for policy in ("thompson", "epsilon-greedy")
        for seed in range(seeds)
    ]


def same(mine: list[RunResult], theirs: list[RunResult]) -> None:
    assert [result.row for result in mine] == [result.row for result in theirs]
    for left, right in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(left.regret_c, right.regret_c)
        np.testing.assert_array_equal(left.share_ck, right.share_ck)


def wait_for_go(shared: tuple[Path, int], item: int) -> tuple[int, int]:
    """Record the start of an item; all but the first then wait for a file ``go``. Returns the item and the process."""
    folder, factor = shared
    (folder / f"{item}-{os.getpid()}").touch()
    if item:
        wait_until((folder / "go").exists, "the file go")
    return factor * item, os.getpid()


def begun_by(folder: Path, pid: int) -> set[int]:
    """The items that a process has started and that wait."""
    return {int(path.name.split("-")[0]) for path in folder.glob(f"*-{pid}")} - {0}


def test_a_cluster_gives_the_same_and_survives_a_worker(cluster: Cluster, place: Scenario, tmp_path: Path) -> None:
    """One test, for a killed worker does not come back."""
    local_results = run_all([place.world], tasks(place, 3), jobs=1)
    progress: list[int] = []
    cluster_results = run_all(
        [place.world], tasks(place, 3), jobs=1, done=lambda: progress.append(1), executor=cluster.address
    )
    same(local_results, cluster_results)
    assert len(progress) == 6

    results = map_over((tmp_path, 10), wait_for_go, list(range(20)), 1, cluster.address)
    finished = [next(results)]
    victim = cluster.workers[-1]
    wait_until(lambda: begun_by(tmp_path, victim.pid), "the worker has begun an item")
    victim.send_signal(signal.SIGKILL)
    victim.wait(WAIT)
    lost = begun_by(tmp_path, victim.pid)
    (tmp_path / "go").touch()
    finished += list(results)
    assert [value for value, _ in finished] == [10 * item for item in range(20)]
    assert all(pid != victim.pid for value, pid in finished if value // 10 in lost), "another did again what was lost"

    same(local_results, run_all([place.world], tasks(place, 3), jobs=1, executor=cluster.address))


def test_errors_in_a_cluster_are_raised_here_and_not_retried(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_over(tmp_path, noted_and_divided, [0], 1, cluster.address))
    assert len(list(tmp_path.glob("call-*"))) == 1


def noted_and_divided(folder: Path, item: int) -> float:
    (folder / f"call-{time.monotonic_ns()}").touch()
    return 1 / item


def test_an_item_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    with started(tmp_path, 2, allowed_failures=1) as mortal:  # as many as may fail, and one more
        with pytest.raises(SettingError, match=r"expected workers that live, one item took 2 .*allowed-failures"):
            list(map_over(9, killed, [0], 1, mortal.address))
        assert [worker.wait(WAIT) for worker in mortal.workers] == [-9] * 2


def killed(signal_: int, item: int) -> None:
    os.kill(os.getpid(), signal_)


def test_a_scheduler_that_is_lost_midway(tmp_path: Path) -> None:
    with started(tmp_path, 1) as mortal:
        results = map_over((tmp_path, 10), wait_for_go, list(range(20)), 1, mortal.address)
        next(results)
        mortal.scheduler.kill()
        with pytest.raises(SettingError, match="the scheduler was lost before all was done"):
            list(results)


def test_a_cluster_without_workers(tmp_path: Path) -> None:
    with started(tmp_path, 0) as empty, pytest.raises(SettingError, match="expected workers, the scheduler has none"):
        list(map_over(1, divided, [1], 1, empty.address))


def test_a_missing_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr("pointsman.simulator.run.executor.CONNECT_S", 0.5)
    with pytest.raises(SettingError, match=r"--executor tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        list(map_over(1, divided, [1], 1, "tcp://127.0.0.1:9"))


def divided(shared: int, item: int) -> float:
    return shared / item


def test_a_cluster_of_other_versions_is_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.0.0+other")
    with pytest.raises(SettingError, match=r"expected python .*pointsman 0\.0\.0\+other.*, got python"):
        list(map_over(1, divided, [1], 1, cluster.address))


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SettingError, match=r"pointsman\[dask\]"):
        list(map_over(1, divided, [1], 1, "tcp://127.0.0.1:9"))


@pytest.mark.parametrize("name", ["dask", "localhost:8786", ""])
def test_a_name_that_is_no_executor(name: str) -> None:
    with pytest.raises(SettingError, match=r"--executor: expected processes or tcp://HOST:PORT"):
        check_executor(name)


def test_processes_give_the_same_in_order() -> None:
    items = [4, 1, 2]
    assert list(map_over(8, divided, items, 2)) == list(map_over(8, divided, items, 1)) == [2.0, 8.0, 4.0]
