"""Files of models that draw, whatever they are: diffusion models and GANs."""

from pathlib import Path

import torch

from unnoise.gan import KIND, GanModel, load_gan
from unnoise.model import Model, load_model
from unnoise.modelfile import find_model, read_header
from unnoise.weights import diffusers, published
from unnoise.weights.torchfile import is_torch_file


def load(path: Path | str, device: str | torch.device = "cpu", *, preset: str = "") -> Model | GanModel:
    """The model of a file or run directory, ready to draw: a diffusion model (see `load_model`) or a GAN."""
    file = find_model(Path(path))
    if is_gan(file):
        published.refuse_preset(file, preset)
        return load_gan(file, device)
    return load_model(path, device, preset=preset)


def is_gan(file: Path) -> bool:
    """Whether a file of weights is a GAN of ours."""
    if diffusers.is_weights(file) or is_torch_file(file):
        return False
    return bool(read_header(file).get("kind") == KIND)
