"""What is believed of the quality of models at a context, how widely that is drawn, and how new the context is to each.

A model's quality has a posterior under each strength of shrinkage (``bandit.shrinkage``). What is believed of it is their
mixture; a draw takes the Normal with the mixture's mean and a share of its standard deviation: half of what comes from the
level, a quarter of the rest. Where a context is new to a model a draw may be *wide* instead: the posterior under the weakest
shrinkage, its mean kept between 0 and 1, with the most noise that responses there can have. That happens with a probability
that grows with the model's novelty,

    l + (2q)²,

l = 1 / (mass of the prior + outcomes so far) being how little the model is known at all, and q the expectation of xᵀΣx over the
shrinkages, how little like this context was seen where that matters: the noise of half an observation is new for certain.
Answers without noise, or shrinkage found from contexts of one kind, make a conjugate posterior certain of what it never saw; a
wide draw is not (`docs/decisions/wide-draws.md`).

>>> from pointsman.bandit.posterior import Prior, add_models, empty, predict_batch
>>> posteriors = add_models(empty(dim=3, content=slice(0, 2)), 2, [Prior(0.5, b=0.5)] * 4)
>>> x_bd = np.array([[0.3, 0.1, 1.0]])
>>> believed = believed_quality(posteriors, QuadraticForms(x_bd), predict_batch(posteriors, x_bd, [QUALITY])[0][:, :, QUALITY])
>>> believed.mean_bk.tolist(), believed.sd_bk.round(2).tolist()
([[0.5, 0.5]], [[1.67, 1.67]])
>>> believed.draw_sd_bk.round(2).tolist()
[[0.8, 0.8]]
>>> believed.novelty.share_k.tolist()  # nothing is known of either
[[1.0, 1.0]]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pointsman.bandit.packed import Array, QuadraticForms
from pointsman.bandit.posterior import NONE, QUALITY, Posteriors, prior_quadratics

LEVEL_SPREAD, EFFECT_SPREAD = 0.5, 0.25
"""Shares of the standard deviation that are drawn: of a model's level, which one call anywhere tells of, and of what features
add. With tens of features the full spread explores for longer than it pays (Chapelle & Li, NIPS 2011, section 3); with few of
the level's, seeds stay with the second best."""
NEW_AT = 0.5
"""Expectation of xᵀΣx over the shrinkages, in units of the noise's variance, from which a context is new for certain."""
FAMILIAR = 0.04
"""Novelty below which there is none: that of 25 outcomes, or of a tenth of an observation's noise."""
MOST_NOISE = 0.25
"""Variance of the noise of a wide draw, at least: the most that a response between 0 and 1 can have."""


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """How new a context is to k models: (k) at one context or (b, k) at b contexts.

    ``share_k`` is the probability in [0, 1] that a model is drawn widely, if it were the only new one; ``mean_k`` and
    ``sd_k`` are of its quality then, scaled to [0, 1].
    """

    share_k: Array
    mean_k: Array
    sd_k: Array

    def map(self, change: Callable[[Array], Array]) -> Novelty:
        """With ``change`` of these arrays."""
        return Novelty(change(self.share_k), change(self.mean_k), change(self.sd_k))

    def scaled(self, factor_k: Array) -> Novelty:
        """That of ``factor_k`` times the quality."""
        return Novelty(self.share_k, self.mean_k * factor_k, self.sd_k * factor_k)

    def without(self, held_bk: npt.NDArray[np.bool_]) -> Novelty:
        """That of a batch whose models ``held_bk`` are not drawn widely."""
        return replace(self, share_k=np.where(held_bk, 0.0, self.share_k))


class BelievedQuality(NamedTuple):
    """What is believed of k models' quality, scaled to [0, 1], at b contexts: means, standard deviations, those of draws that are
    not wide (b, k), and novelty.
    """

    mean_bk: Array
    sd_bk: Array
    draw_sd_bk: Array
    novelty: Novelty


