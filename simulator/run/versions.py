"""Versions that have to be equal for results to be reproducible.

>>> sorted(versions())
['numpy', 'pointsman', 'python', 'scipy']
"""

from __future__ import annotations

import sys
from importlib import metadata


def versions() -> dict[str, str]:
    """Of Python, of this project and of what computes for it."""
    return {"python": "{}.{}".format(*sys.version_info[:2])} | {
        name: _of(name) for name in ("pointsman", "numpy", "scipy")
    }


def _of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from the sources, not installed
        return "not installed"
