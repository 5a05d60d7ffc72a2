"""posenc: positional encodings compared on equal terms.

    posenc.create("rope", stack)       an encoding (see posenc.Stack)
    posenc.register("mine", MyClass)   one more name, for this process
    posenc.run("quick")                a suite, as the command line runs it
    posenc.load_records("results/quick")   its scores as a pandas DataFrame

Nothing heavy is imported until it is used: `import posenc` loads no torch, MLflow or pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posenc.driver import run
    from posenc.encoding import Context, Encoding, Stack
    from posenc.errors import PosencError
    from posenc.registry import create, register
    from posenc.report import load_records

_WHERE = {
    "Context": "posenc.encoding",
    "Encoding": "posenc.encoding",
    "Stack": "posenc.encoding",
    "PosencError": "posenc.errors",
    "create": "posenc.registry",
    "register": "posenc.registry",
    "run": "posenc.driver",
    "load_records": "posenc.report",
}
__all__ = ["Context", "Encoding", "PosencError", "Stack", "create", "load_records", "register", "run"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'posenc' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
