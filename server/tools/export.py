"""The journal as files: losslessly as JSON lines, or as a flat table of decisions with their outcomes.

>>> import tempfile
>>> from pointsman.server.codec.event import write_event
>>> rows = [Row(1, 5, write_event(e.ModelDeleted("small")).SerializeToString())]
>>> with tempfile.TemporaryDirectory() as directory:
...     written = write_journal(rows, Path(directory) / "journal.jsonl", State())
...     print(written, (Path(directory) / "journal.jsonl").read_text(), end="")
1 {"position":"1","event":{"time_ns":"5","model_deleted":{"model":"small"}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from pointsman.bandit import event as e
from pointsman.bandit.outcome import FIELDS
from pointsman.bandit.policy import logged_propensities
from pointsman.bandit.state import State
from pointsman.server.codec.event import write_record
from pointsman.server.journal.interface import Row
from pointsman.server.names import bucket_name, decision_name, model_name
from pointsman.server.state.rows import decode_all


def write_journal(rows: Iterable[Row], path: Path, state: State) -> int:
    """Write every record as one line of JSON (the contract's ``JournalRecord``); returns how many.

    ``state`` has the catalogue's events before the rows applied, and takes in those among them.
    """
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row, _ in decode_all(rows, state):
            record = write_record(row.position, row.time_ns, row.data, state.terms)
            message = json_format.MessageToDict(record, preserving_proto_field_name=True)
            file.write(json.dumps(message, separators=(",", ":")) + "\n")
            count += 1
    return count


def write_decisions(rows: Iterable[Row], path: Path, state: State) -> int:
    """Write one row for each decision, as CSV, Parquet or JSON lines by the file's ending; returns how many.

    Columns: decision, time_ns, bucket, model (chosen), propensity, explored, limits_violated, eligible (number of eligible
    models), the propensity of every model `p/<model>` (0 if not eligible), features `x/0 …` (intercept last), predicted
    `quality_mean/<model>`, `quality_sd/<model>`, `cost/<model>`, `latency/<model>`, and the chosen model's outcome as known at
    the end: quality, cost_usd, latency_seconds, success, input_tokens, output_tokens. Costs are in dollars, latencies in seconds.

    Raises ``ModuleNotFoundError`` where pandas and pyarrow, of the extra ``simulator``, are not installed.
    """
    import pandas as pd  # not at the top: the service runs without it
    import pyarrow  # noqa: F401  # pandas would report its absence in other words

    table = pd.DataFrame(list(decision_rows(rows, state)))
    match path.suffix:
        case ".csv":
            table.to_csv(path, index=False)
        case ".parquet":
            table.to_parquet(path, index=False)
        case ".jsonl":
            table.to_json(path, orient="records", lines=True)
        case other:
            raise ValueError(f"expected a file that ends in .csv, .parquet or .jsonl, got {other!r}")
    return len(table)


def decision_rows(rows: Iterable[Row], state: State) -> Iterator[dict[str, Any]]:
    """The rows of ``write_decisions``, in the order of the decisions."""
    table: dict[bytes, dict[str, Any]] = {}
    for _, record in decode_all(rows, state):
        event = record.event
        if isinstance(event, e.DecisionMade):
            table[event.id] = _decision_row(event, record.time_ns)
        elif isinstance(event, e.OutcomeApplied) and event.decision_id in table:
            decision = table[event.decision_id]
            reported = event.reported_outcomes.get(decision["model"].removeprefix("models/"))
            if reported is not None:
                decision.update({FIELDS[signal]: aggregate.value for signal, aggregate in reported.aggregates.items()})
    yield from table.values()


def _decision_row(event: e.DecisionMade, time_ns: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "decision": decision_name(event.id),
        "time_ns": time_ns,
        "bucket": bucket_name(event.bucket),
        "model": model_name(event.models[event.chosen]),
        "propensity": event.propensity,
        "explored": event.explored,
        "limits_violated": event.limits_violated,
        "eligible": int((event.exclusions_k == 0).sum()),
    }
    row.update(dict.fromkeys(FIELDS.values()))
    row.update({f"x/{i}": float(value) for i, value in enumerate(event.x_d)})
    for model, propensity in zip(event.models, logged_propensities(event).tolist(), strict=True):
        row[f"p/{model}"] = propensity
    for k, model in enumerate(event.models):
        row[f"quality_mean/{model}"] = float(event.predicted.quality_k[k])
        row[f"quality_sd/{model}"] = float(event.predicted.quality_sd_k[k])
        row[f"cost/{model}"] = float(event.predicted.cost_k[k])
        row[f"latency/{model}"] = float(event.predicted.latency_k[k])
    return row
