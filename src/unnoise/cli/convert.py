"""`unnoise convert`: other programs' models as one file of ours, or as a folder of diffusers'."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unnoise.first_stage import FirstStage


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
    preset: Annotated[
        str, typer.Option(help="What network a file is for, if it cannot be told: a preset or a .yaml.")
    ] = "",
) -> None:
    """Write a model as one file that needs nothing beside it, or in diffusers' layout."""
    _check(out, to)
    from unnoise.cli.choose import settled
    from unnoise.first_stage import FirstStage, load_first_stage
    from unnoise.model import Model, load_model, save_model
    from unnoise.modelfile import find_model
    from unnoise.noisy_classifier import save_noisy_classifier
    from unnoise.weights import diffusers, diffusers_stages, published
    from unnoise.weights.torchfile import is_torch_file

    if diffusers_stages.describes_first_stage(source):
        _refuse_another(source, to, preset)
        _save_stage(out, diffusers_stages.load_stage(source), to)
        return
    file = find_model(source)
    if to == "diffusers" and file.suffix == ".safetensors" and _is_first_stage(file):
        _save_stage(out, load_first_stage(file), to)
        return
    ours = not diffusers.is_weights(file) and not is_torch_file(file)
    if ours and to == "unnoise":
        raise ValueError(f"{source} is one file of ours already; copy it, or use --to diffusers")
    if ours or diffusers.is_weights(file):
        model = load_model(file, preset=preset)
    else:
        model = published.load(file, preset=settled(file, preset))
    if isinstance(model, FirstStage):
        _save_stage(out, model, to)
    elif not isinstance(model, Model):
        if to == "diffusers":
            raise ValueError(f"{source} is a classifier of noisy pictures; diffusers has no network for it")
        save_noisy_classifier(out, model)
        typer.echo(f"{out}: classifier of noisy pictures{_preset(model.info.preset)}")
    elif to == "diffusers":
        diffusers.save(out, model)
        typer.echo(f"{out}: UNet2DModel and DDPMScheduler{_preset(model.info.preset)}")
        if model.config.class_rows:
            typer.echo("its pipeline names no class: call unet(x, t, class_labels=...)")
    else:
        save_model(out, model)
        typer.echo(f"{out}: model{_preset(model.info.preset)}")


def _save_stage(out: Path, stage: "FirstStage", to: str) -> None:
    from unnoise.first_stage import save_first_stage
    from unnoise.weights import diffusers_stages

    kind = stage.config.network.kind
    if to == "diffusers":
        diffusers_stages.save_stage(out, stage)
        name = "AutoencoderKL" if kind == "kl" else "VQModel"
    else:
        save_first_stage(out, stage)
        name = f"first stage, {kind}-f{stage.factor}"
    typer.echo(f"{out}: {name}{_preset(stage.info.preset)}")


def _is_first_stage(file: Path) -> bool:
    """Whether a safetensors file is a first stage of ours."""
    from unnoise.first_stage import KIND
    from unnoise.modelfile import read_header
    from unnoise.weights import diffusers

    return not diffusers.is_weights(file) and read_header(file).get("kind") == KIND


def _refuse_another(source: Path, to: str, preset: str) -> None:
    from unnoise.weights import published

    published.refuse_preset(source, preset)
    if to == "diffusers":
        raise ValueError(f"{source} is a folder of diffusers' already; copy it, or leave --to out")


def _check(out: Path, to: str) -> None:
    if to not in ("unnoise", "diffusers"):
        raise ValueError(f"--to {to} is unknown; use unnoise or diffusers")
    if out.exists():
        raise ValueError(f"{out} exists; name a new {'file' if to == 'unnoise' else 'folder'}")
    if to == "unnoise" and out.suffix != ".safetensors":
        raise ValueError(f"{out} should be a .safetensors file; call it {out.with_suffix('.safetensors')}")


def _preset(name: str) -> str:
    return f", preset {name}" if name else ""
