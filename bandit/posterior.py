"""Normal-inverse-gamma linear regressions of quality, log cost and log latency, for all models of a bucket at once.

One cell is one (response, model): y = θ·x + noise, noise ~ N(0, σ²), θ | σ² ~ N(m, σ² Σ), σ² ~ InvGamma(a, b).
With precision Λ = Σ⁻¹ and natural mean η = Λm, an observation (x, y) of weight w adds w·xxᵀ to Λ, w·y·x to η and w/2
to a (Gelman et al., Bayesian Data Analysis, 14.2; Riquelme et al. 2018, arXiv 1802.09127, eq. 1-2).

What makes it fast and sound:
- Σ is kept beside Λ and follows it by the Sherman-Morrison formula, so that learning and predicting are O(d²) with no
  solve. Every ``REFRESH`` observations of a cell Σ and m are made anew from Λ and η, which are plain sums, by Cholesky:
  rounding cannot build up, and the moment at which it happens is a function of the events alone.
- Symmetric matrices are kept packed (p = d(d+1)/2 numbers). With z the packed xxᵀ (off-diagonals twice), the quadratic
  forms xᵀΣx of all cells are one matrix-vector product, and of a batch of contexts one matrix-matrix product.
- Only ``y`` enters η and b, so a correction y → y′ needs no downdate: Λ and Σ stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dspmv, dspr
from scipy.linalg.lapack import dpotrf, dpotri

Array = npt.NDArray[np.float64]

QUALITY, COST, LATENCY = 0, 1, 2
"""Indices of the responses: quality scaled to [0, 1], natural logarithms of dollars and of seconds."""
RESPONSES = 3
REFRESH = 256
"""Observations of a cell between two factorisations: O(d³) every 256 costs less than one O(d²) step on average."""
BATCH = 256
"""Contexts whose packed outer products are made at a time: 256 · 528 doubles (d = 32) stay in the second-level cache."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Where a cell starts: the intercept ~ N(``intercept``, σ²/``intercept_precision``), every other coefficient
    ~ N(0, σ²/``precision``), σ² ~ InvGamma(``a``, ``b``) with a > 1.
    """

    intercept: float
    intercept_precision: float
    precision: float
    a: float
    b: float


@dataclass(slots=True)
class Posteriors:
    """The cells of one bucket: r responses, k models, d features. Changed in place by ``observe`` and ``correct``.

    ``mean_rkd`` m; ``cov_rkp`` Σ and ``precision_rkp`` Λ packed; ``eta_rkd`` η; ``a_rk``, ``b_rk``; ``seen_rk`` how many
    observations each cell has had.
    """

    mean_rkd: Array
    eta_rkd: Array
    cov_rkp: Array
    precision_rkp: Array
    a_rk: Array
    b_rk: Array
    seen_rk: npt.NDArray[np.int64]

    @property
    def models(self) -> int:
        """k, the number of models."""
        return int(self.mean_rkd.shape[1])

    @property
    def dim(self) -> int:
        """d, the number of features with the intercept."""
        return int(self.mean_rkd.shape[2])


@lru_cache(maxsize=64)
def packed_indices(dim: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row and column of each packed number: column by column of the upper triangle, as BLAS packs it."""
    column, row = np.tril_indices(dim)
    return row, column


@lru_cache(maxsize=64)
def _doubled(dim: int) -> Array:
    """1 on the diagonal and 2 off it, packed: what a symmetric quadratic form counts each product."""
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


def empty(dim: int) -> Posteriors:
    """Posteriors over ``dim`` features with no models yet."""
    p = dim * (dim + 1) // 2
    return Posteriors(
        mean_rkd=np.empty((RESPONSES, 0, dim)),
        eta_rkd=np.empty((RESPONSES, 0, dim)),
        cov_rkp=np.empty((RESPONSES, 0, p)),
        precision_rkp=np.empty((RESPONSES, 0, p)),
        a_rk=np.empty((RESPONSES, 0)),
        b_rk=np.empty((RESPONSES, 0)),
        seen_rk=np.empty((RESPONSES, 0), dtype=np.int64),
    )


def add_model(posteriors: Posteriors, priors: tuple[Prior, Prior, Prior]) -> Posteriors:
    """The same cells and, last, those of one more model at ``priors`` (quality, log cost, log latency)."""
    mean_rd = np.zeros((RESPONSES, posteriors.dim))
    precision_rd = np.empty((RESPONSES, posteriors.dim))
    for r, prior in enumerate(priors):
        mean_rd[r, -1] = prior.intercept
        precision_rd[r, :-1] = prior.precision
        precision_rd[r, -1] = prior.intercept_precision

    def grow(old: Array, new: npt.ArrayLike) -> Array:
        return np.concatenate([old, np.asarray(new)[:, None]], axis=1)

    return Posteriors(
        mean_rkd=grow(posteriors.mean_rkd, mean_rd),
        eta_rkd=grow(posteriors.eta_rkd, mean_rd * precision_rd),
        cov_rkp=grow(
            posteriors.cov_rkp,
            [pack(np.diag(1.0 / precision_d)) for precision_d in precision_rd],
        ),
        precision_rkp=grow(
            posteriors.precision_rkp,
            [pack(np.diag(precision_d)) for precision_d in precision_rd],
        ),
        a_rk=grow(posteriors.a_rk, [prior.a for prior in priors]),
        b_rk=grow(posteriors.b_rk, [prior.b for prior in priors]),
        seen_rk=np.pad(posteriors.seen_rk, ((0, 0), (0, 1))),
    )


