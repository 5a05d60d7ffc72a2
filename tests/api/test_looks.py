"""Colours and marks of encodings: told apart at a glance, the same in every report, by family."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from posenc.api import registry
from posenc.api.looks import OWN, colours, declared, slots
from posenc.common.colours import FAMILIES, OTHER, SHADES
from posenc.report.figures.style import looks

Array = NDArray[np.float64]
SIGHTS = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
)
"""Machado, Oliveira and Fernandes 2009: normal sight, then protanopia, deuteranopia, tritanopia, on linear RGB."""
PAGES = {0: ("#ffffff", 3.0), 1: ("#14181d", 4.0)}
WELL_KNOWN = ("sinusoidal", "rope", "learned", "t5", "none", "shaw", "rope_outside", "alibi")


def linear(colour: str) -> Array:
    values = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2."""
    lights = sorted(float(linear(colour) @ (0.2126, 0.7152, 0.0722)) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def oklab(rgb: Array) -> Array:
    """Ottosson 2020."""
    cones = np.array(
        [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
         [0.0883024619, 0.2817188376, 0.6299787005]]
    )  # fmt: skip
    lab = np.array(
        [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
         [0.0259040371, 0.7827717662, -0.8086757660]]
    )  # fmt: skip
    return np.asarray(lab @ np.cbrt(cones @ rgb))


def least(colours: list[str]) -> float:
    """The least distance between any two, to any sight."""
    return min(
        float(np.linalg.norm(oklab(np.clip(np.array(sight) @ one, 0, 1)) - oklab(np.clip(np.array(sight) @ two, 0, 1))))
        for sight in SIGHTS
        for one, two in itertools.combinations(map(linear, colours), 2)
    )


@pytest.mark.parametrize("page", PAGES, ids=["light", "dark"])
def test_colours_stand_out_from_the_page_and_from_each_other(page: int) -> None:
    paper, wanted = PAGES[page]
    assert all(contrast(pair[page], paper) >= wanted for shades in FAMILIES.values() for pair in shades)
    well_known = [FAMILIES[slot.family][slot.number % SHADES][page] for slot in slots(WELL_KNOWN).values()]
    assert least(well_known) >= 0.11
    assert least(list({*well_known, *(shades[0][page] for shades in FAMILIES.values())})) >= 0.1
    for family, shades in FAMILIES.items():
        assert family == "none" or least([pair[page] for pair in shades]) >= 0.07, family


def test_every_built_in_encoding_has_a_look_of_its_own_and_its_class_says_it() -> None:
    assert declared().keys() == registry.BUILT_IN.keys()
    assert len(set(declared().values())) == len(declared())
    for name, slot in declared().items():
        assert slot == vars(registry.load(name))["look"], name
        assert slot.family in FAMILIES.keys() - {OTHER} and slot.number < OWN, name
    assert len({(look.colour, look.marker) for look in looks(WELL_KNOWN).values()}) == len(WELL_KNOWN)


def test_a_look_follows_from_the_encoding_alone() -> None:
    families = {"rope(base=500000)": "rotary", "sinusoidal+rope": "rotary", "layers(rope, none, every=4)": "rotary",
                "randomized+learned": "absolute", "dape(bias=kerple)": "content", "mine": OTHER, "./m.py:Mine": OTHER,
                "mine+rope(": OTHER, "": OTHER}  # fmt: skip
    assert {name: slot.family for name, slot in slots(families).items()} == families
    names = [*families, *declared(), *(f"mine{index}" for index in range(60))]
    found = looks(names)
    assert len(set(map(repr, found.values()))) == len(names)
    assert all(found[name] == looks([name])[name] for name in [*declared(), *families])
    assert colours(names) == {name: look.colour for name, look in found.items()}
