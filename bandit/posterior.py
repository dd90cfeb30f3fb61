"""Normal-inverse-gamma linear regressions of quality, log cost, log latency and log output tokens, for all models of a
bucket at once.

One cell is one (response, model): y = θ·x + noise, noise ~ N(0, σ²), θ | σ² ~ N(m, σ² Σ), σ² ~ InvGamma(a, b).
With precision Λ = Σ⁻¹ and natural mean η = Λm, an observation (x, y) of weight w adds w·xxᵀ to Λ, w·y·x to η and w/2
to a (Gelman et al., Bayesian Data Analysis, 14.2; Riquelme et al. 2018, arXiv 1802.09127, eq. 1-2).

What makes it fast, small and sound:
- Σ is kept beside Λ and follows it by the Sherman-Morrison formula, so that learning and predicting are O(d²) with no
  solve. Every ``REFRESH`` observations of a cell Σ and m are made anew from Λ and η, which are plain sums, by Cholesky:
  rounding cannot build up, and the moment at which it happens is a function of the events alone.
- Symmetric matrices are kept packed (p = d(d+1)/2 numbers). With z the packed xxᵀ (off-diagonals twice), the quadratic
  forms xᵀΣx of all models are one matrix-vector product, and of a batch of contexts one matrix-matrix product.
- Λ and Σ depend on the contexts seen, not on the answers. Responses that have always been reported together share one
  ``Design``; the first report that has one without the other splits it. All priors have the same Λ for that reason.
- Only ``y`` enters η and b, so a correction y → y′ needs no downdate: Λ and Σ stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dspmv, dspr
from scipy.linalg.lapack import dpotrf, dpotri

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

QUALITY, COST, LATENCY, TOKENS = 0, 1, 2, 3
"""Indices of the responses: quality scaled to [0, 1], natural logarithms of dollars, of seconds, of output tokens."""
RESPONSES = 4
INTERCEPT_PRECISION = 0.1
"""Prior precision of the intercept, in units of the noise's: it gives way to the first few observations."""
PRECISION = 8.0
"""Prior precision of every other coefficient, in units of the noise's: eight responses outweigh it in one direction."""
PRIOR_A = 3.0
"""Shape of every prior's σ²: worth six observations."""
REFRESH = 256
"""Observations of a cell between two factorisations: O(d³) every 256 costs less than one O(d²) step on average."""
BATCH = 256
"""Contexts whose packed outer products are made at a time: 256 · 528 doubles (d = 32) stay in the second-level cache."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Where a cell starts, and what forgetting leads back to: its intercept expects ``intercept``, all other coefficients 0;
    σ² ~ InvGamma(``PRIOR_A``, ``b``).

    The precision is ``PRECISION`` on the diagonal and ``INTERCEPT_PRECISION`` at its end.
    """

    intercept: float
    b: float


@dataclass(slots=True)
class Design:
    """Λ and Σ (packed) of k models for the responses that share it, how many observations each model has had, and the natural
    logarithm of the weight that forgetting has left of an observation made at the start.
    """

    cov_kp: Array
    precision_kp: Array
    seen_k: npt.NDArray[np.int64]
    faded_k: Array


@dataclass(slots=True)
class Posteriors:
    """The cells of one bucket: r responses, k models, d features. Changed in place by ``observe`` and ``correct``.

    ``mean_rkd`` m; ``eta_rkd`` η; ``a_rk``, ``b_rk``; ``prior_rk2`` the prior's intercept and b; ``design_r`` says which of
    ``designs`` a response uses; ``alarm_2k`` the sums of the change detector on quality (see ``_watch``).
    """

    mean_rkd: Array
    eta_rkd: Array
    a_rk: Array
    b_rk: Array
    prior_rk2: Array
    alarm_2k: Array
    design_r: npt.NDArray[np.int64]
    designs: list[Design]

    @property
    def models(self) -> int:
        """k, the number of models."""
        return int(self.mean_rkd.shape[1])

    @property
    def dim(self) -> int:
        """d, the number of features with the intercept."""
        return int(self.mean_rkd.shape[2])


