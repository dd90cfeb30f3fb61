"""What every test shares: the same examples of hypothesis in every run (``LAWS=more``: many others), no test that fails on a slow
machine, one thread for linear algebra, as in the service, and service processes that end with the test.
"""

import os
from collections.abc import Iterator
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before anything loads numpy

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from tests.processes import ANY_PORT, Serve, Served, reserved_address  # noqa: E402

_common = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", _common, derandomize=True, max_examples=40)
settings.register_profile("more", _common, max_examples=400)
settings.load_profile(os.environ.get("LAWS", "same"))


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts service processes and waits until they answer; those that still run at the end of the test are killed."""
    started: list[Served] = []

    def start(data: Path, *flags: str, listen: str = ANY_PORT) -> Served:
        started.append(Served(data, *flags, listen=listen))
        return started[-1].ready()

    yield start
    for served in started:
        served.end()


@pytest.fixture
def address() -> Iterator[str]:
    """HOST:PORT that a service can have again after it has ended."""
    with reserved_address() as reserved:
        yield reserved
