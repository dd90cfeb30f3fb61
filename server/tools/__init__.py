"""Offline work on a journal: export, import, compaction."""
