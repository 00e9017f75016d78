"""A GAN that trains in a second, for tests: the tiny data of `tiny`, every option on."""

from typing import Any

from unnoise.config.load import from_dict, merge
from unnoise.config.schema import TrainConfig

SETTINGS: dict[str, Any] = {
    "kind": "gan",
    "gan": {
        "generator": {
            "width": 8, "channel_mult": [1, 2], "chunk": 4, "class_width": 6, "attention": [1],
        },
        "discriminator": {"width": 8, "channel_mult": [1, 2], "attention": [2]},
        "discriminator_steps": 2,
        "discriminator_lr": 0.004,
        "augment": ["color", "translation", "cutout"],
        "r1": 0.1,
        "held_out": 0.25,
    },
    "optimizer": {"lr": 0.002, "betas": [0.0, 0.999], "clip_norm": None, "decay": "linear"},
    "ema": {"rates": [0.9, 0.5]},
    "steps": 8,
    "batch_size": 6,
    "micro_batch": 4,
    "precision": "float32",
    "device": "cpu",
    "log_every": 2,
    "save_every": 4,
    "sample_every": 4,
    "sample_count": 6,
}  # fmt: skip


def tiny_gan(**changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, merge(SETTINGS, changes))
