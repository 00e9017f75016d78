"""Every published diffusion model of latents is a preset that trains; its shapes: weights/test_compvis.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.config.load import to_dict
from unnoise.config.schema import AutoencoderConfig
from unnoise.first_stage import make_first_stage, save_first_stage
from unnoise.model import load_model
from unnoise.networks.first_stage_settings import KlSettings, VqSettings
from unnoise.presets import latent_presets, load_preset
from unnoise.train.check import check

SIDE = 16
"""Of latents here."""
CLASSES = 4


@pytest.mark.parametrize(
    ("name", "stage", "error", "ends", "lr", "batch", "steps"),
    [
        ("ldm-celebahq-256", "vq-f4", "l2", (0.0015, 0.0195), 2e-6 * 48, 48, 410_000),
        ("ldm-ffhq-256", "vq-f4", "l2", (0.0015, 0.0195), 2e-6 * 42, 42, 635_000),
        ("ldm-lsun-bedroom-256", "vq-f4", "l2", (0.0015, 0.0195), 2e-6 * 48, 48, 1_900_000),
        ("ldm-lsun-church-256", "kl-f8", "l1", (0.0015, 0.0155), 5e-5, 96, 500_000),
        ("ldm-imagenet-256", "vq-f8", "l2", (0.0015, 0.0195), 1e-6 * 64, 64, 4_800_000),
        ("ldm-imagenet-256-v2", "vq-f4", "l2", (0.0015, 0.0195), 1e-4, 1200, 178_000),
        ("ldm-text2img-256", "vq-f4", "l2", (0.0015, 0.0195), 2e-6 * 28, 28, None),
        ("ldm-text2img-large", "kl-f8", "l2", (0.00085, 0.012), 5e-5, 680, 390_000),
        ("ldm-layout-openimages-256", "vq-f4", "l1", (0.0015, 0.0205), 2e-6 * 24, 24, None),
        ("ldm-semantic-256", "vq-f4", "l1", (0.0015, 0.0205), 1e-6 * 128, None, None),
        ("ldm-bsr-256", "vq-f4", "l2", (0.0015, 0.0155), 1e-6 * 64, 64, None),
        ("ldm-inpainting-big", "vq-f4-noattn", "l1", (0.0015, 0.0205), 1e-6 * 128, None, None),
        ("ldm-retrieval-768", "kl-f16", "l2", (0.0015, 0.015), 1e-4, None, None),
    ],
)
def test_recipes_are_the_published_ones(
    name: str,
    stage: str,
    error: str,
    ends: tuple[float, float],
    lr: float,
    batch: int | None,
    steps: int | None,
) -> None:
    """The table of latent models, spelt out again (systems.md, section 5); None: not known, ours."""
    preset = load_preset(name)
    config = preset.config
    assert preset.expect.first_stage == stage
    assert (config.objective.name, config.objective.error, config.objective.weight) == (
        *("simple", error), "uniform",
    )  # fmt: skip
    schedule = config.model.schedule
    assert (schedule.name, schedule.steps) == ("scaled_linear", 1000)
    assert (schedule.beta_start, schedule.beta_end) == ends
    assert config.optimizer.lr == pytest.approx(lr)
    assert (config.batch_size, config.steps) == (batch or 128, steps or 100_000)
    assert (config.ema.rates, config.ema.warmup) == ((0.9999,), True)
    assert config.latents.required and config.latents.scale == ("model" if stage.startswith("kl") else "keep")
    assert (config.optimizer.warmup_steps, config.optimizer.decay) == {
        "ldm-lsun-church-256": (10_000, "none"),
        "ldm-inpainting-big": (0, "cosine"),
    }.get(name, (0, "none"))


def test_which_models_learn_without_being_told() -> None:
    for name, preset in latent_presets().items():
        config = preset.config
        assert (config.data.labels == "none") == (preset.expect.classes == 0)
        guided = name in ("ldm-imagenet-256-v2", "ldm-text2img-large")
        assert [bool(told.dropout) for told in config.model.told] == [guided] * len(config.model.told)
        if preset.expect.classes:
            assert (config.label_dropout > 0) == guided


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with captions, classes, boxes and maps, at the side that each factor needs."""
    folder = tmp_path_factory.mktemp("ldm")
    random = np.random.default_rng(0)
    for factor in (4, 8):
        side, lines, images, boxes = SIDE * factor, [], [], []
        (folder / f"pictures-{factor}").mkdir()
        (folder / f"maps-{factor}").mkdir()
        for k in range(4):
            levels = np.kron(random.integers(0, CLASSES, (4, 4)), np.ones((side // 4,) * 2)).astype(np.uint8)
            pixels = np.stack([60 * levels] * 2 + [255 - 60 * levels], -1)
            Image.fromarray(pixels).save(folder / f"pictures-{factor}" / f"{k}.png")
            Image.fromarray(levels).save(folder / f"maps-{factor}" / f"{k}.png")
            lines.append({"file_name": f"{k}.png", "text": f"a thing of {k} parts", "label": "ab"[k % 2]})
            images.append({"id": k, "file_name": f"{k}.png", "width": side, "height": side})
            boxes.append({"id": k, "image_id": k, "category_id": k % 2, "bbox": [0, 0, side // 2, side]})
        table = {"categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]}
        table |= {"images": images, "annotations": boxes}
        (folder / f"boxes-{factor}.json").write_text(json.dumps(table))
        text = "\n".join(map(json.dumps, lines))
        (folder / f"pictures-{factor}" / "metadata.jsonl").write_text(text)
    return folder


def tiny_stage(name: str, path: Path) -> int:
    """Write a first stage with the latents of the preset `name`, narrow and untrained -> its factor."""
    like = load_preset(name).config.autoencoder.network
    kind = KlSettings if like.kind == "kl" else VqSettings
    network = kind(
        in_channels=3, latent_channels=like.latent_channels, width=32, depth=1,
        channel_mult=(1,) * len(like.channel_mult), attention_type="none",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stage = make_first_stage(AutoencoderConfig(network=network, image_size=SIDE * like.size_factor))
    save_first_stage(path, stage)
    return like.size_factor


def narrow(name: str) -> list[str]:
    """Overrides that leave the recipe as it is, but small."""
    model = load_preset(name).config.model
    told = [to_dict(each) for each in model.told]
    for each in told:
        if "width" in each["encoder"]:
            each["encoder"]["width"] = 16
        if each["encoder"]["kind"] == "tokens":
            each["encoder"] |= {"depth": 1, "heads": 1, "head_channels": 16}
    context = 16 if model.network.context_width else None
    changes = {
        "model.told": told, "model.network.context_width": context, "model.network.width": 32,
        "model.network.depth": 1, "model.network.transformer_depth": min(1, model.network.transformer_depth),
        "sample_steps": 2, "sample_count": 1, "log_every": 1,
    }  # fmt: skip
    return [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]


@pytest.mark.parametrize("name", [name for name in latent_presets() if name != "ldm-retrieval-768"])
def test_every_recipe_trains_on_anybodys_pictures(
    name: str, place: Path, tmp_path: Path, program: Any
) -> None:
    preset = load_preset(name)
    factor = tiny_stage(preset.expect.first_stage, tmp_path / "stage.safetensors")
    beside = {
        "map": [f"data.maps={place / f'maps-{factor}'}", f"data.map_classes={CLASSES}"],
        "layout": [f"data.boxes={place / f'boxes-{factor}.json'}"],
    }
    needed = [each for told in preset.config.model.told for each in beside.get(told.what, [])]
    code, _, said = program(
        *("train", name, "--data", place / f"pictures-{factor}", "--out", tmp_path / "run"),
        *("--first-stage", tmp_path / "stage.safetensors", "--steps", 1, "--batch-size", 2),
        *("--device", "cpu", "--precision", "float32", "--compile", "off"),
        *("--set", f"model.image_size={SIDE * factor}", "--set", f"data.cache={tmp_path / 'cache'}"),
        *(part for each in needed for part in ("--set", each)),
        *narrow(name),
    )
    assert code == 0, said
    model = load_model(tmp_path / "run")
    assert model.info.preset == name and model.info.step == 1
    assert (model.first_stage.scale == (1.0,)) == (preset.config.latents.scale == "keep")
    assert [each.what for each in model.config.told] == [each.what for each in preset.config.model.told]
    assert model.classes == (("a", "b") if preset.expect.classes else ())
    assert len(model.network.state_dict()) > 0 and model.config.shape[1:] == (SIDE, SIDE)


def test_nothing_here_finds_neighbours(program: Any, place: Path, tmp_path: Path) -> None:
    tiny_stage("kl-f16", tmp_path / "stage.safetensors")
    code, _, said = program(
        *("train", "ldm-retrieval-768", "--data", place / "pictures-8", "--out", tmp_path / "run"),
        *("--first-stage", tmp_path / "stage.safetensors"),
    )
    assert code == 2 and said.count("\n") == 1
    assert "model.network.context_width=768 reads tokens, and nothing in model.told makes any" in said
    told = '[{"what": "text", "frozen": "folder", "encoder": {"kind": "features", "width": 768}}]'
    changes = ["first_stage=some.safetensors", f"model.told={told}"]
    check(load_preset("ldm-retrieval-768", changes).config, processes=1)


def test_presets_prints_recipes_to_start_from(program: Any) -> None:
    code, listed, _ = program("presets")
    assert code == 0 and all(f" {name} " in listed for name in latent_presets())
    code, printed, _ = program("presets", "ldm-lsun-church-256")
    assert code == 0 and "FID 4.02" in printed and "beta_end: 0.0155" in printed
