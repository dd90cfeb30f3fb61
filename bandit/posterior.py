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
  forms xᵀΣx of all models at one context are one matrix-vector product.
- Λ and Σ depend on the contexts seen, not on the answers. Responses that have always been reported together share one
  ``Design``; the first report that has one without the other splits it. All priors have the same Λ for that reason.
- Only ``y`` enters η and b, so a correction y → y′ needs no downdate: Λ and Σ stay.
- Forgetting weighs an observation by the age of its *decision*, so that it does not matter when, or in which order, outcomes
  arrive: a design's clock (``faded_k``) says what a decision made now will count, and an outcome is learned with what is left
  of its decision's clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dspmv, dspr, dtrsv
from scipy.linalg.lapack import dpotrf, dpotri

from bandit.tail import UNTRIED, log_factor, new_tails

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
FEW = 16
"""Contexts below which unpacking the covariances for a matrix product costs more than it saves."""
BATCH = 256
"""Contexts multiplied at a time: the products with 8 models at d = 32, 256 · 256 doubles, stay in the second-level cache."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Where a cell starts, and what forgetting leads back to: its intercept expects ``intercept``, all other coefficients 0;
    σ² ~ InvGamma(``PRIOR_A``, ``b``).

    The precision is diagonal: the bucket's ``ridge_d`` and, at its end, the model's ``mass``: how many observations the
    expected intercept is worth.
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
    """The cells of one bucket: k models, r responses, d features. Changed in place by the functions below.

    ``mean_krd`` m; ``eta_krd`` η; ``a_kr``, ``b_kr``; ``square_kr`` the sum of y². ``prior_kr2`` is the prior's intercept and
    b, ``mass_k`` its precision of the intercept, ``ridge_d`` that of all other coefficients. ``design_r`` says which of
    ``designs`` a response uses. ``alarm_2kr`` are the sums of the change detector (see ``_watch``); ``late_kn`` counts
    latencies against their predicted 95th percentile and ``tail_k`` is what corrects it (``bandit.tail``).
    """

    mean_krd: Array
    eta_krd: Array
    a_kr: Array
    b_kr: Array
    square_kr: Array
    prior_kr2: Array
    mass_k: Array
    alarm_2kr: Array
    late_kn: Array
    tail_k: Array
    ridge_d: Array
    design_r: npt.NDArray[np.int64]
    designs: list[Design]

    @property
    def models(self) -> int:
        """k, the number of models."""
        return int(self.mean_krd.shape[0])

    @property
    def dim(self) -> int:
        """d, the number of features with the intercept."""
        return int(self.mean_krd.shape[2])


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


def prior_precision(ridge_d: Array, mass: float) -> Array:
    """The diagonal (d) of a prior's Λ whose intercept is worth ``mass`` observations."""
    diagonal_d = ridge_d.copy()
    diagonal_d[-1] = mass
    return diagonal_d


def empty(dim: int) -> Posteriors:
    """Posteriors over ``dim`` features with no models yet."""
    p = dim * (dim + 1) // 2
    return Posteriors(
        mean_krd=np.empty((0, RESPONSES, dim)),
        eta_krd=np.empty((0, RESPONSES, dim)),
        a_kr=np.empty((0, RESPONSES)),
        b_kr=np.empty((0, RESPONSES)),
        square_kr=np.empty((0, RESPONSES)),
        prior_kr2=np.empty((0, RESPONSES, 2)),
        mass_k=np.empty(0),
        alarm_2kr=np.empty((2, 0, RESPONSES)),
        late_kn=new_tails(0),
        tail_k=np.empty(0),
        ridge_d=np.full(dim, PRECISION),
        design_r=np.zeros(RESPONSES, dtype=np.int64),
        designs=[Design(np.empty((0, p)), np.empty((0, p)), np.empty(0, dtype=np.int64), np.empty(0))],
    )


