"""Small synthetic tables, given to tests as functions that make them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pointsman.simulator.data.table import OutcomeTable
from tests.simulator.exported import export_journal

MODELS = ("small", "vendor/large")


def _make_table(
    n: int = 200,
    seed: int = 0,
    *,
    name: str = "synthetic",
    latency: bool = True,
    cost: bool = True,
    features: int = 2,
) -> OutcomeTable:
    """Two tasks, each with a clear winner: `small` is better and cheaper on chat, `vendor/large` better on maths."""
    rng = np.random.default_rng(seed)
    maths_n = rng.random(n) < 0.5
    mean_nk = np.where(maths_n[:, None], [[0.3, 0.9]], [[0.85, 0.5]])
    quality_nk = np.clip(mean_nk + 0.08 * rng.standard_normal((n, 2)), 0.0, 1.0)
    cost_nk = np.array([[1e-5, 2e-3]]) * np.exp(0.2 * rng.standard_normal((n, 2)))
    latency_nk = np.array([[0.3, 1.5]]) * np.exp(0.2 * rng.standard_normal((n, 2)))
    nothing_nk = np.full((n, 2), np.nan)
    return OutcomeTable(
        name=name,
        sha256="0" * 64,
        models=MODELS,
        prompt_ids=tuple(f"p{i}" for i in range(n)),
        tasks=tuple("maths" if maths else "chat" for maths in maths_n),
        texts=tuple(
            f"compute {i} + {i}" if maths else f"hello, line one,\nline {i}" for i, maths in enumerate(maths_n)
        ),
        x_nd=rng.standard_normal((n, features)) if features else None,
        input_tokens_n=rng.integers(5, 50, size=n),
        quality_nk=quality_nk,
        cost_nk=cost_nk if cost else nothing_nk,
        latency_nk=latency_nk if latency else nothing_nk.copy(),
        output_tokens_nk=nothing_nk.copy(),
    )


def _columns_of(table: OutcomeTable) -> dict[str, list[object]]:
    """The columns of a file that holds `table`; None is an empty cell."""
    columns: dict[str, list[object]] = {"prompt_id": list(table.prompt_ids), "task": list(table.tasks)}
    if table.texts is not None:
        columns["prompt"] = list(table.texts)
    columns["input_tokens"] = [None if tokens < 0 else tokens for tokens in table.input_tokens_n.tolist()]
    if table.x_nd is not None:
        columns |= {f"x/{i}": x_n.tolist() for i, x_n in enumerate(table.x_nd.T)}
    kinds = {
        "quality": table.quality_nk,
        "cost": table.cost_nk,
        "latency": table.latency_nk,
        "output_tokens": table.output_tokens_nk,
    }
    for kind, cell_nk in kinds.items():
        for k, model in enumerate(table.models):
            if not np.isnan(cell_nk[:, k]).all():
                columns[f"{kind}/{model}"] = [None if np.isnan(cell) else cell for cell in cell_nk[:, k].tolist()]
    return columns


@pytest.fixture
def make_table() -> Callable[..., OutcomeTable]:
    return _make_table


@pytest.fixture
def columns_of() -> Callable[[OutcomeTable], dict[str, list[object]]]:
    return _columns_of


@pytest.fixture(scope="session")
def journal_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a journal of 2,500 decisions."""
    return export_journal(tmp_path_factory.mktemp("journal"), 2500)
