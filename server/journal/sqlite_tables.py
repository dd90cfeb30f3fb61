"""The tables of the embedded engine's file, and the conditions by which statements pass over what was compacted.

>>> KEPT[FORMAT].format("first").startswith("(first > (SELECT")
True
"""

from __future__ import annotations

FORMAT = 3
"""Version of the tables, kept in SQLite's ``user_version``.

Format 1 had no compaction; format 2 listed the rows that compaction keeps in a table of their own, kept request ids and
idempotency keys apart from other keys, and had no counters. Both are read, and migrated before anything is appended.
"""

# In a migrated file the columns of `journal` have another order.
ROWS = """
CREATE TABLE journal (position INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, permanent INTEGER NOT NULL,
    expire_ns INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE keys (key BLOB PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;
"""
COUNTERS = """
CREATE TABLE counters (counter BLOB PRIMARY KEY, used INTEGER NOT NULL, end_ns INTEGER NOT NULL) WITHOUT ROWID;
"""
# At most one base; parts of another position are of a base that was replaced, or never came to be.
BASES = """
CREATE TABLE base (position INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL);
CREATE TABLE base_part (position INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (position, number));
"""
BASE = "(SELECT coalesce(max(position), 0) FROM base)"
KEPT = {
    1: "{0} > 0",
    2: f"({{0}} > {BASE} OR {{0}} IN (SELECT position FROM kept))",
    3: f"({{0}} > {BASE} OR EXISTS (SELECT 1 FROM journal p WHERE p.position = {{0}} AND p.permanent))",
}
"""By format, the condition on a position that its row was not compacted away."""
IS_KEPT = {**KEPT, 3: f"(position > {BASE} OR permanent)"}
"""The same condition for a row of `journal` itself."""
