"""What is believed of the quality of models at a context, as mixtures of Normals, and how much of it is new there.

A model's components are the posteriors under each strength of shrinkage (``bandit.shrinkage``) with their probabilities: what is
believed. One more component, *wide*, is for contexts of which a model has shown little: the posterior under the weakest
shrinkage, its mean kept between 0 and 1, with the most noise that responses there can have. A draw takes it with a probability
that grows with the model's novelty,

    l + (2q)²,

l = 1 / (mass of the prior + outcomes so far) being how little the model is known at all, and q = xᵀΣx of the weakest shrinkage
how little like this context was seen: the noise of half an observation is new for certain. Answers without noise, or shrinkage
found from contexts of one kind, make a conjugate posterior certain of what it never saw; the wide component is not
(`docs/decisions/mixture-draw.md`).

>>> from pointsman.bandit.posterior import Prior, add_models, empty, predict_batch
>>> posteriors = add_models(empty(dim=3, content=slice(0, 2)), 2, [Prior(0.5, b=0.5)] * 4)
>>> x_bd = np.array([[0.3, 0.1, 1.0]])
>>> mixture = quality_mixture(posteriors, QuadraticForms(x_bd), predict_batch(posteriors, x_bd, [QUALITY])[0][:, :, QUALITY])
>>> mixture.weight_kc.round(3).tolist()[0][0]  # three shrinkages and the wide component
[0.333, 0.333, 0.333, 1.0]
>>> mean_bk, sd_bk = mixture.moments()
>>> mean_bk.tolist(), sd_bk.round(2).tolist()
([[0.5, 0.5]], [[1.67, 1.67]])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pointsman.bandit.packed import Array, QuadraticForms
from pointsman.bandit.posterior import NONE, QUALITY, Posteriors, prior_quadratics

NEW_AT = 0.5
"""xᵀΣx of the weakest shrinkage, in units of the noise's variance, from which a context is new for certain."""
FAMILIAR = 0.004
"""Novelty below which there is none: the exploration floor does more."""
MOST_NOISE = 0.25
"""Variance of the noise of a wide component, at least: the most that a response between 0 and 1 can have."""


@dataclass(frozen=True, slots=True, eq=False)
class QualityMixture:
    """What is believed of k models' quality, scaled to [0, 1]: (k, c) at one context or (b, k, c) at b contexts.

    Weights, means and standard deviations of c components, of which the last is the wide one: its weight is the model's novelty,
    in [0, 1], that of the others are probabilities whose sum is 1.
    """

    weight_kc: Array
    mean_kc: Array
    sd_kc: Array

    def map(self, change: Callable[[Array], Array]) -> QualityMixture:
        """The mixture whose arrays are ``change`` of these."""
        return QualityMixture(change(self.weight_kc), change(self.mean_kc), change(self.sd_kc))

    def scaled(self, factor_k: Array) -> QualityMixture:
        """The mixture of ``factor_k`` times the quality."""
        factor_k1 = factor_k[:, None]
        return QualityMixture(self.weight_kc, self.mean_kc * factor_k1, self.sd_kc * factor_k1)

    def fixed(self, held_bk: npt.NDArray[np.bool_], value_bk: Array) -> QualityMixture:
        """The mixture of a batch with ``value_bk`` as the certain quality of the models ``held_bk``."""
        held_bk1 = held_bk[..., None]
        weight_bkc = self.weight_kc.copy()
        weight_bkc[held_bk, -1] = 0.0
        return QualityMixture(
            weight_bkc, np.where(held_bk1, value_bk[..., None], self.mean_kc), np.where(held_bk1, 0.0, self.sd_kc)
        )

    def moments(self) -> tuple[Array, Array]:
        """Mean and standard deviation of what is believed, without the wide component, each (…, k)."""
        weight_kc, mean_kc, sd_kc = self.weight_kc[..., :-1], self.mean_kc[..., :-1], self.sd_kc[..., :-1]
        if weight_kc.shape[-1] == 1:
            return mean_kc[..., 0], sd_kc[..., 0]
        mean_k = np.add.reduce(weight_kc * mean_kc, axis=-1)
        spread_kc = mean_kc - mean_k[..., None]
        variance_k = np.add.reduce(weight_kc * (sd_kc * sd_kc + spread_kc * spread_kc), axis=-1)
        return mean_k, np.sqrt(variance_k)


