"""Quality under several strengths of shrinkage at once: how much a prompt's content says of a model cannot be known beforehand.

Each model's effects of content features (embeddings, text) have, a priori, one of three variances: the prior's precision times
one of ``CONTENT_SCALES``. Each scale has a conjugate posterior of its own on the same data,

    Λ_s = Σ w xxᵀ + Λ₀_s,   Σ_s = Λ_s⁻¹,   m_s = Σ_s η,   b_s = b₀ + ½ (Σ w y² + m₀ᵀΛ₀m₀ - m_sᵀη),

and a posterior probability proportional to its marginal likelihood |Λ₀_s|^½ |Λ_s|^-½ b_s^-a (Gelman et al., Bayesian Data
Analysis, 14.2; MacKay, "Bayesian interpolation", Neural Computation 1992). What is believed of a model's quality is the mixture.
Scale number 0 is the model's cell in ``bandit.posterior.Posteriors``; here are the others. All of it is a function of the sums
that forgetting, corrections and new priors change, so ``renew`` follows any of them.

>>> ridge_sd = ridges(dim=3, content=slice(0, 2), precision=8.0)
>>> ridge_sd.tolist()
[[8.0, 8.0, 8.0], [0.5, 0.5, 8.0], [0.03125, 0.03125, 8.0]]
>>> shrinkages = at_prior(ridge_sd, mass_k=np.array([0.1]), intercept_k=np.array([0.5]), b_k=np.array([0.5]))
>>> shrinkages.weight_ks.round(3).tolist()
[[0.333, 0.333, 0.333]]
>>> for quality in (0.0, 1.0) * 8:  # the first feature says it all
...     x_d = np.array([2.0 * quality - 1.0, 0.0, 1.0])
...     learn(shrinkages, 0, x_d, quality, share=1.0, widening=1.0)
>>> bool(shrinkages.b_kw[0, 1] < shrinkages.b_kw[0, 0])  # the weaker the prior, the smaller the noise that is left
True
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.linalg.blas import dspmv, dspr

from pointsman.bandit.packed import Array, diagonal_indices, invert

CONTENT_SCALES = (1.0, 1 / 16, 1 / 256)
"""Factors of the prior precision of content features' effects, from the strongest shrinkage to the weakest."""


@dataclass(slots=True)
class Shrinkages:
    """Posteriors of quality of k models under the w scales after the first, and the probabilities of all s = 1 + w of them.

    Σ packed, ``cov_kwp``; means, ``mean_kwd``; scales of the noise, ``b_kw``; ``volume_ks`` is ½ log|Λ₀| - ½ log|Λ|, up to a
    constant that all of a model's share. Changed in place by the functions below.
    """

    cov_kwp: Array
    mean_kwd: Array
    b_kw: Array
    volume_ks: Array
    weight_ks: Array


def ridges(dim: int, content: slice, precision: float) -> Array:
    """The prior precision (s, d) of every coefficient but the intercept (last, not used) under each scale; one row without
    content features.
    """
    if content.start == content.stop:
        return np.full((1, dim), precision)
    ridge_sd = np.full((len(CONTENT_SCALES), dim), precision)
    ridge_sd[:, content] *= np.array(CONTENT_SCALES)[:, None]
    return ridge_sd


