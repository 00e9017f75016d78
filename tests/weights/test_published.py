"""Published .pt and .ckpt files: recognised, loaded, converted; hostile and broken ones refused unread."""

import contextlib
import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import unnoise
from unnoise.config.load import to_yaml
from unnoise.diffusion.condition import Condition
from unnoise.model import Model, build_model, load_model
from unnoise.networks.build import build_network
from unnoise.networks.encoder_unet import EncoderUNet
from unnoise.noisy_classifier import load_noisy_classifier
from unnoise.presets import Preset, latent_presets, load_preset, preset_names
from unnoise.weights import published


def network_of(name: str) -> nn.Module:
    config = load_preset(name).published()
    if config.noisy_classifier is not None:
        return EncoderUNet(config.noisy_classifier.network)
    return build_network(config.model.network)


def is_of_latents(preset: Preset) -> bool:
    return preset.config.kind == "autoencoder" or preset.name in latent_presets()


def random_state(name: str) -> dict[str, Tensor]:
    """Weights of a preset's network, all random."""
    generator = torch.Generator().manual_seed(0)
    state = network_of(name).state_dict()
    return {
        key: torch.randn(value.shape, generator=generator) * max(1, value[0].numel()) ** -0.5
        for key, value in state.items()
    }


def saved(path: Path, name: str) -> dict[str, Tensor]:
    state = random_state(name)
    torch.save(state, path)
    return state


