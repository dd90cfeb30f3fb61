"""Normal-inverse-gamma linear regressions of quality, log cost, log latency and log output tokens, for all models of a
bucket at once.

One cell is one (response, model): y = θ·x + noise, noise ~ N(0, σ²), θ | σ² ~ N(m, σ² Σ), σ² ~ InvGamma(a, b).
With precision Λ = Σ⁻¹ and natural mean η = Λm, an observation (x, y) of weight w adds w·xxᵀ to Λ, w·y·x to η and w/2
to a (Gelman et al., Bayesian Data Analysis, 14.2; Riquelme et al. 2018, arXiv 1802.09127, eq. 1-2).

What makes it fast, small and sound:
- Σ is kept beside Λ and follows it by the Sherman-Morrison formula, so that learning and predicting are O(d²) with no
  solve. Every ``updates.REFRESH`` observations of a cell Σ and m are recomputed from Λ and η, which are plain sums, by
  Cholesky: rounding cannot build up, and the moment at which it happens is a function of the events alone.
- Symmetric matrices are kept packed (p = d(d+1)/2 numbers). With z the packed xxᵀ (off-diagonals twice), the quadratic
  forms xᵀΣx of all models at one context are one matrix-vector product.
- Quality has posteriors under weaker priors of its content features beside that of its cell (``bandit.shrinkage``).
- Λ and Σ depend on the contexts seen, not on the answers. Amounts that have always been reported together share one
  ``Design``; the first report that has one without the other splits it. Their priors have the same Λ for that reason. Quality
  has a prior and a design of its own. A response of which nothing was ever reported has none, so that a bucket without
  outcomes is small.

``bandit.updates`` has what changes them: learning, corrections, forgetting.

>>> priors = [Prior(0.5, b=0.5)] * RESPONSES
>>> posteriors = add_models(empty(dim=3), 2, priors)
>>> mean_kr, variance_kr = predict(posteriors, np.array([1.0, 0.0, 1.0]))
>>> mean_kr[:, QUALITY].tolist()
[0.5, 0.5]
>>> variance_kr[:, QUALITY].tolist()  # E[σ²] = 0.25, times 1/8 + 1/0.1
[2.53125, 2.53125]
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dspmv, dspr

from pointsman.bandit import shrinkage
from pointsman.bandit.amounts import COST as COST
from pointsman.bandit.amounts import LATENCY as LATENCY
from pointsman.bandit.amounts import QUALITY as QUALITY
from pointsman.bandit.amounts import RESPONSES as RESPONSES
from pointsman.bandit.amounts import (
    SUMS,
    Amounts,
    Moments,
    assume_log_normal,
    calibrate,
    more_amounts,
    no_amounts,
    p95,
    without_amounts,
)
from pointsman.bandit.amounts import TOKENS as TOKENS
from pointsman.bandit.packed import (
    Array,
    QuadraticForms,
    diagonal_indices,
    invert,
    pack,
)
from pointsman.bandit.shrinkage import Shrinkages
from pointsman.bandit.token_slope import NO_EFFECT, TokenEffect, token_effect

NONE = -1
"""The design of a response of which nothing was ever reported."""
A, B, SQUARE, UP, DOWN = 0, 1, 2, 3, 4
"""Places of a cell's scalars."""
INTERCEPT_PRECISION = 0.1
"""Prior precision of the intercept, in units of the noise's: it gives way to the first few observations."""
PRECISION = 8.0
"""Prior precision of every other coefficient, in units of the noise's: eight responses outweigh it in one direction."""
AMOUNT_PRECISION = 1.0
"""The same of declared features' effects on the logarithms of cost, latency and tokens: what tasks and lengths do to these is
large beside the noise, what they do to quality is small."""
PRIOR_A = 3.0
"""Shape of every prior's σ²: worth six observations."""


@dataclass(frozen=True, slots=True)
class Prior:
    """A cell's prior, to which forgetting leads back: the intercept's mean is ``intercept``, that of other coefficients 0;
    σ² ~ InvGamma(``PRIOR_A``, ``b``).

    The precision is diagonal: the posteriors' ridge of the response and, last, the model's ``mass``: the observations that the
    prior intercept is worth.
    """

    intercept: float
    b: float


