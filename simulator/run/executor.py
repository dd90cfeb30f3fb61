"""Independent pieces of work over processes of this machine, or over a Dask cluster; results in order, and the same.

>>> list(map_over(10, pow, [2, 3], jobs=1))
[100, 1000]
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor
from functools import partial
from typing import Any, TypeVar

from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.run.versions import versions

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

PROCESSES = "processes"
"""The executor that is this machine."""
CONNECT_S = 5.0
"""Seconds that a scheduler has to answer."""
_CHILD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONSAFEPATH": "1",
}
"""Of the processes of a pool: one thread for linear algebra, since the matrices are small and the cores are taken, and no import
from the working directory before the parent's own path is set.
"""


def map_over(
    shared: S, work: Callable[[S, T], R], items: Sequence[T], jobs: int, executor: str = PROCESSES
) -> Iterator[R]:
    """What ``work`` (a module's function) makes of each item with what is ``shared``, in their order.

    Over ``jobs`` processes, or with ``executor`` ``tcp://host:port`` over the cluster of that scheduler, where workers may be
    lost on the way: what they had is done again elsewhere, an item as often as the scheduler's setting
    ``distributed.scheduler.allowed-failures`` says. Raises ``SettingError`` if there is no such cluster, it cannot do this work,
    or it is lost; and what ``work`` raises.
    """
    if executor != PROCESSES:
        yield from _over_cluster(shared, work, items, executor)
        return
    if jobs == 1 or len(items) == 1:
        for item in items:
            yield work(shared, item)
        return
    # New interpreters, not forks: a fork of a process that has threads can hang.
    context = multiprocessing.get_context("spawn")
    with (
        _child_environment(),
        ProcessPoolExecutor(min(jobs, len(items)), context, initializer=_set_shared, initargs=(shared,)) as pool,
    ):
        yield from pool.map(partial(_work_here, work), items)


def check_executor(executor: str) -> None:
    """Raise ``SettingError`` for a name that is no executor."""
    if executor != PROCESSES and not executor.startswith(("tcp://", "tls://")):
        raise SettingError(f"--executor: expected {PROCESSES} or tcp://HOST:PORT of a Dask scheduler, got {executor!r}")


def _over_cluster(shared: S, work: Callable[[S, T], R], items: Sequence[T], address: str) -> Iterator[R]:
    try:
        from distributed import Client, KilledWorker
        from distributed.comm.core import CommClosedError
    except ImportError:
        raise SettingError(f"--executor {address}: expected the extra dask: pip install 'pointsman[dask]'") from None
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingError(f"--executor {address}: no Dask scheduler answers there: {error}") from None
    with client:
        _check_workers(client, address)
        # Sent as an argument of a task, not scattered: what was scattered is gone with the last worker that held it, a task is
        # done again. Without ``retries``: those are for work that raises, which would raise again.
        shared_future = client.submit(pickle.loads, pickle.dumps(shared), pure=False)
        futures = deque(client.submit(work, shared_future, item, pure=False) for item in items)
        try:
            while futures:  # a result that was taken need not stay in the cluster
                yield futures.popleft().result()
        except KilledWorker as error:
            raise SettingError(
                f"--executor {address}: expected workers that live, one item took {error.allowed_failures + 1} with it "
                "(out of memory?); see the workers' logs and Dask's setting distributed.scheduler.allowed-failures"
            ) from None
        except (CancelledError, CommClosedError):
            raise SettingError(f"--executor {address}: the scheduler was lost before all was done") from None


def _check_workers(client: Any, address: str) -> None:
    """Every worker has our Python and our code."""
    local_versions = versions()
    by_worker: Mapping[str, object] = client.run(versions, on_error="return")
    if not by_worker:
        raise SettingError(f"--executor {address}: expected workers, the scheduler has none")
    for worker, reported in by_worker.items():
        if reported != local_versions:
            raise SettingError(
                f"--executor {address}: worker {worker}: expected {_describe(local_versions)}, got {_describe(reported)}; "
                "numbers would not be the same"
            )


def _describe(versions: object) -> str:
    if isinstance(versions, Mapping):
        return ", ".join(f"{name} {version}" for name, version in versions.items())
    return repr(versions)


_worker: dict[str, Any] = {}
"""What a worker process shares, sent to it once."""


def _set_shared(shared: object) -> None:
    _worker["shared"] = shared


def _work_here(work: Callable[[Any, T], R], item: T) -> R:
    return work(_worker["shared"], item)


@contextlib.contextmanager
def _child_environment() -> Iterator[None]:
    """Processes started inside have ``_CHILD_ENVIRONMENT``."""
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in _CHILD_ENVIRONMENT}
    os.environ.update(_CHILD_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
