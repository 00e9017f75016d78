"""What a comparison trains: a recipe for each kind of model, made to fit the same pictures and time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from unnoise.config.load import Assignment
from unnoise.config.requests import GenerateRequest
from unnoise.config.resolve import data_config, null_label, resolve
from unnoise.config.schema import TrainConfig
from unnoise.config.studies import CompareRequest
from unnoise.data import Dataset, open_data
from unnoise.gan import GanModel, build_gan
from unnoise.model import Model, build_model
from unnoise.modelfile import ModelInfo
from unnoise.planning import plan
from unnoise.studies.ablate import recipe
from unnoise.studies.points import Stage, Yardstick, open_yardstick
from unnoise.train.check import check

KINDS = ("pixel", "latent", "gan")
STAGE = "stage"
"""The run of the latent model's first stage."""
LEAST = 16
"""Pictures that a comparison needs."""


@dataclass(frozen=True, eq=False)
class Training:
    """One run to come. `config` is checked against the data."""

    name: str
    """Of its folder: one of KINDS, or STAGE."""
    config: TrainConfig


@dataclass(frozen=True, eq=False)
class Prepared:
    """A comparison of which everything is checked and nothing trained."""

    request: CompareRequest
    dataset: Dataset
    trainings: tuple[Training, ...]
    yardstick: Yardstick

    def seconds(self, name: str) -> float:
        """Of wall-clock that a training may take."""
        return 60 * share_of(self.request, name)


def share_of(request: CompareRequest, name: str) -> float:
    """Minutes of a training: the latent model and its first stage share theirs."""
    if name == STAGE:
        return request.minutes * request.stage_share
    return request.minutes * (1 - request.stage_share if name == "latent" else 1)


def prepare(request: CompareRequest, *, stage: Stage = lambda *_: None) -> Prepared:
    """Check the recipes against the data, and open the reference; ValueError says what cannot work."""
    _check_numbers(request)
    base = recipe(request.pixel, [("data.source", request.data), *_data_settings(request)])
    data = data_config(replace(base, model=replace(base.model, image_size=None, channels=None)))
    data = replace(data, source=request.data, size=request.size, channels=request.channels)
    dataset = open_data(replace(data, cache=request.evaluate.cache), seed=request.seed)
    if len(dataset) < LEAST:
        raise ValueError(
            f"{request.data} has {len(dataset)} pictures; a comparison needs {LEAST} at least, and means "
            "little below a thousand"
        )
    names = [n for kind in request.models for n in ((STAGE, kind) if kind == "latent" else (kind,))]
    trainings = []
    for name in names:
        try:
            trainings.append(Training(name, _of_kind(name, _config(request, name, dataset))))
            check(trainings[-1].config, processes=1)
            if name != "latent":  # its first stage is not there yet
                data_config(replace(trainings[-1].config, data=replace(data, size=dataset.size)))
            _check_drawing(request, trainings, dataset)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    evaluate = replace(
        request.evaluate, against=request.evaluate.against or request.data, channels=request.channels
    )
    yardstick = open_yardstick(evaluate, (dataset.channels, dataset.size, dataset.size), stage)
    if yardstick.side.table is None:
        raise ValueError(f"{evaluate.against} holds statistics alone; name pictures to compare with")
    return Prepared(request, dataset, tuple(trainings), yardstick)


def _check_numbers(request: CompareRequest) -> None:
    if not request.data:
        raise ValueError("no data named; give a folder (or fashion-mnist-10k to try it out)")
    if not request.minutes > 0:
        raise ValueError(f"budget of {request.minutes:g} minutes is none; use more than 0, such as 30m")
    if not 0 < request.stage_share < 1:
        raise ValueError(f"stage_share={request.stage_share:g} is not possible; use a share between 0 and 1")
    unknown = [name for name in request.models if name not in KINDS]
    if unknown or not request.models or len(set(request.models)) < len(request.models):
        raise ValueError(f"models={', '.join(request.models)}: name some of {', '.join(KINDS)}, each once")
    n = request.evaluate.n
    if n is None or n < LEAST:
        raise ValueError(f"n={n} pictures are not enough to measure; use {LEAST} or more")


def _data_settings(request: CompareRequest) -> list[Assignment]:
    return [
        ("data.size", request.size),
        ("data.channels", request.channels),
        ("data.flip", request.flip),
        ("data.crop", "center"),
        ("data.cache", request.evaluate.cache),
        ("seed", request.seed),
        ("device", request.evaluate.device),
        ("minutes", None),
    ]


