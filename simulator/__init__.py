"""Offline: outcome tables, replay, baselines and reports. Drives the very policy that serves."""
