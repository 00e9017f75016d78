"""Models that a study compares: files, run directories, published .pt files, and checkpoints of a run."""

from dataclasses import replace
from pathlib import Path

from unnoise.drawing import load
from unnoise.gan import GanModel, averaged, with_weights
from unnoise.metrics.weights import file_hash
from unnoise.model import Model
from unnoise.modelfile import find_model, put_weights, read_weights
from unnoise.train.checkpoint import MANIFEST, damage, peek


def open_model(spec: str, device: str, preset: str = "") -> tuple[Model | GanModel, str]:
    """The model that `spec` names, and what tells its pictures from another's: the hash of its file.

    Of a checkpoint (`RUN/checkpoints/step-00001000`) it is the first average, as in the run's model file.
    """
    path = Path(spec)
    if (path / MANIFEST).is_file():
        return _of_checkpoint(path, device)
    file = find_model(path)
    return load(file, device, preset=preset), f"{file_hash(file)} {preset}".strip()


def _of_checkpoint(folder: Path, device: str) -> tuple[Model | GanModel, str]:
    fault = damage(folder)
    if fault:
        raise ValueError(f"{folder} is damaged ({fault}); name another checkpoint of the run")
    model = load(folder.parents[1], device)
    average = folder / f"ema-{model.info.ema_rate}.safetensors"
    if not average.is_file():
        raise ValueError(f"{folder} holds no {average.name}, which {folder.parents[1]} says it averages by")
    info = replace(model.info, step=peek(folder).step)
    if isinstance(model, GanModel):
        # With the spectral norms' own vectors of that step, as the run would have written it then.
        then = with_weights(model.network, read_weights(folder / "network.safetensors"))
        return GanModel(averaged(then, read_weights(average)), info).to(device), file_hash(average)
    put_weights(model.network, read_weights(average), average)
    return replace(model, info=info).to(device), file_hash(average)
