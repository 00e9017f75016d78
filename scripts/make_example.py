"""Makes a trained run a model that ships: float16 weights and their card in src/unnoise/examples/NAME.

    unnoise train fashion-28 --data fashion-mnist --seed 1 --out run
    unnoise evaluate run --against fashion-mnist -n 5000 --steps 25 --out measured
    python scripts/make_example.py fashion-28 run measured/evaluation.json

The card says what the model is, how it was trained, from which pictures under which licences, and what the
evaluator found; what no file knows is in NOTES.
"""

import argparse
import hashlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unnoise import examples
from unnoise.config.load import from_dict, parse_yaml
from unnoise.config.schema import TrainConfig
from unnoise.metrics.result import read_evaluation
from unnoise.model import Model, load_model
from unnoise.modelfile import ModelInfo, find_model, read_header
from unnoise.noisy_classifier import KIND, NoisyClassifier, load_noisy_classifier
from unnoise.rounding import store

LIMIT = 10_000_000
"""Bytes that a shipped model may have."""
FASHION = "Fashion-MNIST's training pictures (Zalando SE, MIT licence), built into the package's data loader"
EMOJI = (
    "the training part of `unnoise build emoji`: Noto emoji and Noto v1 (Google, Apache-2.0), Twemoji "
    "(Twitter and contributors, CC BY 4.0), Fluent emoji (Microsoft, MIT), EmojiOne 2 (CC BY 4.0), FxEmoji "
    "(Mozilla, Apache-2.0); the captions' words are OpenMoji's (CC BY-SA 4.0). Code points of the test part "
    "were never seen"
)


@dataclass(frozen=True)
class Notes:
    """What only a person knows of a model."""

    what: str
    use: tuple[str, ...]
    """Commands to try."""
    train: tuple[str, ...]
    """Commands that repeat it."""
    data: str
    limits: str
    guidance: float = 1.0
    """That the model is to advise."""
    earlier: str = ""
    """What training came before the run, which the run cannot know."""


NOTES = {
    "fashion-28": Notes(
        "Ten kinds of clothes, 28x28 grey, by class or of no class.",
        (
            "unnoise sample fashion-28 -n 80 --out drawn",
            "unnoise sample fashion-28 -n 16 --label sneaker --out sneakers",
        ),
        ("unnoise train fashion-28 --data fashion-mnist --seed 1",),
        FASHION,
        "Shirts, coats and pullovers are taken for each other, as in the real pictures. Writing and prints "
        "on clothes come out as texture.",
        guidance=1.5,
    ),
    "noisy-classifier-28": Notes(
        "Tells the ten kinds of clothes apart in pictures of any noise; guides fashion-28.",
        ("unnoise sample fashion-28 --classifier noisy-classifier-28 --scale 2 --out guided",),
        ("unnoise train noisy-classifier-28 --data fashion-mnist --seed 1",),
        FASHION,
        "It was made to guide, and is no classifier for clean pictures: `classifier-28` is.",
    ),
    "emoji-64": Notes(
        "Emoji of eight styles from words, 64x64 RGB on white, with its first stage inside.",
        (
            'unnoise sample emoji-64 --prompt "a noto emoji of grinning face, cheerful, face, grin, '
            'grinning, happy, laugh, smile, teeth" -n 8 --out faces',
        ),
        (
            "unnoise build emoji emoji64",
            "unnoise train emoji-stage-64 --data emoji64/train --seed 0 --out stage",
            "unnoise train emoji-64 --data emoji64/train --first-stage stage --seed 1 --out first",
            "unnoise train emoji-64 --data emoji64/train --start-from first --set optimizer.lr=1.5e-3 "
            "--steps 6000 --seed 2 --out second",
            "unnoise train emoji-64 --data emoji64/train --start-from second --set optimizer.lr=1.5e-3 "
            "--steps 4500 --seed 5 --out third --set 'model.told=[{what: text, tag_dropout: 0.3, encoder: "
            "{kind: tokens, width: 128, depth: 3, length: 32, heads: 4, head_channels: 32, logits: false}}]'",
            "unnoise train emoji-stage-64 --data emoji64/train --start-from first --seed 3 --steps 1500 "
            "--set autoencoder.freeze_encoder=true --set autoencoder.latent_noise=0.35 "
            "--set optimizer.lr=1.5e-3 --out decoder",
            "unnoise convert third third/whole.safetensors --first-stage decoder",
        ),
        EMOJI,
        "It knows the words of its captions and no others: `a STYLE emoji of NAME, WORD, ...` with the "
        "styles noto, noto v1, twemoji, emojione, fxemoji, fluent 3d, fluent flat and fluent gradient. What "
        "it draws of objects never seen is a guess from their words. All the words of a caption help: "
        "a name alone draws a rough guess. Letters and small faces blur.",
        guidance=3.0,
        earlier="after 8,500 and 6,000 others, each beginning with the last weights",
    ),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=sorted(NOTES))
    parser.add_argument("run", type=Path, help="the run directory, or a model file in it")
    parser.add_argument(
        "evaluation", type=Path, help="what `unnoise evaluate` wrote, or another report's text"
    )
    asked = parser.parse_args()
    try:
        make(asked.name, asked.run, asked.evaluation)
    except (OSError, ValueError) as error:
        print(f"make_example: {error}", file=sys.stderr)
        sys.exit(2)