@dataclass(slots=True)
class Design:
    """Λ and Σ (packed) of k models for the responses that share it, how many observations each model has had, and the natural
    logarithm of the weight that forgetting has left of an observation made at the start. The last three are m, η and Σwz² of
    z, the logarithm of the input tokens (``bandit.token_slope``).
    """

    cov_kp: Array
    precision_kp: Array
    count_k: npt.NDArray[np.int64]
    log_decay_k: Array
    token_mean_kd: Array
    token_eta_kd: Array
    token_square_k: Array


@dataclass(slots=True)
class Posteriors:
    """The cells of one bucket: k models, r responses, d features. Changed in place by the functions below.

    ``mean_krd`` m; ``eta_krd`` η; ``scalar_krs`` the five scalars of a cell, in one place because they are read and written
    together: a, b, the sum of y², and the two sums of the change detector (``bandit.updates``). ``prior_kr2`` is the prior's
    intercept and b, ``mass_k`` its precision of the intercept. ``ridge_sd`` is that of quality's other coefficients, under each
    scale of its shrinkage, ``amount_ridge_d`` that of the amounts'. ``shrinkages`` are quality's posteriors under all rows but
    the first, ``None`` while no quality was reported or where there is one row only. ``design_r`` says
    which of ``designs`` a response uses, ``NONE`` for the prior's, whose log decay is ``idle_log_decay_1``. ``amounts``
    are the sums of cost, latency and tokens in natural units, and what they add to the regressions of logarithms
    (``bandit.amounts``).
    """

    mean_krd: Array
    eta_krd: Array
    scalar_krs: Array
    prior_kr2: Array
    mass_k: Array
    ridge_sd: Array
    amount_ridge_d: Array
    idle_log_decay_1: Array
    design_r: npt.NDArray[np.int64]
    designs: list[Design]
    amounts: Amounts
    shrinkages: Shrinkages | None = None

    def ridge_d(self, response: int) -> Array:
        """Prior precision of a response's coefficients but the intercept's; quality's under the strongest shrinkage. A view."""
        ridge_d: Array = self.ridge_sd[0] if response == QUALITY else self.amount_ridge_d
        return ridge_d

    def responses_of(self, design: int) -> list[int]:
        """The responses that share a design."""
        return np.flatnonzero(self.design_r == design).tolist()

    @property
    def a_kr(self) -> Array:
        """Shapes of the cells' σ²: a view."""
        return self.scalar_krs[:, :, A]

    @property
    def b_kr(self) -> Array:
        """Shrinkages of the cells' σ²: a view."""
        return self.scalar_krs[:, :, B]

    @property
    def square_kr(self) -> Array:
        """Sums of y²: a view."""
        return self.scalar_krs[:, :, SQUARE]

    @property
    def alarm_kr2(self) -> Array:
        """Sums of the change detector, upwards and downwards: a view."""
        return self.scalar_krs[:, :, UP:]

    @property
    def models(self) -> int:
        """k, the number of models."""
        return int(self.mean_krd.shape[0])

    @property
    def dim(self) -> int:
        """d, the number of features with the intercept."""
        return int(self.mean_krd.shape[2])


def prior_precision(ridge_d: Array, mass: float) -> Array:
    """The diagonal (d) of a prior's Λ whose intercept is worth ``mass`` observations."""
    diagonal_d = ridge_d.copy()
    diagonal_d[-1] = mass
    return diagonal_d


def empty(dim: int, content: slice = slice(0, 0)) -> Posteriors:
    """Posteriors over ``dim`` features, of which ``content`` are made of the content, with no models yet."""
    return Posteriors(
        mean_krd=np.empty((0, RESPONSES, dim)),
        eta_krd=np.empty((0, RESPONSES, dim)),
        scalar_krs=np.empty((0, RESPONSES, DOWN + 1)),
        prior_kr2=np.empty((0, RESPONSES, 2)),
        mass_k=np.empty(0),
        ridge_sd=shrinkage.ridges(dim, content, PRECISION),
        amount_ridge_d=_amount_ridge(dim, content),
        idle_log_decay_1=np.zeros(1),
        design_r=np.full(RESPONSES, NONE, dtype=np.int64),
        designs=[],
        amounts=no_amounts(0),
    )