@lru_cache(maxsize=64)
def packed_indices(dim: int) -> tuple[Indices, Indices]:
    """Row and column of each packed number: column by column of the upper triangle, as BLAS packs it."""
    column, row = np.tril_indices(dim)
    return row, column


@lru_cache(maxsize=64)
def _diagonal(dim: int) -> Indices:
    """Where the diagonal is, packed."""
    return np.cumsum(np.arange(1, dim + 1)) - 1


@lru_cache(maxsize=64)
def _doubled(dim: int) -> Array:
    """1 on the diagonal and 2 off it, packed: how often a symmetric quadratic form counts each product."""
    row, column = packed_indices(dim)
    return np.where(row == column, 1.0, 2.0)


def pack(matrix_dd: Array) -> Array:
    """The packed form of a symmetric matrix."""
    return matrix_dd[packed_indices(matrix_dd.shape[0])]


def unpack(packed_p: Array, dim: int) -> Array:
    """The symmetric matrix of a packed form."""
    row, column = packed_indices(dim)
    matrix_dd = np.empty((dim, dim))
    matrix_dd[row, column] = packed_p
    matrix_dd[column, row] = packed_p
    return matrix_dd


@lru_cache(maxsize=64)
def prior_precision(dim: int) -> Array:
    """The diagonal (d) of every prior's Λ."""
    diagonal_d = np.full(dim, PRECISION)
    diagonal_d[-1] = INTERCEPT_PRECISION
    return diagonal_d


def empty(dim: int) -> Posteriors:
    """Posteriors over ``dim`` features with no models yet."""
    p = dim * (dim + 1) // 2
    return Posteriors(
        mean_rkd=np.empty((RESPONSES, 0, dim)),
        eta_rkd=np.empty((RESPONSES, 0, dim)),
        a_rk=np.empty((RESPONSES, 0)),
        b_rk=np.empty((RESPONSES, 0)),
        prior_rk2=np.empty((RESPONSES, 0, 2)),
        alarm_2k=np.empty((2, 0)),
        design_r=np.zeros(RESPONSES, dtype=np.int64),
        designs=[Design(np.empty((0, p)), np.empty((0, p)), np.empty(0, dtype=np.int64), np.empty(0))],
    )


def add_model(posteriors: Posteriors, priors: Sequence[Prior]) -> Posteriors:
    """The same cells and, last, those of one more model at ``priors``, one for each response."""
    precision_d = prior_precision(posteriors.dim)
    mean_rd = np.zeros((RESPONSES, posteriors.dim))
    mean_rd[:, -1] = [prior.intercept for prior in priors]

    def grow(old: Array, new: npt.ArrayLike) -> Array:
        return np.concatenate([old, np.asarray(new)[:, None]], axis=1)

    return Posteriors(
        mean_rkd=grow(posteriors.mean_rkd, mean_rd),
        eta_rkd=grow(posteriors.eta_rkd, mean_rd * precision_d),
        a_rk=grow(posteriors.a_rk, [PRIOR_A] * RESPONSES),
        b_rk=grow(posteriors.b_rk, [prior.b for prior in priors]),
        prior_rk2=grow(posteriors.prior_rk2, [(prior.intercept, prior.b) for prior in priors]),
        alarm_2k=grow(posteriors.alarm_2k, [0.0, 0.0]),
        design_r=posteriors.design_r,
        designs=[
            Design(
                np.vstack([design.cov_kp, pack(np.diag(1.0 / precision_d))]),
                np.vstack([design.precision_kp, pack(np.diag(precision_d))]),
                np.append(design.seen_k, 0),
                np.append(design.faded_k, 0.0),
            )
            for design in posteriors.designs
        ],
    )


