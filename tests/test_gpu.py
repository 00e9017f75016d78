"""What only a CUDA device can show: `pytest -m gpu` there; elsewhere they say that they did not run."""

import pytest
import torch

from tests.models import tiny_model
from tests.train.tiny import assert_same_run, tiny_config, tiny_run
from unnoise.generate import sample
from unnoise.train.events import Saved

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def full_float32():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_the_network_answers_as_on_a_cpu():
    model = tiny_model(size=16)
    x, t = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 40, 99])

    def answer(device):
        from unnoise.diffusion.condition import Condition

        cond = Condition(label=torch.tensor([0, 1, 5], device=device))
        with torch.no_grad():
            return model.to(device).network(x.to(device), t.to(device), cond).cpu()

    there, here = answer("cuda"), answer("cpu")
    assert (there - here).abs().max() <= 1e-4 * here.abs().max().clamp(min=1)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_same_pictures_as_on_a_cpu(sampler):
    options = {"n": 6, "steps": "10", "sampler": sampler, "seed": 3, "precision": "float32", "guidance": 2.0}
    here = sample(tiny_model(size=16), device="cpu", **options).pixels.int()
    there = sample(tiny_model(size=16), device="cuda", **options).pixels.int()
    assert ((here - there).abs() <= 1).float().mean() >= 0.999


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_learns_and_resumes_to_the_bit(precision, tmp_path):
    config = tiny_config(steps=12, save_every=4, device="cuda", precision=precision)
    whole, _ = tiny_run(tmp_path / "whole", config)
    assert whole.stopped is None and whole.skipped <= 2

    def break_off(event):
        if isinstance(event, Saved) and event.step == 8:
            raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="power"):
        tiny_run(tmp_path / "parts", config, on_event=break_off)
    tiny_run(tmp_path / "parts", config)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
