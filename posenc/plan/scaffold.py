"""`posenc new-encoding`: a package with an encoding that works, to be changed into one's own."""

from __future__ import annotations

import re
from pathlib import Path

from posenc.common.errors import ConfigError

PYPROJECT = """[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "posenc-{dashed}"
version = "0.1.0"
description = "The positional encoding {name} for posenc"
requires-python = ">=3.11"
dependencies = ["posenc"]

[project.entry-points."posenc.encodings"]
{name} = "{module}:{kind}"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""

ENCODING = '''"""A positional encoding for posenc: ALiBi, until it is something else."""

import torch
from posenc import Context, Encoding


class {kind}(Encoding):
    """score - m_h |distance|, m_h = 2^(-8h/H) (Press et al. 2022, section 3)."""

    title = "a linear penalty on distance"
    paper = "Press et al. 2022, arXiv:2108.12409, section 3"
    formula = "s - m_h |n|, m_h = 2^(-8h/H)"
    relative = True

    def distance_bias(self, distances: torch.Tensor, context: Context) -> torch.Tensor:  # (N,) -> (H,N)
        heads = torch.arange(1, self.stack.heads + 1, device=distances.device)
        return -(2.0 ** (-8.0 * heads / self.stack.heads))[:, None] * distances.abs()
'''

TEST = '''"""What is declared is true, and the numbers are the formula's."""

import torch
from posenc import create
from posenc.api.stack import Stack


def test_it_does_what_it_declares(check_encoding):
    check_encoding("{name}")


def test_it_is_its_formula():
    stack = Stack(layers=2, heads=4, width=32, head_width=8, max_length=16, causal=True)
    bias = create("{name}", stack).distance_bias(torch.tensor([-3, 0]), None)
    assert bias.tolist() == [[-3 * 2.0 ** (-2 * h), 0.0] for h in range(1, 5)]
'''


def new_encoding(name: str, folder: Path) -> list[Path]:
    """Write a package for an encoding of this name into a folder of its own below `folder`.

    Returns:
        The files written.

    Raises:
        ConfigError: no name for a module, or something of that name is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"{name!r}: a name must be of small letters, digits and _, a letter first, as a module's is")
    dashed = name.replace("_", "-")
    place = folder / f"posenc-{dashed}"
    if place.exists():
        raise ConfigError(f"{place} is there already: nothing was written")
    words = {"name": name, "module": f"posenc_{name}", "dashed": dashed, "kind": name.title().replace("_", "")}
    files = {
        "pyproject.toml": PYPROJECT,
        f"{words['module']}.py": ENCODING,
        f"tests/test_{name}.py": TEST,
    }
    written = []
    for path, text in files.items():
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        for word, value in words.items():
            text = text.replace(f"{{{word}}}", value)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    return written