def add_model(posteriors: Posteriors, priors: Sequence[Prior], mass: float = INTERCEPT_PRECISION) -> Posteriors:
    """The same cells and, last, those of one more model at ``priors``, one for each response."""
    precision_d = prior_precision(posteriors.ridge_d, mass)
    mean_rd = np.zeros((RESPONSES, posteriors.dim))
    mean_rd[:, -1] = [prior.intercept for prior in priors]

    def grow(old: Array, new: npt.ArrayLike, axis: int = 0) -> Array:
        return np.concatenate([old, np.expand_dims(np.asarray(new), axis)], axis=axis)

    return Posteriors(
        mean_krd=grow(posteriors.mean_krd, mean_rd),
        eta_krd=grow(posteriors.eta_krd, mean_rd * precision_d),
        a_kr=grow(posteriors.a_kr, [PRIOR_A] * RESPONSES),
        b_kr=grow(posteriors.b_kr, [prior.b for prior in priors]),
        square_kr=grow(posteriors.square_kr, [0.0] * RESPONSES),
        prior_kr2=grow(posteriors.prior_kr2, [(prior.intercept, prior.b) for prior in priors]),
        mass_k=np.append(posteriors.mass_k, mass),
        alarm_2kr=grow(posteriors.alarm_2kr, np.zeros((2, RESPONSES)), axis=1),
        late_kn=grow(posteriors.late_kn, new_tails(1)[0]),
        tail_k=np.append(posteriors.tail_k, UNTRIED),
        ridge_d=posteriors.ridge_d,
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
    kept = {name: np.delete(getattr(posteriors, name), model, axis=_MODEL_AXIS.get(name, 0)) for name in _BY_MODEL}
    return Posteriors(
        **kept,
        ridge_d=posteriors.ridge_d,
        design_r=posteriors.design_r,
        designs=[
            Design(*(np.delete(getattr(design, f.name), model, axis=0) for f in fields(design)))
            for design in posteriors.designs
        ],
    )


def set_prior(posteriors: Posteriors, model: int, priors: Sequence[Prior], mass: float) -> None:
    """Put other priors under what was learned of ``model``, in place: as if it had started from them. O(d³)."""
    last = _diagonal(posteriors.dim)[-1]
    eta_r = mass * np.array([prior.intercept for prior in priors])
    posteriors.eta_krd[model, :, -1] += eta_r - posteriors.mass_k[model] * posteriors.prior_kr2[model, :, 0]
    for design in posteriors.designs:
        design.precision_kp[model, last] += mass - posteriors.mass_k[model]
    posteriors.prior_kr2[model] = [(prior.intercept, prior.b) for prior in priors]
    posteriors.mass_k[model] = mass
    for number in range(len(posteriors.designs)):
        refresh(posteriors, number, model)


def set_ridge(posteriors: Posteriors, ridge_d: Array) -> None:
    """Put another precision under all coefficients but the intercepts, in place: as if all had started from it. O(k·d³)."""
    change_d = ridge_d - posteriors.ridge_d
    change_d[-1] = 0.0
    posteriors.ridge_d = ridge_d
    for number, design in enumerate(posteriors.designs):
        design.precision_kp[:, _diagonal(posteriors.dim)] += change_d
        for model in range(posteriors.models):
            refresh(posteriors, number, model)


def evidence(posteriors: Posteriors, response: int, ridge_d: Array) -> float:
    """Logarithm of the marginal likelihood of all that was observed of ``response`` if the precision had been ``ridge_d``, up
    to a constant that does not depend on it. O(k·d³).

    Per model ½ log|Λ₀| - ½ log|Λ| - a·log b (Gelman et al., Bayesian Data Analysis, 14.2; MacKay, "Bayesian interpolation",
    Neural Computation 1992).
    """
    design = posteriors.designs[posteriors.design_r[response]]
    dim, change_d = posteriors.dim, ridge_d - posteriors.ridge_d
    change_d[-1] = 0.0
    total = 0.0
    for model in np.flatnonzero(design.seen_k):
        cell = (model, response)
        precision_dd = unpack(design.precision_kp[model], dim)
        precision_dd[np.diag_indices(dim)] += change_d
        factor_dd, failed = dpotrf(precision_dd)
        if failed:
            raise ArithmeticError(f"the precision of model {model} is not positive definite")
        eta_d, (intercept, b) = posteriors.eta_krd[cell], posteriors.prior_kr2[cell].tolist()
        root_d = dtrsv(factor_dd, eta_d, trans=1)
        spread = float(posteriors.square_kr[cell] + posteriors.mass_k[model] * intercept**2 - root_d.dot(root_d))
        total -= float(np.log(np.diag(factor_dd)).sum())
        total += 0.5 * float(np.log(ridge_d[:-1]).sum())
        total -= float(posteriors.a_kr[cell]) * math.log(b + 0.5 * max(spread, 0.0))
    return total


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
    clocks: Sequence[float] = (),
) -> list[int]:
    """Learn in place the ``answers``, (response, y) pairs, that ``model`` gave at ``x_d`` at the same time. O(d²).

    ``half_life`` is the number of observations after which one counts half; 0 means never. ``clocks`` (by response) are those
    of the decision (``clock``); the present ones by default. Returns the responses that were found to have changed, and of
    which little is kept.
    """
    dim = x_d.size
    changed: list[int] = []
    for number, together in _by_design(posteriors, answers):
        design = posteriors.designs[number]
        left = weight
        if clocks:
            left *= math.exp(min(0.0, float(design.faded_k[model]) - clocks[together[0][0]]))
        cov_p, precision_p = design.cov_kp[model], design.precision_kp[model]
        v_d = dspmv(dim, 1.0, cov_p, x_d)
        gain = left / (1.0 + left * float(x_d.dot(v_d)))
        for response, y in together:
            cell = (model, response)
            mean_d = posteriors.mean_krd[cell]
            residual = y - float(mean_d.dot(x_d))
            if _watch(posteriors, design, cell, residual, left / gain):
                changed.append(response)
            mean_d += (gain * residual) * v_d
            posteriors.eta_krd[cell] += (left * y) * x_d
            posteriors.a_kr[cell] += 0.5 * left
            posteriors.b_kr[cell] += 0.5 * gain * residual * residual
            posteriors.square_kr[cell] += left * y * y
        dspr(dim, -gain, v_d, cov_p, overwrite_ap=1)  # in place: rows are contiguous doubles
        dspr(dim, left, x_d, precision_p, overwrite_ap=1)
        design.seen_k[model] += 1
        every = REFRESH if half_life == 0.0 else max(1, min(REFRESH, int(half_life / 8)))
        if design.seen_k[model] % every == 0:
            if half_life > 0.0:
                fade(posteriors, number, model, 2.0 ** (-every / half_life))
            refresh(posteriors, number, model)
    for response in changed:
        widen(posteriors, model, response)
    return changed


