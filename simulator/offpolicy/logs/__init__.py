"""Logs of any source, read into one value."""
