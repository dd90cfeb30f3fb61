"""Estimates of a policy's value as the mean of a score per round, and the reward models they use."""
