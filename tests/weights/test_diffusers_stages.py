"""First stages in diffusers' layout: round trips, what is refused, equal outputs where it is installed."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.goldens import recipe_state_dict
from tests.networks.first_stages import TINY_KL, TINY_VQ
from unnoise.config.schema import AutoencoderConfig
from unnoise.first_stage import FirstStage, load_first_stage, make_first_stage, save_first_stage
from unnoise.weights.diffusers_stages import describes_first_stage, load_stage, save_stage

SETTINGS = {
    "kl": dataclasses.replace(TINY_KL, attention_type="vanilla"),
    "kl-attention": dataclasses.replace(TINY_KL, attention_type="vanilla", attention=(2, 4), depth=2),
    "kl-none": TINY_KL,
    "vq": dataclasses.replace(TINY_VQ, attention_type="vanilla", attention=(4,)),
    "vq-inner": dataclasses.replace(TINY_VQ, inner_channels=6, latent_channels=4),
}


def filled(settings, scale=(0.5,)) -> FirstStage:
    """A first stage with every weight random."""
    stage = make_first_stage(AutoencoderConfig(network=settings, image_size=16))
    shapes = {key: list(value.shape) for key, value in stage.network.state_dict().items()}
    stage.network.load_state_dict(recipe_state_dict(shapes, 3, ["quantize.embedding.weight"]))
    stage.network.eval().requires_grad_(False)
    return dataclasses.replace(stage, scale=scale)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_written_is_read_back(name, tmp_path: Path) -> None:
    stage = filled(SETTINGS[name])
    save_stage(tmp_path / "there", stage)
    assert describes_first_stage(tmp_path / "there") and not describes_first_stage(tmp_path)
    again = load_stage(tmp_path / "there")
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    assert again.scale == stage.scale
    assert torch.equal(again.encode(images), stage.encode(images))
    assert torch.equal(again.decode(stage.encode(images)), stage.decode(stage.encode(images)))


@pytest.mark.parametrize("name", SETTINGS)
def test_diffusers_gives_the_same(name, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    stage = filled(SETTINGS[name])
    save_stage(tmp_path / "there", stage)
    kind = json.loads((tmp_path / "there" / "config.json").read_text())["_class_name"]
    theirs = getattr(diffusers, kind).from_pretrained(tmp_path / "there").eval()
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        if kind == "AutoencoderKL":
            encoded = theirs.encode(images).latent_dist.mode()
        else:
            encoded = theirs.encode(images).latents
        decoded = theirs.decode(encoded).sample
    latents = stage.encode(images) / 0.5
    assert (latents - encoded).abs().max() < 1e-5 * max(1, encoded.abs().max())
    ours = stage.decode(encoded * 0.5)
    assert (ours - decoded).abs().max() < 2e-5 * max(1, decoded.abs().max())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_type": "linear"}, "no first stage with attention_type=linear"),
        ({"channel_mult": (0.5, 1, 2)}, "first level of another width"),
        ({"inner_channels": 5}, "inner_channels=5"),
        ({"shortcut": True}, "no first stage with a shortcut"),
        ({"attention": (4,)}, "attention places without attention"),
    ],
)
def test_what_diffusers_cannot_express_is_refused(changes, message, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        save_stage(tmp_path / "there", filled(dataclasses.replace(TINY_KL, **changes)))
    with pytest.raises(ValueError, match="a scale for each channel"):
        save_stage(tmp_path / "there", filled(TINY_KL, scale=(1.0, 2.0, 3.0)))
    assert not list(tmp_path.iterdir())


def test_options_without_a_counterpart_are_refused(tmp_path: Path) -> None:
    save_stage(tmp_path / "there", filled(TINY_KL))
    path = tmp_path / "there" / "config.json"
    options = json.loads(path.read_text())
    for name, value in (("act_fn", "relu"), ("use_quant_conv", False), ("shift_factor", 0.1)):
        path.write_text(json.dumps({**options, name: value}))
        with pytest.raises(ValueError, match=f"{name}={value} has no counterpart here"):
            load_stage(tmp_path / "there")


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "unnoise", *map(str, args)], capture_output=True, text=True)


def test_convert_both_ways(tmp_path: Path) -> None:
    stage = filled(TINY_KL)
    save_first_stage(tmp_path / "stage.safetensors", stage)
    there = run("convert", tmp_path / "stage.safetensors", tmp_path / "folder", "--to", "diffusers")
    assert there.returncode == 0 and "AutoencoderKL" in there.stdout, there.stderr
    back = run("convert", tmp_path / "folder", tmp_path / "back.safetensors")
    assert back.returncode == 0 and "first stage" in back.stdout, back.stderr
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("stage", "back"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert load_first_stage(tmp_path / "back.safetensors").scale == (0.5,)
    again = run("convert", tmp_path / "stage.safetensors", tmp_path / "x.safetensors")
    assert again.returncode == 2 and "one file of ours already" in again.stderr
