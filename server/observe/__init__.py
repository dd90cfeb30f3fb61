"""What the server says of itself: access log, metrics, traces, logs."""
