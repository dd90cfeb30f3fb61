"""Worlds as YAML files: made up of parts, or a table of real outcomes, with what changes on the way.

    rounds: 4000
    models:
      small: {quality: 0.70, cost: 0.0002, latency: 0.4}
      large: {quality: 0.85, cost: 0.0060, latency: 1.5}
    tasks:
      chat: {share: 2}
      maths: {quality: {small: 0.3}}      # what differs from the models' own
    features: {dimensions: 8, effect: 1.0}
    noise: {quality: binary, cost: 0.5, latency_tail: 2.5}
    changes:
      - {kind: price, model: large, factor: 0.25, start: 2000}

Everything is drawn from ``seed``, so that a file is one world. What a model is worth on a prompt is known, so that regret is
exact: the probability of a good answer is logistic in the prompt's features around the model's quality on the task, and cost
grows with the prompt's length. With ``table: FILE`` in place of ``models`` the outcomes are those of a table.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     path = Path(folder, "wrong.yaml")
...     _ = path.write_text("rounds: 100\\nmodels:\\n  small: {quality: 1.7, cost: 0.001}\\n")
...     try:
...         _ = read_scenario(path)
...     except SettingError as error:
...         print(str(error).partition("wrong.yaml, ")[2])
line 3: models.small.quality: Input should be less than or equal to 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from dataclasses import Field as DataField
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.special import expit, logit

from pointsman.bandit.catalog import Prices, QualityRange
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.data.table import OutcomeTable, load_table
from pointsman.simulator.world import changes
from pointsman.simulator.world.changes import Schedule, check_schedule, models_added_later
from pointsman.simulator.world.encoding import Features
from pointsman.simulator.world.rounds import Noise, unfold
from pointsman.simulator.world.world import UNIT, World, make_world
from pointsman.yaml_lines import YamlError, read_yaml

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

_PROMPTS, _WARM, _MODELS = 0, 1, 2
"""Which of a world's random streams draws its prompts, those of the warm start, and what features do to models."""
_WARM_SEED = 2**40
"""What is added to a world's seed where outcomes of its warm start are drawn: no replay has such a seed."""
_MAX_PROMPTS = 20_000
"""Most prompts of a world that does not say how many it has."""
_MARGIN = 1e-6
"""How far from 0 and 1 a mean quality is kept where features shift it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPart(_Part):
    """A model: mean quality in [0, 1], mean dollars a request and mean seconds."""

    quality: Share
    cost: Positive
    latency: Positive = 1.0


class TaskPart(_Part):
    """A task: its ``share`` of the prompts (relative), its mean number of input ``tokens``, and the ``quality`` of those models
    that are better or worse at it than they are by themselves.
    """

    share: Positive = 1.0
    tokens: Positive = 200.0
    quality: dict[str, Share] = Field(default_factory=dict)


class FeaturesPart(_Part):
    """``dimensions`` standard normal features of each prompt; ``effect`` is the standard deviation, in logits, of what they do
    to each model's quality.
    """

    dimensions: Annotated[int, Field(ge=1, le=1024)]
    effect: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0


class NoisePart(_Part):
    """``simulator.world.changes.Noise``; ``length`` is the log standard deviation of prompts' lengths within a task."""

    quality: Literal["exact", "binary", "graded"] = "binary"
    concentration: Positive = 5.0
    cost: Annotated[float, Field(ge=0.0, le=5.0)] = 0.3
    latency: Annotated[float, Field(ge=0.0, le=5.0)] = 0.5
    latency_tail: Annotated[float, Field(gt=1.0, le=100.0)] | None = None
    length: Annotated[float, Field(ge=0.0, le=5.0)] = 0.5


KINDS: Mapping[str, type[Any]] = {
    "price": changes.PriceFactor,
    "quality": changes.QualityLevel,
    "drift": changes.QualityDrift,
    "latency": changes.LatencyFactor,
    "outage": changes.Outage,
    "new_model": changes.ModelAdded,
    "feedback_lost": changes.FeedbackLost,
    "feedback_late": changes.FeedbackLate,
}
"""What ``kind`` of a change is called in a file, and what it is."""


