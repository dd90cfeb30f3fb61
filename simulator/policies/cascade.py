"""A cascade: the cheapest model first, and where its answer is not good enough the next dearer one too.

Chen, Zaharia and Zou, "FrugalGPT" (2023). Here the judge of answers is perfect and free, which flatters the cascade: a real one
sees a score that only resembles quality. What is called is paid for, and waited for.

>>> quality_nk, cost_nk = np.array([[0.9, 0.8], [0.2, 0.7]]), np.array([[1.0, 5.0], [1.0, 5.0]])
>>> cascaded = cascade(quality_nk, cost_nk, np.ones((2, 2)), np.ones((2, 2), dtype=bool), threshold=0.5)
>>> cascaded.quality_n.tolist(), cascaded.cost_n.tolist()
([0.9, 0.7], [1.0, 6.0])
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_THRESHOLDS = 101
"""Thresholds that are tried for the best."""


@dataclass(frozen=True, slots=True, eq=False)
class Cascaded:
    """What came of n prompts: quality, total cost and latency, and the number of the model that answered last."""

    quality_n: Array
    cost_n: Array
    latency_n: Array
    stopped_n: Indices


def cascade(
    quality_nk: Array, cost_nk: Array, latency_nk: Array, available_nk: npt.NDArray[np.bool_], threshold: float
) -> Cascaded:
    """Call models that are there by mean cost until one has at least ``threshold`` quality, or none is left.

    Unknown latencies (of failed calls) take no time. At least one model must be there for every prompt.
    """
    n = len(quality_nk)
    order = np.argsort(cost_nk.mean(axis=0), kind="stable")
    quality_n, cost_n, latency_n = np.full(n, np.nan), np.zeros(n), np.zeros(n)
    stopped_n, going_n = np.zeros(n, dtype=np.intp), np.ones(n, dtype=np.bool_)
    for model in order.tolist():
        called_n = going_n & available_nk[:, model]
        quality_n[called_n] = quality_nk[called_n, model]
        cost_n[called_n] += cost_nk[called_n, model]
        latency_n[called_n] += np.nan_to_num(latency_nk[called_n, model], nan=0.0)
        stopped_n[called_n] = model
        going_n &= ~(called_n & (quality_nk[:, model] >= threshold))
    return Cascaded(quality_n, cost_n, latency_n, stopped_n)


def thresholds(quality_nk: Array) -> Array:
    """Thresholds worth trying: quantiles of the qualities, and one that no answer misses."""
    inner = np.quantile(quality_nk, np.linspace(0.0, 1.0, _THRESHOLDS))
    return np.unique(np.concatenate([[-np.inf], inner]))
