"""`posenc new-encoding` and its like: packages that work as they are, to be changed into one's own.

`templates` beside this file has a folder for each kind, laid out as its package will be, with MODULE and NAME in the
names of files, and the `pyproject.toml` of all kinds.
"""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from posenc.common.errors import ConfigError

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Kind:
    """What a package brings.

    Attributes:
        what: in its description. help: in that of the command that writes it.
        group, target: of its entry point. installed: what of it is.
    """

    what: str
    help: str
    group: str
    target: str
    installed: str = "$module.py"


KINDS = {
    "encoding": Kind(
        "The positional encoding",
        "an encoding NAME that passes check",
        "posenc.encodings",
        "$module:$kind",
    ),
    "objective": Kind(
        "The objective",
        "an objective NAME, and a task that has it",
        "posenc.objectives",
        "$module:$kind",
    ),
    "source": Kind(
        "The source of data",
        "a source of data NAME, and a task over it",
        "posenc.sources",
        "$module:corpus",
    ),
    "tasks": Kind(
        "The tasks",
        "two tasks, NAME/bytes and NAME/pieces, over a text of its own",
        "posenc.tasks",
        "$module",
        "$module",
    ),
}


def new(kind: str, name: str, folder: Path) -> list[Path]:
    """Write a package of a kind of KINDS into a folder of its own below `folder`.

    Returns:
        The files written.

    Raises:
        ConfigError: no name for a module, or something of that name is there already.
    """
    title = name.title().replace("_", "")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"{name!r}: a name must be of small letters, digits and _, a letter first, as a module's is")
    if keyword.iskeyword(title):
        raise ConfigError(f"{name!r}: {title} is a word of Python's own")
    dashed = name.replace("_", "-")
    place = folder / f"posenc-{dashed}"
    if place.exists():
        raise ConfigError(f"{place} is there already: nothing was written")
    words = {"name": name, "module": f"posenc_{name}", "dashed": dashed, "kind": title}
    of_kind = {key: Template(value).substitute(words) for key, value in vars(KINDS[kind]).items()}
    tree = TEMPLATES / kind
    sources = {path.relative_to(tree).as_posix(): path for path in sorted(tree.rglob("*.in"))}
    written = []
    for path, source in {"pyproject.toml.in": TEMPLATES / "pyproject.toml.in", **sources}.items():
        target = place / path.removesuffix(".in").replace("MODULE", words["module"]).replace("NAME", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = Template(source.read_text(encoding="utf-8")).substitute(words | of_kind)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    return written
