"""Policies of a replay: ours, its rivals, and controls that know all in hindsight."""
