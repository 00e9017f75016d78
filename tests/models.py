"""Tiny models with random weights, for tests of what is around a model."""

from dataclasses import replace

from tests.goldens import recipe_state_dict
from unnoise.config.schema import ModelConfig, ScheduleConfig
from unnoise.model import Model, ModelInfo, build_model
from unnoise.networks.settings import UNetSettings

NAMES = ("T-shirt/top", "Trouser", "Sandal", "Sneaker", "Ankle boot")


def tiny_model(
    *, classes=NAMES, null=True, channels=1, size=8, width=32, seed=0, steps=100, predicts="x0"
) -> Model:
    """A U-Net of two levels with attention; every weight is random, the output layer's too."""
    rows = len(classes) + null if classes else None
    network = UNetSettings(
        in_channels=channels, out_channels=2 * channels, width=width, depth=1, channel_mult=(1, 2),
        attention=(2,), heads=1, classes=rows,
    )  # fmt: skip
    config = ModelConfig(
        network=network,
        schedule=ScheduleConfig(steps=steps),
        image_size=size,
        channels=channels,
        predicts=predicts,
    )
    info = ModelInfo(classes=tuple(classes), null_label=len(classes) if classes and null else None)
    model = build_model(config, info)
    shapes = {key: list(value.shape) for key, value in model.network.state_dict().items()}
    state = recipe_state_dict(shapes, seed, ["label_emb.weight"])
    state["out.2.weight"] *= 0.3  # pictures in the middle of the range, where every rounding error shows
    model.network.load_state_dict(state)
    model.network.eval().requires_grad_(False)
    return model


def with_info(model: Model, **changes) -> Model:
    """The same weights described otherwise."""
    return replace(model, info=replace(model.info, **changes))