def clock(posteriors: Posteriors, model: int, response: int) -> float:
    """How much of an observation made at the start forgetting has left, as a natural logarithm."""
    return float(posteriors.designs[posteriors.design_r[response]].faded_k[model])


def fade(posteriors: Posteriors, design: int, model: int, share: float) -> None:
    """Let the data of one model in one design count ``share`` as much as before, in place; ``refresh`` must follow.

    Stabilised forgetting: Λ, η and a move towards the prior, not towards nothing (Kulhavý & Zarrop 1993, "On a general
    concept of forgetting"); b follows from the sums. So the cell is the posterior of its observations with weights.
    """
    dim, held = posteriors.dim, posteriors.designs[design]
    diagonal_d = prior_precision(posteriors.ridge_d, float(posteriors.mass_k[model]))
    held.precision_kp[model] *= share
    held.precision_kp[model][_diagonal(dim)] += (1.0 - share) * diagonal_d
    held.faded_k[model] += math.log(share)
    for response in np.flatnonzero(posteriors.design_r == design):
        posteriors.eta_krd[model, response] *= share
        posteriors.eta_krd[model, response, -1] += (
            (1.0 - share) * diagonal_d[-1] * posteriors.prior_kr2[model, response, 0]
        )
        posteriors.a_kr[model, response] += (1.0 - share) * (PRIOR_A - posteriors.a_kr[model, response])
        posteriors.square_kr[model, response] *= share
        if response == LATENCY:
            posteriors.late_kn[model] *= share
            posteriors.tail_k[model] = log_factor(posteriors.late_kn[model])