def _amount_ridge(dim: int, content: slice) -> Array:
    """Prior precision of the coefficients of amounts: weak but for content features, of which there are many."""
    ridge_d = np.full(dim, AMOUNT_PRECISION)
    ridge_d[content] = PRECISION
    return ridge_d


def add_models(
    posteriors: Posteriors, count: int, priors: Sequence[Prior], mass: float = INTERCEPT_PRECISION
) -> Posteriors:
    """The same cells and, last, those of ``count`` more models at ``priors``, one for each response."""
    precision_rd = np.array([prior_precision(posteriors.ridge_d(response), mass) for response in range(RESPONSES)])
    mean_rd = np.zeros((RESPONSES, posteriors.dim))
    mean_rd[:, -1] = [prior.intercept for prior in priors]

    def grow(old: Array, new: npt.ArrayLike) -> Array:
        return np.concatenate([old, np.repeat(np.asarray(new)[None], count, axis=0)])

    return Posteriors(
        mean_krd=grow(posteriors.mean_krd, mean_rd),
        eta_krd=grow(posteriors.eta_krd, mean_rd * precision_rd),
        scalar_krs=grow(posteriors.scalar_krs, [(PRIOR_A, prior.b, 0.0, 0.0, 0.0) for prior in priors]),
        prior_kr2=grow(posteriors.prior_kr2, [(prior.intercept, prior.b) for prior in priors]),
        mass_k=grow(posteriors.mass_k, mass),
        ridge_sd=posteriors.ridge_sd,
        amount_ridge_d=posteriors.amount_ridge_d,
        idle_log_decay_1=posteriors.idle_log_decay_1,
        design_r=posteriors.design_r,
        shrinkages=None
        if posteriors.shrinkages is None
        else _grow_shrinkages(posteriors, count, priors[QUALITY], mass),
        designs=[
            Design(
                grow(design.cov_kp, pack(np.diag(1.0 / precision_rd[response]))),
                grow(design.precision_kp, pack(np.diag(precision_rd[response]))),
                np.concatenate([design.count_k, np.zeros(count, dtype=np.int64)]),
                grow(design.log_decay_k, 0.0),
                grow(design.token_mean_kd, np.zeros(posteriors.dim)),
                grow(design.token_eta_kd, np.zeros(posteriors.dim)),
                grow(design.token_square_k, 0.0),
            )
            for number, design in enumerate(posteriors.designs)
            for response in posteriors.responses_of(number)[:1]
        ],
        amounts=more_amounts(posteriors.amounts, count, [prior.b for prior in priors]),
    )


def _grow_shrinkages(posteriors: Posteriors, count: int, prior: Prior, mass: float) -> Shrinkages:
    """Quality's shrinkages with those of ``count`` more models at ``prior``."""
    assert posteriors.shrinkages is not None
    new = shrinkage.at_prior(
        posteriors.ridge_sd, *(np.full(count, value) for value in (mass, prior.intercept, prior.b))
    )
    return shrinkage.joined(posteriors.shrinkages, new)


def without_model(posteriors: Posteriors, model: int) -> Posteriors:
    """The cells of all models but number ``model``."""
    kept = {name: np.delete(getattr(posteriors, name), model, axis=0) for name in _BY_MODEL}
    return Posteriors(
        **kept,
        ridge_sd=posteriors.ridge_sd,
        amount_ridge_d=posteriors.amount_ridge_d,
        idle_log_decay_1=posteriors.idle_log_decay_1,
        design_r=posteriors.design_r,
        shrinkages=None if posteriors.shrinkages is None else shrinkage.without(posteriors.shrinkages, model),
        designs=[
            Design(*(np.delete(getattr(design, f.name), model, axis=0) for f in fields(design)))
            for design in posteriors.designs
        ],
        amounts=without_amounts(posteriors.amounts, model),
    )


