"""Declarative catalogues: the file, the plan it makes, and the client that carries it out."""
