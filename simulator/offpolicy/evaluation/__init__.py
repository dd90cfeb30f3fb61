"""What a log says of a candidate: evidence by signal, diagnostics, estimates and static comparators."""