DRIFT = 0.25
"""Half the shift, in standard deviations of one response, that the change detector is tuned to."""
ALARM = 25.0
"""Where the change detector's sum raises the alarm: about once in 10⁵ observations that are as predicted."""
WARM = 30
"""Observations of a model before the change detector listens."""
KEPT = 10.0
"""What a model's data count, in observations, after an alarm."""


def _watch(posteriors: Posteriors, design: Design, cell: tuple[int, int], residual: float, widening: float) -> bool:
    """Whether a response has changed: two one-sided CUSUMs (Page 1954) of the standardised residual, clipped at 3.

    ``widening`` is 1 + xᵀΣx: the predictive variance is that much times the noise's.
    """
    model, response = cell
    if design.seen_k[model] < WARM:
        return False
    z = residual / math.sqrt(posteriors.b_kr[cell] / (posteriors.a_kr[cell] - 1.0) * widening)
    z = 3.0 if z > 3.0 else -3.0 if z < -3.0 else float(z)
    up_down = posteriors.alarm_2kr[:, model, response]
    up, down = up_down.tolist()
    up, down = max(0.0, up + z - DRIFT), max(0.0, down - z - DRIFT)
    up_down[:] = up, down
    return bool(max(up, down) > ALARM)


def widen(posteriors: Posteriors, model: int, response: int, most: float = KEPT) -> None:
    """Let what was learned of a model's response count as at most ``most`` observations, in place."""
    ((number, _),) = _by_design(posteriors, ((response, 0.0),))  # it gets a design of its own
    weigh(posteriors, number, model, most)
    posteriors.alarm_2kr[:, model, response] = 0.0


def weigh(posteriors: Posteriors, design: int, model: int, most: float) -> None:
    """Let the data of one model in one design count as at most ``most`` observations, in place."""
    mass = float(posteriors.designs[design].precision_kp[model, -1]) - float(posteriors.mass_k[model])
    if mass > most:
        fade(posteriors, design, model, most / mass)
        refresh(posteriors, design, model)


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
    cell = (model, response)
    mean_d = posteriors.mean_krd[cell]
    cov_p = posteriors.designs[posteriors.design_r[response]].cov_kp[model]
    v_d = dspmv(x_d.size, 1.0, cov_p, x_d)
    shift = weight * (after - before)
    middle = before + after - 2.0 * float(mean_d.dot(x_d)) - shift * float(x_d.dot(v_d))
    posteriors.b_kr[cell] += 0.5 * shift * middle
    mean_d += shift * v_d
    posteriors.eta_krd[cell] += shift * x_d
    posteriors.square_kr[cell] += shift * (after + before)


def refresh(posteriors: Posteriors, design: int, model: int) -> None:
    """Make Σ of one model in one design, and m and b of the responses that share it, anew, in place, from the sums. O(d³)."""
    dim, held = posteriors.dim, posteriors.designs[design]
    factor_dd, failed = dpotrf(unpack(held.precision_kp[model], dim))
    if failed:  # Λ is a sum of a positive diagonal and squares: only a broken file can make it otherwise
        raise ArithmeticError(f"the precision of model {model} in design {design} is not positive definite")
    inverse_dd, _ = dpotri(factor_dd)
    held.cov_kp[model] = pack(inverse_dd)  # dpotri fills the upper triangle, which is what pack takes
    for response in np.flatnonzero(posteriors.design_r == design):
        cell = (model, response)
        eta_d, (intercept, b) = posteriors.eta_krd[cell], posteriors.prior_kr2[cell].tolist()
        posteriors.mean_krd[cell] = dspmv(dim, 1.0, held.cov_kp[model], eta_d)
        spread = float(posteriors.square_kr[cell] + posteriors.mass_k[model] * intercept**2)
        spread -= float(posteriors.mean_krd[cell].dot(eta_d))
        posteriors.b_kr[cell] = b + 0.5 * max(spread, 0.0)


