"""What one process holds: the folded state, and what reads it and adds to it."""