def without_model(posteriors: Posteriors, model: int) -> Posteriors:
    """The cells of all models but number ``model``."""
    return Posteriors(
        *(
            np.delete(getattr(posteriors, name), model, axis=1)
            for name in Posteriors.__slots__
        )
    )


def observe(
    posteriors: Posteriors,
    response: int,
    model: int,
    x_d: Array,
    y: float,
    weight: float = 1.0,
) -> None:
    """Learn in place that ``model`` answered ``y`` at ``x_d``, as ``weight`` > 0 observations. O(d²)."""
    cell = (response, model)
    mean_d, cov_p = posteriors.mean_rkd[cell], posteriors.cov_rkp[cell]
    v_d = dspmv(x_d.size, 1.0, cov_p, x_d)
    spread = float(x_d @ v_d)
    residual = y - float(mean_d @ x_d)
    gain = weight / (1.0 + weight * spread)
    mean_d += (gain * residual) * v_d
    posteriors.eta_rkd[cell] += (weight * y) * x_d
    cov_p[:] = dspr(x_d.size, -gain, v_d, cov_p, overwrite_ap=1)
    precision_p = posteriors.precision_rkp[cell]
    precision_p[:] = dspr(x_d.size, weight, x_d, precision_p, overwrite_ap=1)
    posteriors.a_rk[cell] += 0.5 * weight
    posteriors.b_rk[cell] += 0.5 * gain * residual * residual
    posteriors.seen_rk[cell] += 1
    if posteriors.seen_rk[cell] % REFRESH == 0:
        refresh(posteriors, response, model)


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
    v_d = dspmv(x_d.size, 1.0, posteriors.cov_rkp[cell], x_d)
    shift = weight * (after - before)
    posteriors.b_rk[cell] += (
        0.5
        * shift
        * (before + after - 2.0 * float(mean_d @ x_d) - shift * float(x_d @ v_d))
    )
    mean_d += shift * v_d
    posteriors.eta_rkd[cell] += shift * x_d


def refresh(posteriors: Posteriors, response: int, model: int) -> None:
    """Make Σ and m of one cell anew, in place, from Λ and η. O(d³)."""
    cell = (response, model)
    factor_dd, failed = dpotrf(unpack(posteriors.precision_rkp[cell], posteriors.dim))
    if failed:  # Λ is a sum of a positive diagonal and squares: only a broken file can make it otherwise
        raise ArithmeticError(
            f"precision of response {response}, model {model} is not positive definite"
        )
    inverse_dd, _ = dpotri(factor_dd)
    posteriors.cov_rkp[cell] = pack(
        inverse_dd
    )  # dpotri fills the upper triangle, which is what pack takes
    posteriors.mean_rkd[cell] = dspmv(
        posteriors.dim, 1.0, posteriors.cov_rkp[cell], posteriors.eta_rkd[cell]
    )


def predict(posteriors: Posteriors, x_d: Array) -> tuple[Array, Array]:
    """Mean and variance of θ·x for all cells, each (r, k).

    Given the data θ·x is Student-t with 2a degrees of freedom; the variance is that of this law, b/(a-1)·xᵀΣx.
    """
    row, column = packed_indices(x_d.size)
    z_p = x_d[row] * x_d[column]
    z_p *= _doubled(x_d.size)
    quadratic_rk = np.maximum(posteriors.cov_rkp @ z_p, 0.0)
    return posteriors.mean_rkd @ x_d, noise(posteriors) * quadratic_rk


def predict_batch(posteriors: Posteriors, x_bd: Array) -> tuple[Array, Array]:
    """``predict`` for b contexts at once, each (b, r, k)."""
    b, dim = x_bd.shape
    r, k = posteriors.a_rk.shape
    cov_cp = posteriors.cov_rkp.reshape(r * k, -1)
    quadratic_bc = np.empty((b, r * k))
    z_bp = np.empty((min(b, BATCH), cov_cp.shape[1]))
    for start in range(0, b, BATCH):
        chunk_bd = x_bd[start : start + BATCH]
        z = z_bp[: len(chunk_bd)]
        at = 0
        for j in range(dim):  # column j of the upper triangle: rows 0..j
            np.multiply(
                chunk_bd[:, : j + 1], chunk_bd[:, j : j + 1], out=z[:, at : at + j + 1]
            )
            at += j + 1
        z *= _doubled(dim)
        quadratic_bc[start : start + BATCH] = z @ cov_cp.T
    mean_bc = x_bd @ posteriors.mean_rkd.reshape(r * k, dim).T
    variance_brk = np.maximum(quadratic_bc, 0.0).reshape(b, r, k) * noise(posteriors)
    return mean_bc.reshape(b, r, k), variance_brk


def noise(posteriors: Posteriors) -> Array:
    """Expected noise variance E[σ²] = b/(a-1) of all cells, (r, k)."""
    return posteriors.b_rk / (posteriors.a_rk - 1.0)