def without_model(posteriors: Posteriors, model: int) -> Posteriors:
    """The cells of all models but number ``model``."""
    return Posteriors(
        mean_rkd=np.delete(posteriors.mean_rkd, model, axis=1),
        eta_rkd=np.delete(posteriors.eta_rkd, model, axis=1),
        a_rk=np.delete(posteriors.a_rk, model, axis=1),
        b_rk=np.delete(posteriors.b_rk, model, axis=1),
        prior_rk2=np.delete(posteriors.prior_rk2, model, axis=1),
        alarm_2k=np.delete(posteriors.alarm_2k, model, axis=1),
        design_r=posteriors.design_r,
        designs=[
            Design(*(np.delete(getattr(design, f.name), model, axis=0) for f in fields(design)))
            for design in posteriors.designs
        ],
    )


def observe(posteriors: Posteriors, response: int, model: int, x_d: Array, y: float, weight: float = 1.0) -> None:
    """Learn in place that ``model`` answered ``y`` at ``x_d``, as ``weight`` > 0 observations. O(d²)."""
    observe_all(posteriors, model, x_d, ((response, y),), weight)


def observe_all(
    posteriors: Posteriors,
    model: int,
    x_d: Array,
    answers: Sequence[tuple[int, float]],
    weight: float = 1.0,
    half_life: float = 0.0,
) -> None:
    """Learn in place the ``answers``, (response, y) pairs, that ``model`` gave at ``x_d`` at the same time. O(d²).

    ``half_life`` is the number of observations after which one counts half; 0 means never.
    """
    dim = x_d.size
    changed = False
    for number, together in _by_design(posteriors, answers):
        design = posteriors.designs[number]
        cov_p, precision_p = design.cov_kp[model], design.precision_kp[model]
        v_d = dspmv(dim, 1.0, cov_p, x_d)
        gain = weight / (1.0 + weight * float(x_d.dot(v_d)))
        for response, y in together:
            cell = (response, model)
            mean_d = posteriors.mean_rkd[cell]
            residual = y - float(mean_d.dot(x_d))
            if response == QUALITY:
                changed = _watch(posteriors, model, residual, weight / gain)
            mean_d += (gain * residual) * v_d
            posteriors.eta_rkd[cell] += (weight * y) * x_d
            posteriors.a_rk[cell] += 0.5 * weight
            posteriors.b_rk[cell] += 0.5 * gain * residual * residual
        dspr(dim, -gain, v_d, cov_p, overwrite_ap=1)  # in place: rows are contiguous doubles
        dspr(dim, weight, x_d, precision_p, overwrite_ap=1)
        design.seen_k[model] += 1
        every = REFRESH if half_life == 0.0 else max(1, min(REFRESH, int(half_life / 8)))
        if design.seen_k[model] % every == 0:
            if half_life > 0.0:
                fade(posteriors, number, model, 2.0 ** (-every / half_life))
            refresh(posteriors, number, model)
    if changed:
        _widen(posteriors, model)


def fade(posteriors: Posteriors, design: int, model: int, share: float) -> None:
    """Let the data of one model in one design count ``share`` as much as before, in place; ``refresh`` must follow.

    Stabilised forgetting: Λ, η, a and b move towards the prior, not towards nothing (Kulhavý & Zarrop 1993, "On a general
    concept of forgetting").
    """
    dim, held = posteriors.dim, posteriors.designs[design]
    diagonal_d = prior_precision(dim)
    held.precision_kp[model] *= share
    held.precision_kp[model][_diagonal(dim)] += (1.0 - share) * diagonal_d
    held.faded_k[model] += math.log(share)
    for response in np.flatnonzero(posteriors.design_r == design):
        intercept, b = posteriors.prior_rk2[response, model]
        posteriors.eta_rkd[response, model] *= share
        posteriors.eta_rkd[response, model, -1] += (1.0 - share) * diagonal_d[-1] * intercept
        posteriors.a_rk[response, model] += (1.0 - share) * (PRIOR_A - posteriors.a_rk[response, model])
        posteriors.b_rk[response, model] += (1.0 - share) * (b - posteriors.b_rk[response, model])


