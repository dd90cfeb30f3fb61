"""Errors that name the setting at fault.

>>> str(SettingError("--budget: expected dollars above 0, got '-1'"))
"--budget: expected dollars above 0, got '-1'"
"""

from __future__ import annotations


class SettingError(ValueError):
    """A setting is invalid, by itself or for this table; an error of the command line."""
