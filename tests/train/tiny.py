"""A run that takes a second: a small U-Net on 24 made-up 8x8 pictures of 3 classes, all randomness on."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from unnoise.config.load import from_dict, merge, to_dict
from unnoise.config.schema import TrainConfig
from unnoise.data import DataReport, Dataset
from unnoise.data.dataset import Squares
from unnoise.train import train
from unnoise.train.events import Event

SETTINGS: dict[str, Any] = {
    "model": {
        "network": {"width": 16, "depth": 1, "channel_mult": [1], "attention": [], "dropout": 0.2},
        "schedule": {"steps": 20, "beta_end": 0.02, "beta_start": 0.0001},
        "variance": "learned_range",
    },
    "objective": {"name": "hybrid"},
    "timesteps": {"name": "loss_second_moment", "history": 1, "uniform_prob": 0.1},
    "optimizer": {"lr": 0.001, "warmup_steps": 2, "decay": "cosine"},
    "ema": {"rates": [0.9, 0.5]},
    "steps": 12,
    "batch_size": 8,
    "micro_batch": 3,
    "label_dropout": 0.3,
    "precision": "float32",
    "device": "cpu",
    "compile": "off",
    "log_every": 3,
    "save_every": 4,
    "sample_every": 0,
    "sample_steps": 2,
    "sample_count": 2,
}


def tiny_config(**changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, merge(SETTINGS, changes))


def tiny_data(seed: int = 0, *, flip: bool = True, shift: int = 0) -> Dataset:
    random = np.random.default_rng(5)
    labels = np.arange(24) % 3
    pixels = random.integers(0, 200, (24, 8, 8, 1)) + 20 * labels[:, None, None, None] + shift
    return Dataset(
        store=Squares(pixels.astype(np.uint8)),
        size=8,
        channels=1,
        report=DataReport(source="made up", pictures=24, size=8, channels=1),
        content=f"made up {shift}",
        name_of=str,
        labels=labels,
        classes=("a", "b", "c"),
        flip=flip,
        seed=seed,
    )


def tiny_run(out: Path, config: TrainConfig | None = None, **options: Any) -> tuple[Any, list[Event]]:
    """Result and events of a run."""
    config = config or tiny_config()
    seen: list[Event] = []
    listen = options.pop("on_event", lambda event: None)
    dataset = options.pop("dataset", None) or tiny_data(config.seed)

    def on_event(event: Event) -> None:
        seen.append(event)
        listen(event)

    return train(config, out, dataset=dataset, on_event=on_event, **options), seen


def weights(run: Path, name: str = "model.safetensors") -> dict[str, Tensor]:
    return load_file(run / name)


def whole_state(run: Path) -> dict[str, Tensor]:
    """Every tensor of the newest checkpoint and of the model files."""
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    files = [*newest.glob("*.safetensors"), *run.glob("*.safetensors")]
    return {f"{path.name}/{key}": value for path in files for key, value in load_file(path).items()}


def assert_same_run(a: Path, b: Path) -> None:
    """Both runs ended in the same bits."""
    one, two = whole_state(a), whole_state(b)
    assert one.keys() == two.keys()
    different = [key for key in one if not torch.equal(one[key], two[key])]
    assert not different, different[:5]


def changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, merge(to_dict(config), changes))
