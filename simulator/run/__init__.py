"""Runs: the loops in which policies play, many runs over processes or a cluster."""
