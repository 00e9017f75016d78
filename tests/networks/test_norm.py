"""The compiled group norm against PyTorch's, in float64 where it matters, and what happens without it."""

import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unnoise.networks import norm as norms
from unnoise.networks.autoencoder import build_first_stage
from unnoise.networks.first_stage_settings import KlSettings, VqSettings
from unnoise.networks.kernels import build
from unnoise.networks.kernels.group_norm import is_available, is_usable
from unnoise.networks.norm import GroupNorm, best_layout, group_count, norm_silu, regroup
from unnoise.networks.settings import UNetSettings
from unnoise.networks.unet import UNet

compiled = pytest.mark.skipif(not is_available(), reason="no C compiler here")


def random_norm(channels: int) -> GroupNorm:
    norm = GroupNorm(channels)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    return norm


def exact(norm: GroupNorm, x, scale=None, shift=None, *, silu: bool):
    """The definition, in float64."""
    y = torch.group_norm(x.double(), norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps)
    if scale is not None:
        y = y * (1 + scale.double()[:, :, None, None]) + shift.double()[:, :, None, None]
    return F.silu(y) if silu else y


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


@compiled
@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3),
    st.sampled_from([4, 16, 32, 48, 64, 96, 160]),
    st.integers(1, 9),
    st.integers(1, 20),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 2, 5]),
)
def test_values_and_gradients(b, c, h, w, modulated, silu, threads):
    torch.manual_seed(0)
    norm = random_norm(c)
    x = channels_last(torch.randn(b, c, h, w) + torch.randn(c, 1, 1)).requires_grad_()
    more = [torch.randn(b, c, requires_grad=True) for _ in range(2)] if modulated and silu else []
    assert is_usable(x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = norm_silu(norm, x, *more) if silu else norm(x)
        truth = exact(norm, x, *more, silu=silu)
        dy = torch.randn_like(y)
        inputs = (x, norm.weight, norm.bias, *more)
        grads = torch.autograd.grad(y, inputs, dy)
    finally:
        torch.set_num_threads(before)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(y.double(), truth, rtol=1e-5, atol=2e-5)
    for ours, theirs in zip(grads, torch.autograd.grad(truth, inputs, dy.double()), strict=True):
        assert torch.allclose(
            ours.double(), theirs.double(), rtol=1e-4, atol=1e-5 * theirs.abs().max().item() + 1e-4
        )


@compiled
def test_bfloat16_rounds_once():
    torch.manual_seed(0)
    norm = random_norm(64)
    x = channels_last(torch.randn(2, 64, 16, 16).bfloat16()).requires_grad_()
    scale, shift = torch.randn(2, 2, 64)
    y = norm_silu(norm, x, scale, shift)
    assert y.dtype == torch.bfloat16
    truth = exact(norm, x, scale, shift, silu=True)
    assert ((y - truth).abs() <= 2**-8 * truth.abs() + 1e-6).all()
    dy = torch.randn_like(y)
    (ours,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    (theirs,) = torch.autograd.grad(truth, x, dy.double())
    assert (ours - theirs).abs().max() <= 2**-8 * theirs.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("offset", [1.0, 100.0, 10_000.0])
def test_a_mean_far_above_the_spread_costs_no_more_than_rounding(layout, offset):
    # PyTorch's own channels-last norm is off by 1e-2 at 100 and meaningless at 10,000.
    torch.manual_seed(0)
    norm = random_norm(64)
    x = (torch.randn(2, 64, 12, 12) + offset).contiguous(memory_format=layout)
    error = (norm_silu(norm, x) - exact(norm, x, silu=True)).abs().max().item()
    assert error < 2e-5 + 3e-6 * offset


@compiled
def test_the_same_bits_from_any_number_of_threads():
    torch.manual_seed(0)
    norm, x = random_norm(128), channels_last(torch.randn(1, 128, 17, 19))
    before, answers = torch.get_num_threads(), []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        answers.append(norm_silu(norm, x))
    torch.set_num_threads(before)
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[0], answers[2])


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(dtype, bad):
    norm, x = random_norm(64), torch.randn(2, 64, 4, 4)
    x[1, 3, 2, 2] = bad
    y = norm_silu(norm, channels_last(x.to(dtype)))
    assert torch.isfinite(y[0]).all()
    assert y[1, 2:4].isnan().all()  # the group of channel 3


@compiled
def test_saturates_without_overflow():
    norm = GroupNorm(64)
    torch.nn.init.constant_(norm.weight, 1e4)
    x = channels_last(torch.randn(1, 64, 8, 8)).requires_grad_()
    y = norm_silu(norm, x)
    y.sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(x.grad).all()
    assert torch.allclose(y.double(), exact(norm, x, silu=True), rtol=1e-5, atol=0.02)


def test_torch_operator_tests_pass():
    if not is_available():
        pytest.skip("no C compiler here")
    from unnoise.networks.kernels.group_norm import group_norm_silu

    x = channels_last(torch.randn(2, 8, 3, 3)).requires_grad_()
    weight, bias = torch.randn(2, 2, 8, requires_grad=True)
    torch.library.opcheck(
        group_norm_silu,
        (x, weight, bias, 4, 1e-5, True),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def test_group_count_is_32_or_leaves_four_channels():
    assert [group_count(c) for c in (32, 64, 192, 2048)] == [32] * 4
    assert {c: group_count(c) for c in (1, 4, 8, 16, 24, 37, 48, 50, 112, 144)} == {
        1: 1, 4: 1, 8: 2, 16: 4, 24: 6, 37: 1, 48: 12, 50: 10, 112: 28, 144: 24,
    }  # fmt: skip
    assert all(c % group_count(c) == 0 for c in range(1, 300))


def test_without_the_library_the_answers_are_the_same(monkeypatch):
    torch.manual_seed(0)
    norm, x = random_norm(64), channels_last(torch.randn(2, 64, 8, 8))
    scale, shift = torch.randn(2, 2, 64)
    ours = norm_silu(norm, x, scale, shift), norm(x)
    monkeypatch.setattr(norms, "is_usable", lambda x: False)
    monkeypatch.setattr(norms, "takes", lambda device, dtype: False)
    assert best_layout(x) == torch.contiguous_format
    for one, other in zip(ours, (norm_silu(norm, x, scale, shift), norm(x)), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_the_switch_and_a_missing_compiler_leave_no_library(monkeypatch):
    for name, value in (("UNNOISE_KERNELS", "off"), ("CC", "no-such-compiler")):
        with monkeypatch.context() as m:
            m.setenv(name, value)
            build.library.cache_clear()
            assert build.library() is None
    build.library.cache_clear()


def test_a_compiler_that_fails_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", shutil.which("false"))
    build.library.cache_clear()
    try:
        assert build.library() is None
    finally:
        build.library.cache_clear()


@compiled
def test_a_folder_that_others_may_write_is_not_trusted(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "unnoise" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    build.library.cache_clear()
    try:
        assert build.library() is None
        folder.chmod(0o700)
        build.library.cache_clear()
        assert build.library() is not None
        assert [p.suffix for p in folder.iterdir()] == [".so"]
    finally:
        build.library.cache_clear()


@compiled
@pytest.mark.slow
def test_two_processes_compile_at_once(tmp_path):
    code = "from unnoise.networks.kernels.build import library; assert library()"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    runs = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]


@given(st.integers(1, 400), st.integers(1, 40))
def test_groups_have_the_channels_asked_for(channels, least):
    """As many groups as that allows, 32 at most; one where there are too few channels for two."""
    groups = group_count(channels, least)
    fitting = [n for n in range(1, 33) if channels % n == 0 and channels // n >= least]
    assert groups == max(fitting, default=1)


def test_wide_groups_keep_how_strong_a_colour_is():
    """Of channels that tell colours apart by their size alone; a channel a group makes them equal."""
    torch.manual_seed(0)
    place = torch.rand(1, 1, 8, 8)
    green, brown = (place * (1 + 2 * torch.rand(1, 32, 1, 1)) for _ in range(2))
    norm = GroupNorm(32)
    assert torch.allclose(norm(green), norm(brown), atol=1e-2)
    before = norm.state_dict()
    regroup(nn.Sequential(norm), None)
    assert norm.num_groups == 32
    regroup(nn.Sequential(norm), 8)
    assert norm.num_groups == 4 and norm.state_dict().keys() == before.keys()
    assert (norm(green) - norm(brown)).abs().mean() > 0.1


@pytest.mark.parametrize(
    "build",
    [
        lambda channels: UNet(UNetSettings(in_channels=3, out_channels=3, width=32, norm_channels=channels)),
        lambda channels: build_first_stage(KlSettings(in_channels=3, width=32, norm_channels=channels)),
        lambda channels: build_first_stage(VqSettings(in_channels=3, width=32, norm_channels=channels)),
    ],
)
def test_networks_take_their_groups_from_the_settings(build):
    def least(network):
        return min(n.num_channels // n.num_groups for n in network.modules() if isinstance(n, GroupNorm))

    assert least(build(None)) == 1 and least(build(8)) == 8
    with pytest.raises(ValueError, match="norm_channels=0 makes no groups"):
        build(0)
