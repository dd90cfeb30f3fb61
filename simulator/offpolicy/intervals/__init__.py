"""Intervals for means of scores: at a fixed time, for adaptive logs, and at any time."""
