"""Tables made of other tables: a model with another's outcomes, rewards exchanged or turned round, tokens that explain costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pointsman.bandit.catalog import Prices, QualityRange
from pointsman.bandit.text import estimate_tokens
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable

_MOST_INPUT = 0.9
"""Largest share of a call's cost that its input may have been."""


def with_model(
    table: OutcomeTable,
    model: str,
    *,
    quality_of: str,
    cost_of: str,
    quality_factor: float = 1.0,
    cost_factor: float = 1.0,
) -> OutcomeTable:
    """``table`` with one more model, last: one model's quality and another's cost, latency and tokens, times factors.

    Raises ``SettingError`` for a model that is not there, or one that is there already.
    """
    for source in (quality_of, cost_of):
        if source not in table.models:
            raise SettingError(f"{table.name}: expected one of the models {', '.join(table.models)}, got {source!r}")
    if model in table.models:
        raise SettingError(f"{table.name}: has a model {model!r} already")
    q, c = table.models.index(quality_of), table.models.index(cost_of)
    return replace(
        table,
        models=(*table.models, model),
        quality_nk=np.column_stack([table.quality_nk, quality_factor * table.quality_nk[:, q]]),
        cost_nk=np.column_stack([table.cost_nk, cost_factor * table.cost_nk[:, c]]),
        latency_nk=np.column_stack([table.latency_nk, table.latency_nk[:, c]]),
        output_tokens_nk=np.column_stack([table.output_tokens_nk, table.output_tokens_nk[:, c]]),
    )


def with_qualities_of(table: OutcomeTable, sources: Sequence[str]) -> OutcomeTable:
    """``table`` with the quality of model number i replaced by that of ``sources[i]``; costs stay."""
    if sorted(sources) != sorted(table.models):
        raise SettingError(f"{table.name}: expected each of {', '.join(table.models)} once, got {', '.join(sources)}")
    return replace(table, quality_nk=table.quality_nk[:, [table.models.index(source) for source in sources]])


def inverted(table: OutcomeTable, quality: QualityRange) -> OutcomeTable:
    """``table`` with good and bad exchanged: quality q becomes min + max - q."""
    return replace(table, quality_nk=quality.min + quality.max - table.quality_nk)


def with_tokens(table: OutcomeTable, prices: Mapping[str, Prices]) -> OutcomeTable:
    """``table`` with the tokens that explain its costs at list ``prices``: cost = price_in · in + price_out · out, exactly.

    Input tokens are estimated from the prompt's text (half of what the cheapest call allows, without one), but never more than
    leaves output to every model. Raises ``SettingError`` for a model without prices or costs.
    """
    for model in table.models:
        if model not in prices or prices[model].output_per_million <= 0.0:
            raise SettingError(f"{table.name}: expected a price of output tokens of {model}")
    if np.isnan(table.cost_nk).any():
        raise SettingError(f"{table.name}: expected the cost of every outcome")
    in_k = np.array([max(prices[model].input_per_million, 1e-12) for model in table.models]) * 1e-6
    out_k = np.array([prices[model].output_per_million for model in table.models]) * 1e-6
    most_n = np.floor(_MOST_INPUT * (table.cost_nk / in_k).min(axis=1))
    guess_n = np.floor(0.5 * most_n)
    if table.texts is not None:
        guess_n = np.array([float(estimate_tokens(text)) for text in table.texts])
    tokens_n = np.minimum(guess_n, most_n)
    return replace(
        table,
        input_tokens_n=tokens_n.astype(np.int64),
        output_tokens_nk=np.maximum(table.cost_nk - tokens_n[:, None] * in_k, 0.0) / out_k,
    )
