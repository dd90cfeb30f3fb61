"""The journal: its interface, engines, group commit and keys."""
