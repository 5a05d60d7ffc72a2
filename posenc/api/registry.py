"""Names to encodings: the built-in ones, those that other packages bring by entry points, and classes in files.

An encoding is written as a name, with options and composition (`posenc.api.spec`): `rope`, `rope(base=500000)`,
`sinusoidal+rope`, `./mine.py:Mine`. Entries are `module:Class` texts until they are asked for, so listing names imports
nothing, and one broken plug-in never stops the others. The entry-point group is `posenc.encodings`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posenc.api import source_code
from posenc.api.entry_points import Entry, imported, in_folder, installed
from posenc.api.options import Option, allowed, fitted, options_of, short, type_name
from posenc.api.spec import NAME, Nested, Spec, every, parse, split
from posenc.common.errors import (
    ConfigError,
    FaultyPluginError,
    NotPossibleError,
    PluginError,
    PosencError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from posenc.api.encoding import Encoding
    from posenc.api.stack import Stack

__all__ = [
    "BUILT_IN", "DEFAULT", "GROUP", "NEED_OTHERS", "Entry", "Nested", "Option", "Spec", "arguments_of", "code_of",
    "create", "describe", "entries", "load", "options_of", "parse", "register", "registered_here", "require_known",
    "require_unchanged", "split", "type_name",
]  # fmt: skip

GROUP = "posenc.encodings"

DEFAULT = ("none", "sinusoidal", "learned", "t5", "shaw", "rope")
"""The encodings that a task runs over where no suite names them."""


def _built_in() -> dict[str, str]:
    """posenc's own. Those of DEFAULT come first, the others by their names."""
    found = in_folder(Path(__file__).parent.parent / "encodings", "posenc.encodings")
    return {name: found[name] for name in (*DEFAULT, *sorted(found.keys() - set(DEFAULT)))}


_FOUND = _built_in()
NEED_OTHERS = ("layers",)
"""Built-in ones that are nothing without the encodings given to them: no part of "all"."""
BUILT_IN = {name: target for name, target in _FOUND.items() if name not in NEED_OTHERS}


_registered: dict[str, tuple[type[Encoding], str]] = {}


def register(name: str, encoding: type[Encoding] | None = None) -> type[Encoding]:
    """Add an encoding class under a name, for this process. The same class again (a notebook's cell) replaces it.

    Worker processes do not see it: `posenc.run` takes a class in a file (`./mine.py:Mine`) or a package's entry point.

    Raises:
        PluginError: the name is taken, by whom and where.
        ConfigError: the name cannot be written in a suite, or there is no encoding.
    """
    from posenc.api.encoding import Encoding

    if not isinstance(name, str) or not isinstance(encoding, type) or not issubclass(encoding, Encoding):
        raise ConfigError(
            f"posenc.register({name!r}, {encoding!r}): a name and a subclass of posenc.Encoding must be given"
        )
    where = f"{_file_of(encoding)}:{encoding.__qualname__}"
    _check_name(name, where)
    taken = entries().get(name)
    if name in _registered and not _is_same(_registered[name][0], encoding):
        raise PluginError(f"encoding {name!r} from {where}: the name is taken by {_registered[name][1]}")
    if name not in _registered and taken:
        raise PluginError(f"encoding {name!r} from {where}: the name is taken by {taken.target} of {taken.package}")
    _registered[name] = (encoding, where)
    return encoding