def refusal(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message
    return message


def test_a_file_is_recognised_by_its_name_where_shapes_cannot_tell(tmp_path: Path) -> None:
    for name, order in (("adm-tiny", "legacy"), ("adm-tiny-new", "new")):
        state = saved(tmp_path / f"{name}.pt", name)
        model = unnoise.load(tmp_path / f"{name}.pt")
        assert model.config == load_preset(name).published().model
        assert model.config.network.attention_order == order
        assert model.info.preset == name and model.info.licence == "MIT"
        assert {k: v.tolist() for k, v in model.network.state_dict().items()} == {
            k: v.tolist() for k, v in state.items()
        }


def test_a_name_that_says_nothing_needs_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "ema_0.9999_500000.pt"
    saved(path, "adm-tiny")
    message = refusal(load_model, path)
    assert "--preset" in message and "adm-tiny, adm-tiny-new" in message
    x, t, cond = torch.randn(1, 3, 16, 16), torch.tensor([7.0]), Condition(label=torch.tensor([3]))
    outputs = []
    for name in ("adm-tiny", "adm-tiny-new"):
        model = load_model(path, preset=name)
        assert model.info.preset == name
        outputs.append(model.network(x, t, cond))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3, "head orders compute different things"


PUBLISHED = [
    name for name in preset_names() if load_preset(name).weights and not is_of_latents(load_preset(name))
]
"""First stages, and models of their latents, are files of another family."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_layout_is_recognised(name: str) -> None:
    with torch.device("meta"):
        state = network_of(name).state_dict()
    preset = load_preset(name)
    names = [f"ema_diffusion_{file}" for file in preset.files] or [preset.weights.rpartition("/")[2]]
    config, info = published.recognise(state, Path("models") / names[0])
    assert info.preset == name and config == preset.published()
    # Under any other name it is one of those that compute the same.
    config, info = published.recognise(state, Path("renamed.pt"))
    assert info.preset in (name, "")
    assert config.noisy_classifier == preset.published().noisy_classifier
    assert config.model.schedule == preset.published().model.schedule


@pytest.mark.parametrize("averaged", [True, False])
def test_a_checkpoint_of_ddims_code_gives_its_average(tmp_path: Path, averaged: bool) -> None:
    """[network, optimiser, epoch, step, average]: the network's keys as nn.DataParallel has them."""
    average, network = random_state("ddpm-tiny"), random_state("ddpm-tiny")
    network = {f"module.{key}": value + 1 for key, value in network.items()}
    moments = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save([network, moments, 7, 500, *([average] if averaged else [])], tmp_path / "ckpt.pth")
    model = load_model(tmp_path / "ckpt.pth", preset="ddpm-tiny")
    assert torch.equal(model.network.conv_out.bias, average["conv_out.bias"] + (not averaged))
    assert model.sample(n=1, steps="2").pixels.shape == (1, 16, 16, 3)


def test_the_converted_files_of_ddpm_are_told_apart_by_name_in_name_alone() -> None:
    """All networks of 256 pixels compute the same function of their weights, so nobody is asked."""
    with torch.device("meta"):
        state = network_of("ddpm-lsun-cat").state_dict()
    named = {
        "model-1761000.ckpt": "ddpm-lsun-cat",
        "diffusion_lsun_church_model-4432000.ckpt": "ddpm-lsun-church",
    }
    for file, preset in (named | {"any.ckpt": ""}).items():
        config, info = published.recognise(state, Path("ema_diffusion_lsun_cat_model") / file)
        assert info.preset == preset
        assert (config.model.variance, config.model.schedule.name) == ("fixed_small", "linear")


def test_an_architecture_of_ones_own_is_described_by_a_yaml_file(tmp_path: Path) -> None:
    config = load_preset("adm-tiny", ["model.network.channel_mult=[1, 1]"]).config
    (tmp_path / "own.yaml").write_text(to_yaml(config))
    from unnoise.config.resolve import resolve

    model = build_model(resolve(config, size=16, channels=1, classes=4).model)
    torch.save(model.network.state_dict(), tmp_path / "own.pt")
    assert "fit no published model" in refusal(load_model, tmp_path / "own.pt")
    loaded = load_model(tmp_path / "own.pt", preset=str(tmp_path / "own.yaml"))
    assert loaded.config == model.config and loaded.config.channels == 1
    assert "do not fit" in refusal(load_model, tmp_path / "own.pt", preset="adm-tiny")
    assert "unknown preset adm-tini" in refusal(load_model, tmp_path / "own.pt", preset="adm-tini")
    complaint = refusal(load_model, tmp_path / "own.pt", preset="ldm-ffhq-256")
    assert "is no checkpoint of latent-diffusion, as --preset ldm-ffhq-256 says" in complaint


def test_a_noisy_classifier_is_one(tmp_path: Path) -> None:
    path = tmp_path / "adm-classifier-tiny.pt"
    state = saved(path, "adm-classifier-tiny")
    classifier = load_noisy_classifier(path)
    assert torch.equal(classifier.network.out[2].c_proj.bias, state["out.2.c_proj.bias"])
    assert classifier.schedule.steps == 1000
    assert "cannot draw" in refusal(load_model, path)
    named = load_noisy_classifier(path, preset="adm-classifier-tiny")
    assert named.config == classifier.config
    saved(tmp_path / "adm-tiny.pt", "adm-tiny")
    assert "is a diffusion model" in refusal(load_noisy_classifier, tmp_path / "adm-tiny.pt")


class Touch:
    """Unpickled, it leaves a file: what a hostile checkpoint could do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form", ["zip", "legacy", 2, 4])
def test_code_inside_is_refused_and_not_run(tmp_path: Path, form: str | int) -> None:
    path, mark = tmp_path / "256x256_diffusion.pt", tmp_path / "ran"
    content = {"time_embed.0.weight": torch.ones(2, 2), "more": Touch(mark)}
    if isinstance(form, int):
        path.write_bytes(pickle.dumps(Touch(mark), protocol=form))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    message = refusal(load_model, path)
    assert "nothing in it was run" in message and ("system" in message or form == 4)
    assert not mark.exists()
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert mark.exists(), "the test would notice"


def test_a_zip_of_other_things_is_said_to_be_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "packed.pt", "w") as file:
        file.writestr("model.safetensors", b"weights")
    assert "packed.pt is a zip without torch's weights" in refusal(load_model, tmp_path / "packed.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_anywhere_is_one_line(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "adm-tiny.pt"
    torch.save(random_state("adm-tiny"), path, _use_new_zipfile_serialization=not legacy)
    assert load_model(path).info.preset == "adm-tiny"
    whole = path.read_bytes()
    for length in (0, 1, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "download or copy it again" in refusal(load_model, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no weights"),
        ([torch.ones(1)], "holds no weights"),
        ([torch.ones(1)] * 5, "holds no weights"),
        ([{}, {}, 1, 2, {"a": 3}], "more than weights ('a')"),
        ({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, "fit no published model"),
        ({"state_dict": [1], "epoch": 3}, "more than weights ('state_dict')"),
        ({"a": torch.ones(1), "steps": torch.tensor(3)}, "more than weights ('steps')"),
        ({"a": torch.ones(3)}, "fit no published model"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert message in refusal(load_model, tmp_path / "a.pt")


def test_sample_and_convert_on_the_command_line(tmp_path: Path, program: Any) -> None:
    path, ours = tmp_path / "adm-tiny.pt", tmp_path / "ours.safetensors"
    saved(path, "adm-tiny")
    draw = ("-n", 2, "--steps", 2, "--precision", "float32", "--label", 3)
    assert program("sample", path, *draw, "--out", tmp_path / "a")[0] == 0
    code, said, _ = program("convert", path, ours)
    assert code == 0 and "preset adm-tiny" in said
    model = load_model(ours)
    assert isinstance(model, Model) and model.info.preset == "adm-tiny"
    assert program("sample", ours, *draw, "--out", tmp_path / "b")[0] == 0
    for k in range(2):
        a, b = (Image.open(tmp_path / folder / f"{k:06d}.png").tobytes() for folder in "ab")
        assert a == b
    path = path.rename(tmp_path / "any.pt")
    for command in (("sample", path, "--out", tmp_path / "c"), ("convert", path, tmp_path / "d.safetensors")):
        code, _, complaint = program(*command)
        assert code == 2 and complaint.count("\n") == 1 and "--preset" in complaint
    named = ("--preset", "adm-tiny", "--out", tmp_path / "d")
    assert program("sample", path, *draw, *named)[0] == 0
    assert (tmp_path / "d" / "000000.png").exists()
    code, _, complaint = program("sample", path, *draw, "--preset", "adm-tiny-new", "--out", tmp_path / "d")
    assert code == 2 and "holds another request" in complaint


@pytest.mark.parametrize("answer", ["adm-tiny-new", ""])
def test_a_terminal_is_asked(
    tmp_path: Path, program: Any, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    saved(tmp_path / "any.pt", "adm-tiny")
    keyboard, screen = io.StringIO(answer + "\n"), io.StringIO()
    for stream in (keyboard, screen):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", keyboard)
    monkeypatch.setattr(sys, "stderr", screen)
    code, said, _ = program("convert", tmp_path / "any.pt", tmp_path / "a.safetensors")
    assert code == 0 and f"preset {answer or 'adm-tiny'}" in said
    assert "adm-tiny, adm-tiny-new" in screen.getvalue()


def test_an_upsampler_does_not_draw_alone(tmp_path: Path) -> None:
    saved(tmp_path / "adm-up-tiny.pt", "adm-up-tiny")
    model = load_model(tmp_path / "adm-up-tiny.pt")
    assert "upsampler" in refusal(model.sample, n=1)
    x, low = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 8, 8)
    cond = Condition(label=torch.tensor([1]), concat=low)
    assert model.network(x, torch.zeros(1), cond).shape == (1, 6, 16, 16)


def test_convert_keeps_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unnoise.cli.convert import convert

    path, ours = tmp_path / "adm-classifier-tiny.pt", tmp_path / "c.safetensors"
    state = saved(path, "adm-classifier-tiny")
    convert(path, ours)
    classifier = load_noisy_classifier(ours)
    assert all(torch.equal(value, state[key]) for key, value in classifier.network.state_dict().items())
    assert "cannot draw" in refusal(load_model, ours)
    assert "exists" in refusal(convert, path, ours)
    assert "is one file of ours already" in refusal(convert, ours, tmp_path / "d.safetensors")
    assert "call it" in refusal(convert, path, tmp_path / "d.ckpt")
    assert "says itself what it is" in refusal(load_noisy_classifier, ours, preset="adm-64")


MEASURE = """
import gc
from pathlib import Path
import torch
torch.set_num_threads(1)
import unnoise
from unnoise.cli import main
from unnoise.cli.convert import convert
from tests.weights.test_published import peak
model = unnoise.load({tiny!r}, preset="iddpm-tiny")
options = dict(n=1, steps="2", precision="float32")
model.sample(**options)
before = peak()
model = unnoise.load({path!r})
assert model.info.preset == "iddpm-cifar10"
model.sample(**options)
loaded = peak() - before
del model  # and its mapping of the file
gc.collect()
convert(Path({path!r}), Path({out!r}), preset="")
print(loaded, peak() - before)
"""


def peak() -> int:
    """Most bytes that this process ever held in memory, mapped files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_loading_and_converting_hold_little_more_than_the_file(tmp_path: Path) -> None:
    """52 M parameters, laid out as OpenAI's file; two steps are drawn: at most 1.3 times the file."""
    path, tiny = tmp_path / "cifar10_uncond_50M_500K.pt", tmp_path / "iddpm-tiny.pt"
    saved(tiny, "iddpm-tiny")
    torch.save(network_of("iddpm-cifar10").state_dict(), path)
    code = MEASURE.format(tiny=str(tiny), path=str(path), out=str(tmp_path / "out.safetensors"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    size = path.stat().st_size
    for held in map(int, done.stdout.splitlines()[-1].split()):
        assert held <= 1.3 * size, f"{held / size:.2f} of the file"
