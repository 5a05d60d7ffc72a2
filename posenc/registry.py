"""Names to encodings: the built-in ones and those that other packages bring by entry points.

An encoding is written as a name, with options and composition: `rope`, `rope(base=500000)`,
`sinusoidal+rope`. Entries are `module:Class` texts until they are asked for, so listing names imports
nothing, and one broken plug-in never stops the others. The entry-point group is `posenc.encodings`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import types
import typing
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from posenc.errors import ConfigError, PluginError, UnknownNameError

if TYPE_CHECKING:
    from posenc.encoding import Encoding, Stack

GROUP = "posenc.encodings"

BUILT_IN = {
    "none": "posenc.encodings.none:NoEncoding",
    "sinusoidal": "posenc.encodings.sinusoidal:Sinusoidal",
    "learned": "posenc.encodings.learned:Learned",
    "t5": "posenc.encodings.t5:T5",
    "shaw": "posenc.encodings.shaw:Shaw",
    "nezha": "posenc.encodings.nezha:Nezha",
    "rope": "posenc.encodings.rope:Rope",
    "rope_outside": "posenc.encodings.rope:RopeOutside",
}
DEFAULT = ("none", "sinusoidal", "learned", "t5", "shaw", "rope")
"""The encodings that a task runs over where no suite names them."""


@dataclass(frozen=True)
class Entry:
    """Where an encoding comes from: `target` is `module:Class`, `package` a distribution and its version."""

    name: str
    target: str
    package: str


_registered: dict[str, tuple[type[Encoding], str]] = {}


def register(name: str, encoding: type[Encoding]) -> type[Encoding]:
    """Add an encoding class under a name, for this process.

    Worker processes do not see it: a suite's encodings come from entry points.

    Raises:
        PluginError: the name is taken, by whom and where.
        ConfigError: the name cannot be written in a suite.
    """
    where = f"{_file_of(encoding)}:{encoding.__qualname__}"
    _check_name(name, where)
    taken = entries().get(name)
    if name in _registered and _registered[name][0] is not encoding:
        raise PluginError(f"encoding {name!r} from {where}: the name is taken by {_registered[name][1]}")
    if name not in _registered and taken:
        raise PluginError(f"encoding {name!r} from {where}: the name is taken by {taken.target} of {taken.package}")
    _registered[name] = (encoding, where)
    return encoding


def _file_of(encoding: type[Encoding]) -> str:
    """Where a class is written; its module where that is no file (a notebook, a console)."""
    try:
        return inspect.getsourcefile(encoding) or encoding.__module__
    except (TypeError, OSError):
        return encoding.__module__


def _check_name(name: str, where: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ConfigError(f"encoding name {name!r} from {where}: allowed are letters, digits, '_' and '-'")


@cache
def _installed() -> tuple[dict[str, Entry], dict[str, str]]:
    """Built-in and plug-in entries, and what is wrong with names that two packages claim."""
    version = _own_version()
    found = {name: Entry(name, target, f"posenc {version}") for name, target in BUILT_IN.items()}
    clashes: dict[str, str] = {}
    for entry in sorted(_brought(), key=lambda entry: (entry.name, entry.target)):
        first = found.get(entry.name)
        if first and (first.target, first.package) != (entry.target, entry.package):
            clashes[entry.name] = (
                f"encoding {entry.name!r} is claimed by {first.target} of {first.package}"
                f" and by {entry.target} of {entry.package}: rename or uninstall one"
            )
        found.setdefault(entry.name, entry)
    return found, clashes


def _brought() -> list[Entry]:
    """What other packages bring. Each is read by itself, so that one without metadata stops no other."""
    found: list[Entry] = []
    packages: set[str | None] = set()
    for distribution in metadata.distributions():
        points = [point for point in distribution.entry_points if point.group == GROUP]
        if not points:
            continue
        name: str | None = None
        version = ""
        with suppress(Exception):  # an installation cut off half-way: what is raised depends on who reads it
            name, version = distribution.name, distribution.version
        if name and name in packages:  # further down the path: the first is the one that is imported
            continue
        packages.add(name)
        package = f"{name} {version}" if name else "an unknown package"
        found += [Entry(point.name, point.value.replace(" ", ""), package) for point in points]
    return found


def _own_version() -> str:
    try:
        return metadata.version("posenc")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "0+source"


def entries() -> dict[str, Entry]:
    """Every known encoding by name; nothing is imported."""
    found = dict(_installed()[0])
    for name, (encoding, _) in _registered.items():
        found[name] = Entry(name, f"{encoding.__module__}:{encoding.__qualname__}", "registered in this process")
    return found


def load(name: str, where: str = "") -> type[Encoding]:
    """The class registered under a single name.

    Raises:
        UnknownNameError: no such encoding.
        PluginError: two packages claim the name, its module cannot be imported, or it is no Encoding.
    """
    if name in _registered:
        return _registered[name][0]
    found, clashes = _installed()
    if name in clashes:
        raise PluginError(clashes[name])
    if name not in found:
        raise UnknownNameError("encoding", name, entries(), where)
    entry = found[name]
    module, _, attribute = entry.target.partition(":")
    try:
        loaded = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:  # a plug-in may fail in any way, and must name itself when it does
        raise PluginError(
            f"encoding {name!r} of {entry.package} cannot be loaded from {entry.target}:"
            f" {type(error).__name__}: {error}"
        ) from error
    from posenc.encoding import Encoding

    if not (isinstance(loaded, type) and issubclass(loaded, Encoding)):
        raise PluginError(f"encoding {name!r} of {entry.package}: {entry.target} is no subclass of posenc.Encoding")
    return loaded


@dataclass(frozen=True)
class Spec:
    """One encoding as written: its name and the options given."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.options)
        return f"{self.name}({inside})" if inside else self.name


