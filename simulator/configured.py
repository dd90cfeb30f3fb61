"""Names of policies with settings: ``thompson:exploration_floor=0.05:half_life=500``."""

from __future__ import annotations

from dataclasses import replace

from pointsman.bandit.catalog import Bucket
from pointsman.bandit.errors import FieldError
from pointsman.simulator.utility import SettingError

THOMPSON = "thompson"
THOMPSON_SETTINGS = ("exploration_floor", "half_life", "prior_quality", "prior_cost", "prior_latency")
"""What can be set of the policy that serves: fields of a bucket, and of its priors (quality in the bucket's units, dollars,
seconds)."""


def base(policy: str) -> str:
    """The name without settings."""
    return policy.partition(":")[0]


def setting(policy: str, default: float, what: str) -> float:
    """The one number of ``name:number``, or ``default`` without one. Raises ``SettingError`` that says ``what`` it is."""
    _, colon, text = policy.partition(":")
    if not colon:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise SettingError(f"policy {policy!r}: expected {what} after the colon, got {text!r}")
    return value


def configured(bucket: Bucket, policy: str) -> Bucket:
    """``bucket`` with the settings of a ``thompson`` policy. Raises ``SettingError``."""
    values: dict[str, float] = {}
    for part in policy.split(":")[1:]:
        name, equals, text = part.partition("=")
        if not equals or name not in THOMPSON_SETTINGS or name in values:
            raise SettingError(
                f"policy {policy!r}: expected setting=value, each once, with one of {', '.join(THOMPSON_SETTINGS)}, got {part!r}"
            )
        try:
            values[name] = float(text)
        except ValueError:
            raise SettingError(f"policy {policy!r}: {name}: expected a number, got {text!r}") from None
    priors = {name.removeprefix("prior_"): value for name, value in values.items() if name.startswith("prior_")}
    fields = {name: value for name, value in values.items() if not name.startswith("prior_")}
    try:
        return replace(bucket, priors=replace(bucket.priors, **priors), **fields)  # type: ignore[arg-type]
    except FieldError as error:
        raise SettingError(f"policy {policy!r}: {error}") from None
