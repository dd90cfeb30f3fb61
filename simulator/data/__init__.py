"""Data: outcome tables, whole or in pieces, and the files they are in."""
