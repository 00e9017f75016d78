"""Feature networks by name, one file each; `hf:NAME` is any Hugging Face vision model, a path a classifier of
`unnoise train`.
"""

from collections.abc import Callable
from pathlib import Path

from unnoise.metrics.extractors.classifier import SHIPPED, ClassifierFeatures
from unnoise.metrics.extractors.efficientnet import EfficientNetFeatures
from unnoise.metrics.extractors.huggingface import HuggingFaceFeatures
from unnoise.metrics.extractors.inception import InceptionFeatures
from unnoise.metrics.features import FeatureNetwork

Opener = Callable[..., FeatureNetwork]

EXTRACTORS: dict[str, Opener] = {
    "inception": InceptionFeatures.open,
    "effnet-lite0": EfficientNetFeatures.open,
    SHIPPED: ClassifierFeatures.open,
}
"""Name -> (weights=None, device="cpu") -> network."""


def open_features(name: str, *, weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """The feature network of a name. ValueError when it is unknown or its weights are not to be had."""
    if name.startswith("hf:"):
        return HuggingFaceFeatures.open(name.removeprefix("hf:"), device=device)
    if name not in EXTRACTORS and (name.endswith(".safetensors") or Path(name).is_dir()):
        return ClassifierFeatures.open(weights=weights or name, device=device)
    if name not in EXTRACTORS:
        known = ", ".join([*EXTRACTORS, "hf:NAME", "a classifier's file"])
        raise ValueError(f"features={name!r} is no feature network; choose one of {known}")
    return EXTRACTORS[name](weights=weights, device=device)
