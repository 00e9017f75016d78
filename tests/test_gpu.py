"""What only a CUDA device can show: `pytest -m gpu` there; elsewhere they say that they did not run."""

import pytest
import torch

from tests.models import tiny_model
from tests.train.gans import tiny_gan
from tests.train.tiny import assert_same_run, changed, tiny_config, tiny_run
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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gan_learns_and_resumes_to_the_bit(precision, tmp_path):
    config = tiny_gan(steps=6, save_every=3, device="cuda", precision=precision, optimizer={"decay": "none"})
    whole, _ = tiny_run(tmp_path / "whole", config)
    assert whole.stopped is None and not whole.skipped
    tiny_run(tmp_path / "parts", changed(config, steps=3))
    tiny_run(tmp_path / "parts", config)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(2, 64, 7, 5), (3, 48, 9, 9), (1, 96, 1, 1), (2, 160, 28, 28), (1, 2048, 4, 4)]
)
def test_the_norm_and_its_gradients(dtype, shape):
    """Against the definition in float64; the same bits every time."""
    from unnoise.networks.kernels.group_norm import group_norm_silu, is_usable
    from unnoise.networks.norm import group_count

    b, c, *_ = shape
    make = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(shape, generator=make).to("cuda", dtype) for _ in range(2))
    weight, bias = (torch.randn(b, c, generator=make).cuda() for _ in range(2))
    x, dy = (v.contiguous(memory_format=torch.channels_last) for v in (x, dy))
    assert is_usable(x), "CUDA builds of torch bring Triton along"

    def ours():
        inputs = [v.clone().requires_grad_() for v in (x, weight, bias)]
        y = group_norm_silu(*inputs, group_count(c), 1e-5, True)[0]
        return y.detach(), *torch.autograd.grad(y, inputs, dy)

    inputs = [v.double().requires_grad_() for v in (x, weight, bias)]
    plain = torch.group_norm(inputs[0], group_count(c), None, None, 1e-5)
    truth = torch.nn.functional.silu(plain * inputs[1][:, :, None, None] + inputs[2][:, :, None, None])
    exact = truth.detach(), *torch.autograd.grad(truth, inputs, dy.double())
    first = ours()
    rounding = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    for number, (got, wanted) in enumerate(zip(first, exact, strict=True)):
        within = rounding if number < 2 else 1e-4
        assert (got.double() - wanted).abs().max() <= within * wanted.abs().max().clamp(min=1), number
    for got, again in zip(first, ours(), strict=True):
        assert torch.equal(got, again)
