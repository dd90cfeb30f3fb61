"""Symmetric matrices as packed vectors of p = d(d+1)/2 numbers: half the memory, and quadratic forms as dot products.

The order is BLAS's: column by column of the upper triangle, (0, 0), (0, 1), (1, 1), (0, 2), …

>>> matrix_dd = np.array([[2.0, 1.0], [1.0, 3.0]])
>>> packed_p = pack(matrix_dd)
>>> packed_p.tolist()
[2.0, 1.0, 3.0]
>>> unpack(packed_p, 2).tolist()
[[2.0, 1.0], [1.0, 3.0]]
>>> x_bd = np.array([[1.0, 2.0]])
>>> (packed_outer(x_bd) @ packed_p).tolist()  # xᵀMx
[18.0]
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpotrf, dtrtri

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

BATCH = 256
"""Contexts multiplied at a time: the products with 8 models at d = 32, 256 · 256 doubles, stay in the second-level cache."""


@lru_cache(maxsize=64)
def packed_indices(dim: int) -> tuple[Indices, Indices]:
    """Row and column of each packed number: column by column of the upper triangle, as BLAS packs it."""
    column, row = np.tril_indices(dim)
    return row, column


@lru_cache(maxsize=64)
def diagonal_indices(dim: int) -> Indices:
    """Where the diagonal is, packed."""
    return np.cumsum(np.arange(1, dim + 1)) - 1


@lru_cache(maxsize=64)
def multiplicities(dim: int) -> Array:
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


def invert(matrix_p: Array, dim: int) -> tuple[Array, float]:
    """The inverse, packed, of a positive definite matrix, and half the logarithm of its determinant. O(d³).

    Raises ``ArithmeticError`` if it is not positive definite.
    """
    factor_dd, failed = dpotrf(unpack(matrix_p, dim))
    if failed:  # a precision is a sum of a positive diagonal and squares: only a broken file can make it otherwise
        raise ArithmeticError("a precision is not positive definite")
    log_root = float(np.log(factor_dd.diagonal()).sum())
    root_dd, _ = dtrtri(factor_dd)  # not dpotri, which starts threads for no gain
    return pack(dsyrk(1.0, root_dd)), log_root  # the upper triangle, which is what pack takes


def packed_outer(x_bd: Array) -> Array:
    """The packed xxᵀ, off-diagonals twice, (b, p)."""
    dim = x_bd.shape[1]
    row, column = packed_indices(dim)
    z_bp = x_bd.take(row, axis=1)
    z_bp *= x_bd.take(column, axis=1)
    z_bp *= multiplicities(dim)
    return z_bp


FEW = 16
"""Contexts below which unpacking the matrices for a matrix product costs more than it saves."""


class QuadraticForms:
    """xᵀMx at b contexts for any packed matrices; what depends on the contexts only is worked out once."""

    def __init__(self, x_bd: Array) -> None:
        self.x_bd = x_bd
        self._z_bp: Array | None = None

    def of(self, matrix_kp: Array) -> Array:
        """xᵀMx of k positive definite matrices, (b, k): by packed vectors for a few contexts, O(k·d²/2), by matrix products for
        many.
        """
        if len(self.x_bd) >= FEW:
            return quadratic_forms(matrix_kp, self.x_bd)
        if self._z_bp is None:
            self._z_bp = packed_outer(self.x_bd)
        form_bk: Array = self._z_bp.dot(matrix_kp.T)
        return np.maximum(form_bk, 0.0, out=form_bk)


def quadratic_forms(cov_kp: Array, x_bd: Array) -> Array:
    """xᵀΣx of all models (k) for a batch of contexts (b)."""
    (b, dim), k = x_bd.shape, len(cov_kp)
    row, column = packed_indices(dim)
    cov_kdd = np.empty((k, dim, dim))
    cov_kdd[:, row, column] = cov_kdd[:, column, row] = cov_kp
    cov_dkd = np.ascontiguousarray(cov_kdd.transpose(1, 0, 2)).reshape(dim, k * dim)
    quadratic_bk = np.empty((b, k))
    for start in range(0, b, BATCH):
        chunk_bd = x_bd[start : start + BATCH]
        product_bkd = (chunk_bd @ cov_dkd).reshape(-1, k, dim)
        product_bkd *= chunk_bd[:, None]
        np.add.reduce(product_bkd, axis=2, out=quadratic_bk[start : start + BATCH])
    return np.maximum(quadratic_bk, 0.0, out=quadratic_bk)
