"""`unnoise convert`: other programs' models as one file of ours, or as a folder of diffusers'."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from unnoise.first_stage import FirstStage
    from unnoise.gan import GanModel
    from unnoise.model import Model
    from unnoise.noisy_classifier import NoisyClassifier


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="convert")(convert)


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="A published .pt or .ckpt file, a diffusers folder, a model file, a run directory.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="What to write: NAME.safetensors, or a folder for diffusers."),
    ],
    to: Annotated[str, typer.Option(help="unnoise (one file) or diffusers (a folder).")] = "unnoise",
    dtype: Annotated[
        str, typer.Option(help="What weights are stored as: float32, or half of it, float16 or bfloat16.")
    ] = "float32",
    preset: Annotated[
        str, typer.Option(help="What network a file is for, if it cannot be told: a preset or a .yaml.")
    ] = "",
) -> None:
    """Write a model as one file that needs nothing beside it, or in diffusers' layout."""
    _check(out, to, dtype)
    from unnoise.first_stage import FirstStage
    from unnoise.gan import GanModel
    from unnoise.model import Model
    from unnoise.rounding import TYPES
    from unnoise.weights import diffusers

    found = _opened(source, to, dtype, preset)
    half = TYPES.get(dtype)
    if isinstance(found, FirstStage):
        _save_stage(out, found, to, half)
    elif not isinstance(found, Model):
        kind = "GAN" if isinstance(found, GanModel) else "classifier of noisy pictures"
        if to == "diffusers":
            raise ValueError(f"{source} is a {kind}; diffusers has no network for it")
        _save_other(out, found, half)
        typer.echo(f"{out}: {kind}{_preset(found.info.preset)}")
    elif to == "diffusers":
        diffusers.save(out, found)
        typer.echo(f"{out}: UNet2DModel and DDPMScheduler{_preset(found.info.preset)}")
        if found.config.class_rows:
            typer.echo("its pipeline names no class: call unet(x, t, class_labels=...)")
    else:
        _save_model(out, found, half)
        typer.echo(f"{out}: model{_preset(found.info.preset)}")


def _opened(
    source: Path, to: str, dtype: str, preset: str
) -> "Model | FirstStage | NoisyClassifier | GanModel":
    """What is in the file, or refused where there would be nothing to do."""
    from unnoise.cli.choose import settled
    from unnoise.drawing import load
    from unnoise.first_stage import KIND as STAGE
    from unnoise.first_stage import load_first_stage
    from unnoise.modelfile import find_model, read_header
    from unnoise.noisy_classifier import KIND as CLASSIFIER
    from unnoise.noisy_classifier import load_noisy_classifier
    from unnoise.weights import diffusers, diffusers_stages, published
    from unnoise.weights.torchfile import is_torch_file

    if diffusers_stages.describes_first_stage(source):
        _refuse_another(source, to, preset)
        return diffusers_stages.load_stage(source)
    file = find_model(source)
    if is_torch_file(file):
        return published.load(file, preset=settled(file, preset))
    if diffusers.is_weights(file):
        return load(file, preset=preset)
    kind = read_header(file).get("kind")
    if to == "unnoise" and dtype == "float32":
        raise ValueError(
            f"{source} is one file of ours already; copy it, or use --to diffusers, or --dtype float16"
        )
    if kind == STAGE:
        return load_first_stage(file, preset=preset)
    return load_noisy_classifier(file) if kind == CLASSIFIER else load(file, preset=preset)


def _save_model(out: Path, model: "Model", dtype: "torch.dtype | None") -> None:
    from unnoise.model import save_model
    from unnoise.rounding import rounded

    save_model(out, model if dtype is None else rounded(model, dtype), dtype=dtype)


def _save_other(out: Path, model: "NoisyClassifier | GanModel", dtype: "torch.dtype | None") -> None:
    from unnoise.gan import GanModel, save_gan
    from unnoise.noisy_classifier import save_noisy_classifier
    from unnoise.rounding import round_weights

    if dtype is not None:
        round_weights(model.network, dtype)
    if isinstance(model, GanModel):
        save_gan(out, model, dtype=dtype)
    else:
        save_noisy_classifier(out, model, dtype=dtype)


def _save_stage(out: Path, stage: "FirstStage", to: str, dtype: "torch.dtype | None") -> None:
    from unnoise.first_stage import save_first_stage
    from unnoise.rounding import round_weights
    from unnoise.weights import diffusers_stages

    kind = stage.config.network.kind
    if to == "diffusers":
        diffusers_stages.save_stage(out, stage)
        name = "AutoencoderKL" if kind == "kl" else "VQModel"
    else:
        if dtype is not None:
            round_weights(stage.network, dtype)
        save_first_stage(out, stage, dtype=dtype)
        name = f"first stage, {kind}-f{stage.factor}"
    typer.echo(f"{out}: {name}{_preset(stage.info.preset)}")


def _refuse_another(source: Path, to: str, preset: str) -> None:
    from unnoise.weights import published

    published.refuse_preset(source, preset)
    if to == "diffusers":
        raise ValueError(f"{source} is a folder of diffusers' already; copy it, or leave --to out")


def _check(out: Path, to: str, dtype: str) -> None:
    if to not in ("unnoise", "diffusers"):
        raise ValueError(f"--to {to} is unknown; use unnoise or diffusers")
    if dtype not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"--dtype {dtype} is unknown; use float32, float16 or bfloat16")
    if to == "diffusers" and dtype != "float32":
        raise ValueError(f"--dtype {dtype} is for files of ours; leave it out with --to diffusers")
    if out.exists():
        raise ValueError(f"{out} exists; name a new {'file' if to == 'unnoise' else 'folder'}")
    if to == "unnoise" and out.suffix != ".safetensors":
        raise ValueError(f"{out} should be a .safetensors file; call it {out.with_suffix('.safetensors')}")


def _preset(name: str) -> str:
    return f", preset {name}" if name else ""