def set_prior(posteriors: Posteriors, model: int, priors: Sequence[Prior], mass: float) -> None:
    """Put other priors under what was learned of ``model``, in place: as if it had started from them. O(d²).

    Only the intercept's precision changes, so Σ follows by the Sherman-Morrison formula.
    """
    dim, change = posteriors.dim, mass - float(posteriors.mass_k[model])
    eta_r = mass * np.array([prior.intercept for prior in priors])
    posteriors.eta_krd[model, :, -1] += eta_r - posteriors.mass_k[model] * posteriors.prior_kr2[model, :, 0]
    posteriors.prior_kr2[model] = [(prior.intercept, prior.b) for prior in priors]
    posteriors.mass_k[model] = mass
    unobserved = posteriors.design_r == NONE
    posteriors.mean_krd[model, unobserved, -1] = posteriors.prior_kr2[model, unobserved, 0]
    posteriors.b_kr[model, unobserved] = posteriors.prior_kr2[model, unobserved, 1]
    for number, design in enumerate(posteriors.designs):
        design.precision_kp[model, -1] += change
        cov_p = design.cov_kp[model]
        column_d = cov_p[-dim:].copy()  # the last
        widening = 1.0 + change * float(column_d[-1])
        dspr(dim, -change / widening, column_d, cov_p, overwrite_ap=1)
        if posteriors.shrinkages is not None and posteriors.design_r[QUALITY] == number:
            shrinkage.add_to_intercept(posteriors.shrinkages, model, change, widening)
        _solve_means(posteriors, number, model)


def weaken_prior(posteriors: Posteriors, model: int, mass: float) -> None:
    """Let the prior of ``model`` be worth at most ``mass`` observations, in place. O(d²)."""
    if posteriors.mass_k[model] > mass:
        set_prior(posteriors, model, [Prior(*pair) for pair in posteriors.prior_kr2[model].tolist()], mass)


def refresh(posteriors: Posteriors, design: int, model: int) -> None:
    """Recompute Σ of one model in one design, and m and b of the responses that share it, in place, from the sums. O(d³).

    Raises ``ArithmeticError`` if Λ is not positive definite.
    """
    dim, shared = posteriors.dim, posteriors.designs[design]
    shared.cov_kp[model], log_root = invert(shared.precision_kp[model], dim)
    if posteriors.shrinkages is not None and posteriors.design_r[QUALITY] == design:
        shrinkage.renew(posteriors.shrinkages, model, posteriors.ridge_sd, shared.precision_kp[model], log_root)
    _solve_means(posteriors, design, model)


def _solve_means(posteriors: Posteriors, design: int, model: int) -> None:
    """Make m and b of one model, for the responses that share a design, follow Σ and the sums, in place."""
    dim, shared = posteriors.dim, posteriors.designs[design]
    cov_p = shared.cov_kp[model]
    for response in posteriors.responses_of(design):
        cell = (model, response)
        eta_d, (intercept, b) = posteriors.eta_krd[cell], posteriors.prior_kr2[cell].tolist()
        posteriors.mean_krd[cell] = dspmv(posteriors.dim, 1.0, cov_p, eta_d)
        squares = float(posteriors.square_kr[cell] + posteriors.mass_k[model] * intercept**2)
        posteriors.b_kr[cell] = b + 0.5 * max(squares - float(posteriors.mean_krd[cell].dot(eta_d)), 0.0)
        if response == QUALITY and posteriors.shrinkages is not None:
            shrinkage.solve_means(posteriors.shrinkages, model, eta_d, b, squares)
            reweigh(posteriors, model)
    shared.token_mean_kd[model] = dspmv(dim, 1.0, cov_p, shared.token_eta_kd[model])
    posteriors.amounts.stale.add(model)


def reweigh(posteriors: Posteriors, model: int) -> None:
    """Make the probabilities of the shrinkages of one model's quality follow from their evidence, in place."""
    if posteriors.shrinkages is not None:
        a, b = posteriors.scalar_krs[model, QUALITY, : B + 1].tolist()
        shrinkage.reweigh(posteriors.shrinkages, model, a, b)


