"""`unnoise reference`: the statistics of a data set in ADM's form."""

from pathlib import Path
from typing import Annotated

import typer

from unnoise.cli import reading
from unnoise.config.requests import EvaluateRequest


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="reference")(reference)


def reference(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder, zip, npz or data set.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .npz file to write.")],
    features: Annotated[str, typer.Option(help="inception, effnet-lite0, unnoise-small, hf:NAME.")] = "auto",
    weights: Annotated[str, typer.Option(help="Weights of the feature network.")] = "",
    pictures: Annotated[
        int, typer.Option(help="Random pictures to keep for precision and recall, as OpenAI's files do.")
    ] = 10_000,
    keep_features: Annotated[
        bool, typer.Option("--keep-features", help="Keep the features of all pictures instead of pictures.")
    ] = False,
    size: Annotated[int | None, typer.Option(help="Crop pictures to squares of this side.")] = None,
    channels: Annotated[int | None, typer.Option(help="Read pictures as grey (1) or RGB (3).")] = None,
    set_: reading.Set = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder for features and decoded pictures; default the user's cache.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures through the feature network at once.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
) -> None:
    """Write mu, sigma, mu_s and sigma_s of a data set, and pictures: a reference for evaluate and for
    OpenAI's.
    """
    if out.suffix != ".npz":
        raise ValueError(f"{out} does not end in .npz; a reference is an npz file")
    if pictures < 0:
        raise ValueError(f"pictures={pictures} is less than 0; use 0 for statistics alone")
    if out.exists() and Path(data).exists() and out.samefile(data):
        raise ValueError(f"{out} is what is read and what is written; name another file with --out")
    from unnoise.cli.evaluate import _meter
    from unnoise.cli.sample import stoppable
    from unnoise.config.load import from_dict, to_dict
    from unnoise.distributed import choose_device, is_main, processes
    from unnoise.metrics.collect import collect
    from unnoise.metrics.evaluate import check_numbers, choose_network
    from unnoise.metrics.reference import check_place, write_reference
    from unnoise.metrics.sources import open_pictures, refuse_model

    how, own = reading.settings_of_data(set_ or [], size=size, channels=channels, cache=cache)
    values = {
        "samples": data, "against": data, "features": features, "weights": weights, **own,
        "data": to_dict(how), "batch_size": batch_size, "device": device,
    }  # fmt: skip
    request = from_dict(EvaluateRequest, values)
    check_numbers(request)
    check_place(out)
    refuse_model(data)
    warnings: list[str] = []
    with stoppable(), processes(device), _meter() as stage:
        source = open_pictures(data, request)
        network = choose_network(request, str(choose_device(device)), warnings, channels=source.shape[2])
        found = collect(
            source,
            network,
            cache=request.cache,
            batch_size=request.batch_size,
            together=True,
            on_progress=lambda done, total: stage("pictures", done, total),
        )
        if not is_main():
            return
        write_reference(
            out,
            source,
            network,
            frechet=found.frechet,
            spatial=found.spatial,
            table=found.table if keep_features else None,
            keep=pictures,
        )
    for text in warnings:
        typer.echo(f"warning: {text}", err=True)
    typer.echo(f"{source.n:,} pictures, features {network.name}: {out}")
