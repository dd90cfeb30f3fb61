"""Specifications: a policy with its settings, and one run of it.

A policy is written ``name``, ``name:value`` or ``name:setting=value:…``. It is parsed once, where it is read, by
``simulator.policies.registry.parse_policy``; everything below reads names and settings from the ``PolicySpec``.

>>> PolicySpec("length-rule:200", "length-rule", one_number("tokens", "a number of tokens")("length-rule:200", "200"))
PolicySpec(text='length-rule:200', name='length-rule', settings=(('tokens', 200.0),))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pointsman.bandit.catalog import Objective
from pointsman.simulator.data.errors import SettingError
from pointsman.simulator.world.changes import Schedule

Settings = tuple[tuple[str, float | str], ...]
"""Names and values of a policy's settings, in the order in which they were written."""
SettingsParser = Callable[[str, str | None], Settings]
"""Makes settings of a policy as written and of what follows the first colon in it (``None``: there is no colon). Raises
``SettingError``."""


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A policy's ``name`` and ``settings``; ``text`` is how it was written, which results and reports repeat."""

    text: str
    name: str
    settings: Settings = ()

    def __str__(self) -> str:
        """As it was written."""
        return self.text

    def number(self, setting: str, default: float) -> float:
        """The value of a numeric ``setting``, or ``default`` where it was not given."""
        return float(dict(self.settings).get(setting, default))

    def string(self, setting: str) -> str:
        """The value of a ``setting`` that must have been given. Raises ``KeyError``."""
        return str(dict(self.settings)[setting])


@dataclass(frozen=True, slots=True)
class Run:
    """One policy under one objective, and perhaps within a budget (mean dollars a request), in one random order.

    An outcome is learned ``delay`` rounds after its decision. ``rounds`` (``None``: as many as there are rows) may be fewer, or
    more: then the rows come again, in another order. ``schedule`` says what changes on the way.
    """

    policy: PolicySpec
    objective: Objective
    budget: float | None
    seed: int
    delay: int = 0
    rounds: int | None = None
    schedule: Schedule = ()


def policy_rng(run: Run) -> np.random.Generator:
    """The random numbers of the policy itself, apart from those of the world: they depend on the run's seed only."""
    return np.random.default_rng([run.seed, 1])


def one_number(setting: str, meaning: str) -> SettingsParser:
    """Parses ``name`` or ``name:NUMBER``; errors call the number ``meaning``."""

    def parse(text: str, rest: str | None) -> Settings:
        if rest is None:
            return ()
        try:
            value = float(rest)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise SettingError(f"policy {text!r}: expected {meaning} after the colon, got {rest!r}")
        return ((setting, value),)

    return parse


def named_numbers(names: tuple[str, ...]) -> SettingsParser:
    """Parses ``name`` or ``name:setting=NUMBER:…`` with settings of ``names``, each at most once."""

    def parse(text: str, rest: str | None) -> Settings:
        values: dict[str, float | str] = {}
        for part in [] if rest is None else rest.split(":"):
            name, equals, number = part.partition("=")
            if not equals or name not in names or name in values:
                raise SettingError(
                    f"policy {text!r}: expected setting=value, each once, with one of {', '.join(names)}, got {part!r}"
                )
            try:
                values[name] = float(number)
            except ValueError:
                raise SettingError(f"policy {text!r}: {name}: expected a number, got {number!r}") from None
        return tuple(values.items())

    return parse