def settle(posteriors: Posteriors) -> Amounts:
    """The amounts, with all that is derived from the sums up to date. What it changes is no state."""
    amounts = posteriors.amounts
    for model in amounts.stale:
        for response in (COST, LATENCY, TOKENS):
            effect = _token_effect(posteriors, model, response)
            amounts.slope_kr[model, response], amounts.slope_precision_kr[model, response] = effect[:2]
            calibrate(amounts, model, response, moments_of(posteriors, model, response, effect.explained))
    amounts.stale.clear()
    return amounts


def lower_p95(posteriors: Posteriors, z: float) -> Array:
    """``Amounts.p95_k2`` with ``z`` standard deviations of the share of latencies beyond the percentile less, (k, 2)."""
    rows = []
    for model in range(posteriors.models):
        explained = _token_effect(posteriors, model, LATENCY).explained
        rows.append(p95(posteriors.amounts, model, moments_of(posteriors, model, LATENCY, explained), z))
    return np.array(rows).reshape(-1, 2)


def _token_effect(posteriors: Posteriors, model: int, response: int) -> TokenEffect:
    """The effect of the input tokens on one response of a model."""
    number = int(posteriors.design_r[response])
    if number == NONE or not (square := float(posteriors.designs[number].token_square_k[model])):
        return NO_EFFECT
    eta_d, mean_d = posteriors.designs[number].token_eta_kd[model], posteriors.designs[number].token_mean_kd[model]
    cross = float(posteriors.amounts.cross_kr[model, response])
    return token_effect(eta_d, mean_d, square, cross, posteriors.mean_krd[model, response])


def moments_of(posteriors: Posteriors, model: int, response: int, explained: float = 0.0) -> Moments:
    """What the regression of one response of a model says of its logarithms; ``explained`` is what the tokens take off b."""
    a, b, square, *_ = posteriors.scalar_krs[model, response].tolist()
    intercept, prior_b = posteriors.prior_kr2[model, response].tolist()
    number, mass, weight = int(posteriors.design_r[response]), float(posteriors.mass_k[model]), 2.0 * (a - PRIOR_A)
    if number == NONE:
        return Moments(0.0, intercept, 0.0, None, prior_b)
    level = (
        float(posteriors.designs[number].precision_kp[model, -1]) - mass
    )  # less than the weight after ``allow_shift``
    divisor = max(weight, 1e-300)
    mean = (float(posteriors.eta_krd[model, response, -1]) - mass * intercept) / max(level, 1e-300)
    variance = max(0.0, (square - level * mean * mean) / divisor)
    unexplained = None
    if posteriors.dim > 1 or explained:  # b holds what the prior's distance from the data costs, too
        distance = float(posteriors.mean_krd[model, response, -1]) - intercept
        unexplained = max(0.0, (2.0 * (b - explained - prior_b) - mass * distance * distance) / divisor)
    return Moments(weight, mean, variance, unexplained, prior_b)


def predict(posteriors: Posteriors, x_d: Array) -> tuple[Array, Array]:
    """Mean and variance of θ·x for all cells, each (k, r).

    Given the data θ·x is Student-t with 2a degrees of freedom; the variance is that of this law, b/(a-1)·xᵀΣx.
    """
    mean_bkr, quadratics = predict_batch(posteriors, x_d[None], range(RESPONSES))
    return mean_bkr[0], np.array([quadratic_bk[0] for quadratic_bk in quadratics]).T * noise(posteriors)


def predict_batch(
    posteriors: Posteriors, x_bd: Array, responses: Sequence[int], forms: QuadraticForms | None = None
) -> tuple[Array, list[Array]]:
    """Means of θ·x for b contexts and all cells, (b, k, r), and, for each of ``responses``, xᵀΣx of all models, (b, k).

    ``forms`` are those of the same contexts, if the caller needs more of them.
    """
    forms = QuadraticForms(x_bd) if forms is None else forms
    quadratics: list[Array] = []
    by_number: dict[int, Array] = {}
    for response in responses:
        number = int(posteriors.design_r[response])
        if number == NONE:
            quadratics.append(prior_quadratics(posteriors.ridge_d(response), posteriors.mass_k, x_bd))
            continue
        if number not in by_number:
            by_number[number] = forms.of(posteriors.designs[number].cov_kp)
        quadratics.append(by_number[number])
    mean_kr_d = posteriors.mean_krd.reshape(posteriors.models * RESPONSES, posteriors.dim)
    mean_bkr = x_bd.dot(mean_kr_d.T).reshape(len(x_bd), posteriors.models, RESPONSES)
    return mean_bkr, quadratics


