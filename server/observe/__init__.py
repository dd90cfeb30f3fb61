"""Observability: access log, metrics, traces, logs."""
