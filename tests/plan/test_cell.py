"""A cell's configuration, in types."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
from runs import cells

from posenc.common.errors import ConfigError
from posenc.common.files import digest
from posenc.config.settings import Settings
from posenc.config.task import plain
from posenc.objectives.work import fixed
from posenc.plan.later import without_defaults
from posenc.plan.plan import Selection, find_suite, make


def test_a_cells_settings_are_its_configuration_and_nothing_else() -> None:
    for cell in make(find_suite("quick"), Selection(scale="smoke")).cells:
        assert without_defaults(plain(cell.settings)) == cell.config
        assert cell.id == digest(cell.config)[:16]


def test_a_cell_reaches_its_worker_whole() -> None:
    (cell,) = cells("rope")
    assert cell.settings.training.steps == 10
    sent = pickle.loads(pickle.dumps(cell))
    assert sent == cell
    assert sent.settings == cell.settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropuot": 1}, "a cell's configuration: unknown key dropuot"),
        ({"length": "64"}, "length = '64'"),
        ({"training": {}}, "training.steps"),
        ({"runtime": {"device": "tpu"}}, "runtime.device = 'tpu'"),
    ],
)
def test_a_configuration_of_another_shape_is_refused(changes: dict[str, Any], message: str) -> None:
    (cell,) = cells("rope")
    with pytest.raises(ConfigError, match=message):
        Settings.of({**cell.config, **changes})


def test_tokens_of_a_training_count_both_sides_of_a_translation() -> None:
    (cell,) = cells("rope")
    assert fixed(cell.settings).tokens == 10 * 4 * 16
    two_sided = replace(cell.settings, backbone=replace(cell.settings.backbone, form="encoder-decoder"))
    assert fixed(two_sided).tokens == 2 * 10 * 4 * 16
