"""`unnoise search-steps`: which training steps to spend a budget of calls on."""

from pathlib import Path
from typing import Annotated

import typer

from unnoise.cli import reading
from unnoise.config.requests import EvaluateRequest, GenerateRequest
from unnoise.config.studies import SearchRequest

_DEFAULT = SearchRequest()
_MEASURED = EvaluateRequest()
_DRAWN = GenerateRequest()


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="search-steps")(search_steps)


def search_steps(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file, a run directory or one of its checkpoints.")
    ],
    against: Annotated[str, typer.Option(help="A folder, zip, npz, data set, or a reference file.")],
    calls: Annotated[int, typer.Option(help="Calls of the network that a picture may take.")],
    out: Annotated[Path, typer.Option(help="Folder of the search; the same command continues there.")],
    sections: Annotated[
        int, typer.Option(help="Equal parts of the training steps that share the calls.")
    ] = _DEFAULT.sections,
    n: Annotated[int, typer.Option("-n", help="Pictures a candidate is measured on.")] = _DEFAULT.n,
    final: Annotated[int, typer.Option(help="Fresh pictures for the last comparison.")] = _DEFAULT.final,
    beside: Annotated[
        list[str] | None, typer.Option(metavar="STEPS", help="Also in the last comparison, such as quad25.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An option of drawing: sampler=heun, guidance=2; or data.labels=none.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search; the comparison takes the next.")] = _DRAWN.seed,
    features: Annotated[str, typer.Option(help="As of `evaluate`.")] = _MEASURED.features,
    weights: Annotated[str, typer.Option(help="Weights of the feature network.")] = "",
    batch_size: Annotated[int, typer.Option(help="Pictures drawn side by side.")] = _DRAWN.batch_size,
    preset: Annotated[str, typer.Option(help="What network a .pt file is for, as of `sample`.")] = "",
    cache: Annotated[str | None, typer.Option(help="Folder for features; default the user's cache.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = _DRAWN.device,
) -> None:
    """Find the section counts (such as 90,60,60,20,20) that draw best with so many calls."""
    from unnoise.cli.sample import stoppable
    from unnoise.cli.studying import command_line, meter, refuse_processes

    refuse_processes()
    with stoppable():
        from unnoise.studies.grid import with_options
        from unnoise.studies.search import search
        from unnoise.studies.swept import aligned

        of_data, of_drawing = reading.apart(set_ or [])
        how, own = reading.settings_of_data(of_data, cache=cache)
        drawn = GenerateRequest(seed=seed, batch_size=batch_size, device=device)
        if any(text.partition("=")[0].strip() == "steps" for text in set_ or []):
            raise ValueError("--set steps: the steps are what is looked for; give --calls")
        request = SearchRequest(
            model=model,
            calls=calls,
            sections=sections,
            n=n,
            final=final,
            beside=tuple(beside or ()),
            generate=with_options(drawn, of_drawing),
            evaluate=EvaluateRequest(
                against=against,
                features=features,
                weights=weights,
                data=how,
                **own,
                floor=False,
                device=device,
            ),
            preset=preset,
        )
        with meter() as (stage, say):
            found = search(request, out, stage=stage, say=say)
        for line in aligned(found.table()):
            typer.echo(line)
        typer.echo(found.verdict())
        for text in found.warnings:
            typer.echo(f"warning: {text}", err=True)
        typer.echo(f"written: {found.save_page(out, command_line())} and search.json")
