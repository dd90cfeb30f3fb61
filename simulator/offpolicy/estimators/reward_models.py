"""Rewards that each model would have earned in each round, predicted by ridge regressions for each group and model.

A doubly robust estimate stays unbiased however bad this is, as long as a round's prediction does not depend on that round's
own reward. ``cross_fitted`` sees to it by folds. Where the log comes from a policy that was learning, later choices depend
on earlier rewards, and a prediction must not know the future: ``past_only`` is for those.

>>> reward_n, chosen_n = np.array([1.0, 0.0] * 60), np.array([0, 1] * 60)
>>> x_nd, group_n = np.zeros((120, 0)), np.zeros(120, dtype=np.intp)
>>> past_only(reward_n, chosen_n, x_nd, group_n, 2)[[0, 119]].round(2).tolist()
[[0.0, 0.0], [0.99, 0.01]]
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from pointsman.simulator.offpolicy.logs.log import Array, Flags, Indices

RIDGE = 1.0
"""Precision of the coefficients, in observations; features are standardised."""
FOLDS = 5
"""Folds of ``cross_fitted``."""
FIRST = 50
"""Rounds of the first block of ``past_only``."""
GROWTH = 1.25
"""Where each block of ``past_only`` ends, as a multiple of the end of the one before."""


def cross_fitted(
    reward_n: Array, chosen_n: Indices, x_nd: Array, group_n: Indices, k: int, folds: int = FOLDS
) -> Array:
    """Predicted rewards of all k models in every round, (n, k), each from the other folds. Round i is in fold i mod ``folds``.

    Rounds with NaN rewards are predicted but not learned from. Features ``x_nd`` and groups ``group_n`` are as in ``Log``.
    """
    fold_n = np.arange(len(reward_n)) % folds
    return _predict_all(reward_n, chosen_n, x_nd, group_n, k, ((fold_n != f, fold_n == f) for f in range(folds)))


def past_only(reward_n: Array, chosen_n: Indices, x_nd: Array, group_n: Indices, k: int) -> Array:
    """Predicted rewards of all k models in every round, (n, k), each from earlier rounds alone.

    Regressions are refitted at the end of blocks that grow; the first block's predictions are 0. Rounds with NaN rewards are
    predicted but not learned from.
    """
    n = len(reward_n)
    ends = [0, min(FIRST, n)]
    while ends[-1] < n:
        ends.append(min(n, int(ends[-1] * GROWTH) + 1))
    order_n = np.arange(n)
    blocks = pairwise(ends[1:])
    return _predict_all(
        reward_n, chosen_n, x_nd, group_n, k, ((order_n < a, (order_n >= a) & (order_n < b)) for a, b in blocks)
    )


def _predict_all(
    reward_n: Array,
    chosen_n: Indices,
    x_nd: Array,
    group_n: Indices,
    k: int,
    splits: Iterator[tuple[Flags, Flags]],
) -> Array:
    """Predictions (n, k). Of each split the first rounds are learned from, the second predicted; the rest stays 0."""
    reported_n = ~np.isnan(reward_n)
    predicted_nk = np.zeros((len(reward_n), k))
    for train_n, test_n in splits:
        train_n = train_n & reported_n
        if not train_n.any():
            continue
        overall = float(reward_n[train_n].mean())
        for group in np.unique(group_n[test_n]):
            fit_n, ask_n = train_n & (group_n == group), test_n & (group_n == group)
            predicted_nk[ask_n] = _predict(reward_n[fit_n], chosen_n[fit_n], x_nd[fit_n], x_nd[ask_n], k, overall)
    return predicted_nk


def _predict(reward_n: Array, chosen_n: Indices, x_nd: Array, ask_md: Array, k: int, overall: float) -> Array:
    """Predictions (m, k) of one group from its rows. A model's mean is shrunk to that of the group, by one observation."""
    mean = (float(reward_n.sum()) + overall) / (len(reward_n) + 1.0)
    predicted_mk = np.full((len(ask_md), k), mean)
    if not len(reward_n):
        return predicted_mk
    centre_d, scale_d = x_nd.mean(axis=0), x_nd.std(axis=0)
    scale_d = np.where(scale_d > 1e-12, scale_d, np.inf)  # a feature that never varied says nothing
    z_nd, ask_md = (x_nd - centre_d) / scale_d, (ask_md - centre_d) / scale_d
    for model in np.unique(chosen_n):
        rows_n = chosen_n == model
        z, y = z_nd[rows_n], reward_n[rows_n] - mean
        level = float(y.sum()) / (len(y) + 1.0)
        centred = z - z.mean(axis=0)
        precision_dd = centred.T @ centred + RIDGE * max(1.0, float(z.shape[1])) * np.eye(z.shape[1])
        slope_d = cho_solve(cho_factor(precision_dd), centred.T @ (y - y.mean())) if z.shape[1] else np.zeros(0)
        predicted_mk[:, model] = mean + level + (ask_md - z.mean(axis=0)) @ slope_d
    low, high = float(reward_n.min()), float(reward_n.max())
    return np.asarray(np.clip(predicted_mk, low, high))
