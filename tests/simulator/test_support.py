"""What a log cannot show of a candidate fails the gate, with the share named; what was not eligible is another case."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pointsman.bandit.limits import Exclusion
from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate, target_of
from pointsman.simulator.offpolicy.commands import evaluate_command
from pointsman.simulator.offpolicy.evaluation.evaluate import evaluate_candidate
from pointsman.simulator.offpolicy.evaluation.support import Support, support_of
from pointsman.simulator.offpolicy.expression import parse_requirement
from pointsman.simulator.offpolicy.gate import GateVerdict, judge
from pointsman.simulator.offpolicy.logs.journal import read_journal
from pointsman.simulator.offpolicy.logs.log import Array, Log
from pointsman.simulator.offpolicy.logs.read import read_log

N = 5000
SHOWS, ELIGIBLE = "the log shows what the candidate does", "the models that it wants were eligible at times"
MODELS = ("m0", "m1", "m2")
TRIVIAL = "lower(quality) >= 0.5 * logged(quality)"
M2 = "{policy: fixed, model: m2}"
MIX = "{policy: mix, shares: {m0: 0.95, m2: 0.05}}"


def log_of(
    logged_nk: Array, groups: tuple[str, ...] = ("chat",), group_n: np.ndarray | None = None, seed: int = 0
) -> Log:
    """Models of the same quality, .8, chosen as ``logged_nk`` says."""
    rng, n = np.random.default_rng(seed), len(logged_nk)
    chosen_n = (rng.random((n, 1)) > logged_nk.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return Log(
        name="made",
        models=MODELS,
        groups=groups,
        chosen_n=chosen_n,
        propensity_n=logged_nk[np.arange(n), chosen_n],
        logged_nk=logged_nk,
        eligible_nk=np.ones(logged_nk.shape, dtype=np.bool_),
        signals={"quality": (rng.random(n) < 0.8).astype(np.float64)},
        x_nd=np.zeros((n, 0)),
        group_n=np.zeros(n, dtype=np.intp) if group_n is None else group_n,
        time_ns_n=np.arange(n),
        ranges={"quality": (0.0, 1.0)},
    )


def mix(**shares: float) -> Candidate:
    return Candidate("mix", BucketPolicy(policy="mix", shares=shares), {})


def verdict_of(log: Log, candidate: Candidate, text: str = TRIVIAL) -> GateVerdict:
    evaluation = evaluate_candidate(log, candidate, estimators=["dr"])
    return judge(evaluation, parse_requirement(text, evaluation.evidence))


def support(log: Log, candidate: Candidate) -> Support:
    return support_of(log, target_of(candidate, log))


def refused(verdict: GateVerdict) -> dict[str, str]:
    return {finding.what: finding.why for finding in verdict.conditions if not finding.shown}


def tiled(*p: float) -> Array:
    return np.tile(np.array(p), (N, 1))


def call(folder: Path, frame: pd.DataFrame, candidate: str, *more: str) -> Result:
    log, path = folder / "log.csv", folder / "candidate.yaml"
    frame.to_csv(log, index=False)
    path.write_text(candidate)
    args = ["--log", str(log), "--candidate", str(path), "--estimators", "dr", *more]
    return CliRunner().invoke(evaluate_command, args)


def frame_of(log: Log, **columns: object) -> pd.DataFrame:
    assert log.logged_nk is not None
    return pd.DataFrame(
        {
            "model": [log.models[i] for i in log.chosen_n],
            "propensity": log.propensity_n,
            **{f"p/{model}": log.logged_nk[:, k] for k, model in enumerate(log.models)},
            "quality": log.signals["quality"],
        }
        | columns
    )


@pytest.mark.parametrize(("candidate", "share"), [(M2, "100.00%"), (MIX, "5.00%")])
@pytest.mark.parametrize("more", [(), ("--range", "quality=0,1")])
def test_a_model_that_was_never_tried_is_not_promoted(
    tmp_path: Path, candidate: str, share: str, more: tuple[str, ...]
) -> None:
    done = call(tmp_path, frame_of(log_of(tiled(0.5, 0.5, 0.0))), candidate, "--require", TRIVIAL, *more)
    assert done.exit_code == 1, done.output
    assert (
        f"NO   the log shows what the candidate does: {share} of it the log cannot show: m2 ({share}: propensity 0)"
        in done.output
    )
    assert "cannot be compared" in done.output and "0 … 0" not in done.output


def test_a_model_that_was_tried_in_a_bucket_only() -> None:
    group_n = (np.arange(N) % 4 == 0).astype(np.intp)
    logged_nk = np.where(group_n[:, None] == 1, [[0.5, 0.5, 0.0]], [[0.3, 0.3, 0.4]])
    log = log_of(logged_nk, ("chat", "maths"), group_n)
    verdict = verdict_of(log, mix(m2=1.0))
    assert "25.00% of it the log cannot show: m2 in maths (25.00%: propensity 0)" in refused(verdict)[SHOWS]
    elsewhere = Candidate(
        "chat only", BucketPolicy(policy="logged"), {"chat": BucketPolicy(policy="fixed", model="m2")}
    )
    assert verdict_of(log, elsewhere).passed


def test_a_model_that_was_tried_in_some_rounds_only() -> None:
    """By a rule that nothing in the log says: per row."""
    hidden_n = np.random.default_rng(1).random(N) < 0.02
    log = log_of(np.where(hidden_n[:, None], [[0.5, 0.5, 0.0]], [[0.3, 0.3, 0.4]]))
    verdict = verdict_of(log, mix(m2=1.0))
    assert not verdict.passed and f"{hidden_n.mean():.2%}" in refused(verdict)[SHOWS]


@pytest.mark.parametrize(("p", "share"), [(1e-9, 0.05), (1e-6, 0.05), (1e-5, 0.05), (1e-6, 0.005), (1e-4, 1.0)])
def test_a_propensity_that_is_tiny_shows_next_to_nothing(p: float, share: float) -> None:
    verdict = verdict_of(log_of(tiled(0.5, 0.5 - p, p)), mix(m0=1.0 - share, m2=share))
    assert f"{share:.2%} of it the log cannot show" in refused(verdict)[SHOWS]


def test_a_propensity_that_is_small_is_enough() -> None:
    assert verdict_of(log_of(tiled(0.5, 0.45, 0.05)), mix(m0=0.9, m2=0.1)).passed
    seldom = support(log_of(tiled(0.5, 0.49, 0.01)), mix(m0=0.95, m2=0.05))
    assert seldom.is_enough and not seldom.gaps


def test_a_model_that_never_came_though_it_could() -> None:
    log = log_of(tiled(0.5, 0.499, 0.001), seed=3)
    log = replace(log, chosen_n=np.where(log.chosen_n == 2, 1, log.chosen_n), logged_nk=tiled(0.5, 0.499, 0.001))
    shown = support(log, mix(m0=0.999, m2=0.001))
    assert shown.gaps[0].reason == "never chosen" and shown.unshown == pytest.approx(0.001)


def test_what_is_rounding_is_no_gap() -> None:
    log = log_of(tiled(0.5, 0.5, 0.0))
    assert verdict_of(log, mix(m0=0.6, m1=0.4 - 1e-8, m2=1e-8)).passed


def test_without_distributions_a_model_must_have_come_in_every_bucket() -> None:
    group_n = (np.arange(N) % 50 == 0).astype(np.intp)
    log = log_of(np.where(group_n[:, None] == 1, [[0.5, 0.5, 0.0]], [[0.3, 0.3, 0.4]]), ("chat", "maths"), group_n)
    log = replace(log, logged_nk=None)
    why = refused(verdict_of(log, mix(m0=0.5, m2=0.5)))[SHOWS]
    assert "1.00% of it the log cannot show: m2 in maths (1.00%: never chosen)" in why


def test_without_distributions_a_model_must_have_come_in_every_kind_of_round() -> None:
    """Half of the rounds, by time or by what was asked, had no chance of m2: a tenth of a mix does not show in weights."""
    hard_n = np.random.default_rng(2).integers(0, 2, N).astype(np.bool_)
    for is_left_out_n in (np.arange(N) >= N / 2, hard_n):
        log = log_of(np.where(is_left_out_n[:, None], [[0.5, 0.5, 0.0]], [[0.3, 0.3, 0.4]]))
        log = replace(log, logged_nk=None, x_nd=hard_n[:, None] * 1.0)
        why = refused(verdict_of(log, mix(m0=0.9, m2=0.1)))[SHOWS]
        assert "m2 (5.0" in why or "m2 (4.9" in why, why
    even = replace(log_of(tiled(0.5, 0.45, 0.05)), logged_nk=None, x_nd=hard_n[:, None] * 1.0)
    assert support(even, mix(m0=0.9, m2=0.1)).is_enough


def test_a_model_that_the_log_does_not_name_is_refused(tmp_path: Path) -> None:
    frame = frame_of(log_of(tiled(0.5, 0.5, 0.0)))
    done = call(tmp_path, frame, "{policy: mix, shares: {m0: 0.95, m9: 0.05}}", "--require", TRIVIAL)
    assert done.exit_code == 2 and "models/m9: expected one of the log's models" in done.output


def test_rows_without_propensities_are_refused(tmp_path: Path) -> None:
    frame = frame_of(log_of(tiled(0.4, 0.3, 0.3)))
    for column in ("propensity", "p/m0", "p/m2"):
        holed = frame.copy()
        holed.loc[17, column] = np.nan
        done = call(tmp_path, holed, M2, "--require", TRIVIAL, "--range", "quality=0,1")
        assert done.exit_code == 2 and "row 18" in done.output, (column, done.output)


def with_exclusions(log: Log, excluded_n: np.ndarray) -> Log:
    """m2 was not eligible in these rounds: m0 and m1 took its part."""
    assert log.logged_nk is not None
    logged_nk = np.where(excluded_n[:, None], [[0.5, 0.5, 0.0]], log.logged_nk)
    eligible_nk = np.ones(logged_nk.shape, dtype=np.bool_)
    eligible_nk[excluded_n, 2] = False
    return replace(log_of(logged_nk), eligible_nk=eligible_nk)


def test_a_model_that_was_not_eligible_at_times_is_judged_by_the_rest() -> None:
    excluded_n = np.arange(N) % 10 < 3
    log = with_exclusions(log_of(tiled(0.3, 0.3, 0.4)), excluded_n)
    fixed = Candidate("m2", BucketPolicy(policy="fixed", model="m2"), {})
    evaluation = evaluate_candidate(log, fixed, estimators=["dr"])
    assert evaluation.support.displaced == pytest.approx(0.3) and evaluation.support.acted == 3500
    verdict = judge(evaluation, parse_requirement(TRIVIAL, evaluation.evidence))
    assert verdict.passed
    assert "in the 3500 rounds in which all of its models were eligible" in verdict.clauses[0].why
    (eligible,) = [f for f in verdict.conditions if f.what == ELIGIBLE]
    assert "30.00% of its choices were not" in eligible.why


def test_a_model_that_was_hardly_ever_eligible_is_not_promoted_by_those_who_stood_in() -> None:
    """In 99 % of the rounds the log's own policy stands in, which is as good as itself."""
    log = with_exclusions(log_of(tiled(0.3, 0.3, 0.4)), np.arange(N) % 100 > 0)
    fixed = Candidate("m2", BucketPolicy(policy="fixed", model="m2"), {})
    verdict = verdict_of(log, fixed, "lower(quality) >= 0.9 * logged(quality)")
    assert not verdict.passed and "effective sample size of at least 500" in refused(verdict)
    worse = replace(log, signals={"quality": np.where(log.chosen_n == 2, 0.0, log.signals["quality"])})
    assert not verdict_of(worse, fixed, "lower(quality) >= 0.9 * logged(quality)").clauses[0].shown