class ChangePart(_Part):
    """One change: ``kind`` of ``KINDS`` with the fields of that."""

    kind: Literal["price", "quality", "drift", "latency", "outage", "new_model", "feedback_lost", "feedback_late"]
    model: str | None = None
    start: Annotated[int, Field(ge=0)] = 0
    end: int | None = None
    factor: float | None = None
    announced: bool | None = None
    level: float | None = None
    by: float | None = None
    share: float | None = None
    rounds: float | None = None

    def to_change(self) -> changes.WorldChange:
        """The change. Raises ``ValueError`` for a field that its kind lacks or does not know."""
        kind = KINDS[self.kind]
        values = {name: value for name, value in self.model_dump(exclude={"kind"}).items() if value is not None}
        names = {field.name for field in fields(kind)}
        needed = {field.name for field in fields(kind) if not _optional(field)}
        for name in values:
            if name not in names:
                raise ValueError(f"{name}: a change of kind {self.kind} has {', '.join(sorted(names))}")
        for name in sorted(needed - set(values)):
            raise ValueError(f"{name}: expected in a change of kind {self.kind}")
        change: changes.WorldChange = kind(**{name: value for name, value in values.items() if name in names})
        return change


class WorldFile(_Part):
    """A world's file: counts of rounds and prompts, its parts, and what changes on the way."""

    seed: Annotated[int, Field(ge=0)] = 0
    rounds: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    prompts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    warm: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    delay: Annotated[int, Field(ge=0)] = 0
    priced: bool = False
    bucket: Literal["one", "task"] = "one"
    quality_range: tuple[float, float] = (0.0, 1.0)
    table: str | None = None
    models: dict[str, ModelPart] = Field(default_factory=dict)
    tasks: dict[str, TaskPart] = Field(default_factory=lambda: {"all": TaskPart()})
    features: FeaturesPart | None = None
    noise: NoisePart = NoisePart()
    changes: tuple[ChangePart, ...] = ()

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.table is None) == (not self.models):
            raise ValueError("models: expected these or a table, and not both")
        if self.table is not None:
            for name in ("prompts", "warm", "priced", "tasks", "features", "noise"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name}: expected with models only, not with a table")
        elif "quality_range" in self.model_fields_set:
            raise ValueError("quality_range: expected with a table only; qualities of models are in [0, 1]")
        for task, part in self.tasks.items():
            unknown = sorted(set(part.quality) - set(self.models))
            if unknown:
                raise ValueError(f"tasks.{task}.quality.{unknown[0]}: expected one of {', '.join(self.models)}")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """A world and how it is played: its ``schedule``, ``rounds`` (``None``: one pass of the table) and ``delay`` of outcomes.
    ``source`` says what it was made from, ``note`` what of that could not be used, if anything.
    """

    name: str
    source: str
    world: World
    schedule: Schedule
    rounds: int | None
    delay: int
    note: str = ""


def read_scenario(path: Path, features: str | None = None, bucket: str | None = None) -> Scenario:
    """The world of a file, and how it is played.

    ``features`` (``x``, ``text`` or ``none``) is what policies are told of a prompt beside its task, by
    default x if there is any; ``bucket`` (``one``, ``task``) takes precedence over the file's. Raises ``SettingError``
    naming file, line and field, and what ``load_table`` raises.
    """
    file, schedule, text = _read(path)
    if file.table is not None:
        quality = QualityRange(*file.quality_range)
        table = load_table(str(path.parent / file.table) if ":" not in file.table else file.table)
        noise, warm, prices = None, None, None
    else:
        quality, noise = UNIT, _noise(file)
        table = _draw_table(file, path.stem, file.prompts or min(file.rounds or 2000, _MAX_PROMPTS), _PROMPTS)
        warm = None
        if file.warm:
            warm = _draw_outcomes(_draw_table(file, path.stem, file.warm, _WARM), noise, file.seed)
        prices = _prices(file) if file.priced else None
    kind = features or ("x" if table.x_nd is not None else "none")
    later = tuple(model for model in table.models if model in models_added_later(schedule))
    try:
        check_schedule(table.models, quality, schedule)
        if warm is not None:
            warm = _without(warm, later)
        world = make_world(
            table,
            Features(kind, bucket or file.bucket),
            quality,
            warm,
            later=later,
            prices=prices,
            priced=file.priced,
            noise=noise,
        )
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None
    world = replace(world, table=replace(world.table, name=path.stem))
    source = f"{path.name} (sha256 {sha256(text.encode()).hexdigest()})"
    if file.table is not None:
        source += f", {file.table} (sha256 {table.sha256})"
    return Scenario(path.stem, source, world, schedule, file.rounds, file.delay)