def at_prior(ridge_sd: Array, mass_k: Array, intercept_k: Array, b_k: Array) -> Shrinkages:
    """The shrinkages of k models of which nothing was observed: all equally probable.

    ``mass_k``, ``intercept_k`` and ``b_k`` are of the priors (``bandit.posterior.Prior``).
    """
    k, (s, dim) = len(mass_k), ridge_sd.shape
    variance_kwd = np.repeat(1.0 / ridge_sd[None, 1:], k, axis=0)
    variance_kwd[:, :, -1] = 1.0 / mass_k[:, None]
    cov_kwp = np.zeros((k, s - 1, dim * (dim + 1) // 2))
    cov_kwp[:, :, diagonal_indices(dim)] = variance_kwd
    mean_kwd = np.zeros((k, s - 1, dim))
    mean_kwd[:, :, -1] = intercept_k[:, None]
    b_kw = np.repeat(b_k[:, None], s - 1, axis=1)
    return Shrinkages(cov_kwp, mean_kwd, b_kw, np.zeros((k, s)), np.full((k, s), 1.0 / s))


def joined(shrinkages: Shrinkages, more: Shrinkages) -> Shrinkages:
    """The shrinkages of the models of both, in this order."""
    return Shrinkages(
        *(np.concatenate([getattr(shrinkages, f.name), getattr(more, f.name)]) for f in fields(Shrinkages))
    )


def without(shrinkages: Shrinkages, model: int) -> Shrinkages:
    """The shrinkages of all models but number ``model``."""
    return Shrinkages(*(np.delete(getattr(shrinkages, f.name), model, axis=0) for f in fields(Shrinkages)))


def learn(shrinkages: Shrinkages, model: int, x_d: Array, y: float, share: float, widening: float) -> None:
    """Learn in place that ``model`` answered ``y`` at ``x_d`` with the weight ``share``. O(d²). ``reweigh`` must follow.

    ``widening`` is 1 + share·xᵀΣx of scale number 0, before.
    """
    volume_s = shrinkages.volume_ks[model]
    widenings = [widening]
    for w in range(len(shrinkages.b_kw[model])):
        cov_p, mean_d = shrinkages.cov_kwp[model, w], shrinkages.mean_kwd[model, w]
        v_d = dspmv(x_d.size, 1.0, cov_p, x_d)
        widening = 1.0 + share * float(x_d.dot(v_d))
        residual = y - float(x_d.dot(mean_d))
        gain = share / widening
        step = gain * residual
        mean_d += step * v_d
        dspr(x_d.size, -gain, v_d, cov_p, overwrite_ap=1)
        shrinkages.b_kw[model, w] += 0.5 * step * residual
        widenings.append(widening)
    volume_s -= 0.5 * np.log(widenings)


def correct(shrinkages: Shrinkages, model: int, x_d: Array, before: float, after: float, weight: float) -> None:
    """Learn in place that the answer at ``x_d``, learned as ``before`` with ``weight``, was ``after``. ``reweigh`` must
    follow.
    """
    shift = weight * (after - before)
    for w in range(len(shrinkages.b_kw[model])):
        mean_d = shrinkages.mean_kwd[model, w]
        v_d = dspmv(x_d.size, 1.0, shrinkages.cov_kwp[model, w], x_d)
        middle = before + after - 2.0 * float(mean_d.dot(x_d)) - shift * float(x_d.dot(v_d))
        shrinkages.b_kw[model, w] += 0.5 * shift * middle
        mean_d += shift * v_d


def renew(shrinkages: Shrinkages, model: int, ridge_sd: Array, precision_p: Array, log_root: float) -> None:
    """Recompute Σ of one model from its sums, in place. O(d³). ``solve_means`` must follow.

    ``precision_p`` is Λ of scale number 0, packed, and ``log_root`` ½ log|Λ|. Raises ``ArithmeticError`` if a Λ is not positive
    definite.
    """
    dim = ridge_sd.shape[1]
    shrinkages.volume_ks[model, 0] = -log_root
    for w, ridge_d in enumerate(ridge_sd[1:]):
        other_p = precision_p.copy()
        other_p[diagonal_indices(dim)[:-1]] += (ridge_d - ridge_sd[0])[:-1]
        shrinkages.cov_kwp[model, w], log_root = invert(other_p, dim)
        shrinkages.volume_ks[model, w + 1] = 0.5 * float(np.log(ridge_d[:-1] / ridge_sd[0, :-1]).sum()) - log_root


def add_to_intercept(shrinkages: Shrinkages, model: int, change: float, widening: float) -> None:
    """Make Σ of one model follow a ``change`` of its prior's mass, in place. O(d²). ``solve_means`` must follow.

    ``widening`` is 1 + change·Σ of the intercept, of scale number 0, before.
    """
    widenings = [widening]
    for cov_p in shrinkages.cov_kwp[model]:
        dim = shrinkages.mean_kwd.shape[2]
        column_d = cov_p[-dim:].copy()  # the last
        widening = 1.0 + change * float(column_d[-1])
        dspr(dim, -change / widening, column_d, cov_p, overwrite_ap=1)
        widenings.append(widening)
    shrinkages.volume_ks[model] -= 0.5 * np.log(widenings)


def solve_means(shrinkages: Shrinkages, model: int, eta_d: Array, prior_b: float, squares: float) -> None:
    """Make m and b of one model follow Σ and the sums, in place. O(d²). ``reweigh`` must follow.

    ``eta_d`` is η, ``squares`` Σ w y² + m₀ᵀΛ₀m₀.
    """
    for w, cov_p in enumerate(shrinkages.cov_kwp[model]):
        mean_d = dspmv(len(eta_d), 1.0, cov_p, eta_d)
        shrinkages.mean_kwd[model, w] = mean_d
        shrinkages.b_kw[model, w] = prior_b + 0.5 * max(squares - float(mean_d.dot(eta_d)), 0.0)


def reweigh(shrinkages: Shrinkages, model: int, a: float, b: float) -> None:
    """Make the probabilities of one model's scales follow from their marginal likelihoods, in place; ``a`` and ``b`` are those of
    its cell.
    """
    evidence_s = shrinkages.volume_ks[model] - a * np.log([b, *shrinkages.b_kw[model].tolist()])
    weight_s = np.exp(evidence_s - evidence_s.max())
    weight_s /= weight_s.sum()
    shrinkages.weight_ks[model] = weight_s
