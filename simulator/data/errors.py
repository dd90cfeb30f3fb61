"""Errors that name the setting at fault.

>>> str(SettingError("--budget: expected dollars above 0, got '-1'"))
"--budget: expected dollars above 0, got '-1'"
"""

from __future__ import annotations


class SettingError(ValueError):
    """What was asked for makes no sense, or not with this table; the command line's fault."""
