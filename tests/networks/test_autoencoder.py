"""First stages beyond the recorded cases: what is refused, precision, gradients, big codebooks."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.networks.first_stages import TINY_KL, TINY_VQ
from unnoise.networks import quantize
from unnoise.networks.autoencoder import build_first_stage
from unnoise.networks.posterior import Posterior
from unnoise.networks.quantize import UsedCodes, VectorQuantizer

BOTH = pytest.mark.parametrize("settings", [TINY_KL, TINY_VQ], ids=["kl", "vq"])


@BOTH
def test_sizes_beyond_training_keep_their_shape(settings):
    network = build_first_stage(settings)
    latents = network.encode(torch.zeros(2, 3, 16, 24))
    if settings.kind == "kl":
        latents = Posterior.of(latents).mean
    assert latents.shape == (2, 3, 4, 6) and network.factor == 4 and network.channels == 3
    assert network.decode(latents).shape == (2, 3, 16, 24)


@BOTH
def test_what_does_not_fit_is_refused_in_one_line(settings):
    network = build_first_stage(settings)
    with pytest.raises(ValueError, match="18 pixels is no multiple of 4.*use 16 or 20"):
        network.encode(torch.zeros(1, 3, 16, 18))
    with pytest.raises(ValueError, match="pictures of 1 channels .* in_channels=3"):
        network.encode(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="latents of 4 channels .* latent_channels=3"):
        network.decode(torch.zeros(1, 4, 4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": None}, "in_channels=None makes no network"),
        ({"latent_channels": 0}, "latent_channels=0 makes no network"),
        ({"channel_mult": ()}, "at least one level"),
        ({"attention": (8,)}, "names 8, but its levels are at 1, 2, 4"),
        ({"dropout": 1.0}, "dropout=1 is no share"),
        ({"shortcut": True, "latent_channels": 2}, "no place for 3 colours in latent_channels=2"),
        ({"codes": 1}, "codes=1 makes no codebook"),
        ({"beta": -1.0}, "beta=-1.0 makes no codebook"),
    ],
)
def test_settings_that_make_no_network_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build_first_stage(replace(TINY_VQ, **change))


@BOTH
@pytest.mark.parametrize("channels", [3, 5])
def test_a_shortcut_carries_the_mean_colours(settings, channels):
    """Before training they are all there is; what the network learns is added to them."""
    torch.manual_seed(0)
    network = build_first_stage(replace(settings, latent_channels=channels, shortcut=True))
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    colours = images.unflatten(3, (3, 4)).unflatten(2, (2, 4)).mean((3, 5))
    latents = network.encode(images)
    if settings.kind == "kl":
        posterior = Posterior.of(latents)
        assert torch.allclose(posterior.std, torch.full_like(posterior.std, 0.0498), atol=1e-4)
        latents = posterior.mean
        pictures = network.decode(latents)
        assert torch.allclose(pictures, colours.repeat_interleave(4, 2).repeat_interleave(4, 3), atol=1e-5)
    assert torch.allclose(latents[:, :3], colours, atol=1e-5)
    assert latents[:, 3:].abs().sum() > 0 or channels == 3
    for layer in (network.quant_conv, network.decoder.conv_out):
        torch.nn.init.normal_(layer.weight)
    plain = build_first_stage(replace(settings, latent_channels=channels))
    plain.load_state_dict(network.state_dict())
    added = network.encode(images) - plain.encode(images)
    assert torch.allclose(added, F.pad(colours, (0, 0, 0, 0, 0, added.shape[1] - 3)), atol=1e-4)
    z = torch.randn(2, channels, 2, 3)
    codes = network.quantize.lookup(network.quantize.nearest(z)) if settings.kind == "vq" else z
    more = network.decode(z) - plain.decode(z)
    assert torch.allclose(more, codes[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3), atol=1e-4)


@BOTH
def test_bfloat16_is_close_and_gives_float32(settings):
    torch.manual_seed(0)
    network = build_first_stage(replace(settings, attention_type="vanilla", attention=(4,)))
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    encoded = network.encode(images)
    latents = encoded[:, :3]
    decoded = network.decode(latents)
    network.compute_dtype = torch.bfloat16
    for exact, reduced in ((encoded, network.encode(images)), (decoded, network.decode(latents))):
        assert reduced.dtype == torch.float32
        assert (reduced - exact).std() < 0.06 * exact.std()


@BOTH
def test_checkpointing_changes_no_gradient(settings):
    grads = []
    for again in (False, True):
        torch.manual_seed(1)
        network = build_first_stage(replace(settings, checkpoint=again))
        images = torch.rand(2, 3, 8, 8)
        given = [images] if settings.kind == "vq" else [images, torch.ones(2, 3, 2, 2)]
        network(*given)[0].square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in network.encoder.parameters()]))
    assert grads[0].abs().sum() > 0 and torch.equal(*grads)


def test_codes_are_the_nearest_in_any_blocks(monkeypatch):
    torch.manual_seed(3)
    quantizer = VectorQuantizer(50, 4, 0.25, "commitment")
    torch.nn.init.normal_(quantizer.embedding.weight)
    latents = torch.randn(2, 4, 5, 6)
    rows = latents.permute(0, 2, 3, 1).reshape(-1, 4)
    expected = torch.cdist(rows.double(), quantizer.embedding.weight.double()).argmin(1).view(2, 5, 6)
    assert torch.equal(quantizer.nearest(latents), expected)
    monkeypatch.setattr(quantize, "BLOCK", 350)
    assert torch.equal(quantizer.nearest(latents), expected)


def test_gradients_pass_the_codebook_straight():
    quantizer = VectorQuantizer(6, 3, 0.25, "commitment")
    latents = torch.randn(1, 3, 2, 2, requires_grad=True)
    probe = torch.randn(1, 3, 2, 2)
    (quantizer(latents).latents * probe).sum().backward()
    assert torch.equal(latents.grad, probe) and quantizer.embedding.weight.grad is None


def test_places_of_codes_and_back():
    used = UsedCodes(torch.tensor([7, 2, 9]))
    places = used.places(torch.tensor([[2, 9], [5, 7]]))
    assert places.tolist() == [[1, 2], [3, 0]]
    assert used.indices(places).tolist() == [[2, 9], [7, 7]]


def test_a_standard_normal_costs_nothing():
    posterior = Posterior.of(torch.zeros(2, 6, 4, 4))
    assert posterior.kl().tolist() == [0, 0]
    far = Posterior.of(torch.full((2, 6, 4, 4), 100.0))
    assert far.logvar.max() == 20 and torch.isfinite(far.kl()).all()