def predict(posteriors: Posteriors, x_d: Array, noise_kr: Array | None = None) -> tuple[Array, Array]:
    """Mean and variance of θ·x for all cells, each (k, r). ``noise_kr`` is ``noise(posteriors)``, for callers who have it.

    Given the data θ·x is Student-t with 2a degrees of freedom; the variance is that of this law, b/(a-1)·xᵀΣx.
    """
    k, r, dim = posteriors.mean_krd.shape
    row, column = packed_indices(dim)
    z_p = x_d.take(row)
    z_p *= x_d.take(column)
    z_p *= _doubled(dim)
    quadratic_gk = np.array([design.cov_kp.dot(z_p) for design in posteriors.designs])
    variance_kr = quadratic_gk[posteriors.design_r].T
    variance_kr = np.maximum(variance_kr, 0.0)
    variance_kr *= noise(posteriors) if noise_kr is None else noise_kr
    return posteriors.mean_krd.reshape(k * r, dim).dot(x_d).reshape(k, r), variance_kr


def predict_batch(posteriors: Posteriors, x_bd: Array, noise_kr: Array | None = None) -> tuple[Array, Array]:
    """``predict`` for b contexts at once, each (b, k, r)."""
    b, dim = x_bd.shape
    k, r = posteriors.a_kr.shape
    noise_kr = noise(posteriors) if noise_kr is None else noise_kr
    if b < FEW:
        each = [predict(posteriors, x_d, noise_kr) for x_d in x_bd]
        return np.array([mean_kr for mean_kr, _ in each]), np.array([variance_kr for _, variance_kr in each])
    row, column = packed_indices(dim)
    quadratic_bgk = np.empty((b, len(posteriors.designs), k))
    cov_kdd = np.empty((k, dim, dim))
    for g, design in enumerate(posteriors.designs):
        cov_kdd[:, row, column] = cov_kdd[:, column, row] = design.cov_kp
        cov_dkd = np.ascontiguousarray(cov_kdd.transpose(1, 0, 2)).reshape(dim, k * dim)
        for start in range(0, b, BATCH):
            chunk_bd = x_bd[start : start + BATCH]
            product_bkd = (chunk_bd @ cov_dkd).reshape(-1, k, dim)
            product_bkd *= chunk_bd[:, None]
            np.add.reduce(product_bkd, axis=2, out=quadratic_bgk[start : start + BATCH, g])
    mean_bc = x_bd @ posteriors.mean_krd.reshape(k * r, dim).T
    variance_bkr = np.maximum(quadratic_bgk, 0.0)[:, posteriors.design_r].transpose(0, 2, 1) * noise_kr
    return mean_bc.reshape(b, k, r), variance_bkr


def noise(posteriors: Posteriors) -> Array:
    """Expected noise variance E[σ²] = b/(a-1) of all cells, (k, r)."""
    return posteriors.b_kr / (posteriors.a_kr - 1.0)


_BY_MODEL = (
    "mean_krd", "eta_krd", "a_kr", "b_kr", "square_kr", "prior_kr2", "mass_k", "alarm_2kr", "late_kn", "tail_k",
)  # fmt: skip
_MODEL_AXIS = {"alarm_2kr": 1}
_PLAIN = (*_BY_MODEL, "ridge_d", "design_r")


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
