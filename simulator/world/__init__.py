"""Worlds: a table made ready for replays, what changes on the way, and what outcomes are worth."""