def _is_same(one: type, other: type) -> bool:
    """Whether two classes were written at one place: the second is the first, run again."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def registered_here(text: str, where: str = "") -> list[str]:
    """The names in an encoding as written that this process alone knows."""
    return [spec.name for spec in every(text, where) if spec.name in _registered]


def _file_of(encoding: type[Encoding]) -> str:
    """Where a class is written; its module where that is no file (a notebook, a console)."""
    try:
        return inspect.getsourcefile(encoding) or encoding.__module__
    except (TypeError, OSError):
        return encoding.__module__


def _check_name(name: str, where: str) -> None:
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"encoding name {name!r} from {where}: allowed are letters, digits, '_' and '-'")


@cache
def _installed() -> tuple[dict[str, Entry], dict[str, str]]:
    """Built-in and plug-in entries, and what is wrong with names that two packages claim."""
    return installed("encoding", GROUP, _FOUND)


def entries() -> dict[str, Entry]:
    """Every known encoding by name; nothing is imported."""
    found = dict(_installed()[0])
    for name, (encoding, _) in _registered.items():
        found[name] = Entry(name, f"{encoding.__module__}:{encoding.__qualname__}", "registered in this process")
    return found


def load(name: str, where: str = "") -> type[Encoding]:
    """The class registered under a single name, or the one in a file (`mine.py:Mine`).

    Raises:
        UnknownNameError: no such encoding.
        PluginError: two packages claim the name, its module cannot be imported, or it is no Encoding.
    """
    if name in _registered:
        return _registered[name][0]
    entry = _entry(name, where)
    file = Spec(name).file
    loaded = imported(entry, "encoding", (lambda: source_code.module_of_file(file[0], name, where)) if file else None)
    from posenc.api.encoding import Encoding

    if not (isinstance(loaded, type) and issubclass(loaded, Encoding)):
        raise PluginError(f"encoding {name!r} of {entry.package}: {entry.target} is no subclass of posenc.Encoding")
    return loaded


def _entry(name: str, where: str = "") -> Entry:
    """Where a name comes from; nothing is imported."""
    if Spec(name).file:
        return Entry(name, name, "a file")
    clashes = _installed()[1]
    if name in clashes:
        raise PluginError(clashes[name])
    if name not in entries():
        raise UnknownNameError("encoding", name, entries(), where)
    return entries()[name]


def require_known(text: str, where: str = "") -> None:
    """Each name in an encoding as written must be registered; nothing is imported.

    Raises:
        UnknownNameError, ConfigError: one is not, or it cannot be read. PluginError: two packages claim it.
    """
    for spec in every(text, where):
        if spec.name not in _registered:
            _entry(spec.name, where)


def arguments_of(encoding: type[Encoding]) -> list[str]:
    """The names of the encodings that an encoding takes by place, after its stack: `layers(rope, none)` has two."""
    parameters = list(inspect.signature(encoding.__init__).parameters.values())[2:]
    return [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


def _options(spec: Spec, encoding: type[Encoding], where: str) -> dict[str, Any]:
    """Options as given, each of its annotated type."""
    declared = options_of(encoding)
    place = f"{where}: {spec}" if where else str(spec)
    if len(spec.arguments) != len(taken := arguments_of(encoding)):
        wanted = (
            f"{len(taken)} encodings by place ({', '.join(taken)})" if taken else "none by place, as options have names"
        )
        raise ConfigError(f"encoding {place}: it takes {wanted}, and {len(spec.arguments)} stand there")
    given = {}
    for key, value in spec.options:
        if key not in declared:
            raise UnknownNameError(f"option of encoding {spec.name!r}", key, declared, place)
        try:
            given[key] = fitted(value, declared[key].type)
        except TypeError:
            wanted = allowed(declared[key].type)
            raise ConfigError(f"option {key}={short(value)} ({place}): must be {wanted}") from None
    return given


def describe(text: str, where: str = "") -> dict[str, str]:
    """The canonical name, version and package of an encoding as written: its part in a cell's identity.

    Options equal to their defaults are dropped, so that `rope` and `rope(base=10000)` are one. Of classes in files the
    digests of the files are part of it: a file that has changed is another encoding. What is given to an encoding is
    told with it: `layers(rope, none)` has the version `1(1, 1)`.
    """
    names, versions, packages, files = [], [], list[str](), []
    for spec in parse(text, where):
        encoding = load(spec.name, where)
        declared = options_of(encoding)
        given = _options(spec, encoding, where)
        inner = [describe(argument, where) for argument in spec.arguments]
        arguments = tuple(Nested(one["name"]) for one in inner)
        for key, value in given.items():
            if isinstance(value, Nested):
                inner.append(describe(value, where))
                given[key] = Nested(inner[-1]["name"])
        options = tuple((k, v) for k, v in sorted(given.items()) if v != declared[k].default)
        names.append(str(Spec(spec.name, options, arguments)))
        versions.append(str(encoding.version) + (f"({', '.join(one['version'] for one in inner)})" if inner else ""))
        package = "registered in this process" if spec.name in _registered else _entry(spec.name, where).package
        packages += [package, *(name for one in inner for name in one["package"].split(", "))]
        if spec.file:
            files.append(source_code.digest_of_file(spec.file[0], spec.name, where))
        files += [one["source"] for one in inner if "source" in one]
    found = {"name": "+".join(names), "version": "+".join(versions), "package": ", ".join(dict.fromkeys(packages))}
    return {**found, "source": "+".join(files)} if files else found


def require_unchanged(encoding: Mapping[str, str]) -> None:
    """Hold the files of an encoding, as `describe` gave it, against what they were then.

    Raises:
        PluginError: one of them is gone, or has changed.
    """
    files = [spec for spec in every(encoding["name"]) if spec.file]
    for spec, wanted in zip(files, encoding["source"].split("+") if files else (), strict=True):
        if spec.file and source_code.digest_of_file(spec.file[0], spec.name) != wanted:
            raise PluginError(f"{spec.file[0]} has changed since the run was planned: run it again")


def code_of(text: str) -> dict[str, str]:
    """By name, what the code of other packages' encodings is known by: a digest of all its files; nothing is imported.

    It stands in records beside the version: code that has changed at an unchanged version is told from it.
    """
    found = {}
    for spec in every(text):
        entry = entries().get(spec.name)
        if entry and spec.name not in (*_FOUND, *_registered):
            found[spec.name] = source_code.digest_of_package(entry.target.partition(":")[0]) or "unknown"
    return found


def create(text: str, stack: Stack, where: str = "") -> Encoding:
    """Make the encoding written as `text`, for one stack. Its parameters are not yet drawn: see `initialise`.

    Raises:
        UnknownNameError: an unknown name or option.
        ConfigError: it cannot be read, or an option has a wrong type or value.
        PluginError: a package's encoding cannot be loaded; a FaultyPluginError where it cannot be made.
        NotPossibleError: it cannot serve this stack, or parts cannot be composed.
    """
    from posenc.api.composite import Composite

    parts = [_made(spec, stack, where) for spec in parse(text, where)]
    return parts[0] if len(parts) == 1 else Composite(stack, parts)


def _made(spec: Spec, stack: Stack, where: str) -> Encoding:
    """One encoding, whatever its class does while it is made."""
    encoding = load(spec.name, where)
    options = _options(spec, encoding, where)
    place = f" ({where})" if where else ""
    try:
        made = encoding(stack, *spec.arguments, **options)
    except PosencError:
        raise
    except ValueError as error:
        if _can_be_made(
            encoding, spec.arguments, replace(stack, **ROOMY), options
        ):  # the values have a meaning, but not here
            raise NotPossibleError(f"not possible: {spec}: {error}") from None
        raise ConfigError(f"encoding {spec}{place}: {error}") from None
    except Exception as error:
        cause = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        if options and _can_be_made(encoding, spec.arguments, stack, {}):
            raise ConfigError(f"encoding {spec}{place}: it cannot be made with these options: {cause}") from None
        raise FaultyPluginError(
            f"encoding {spec}: {encoding.__name__}.__init__ raised {cause}{_hint(encoding)}"
        ) from error
    if "_parameters" not in vars(made) or getattr(made, "stack", None) is not stack:
        raise FaultyPluginError(f"encoding {spec}: {encoding.__name__}.__init__ must call super().__init__(stack)")
    return made


ROOMY: dict[str, Any] = {"layers": 24, "heads": 4, "width": 256, "head_width": 64, "max_length": 512}
"""A stack that encodings can serve: what is refused on this one too is a wrong value, whatever the stack."""


def _can_be_made(
    encoding: type[Encoding], arguments: tuple[Nested, ...], stack: Stack, options: dict[str, Any]
) -> bool:
    with suppress(Exception):
        encoding(stack, *arguments, **options)
        return True
    return False


def _hint(encoding: type[Encoding]) -> str:
    """What its `__init__` lacks, where that can be seen."""
    taken = list(inspect.signature(encoding.__init__).parameters.values())[1:2]
    if not taken or taken[0].kind is inspect.Parameter.KEYWORD_ONLY:
        return ": it must take the stack, as in def __init__(self, stack, *, option=default)"
    called = "super" in getattr(encoding.__init__, "__code__", _hint.__code__).co_names
    return "" if called else ": it must begin with super().__init__(stack)"
