"""The hindsight optima against brute force and a general solver."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from pointsman.bandit.catalog import QualityRange
from pointsman.simulator.policies.hindsight import best_fixed, best_shares, grouped_optimum
from pointsman.simulator.policies.simple import sums_by_task

UNIT = QualityRange()


def by_solver(utility_gk: np.ndarray, cost_gk: np.ndarray, weight_g: np.ndarray, budget: float) -> float | None:
    """The optimal total utility, by linear programming; None if nothing is within the budget."""
    groups, models = utility_gk.shape
    weights = np.repeat(weight_g, models)
    solved = linprog(
        -weights * utility_gk.ravel(),
        A_ub=[weights * cost_gk.ravel()],
        b_ub=[budget * weight_g.sum()],
        A_eq=np.kron(np.eye(groups), np.ones(models)),
        b_eq=np.ones(groups),
    )
    return -float(solved.fun) if solved.success else None


def by_force(utility_gk: np.ndarray, cost_gk: np.ndarray, weight_g: np.ndarray, budget: float) -> float:
    """The best total utility with one whole model for each group within the budget."""
    best = -np.inf
    rows = np.arange(len(weight_g))
    for models in itertools.product(range(utility_gk.shape[1]), repeat=len(weight_g)):
        if weight_g @ cost_gk[rows, models] <= budget * weight_g.sum():
            best = max(best, float(weight_g @ utility_gk[rows, models]))
    return best


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    groups, models = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    # few different values, so that ties and models that cost the same are common
    grid = st.integers(0, 8).map(lambda i: i / 8.0)

    def table() -> np.ndarray:
        return np.array([[draw(grid) for _ in range(models)] for _ in range(groups)])

    weight_g = np.array([float(draw(st.integers(1, 5))) for _ in range(groups)])
    return table(), table(), weight_g, draw(st.integers(0, 40)) / 37.0


@given(problems())
def test_best_shares_is_the_linear_programs_optimum(problem: tuple[np.ndarray, np.ndarray, np.ndarray, float]) -> None:
    utility_gk, cost_gk, weight_g, budget = problem
    share_gk = best_shares(utility_gk, cost_gk, weight_g, budget)
    np.testing.assert_allclose(share_gk.sum(axis=1), 1.0)
    assert (share_gk >= 0.0).all()
    spent = float((weight_g[:, None] * share_gk * cost_gk).sum())
    expected = by_solver(utility_gk, cost_gk, weight_g, budget)
    if expected is None:  # over the budget whatever one does: then as little as can be
        assert spent == pytest.approx(float(weight_g @ cost_gk.min(axis=1)))
        return
    assert spent <= budget * weight_g.sum() * (1.0 + 1e-12) + 1e-12
    utility = float((weight_g[:, None] * share_gk * utility_gk).sum())
    assert utility == pytest.approx(expected, abs=1e-8)
    assert utility >= by_force(utility_gk, cost_gk, weight_g, budget) - 1e-12


@given(problems())
def test_without_a_budget_every_group_gets_its_best_and_of_equals_the_cheapest(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray, float],
) -> None:
    utility_gk, cost_gk, weight_g, _ = problem
    free_gk = best_shares(utility_gk, cost_gk, weight_g, None)
    for share_k, utility_k, cost_k in zip(free_gk, utility_gk, cost_gk, strict=True):
        assert sorted(share_k)[-1] == 1.0 and share_k.sum() == 1.0
        chosen = int(np.argmax(share_k))
        assert utility_k[chosen] == utility_k.max()
        assert cost_k[chosen] == cost_k[utility_k == utility_k.max()].min()
    rich_gk = best_shares(utility_gk, cost_gk, weight_g, 10.0)
    np.testing.assert_allclose((rich_gk * utility_gk).sum(axis=1), utility_gk.max(axis=1))


@pytest.mark.parametrize("budget", [0.05, 0.2, 0.5, 0.9, None])
def test_finer_groups_are_never_worse(budget: float | None) -> None:
    rng = np.random.default_rng(5)
    utility_nk, cost_nk = rng.random((60, 3)), rng.random((60, 3)) * [0.1, 0.5, 1.0]
    groups = (np.zeros(60, dtype=np.intp), np.arange(60) % 7, np.arange(60))
    totals = [(grouped_optimum(utility_nk, cost_nk, group_n, budget) * utility_nk).sum() for group_n in groups]
    assert totals[0] <= totals[1] + 1e-9 <= totals[2] + 2e-9


def test_grouped_optimum_is_the_same_for_a_group() -> None:
    rng = np.random.default_rng(1)
    group_n = np.arange(20) % 3
    share_nk = grouped_optimum(rng.random((20, 3)), rng.random((20, 3)), group_n, 0.4)
    for g in range(3):
        assert (share_nk[group_n == g] == share_nk[g]).all()


def test_best_fixed() -> None:
    utility_nk, cost_nk = np.array([[0.2, 0.5, 0.9], [0.4, 0.7, 0.9]]), np.array([[1.0, 2.0, 9.0], [1.0, 2.0, 7.0]])
    assert best_fixed(utility_nk, cost_nk, None) == 2
    assert best_fixed(utility_nk, cost_nk, 8.0) == 2
    assert best_fixed(utility_nk, cost_nk, 3.0) == 1
    assert best_fixed(utility_nk, cost_nk, 0.5) == 0
    assert best_fixed(utility_nk, None, None) == 2


def test_sums_by_task_leaves_out_what_is_unknown() -> None:
    outcome_snk = np.array([[[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]]])
    sum_tsk, count_tsk = sums_by_task(outcome_snk, np.array([0, 0, -1]), 2)
    assert sum_tsk.tolist() == [[[4.0, 2.0]], [[0.0, 0.0]]]
    assert count_tsk.tolist() == [[[2.0, 1.0]], [[0.0, 0.0]]]
