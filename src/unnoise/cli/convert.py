"""`unnoise convert`: a published .pt file as one model file of ours."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="convert")(convert)


def convert(
    file: Annotated[Path, typer.Argument(metavar="IN", help="A .pt file of OpenAI's.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: NAME.safetensors.")],
    preset: Annotated[
        str, typer.Option(help="What network it is for, if it cannot be told: a preset or a .yaml.")
    ] = "",
) -> None:
    """Write a published model as one file that needs nothing beside it."""
    if out.exists():
        raise ValueError(f"{out} exists; name a new file")
    if out.suffix != ".safetensors":
        raise ValueError(f"{out} should be a .safetensors file; call it {out.with_suffix('.safetensors')}")
    from unnoise.cli.choose import settled
    from unnoise.model import Model, find_model, save_model
    from unnoise.noisy_classifier import save_noisy_classifier
    from unnoise.weights import openai

    file = find_model(file)
    if not openai.is_torch_file(file):
        raise ValueError(f"{file} is no .pt file; name one of OpenAI's")
    model = openai.load(file, preset=settled(file, preset))
    if isinstance(model, Model):
        save_model(out, model)
    else:
        save_noisy_classifier(out, model)
    what = "model" if isinstance(model, Model) else "classifier of noisy pictures"
    known = f", preset {model.info.preset}" if model.info.preset else ""
    typer.echo(f"{out}: {what}{known}")
