"""The soaks run, and they notice what they are there to notice. `make soak` runs them at length."""

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
    """What a soak reports; it must find nothing wrong."""
    done = run_python(str(FOLDER / name), "--json", *arguments, seconds=SOAK_S)
    assert done.returncode == 0, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["violations"] == 0
    return found


def test_kills() -> None:
    found = run_soak("kills.py", "--kills", "2", "--seed", "2")
    assert found["kills"] == 2
    assert found["whole folds compared"] >= 1
    assert found["acknowledged and lost"] == found["applied twice"] == 0


def test_fuzz() -> None:
    found = run_soak("fuzz.py", "--requests", "400")
    assert found["requests"] == 400
    assert found["methods"] > 20
    assert found["  OK"] > 20


def test_decoders() -> None:
    assert run_soak("decoders.py", "--engine", "mutate", "--runs", "3000")["inputs"] == 3000


def test_steady() -> None:
    found = run_soak("steady.py", "--minutes", "0", "--fill", "100")
    assert found["decisions with outcomes, filling"] == 100
    assert found["decisions with outcomes, steady"] > 0
    assert found["restarts with another time"] == 7


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A soak's module by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_the_ledger_notices_what_is_lost_or_applied_twice(
    soak: Callable[[str], Any], serve: Serve, tmp_path: Path
) -> None:
    kills = soak("kills")
    served = serve(tmp_path / "data")

    async def scenario() -> None:
        async with grpc.aio.insecure_channel(served.address) as channel:
            ledger = kills.Ledger(catalog=dict.fromkeys(kills.MODELS, ("", "")))
            callers = kills.Callers(channel, ledger, random.Random(0))
            await kills.set_up(callers.stubs)
            for i in range(10):
                ledger.wanted[f"r{i}"] = kills.router_service_pb2.BatchDecideRequest(
                    bucket=kills.PARTS, contexts=[{"numbers": {"n": 0.5}}] * 2, request_id=f"r{i}"
                )
                await callers.decide(f"r{i}")
            for name in ledger.order:
                await callers.new_report(name)
            await callers.check(ledger.order)
            await kills.check_insight(callers.stubs, ledger)
            await callers.check_catalog()
            assert not ledger.violations()

            first, second, third = ledger.order[:3]
            ledger.sent[first]["never sent"] = {"quality": 1.0, "cost_usd": 1.0}
            await callers.check([first])
            assert len(ledger.lost) == 1
            del ledger.sent[first]["never sent"]

            del ledger.sent[second]["key 0"]  # the server has a report that the ledger has not
            await callers.check([second])
            assert len(ledger.twice) == 1

            ledger.sent[third]["key 0"] = {"quality": 0.123}  # another outcome than was sent
            await callers.check([third])
            assert len(ledger.twice) == 2

            ledger.decisions["decisions/" + "0" * 26] = kills.PARTS, "models/a"
            await callers.check(["decisions/" + "0" * 26])
            assert len(ledger.lost) == 2
            await kills.check_insight(callers.stubs, ledger)
            assert len(ledger.lost) > 2

            ledger.catalog["models/a"] = "other", "other"
            before = len(ledger.lost)
            await callers.check_catalog()
            assert len(ledger.lost) == before + 1

    asyncio.run(scenario())
    assert served.stop() == 0


def test_the_decoders_notice_what_is_not_documented(
    soak: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders = soak("decoders")

    def broken(data: bytes) -> None:
        raise KeyError("surprise")

    monkeypatch.setitem(decoders.TARGETS, "names.parse", (broken, (ValueError,)))
    kind, story = decoders.attempt("names.parse", b"")
    assert "KeyError" in kind
    assert "surprise" in story
