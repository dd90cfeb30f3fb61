"""The state of one process: its fold, the events it adds, snapshots."""
