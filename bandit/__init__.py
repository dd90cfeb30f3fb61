"""The bandit core: pure functions on arrays. Imports numpy and scipy only; no I/O, clock or global randomness."""
