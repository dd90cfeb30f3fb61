"""Processes: configuration, serving, supervision, draining."""
