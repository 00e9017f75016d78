"""Training an upsampler: what it sees of each picture, that it continues to the bit, its grid."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.train.tiny import assert_same_run, tiny_config, tiny_data, tiny_run
from unnoise.config.resolve import resolve
from unnoise.config.schema import TrainConfig
from unnoise.diffusion.low_res import shrink
from unnoise.generate import sample
from unnoise.images import to_images
from unnoise.model import load_model
from unnoise.presets import load_preset
from unnoise.train.diffusion import DiffusionJob
from unnoise.train.events import Sampled, StepDone
from unnoise.train.noised import DiffusionBatch


def up_config(low_res: int = 4, noise: float = 0.5, **changes: Any) -> TrainConfig:
    return tiny_config(model={"low_res": low_res, "low_res_noise": noise}, **changes)


def job_of(config: TrainConfig) -> DiffusionJob:
    resolved = resolve(config, size=8, channels=1, classes=3)
    return DiffusionJob(resolved, tiny_data(config.seed), torch.device("cpu"))


def told(job: DiffusionJob, batch: DiffusionBatch) -> tuple[Tensor, Tensor | None]:
    """The small picture and the level that the network is given for a batch."""
    seen: list[Any] = []

    def network(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        seen.append(cond)
        return torch.zeros(len(x), 2, *x.shape[2:], requires_grad=True)

    job.losses(network, batch)  # type: ignore[arg-type]
    return seen[0].concat, seen[0].level


@pytest.mark.parametrize("side", [4, 2, 5])
def test_it_is_told_the_shrunken_picture(side: int) -> None:
    job = job_of(up_config(side, 0.0))
    batch = job.draw(3, range(8))
    low, level = told(job, batch)
    assert level is None and batch.z is None
    assert torch.equal(low, shrink(to_images(batch.pixels), side))


def test_with_augmentation_it_is_told_a_noisy_one_and_how_noisy() -> None:
    job = job_of(up_config())
    batches = [job.draw(step, range(8)) for step in range(40)]
    lows, levels = zip(*(told(job, batch) for batch in batches), strict=True)
    clean = torch.cat([shrink(to_images(batch.pixels), 4) for batch in batches])
    level = torch.cat([value for value in levels if value is not None])
    assert 0 <= level.min() < 0.05 and 0.45 < level.max() <= 0.5
    assert abs(level.mean().item() - 0.25) < 5 * 0.5 / (12 * len(level)) ** 0.5
    sigma = level.view(-1, 1, 1, 1)
    z = (torch.cat(lows) - (1 - sigma**2).sqrt() * clean) / sigma
    bound = 5 / z.numel() ** 0.5
    assert abs(z.mean().item()) < bound and abs(z.var().item() - 1) < 2 * bound
    assert len({row.numpy().tobytes() for row in torch.cat([batch.z for batch in batches])}) == 320


def test_what_is_drawn_is_a_function_of_the_place() -> None:
    job, other = job_of(up_config()), job_of(up_config(seed=1))
    whole, part = job.draw(5, range(8)), job.draw(5, range(3, 6))
    assert torch.equal(whole.z[3:6], part.z) and torch.equal(whole.level[3:6], part.level)
    assert torch.equal(whole.take(slice(3, 6)).z, part.z)
    assert not torch.equal(whole.z, other.draw(5, range(8)).z)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    tiny_run(out, up_config())
    return out


class Stop(BaseException):
    pass


def test_a_run_cut_off_continues_to_the_bit(tmp_path: Path, finished: Path) -> None:
    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == 6:
            raise Stop

    with pytest.raises(Stop):
        tiny_run(tmp_path, up_config(), on_event=listen)
    tiny_run(tmp_path, up_config())
    assert_same_run(tmp_path, finished)


def test_other_small_pictures_are_other_settings(finished: Path) -> None:
    with pytest.raises(ValueError, match="model.low_res: 4 -> 2"):
        tiny_run(finished, up_config(2))


def test_the_file_says_what_it_enlarges(finished: Path) -> None:
    model = load_model(finished)
    assert (model.config.low_res, model.config.low_res_noise, model.config.image_size) == (4, 0.5, 8)
    assert model.config.network.in_channels == 2 and model.config.network.concat_level
    small = np.zeros((2, 4, 4, 1), np.uint8)
    assert sample(model, low_res=small, steps="2", low_res_noise=0.5).pixels.shape == (2, 8, 8, 1)


def test_the_grid_shows_low_drawn_and_real(tmp_path: Path) -> None:
    config = up_config(sample_every=2, sample_count=4, steps=2, log_every=1)
    _, events = tiny_run(tmp_path, config)
    grids = [event for event in events if isinstance(event, Sampled)]
    assert len(grids) == 2 and all({"sample/psnr", "sample/psnr_low"} == set(g.measured) for g in grids)
    pixels = np.asarray(Image.open(grids[-1].path))
    # 8x8 pictures, 12 times as large, with their heads: three columns, four rows.
    assert pixels.shape[1] == 3 * 98 + 2
    real, low = pixels[-98:-2, 198:294, 0], pixels[-98:-2, 2:98, 0]
    means = real.reshape(4, 24, 4, 24).mean((1, 3))
    assert np.abs(low.reshape(4, 24, 4, 24).mean((1, 3)) - means).max() <= 1
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any("sample/psnr" in line for line in lines)


def test_it_learns_to_use_the_small_picture(tmp_path: Path) -> None:
    """Made-up pictures are noise around a grey level that only the small picture tells (labels are off)."""
    changes: dict[str, Any] = {
        "model": {
            "network": {"dropout": 0.0}, "variance": "fixed_small", "predicts": "x0",
            "low_res": 1,
        },
        "objective": {"name": "simple"}, "timesteps": {"name": "uniform"}, "label_dropout": 0.0,
        "optimizer": {"lr": 0.01, "decay": "none"}, "steps": 60, "save_every": 60, "batch_size": 16,
        "micro_batch": None, "ema": {"rates": [0.9]},
    }  # fmt: skip
    rng = np.random.default_rng(0)
    level = rng.integers(30, 220, 24)
    pixels = (level[:, None, None, None] + rng.integers(-5, 6, (24, 8, 8, 1))).astype(np.uint8)
    data = replace(tiny_data(), store=type(tiny_data().store)(pixels), labels=None, classes=(), content="x")
    tiny_run(tmp_path, tiny_config(**changes), dataset=data)
    small = np.array([60, 200], np.uint8).reshape(2, 1, 1, 1)
    drawn = sample(load_model(tmp_path), low_res=small, steps="10").pixels.float().mean((1, 2, 3))
    assert abs(drawn[0] - 60) < 25 and abs(drawn[1] - 200) < 25


@pytest.mark.parametrize("name", ["adm-up-64-256", "adm-up-128-512", "iddpm-up-64-256", "adm-up-tiny"])
def test_published_recipes_pass_the_check(name: str) -> None:
    from unnoise.train.check import check

    config = load_preset(name).published()
    check(config, processes=1)
    assert config.model.low_res_noise == 0, "the published ones were trained without noise"


def test_settings_are_refused(tmp_path: Path) -> None:
    for changes, words in (
        ({"low_res": 8}, "model.low_res=8 is not below model.image_size=8"),
        ({"low_res_noise": 0.2}, "model.low_res_noise=0.2 is for upsamplers"),
        ({"low_res": 4, "low_res_noise": 1.5}, "use 0 or less than 1"),
        ({"low_res": 4, "network": {"concat_level": True}}, "concat_level=True"),
    ):
        with pytest.raises(ValueError, match=words):
            tiny_run(tmp_path, tiny_config(model=changes))