@pytest.mark.parametrize("shares", [{"m2": 1.0}, {"m0": 0.95, "m2": 0.05}])
def test_a_model_that_was_never_eligible_is_not_promoted(shares: dict[str, float]) -> None:
    log = with_exclusions(log_of(tiled(0.3, 0.3, 0.4)), np.ones(N, dtype=np.bool_))
    why = refused(verdict_of(log, mix(**shares)))[ELIGIBLE]
    assert f"never were: m2 in chat ({shares['m2']:.2%} of its choices)" in why


def test_a_model_that_is_not_of_a_bucket_wants_settings_there() -> None:
    group_n = np.arange(N) % 2
    log = with_exclusions(log_of(tiled(0.3, 0.3, 0.4)), group_n == 1)
    log = replace(log, groups=("chat", "maths"), group_n=group_n.astype(np.intp))
    everywhere = Candidate("m2", BucketPolicy(policy="fixed", model="m2"), {})
    assert "m2 in maths (50.00% of its choices)" in refused(verdict_of(log, everywhere))[ELIGIBLE]
    with_settings = replace(everywhere, buckets={"maths": BucketPolicy(policy="logged")})
    assert verdict_of(log, with_settings).passed


def test_tables_say_who_was_eligible(tmp_path: Path) -> None:
    """An empty cell is a model that could not be chosen; so is a 0 where the number of eligible models says so."""
    frame = frame_of(log_of(tiled(0.5, 0.5, 0.0)))
    cases = {
        "zero": frame,
        "empty": frame.assign(**{"p/m2": np.nan}),
        "two of three": frame.assign(eligible=2),
        "three of three": frame.assign(eligible=3),
    }
    for name, table in cases.items():
        path = tmp_path / f"{name}.csv"
        table.to_csv(path, index=False)
        log = read_log(str(path))
        assert not log.logged_nk[:, 2].any()  # type: ignore[index]
        assert log.eligible_nk[:, 2].all() == (name in ("zero", "three of three")), name
        assert log.eligible_nk[:, :2].all()


