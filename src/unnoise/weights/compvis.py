"""Reads CompVis's checkpoints of latent diffusion models: Lightning files of one state dict for everything.

The U-Net is under `model.diffusion_model.`, its average under `model_ema.` with its names without their dots,
the first stage under `first_stage_model.`, the encoder of the condition under `cond_stage_model.`, tables of
the schedule beside them. Which model it is follows from keys and shapes, compared with the published ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unnoise.config.model import ModelConfig, ScheduleConfig
from unnoise.config.resolve import null_label
from unnoise.config.schema import AutoencoderConfig
from unnoise.diffusion.schedule import make_betas
from unnoise.modelfile import layout_of
from unnoise.networks.first_stage_settings import FirstStageSettings
from unnoise.presets import Preset, latent_presets, load_preset, preset_names
from unnoise.weights.torchfile import read_checkpoint

NETWORK, FIRST_STAGE, ENCODER = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
AVERAGE = "model_ema.diffusion_model"
State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Parts:
    """A state dict taken apart, without prefixes."""

    network: State
    """The U-Net's averaged weights where the file has an average, else its last ones."""
    first_stage: State
    encoder: State
    """Empty for models without an encoder of their own."""
    averaged: bool
    betas: Tensor | None
    scale: float | None
    """Of the latents, where the file says it."""


@dataclass(frozen=True, eq=False)
class LatentCheckpoint:
    """Everything of a published latent diffusion model, recognised; weights stay in the file until read."""

    name: str
    """Of its preset; "" where several are alike."""
    licence: str
    config: ModelConfig
    """Complete but for the hash of the first stage."""
    null_label: int | None
    """The class that stands for "no class"."""
    network_state: State
    first_stage_name: str
    """Of its preset."""
    autoencoder: AutoencoderConfig
    """What the first stage was trained by."""
    first_stage_state: State
    encoder_state: State
    """Empty for models whose encoder learned nothing."""
    scale: float
    averaged: bool

    @property
    def first_stage(self) -> FirstStageSettings:
        """Of its network."""
        return self.autoencoder.network


def is_compvis(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the keys of a latent diffusion model of CompVis."""
    return any(key.startswith(NETWORK) for key in state)


def is_first_stage(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the keys of a first stage alone."""
    return {"encoder.conv_in.weight", "decoder.conv_in.weight", "quant_conv.weight"} <= state.keys()


def load(path: Path, *, name: str = "") -> LatentCheckpoint:
    """The parts of a file with their settings; nothing inside is run.

    name: of a published model, where shapes do not tell; "" recognises it. ValueError for a file that is
    damaged, holds code, or that no published model fits.
    """
    return recognise(split(read_checkpoint(path), path), path, name=name)


def split(state: Mapping[str, Tensor], path: Path) -> Parts:
    """The weights by what they belong to; an average is given the names of the weights that it is of."""
    network = _under(NETWORK, state)
    if not network:
        raise ValueError(
            f"{path} has no weights under {NETWORK}; name a checkpoint of a latent diffusion model"
        )
    averages = {key: state.get(AVERAGE + key.replace(".", "")) for key in network}
    found = {key: value for key, value in averages.items() if value is not None}
    if found and len(found) != len(network):
        missing = next(key for key in network if key not in found)
        raise ValueError(
            f"{path} averages {len(found)} of {len(network)} weights, {missing} not; it is damaged, download "
            "or copy it again"
        )
    scale = state.get("scale_factor")
    return Parts(
        network=found or network,
        first_stage=without_losses(_under(FIRST_STAGE, state)),
        encoder=_under(ENCODER, state),
        averaged=bool(found),
        betas=state.get("betas"),
        scale=None if scale is None else float(scale),
    )


def recognise(parts: Parts, path: Path, *, name: str = "") -> LatentCheckpoint:
    """The published model whose U-Net has these keys and shapes, with the parts that it has."""
    wanted, known = layout_of(parts.network), latent_presets()
    if name and name not in known:
        raise ValueError(f"{name!r} is no published latent model; use one of {', '.join(known)}")
    fitting = [
        preset
        for preset in known.values()
        if preset.expect and preset.expect.layout == wanted and name in ("", preset.name)
    ]
    if not fitting:
        raise ValueError(
            f"{path}: its U-Net of {len(parts.network)} weights fits "
            + (f"not {name}" if name else "no published latent model")
            + f"; use the checkpoint of one of {', '.join(known)}"
        )
    preset, config = fitting[0], fitting[0].published()
    expect = preset.expect
    assert expect is not None
    _check_schedule(parts, preset.name, config.model.schedule, path)
    scale = parts.scale if parts.scale is not None else expect.scale
    if scale is None:
        raise ValueError(f"{path} lacks scale_factor, the scale of its latents; download or copy it again")
    return LatentCheckpoint(
        # Alike in all that is here: the pictures that they learned are not.
        name=preset.name if len(fitting) == 1 else "",
        licence=preset.licence,
        config=config.model,
        null_label=null_label(config),
        network_state=parts.network,
        first_stage_name=expect.first_stage,
        autoencoder=_first_stage(parts, preset.name, expect.first_stage, path),
        first_stage_state=parts.first_stage,
        encoder_state=parts.encoder,
        scale=scale,
        averaged=parts.averaged,
    )


def without_losses(state: Mapping[str, Tensor]) -> State:
    """The weights of a first stage without those of the losses that it learned by, which files have too."""
    return {key: value for key, value in state.items() if not key.startswith("loss.")}


def recognise_first_stage(state: Mapping[str, Tensor], path: Path, *, name: str = "") -> Preset:
    """The preset of the published first stage with these keys and shapes, losses left out."""
    wanted = layout_of(state)
    known = {
        preset.name: preset.expect.layout
        for preset in map(load_preset, preset_names())
        if preset.config.kind == "autoencoder" and preset.expect
    }
    fitting = [each for each, layout in known.items() if layout == wanted and name in ("", each)]
    if not fitting:
        raise ValueError(
            f"{path} is a first stage of {len(state)} weights that fits "
            + (f"not {name}" if name else "no published one")
            + f"; use the checkpoint of one of {', '.join(known)}"
        )
    return load_preset(fitting[0])


def _under(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _first_stage(parts: Parts, name: str, stage: str, path: Path) -> AutoencoderConfig:
    """The settings of the first stage of model `name`, whose keys and shapes the file must have."""
    preset = load_preset(stage)
    assert preset.expect is not None and preset.config.autoencoder is not None
    if layout_of(parts.first_stage) != preset.expect.layout:
        raise ValueError(
            f"{path}: its first stage of {len(parts.first_stage)} weights is not {stage}, that of {name}; "
            "download or copy it again"
        )
    return preset.config.autoencoder


def _check_schedule(parts: Parts, name: str, s: ScheduleConfig, path: Path) -> None:
    if parts.betas is None:
        return
    betas = make_betas(s.name, s.steps, start=s.beta_start, end=s.beta_end)
    there = parts.betas.double()
    if there.shape != betas.shape or not torch.allclose(there, betas, rtol=1e-5, atol=0):
        raise ValueError(
            f"{path}: its {len(there)} betas, {there[0]:.6g} to {there[-1]:.6g}, are not those of "
            f"{name} ({s.beta_start} to {s.beta_end}): it is another model of the same shapes"
        )