def believed_quality(posteriors: Posteriors, forms: QuadraticForms, mean_bk: Array) -> BelievedQuality:
    """What is believed at b contexts; ``mean_bk`` (b, k) are the means of the cells. O(b·k·d²)."""
    a1_k = posteriors.a_kr[:, QUALITY] - 1.0
    noise_k = posteriors.b_kr[:, QUALITY] / a1_k
    number = int(posteriors.design_r[QUALITY])
    if number == NONE:
        quadratic_sbk = [prior_quadratics(ridge_d, posteriors.mass_k, forms.x_bd) for ridge_d in posteriors.ridge_sd]
        expected_bk = sum(quadratic_sbk[1:], quadratic_sbk[0]) / len(quadratic_sbk)
        level_k = 1.0 / posteriors.mass_k
        novelty = _novelty(level_k, mean_bk, quadratic_sbk[-1], noise_k, expected_bk)
        return _with_draws(mean_bk, noise_k * expected_bk, noise_k * level_k, novelty)
    design = posteriors.designs[number]
    level_k, quadratic_bk = 1.0 / design.precision_kp[:, -1], forms.of(design.cov_kp)
    shrinkages = posteriors.shrinkages
    if shrinkages is None:
        novelty = _novelty(level_k, mean_bk, quadratic_bk, noise_k, quadratic_bk)
        return _with_draws(mean_bk, noise_k * quadratic_bk, noise_k * level_k, novelty)
    k, others, dim = shrinkages.mean_kwd.shape
    mean_bks, quadratic_bks = np.empty((2, len(mean_bk), k, others + 1))
    mean_bks[:, :, 0], quadratic_bks[:, :, 0] = mean_bk, quadratic_bk
    mean_bks[:, :, 1:] = forms.x_bd.dot(shrinkages.mean_kwd.reshape(-1, dim).T).reshape(-1, k, others)
    quadratic_bks[:, :, 1:] = forms.of(shrinkages.cov_kwp.reshape(k * others, -1)).reshape(-1, k, others)
    noise_ks = np.column_stack((noise_k, shrinkages.b_kw / a1_k[:, None]))
    expected_bk = np.einsum("bks,ks->bk", quadratic_bks, shrinkages.weight_ks)
    novelty = _novelty(level_k, mean_bks[:, :, -1], quadratic_bks[:, :, -1], noise_ks[:, -1], expected_bk)
    mean_bk = np.einsum("bks,ks->bk", mean_bks, shrinkages.weight_ks)
    variance_bks = mean_bks - mean_bk[:, :, None]
    variance_bks *= variance_bks
    variance_bks += noise_ks * quadratic_bks
    variance_bk = np.einsum("bks,ks->bk", variance_bks, shrinkages.weight_ks)
    return _with_draws(mean_bk, variance_bk, noise_k * level_k, novelty)


def _with_draws(mean_bk: Array, variance_bk: Array, level_variance_k: Array, novelty: Novelty) -> BelievedQuality:
    """With the standard deviations of draws; ``level_variance_k`` is the part of the variance that the level would have alone."""
    draw_variance_bk = np.minimum(variance_bk, level_variance_k)
    draw_variance_bk *= LEVEL_SPREAD**2 - EFFECT_SPREAD**2
    draw_variance_bk += EFFECT_SPREAD**2 * variance_bk
    return BelievedQuality(mean_bk, np.sqrt(variance_bk), np.sqrt(draw_variance_bk), novelty)


def _novelty(level_k: Array, mean_bk: Array, quadratic_bk: Array, noise_k: Array, expected_bk: Array) -> Novelty:
    """From how little models are known at all, and the mean, xᵀΣx and the noise under the weakest shrinkage; ``expected_bk`` is
    the expectation of xᵀΣx over the shrinkages.
    """
    share_bk = np.square(expected_bk * (1.0 / NEW_AT))
    share_bk += level_k
    np.minimum(share_bk, 1.0, out=share_bk)
    share_bk *= share_bk >= FAMILIAR
    return Novelty(share_bk, np.clip(mean_bk, 0.0, 1.0), np.sqrt(np.maximum(noise_k, MOST_NOISE) * quadratic_bk))


def wide_shares(novelty: Novelty, eligible_bk: npt.NDArray[np.bool_]) -> Array:
    """The probabilities (b, k) of wide draws at b contexts: 0 for models that are not eligible.

    Shares that sum to more than 1 over the eligible models are brought down to 1: one model is explored at a time, however
    many are new.
    """
    share_bk = novelty.share_k * eligible_bk
    share_bk /= np.maximum(np.add.reduce(share_bk, axis=1, keepdims=True), 1.0)
    return np.asarray(share_bk)