DRIFT = 0.25
"""Half the shift, in standard deviations of one response, that the change detector is tuned to."""
ALARM = 25.0
"""Where the change detector's sum raises the alarm: about once in 10⁵ observations that are as predicted."""
WARM = 30
"""Observations of a model before the change detector listens."""
KEPT = 10.0
"""What a model's data count, in observations, after an alarm."""


def _watch(posteriors: Posteriors, model: int, residual: float, widening: float) -> bool:
    """Whether quality has changed: two one-sided CUSUMs (Page 1954) of the standardised residual, clipped at 3.

    ``widening`` is 1 + xᵀΣx: the predictive variance is that much times the noise's.
    """
    sums_2 = posteriors.alarm_2k[:, model]
    if posteriors.designs[posteriors.design_r[QUALITY]].seen_k[model] < WARM:
        return False
    variance = posteriors.b_rk[QUALITY, model] / (posteriors.a_rk[QUALITY, model] - 1.0) * widening
    z = min(3.0, max(-3.0, residual / math.sqrt(variance)))
    sums_2[0] = max(0.0, sums_2[0] + z - DRIFT)
    sums_2[1] = max(0.0, sums_2[1] - z - DRIFT)
    return bool(max(sums_2) > ALARM)


def _widen(posteriors: Posteriors, model: int) -> None:
    """After an alarm: let what was learned of the model's quality count as ``KEPT`` observations, in place."""
    (number, _) = _by_design(posteriors, ((QUALITY, 0.0),))[0]  # quality gets a design of its own
    mass = float(posteriors.designs[number].precision_kp[model, -1]) - INTERCEPT_PRECISION
    if mass > KEPT:
        fade(posteriors, number, model, KEPT / mass)
        refresh(posteriors, number, model)
    posteriors.alarm_2k[:, model] = 0.0


def correct(
    posteriors: Posteriors,
    response: int,
    model: int,
    x_d: Array,
    before: float,
    after: float,
    weight: float = 1.0,
) -> None:
    """Learn in place that the answer at ``x_d``, observed as ``before`` with ``weight``, was ``after``. O(d²).

    The result is that of having observed ``after`` in the first place (up to rounding).
    """
    cell = (response, model)
    mean_d = posteriors.mean_rkd[cell]
    cov_p = posteriors.designs[posteriors.design_r[response]].cov_kp[model]
    v_d = dspmv(x_d.size, 1.0, cov_p, x_d)
    shift = weight * (after - before)
    middle = before + after - 2.0 * float(mean_d.dot(x_d)) - shift * float(x_d.dot(v_d))
    posteriors.b_rk[cell] += 0.5 * shift * middle
    mean_d += shift * v_d
    posteriors.eta_rkd[cell] += shift * x_d


def refresh(posteriors: Posteriors, design: int, model: int) -> None:
    """Make Σ of one model in one design, and m of the responses that share it, anew, in place, from Λ and η. O(d³)."""
    dim, held = posteriors.dim, posteriors.designs[design]
    factor_dd, failed = dpotrf(unpack(held.precision_kp[model], dim))
    if failed:  # Λ is a sum of a positive diagonal and squares: only a broken file can make it otherwise
        raise ArithmeticError(f"the precision of model {model} in design {design} is not positive definite")
    inverse_dd, _ = dpotri(factor_dd)
    held.cov_kp[model] = pack(inverse_dd)  # dpotri fills the upper triangle, which is what pack takes
    for response in np.flatnonzero(posteriors.design_r == design):
        posteriors.mean_rkd[response, model] = dspmv(dim, 1.0, held.cov_kp[model], posteriors.eta_rkd[response, model])


def predict(posteriors: Posteriors, x_d: Array, noise_rk: Array | None = None) -> tuple[Array, Array]:
    """Mean and variance of θ·x for all cells, each (r, k). ``noise_rk`` is ``noise(posteriors)``, for callers who have it.

    Given the data θ·x is Student-t with 2a degrees of freedom; the variance is that of this law, b/(a-1)·xᵀΣx.
    """
    row, column = packed_indices(x_d.size)
    z_p = x_d.take(row)
    z_p *= x_d.take(column)
    z_p *= _doubled(x_d.size)
    quadratic_gk = np.array([design.cov_kp.dot(z_p) for design in posteriors.designs])
    variance_rk = quadratic_gk[posteriors.design_r]
    np.maximum(variance_rk, 0.0, out=variance_rk)
    variance_rk *= noise(posteriors) if noise_rk is None else noise_rk
    return posteriors.mean_rkd.dot(x_d), variance_rk