def prior_quadratics(ridge_d: Array, mass_k: Array, x_bd: Array) -> Array:
    """xᵀΛ₀⁻¹x of priors, (b, k), at b contexts."""
    square_bd = x_bd * x_bd
    return (square_bd[:, :-1] @ (1.0 / ridge_d[:-1]))[:, None] + square_bd[:, -1:] / mass_k


def noise(posteriors: Posteriors) -> Array:
    """Expected noise variance E[σ²] = b/(a-1) of all cells, (k, r)."""
    return posteriors.b_kr / (posteriors.a_kr - 1.0)


def observation_counts(posteriors: Posteriors) -> npt.NDArray[np.int64]:
    """How often each response of each model was observed, (k, r)."""
    nothing_k = np.zeros(posteriors.models, dtype=np.int64)
    return np.array([nothing_k if g == NONE else posteriors.designs[g].count_k for g in posteriors.design_r.tolist()]).T


_BY_MODEL = ("mean_krd", "eta_krd", "scalar_krs", "prior_kr2", "mass_k")
_PLAIN = (*_BY_MODEL, "ridge_sd", "amount_ridge_d", "idle_log_decay_1", "design_r")


def to_arrays(posteriors: Posteriors) -> dict[str, npt.NDArray[np.generic]]:
    """All the arrays of ``posteriors`` by name, in a fixed order."""
    named: dict[str, npt.NDArray[np.generic]] = {}
    for name in _PLAIN:
        named[name] = getattr(posteriors, name)
    for g, design in enumerate(posteriors.designs):
        for f in fields(design):
            named[f"{f.name}/{g}"] = getattr(design, f.name)
    for name in SUMS:
        named[name] = getattr(posteriors.amounts, name)
    if posteriors.shrinkages is not None:
        for f in fields(Shrinkages):
            named[f.name] = getattr(posteriors.shrinkages, f.name)
    return named


def from_arrays(named: Mapping[str, npt.NDArray[Any]], content: slice = slice(0, 0)) -> Posteriors:
    """The posteriors of ``to_arrays``, also of versions without sums of amounts or several shrinkages; ``content`` are the
    features made of the content. Raises ``KeyError`` if an array is missing.
    """
    if "ridge_sd" not in named:
        return _from_former_arrays(named, content)
    count = sum(name.startswith("cov_kp/") for name in named)
    posteriors = Posteriors(
        **{name: named[name] for name in _PLAIN},
        designs=[_read_design(named, g) for g in range(count)],
        amounts=no_amounts(len(named["mass_k"])),
        shrinkages=Shrinkages(*(named[f.name] for f in fields(Shrinkages)))
        if fields(Shrinkages)[0].name in named
        else None,
    )
    amounts = posteriors.amounts
    amounts.stale.update(range(posteriors.models))
    if "sum_kr" in named:
        for name in SUMS:
            setattr(amounts, name, named.get(name, getattr(amounts, name)))
    else:
        for model, response in itertools.product(range(posteriors.models), (COST, LATENCY, TOKENS)):
            assume_log_normal(amounts, model, response, moments_of(posteriors, model, response))
    return posteriors


def _read_design(named: Mapping[str, npt.NDArray[Any]], number: int) -> Design:
    """Design ``number`` of ``to_arrays``; its tokens are nothing where they were not kept."""
    k, _, dim = named["mean_krd"].shape
    nothing: dict[str, npt.NDArray[Any]] = {
        "token_mean_kd": np.zeros((k, dim)),
        "token_eta_kd": np.zeros((k, dim)),
        "token_square_k": np.zeros(k),
    }
    places = [(f.name, f"{f.name}/{number}") for f in fields(Design)]
    return Design(*(named[place] if place in named else nothing[name] for name, place in places))


