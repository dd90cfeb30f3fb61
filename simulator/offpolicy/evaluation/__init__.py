"""The evaluation of a candidate on a log: evidence by signal, diagnostics, estimates and static comparators."""