def parse(text: str, where: str = "") -> list[Spec]:
    """`sinusoidal+rope(base=500000)` to its parts.

    Raises:
        ConfigError: it cannot be read.
    """
    place = f" ({where})" if where else ""
    form = "write NAME, NAME(option=value) or NAME+NAME"
    specs = []
    for part in split(text, "+"):
        match = re.fullmatch(r"([A-Za-z][A-Za-z0-9_-]*)\s*(?:\((.*)\))?", part.strip(), flags=re.DOTALL)
        if not match:
            raise ConfigError(f"encoding {text!r}{place} cannot be read: {form}")
        name, inside = match.groups()
        try:
            call = ast.parse(f"f({inside or ''})", mode="eval").body
            assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args
            assert len({k.arg for k in call.keywords} - {None}) == len(call.keywords)  # each named, and once
            options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        except (SyntaxError, ValueError, TypeError, AssertionError):
            raise ConfigError(f"options ({inside}) of encoding {name!r}{place} cannot be read: {form}") from None
        specs.append(Spec(name, tuple(sorted(options.items()))))
    return specs


def split(text: str, separator: str) -> list[str]:
    """A text at each separator outside parentheses and quotes."""
    parts, depth, quote, escaped = [""], 0, "", False
    for character in text:
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "'\"":
            quote = character
        else:
            depth += {"(": 1, ")": -1}.get(character, 0)
        if character == separator and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


@dataclass(frozen=True)
class Option:
    """One option of an encoding: its type as annotated and its default."""

    name: str
    type: Any
    default: Any


def options_of(encoding: type[Encoding]) -> dict[str, Option]:
    """The keyword-only parameters of an encoding's `__init__`."""
    try:
        hints = typing.get_type_hints(encoding.__init__)
    except NameError:  # an annotation that exists for type checkers alone: then any value may be given
        hints = {}
    return {
        parameter.name: Option(parameter.name, hints.get(parameter.name, object), parameter.default)
        for parameter in inspect.signature(encoding.__init__).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def type_name(wanted: Any) -> str:
    """An option's type as people write it."""
    return wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")


def _fitted(value: Any, wanted: Any) -> Any:
    """`value` as the annotated type, integers taken where floats are; a TypeError where it is not of it."""
    origin = typing.get_origin(wanted)
    if origin is typing.Literal:
        if any(value == choice and type(value) is type(choice) for choice in typing.get_args(wanted)):
            return value
        raise TypeError
    if origin in (typing.Union, types.UnionType):
        for choice in typing.get_args(wanted):
            with suppress(TypeError):
                return _fitted(value, choice)
        raise TypeError
    plain = origin or wanted
    if plain is float and type(value) is int:
        return float(value)
    if not isinstance(plain, type):  # Any, a type variable: nothing to hold it to
        return value
    if not isinstance(value, plain) or (isinstance(value, bool) and plain not in (bool, object)):
        raise TypeError
    return value


def _options(spec: Spec, encoding: type[Encoding], where: str) -> dict[str, Any]:
    """Options as given, each of its annotated type."""
    declared = options_of(encoding)
    place = f"{where}: {spec}" if where else str(spec)
    given = {}
    for key, value in spec.options:
        if key not in declared:
            raise UnknownNameError(f"option of encoding {spec.name!r}", key, declared, place)
        try:
            given[key] = _fitted(value, declared[key].type)
        except TypeError:
            wanted = type_name(declared[key].type)
            raise ConfigError(f"option {key}={value!r} ({place}): {wanted} is wanted") from None
    return given


def describe(text: str, where: str = "") -> dict[str, str]:
    """The canonical name, version and package of an encoding as written: its part in a cell's identity.

    Options equal to their defaults are dropped, so that `rope` and `rope(base=10000)` are one.
    """
    names, versions, packages = [], [], []
    for spec in parse(text, where):
        encoding = load(spec.name, where)
        declared = options_of(encoding)
        given = _options(spec, encoding, where)
        names.append(str(Spec(spec.name, tuple((k, v) for k, v in sorted(given.items()) if v != declared[k].default))))
        versions.append(encoding.version)
        package = entries()[spec.name].package
        if package not in packages:
            packages.append(package)
    return {"name": "+".join(names), "version": "+".join(versions), "package": ", ".join(packages)}


def create(text: str, stack: Stack, where: str = "") -> Encoding:
    """Make the encoding written as `text`, for one stack. Its parameters are not yet drawn: see `initialise`.

    Raises:
        UnknownNameError: an unknown name or option.
        ConfigError: it cannot be read, or an option has a wrong type or value.
        PluginError: a package's encoding cannot be loaded.
        NotPossibleError: parts that cannot be composed.
    """
    from posenc.encoding import Composite

    parts = []
    for spec in parse(text, where):
        encoding = load(spec.name, where)
        try:
            parts.append(encoding(stack, **_options(spec, encoding, where)))
        except ValueError as error:
            raise ConfigError(f"encoding {spec}{f' ({where})' if where else ''}: {error}") from None
    return parts[0] if len(parts) == 1 else Composite(stack, parts)