def make(name: str, source: Path, evaluation: Path) -> None:
    """Write a model and its card. ValueError for what is no model of a run, and for one that is too large."""
    weights = find_model(source)
    settings = weights.parent / "config.yaml"
    if not settings.is_file():
        raise ValueError(f"{settings} does not exist; name a run directory, or a model file in one")
    config = from_dict(TrainConfig, parse_yaml(settings.read_text("utf-8"), where=str(settings)))
    file = examples.HERE / name / examples.MODEL
    model = _store(weights, file, NOTES[name].guidance)
    size = file.stat().st_size
    if size > LIMIT:
        file.unlink()
        raise ValueError(f"{file} would have {size:,} bytes; make the model smaller than {LIMIT:,}")
    (file.parent / examples.CARD).write_text(_card(name, file, model, config, evaluation), "utf-8")
    print(f"{file}: {size:,} bytes")


def _store(source: Path, out: Path, guidance: float) -> Model | NoisyClassifier:
    """The model, stored as float16, with no path of this machine in what it says of its data."""
    if read_header(source).get("kind") == KIND:
        classifier = load_noisy_classifier(source)
        model: Model | NoisyClassifier = replace(classifier, info=_without_paths(classifier.info))
    else:
        drawn = load_model(source)
        stage = drawn.first_stage
        if stage is not None:
            config = replace(stage.config, validation=_short(stage.config.validation))
            stage = replace(stage, config=config, info=_without_paths(stage.info))
        info = replace(_without_paths(drawn.info), guidance=guidance)
        model = replace(drawn, info=info, first_stage=stage)
    store(out, model, torch.float16)
    return model


def _without_paths(info: ModelInfo) -> ModelInfo:
    return replace(
        info, data={**info.data, "source": _short(str(info.data.get("source", "")))}, licence="MIT"
    )


def _short(source: str) -> str:
    """The last two parts of an absolute path: emoji64/train."""
    return "/".join(Path(source).parts[-2:]) if source.startswith("/") else source


def _card(
    name: str, file: Path, model: Model | NoisyClassifier, config: TrainConfig, evaluation: Path
) -> str:
    notes, info = NOTES[name], model.info
    parameters = sum(value.numel() for value in model.network.parameters())
    stage = getattr(model, "first_stage", None)
    if stage is not None:
        parameters += sum(value.numel() for value in stage.network.parameters())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    steps = f"{info.step:,} steps of {config.batch_size} pictures {notes.earlier}".rstrip()
    facts = {
        "parameters": f"{parameters:,}, in float16",
        "file": f"{file.name}, {file.stat().st_size:,} bytes, SHA-256 {digest}",
        "training": f"{steps}, seed {config.seed}, preset `{info.preset}`",
        "average": f"of rate {info.ema_rate}",
        "drawn with": f"guidance {info.guidance:g} where nothing else is said",
        "trained with": f"unnoise {info.version}",
        "pictures": f"{info.data.get('pictures', 0):,}, fingerprint {info.data.get('fingerprint', '')}",
    }
    lines = [f"# {name}", "", notes.what, ""]
    lines += [f"    {command}" for command in notes.use]
    lines += ["", "| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in facts.items())]
    lines += ["", "## Measured", "", *_measured(evaluation)]
    lines += ["", "## Made by", "", *(f"    {command}" for command in notes.train)]
    lines += ["    python scripts/make_example.py " + f"{name} RUN EVALUATION"]
    lines += ["", "## Limits", "", notes.limits, "", "## Licences", ""]
    lines += [f"The weights are MIT, like unnoise. Learned from {notes.data}.", ""]
    return "\n".join(lines)


def _measured(evaluation: Path) -> list[str]:
    """What the evaluator found and of what, or the text of another report, as a block."""
    if evaluation.suffix != ".json":
        return [f"    {line}".rstrip() for line in evaluation.read_text("utf-8").strip().splitlines()]
    found = read_evaluation(evaluation)
    drawn = found.protocol["samples_facts"]
    how = f"{drawn['steps']} steps of {drawn['sampler']}, guidance {drawn['guidance']:g}"
    head = f"{found.protocol['samples_n']:,} samples, {how}, against {found.against}:"
    return [head, "", *(f"    {line}".rstrip() for line in found.lines())]


if __name__ == "__main__":
    main()
