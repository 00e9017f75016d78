"""Methods that pull a prediction: what they keep, where they are exact, what latents and palettes add."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.edit.conftest import MEAN, SIZE, STD, exact_of, levels, request
from tests.models import tiny_latent_model
from unnoise.config.requests import EditRequest
from unnoise.edit import colorize, consistency, inpaint, upscale
from unnoise.edit.palette import PLANE, lie, read_palette, root
from unnoise.images import to_images
from unnoise.networks.first_stage_settings import KlSettings, VqSettings

PULLED = [
    {"method": "dps"},
    {"method": "pigdm"},
    {"method": "dps", "sampler": "ddpm", "pull": 1.0},
    {"method": "particles", "sampler": "ddpm", "particles": 8},
]
BOX = (2, 1, 3, 4)


@pytest.fixture(scope="module", params=[KlSettings, VqSettings], ids=["kl", "vq"])
def latent(request):
    return tiny_latent_model(kind=request.param)


@pytest.mark.parametrize("options", PULLED)
def test_known_pixels_come_back_byte_for_byte(exact_model, options):
    picture = np.random.default_rng(5).integers(0, 256, (SIZE, SIZE, 1), np.uint8)
    (batch,) = inpaint(exact_model, [picture], request("inpaint", box=BOX, n=3, **options))
    known = np.ones((SIZE, SIZE), bool)
    known[1:5, 2:5] = False
    assert all(np.array_equal(pixels[known], picture[known]) for pixels in batch.pixels.numpy())
    assert not torch.equal(batch.pixels[0], batch.pixels[1])
    wanted = request("inpaint", box=BOX, n=1, first=2, batch_size=1, **options)
    (alone,) = inpaint(exact_model, [picture], wanted)
    assert torch.equal(batch.pixels[2], alone.pixels[0])


def test_detail_has_the_mean_of_its_block_from_the_start(exact_model):
    """Gaussian pixels: what is drawn in a block spreads about as the posterior does, 3/4 of the variance."""
    small = np.full((3, 3, 1), 170, np.uint8)
    for options in PULLED[:2] + PULLED[3:]:
        wanted = request("upscale", factor=2, n=100, steps="50", **options)
        (batch,) = upscale(exact_model, [small], wanted)
        images = to_images(batch.pixels).double()
        assert images.mean() == pytest.approx(170 / 127.5 - 1, abs=1e-6)
        assert abs(images.var() / (0.75 * STD**2) - 1) < 0.5 and MEAN < 170 / 127.5 - 1


def test_off_is_a_plain_sample(exact_model):
    from unnoise.generate import sample

    for method in ("dps", "pigdm"):
        wanted = request("inpaint", box=BOX, method=method, pull=0.0, n=1)
        (batch,) = inpaint(exact_model, [levels()], wanted)
        plain = sample(exact_model, steps="20", clip="none", precision="float32", n=1)
        assert torch.equal(batch.pixels[0, 1:5, 2:5], plain.pixels[0, 1:5, 2:5])


def test_latent_models_keep_grey_to_the_byte(latent):
    grey = np.random.default_rng(0).integers(0, 256, (16, 16, 1), np.uint8)
    (batch,) = colorize(latent, [grey], request("colorize", n=2))
    assert (batch.pixels.numpy().astype(int).sum(-1) == 3 * grey[..., 0].astype(int)).all()
    assert not torch.equal(batch.pixels[0], batch.pixels[1])


def test_latent_models_are_pulled_through_their_decoder():
    """Further with more strength, measured on what is given out."""
    model = exact_of(2, tiny_latent_model().first_stage)
    small = np.random.default_rng(0).integers(100, 150, (6, 6, 3), np.uint8)
    reached = []
    for pull in (0.0, 0.1, 0.5):
        wanted = request("upscale", factor=2, n=1, steps="30", pull=pull, method="dps")
        (batch,) = upscale(model, [small], wanted)
        reached.append(consistency(small=torch.from_numpy(small), large=batch.pixels[0]))
    assert reached == sorted(reached) and reached[2] > reached[0] + 1
    hole = request("inpaint", box=(4, 4, 6, 6), method="dps")
    (batch,) = inpaint(model, [levels(0, 12, 3)], hole)
    known = np.ones((12, 12), bool)
    known[4:10, 4:10] = False
    assert np.array_equal(batch.pixels[0].numpy()[known], levels(0, 12, 3)[known])


def painted(file, mean, spread, seed=0):
    """A picture whose colours lie about `mean` on the two axes of colour."""
    drawn = np.random.default_rng(seed).normal(mean, spread, (24 * 24, 2)) @ PLANE.double().numpy()
    levels_of = ((drawn + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(levels_of.reshape(24, 24, 3)).save(file)
    return str(file)


def test_palettes_are_means_and_roots_of_covariances(tmp_path):
    file = painted(tmp_path / "p.png", (0.2, -0.1), (0.15, 0.05))
    palette = read_palette(file, EditRequest())
    torch.testing.assert_close(palette.mean, torch.tensor([0.2, -0.1]), rtol=0, atol=0.03)
    torch.testing.assert_close(palette.spread.diag(), torch.tensor([0.15, 0.05]), rtol=0, atol=0.02)
    images = to_images(np.array(Image.open(file))[None])
    assert palette.missing(images).abs().max() < 24 * 1e-4
    # A shift of all pixels along one of the axes is as long as what it puts amiss.
    shift = 0.1 * PLANE[0].view(1, 3, 1, 1).expand_as(images)
    assert palette.missing(images + shift).norm() == pytest.approx(shift.norm().item(), rel=1e-3)
    mean, spread = lie(images.flatten(2))
    covariance = (PLANE @ images.flatten(2)[0]).cov(correction=0)
    torch.testing.assert_close(spread @ spread, covariance[None] + 1e-6 * torch.eye(2), rtol=1e-3, atol=1e-6)
    assert torch.isfinite(torch.autograd.functional.jacobian(root, torch.zeros(1, 2, 2))).all()


def test_palettes_lead_colours(tmp_path):
    """Of what is drawn the mean goes where the palette's is, and the grey stays."""
    model = exact_of(3)
    grey, off = np.full((6, 6, 1), 128, np.uint8), []
    red = painted(tmp_path / "red.png", (0.3, 0.2), (0.05, 0.05))
    for pull in (0.0, 0.5, 4.0):
        (batch,) = colorize(model, [grey], request("colorize", palette=red, palette_pull=pull, n=4))
        assert (batch.pixels.numpy().astype(int).sum(-1) == 3 * 128).all()
        missing = read_palette(red, EditRequest()).missing(to_images(batch.pixels))
        off.append(missing.norm(dim=1).mean().item())
    assert off[0] > off[1] > off[2] and off[2] < 0.6 * off[0]
    together = request("colorize", palette=red, method="dps", n=1)
    (batch,) = colorize(model, [grey], together)
    assert (batch.pixels.numpy().astype(int).sum(-1) == 3 * 128).all()


