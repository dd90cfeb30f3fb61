"""Short runs of the soak tests, and that they detect the faults they look for. `make soak` runs them at length."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.processes import ROOT, Serve, run_python

FOLDER = ROOT / "benchmarks" / "soak"
SOAK_S = 600.0
"""Seconds after which a soak is taken to hang."""


def run_soak(name: str, *arguments: str) -> dict[str, Any]:
    """The figures a soak test prints; it must report no violation."""
    done = run_python(str(FOLDER / name), "--json", *arguments, seconds=SOAK_S)
    assert done.returncode == 0, (done.stdout, done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["violations"] == 0
    return report


def test_kills() -> None:
    report = run_soak("kills.py", "--kills", "2", "--seed", "2")
    assert report["kills"] == 2
    assert report["whole folds compared"] >= 1
    assert report["acknowledged and lost"] == report["applied twice"] == 0


def test_fuzz() -> None:
    report = run_soak("fuzz.py", "--requests", "400")
    assert report["requests"] == 400
    assert report["methods"] > 20
    assert report["  OK"] > 20


def test_decoders() -> None:
    assert run_soak("decoders.py", "--engine", "mutate", "--runs", "3000")["inputs"] == 3000


def test_steady() -> None:
    report = run_soak("steady.py", "--minutes", "0", "--fill", "100")
    assert report["decisions with outcomes, filling"] == 100
    assert report["decisions with outcomes, steady"] > 0
    assert report["restarts with another time"] == 7


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a soak test by its module's name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_the_history_reveals_loss_and_double_application(
    soak: Callable[[str], Any], serve: Serve, tmp_path: Path
) -> None:
    kills = soak("kills")
    served = serve(tmp_path / "data")

    async def scenario() -> None:
        async with grpc.aio.insecure_channel(served.address) as channel:
            history = kills.History(catalog=dict.fromkeys(kills.MODELS, ("", "")))
            callers = kills.Callers(channel, history, random.Random(0))
            await kills.set_up(callers.stubs)
            for i in range(10):
                history.wanted[f"r{i}"] = kills.router_service_pb2.BatchDecideRequest(
                    bucket=kills.PARTS, contexts=[{"numbers": {"n": 0.5}}] * 2, request_id=f"r{i}"
                )
                await callers.decide(f"r{i}")
            for name in history.order:
                await callers.new_report(name)
            await callers.check(history.order)
            await kills.check_insight(callers.stubs, history)
            await callers.check_catalog()
            assert not history.violations()

            first, second, third = history.order[:3]
            history.sent[first]["never sent"] = {"quality": 1.0, "cost_usd": 1.0}
            await callers.check([first])
            assert len(history.lost) == 1
            del history.sent[first]["never sent"]

            del history.sent[second]["key 0"]  # the server has a report that the history has not
            await callers.check([second])
            assert len(history.twice) == 1

            history.sent[third]["key 0"] = {"quality": 0.123}  # another outcome than was sent
            await callers.check([third])
            assert len(history.twice) == 2

            history.decisions["decisions/" + "0" * 26] = kills.PARTS, "models/a"
            await callers.check(["decisions/" + "0" * 26])
            assert len(history.lost) == 2
            await kills.check_insight(callers.stubs, history)
            assert len(history.lost) > 2

            history.catalog["models/a"] = "other", "other"
            before = len(history.lost)
            await callers.check_catalog()
            assert len(history.lost) == before + 1

    asyncio.run(scenario())
    assert served.stop() == 0


def test_undocumented_errors_of_decoders_are_reported(
    soak: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders = soak("decoders")

    def broken(data: bytes) -> None:
        raise KeyError("surprise")

    monkeypatch.setitem(decoders.TARGETS, "names.parse", (broken, (ValueError,)))
    kind, story = decoders.attempt("names.parse", b"")
    assert "KeyError" in kind
    assert "surprise" in story