def predict_batch(posteriors: Posteriors, x_bd: Array, noise_rk: Array | None = None) -> tuple[Array, Array]:
    """``predict`` for b contexts at once, each (b, r, k)."""
    b, dim = x_bd.shape
    r, k = posteriors.a_rk.shape
    if b == 1:
        mean_rk, variance_rk = predict(posteriors, x_bd[0], noise_rk)
        return mean_rk[None], variance_rk[None]
    doubled_p = _doubled(dim)
    quadratic_bgk = np.empty((b, len(posteriors.designs), k))
    z_bp = np.empty((min(b, BATCH), doubled_p.size))
    for start in range(0, b, BATCH):
        chunk_bd = x_bd[start : start + BATCH]
        z = z_bp[: len(chunk_bd)]
        at = 0
        for j in range(dim):  # column j of the upper triangle: rows 0..j
            np.multiply(chunk_bd[:, : j + 1], chunk_bd[:, j : j + 1], out=z[:, at : at + j + 1])
            at += j + 1
        z *= doubled_p
        for g, design in enumerate(posteriors.designs):
            quadratic_bgk[start : start + BATCH, g] = z @ design.cov_kp.T
    mean_bc = x_bd @ posteriors.mean_rkd.reshape(r * k, dim).T
    variance_brk = np.maximum(quadratic_bgk, 0.0)[:, posteriors.design_r]
    variance_brk *= noise(posteriors) if noise_rk is None else noise_rk
    return mean_bc.reshape(b, r, k), variance_brk


def noise(posteriors: Posteriors) -> Array:
    """Expected noise variance E[σ²] = b/(a-1) of all cells, (r, k)."""
    return posteriors.b_rk / (posteriors.a_rk - 1.0)


_PLAIN = ("mean_rkd", "eta_rkd", "a_rk", "b_rk", "prior_rk2", "alarm_2k", "design_r")


def to_arrays(posteriors: Posteriors) -> dict[str, npt.NDArray[np.generic]]:
    """All the arrays of ``posteriors`` by name, in a fixed order."""
    named: dict[str, npt.NDArray[np.generic]] = {}
    for name in _PLAIN:
        named[name] = getattr(posteriors, name)
    for g, design in enumerate(posteriors.designs):
        for f in fields(design):
            named[f"{f.name}/{g}"] = getattr(design, f.name)
    return named


def from_arrays(named: Mapping[str, npt.NDArray[Any]]) -> Posteriors:
    """The posteriors of ``to_arrays``. Raises ``KeyError`` if one is missing."""
    count = sum(name.startswith("cov_kp/") for name in named)
    return Posteriors(
        **{name: named[name] for name in _PLAIN},
        designs=[Design(*(named[f"{f.name}/{g}"] for f in fields(Design))) for g in range(count)],
    )


def _by_design(
    posteriors: Posteriors, answers: Sequence[tuple[int, float]]
) -> list[tuple[int, list[tuple[int, float]]]]:
    """The answers grouped by design. A design of which only some responses are answered is split first, in place."""
    groups: dict[int, list[tuple[int, float]]] = {}
    for answer in answers:
        groups.setdefault(int(posteriors.design_r[answer[0]]), []).append(answer)
    found = []
    for number, together in groups.items():
        if len(together) < np.count_nonzero(posteriors.design_r == number):
            held = posteriors.designs[number]
            posteriors.designs.append(Design(*(getattr(held, f.name).copy() for f in fields(held))))
            number = len(posteriors.designs) - 1
            posteriors.design_r[[response for response, _ in together]] = number
        found.append((number, together))
    return found
