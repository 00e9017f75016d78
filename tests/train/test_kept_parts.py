"""What is told of pictures without chance is made once: the same parts, and no picture read for them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.test_latents import latent_config, stage_of
from tests.train.tiny import tiny_data, tiny_run
from unnoise.config.resolve import resolve
from unnoise.data import Dataset
from unnoise.data.dataset import Squares
from unnoise.first_stage import save_first_stage
from unnoise.model import load_model
from unnoise.told_data import counted, open_told
from unnoise.train.diffusion import DiffusionJob
from unnoise.train.latents import open_first_stage, open_latents

BESIDE = {"kind": "spatial", "stages": 0, "out_channels": None}
GREY = {"what": "grey", "encoder": BESIDE}
SMALL = {"what": "low_res", "degradation": "bicubic", "factor": 2, "encoder": BESIDE}
HOLES = {"what": "inpaint", "encoder": BESIDE}
CPU = torch.device("cpu")


def colours() -> Dataset:
    """24 mirrored 8x8 pictures in colour."""
    pixels = np.random.default_rng(3).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    return replace(tiny_data(), store=Squares(pixels), channels=3, content="colours")


def settings(tmp_path: Path, kind: str, *told: Any, **changes: Any) -> Any:
    file = tmp_path / f"{kind}.safetensors"
    save_first_stage(file, stage_of(kind, channels=3))
    model = {"variance": "fixed_small", "told": list(told)}
    return latent_config(tmp_path, file, model=model, micro_batch=None, **changes)


def job(config: Any) -> DiffusionJob:
    """As `train` makes it."""
    data = colours()
    config, stage = open_first_stage(config, CPU)
    told = open_told(config.model, config.data, data)
    config, source = open_latents(config, data, stage, lambda event: None, CPU)
    many = counted(config.model, data, told)
    return DiffusionJob(resolve(config, size=8, channels=3, classes=3, told=many), data, CPU, source, told)


@pytest.mark.parametrize("kind", ["kl", "vq"])
@pytest.mark.parametrize("told", [(GREY,), (SMALL,), (GREY, SMALL), (GREY, HOLES)])
def test_kept_parts_are_those_made_at_every_step(tmp_path: Path, kind: str, told: Any) -> None:
    kept = job(settings(tmp_path, kind, *told))
    every = job(settings(tmp_path, kind, *told, latents={"cache": False}))
    every.source = replace(every.source, stage=kept.source.stage)  # measured on float16 latents, the scale
    every.teller = replace(every.teller, first_stage=kept.source.stage)
    one, two = kept.draw(3, range(8)), every.draw(3, range(8))
    assert (one.pixels is None) == (HOLES not in told) and two.pixels is not None
    a, b = kept._told(one).parts, every._told(two).parts
    assert a.keys() == b.keys() == {each["what"] for each in told}
    for what in a:
        torch.testing.assert_close(a[what], b[what], rtol=2e-3, atol=2e-3)
    assert kept.dataset._flipped(np.arange(24, 32)).any()  # some are mirrored


def test_training_reads_no_picture_for_what_is_kept(tmp_path: Path, monkeypatch: Any) -> None:
    config = settings(tmp_path, "kl", GREY, SMALL)
    tiny_run(tmp_path / "run", config, dataset=colours())

    def touched(*_: object) -> None:
        raise AssertionError("a picture was read")

    monkeypatch.setattr(Squares, "drawn", touched)
    monkeypatch.setattr(Squares, "center", touched)
    tiny_run(tmp_path / "again", config, dataset=colours())
    assert load_model(tmp_path / "again").info.step == 4


def test_other_first_stages_and_filters_have_parts_of_their_own(tmp_path: Path) -> None:
    area = {**SMALL, "degradation": "area"}
    job(settings(tmp_path, "kl", GREY, SMALL))
    job(settings(tmp_path, "kl", GREY, area))
    job(settings(tmp_path, "vq", GREY, area))
    names = sorted(
        path.name.split("-8x3-")[1][:10] for path in (tmp_path / "cache" / "latents").glob("*.npy")
    )
    assert len(names) == 6 and [name[:5] for name in names].count("grey-") == 2
    assert sum(name.startswith("low_res") for name in names) == 2
