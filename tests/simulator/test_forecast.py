"""How many decisions it takes is about what it takes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from pointsman.simulator.offpolicy.candidate import BucketPolicy, Candidate
from pointsman.simulator.offpolicy.commands import evaluate_command
from pointsman.simulator.offpolicy.evaluation.evaluate import evaluate_candidate
from pointsman.simulator.offpolicy.evaluation.evidence import Evidence
from pointsman.simulator.offpolicy.evaluation.forecast import decisions_needed
from pointsman.simulator.offpolicy.expression import PairedTest
from pointsman.simulator.offpolicy.logs.log import Log

AT_LEAST = PairedTest("quality", True, 0.95, 0.0)


def evidence_of(n: int, p: float, seed: int = 0, mean: float = 0.8) -> Evidence:
    """m1 in a share p of the rounds, as good as m0 if ``mean`` is .8."""
    rng = np.random.default_rng([seed, n])
    chosen_n = (rng.random(n) < p).astype(np.intp)
    # as many right answers as the means say, so that the estimated gain is about the true one
    quality_n = np.empty(n)
    for model, share in enumerate((0.8, mean)):
        rows = np.flatnonzero(chosen_n == model)
        quality_n[rows] = rng.permutation(np.arange(len(rows)) < share * len(rows))
    log = Log(
        name="made", models=("m0", "m1"), groups=("all",), chosen_n=chosen_n, propensity_n=np.where(chosen_n == 1, p, 1.0 - p),
        logged_nk=np.tile([1.0 - p, p], (n, 1)), eligible_nk=np.ones((n, 2), dtype=np.bool_), signals={"quality": quality_n},
        x_nd=np.zeros((n, 0)), group_n=np.zeros(n, dtype=np.intp), time_ns_n=np.arange(n), ranges={"quality": (0.0, 1.0)},
    )  # fmt: skip
    candidate = Candidate("m1", BucketPolicy(policy="fixed", model="m1"), {})
    return evaluate_candidate(log, candidate, estimators=["dr"]).evidence["quality"]


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_with_so_many_decisions_it_is_shown_and_with_a_quarter_it_is_not(p: float) -> None:
    needed = decisions_needed(evidence_of(4000, p), AT_LEAST, 0.95)
    assert 1000 < needed < 40_000
    enough = [evidence_of(int(needed), p, seed).bound(0.95, lower=True, factor=0.95) >= 0.0 for seed in range(8)]
    few = [evidence_of(int(needed / 4), p, seed).bound(0.95, lower=True, factor=0.95) >= 0.0 for seed in range(8)]
    assert sum(enough) >= 6 and sum(few) <= 2


def test_the_less_a_model_was_tried_the_longer_and_exploration_helps() -> None:
    often, seldom = (evidence_of(6000, p) for p in (0.4, 0.05))
    assert decisions_needed(often, AT_LEAST, 0.95) < 0.5 * decisions_needed(seldom, AT_LEAST, 0.95)
    present, some, much = (decisions_needed(seldom, AT_LEAST, 0.95, share) for share in (0.0, 0.1, 0.4))
    assert present > some > much
    # exploring is as if the model had been tried more often to begin with
    assert much == pytest.approx(decisions_needed(evidence_of(6000, 0.6 * 0.05 + 0.2), AT_LEAST, 0.95), rel=0.5)


def test_what_is_not_so_is_never_shown() -> None:
    assert decisions_needed(evidence_of(3000, 0.4, mean=0.5), AT_LEAST, 0.95) == math.inf
    upper = PairedTest("quality", False, 1.2, 0.0)
    assert decisions_needed(evidence_of(3000, 0.4), upper, 0.95) < math.inf
    assert decisions_needed(evidence_of(3000, 0.4), replace(upper, factor=0.9), 0.95) == math.inf


def test_too_little_to_tell() -> None:
    assert math.isnan(decisions_needed(evidence_of(150, 0.4), AT_LEAST, 0.95))
    unsaid = replace(evidence_of(3000, 0.4), logged_mk=None)
    assert math.isnan(decisions_needed(unsaid, AT_LEAST, 0.95, 0.1)) and decisions_needed(unsaid, AT_LEAST, 0.95) > 0.0


def test_the_command_says_it(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(1), 1500
    chosen_n = (rng.random(n) < 0.2).astype(np.intp)
    propensity_n = np.where(chosen_n == 1, 0.2, 0.8)
    frame = pd.DataFrame({"model": [f"m{i}" for i in chosen_n], "propensity": propensity_n, "p/m0": 0.8, "p/m1": 0.2})
    frame["quality"] = (rng.random(n) < 0.8).astype(int)
    frame.to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "m1.yaml").write_text("policy: fixed\nmodel: m1\n")
    args = ["--log", str(tmp_path / "log.csv"), "--candidate", str(tmp_path / "m1.yaml"), "--range", "quality=0,1"]
    args += ["--estimators", "dr", "--out", str(tmp_path)]
    done = CliRunner().invoke(evaluate_command, [*args, "--require", "lower(quality) >= 0.9 * logged(quality)"])
    assert done.exit_code == 1
    assert (
        "decisions like these 1,500 show it (90% sure); with a further share explored evenly of 0.1 some" in done.output
    )
    assert "How long it would take" in (tmp_path / "evaluation.html").read_text()
    done = CliRunner().invoke(evaluate_command, [*args, "--require", "lower(quality) >= 1.3 * logged(quality)"])
    assert "by the estimate it is not so; more decisions would not show it" in done.output
    done = CliRunner().invoke(evaluate_command, [*args, "--require", "lower(quality) >= 0.1 * logged(quality)"])
    assert "like these" not in done.output
