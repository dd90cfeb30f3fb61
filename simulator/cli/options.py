"""Parsers of option values.

>>> split_list("thompson, uniform", "--policy"), parse_quality_range("1,5")
(['thompson', 'uniform'], QualityRange(min=1.0, max=5.0))
"""

from __future__ import annotations

import math

from pointsman.bandit.catalog import QualityRange
from pointsman.bandit.errors import FieldError
from pointsman.simulator.data.errors import SettingError


def split_list(text: str, option: str) -> list[str]:
    """Different items, separated by commas. Raises ``SettingError``."""
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise SettingError(f"{option}: expected a list separated by commas, got {text!r}")
    if len(set(items)) != len(items):
        raise SettingError(f"{option}: expected different items, got {text!r}")
    return items


def parse_budget(text: str) -> float:
    """Dollars above 0. Raises ``SettingError``."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0.0):
        raise SettingError(f"--budget: expected dollars above 0, got {text!r}")
    return value


def parse_quality_range(text: str) -> QualityRange:
    """``LOW,HIGH``. Raises ``SettingError``."""
    ends = text.split(",")
    try:
        low, high = (float(end) for end in ends)
        return QualityRange(low, high)
    except FieldError as error:
        raise SettingError(f"--quality-range: {error}") from None
    except ValueError:
        raise SettingError(f"--quality-range: expected LOW,HIGH, got {text!r}") from None
