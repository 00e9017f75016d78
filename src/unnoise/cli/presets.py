"""`unnoise presets`: what can be trained by name."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="presets")(presets)


def presets(
    name: Annotated[str | None, typer.Argument(help="Show this preset's settings as YAML.")] = None,
) -> None:
    """List the named recipes, or print one as a YAML file to start from.

    Those with a star come trained, too: sample, evaluate, sweep, edit and the rest take their names.
    """
    from unnoise import examples
    from unnoise.config.resolve import settings_yaml
    from unnoise.presets.load import load_preset, preset_summaries

    if name is not None:
        preset = load_preset(name)
        typer.echo(f"# {preset.summary}\n# Source: {preset.source}. Licence: {preset.licence}.")
        typer.echo(settings_yaml(preset.config), nl=False)
        return
    summaries = preset_summaries()
    width = max(map(len, summaries))
    shipped = examples.names()
    for key, summary in summaries.items():
        typer.echo(f"{'*' if key in shipped else ' '} {key:<{width}}  {summary}")