@pytest.mark.parametrize(
    ("edit", "options", "words"),
    [
        (inpaint, {"box": BOX, "pull": 1.0}, ["pull=1.0", "replace", "dps or pigdm"]),
        (inpaint, {"box": BOX, "method": "dps", "pull": -1.0}, ["pull=-1.0"]),
        (inpaint, {"box": BOX, "method": "pigdm", "repeats": 3}, ["repeats=3", "pigdm", "repaint"]),
        (inpaint, {"box": BOX, "method": "particles"}, ["particles", "not by ddim", "sampler ddpm"]),
        (inpaint, {"box": BOX, "particles": 4}, ["particles=4", "replace"]),
        (inpaint, {"box": BOX, "method": "particles", "sampler": "ddpm", "particles": 1}, ["particles=1"]),
        (colorize, {"method": "replace"}, ["method=replace", "latents", "dps"]),
        (colorize, {"method": "pigdm"}, ["method=pigdm", "latents"]),
        (colorize, {"palette": "none.png"}, ["none.png"]),
        (colorize, {"palette_pull": 1.0}, ["palette_pull=1", "name one"]),
        (upscale, {"factor": 2, "method": "repaint"}, ["method=repaint", "latents", "dps"]),
        (upscale, {"factor": 2, "palette": "p.png"}, ["palette", "colorize"]),
    ],
)
def test_refusals(edit, options, words):
    with pytest.raises(ValueError) as error:
        list(edit(tiny_latent_model(), [levels(0, 16, 3)], request(edit.__name__, **options)))
    for word in words:
        assert word in str(error.value)
