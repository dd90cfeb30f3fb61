"""Replay by rejection agrees with playing the policy in the world that made the log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from benchmarks.simulator.simulated_logs import static_log
from pointsman.simulator.cli.simulate import simulate
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.offpolicy.logs.log import Log, LogError
from pointsman.simulator.offpolicy.rejection import POLICIES, check_policy, in_signal_unit, keep_rate, replay, world_of
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.replay import play_online
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.rounds import unfold
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT, World, make_world

QUALITY = parse_objective("QUALITY_FIRST", UNIT)


def logged_world(make_table: object, n: int, seed: int, share_k: tuple[float, float]) -> tuple[World, Log]:
    """A log of a policy that looks at nothing, on a table whose every prompt comes many times."""
    world = make_world(make_table(200), Features("none", "one"))  # type: ignore[operator]
    rng = np.random.default_rng(seed)
    rounds = unfold(world.table, rng.integers(0, 200, n).tolist())
    chosen_n = (rng.random(n) > share_k[0]).astype(np.intp)
    return world, static_log(world, rounds, chosen_n, np.tile(share_k, (n, 1)))


@pytest.mark.parametrize("share_k", [(0.5, 0.5), (0.8, 0.2)])
@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_kept_is_what_the_policy_earns(make_table: object, policy: str, share_k: tuple[float, float]) -> None:
    """Means over seeds of the first 100 kept rounds, of as many rounds really played."""
    kept, played = [], []
    for seed in range(12):
        world, log = logged_world(make_table, 800, seed, share_k)
        replayed = replay(log, world_of(log), Run(parse_policy(policy), QUALITY, None, seed))
        assert abs(len(replayed.kept_m) - min(share_k) * 800) < 60
        kept.append(replayed.quality_m[:100].mean())
        real = play_online(world, Run(parse_policy(policy), QUALITY, None, seed + 100, rounds=100))
        played.append(np.take_along_axis(real.rounds.quality_tk, real.chosen_t[:, None], axis=1).mean())
    spread = np.sqrt((np.var(kept) + np.var(played)) / 11)
    assert abs(np.mean(kept) - np.mean(played)) < 4.0 * spread


def test_what_is_not_kept_changes_nothing(make_table: object) -> None:
    """A log whose unkept rounds have other outcomes gives the same replay."""
    _, log = logged_world(make_table, 600, 1, (0.5, 0.5))
    run = Run(parse_policy("thompson"), QUALITY, None, 0)
    first = replay(log, world_of(log), run)
    quality_n = log.signals["quality"].copy()
    skipped = np.setdiff1d(np.arange(600), first.kept_m)
    quality_n[skipped] = 1.0 - quality_n[skipped]
    second = replay(replace(log, signals={**log.signals, "quality": quality_n}), world_of(log), run)
    np.testing.assert_array_equal(first.kept_m, second.kept_m)
    np.testing.assert_array_equal(first.chosen_m, log.chosen_n[first.kept_m])


def test_other_signals_and_units(make_table: object) -> None:
    _, log = logged_world(make_table, 600, 1, (0.5, 0.5))
    stars = replace(log, signals={"stars": 1.0 + 4.0 * log.signals["quality"], "cost": log.signals["cost"]})
    run = Run(parse_policy("thompson"), QUALITY, None, 0)
    replayed = in_signal_unit(replay(stars, world_of(stars, "stars"), run), stars, "stars")
    np.testing.assert_allclose(replayed.quality_m, stars.signals["stars"][replayed.kept_m])
    mean, interval = replayed.mean("quality", 0.95)
    assert interval is not None and interval.covers(mean)
    assert np.isnan(replayed.mean("latency", 0.95)[0]) is np.False_ or replayed.mean("latency", 0.95)[1] is None


def test_logs_that_cannot_be_replayed_are_refused(make_table: object) -> None:
    _, log = logged_world(make_table, 600, 1, (0.99, 0.01))
    with pytest.raises(
        LogError, match=r"expected to keep 20 rounds or more, but the smallest propensity, 0\.01, leaves about 6"
    ):
        keep_rate(log)
    with pytest.raises(LogError, match="expected the log's whole distribution"):
        keep_rate(replace(log, logged_nk=None))
    with pytest.raises(LogError, match="speed: expected a signal that the log has: cost, latency, quality"):
        world_of(log, "speed")
    with pytest.raises(SettingError, match="expected one of thompson, uniform"):
        check_policy(Run(parse_policy("task-lp"), QUALITY, None, 0))
    check_policy(Run(parse_policy("thompson:half_life=100"), QUALITY, None, 0))


def test_the_command(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"model": rng.choice(["a", "b"], 400), "propensity": 0.5, "cost": 0.01})
    frame["signal/click"] = (rng.random(400) < np.where(frame["model"] == "a", 0.8, 0.2)).astype(int)
    frame.to_csv(tmp_path / "log.csv", index=False)
    args = ["--log", str(tmp_path / "log.csv"), "--signal", "click", "--policy", "thompson,uniform", "--seeds", "2"]
    done = CliRunner().invoke(simulate, [*args, "--json", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert rows == json.loads((tmp_path / "out" / "results.json").read_text()) and len(rows) == 4
    assert min(row["mean_quality"] for row in rows[:2]) > max(row["mean_quality"] for row in rows[2:])
    assert all(row["low"] < row["mean_quality"] < row["high"] and 150 < row["rounds"] < 250 for row in rows)
    assert all(row["over_fixed_gain"] < 0.1 and row["over_fixed_half"] > 0.0 for row in rows)
    assert max(row["over_mix_gain"] for row in rows[2:]) < -0.1 < min(row["over_mix_gain"] for row in rows[:2])
    shown = CliRunner().invoke(simulate, args)
    assert shown.exit_code == 0 and "rounds kept" in shown.output and "±" in shown.output
    assert "thompson, seed 0, does not differ significantly from the best fixed model" in shown.output
    wrong = CliRunner().invoke(simulate, ["--log", str(tmp_path / "log.csv"), "--policy", "task-lp"])
    assert wrong.exit_code == 2 and "expected one of thompson" in wrong.output
    wrong = CliRunner().invoke(simulate, ["--log", str(tmp_path / "none.csv")])
    assert wrong.exit_code == 2 and "cannot be read" in wrong.output