def _config(request: CompareRequest, name: str, dataset: Dataset) -> TrainConfig:
    """The settings of a training, its own sizes and learning data replaced by the comparison's."""
    fixed: list[Assignment] = [("data.source", request.data), *_data_settings(request)]
    fixed += [("data.size", dataset.size), ("data.channels", dataset.channels), ("data.labels", "auto")]
    fixed += [("minutes", share_of(request, name))]
    if name != "gan":  # its grids come with the readings that show a collapse
        fixed += [("sample_every", 0)]
    if name == STAGE:
        return _levels(_of_kind(STAGE, recipe(request.stage, fixed)), factor(dataset.size))
    if name == "gan":
        own = request.gan or ("gan-28" if dataset.size <= 32 else "gan-64")
        sizes: list[Assignment] = [
            (f"gan.{part}.image_size", None) for part in ("generator", "discriminator")
        ]
        measured: list[Assignment] = [("evaluate.features", request.evaluate.features)]
        measured += [("evaluate.weights", request.evaluate.weights)]
        return recipe(own, [*fixed, *sizes, *measured])
    fixed += [("model.image_size", None), ("model.channels", None)]
    if name == "latent":
        return recipe(request.latent, [*fixed, ("first_stage", STAGE)])
    return recipe(request.pixel, fixed)


def ways_to_draw(request: CompareRequest, model: Model | GanModel) -> list[tuple[str, GenerateRequest]]:
    """(setting, how to draw), the model as it is first."""
    plain = replace(request.generate, n=request.evaluate.n or 2, seed=request.seed, device="auto")
    if isinstance(model, GanModel):
        plain = GenerateRequest(n=plain.n, seed=plain.seed, batch_size=plain.batch_size)
        return [("", plain)] + [
            (f"truncation={t:g}", replace(plain, truncation=t)) for t in request.truncation
        ]
    if model.null_label is None:
        return [("", plain)]
    return [("", plain)] + [(f"guidance={g:g}", replace(plain, guidance=g)) for g in request.guidance]


def _check_drawing(request: CompareRequest, trainings: Sequence[Training], dataset: Dataset) -> None:
    """Refuse what the last of the trainings makes no model for: it would be known only after it."""
    name, config = trainings[-1].name, trainings[-1].config
    if name == STAGE or config.model.told:  # what models are told is read when they are trained
        return
    size, channels = dataset.size, dataset.channels
    if name == "latent":  # as a model of pictures like its latents
        stage = trainings[-2].config.autoencoder
        assert stage is not None, "it comes after its first stage"
        size, channels = size // factor(size), stage.network.latent_channels
    complete = resolve(config, size=size, channels=channels, classes=len(dataset.classes))
    info = ModelInfo(classes=tuple(dataset.classes), null_label=null_label(complete))
    with torch.device("meta"):
        model: Model | GanModel = (
            build_gan(complete.gan.generator, info) if complete.gan else build_model(complete.model, info)
        )
    for _, asked in ways_to_draw(request, model):
        plan(model, replace(asked, precision="float32"))


def _of_kind(name: str, config: TrainConfig) -> TrainConfig:
    """The settings; ValueError where the recipe trains something else."""
    wanted = {STAGE: "autoencoder", "gan": "gan"}.get(name, "diffusion")
    if config.kind != wanted:
        raise ValueError(f"its recipe is of kind {config.kind}; name one of kind {wanted}")
    return config


def factor(side: int) -> int:
    """How many times smaller latents are: 4 where that leaves 8 positions a side, an even number; or 2."""
    for factor in (4, 2):
        if side % (2 * factor) == 0 and side // factor >= 8:
            return factor
    raise ValueError(
        f"pictures of {side} pixels have no latents that a model could halve; use a side that is a multiple "
        "of 4 from 16 on, or leave the latent model out"
    )


def _levels(config: TrainConfig, factor: int) -> TrainConfig:
    """The first stage's recipe with the levels that the factor needs: the first ones of its own."""
    stage = config.autoencoder
    assert stage is not None, "the recipe trains a first stage"
    levels = factor.bit_length()
    mult = stage.network.channel_mult
    if len(mult) < levels:
        raise ValueError(f"its {len(mult)} levels cannot shrink pictures by {factor}; name another recipe")
    network = replace(stage.network, channel_mult=mult[:levels])
    return replace(config, autoencoder=replace(stage, network=network))
