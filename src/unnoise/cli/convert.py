"""`unnoise convert`: other programs' models as one file of ours, or as a folder of diffusers'."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unnoise.outputs import check_folder

if TYPE_CHECKING:
    from unnoise.rounding import Stored


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
    guidance: Annotated[
        float | None,
        typer.Option(help="Scale of classifier-free guidance that `sample` then takes of itself."),
    ] = None,
    first_stage: Annotated[
        str,
        typer.Option(help="A first stage of the same latents, to decode with instead of the model's own."),
    ] = "",
    preset: Annotated[
        str, typer.Option(help="What network a file is for, if it cannot be told: a preset or a .yaml.")
    ] = "",
) -> None:
    """Write a model as one file that needs nothing beside it, or in diffusers' layout."""
    _check(out, to, dtype, guidance, first_stage)
    from unnoise.rounding import TYPES, store

    found = _opened(
        source, to, preset, changed=dtype != "float32" or guidance is not None or bool(first_stage)
    )
    if first_stage:
        found = _decoding_with(found, first_stage)
    if guidance is not None:
        found = _advising(found, guidance)
    if to == "diffusers":
        _export(source, out, found)
    else:
        store(out, found, TYPES.get(dtype))
        typer.echo(f"{out}: {_called(found)}{_preset(found.info.preset)}")


def _opened(source: Path, to: str, preset: str, *, changed: bool) -> "Stored":
    """What is in the file, or refused where there would be nothing to do."""
    from unnoise.classifier import KIND as CLASSIFIER
    from unnoise.classifier import load_classifier
    from unnoise.cli.choose import settled
    from unnoise.drawing import load
    from unnoise.first_stage import KIND as STAGE
    from unnoise.first_stage import load_first_stage
    from unnoise.model import load_model
    from unnoise.modelfile import find_model, read_header
    from unnoise.noisy_classifier import KIND as NOISY
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
    published.refuse_preset(source, preset)
    kind = str(read_header(file).get("kind"))
    if to == "unnoise" and not changed:
        raise ValueError(
            f"{source} is one file of ours already; copy it, or use --to diffusers, --dtype float16, "
            "--guidance or --first-stage"
        )
    openers: dict[str, Callable[[Path], Stored]] = {STAGE: load_first_stage}
    if to == "diffusers":  # `load_model` refuses what it has no network for
        return openers.get(kind, load_model)(file)
    openers |= {NOISY: load_noisy_classifier, CLASSIFIER: load_classifier}
    return openers.get(kind, load)(file)


def _advising(found: "Stored", guidance: float) -> "Stored":
    """The model with the guidance that it advises. ValueError where none can be."""
    from unnoise.model import Model
    from unnoise.untold import check_guidance

    if not isinstance(found, Model):
        raise ValueError(f"--guidance is for diffusion models, and this is a {_called(found)}; leave it out")
    check_guidance(found, guidance)
    return replace(found, info=replace(found.info, guidance=guidance))


def _decoding_with(found: "Stored", path: str) -> "Stored":
    """The model with another decoder. ValueError where none fits."""
    from unnoise.first_stage import load_first_stage
    from unnoise.model import Model, with_decoder

    if not isinstance(found, Model):
        raise ValueError(f"--first-stage is for latent models, and this is a {_called(found)}; leave it out")
    try:
        return with_decoder(found, load_first_stage(path))
    except ValueError as error:
        raise ValueError(f"--first-stage {path}: {error}") from None


def _export(source: Path, out: Path, found: "Stored") -> None:
    """Write diffusers' layout. ValueError for what it has no network for."""
    from unnoise.first_stage import FirstStage
    from unnoise.model import Model
    from unnoise.weights import diffusers, diffusers_stages

    if isinstance(found, FirstStage):
        diffusers_stages.save_stage(out, found)
        name = "AutoencoderKL" if found.config.network.kind == "kl" else "VQModel"
    elif isinstance(found, Model):
        diffusers.save(out, found)
        name = "UNet2DModel and DDPMScheduler"
    else:
        raise ValueError(f"{source} is a {_called(found)}; diffusers has no network for it")
    typer.echo(f"{out}: {name}{_preset(found.info.preset)}")
    if isinstance(found, Model) and found.config.class_rows:
        typer.echo("its pipeline names no class: call unet(x, t, class_labels=...)")


def _called(found: "Stored") -> str:
    from unnoise.classifier import ClassifierModel
    from unnoise.first_stage import FirstStage
    from unnoise.gan import GanModel
    from unnoise.noisy_classifier import NoisyClassifier

    if isinstance(found, FirstStage):
        return f"first stage, {found.config.network.kind}-f{found.factor}"
    names = {NoisyClassifier: "classifier of noisy pictures", ClassifierModel: "classifier", GanModel: "GAN"}
    return names.get(type(found), "model")


def _refuse_another(source: Path, to: str, preset: str) -> None:
    from unnoise.weights import published

    published.refuse_preset(source, preset)
    if to == "diffusers":
        raise ValueError(f"{source} is a folder of diffusers' already; copy it, or leave --to out")


def _check(out: Path, to: str, dtype: str, guidance: float | None, first_stage: str) -> None:
    if to not in ("unnoise", "diffusers"):
        raise ValueError(f"--to {to} is unknown; use unnoise or diffusers")
    if dtype not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"--dtype {dtype} is unknown; use float32, float16 or bfloat16")
    if to == "diffusers" and dtype != "float32":
        raise ValueError(f"--dtype {dtype} is for files of ours; leave it out with --to diffusers")
    if to == "diffusers" and guidance is not None:
        raise ValueError("--guidance is for files of ours; leave it out with --to diffusers")
    if to == "diffusers" and first_stage:
        raise ValueError("--first-stage is for files of ours; leave it out with --to diffusers")
    if out.exists():
        raise ValueError(f"{out} exists; name a new {'file' if to == 'unnoise' else 'folder'}")
    check_folder(out.parent, "model")
    if to == "unnoise" and out.suffix != ".safetensors":
        raise ValueError(f"{out} should be a .safetensors file; call it {out.with_suffix('.safetensors')}")


def _preset(name: str) -> str:
    return f", preset {name}" if name else ""
