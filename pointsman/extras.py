"""Which extra brings a package that an import did not find.

>>> str(MissingExtra("simulator", ("pandas", "pyarrow")))
"pandas, pyarrow are not installed: pip install 'pointsman[simulator]'"
>>> missing_extra(ModuleNotFoundError("No module named 'numpyy'", name="numpyy"), "simulator") is None
True
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

_BOTH = {"numpy": "numpy", "pydantic": "pydantic", "rich": "rich", "scipy": "scipy", "yaml": "PyYAML"}
MODULES = {
    "server": {
        **_BOTH,
        "google.rpc.status_pb2": "googleapis-common-protos",
        "grpc_health": "grpcio-health-checking",
        "grpc_reflection": "grpcio-reflection",
        "prometheus_client": "prometheus-client",
    },
    "simulator": {**_BOTH, "pandas": "pandas", "pyarrow": "pyarrow"},
}
"""What the code behind each extra imports, and the distribution that has it."""


@dataclass(frozen=True, slots=True)
class MissingExtra:
    """What is to be installed: the ``extra``, and which distributions (``packages``) of it are not there."""

    extra: str
    packages: tuple[str, ...]

    def __str__(self) -> str:
        verb = "is" if len(self.packages) == 1 else "are"
        return f"{', '.join(self.packages)} {verb} not installed: pip install 'pointsman[{self.extra}]'"


def missing_extra(error: ImportError, extra: str) -> MissingExtra | None:
    """What to install after a command of ``extra`` could not import something; ``None`` if nothing of an extra is missing, so
    that ``error`` is a fault of its own and must be shown as it is.

    A package of another extra counts too: `export` of the extra `server` writes tables only with what `simulator` brings.
    """
    if error.name is not None and error.name.partition(".")[0] == "pointsman":
        return None  # our own code, which no extra brings
    if error.name is not None:
        for name in (extra, *MODULES):
            for module, distribution in MODULES.get(name, {}).items():
                related = f"{module}.".startswith(f"{error.name}.") or error.name.startswith(f"{module}.")
                if related and _is_absent(module):
                    return MissingExtra(name, (distribution,))
    distributions = _absent_distributions(extra)
    return MissingExtra(extra, distributions) if distributions else None


def _is_absent(module: str) -> bool:
    """Whether a package is not there, or only its folders are: what an uninstallation left behind is found as a namespace."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # what it is in is not there either
        return True
    return spec is None or spec.origin is None


def _absent_distributions(extra: str) -> tuple[str, ...]:
    """Distributions that ``extra`` needs, directly or not, and that are not installed. Requirements with a condition are left
    out: whether it holds is for an installer to say.
    """
    try:
        waiting = _names(requires("pointsman"), f"extra=='{extra}'")
    except PackageNotFoundError:  # a checkout that is not installed
        return ()
    absent, checked = set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in checked:
            continue
        checked.add(name)
        try:
            waiting += _names(requires(name), "")
        except PackageNotFoundError:
            absent.add(name)
    return tuple(sorted(absent))


def _names(requirements: list[str] | None, condition: str) -> list[str]:
    """The distributions among ``requirements`` that stand under exactly this ``condition``."""
    names = []
    for requirement in requirements or ():
        specifier, _, marker = requirement.partition(";")
        name = re.match(r"[\w.-]+", specifier.strip())
        if name and re.sub(r"\s", "", marker).replace('"', "'") == condition:
            names.append(name[0])
    return names