def test_a_journal_says_who_was_excluded(journal_file: Path) -> None:
    log = read_journal(journal_file)
    assert log.decisions is not None and log.logged_nk is not None and log.eligible_nk.all()
    gone = tuple(
        replace(d, exclusions_k=np.where(np.array(d.models) == "m2", Exclusion.COST.bit, d.exclusions_k))
        for d in log.decisions
    )
    logged_nk = log.logged_nk.copy()
    logged_nk[:, 2] = 0.0
    logged_nk /= logged_nk.sum(axis=1, keepdims=True)
    eligible_nk = log.eligible_nk.copy()
    eligible_nk[:, 2] = False
    excluded = replace(log, decisions=gone, logged_nk=logged_nk, eligible_nk=eligible_nk)
    ours = Candidate("ours", BucketPolicy(policy="thompson", exploration_floor=0.3), {})
    assert target_of(ours, excluded).target_nk[:, 2].max() == 0.0  # it obeys the limits too
    assert support(excluded, ours).displaced == 0.0
    assert support(excluded, mix(m2=1.0)).acted == 0


def test_what_an_objective_left_out_was_eligible(journal_file: Path, tmp_path: Path) -> None:
    """AVAILABILITY_FIRST chooses among the models that answer most: a choice, which the log cannot show another one of."""
    records = [json.loads(line) for line in journal_file.read_text().splitlines()]
    for record in records:
        made = record["event"].get("decision_made")
        if made is not None and made.get("chosen", 0) != 2:
            made["exclusions"][2] = str(Exclusion.AVAILABILITY.bit)
            made["objective"] = {"mode": "OBJECTIVE_MODE_AVAILABILITY_FIRST"}
    kept = [r for r in records if r["event"].get("decision_made", {}).get("chosen", 0) != 2]
    decisions = [r["event"]["decision_made"] for r in kept if "decision_made" in r["event"]]
    for made in decisions:  # as its numbers give it
        made["propensity"] = 1.0
    path = tmp_path / "export.jsonl"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pointsman.simulator.offpolicy.logs.journal.PROPENSITY_TOLERANCE", 1.0)
        path.write_text("\n".join(map(json.dumps, kept)))
        log = read_journal(path)
    assert log.logged_nk is not None and not log.logged_nk[:, 2].any() and log.eligible_nk[:, 2].all()
    assert support(log, mix(m2=1.0)).gaps[0].reason == "propensity 0"
    quality_first = BucketPolicy.model_validate({"objective": {"mode": "QUALITY_FIRST"}})
    assert support(log, Candidate("ours", quality_first, {})).unshown > 0.2
    assert support(log, Candidate("as it was", BucketPolicy(policy="thompson"), {})).unshown == 0.0
