"""Errors that name the setting at fault."""

from __future__ import annotations


class SettingError(ValueError):
    """What was asked for makes no sense, or not with this table; the command line's fault."""