def _from_former_arrays(named: Mapping[str, npt.NDArray[Any]], content: slice) -> Posteriors:
    """The posteriors of arrays from before there were several shrinkages: those follow from the sums.

    There was one precision of content features, fitted to the outcomes, for all responses, and quality shared designs.
    """
    named = dict(named)
    ridge_d = named.pop("ridge_d")
    named["ridge_sd"] = shrinkage.ridges(len(ridge_d), content, PRECISION)
    named["amount_ridge_d"] = _amount_ridge(len(ridge_d), content)
    posteriors = from_arrays(named)
    if posteriors.design_r[QUALITY] != NONE and (posteriors.design_r == posteriors.design_r[QUALITY]).sum() > 1:
        posteriors.designs.append(_copy(posteriors.designs[posteriors.design_r[QUALITY]]))
        posteriors.design_r[QUALITY] = len(posteriors.designs) - 1
    if len(posteriors.ridge_sd) > 1 and posteriors.design_r[QUALITY] != NONE:
        posteriors.shrinkages = _prior_shrinkages(posteriors)
    for number, design in enumerate(posteriors.designs):
        change_d = posteriors.ridge_d(posteriors.responses_of(number)[0]) - ridge_d
        change_d[-1] = 0.0
        design.precision_kp[:, diagonal_indices(posteriors.dim)] += change_d
        for model in range(posteriors.models):
            refresh(posteriors, number, model)
    return posteriors


def _prior_shrinkages(posteriors: Posteriors) -> Shrinkages:
    """Quality's shrinkages before any outcome."""
    intercept_k, b_k = posteriors.prior_kr2[:, QUALITY].T
    return shrinkage.at_prior(posteriors.ridge_sd, posteriors.mass_k, intercept_k, b_k)


def by_design(
    posteriors: Posteriors, answers: Sequence[tuple[int, float]]
) -> list[tuple[int, list[tuple[int, float]]]]:
    """The answers grouped by design. A design of which only some responses are answered is split first, in place; responses
    that have none get one.
    """
    design_r = posteriors.design_r.tolist()
    groups: dict[tuple[int, bool], list[tuple[int, float]]] = {}
    for answer in answers:
        groups.setdefault((design_r[answer[0]], answer[0] == QUALITY), []).append(answer)
    by_number = []
    for (number, _), grouped in groups.items():
        responses = [response for response, _ in grouped]
        if number == NONE or len(grouped) < design_r.count(number):
            posteriors.designs.append(
                _prior_design(posteriors, responses[0]) if number == NONE else _copy(posteriors.designs[number])
            )
            number = len(posteriors.designs) - 1
            if QUALITY in responses and posteriors.design_r[QUALITY] == NONE and len(posteriors.ridge_sd) > 1:
                posteriors.shrinkages = _prior_shrinkages(posteriors)
            posteriors.design_r[responses] = number
        by_number.append((number, grouped))
    return by_number


def _copy(design: Design) -> Design:
    return Design(*(getattr(design, f.name).copy() for f in fields(design)))


def _prior_design(posteriors: Posteriors, response: int) -> Design:
    """The design of a response of all models before any outcome."""
    k, dim = posteriors.models, posteriors.dim
    diagonal_kd = np.repeat(posteriors.ridge_d(response)[None], k, axis=0)
    diagonal_kd[:, -1] = posteriors.mass_k
    design = Design(
        np.zeros((k, dim * (dim + 1) // 2)),
        np.zeros((k, dim * (dim + 1) // 2)),
        np.zeros(k, dtype=np.int64),
        np.full(k, posteriors.idle_log_decay_1[0]),
        np.zeros((k, dim)),
        np.zeros((k, dim)),
        np.zeros(k),
    )
    design.cov_kp[:, diagonal_indices(dim)] = 1.0 / diagonal_kd
    design.precision_kp[:, diagonal_indices(dim)] = diagonal_kd
    return design