def _read(path: Path) -> tuple[WorldFile, Schedule, str]:
    """What a file says, its changes, and its text. Raises ``SettingError`` naming file, line and field."""
    try:
        document = read_yaml(path)
        values = document.mapping()
    except YamlError as error:
        raise SettingError(str(error)) from error
    try:
        file = WorldFile.model_validate(values)
        return file, _schedule(file), document.text
    except ValidationError as error:
        raise SettingError(document.explain(error.errors())) from None
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None


def _schedule(file: WorldFile) -> Schedule:
    schedule = []
    for i, change in enumerate(file.changes):
        try:
            schedule.append(change.to_change())
        except ValueError as error:
            raise SettingError(f"changes.{i}.{error}") from None
    return tuple(schedule)


def _noise(file: WorldFile) -> Noise:
    part = file.noise
    return Noise(part.quality, part.concentration, part.cost, part.latency, part.latency_tail)


def _draw_table(file: WorldFile, name: str, n: int, stream: int) -> OutcomeTable:
    """The mean outcome of every model on each of n prompts."""
    rng = np.random.default_rng([file.seed, stream])
    models, tasks = list(file.models), list(file.tasks)
    share = np.array([file.tasks[task].share for task in tasks])
    task_n = rng.choice(len(tasks), size=n, p=share / share.sum())
    tokens_n = np.array([file.tasks[task].tokens for task in tasks])[task_n]
    sd = file.noise.length
    tokens_n = np.maximum(1.0, np.rint(tokens_n * np.exp(sd * rng.standard_normal(n) - sd**2 / 2.0)))
    base_tk = np.array(
        [[file.tasks[task].quality.get(model, file.models[model].quality) for model in models] for task in tasks]
    )
    quality_nk, x_nd = base_tk[task_n], None
    if file.features is not None:
        d = file.features.dimensions
        x_nd = rng.standard_normal((n, d))
        weight_kd = np.random.default_rng([file.seed, _MODELS]).standard_normal((len(models), d))
        weight_kd /= np.linalg.norm(weight_kd, axis=1, keepdims=True)
        inside_nk = np.clip(quality_nk, _MARGIN, 1.0 - _MARGIN)
        quality_nk = expit(logit(inside_nk) + file.features.effect * (x_nd @ weight_kd.T))
    mean_tokens = float((share / share.sum()) @ np.array([file.tasks[task].tokens for task in tasks]))
    cost_k = np.array([part.cost for part in file.models.values()])
    latency_k = np.array([part.latency for part in file.models.values()])
    return OutcomeTable(
        name=name,
        sha256="",
        models=tuple(models),
        prompt_ids=tuple(str(i) for i in range(n)),
        tasks=tuple(tasks[i] for i in task_n),
        texts=None,
        x_nd=x_nd,
        input_tokens_n=tokens_n.astype(np.int64),
        quality_nk=np.asarray(quality_nk, dtype=np.float64),
        cost_nk=cost_k * (tokens_n / mean_tokens)[:, None],
        latency_nk=np.tile(latency_k, (n, 1)),
        output_tokens_nk=np.full((n, len(models)), np.nan),
    )


def _draw_outcomes(table: OutcomeTable, noise: Noise, seed: int) -> OutcomeTable:
    """A table of outcomes, each drawn once around its mean, and not as in a replay of the same seed."""
    rounds = unfold(table, range(len(table)), seed=seed + _WARM_SEED, noise=noise)
    return replace(
        table,
        name=f"{table.name}, warm start",
        quality_nk=rounds.quality_tk,
        cost_nk=rounds.cost_tk,
        latency_nk=rounds.latency_tk,
    )


def _without(table: OutcomeTable, later: tuple[str, ...]) -> OutcomeTable:
    """``table`` without the models that join later."""
    kept = [i for i, model in enumerate(table.models) if model not in later]
    return replace(
        table,
        models=tuple(table.models[i] for i in kept),
        quality_nk=table.quality_nk[:, kept],
        cost_nk=table.cost_nk[:, kept],
        latency_nk=table.latency_nk[:, kept],
        output_tokens_nk=table.output_tokens_nk[:, kept],
    )


def _prices(file: WorldFile) -> dict[str, Prices]:
    """List prices of input tokens that explain the mean costs."""
    share = np.array([part.share for part in file.tasks.values()])
    tokens = float((share / share.sum()) @ np.array([part.tokens for part in file.tasks.values()]))
    return {model: Prices(1e6 * part.cost / tokens, 0.0, 0.0) for model, part in file.models.items()}


def _optional(field: DataField[Any]) -> bool:
    return field.default is not MISSING
