"""LPIPS on VGG16 against the recorded values and gradients."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import goldens
from tests.goldens import state_dict_sha256
from unnoise.networks.lpips import Lpips

SHARED = Path(__file__).parents[3] / "shared" / "golden"


def recipe(key: str, shape: list[int], seed: int) -> torch.Tensor:
    """The recipe "keyed-normal-vgg-v1" of ldm_losses.json."""
    if key.startswith("scaling_layer"):
        values = [-0.030, -0.088, -0.188] if key.endswith("shift") else [0.458, 0.448, 0.450]
        return torch.tensor(values).view(1, 3, 1, 1)
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
    z = generator.standard_normal(tuple(shape), dtype=np.float32)
    if key.startswith("lin"):
        z = np.float32(0.1) * np.abs(z)
    elif key.endswith(".bias"):
        z = np.float32(0.1) * z
    else:
        z = z * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return torch.from_numpy(z)


def cases():
    for folder in (goldens.directory(), SHARED):
        if (folder / "ldm_losses.json").exists():
            spec = json.loads((folder / "ldm_losses.json").read_text())
            arrays = np.load(folder / "ldm_losses.npz", allow_pickle=False)
            return [(c, arrays) for c in spec["cases"] if c["id"].startswith("lpips")]
    return []


@pytest.mark.golden
@pytest.mark.parametrize(("spec", "arrays"), cases(), ids=lambda v: v["id"] if isinstance(v, dict) else "")
def test_recorded(spec, arrays):
    state = {k: recipe(k, s, spec["seed"]) for k, s in spec["state_dict_shapes"].items()}
    assert state_dict_sha256(state) == spec["state_dict_sha256"]
    model = Lpips.from_state(state)
    a = torch.from_numpy(arrays[spec["inputs"]["input"]["array"]])
    b = torch.from_numpy(arrays[spec["inputs"]["target"]["array"]]).requires_grad_()
    value = model(a, b)
    value.sum().backward()
    for ours, name in ((value.detach(), "value"), (b.grad, "grad_target")):
        recorded = torch.from_numpy(arrays[spec["outputs"][name]["array"]])
        assert (ours - recorded).abs().max() <= 1e-4 * recorded.abs().max(), name
    for name, x in zip(("1_2", "2_2", "3_3", "4_3", "5_3"), model.features(a), strict=True):
        recorded = torch.from_numpy(arrays[spec["outputs"][f"mean_abs_relu{name}"]["array"]])
        assert torch.allclose(x.abs().mean((1, 2, 3)), recorded, rtol=1e-4), name


def test_identity_symmetry_and_gradient_at_zero():
    torch.manual_seed(0)
    model = Lpips()
    a = torch.rand(1, 3, 32, 32) * 2 - 1
    assert model(a, a).item() == 0
    black = torch.full((1, 3, 32, 32), -1.0, requires_grad=True)
    model(a, black).sum().backward()
    assert torch.isfinite(black.grad).all()
    assert model(a, black).item() == pytest.approx(model(black, a).item())


def test_dropout_is_off_even_in_training_mode():
    torch.manual_seed(0)
    a, b = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    quiet, noisy = Lpips().train(), Lpips(dropout_in_training=True).train()
    for model in (quiet, noisy):
        for i in range(5):
            torch.nn.init.uniform_(getattr(model, f"lin{i}").model[1].weight)
    assert quiet(a, b).equal(quiet(a, b))
    assert not noisy(a, b).equal(noisy(a, b))


def test_other_weights_are_refused():
    state = Lpips().state_dict()
    state.pop("lin4.model.1.weight")
    with pytest.raises(ValueError, match="lin4"):
        Lpips.from_state(state)