def quality_mixture(posteriors: Posteriors, forms: QuadraticForms, mean_bk: Array) -> QualityMixture:
    """What is believed at b contexts, (b, k, c); ``mean_bk`` are the means of the cells. O(b·k·d²)."""
    b, k = mean_bk.shape
    count = len(posteriors.ridge_sd)
    weight_bkc, mean_bkc = np.empty((b, k, count + 1)), np.empty((b, k, count + 1))
    quadratic_bkc, noise_kc = np.empty((b, k, count + 1)), np.empty((k, count + 1))
    number, shrinkages = int(posteriors.design_r[QUALITY]), posteriors.shrinkages
    last = count - 1
    mean_bkc[:, :, 0] = mean_bk
    noise_kc[:, 0] = posteriors.b_kr[:, QUALITY]
    if number == NONE:
        level_k = 1.0 / posteriors.mass_k
        weight_bkc[:, :, :-1] = 1.0 / count
        mean_bkc[:, :, 1:-1] = mean_bk[:, :, None]
        noise_kc[:, 1:-1] = noise_kc[:, :1]
        for s, ridge_d in enumerate(posteriors.ridge_sd):
            quadratic_bkc[:, :, s] = prior_quadratics(ridge_d, posteriors.mass_k, forms.x_bd)
    else:
        design = posteriors.designs[number]
        level_k = 1.0 / design.precision_kp[:, -1]
        quadratic_bkc[:, :, 0] = forms.of(design.cov_kp)
        if shrinkages is None:
            weight_bkc[:, :, 0] = 1.0
        else:
            dim = posteriors.dim
            weight_bkc[:, :, :-1] = shrinkages.weight_ks
            mean_bkc[:, :, 1:-1] = forms.x_bd.dot(shrinkages.mean_kwd.reshape(-1, dim).T).reshape(b, k, last)
            quadratic_bkc[:, :, 1:-1] = forms.of(shrinkages.cov_kwp.reshape(k * last, -1)).reshape(b, k, last)
            noise_kc[:, 1:-1] = shrinkages.b_kw
    noise_kc[:, :-1] /= posteriors.a_kr[:, QUALITY, None] - 1.0
    np.clip(mean_bkc[:, :, last], 0.0, 1.0, out=mean_bkc[:, :, -1])
    quadratic_bkc[:, :, -1] = quadratic_bkc[:, :, last]
    np.maximum(noise_kc[:, last], MOST_NOISE, out=noise_kc[:, -1])
    novelty_bk = np.square(quadratic_bkc[:, :, last] * (1.0 / NEW_AT))
    novelty_bk += level_k
    np.minimum(novelty_bk, 1.0, out=novelty_bk)
    weight_bkc[:, :, -1] = np.where(novelty_bk < FAMILIAR, 0.0, novelty_bk)
    return QualityMixture(weight_bkc, mean_bkc, np.sqrt(noise_kc * quadratic_bkc))


def draw_weights(mixture: QualityMixture, eligible_bk: npt.NDArray[np.bool_]) -> Array:
    """The probabilities (b, k, c) with which draws take each component, of a mixture at b contexts.

    Novelties that sum to more than 1 over the eligible models are brought down to 1: one model is explored at a time, however
    many are new.
    """
    novelty_bk = mixture.weight_kc[:, :, -1] * eligible_bk
    if not novelty_bk.any():
        return mixture.weight_kc
    novelty_bk /= np.maximum(np.add.reduce(novelty_bk, axis=1, keepdims=True), 1.0)
    weight_bkc = mixture.weight_kc * (1.0 - novelty_bk)[:, :, None]
    weight_bkc[:, :, -1] = novelty_bk
    return weight_bkc
