"""The effect of a request's length: the regressions of amounts know the logarithm of the input tokens, whatever the schema.

A model's dollars, seconds and output tokens depend on how long the prompt is, and every request says that, or its text does.
As a feature it would be one of quality too. So it is put beside x instead: in each design the logarithm z of the input tokens
is itself regressed on x (its mean m_z), and with the sum Σwzy of a response y the joint solution follows by elimination
(Frisch & Waugh 1933; Lovell 1963),

    β = (Σwzy - η_z·m_y) / (λ + Σwz² - η_z·m_z),   E[y | x, z] = m_y·x + β (z - m_z·x),

that of a ridge regression on (x, z) with the prior precision λ for β, in units of the noise's. Where the tokens of a request
are not known the last term is left out: z is then as x lets expect. All of it is sums.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> x_nd, z_n = np.column_stack([rng.normal(size=50), np.ones(50)]), rng.normal(size=50)
>>> y_n = x_nd @ [0.5, -7.0] + 0.9 * z_n
>>> precision_dd = np.diag([8.0, 0.1]) + x_nd.T @ x_nd
>>> eta_z_d, mean_y_d = x_nd.T @ z_n, np.linalg.solve(precision_dd, x_nd.T @ y_n)
>>> effect = token_effect(eta_z_d, np.linalg.solve(precision_dd, eta_z_d), float(z_n @ z_n), float(z_n @ y_n), mean_y_d)
>>> joint_dd = np.block([[precision_dd, eta_z_d[:, None]], [eta_z_d[None], np.array([[SLOPE_PRECISION + z_n @ z_n]])]])
>>> bool(np.isclose(effect.slope, np.linalg.solve(joint_dd, [*(x_nd.T @ y_n), z_n @ y_n])[-1]))
True
"""

from __future__ import annotations

import math
from typing import NamedTuple

from pointsman.bandit.packed import Array

SLOPE_PRECISION = 0.25
"""λ, the prior precision of the effect in units of the noise's: amounts are often proportional to the tokens, so it is weak."""
CENTER = 256.0
"""Tokens whose logarithm is taken as 0: as what calls count whose tokens are not known."""


class TokenEffect(NamedTuple):
    """β, its posterior precision in units of the noise's, and what it takes off the scale b of a response's noise."""

    slope: float
    precision: float
    explained: float


NO_EFFECT = TokenEffect(0.0, SLOPE_PRECISION, 0.0)
"""Of a model of whose calls the tokens were never known."""


def log_tokens(input_tokens: int) -> float:
    """The logarithm of a number of input tokens, 0 if it is not known (-1)."""
    return math.log((1.0 + input_tokens) / CENTER) if input_tokens >= 0 else 0.0


def token_effect(eta_d: Array, mean_d: Array, square: float, cross: float, response_mean_d: Array) -> TokenEffect:
    """The effect on one response of a model: η_z and m_z of its design, Σwz², Σwzy, and m_y."""
    precision = SLOPE_PRECISION + max(0.0, square - float(eta_d.dot(mean_d)))
    covariance = cross - float(eta_d.dot(response_mean_d))
    return TokenEffect(covariance / precision, precision, 0.5 * covariance * covariance / precision)
