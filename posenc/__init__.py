"""posenc: positional encodings compared on equal terms.

    posenc.create("rope", stack)       an encoding (see posenc.Stack)
    posenc.register("mine", MyClass)   one more name, for this process
    posenc.run("quick", seeds=[0])     a suite, as the command line runs it
    posenc.load("results/quick", cell)     a trained model that was kept
    posenc.load_records("results/quick")   its scores as a pandas DataFrame

Nothing heavy is imported until it is used: `import posenc` loads no torch, MLflow or pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posenc.api.encoding import Context, Encoding
    from posenc.api.registry import create, register
    from posenc.api.stack import Stack
    from posenc.common.errors import PosencError
    from posenc.report import load_records
    from posenc.running.run import run
    from posenc.trained import load

_WHERE = {
    "Context": "posenc.api.encoding",
    "Encoding": "posenc.api.encoding",
    "Stack": "posenc.api.stack",
    "PosencError": "posenc.common.errors",
    "create": "posenc.api.registry",
    "register": "posenc.api.registry",
    "run": "posenc.running.run",
    "load": "posenc.trained",
    "load_records": "posenc.report",
}
__all__ = ["Context", "Encoding", "PosencError", "Stack", "create", "load", "load_records", "register", "run"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'posenc' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
