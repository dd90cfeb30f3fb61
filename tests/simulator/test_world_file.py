"""Worlds of YAML files: what is declared is what happens, and what a choice was worth is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable
from pointsman.simulator.policies.registry import parse_policy
from pointsman.simulator.policies.spec import Run
from pointsman.simulator.run.experiment import measure_run
from pointsman.simulator.run.replay import play_online, rounds_of
from pointsman.simulator.world.changes import FeedbackLate, FeedbackLost, LatencyFactor, Outage, QualityDrift
from pointsman.simulator.world.file import Scenario, read_scenario
from pointsman.simulator.world.rounds import Noise, unfold
from pointsman.simulator.world.utility import parse_objective
from pointsman.simulator.world.world import UNIT

QUALITY = parse_objective("QUALITY_FIRST", UNIT)
EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "worlds").glob("*.yaml"))
TWO = "models: {small: {quality: 0.4, cost: 0.001}, large: {quality: 0.8, cost: 0.01, latency: 2}}\n"


@pytest.fixture
def world(tmp_path: Path) -> Callable[[str], Scenario]:
    def read(text: str) -> Scenario:
        path = tmp_path / "made.yaml"
        path.write_text(text)
        return read_scenario(path)

    return read


def run_of(place: Scenario, policy: str, seed: int = 0, rounds: int | None = None, budget: float | None = None) -> Run:
    return Run(parse_policy(policy), QUALITY, budget, seed, place.delay, rounds or place.rounds, place.schedule)


def test_outcomes_are_drawn_around_what_is_declared(world: Callable[[str], Scenario]) -> None:
    place = world(TWO + "noise: {cost: 0.5, latency_tail: 3}\nrounds: 40000\n")
    rounds = rounds_of(place.world, run_of(place, "uniform"))
    assert set(np.unique(rounds.quality_tk)) == {0.0, 1.0}
    np.testing.assert_allclose(rounds.quality_tk.mean(axis=0), [0.4, 0.8], atol=0.01)
    np.testing.assert_allclose(rounds.cost_tk.mean(axis=0), [0.001, 0.01], rtol=0.03)
    np.testing.assert_allclose(rounds.latency_tk.mean(axis=0), [1.0, 2.0], rtol=0.03)
    assert (rounds.expected.quality_tk == [0.4, 0.8]).all()
    # latency / mean is Pareto with index 3 from 2/3 on
    assert kstest(rounds.latency_tk[:5000, 1] / 2.0, "pareto", args=(3.0, 0.0, 2.0 / 3.0)).pvalue > 0.01


def test_graded_quality_has_its_mean_and_sharpness(world: Callable[[str], Scenario]) -> None:
    place = world(TWO + "noise: {quality: graded, concentration: 9}\nrounds: 40000\n")
    quality_tk = rounds_of(place.world, run_of(place, "uniform")).quality_tk
    np.testing.assert_allclose(quality_tk.mean(axis=0), [0.4, 0.8], atol=0.005)
    np.testing.assert_allclose(quality_tk.var(axis=0), [0.4 * 0.6 / 10.0, 0.8 * 0.2 / 10.0], rtol=0.05)


def test_regret_is_exact(world: Callable[[str], Scenario]) -> None:
    place = world(TWO + "rounds: 500\n")
    of = {policy: measure_run(place.world, "QUALITY_FIRST", run_of(place, policy)) for policy in
          ("fixed:small", "fixed:large", "prompt-oracle", "best-fixed", "thompson")}  # fmt: skip
    assert of["fixed:small"].row["regret"] == pytest.approx(0.4 * 500)
    assert of["fixed:large"].row["regret"] == of["prompt-oracle"].row["regret"] == of["best-fixed"].row["regret"] == 0.0
    thompson = of["thompson"]
    assert thompson.row["regret"] == pytest.approx(0.4 * 500 * thompson.row["shares"]["small"])
    assert thompson.benchmarks.fixed == "large" and not thompson.by_prompt


def test_the_optimum_moves_with_the_world(world: Callable[[str], Scenario]) -> None:
    place = world(TWO + "rounds: 1000\nchanges: [{kind: outage, model: large, start: 400, end: 600}]\n")
    oracle = measure_run(place.world, "QUALITY_FIRST", run_of(place, "prompt-oracle"))
    assert oracle.row["mean_quality"] == pytest.approx(0.8 * 0.8 + 0.2 * 0.4) and oracle.row["regret"] == 0.0
    large = measure_run(place.world, "QUALITY_FIRST", run_of(place, "fixed:large"))
    assert large.row["regret"] == pytest.approx(200 * 0.4) and large.row["mean_cost"] == pytest.approx(0.008, rel=0.05)
    np.testing.assert_allclose(large.regret_c[large.round_c <= 400], 0.0)


def test_within_a_budget_the_best_is_the_best_that_costs_it(world: Callable[[str], Scenario]) -> None:
    place = world(TWO + "rounds: 2000\nnoise: {length: 0}\n")
    oracle = measure_run(place.world, "QUALITY_FIRST", run_of(place, "prompt-oracle", budget=0.0055))
    assert oracle.row["mean_cost"] == pytest.approx(0.0055) and oracle.row["mean_quality"] == pytest.approx(0.6)
    thompson = measure_run(place.world, "QUALITY_FIRST", run_of(place, "thompson", budget=0.0055))
    assert thompson.row["spend_ratio"] == pytest.approx(1.0, abs=0.1)
    assert thompson.spend_c[-1] == pytest.approx(thompson.row["mean_cost"])


def test_a_new_model_is_no_choice_and_no_optimum_before_it_is_added(world: Callable[[str], Scenario]) -> None:
    place = world(TWO + "rounds: 600\nchanges: [{kind: new_model, model: large, start: 300}]\n")
    oracle = measure_run(place.world, "QUALITY_FIRST", run_of(place, "prompt-oracle"))
    assert oracle.row["mean_quality"] == pytest.approx(0.6) and oracle.row["shares"] == {"small": 0.5, "large": 0.5}
    budgeted = measure_run(place.world, "QUALITY_FIRST", run_of(place, "prompt-oracle", budget=0.5))
    assert budgeted.row["shares"] == oracle.row["shares"]
    thompson = measure_run(place.world, "QUALITY_FIRST", run_of(place, "thompson"))
    assert thompson.share_ck[:25, 1].sum() == 0.0 and thompson.share_ck[-5:, 1].mean() > 0.8
    assert np.isnan(thompson.benchmarks.cost_k[1]) and thompson.benchmarks.fixed == "small"


def test_features_shift_quality_and_policies_can_learn_it(world: Callable[[str], Scenario]) -> None:
    models = "models: {a: {quality: 0.5, cost: 1}, b: {quality: 0.5, cost: 1}}\n"
    place = world(models + "features: {dimensions: 3, effect: 3}\nrounds: 2000\n")
    assert place.world.features.kind == "x"
    oracle = measure_run(place.world, "Q", run_of(place, "prompt-oracle"))
    thompson, fixed = (measure_run(place.world, "Q", run_of(place, policy)) for policy in ("thompson", "best-fixed"))
    assert oracle.row["mean_quality"] > fixed.row["mean_quality"] + 0.1
    assert thompson.row["regret"] < 0.4 * fixed.row["regret"]


def test_a_warm_start_knows_before_the_first_round(world: Callable[[str], Scenario]) -> None:
    cold = world(TWO + "rounds: 60\n")
    warm = world(TWO + "rounds: 60\nwarm: 300\n")
    assert measure_run(warm.world, "Q", run_of(warm, "thompson")).row["shares"]["large"] > 0.85
    assert warm.world.warm is not None and len(warm.world.warm.task_n) == 300
    assert cold.world.warm is None


def test_the_same_file_is_the_same_world_and_seeds_are_not(world: Callable[[str], Scenario]) -> None:
    text = TWO + "features: {dimensions: 4}\nrounds: 100\nchanges: [{kind: feedback_late, rounds: 5}]\n"
    scenario, same_scenario = world(text), world(text)
    np.testing.assert_array_equal(scenario.world.table.quality_nk, same_scenario.world.table.quality_nk)
    first, again, other = (
        rounds_of(p.world, run_of(p, "uniform", s)) for p, s in ((scenario, 0), (same_scenario, 0), (same_scenario, 1))
    )
    for name in ("quality_tk", "cost_tk", "latency_tk", "delay_t", "row_t"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()
    different = world(text.replace("rounds: 100", "rounds: 100\nseed: 1"))
    assert (different.world.table.quality_nk != scenario.world.table.quality_nk).any()


def test_parts_that_change_the_world(make_table: Callable[..., OutcomeTable]) -> None:
    table, n = make_table(400), 400
    plain = unfold(table, range(n))
    drifted = unfold(table, range(n), (QualityDrift("small", -0.2, 100, 300),))
    shift_t = drifted.quality_tk[:, 0] - plain.quality_tk[:, 0]
    assert (shift_t[:100] == 0.0).all()
    inside_t = (drifted.quality_tk[:, 0] > 0.0) & (drifted.quality_tk[:, 0] < 1.0)
    np.testing.assert_allclose(shift_t[200][None], -0.1, atol=1e-3)
    np.testing.assert_allclose(shift_t[300:][inside_t[300:]], -0.2)
    slow = unfold(table, range(n), (LatencyFactor("small", 3.0, 50, 60),))
    np.testing.assert_allclose(slow.latency_tk[50:60, 0], 3.0 * plain.latency_tk[50:60, 0])
    np.testing.assert_array_equal(slow.latency_tk[60:], plain.latency_tk[60:])
    flaky = unfold(table, range(n), (Outage("small", share=0.3),), seed=2)
    assert 0.6 < flaky.success_tk[:, 0].mean() < 0.8 and flaky.success_tk[:, 1].all()
    assert flaky.expected.quality_tk is flaky.quality_tk  # outcomes of a table are what calls were worth
    expected = unfold(table, range(n), (Outage("small", share=0.3),), noise=Noise("exact"))
    np.testing.assert_allclose(expected.expected.quality_tk[:, 0], 0.7 * plain.quality_tk[:, 0])
    hidden = unfold(table, range(n), (FeedbackLost(1.0, model="small"),))
    assert not hidden.quality_reported_tk[:, 0].any() and hidden.quality_reported_tk[:, 1].all()


def test_late_outcomes_come_later_and_overtake(
    make_table: Callable[..., OutcomeTable], world: Callable[[str], Scenario]
) -> None:
    rounds = unfold(make_table(20), [i % 20 for i in range(20_000)], (FeedbackLate(8.0, 1000),))
    assert (rounds.delay_t[:1000] == 0).all()
    assert rounds.delay_t[1000:].mean() == pytest.approx(8.0, rel=0.05)
    place = world(TWO + "rounds: 300\nchanges: [{kind: feedback_late, rounds: 20}]\n")
    learned: list[tuple[int, int]] = []

    class Watching:
        def notice(self, t: int, notice: object) -> None: ...

        def choose(self, t: int, row: int) -> int:
            return 0

        def learn(self, now: int, choice: object, outcome: object) -> None:
            learned.append((now, choice.t))  # type: ignore[attr-defined]

    import pointsman.simulator.run.replay as replay

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "make_policy", lambda *_: Watching())
        run = run_of(place, "uniform")
        delay_t = play_online(place.world, run).rounds.delay_t
    assert [now for now, _ in learned] == sorted(now for now, _ in learned)
    assert [t for _, t in learned] != sorted(t for _, t in learned)
    assert all(now == t + delay_t[t] for now, t in learned)
    assert {t for _, t in learned} == {t for t in range(300) if t + delay_t[t] < 300}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_documented_worlds_can_be_played(path: Path) -> None:
    place = read_scenario(path)
    for policy in ("thompson", "prompt-oracle"):
        run = Run(parse_policy(policy), QUALITY, None, 0, place.delay, place.rounds, place.schedule)
        result = measure_run(place.world, "Q", run)
        assert result.row["rounds"] == place.rounds and result.row["world"] == path.stem
        assert result.row["regret"] >= -1e-9


def test_there_are_documented_worlds() -> None:
    assert len(EXAMPLES) >= 4


def test_a_table_can_change_too(tmp_path: Path, world: Callable[[str], Scenario]) -> None:
    (tmp_path / "t.csv").write_text(
        "prompt_id,task,quality/a,quality/b,cost/a,cost/b\n" + "".join(f"{i},t,3,4,0.1,0.2\n" for i in range(30))
    )
    place = world(
        "table: t.csv\nquality_range: [1, 5]\nrounds: 90\nchanges: [{kind: quality, model: b, level: 2, start: 45}]\n"
    )
    run = Run(
        parse_policy("prompt-oracle"),
        parse_objective("QUALITY_FIRST", place.world.quality),
        None,
        0,
        0,
        90,
        place.schedule,
    )
    oracle = measure_run(place.world, "Q", run)
    assert oracle.row["mean_quality"] == pytest.approx(3.5) and oracle.row["shares"] == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected settings"),
        ("rounds: 10", "models: expected these or a table, and not both"),
        (TWO + "table: t.csv", "models: expected these or a table, and not both"),
        (TWO + "quality_range: [0, 5]", "quality_range: expected with a table only"),
        ("table: t.csv\nnoise: {cost: 1}", "noise: expected with models only"),
        (TWO + "rounds: 0", "line 2: rounds: Input should be greater than or equal to 1"),
        (TWO + "features:\n  dimensions: 0", "line 3: features.dimensions"),
        ("models:\n  a: {quality: 2, cost: 1}\n", "line 2: models.a.quality: Input should be less than or equal to 1"),
        (TWO + "tasks: {chat: {quality: {huge: 0.5}}}", "tasks.chat.quality.huge: expected one of small, large"),
        (TWO + "changes: [{kind: price, model: large}]", "changes.0.factor: expected in a change of kind price"),
        (
            TWO + "changes:\n- {kind: price, model: large, factor: 2, by: 1}",
            "changes.0.by: a change of kind price has announced",
        ),
        (TWO + "changes: [{kind: flood}]", "changes.0.kind: Input should be 'price'"),
        (TWO + "changes: [{kind: price, model: huge, factor: 2}]", "model: expected one of small, large, got 'huge'"),
        (
            TWO + "changes: [{kind: outage, model: large, start: 5, end: 5}]",
            "end: expected a round after start 5, got 5",
        ),
        (TWO + "changes: [{kind: drift, model: large, by: 0.1}]", "changes.0.end: expected in a change of kind drift"),
        (TWO + "changes: [{kind: feedback_late, rounds: 0}]", "rounds: expected a finite number above 0"),
        (TWO + "changes: [{kind: latency, model: large, factor: -1}]", "factor: expected a finite number above 0"),
        (TWO + "changes: [{kind: drift, model: large, by: 3, end: 9}]", "by: expected -1 to 1, got 3"),
        (TWO + "noise: {latency_tail: 1}", "noise.latency_tail: Input should be greater than 1"),
    ],
)
def test_a_bad_file_names_the_field(world: Callable[[str], Scenario], text: str, message: str) -> None:
    with pytest.raises(SettingError) as error:
        world(text)
    assert message in str(error.value) and "made.yaml" in str(error.value)
