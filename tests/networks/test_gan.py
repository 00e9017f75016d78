"""The generator and the discriminator of GANs: sizes, classes, statistics, what they refuse."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unnoise.networks.gan_settings import GeneratorSettings, ProjectionSettings
from unnoise.networks.generator import BatchNorm, Generator, Standing
from unnoise.networks.pooled_attention import PooledAttention
from unnoise.networks.projection_discriminator import ProjectionDiscriminator

SMALL = GeneratorSettings(
    image_size=8, out_channels=1, classes=3, width=8, channel_mult=(1, 2, 2), chunk=4, class_width=5,
    attention=(1, 2),
)  # fmt: skip
JUDGE = ProjectionSettings(
    image_size=8, in_channels=1, classes=3, width=8, channel_mult=(1, 2, 2), attention=(2, 4)
)


def generator(**changes) -> Generator:
    torch.manual_seed(0)
    network = Generator(replace(SMALL, **changes))
    for attention in network.attention.values():
        nn.init.ones_(attention.gain)
    return network


def judge(**changes) -> ProjectionDiscriminator:
    torch.manual_seed(1)
    network = ProjectionDiscriminator(replace(JUDGE, **changes))
    for attention in network.attention.values():
        nn.init.ones_(attention.gain)
    return network


@pytest.mark.parametrize("classes", [None, 1, 3, 200])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "size, mult, patch", [(28, (1, 2, 2), 1), (28, (1, 2), 2), (32, (1, 1, 1, 1), 1), (64, (1, 1, 1, 1), 2)]
)
def test_any_square_of_any_number_of_classes(size, mult, patch, channels, classes):
    changes = {"image_size": size, "channel_mult": mult, "patch": patch, "classes": classes}
    maker = generator(out_channels=channels, attention=(2 ** (len(mult) - 2),), **changes)
    critic = judge(in_channels=channels, attention=(2,), **changes)
    z, label = (
        torch.randn(2, maker.settings.latent),
        None if classes is None else torch.tensor([0, classes - 1]),
    )
    images = maker(z, label)
    assert images.shape == (2, channels, size, size) and images.abs().max() <= 1
    scores = critic(images, label)
    assert scores.shape == (2,)
    scores.sum().backward()
    unused = [name for name, p in (*maker.named_parameters(), *critic.named_parameters()) if p.grad is None]
    assert not unused
    # An embedding's other rows learn nothing of these two pictures.
    still = [n for n, p in (*maker.named_parameters(), *critic.named_parameters()) if not p.grad.any()]
    assert not still, still


def test_every_chunk_of_z_and_the_class_are_read():
    network = generator()
    z, label = torch.randn(4, network.settings.latent), torch.tensor([0, 1, 2, 0])
    plain = network(z, label)
    for start in range(0, network.settings.latent, network.settings.chunk):
        moved = z.clone()
        moved[:, start : start + network.settings.chunk] += 1
        assert (network(moved, label) - plain).abs().max() > 1e-3, start
    assert (network(z, label.flip(0)) - plain).abs().max() > 1e-3


def test_the_class_is_a_projection():
    """D(x, y) - D(x, y') = (e_y - e_y') . h(x), h the activations summed over the picture."""
    critic, x, last = judge(), torch.randn(5, 1, 8, 8), []
    critic.levels[-1].register_forward_hook(lambda module, inputs, output: last.append(output))
    with torch.no_grad():
        first, second = (critic(x, torch.full((5,), k)) for k in (0, 2))
        rows = critic.embed(torch.tensor([0, 2]))
        h = last[0].relu().sum((2, 3))
        assert torch.allclose(first - second, h @ (rows[0] - rows[1]), atol=1e-4)
    assert (first - second).abs().max() > 1e-2


def test_standing_statistics_make_pictures_independent_of_their_batch():
    network, label = generator(), torch.tensor([0, 1, 2, 0, 1])
    z = torch.randn(5, network.settings.latent)
    with Standing(network) as standing, torch.no_grad():
        for number in range(6):
            torch.manual_seed(number)
            network(torch.randn(32, network.settings.latent), torch.randint(3, (32,)))
    found = standing.found()
    assert set(found) == {n for n, _ in network.named_buffers() if n.endswith((".mean", ".var"))}
    network.load_state_dict({**network.state_dict(), **found})
    network.eval()
    with torch.no_grad():
        together, alone = network(z, label), network(z[3:4], label[3:4])
        assert torch.allclose(together[3:4], alone, atol=1e-5)
        network.train()
        assert not torch.allclose(network(z, label)[3:4], together[3:4], atol=1e-2)


def test_standing_statistics_are_the_moments_of_all_that_was_seen():
    network = generator(attention=())
    seen = []
    first = network.levels[0][0].norm1.norm
    hook = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with Standing(network) as standing, torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, network.settings.latent), torch.randint(3, (8,)))
    hook.remove()
    whole = torch.cat(seen).double().transpose(0, 1).flatten(1)
    found = standing.found()
    name = next(n for n, module in network.named_modules() if module is first)
    assert torch.allclose(found[f"{name}.mean"].double(), whole.mean(1), atol=1e-6)
    assert torch.allclose(found[f"{name}.var"].double(), whole.var(1, correction=0), rtol=1e-4)
    assert not network.levels[0][0].norm1.norm._forward_pre_hooks


def test_training_neither_reads_nor_moves_standing_statistics():
    network = generator()
    z, label = torch.randn(4, network.settings.latent), torch.tensor([0, 1, 2, 0])
    before = network(z, label)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.mean.fill_(9)
    assert torch.equal(network(z, label), before)


def test_gradients_reach_through_a_penalty_on_gradients():
    critic, x = judge(), torch.randn(3, 1, 8, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(critic(x, torch.tensor([0, 1, 2])).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert critic.levels[0][0].conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("sides", [(4, 6), (5, 7), (2, 2)])
def test_keys_are_pooled_as_max_pooling_does(sides):
    torch.manual_seed(0)
    attention, x = PooledAttention(8), torch.randn(2, 8, *sides, dtype=torch.float32, requires_grad=True)
    nn.init.ones_(attention.gain)
    for layer in (attention.query, attention.key, attention.value, attention.project):
        nn.init.normal_(layer.weight)
    q = attention.query(x).flatten(2).transpose(1, 2)
    k, v = (nn.functional.max_pool2d(f(x), 2).flatten(2) for f in (attention.key, attention.value))
    mixed = ((q @ k).softmax(-1) @ v.transpose(1, 2)).transpose(1, 2).unflatten(2, sides)
    wanted = x + attention.project(mixed)
    assert torch.allclose(attention(x), wanted, atol=1e-5)
    slopes = [torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (attention(x), wanted)]
    assert torch.allclose(*slopes, atol=1e-3)


def test_activations_may_be_bfloat16():
    maker, critic = generator(), judge()
    z, label = torch.randn(4, maker.settings.latent), torch.tensor([0, 1, 2, 0])
    images = maker(z, label)
    maker.compute_dtype = critic.compute_dtype = torch.bfloat16
    coarse = maker(z, label)
    assert coarse.dtype == critic(images, label).dtype == torch.float32
    assert (coarse - images).abs().mean() < 0.03 and not torch.equal(coarse, images)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"image_size": 30}, "30 pixels is no multiple of 4, this network's down-sampling; use 28 or 32"),
        ({"chunk": 0}, "chunk=0 makes no network; use 1 or more"),
        ({"image_size": None}, "image_size=None makes no network"),
        ({"classes": 0}, "classes=0 makes no network"),
        ({"channel_mult": (1,)}, "must name two levels or more"),
        ({"attention": (4,)}, "names 4, but its blocks end at factors 1, 2; use those"),
    ],
)
def test_generators_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        generator(**changes)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"depth": 0}, "depth=0 makes no network"),
        ({"attention": (1,)}, "names 1, but its blocks end at factors 2, 4"),
        ({"image_size": 4, "attention": (4,)}, "has one position to look at; use a smaller factor"),
    ],
)
def test_discriminators_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        judge(**changes)


def test_a_class_too_many_or_too_few_is_refused():
    z, x = torch.randn(1, SMALL.latent), torch.randn(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"told a class; give label, \(B,\) of 0..2"):
        generator()(z)
    with pytest.raises(ValueError, match="has no classes; leave label out"):
        generator(classes=None)(z, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"told a class; give label, \(B,\) of 0..2"):
        judge()(x)
    with pytest.raises(ValueError, match="z of 3 numbers given to a generator of 12"):
        generator()(z[:, :3], torch.tensor([0]))
