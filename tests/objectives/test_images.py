"""The objective `images`: where pixels stand in patches, what another resolution is, what an encoding is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from posenc.backbone import cost
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError, NotPossibleError
from posenc.config.task import task_at
from posenc.data import photographs, pictures
from posenc.objectives import factory
from posenc.objectives.images import Images
from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.record import Record
from posenc.records.store import Store
from posenc.running.driver import Outcome
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

TINY: dict[str, Any] = {
    "backbone.layers": 1, "backbone.width": 16, "backbone.heads": 2, "backbone.feedforward": 16, "training.steps": 4,
    "training.warmup": 0, "training.batch": 8, "training.validate_every": 2, "evaluation.tokens": 2560,
}  # fmt: skip
PLANE = ["learned_2d", "sinusoidal_2d", "axial_rope", "rope_mixed", "liere", "comrope_ap", "alibi_2d", "kerple_2d"]
ROW = ["learned", "sinusoidal", "rope", "t5", "shaw"]


def cells(*encodings: str, **changes: Any) -> list[Cell]:
    chosen = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    return make(find_suite("images/digits"), Selection(encodings=encodings, seeds=[0], changes=chosen)).cells


def of(**changes: Any) -> Images:
    (cell,) = cells("none", **changes)
    made = factory.make(cell.settings, None)
    assert isinstance(made, Images)
    return made


def model_of(encoding: str, patches: int = 64, **shape: Any) -> Transformer:
    config = BackboneConfig(form="encoder", head="mean", outputs=10, vocabulary=1, layers=2, width=16, heads=2,
                            feedforward=16, patch=(2, 2), **shape)  # fmt: skip
    return Transformer(config, encoding, patches).initialise(0).double().eval()


def run(folder: Path, *planned: Cell) -> list[Record]:
    store = Store(folder)
    for cell in planned:
        train(cell, CellTerms(store=str(folder), suite="images", data=None), lambda: False)
    return [record for cell in planned if (record := store.read_record(cell.id))]


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_each_pixel_stands_in_its_patch(patch: int) -> None:
    objective = of(backbone__patch=[patch, patch], length=(8 // patch) ** 2, evaluation__length_factors=[1])
    pixels = pictures.digits(None).splits["test"][0][:3].astype(np.float64)
    mean, deviation = float(objective.mean), float(objective.deviation)
    found = objective.patches("test", np.arange(3), (8 // patch) ** 2)
    assert found.shape == (3, (8 // patch) ** 2, patch**2)
    for image in range(3):
        for row in range(8):
            for column in range(8):
                place = (row // patch) * (8 // patch) + column // patch
                inside = (row % patch) * patch + column % patch
                wanted = (pixels[image, row, column, 0] - mean) / deviation
                assert float(found[image, place, inside]) == pytest.approx(wanted, abs=1e-5)
    at = objective.places(objective.length, torch.device("cpu"))[0]
    assert at.tolist() == [[row, column] for row in range(8 // patch) for column in range(8 // patch)]


def test_pixels_are_standardised_by_those_of_training_alone() -> None:
    objective = of()
    train = pictures.digits(None).splits["train"][0].astype(np.float64)
    assert float(objective.mean) == pytest.approx(train.mean(), rel=1e-6)
    assert float(objective.deviation) == pytest.approx(train.std(), rel=1e-6)
    assert objective.data["mean"] == objective.mean.tolist()


def test_another_resolution_is_the_same_image() -> None:
    objective = of(backbone__patch=[1, 1])
    images = objective.patches("test", np.arange(4), 64).view(4, 1, 8, 8)
    for side in (6, 10, 12):
        found = objective.patches("test", np.arange(4), side**2).view(4, side, side)
        wanted = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)[:, 0]
        assert torch.allclose(found, wanted, atol=1e-6)
    flat = torch.ones(1, 1, 8, 8)  # what is even stays so
    assert torch.allclose(functional.interpolate(flat, (16, 16), mode="bilinear", antialias=True), torch.ones(16, 16))


def test_coordinates_are_counted_on_or_scaled() -> None:
    objective, device = of(), torch.device("cpu")
    assert objective.places(144, device)[0, -1].tolist() == [11, 11]
    assert objective.places(36, device)[0, -1].tolist() == [5, 5]
    for length in (36, 144):
        at = objective.places(length, device, scaled=True)[0]
        assert at[-1].tolist() == pytest.approx([7, 7])
        assert at[0].tolist() == [0, 0]
    assert objective.tests == [
        *(("test", length) for length in (16, 36, 64, 144, 256)),
        *(("test_scaled", length) for length in (16, 36, 144, 256)),
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", PLANE)
def test_an_encoding_of_the_plane_is_given_where_patches_stand(encoding: str) -> None:
    model, objective = model_of(encoding), of()
    if encoding == "comrope_ap":  # its angles start at nought
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".encoding." in name:
                    parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    assert model.axes == 2
    patches = objective.patches("test", np.arange(4), 64)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    at = objective.places(64, torch.device("cpu"))
    plain = model.summarise(model.hidden(patches, coordinates=at))
    # In another order, each with its own coordinates, it is the same image; at others' places it is another one.
    assert torch.allclose(model.summarise(model.hidden(patches[:, order], coordinates=at[:, order])), plain, atol=1e-10)
    assert (model.summarise(model.hidden(patches[:, order], coordinates=at)) - plain).abs().max() > 1e-4
    with pytest.raises(NotPossibleError, match="coordinates"):
        model.hidden(patches)


@pytest.mark.parametrize("encoding", ROW)
def test_an_encoding_of_a_row_counts_patches(encoding: str) -> None:
    model, objective = model_of(encoding), of()
    assert model.axes == 1
    patches = objective.patches("test", np.arange(4), 64)
    at = objective.places(64, torch.device("cpu"))
    assert torch.equal(model.hidden(patches, coordinates=at), model.hidden(patches, coordinates=at.flip(1)))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert (objective.logits(model, patches[:, order]) - objective.logits(model, patches)).abs().max() > 1e-4


def test_without_an_encoding_shuffled_patches_are_the_same_image() -> None:
    model, objective = model_of("none"), of()
    patches = objective.patches("test", np.arange(8), 64)
    shuffled = torch.stack(
        [image[torch.randperm(64, generator=torch.Generator().manual_seed(n))] for n, image in enumerate(patches)]
    )
    assert torch.allclose(objective.logits(model, shuffled), objective.logits(model, patches), atol=1e-12)


def test_without_an_encoding_shuffled_patches_score_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, model = of(), model_of("none")
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    plain, patches = objective.score(model, "test", 64), objective.patches
    monkeypatch.setattr(objective, "patches", lambda *given: patches(*given)[:, order])
    shuffled = objective.score(model, "test", 64)
    assert shuffled.values == pytest.approx(plain.values, abs=1e-9)
    assert np.array_equal(shuffled.each["accuracy"], plain.each["accuracy"])
    monkeypatch.setattr(objective, "patches", patches)
    with_places = model_of("axial_rope")
    plain = objective.score(with_places, "test", 64)
    monkeypatch.setattr(objective, "patches", lambda *given: patches(*given)[:, order])
    assert objective.score(with_places, "test", 64).values != pytest.approx(plain.values, abs=1e-3)


def test_patches_enter_with_the_size_of_tokens() -> None:
    values = torch.randn(200, 64, 16, generator=torch.Generator().manual_seed(0))
    config = BackboneConfig(form="encoder", head="mean", outputs=10, layers=1, width=64, heads=2, feedforward=16,
                            patch=(4, 4))  # fmt: skip
    model = Transformer(config, "none", 64).initialise(3)
    assert float(model.embed(values).detach().square().mean()) == pytest.approx(1.0, rel=0.1)
    assert cost.parameters(config, "none", 64)["total"] == sum(each.numel() for each in model.parameters())
    assert dict(model.named_parameters())["patches.weight"].shape == (64, 16)


def test_what_a_model_learns_does_not_hang_on_its_encoding_at_the_start() -> None:
    one, other = (dict(model_of(name).named_parameters()) for name in ("rope", "learned_2d"))
    for name, value in one.items():
        assert torch.equal(value, other[name])


def test_digits_are_trained_scored_at_each_resolution_and_refused_beyond_a_table(tmp_path: Path) -> None:
    records = run(tmp_path, *cells("axial_rope", "learned_2d", "rope"))
    for record in records:
        assert record["status"] == "done", record["traceback"]
        tests = {(row["length"], row["metric"]): row for row in record["scores"] if row["split"] == "test"}
        assert {length for length, _ in tests} == {16, 36, 64, 144, 256}
        for length in (36, 64):
            assert 0 <= tests[length, "accuracy"]["value"] <= 1
            assert tests[length, "cross_entropy"]["value"] > 0
        assert record["data"]["name"] == "images/digits"
        assert record["baselines"]["majority"] < 0.2
        beyond = tests[144, "accuracy"]
        if record["config"]["encoding"]["name"] == "learned_2d":
            assert beyond["value"] is None and "not possible" in beyond["why"]
        else:
            assert beyond["value"] is not None
        scaled = {row["length"]: row for row in record["scores"] if row["split"] == "test_scaled"}
        assert scaled.keys() == {16, 36, 144, 256}
        whole = record["config"]["encoding"]["name"] == "axial_rope"
        assert all((row["value"] is not None) == whole for row in scaled.values())
        assert whole or all("not possible" in row["why"] for row in scaled.values())
    again = run(tmp_path / "again", *cells("axial_rope"))
    assert again[0]["scores"] == records[0]["scores"]


def test_images_are_moved_and_mirrored_in_training_alone() -> None:
    plain = of(backbone__patch=[1, 1], training__batch=32)
    moving = of(backbone__patch=[1, 1], training__batch=32, training__shift=2, training__flip=True)
    found, labels = moving.batch(3, 1, 32)
    own, same = plain.batch(3, 1, 32)
    assert torch.equal(labels, same)
    dark = -float(plain.mean) / float(plain.deviation)
    seen = set()
    for image, one in zip(found.view(32, 8, 8), own.view(32, 8, 8), strict=True):
        hits = []
        for mirrored in (False, True):
            for row in range(-2, 3):
                for column in range(-2, 3):
                    padded = functional.pad(one, (2, 2, 2, 2), value=dark)
                    cut = padded[2 + row : 10 + row, 2 + column : 10 + column]
                    if torch.allclose(cut.flip(1) if mirrored else cut, image, atol=1e-6):
                        hits.append((mirrored, row, column))
        assert hits
        seen |= set(hits)
    assert {mirrored for mirrored, _, _ in seen} == {False, True} and len({(r, c) for _, r, c in seen}) > 8
    assert torch.equal(found, moving.batch(3, 1, 32)[0]) and not torch.equal(found, moving.batch(3, 2, 32)[0])
    assert torch.equal(plain.patches("test", np.arange(4), 64), moving.patches("test", np.arange(4), 64))


def test_scores_do_not_hang_on_how_many_are_scored_at_once() -> None:
    few, many = of(evaluation__batch_tokens=128), of(evaluation__batch_tokens=100_000)
    model = model_of("axial_rope")
    for length in (36, 64, 144):
        one, other = few.score(model, "test", length), many.score(model, "test", length)
        assert one.items == other.items == 40
        assert one.values["accuracy"] == other.values["accuracy"]
        assert one.values["cross_entropy"] == pytest.approx(other.values["cross_entropy"], abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone.patch": []}, "wants the sides of a patch"),
        ({"backbone.patch": [1, 2]}, "two equal sides"),
        ({"backbone.patch": [0, 0]}, "sides must be from 1"),
        ({"length": 16, "evaluation.length_factors": [1, 0.5]}, "8 patches make no square"),
        ({"evaluation.length_factors": [1, 2]}, "128 patches make no square"),
        ({"backbone.form": "decoder"}, "read by an encoder"),
    ],
)
def test_what_is_no_grid_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task_at("images/digits", "smoke", {key: (value, "--set") for key, value in changes.items()})
    assert words in str(caught.value)


def test_text_has_no_patches() -> None:
    with pytest.raises(ConfigError, match=r"reads tokens|read by an encoder"):
        task_at("mlm", "smoke", {"backbone.patch": ([1, 1], "--set")})


def test_other_channels_and_classes_than_the_images_have_are_refused() -> None:
    for key, value in (("outputs", 9), ("channels", 3)):
        (cell,) = cells("none", **{f"backbone__{key}": value})
        with pytest.raises(ConfigError, match=rf"backbone\.{key} = {value}: images/digits has"):
            factory.make(cell.settings, None)
    with pytest.raises(DataError, match=r"1,197 training rows, and training\.batch = 2000"):
        cells("none", training__batch=2000)


def test_text_is_no_image() -> None:
    with pytest.raises(ConfigError, match="objective 'images' cannot learn from it"):
        cells("none", data__source="stdlib")


def test_photographs_are_decoded_at_each_resolution(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    for place, count in (("train", 8), ("val", 3)):
        for name in ("n01", "n02"):
            folder = tmp_path / "data" / "imagenet" / place / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(dice.integers(256, size=(40, 30, 3), dtype=np.uint8)).save(folder / f"{index}.jpeg")
    changes = {**TINY, "backbone.outputs": 2, "training.batch": 4, "evaluation.tokens": 0}
    suite = replace(find_suite("images/imagenet"), scale="small")
    chosen = Selection(encodings=["axial_rope"], seeds=[0], changes=changes, data=tmp_path / "data")
    (cell,) = make(suite, chosen).cells
    train(cell, CellTerms(suite="s", store=tmp_path / "here", data=tmp_path / "data"))
    record = Store(tmp_path / "here").read_record(cell.id)
    assert record and record["status"] == "done", record and record["traceback"]
    tests = {row["length"]: row for row in record["scores"] if row["split"] == "test" and row["metric"] == "accuracy"}
    assert tests.keys() == {16, 36, 64, 144, 256} and all(row["items"] == 6 for row in tests.values())
    objective = factory.make(cell.settings, tmp_path / "data")
    assert isinstance(objective, Images)
    assert objective.patches("test", np.arange(2), 144).shape == (2, 144, 8 * 8 * 3)  # 96 pixels a side
    assert torch.equal(objective.batch(1, 2, 4)[0], objective.batch(1, 2, 4)[0])
    photographs.imagenet.cache_clear()


def test_a_damaged_photograph_ends_a_run_as_bad_input(tmp_path: Path) -> None:
    """No plan decodes a million files: what is damaged is found as training asks for it, and named."""
    for place in ("train", "val"):
        for name in ("n01", "n02"):
            folder = tmp_path / "data" / "imagenet" / place / name
            folder.mkdir(parents=True)
            for index in range(8):
                Image.new("RGB", (40, 30), (index, 0, 0)).save(folder / f"{index}.jpeg")
    damaged = tmp_path / "data" / "imagenet" / "train" / "n02" / "3.jpeg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    changes = {**TINY, "backbone.outputs": 2, "training.batch": 4, "evaluation.tokens": 0, "training.steps": 20}
    suite = replace(find_suite("images/imagenet"), scale="small")
    plan = make(suite, Selection(encodings=["axial_rope"], seeds=[0], changes=changes, data=tmp_path / "data"))
    train(plan.cells[0], CellTerms(suite="s", store=tmp_path / "here", data=tmp_path / "data"))
    record = Store(tmp_path / "here").read_record(plan.cells[0].id)
    assert record and record["status"] == "failed" and record["cause"] == "data"
    assert record["reason"] and f"{damaged} is no whole image" in record["reason"]
    outcome = Outcome(Store(tmp_path / "here"), failed=[record])
    assert outcome.exit_status == 2
    assert Outcome(outcome.store, failed=[{**record, "cause": None}]).exit_status == 3  # type: ignore[typeddict-item]
    photographs.imagenet.cache_clear()


def classed(encoding: str, patches: int = 16) -> Transformer:
    """As `model_of`, with a vector of its own that the class is read from."""
    config = BackboneConfig(form="encoder", head="class", outputs=10, vocabulary=1, layers=2, width=16, heads=2,
                            feedforward=16, patch=(2, 2))  # fmt: skip
    return Transformer(config, encoding, patches).initialise(0).double().eval()


GRID = torch.cartesian_prod(torch.arange(4), torch.arange(4))[None]


class TestClassVector:
    @pytest.mark.parametrize("encoding", ["none", *PLANE, *ROW])
    def test_it_stands_first_and_the_class_is_read_from_it_alone(self, encoding: str) -> None:
        model, patches = classed(encoding), torch.randn(3, 16, 4, dtype=torch.float64)
        assert model.patches.cls is not None and model.patches.cls.shape == (16,)
        hidden = model.hidden(patches, coordinates=GRID)
        assert hidden.shape == (3, 17, 16)
        wanted = functional.linear(hidden[:, 0], model.head.out.weight, model.head.out.bias)
        torch.testing.assert_close(model.summarise(hidden), wanted)
        model.summarise(hidden).sum().backward()
        assert model.patches.cls.grad is not None and model.patches.cls.grad.abs().sum() > 0
        assert not any("pooler" in name for name, _ in model.named_parameters())

    @pytest.mark.parametrize("encoding", ["axial_rope", "rope_mixed"])
    def test_encodings_of_the_plane_do_not_turn_it(self, encoding: str) -> None:
        """A shift of all patches changes nothing among them, but all that is between them and the vector."""
        model, patches = classed(encoding), torch.randn(1, 16, 4, dtype=torch.float64)
        part = model.stacks[0][1].encoding
        seen: list[torch.Tensor] = []
        turn = part.rotate_query
        part.rotate_query = lambda x, *more: seen.append(turn(x, *more) - x) or turn(x, *more)  # type: ignore
        model.hidden(patches, coordinates=GRID + 1)
        assert all((change[:, :, 0] == 0).all() and (change[:, :, 1:] != 0).any() for change in seen) and seen

    def test_none_gives_shuffled_patches_the_same_score(self) -> None:
        model, patches = classed("none"), torch.randn(3, 16, 4, dtype=torch.float64)
        shuffled = patches[:, torch.randperm(16, generator=torch.Generator().manual_seed(1))]
        one, other = (model.summarise(model.hidden(each, coordinates=GRID)) for each in (patches, shuffled))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)

    def test_other_resolutions_have_the_same_parameters_and_a_row_of_places_one_more(self) -> None:
        assert cost.shapes(classed("rope").config, "rope", 16) == cost.shapes(classed("rope").config, "rope", 64)
        table = cost.shapes(classed("learned").config, "learned", 16)
        assert [shape for name, shape in table.items() if "encoding" in name] == [(17, 16)]
        with pytest.raises(NotPossibleError, match="it has 17 positions, and 65 were asked for"):
            classed("learned").hidden(torch.zeros(1, 64, 4, dtype=torch.float64))

    def test_a_cell_learns_from_it(self, tmp_path: Path) -> None:
        planned = cells("axial_rope", "learned", backbone__head="class")
        records = run(tmp_path, *planned)
        assert [record["status"] for record in records] == ["done", "done"], records[0]["reason"]
        assert {row["length"] for row in records[0]["scores"]} == {16, 36, 64, 144, 256}

    @pytest.mark.parametrize("task", ["images/cifar10", "images/cifar100", "images/imagenet", "video/ucf101"])
    def test_the_papers_models_have_it(self, task: str) -> None:
        heads = {scale: task_at(task, scale, {}).backbone.head for scale in ("smoke", "small", "paper")}
        assert heads == {"smoke": "mean", "small": "mean", "paper": "class"}
