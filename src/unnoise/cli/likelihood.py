"""`unnoise likelihood`: how many bits per dimension a model needs for pictures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from unnoise.cli import reading
from unnoise.config.requests import LikelihoodRequest

_DEFAULT = LikelihoodRequest()


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(name="likelihood")(likelihood)


def likelihood(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file or a run directory.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder, .zip, .npz, idx file, built-in.")],
    n: Annotated[int, typer.Option("-n", help="How many of its pictures, chosen by the seed.")] = _DEFAULT.n,
    steps: Annotated[
        str, typer.Option(help="all for the published bound; fewer, such as 100, bound a shorter process.")
    ] = _DEFAULT.steps,
    labels: Annotated[bool, typer.Option(help="Tell a conditional model the pictures' classes.")] = True,
    clip: Annotated[bool, typer.Option(help="Clip predicted pictures to [-1, 1].")] = _DEFAULT.clip,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for likelihood.json and likelihood.html; default: print only."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Cut and resize pictures to this side first.")] = None,
    channels: Annotated[int | None, typer.Option(help="Read pictures as grey (1) or RGB (3).")] = None,
    set_: reading.Set = None,
    seed: Annotated[int, typer.Option(help="Of which pictures, and of their noise.")] = _DEFAULT.seed,
    batch_size: Annotated[int, typer.Option(help="Pictures side by side.")] = _DEFAULT.batch_size,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = _DEFAULT.device,
) -> None:
    """Measure the variational bound of a model on pictures, in bits per dimension."""
    from unnoise.cli.sample import stoppable

    with stoppable():
        import hashlib
        import json

        from unnoise.data import open_data
        from unnoise.distributed import choose_device
        from unnoise.metrics.likelihood import likelihood as measure
        from unnoise.metrics.likelihood_report import lines, page
        from unnoise.model import load_model
        from unnoise.modelfile import find_model, write_atomically
        from unnoise.outputs import check_folder

        request = LikelihoodRequest(
            n=n, steps=steps, labels=labels, clip=clip, seed=seed, batch_size=batch_size, device=device
        )
        if out is not None:
            check_folder(out)
        how, own = reading.settings_of_data(set_ or [], size=size, channels=channels)
        file = find_model(model)
        ready = load_model(file, choose_device(device))
        dataset = open_data(replace(how, source=data, **own), seed=seed)
        with _meter() as on_step:
            found = measure(ready, dataset, request, on_step=on_step)
        for line in lines(found):
            typer.echo(line, err=line.startswith("warning: "))
        if out is None:
            return
        with open(file, "rb") as content:
            weights = hashlib.file_digest(content, "sha256").hexdigest()
        rate = ready.info.ema_rate
        protocol = {
            "model": f"{file}, SHA-256 {weights}",
            "weights": f"step {ready.info.step:,}, "
            + ("no average" if rate is None else f"average of rate {rate:g}"),
            "data": f"{dataset.report.source}, {n:,} of {len(dataset):,} pictures, seed {seed}",
            "data's fingerprint": dataset.fingerprint,
            "told": found.conditioned,
            "predicted pictures": "clipped to [-1, 1]" if clip else "not clipped",
            "precision": "float32, means in float64",
        }
        facts = found.facts() | {"protocol": protocol}
        write_atomically(out / "likelihood.json", (json.dumps(facts, indent=1) + "\n").encode())
        write_atomically(out / "likelihood.html", page(found, protocol).encode())
        typer.echo(f"written: {out / 'likelihood.json'} and {out / 'likelihood.html'}")


@contextmanager
def _meter() -> Iterator[Callable[[int, int], None]]:
    """A progress line on stderr when that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("bits"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
