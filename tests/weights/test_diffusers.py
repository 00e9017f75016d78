"""Folders in diffusers' layout: written, read, equal to diffusers' own classes where those are installed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import unnoise
from tests.goldens import assert_close
from tests.networks.unets import randomised
from tests.weights.test_published import refusal
from unnoise.cli.convert import convert
from unnoise.config.model import ModelConfig, ScheduleConfig
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.denoiser import Denoiser
from unnoise.model import Model, load_model, make_schedule, save_model
from unnoise.networks.settings import DdpmUNetSettings, NetworkSettings, UNetSettings
from unnoise.presets import load_preset, preset_names
from unnoise.weights import diffusers
from unnoise.weights.diffusers_config import scheduler_options, unet_options

# 64 channels at least where the embedding is added: with one channel a group the norms would erase it.
DDPM = DdpmUNetSettings(
    in_channels=3, out_channels=3, width=64, depth=1, channel_mult=(1, 1, 2), attention=(2,)
)
ADM = UNetSettings(
    in_channels=3, out_channels=6, width=32, depth=1, channel_mult=(1, 2, 2), attention=(2,),
    head_channels=32, updown_blocks=True, classes=5,
)  # fmt: skip
NETWORKS: dict[str, NetworkSettings] = {
    "ddpm": DDPM,
    "ddpm with classes": dataclasses.replace(DDPM, classes=4, depth=2, attention=(1, 4)),
    "adm legacy": dataclasses.replace(ADM, head_channels=16),
    "adm new": dataclasses.replace(ADM, attention_order="new", head_channels=16, classes=None),
    "adm heads alike": dataclasses.replace(ADM, heads=2, head_channels=None, channel_mult=(1, 2, 2)),
    "improved": dataclasses.replace(
        ADM, width=64, heads=1, head_channels=None, updown_blocks=False, adagn=False, attention=(4,), depth=2
    ),
    "no attention but the middle": dataclasses.replace(ADM, attention=()),
    "convolutions and adagn": dataclasses.replace(ADM, updown_blocks=False, attention=(1, 2, 4)),
    "one level": dataclasses.replace(ADM, channel_mult=(1,), attention=(1,)),
}


def model_of(network: NetworkSettings, **changes: Any) -> Model:
    learned = network.out_channels == 2 * network.in_channels
    config = ModelConfig(
        network=network,
        image_size=8,
        channels=3,
        variance="learned_range" if learned else "fixed_large",
        schedule=ScheduleConfig(beta_start=1e-4, beta_end=0.02),
    )
    config = dataclasses.replace(config, **changes)
    built = randomised(network).eval().requires_grad_(False)
    denoiser = Denoiser(built, predicts=config.predicts, variance=config.variance)
    return Model(denoiser, make_schedule(config), config)


def inputs(model: Model) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 3, 8, 8, generator=generator)
    rows = model.config.network.classes
    return x, torch.tensor([0.0, 411.0, 999.0]), torch.tensor([0, 1, rows - 1]) if rows else None


def answer(model: Model) -> Tensor:
    x, t, label = inputs(model)
    return model.network(x, t, Condition(label=label))


@pytest.fixture(params=NETWORKS)
def model(request: pytest.FixtureRequest) -> Model:
    return model_of(NETWORKS[request.param])


def test_what_was_written_is_read_back(model: Model, tmp_path: Path) -> None:
    """Another head order may be read than was written: the function is the same."""
    diffusers.save(tmp_path / "there", model)
    back = load_model(tmp_path / "there")
    assert torch.allclose(answer(back), answer(model), atol=1e-6)
    assert torch.equal(back.schedule.betas, model.schedule.betas)
    same = {"variance", "predicts", "image_size", "channels", "low_res", "schedule"}
    assert all(getattr(back.config, name) == getattr(model.config, name) for name in same)
    assert type(back.config.network) is type(model.config.network)


def test_diffusers_own_classes_answer_the_same(model: Model, tmp_path: Path) -> None:
    peer = pytest.importorskip("diffusers")
    diffusers.save(tmp_path / "there", model)
    pipeline = peer.DDPMPipeline.from_pretrained(tmp_path / "there", low_cpu_mem_usage=False)
    x, t, label = inputs(model)
    with torch.no_grad():
        theirs = pipeline.unet(x, t, class_labels=label).sample
    assert_close(answer(model), theirs, 1e-5)
    scheduler = pipeline.scheduler.config
    assert scheduler.variance_type == model.config.variance and scheduler.prediction_type == "epsilon"
    assert_close(pipeline.scheduler.betas, model.schedule.betas, 1e-6)
    options = {name for name in pipeline.unet.config if not name.startswith("_")}
    assert options == set(diffusers.UNet2D.__dataclass_fields__)


def test_a_step_of_their_scheduler_is_ours(tmp_path: Path) -> None:
    """fixed_large and learned_range: the same distribution of x_{t-1}, by its mean and its noise."""
    peer = pytest.importorskip("diffusers")
    from unnoise.diffusion.noise import RecordedNoise
    from unnoise.diffusion.samplers import Ddpm
    from unnoise.diffusion.transforms import clip_x0
    from unnoise.diffusion.walk import run

    for network in (DDPM, dataclasses.replace(ADM, classes=None)):
        model = model_of(network)
        diffusers.save(tmp_path / network.kind, model)
        pipeline = peer.DDPMPipeline.from_pretrained(tmp_path / network.kind, low_cpu_mem_usage=False)
        x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        path = model.schedule.path(x)[:2]
        recorded = RecordedNoise({(step, 0): noise for step in range(-1, 3)})
        *_, ours = run(Ddpm(), clip_x0(model.denoiser), x, path, cond=Condition(), noise=recorded)
        with torch.no_grad():
            said = pipeline.unet(x, 999).sample
        theirs = pipeline.scheduler.step(said, 999, x, generator=torch.Generator().manual_seed(0)).prev_sample
        assert_close(ours.x, theirs, 1e-4)


THEIRS: dict[str, dict[str, Any]] = {
    "google/ddpm-cifar10-32": {
        "block_out_channels": [64, 64, 96],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"], "downsample_padding": 0,
        "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "attention_head_dim": None,
    },
    "what train_unconditional.py builds": {
        "block_out_channels": [64, 64, 128],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    },
    "ablated": {
        "block_out_channels": [32, 96], "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"], "downsample_type": "resnet",
        "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32,
        "num_class_embeds": 3, "layers_per_block": 1, "out_channels": 6, "attention_head_dim": 16,
        "time_embedding_dim": 128,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", THEIRS)
def test_what_diffusers_saved_is_read(name: str, tmp_path: Path) -> None:
    peer = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = peer.UNet2DModel(sample_size=8, **THEIRS[name]).eval()
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, 0.02, 0.1)
    learned = unet.config.out_channels == 6
    scheduler = peer.DDPMScheduler(variance_type="learned_range" if learned else "fixed_large")
    peer.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)
    model = unnoise.load(tmp_path)
    x, t, label = inputs(model)
    with torch.no_grad():
        theirs = unet(x, t, class_labels=label).sample
    assert_close(answer(model), theirs, 1e-5)
    assert model.sample(n=1, steps="2").pixels.shape == (1, 8, 8, 3)


def test_the_network_may_be_named_as_well_as_the_whole(tmp_path: Path) -> None:
    there = tmp_path / "there"
    diffusers.save(there, model_of(DDPM))
    wanted = load_model(there).config
    for name in ("unet/diffusion_pytorch_model.safetensors", "unet"):
        assert load_model(there / name).config == wanted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    diffusers.save(tmp_path / "there", model_of(DDPM))
    return tmp_path / "there"


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_flat_folder_with_the_old_names_is_read(folder: Path, tmp_path: Path) -> None:
    """As the first files of diffusers lie: no sub-folders, a pickle of weights, other names in attention."""
    flat = tmp_path / "flat"
    flat.mkdir()
    (folder / "unet" / "config.json").rename(flat / "config.json")
    (folder / "scheduler" / "scheduler_config.json").rename(flat / "scheduler_config.json")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    renamed = {}
    for key, value in state.items():
        for new, name in old.items():
            key = key.replace(f".{new}.", f".{name}.")
        renamed[key] = value.half()
    assert len(renamed) == len(state) and renamed.keys() != state.keys()
    torch.save(renamed, flat / "diffusion_pytorch_model.bin")
    model = load_model(flat)
    assert all(p.dtype == torch.float32 for p in model.network.parameters())
    assert (answer(model) - answer(model_of(DDPM))).abs().max() < 0.1


def _unet(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "unet" / "config.json", **changes)


def _scheduler(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "scheduler" / "scheduler_config.json", **changes)


def _cut(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _extra(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(file), "add_embedding.weight": torch.ones(2)}, file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_unet(_class_name="UNet2DConditionModel"), "describes a UNet2DConditionModel; only UNet2DModel"),
        (_unet(cross_attention_dim=3), "unknown setting cross_attention_dim"),
        (_unet(time_embedding_type="fourier"), "time_embedding_type = 'fourier'"),
        (_unet(add_attention=False), "add_attention"),
        (_unet(freq_shift=0), "freq_shift=0 is not that of DDPM's U-Net (1)"),
        (_unet(flip_sin_to_cos=True), "is not that of ADM's U-Net"),
        (_unet(attention_head_dim=8), "attention_head_dim=8 is not that of DDPM's U-Net"),
        (_unet(norm_num_groups=16), "norm_num_groups=16"),
        (_unet(mid_block_scale_factor=1.4), "mid_block_scale_factor=1.4"),
        (_unet(up_block_types=["UpBlock2D"] * 3), "attention on the way down and up differs"),
        (_unet(block_out_channels=[64, 64]), "must name the same levels"),
        (_unet(block_out_channels=[0, 64, 64]), "must be 1 or more"),
        (_unet(block_out_channels=[64, 64, 256]), "do not fit"),
        (_unet(sample_size=[8, 8]), "sample_size"),
        (_unet(sample_size=None), "sample_size=None"),
        (_unet(sample_size=10), "no multiple of 4"),
        (_scheduler(_class_name="ScoreSdeVeScheduler"), "only DDPMScheduler"),
        (_scheduler(beta_schedule="sigmoid"), "beta_schedule = 'sigmoid'"),
        (_scheduler(trained_betas=[0.1]), "trained_betas"),
        (_scheduler(prediction_type="flow"), "prediction_type = 'flow'"),
        (_scheduler(rescale_betas_zero_snr=True), "rescale_betas_zero_snr"),
        (_scheduler(shift=3), "unknown setting shift"),
        (_scheduler(variance_type="learned_range"), "out_channels=3 does not fit"),
        (lambda f: (f / "scheduler" / "scheduler_config.json").unlink(), "scheduler_config.json is missing"),
        (lambda f: (f / "unet" / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "unet" / "config.json").write_text("[]"), "holds no settings"),
        (lambda f: (f / "unet" / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "copy the whole folder"),
        (_cut, "is not a whole safetensors file"),
        (_extra, "1 weights of which config.json says nothing, such as add_embedding.weight"),
    ],
)
def test_folders_that_are_not_what_they_seem(folder: Path, spoil: Any, message: str) -> None:
    spoil(folder)
    assert message in refusal(load_model, folder)


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (dataclasses.replace(ADM, channel_mult=(0.5, 1, 2), width=64), {}, "first level has 32 channels"),
        (dataclasses.replace(ADM, heads=2, head_channels=None, attention=(1, 2)), {}, "2 heads have 16, 32"),
        (dataclasses.replace(ADM, heads=2, heads_up=4, head_channels=None), {}, "2 and 4 heads have 16, 32"),
        (dataclasses.replace(ADM, patch=2), {}, "patch=2"),
        (dataclasses.replace(ADM, rescale_residual=True), {}, "rescale_residual=true"),
        (dataclasses.replace(ADM, transformer_depth=1), {}, "transformer blocks"),
        (dataclasses.replace(ADM, updown_blocks=False, conv_resample=False), {}, "conv_resample=false"),
        (dataclasses.replace(ADM, width=16, head_channels=16), {}, "groups of several counts"),
        (ADM, {"low_res": 4}, "enlarges a small picture"),
        (ADM, {"schedule": ScheduleConfig(steps=4000, rescale_timesteps=True)}, "rescale_timesteps"),
        (ADM, {"schedule": ScheduleConfig(name="sqrt")}, "schedule sqrt"),
        (ADM, {"predicts": "mean"}, "predicts=mean"),
        (ADM, {"variance": "learned"}, "variance=learned"),
        (ADM, {"variance": "fixed_small", "v_posterior": 0.2}, "v_posterior=0.2"),
    ],
)
def test_what_diffusers_cannot_express_is_refused(
    network: UNetSettings, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    said = refusal(diffusers.save, tmp_path / "there", model_of(network, **changes))
    assert "cannot express this model" in said and message in said
    assert not list(tmp_path.iterdir())


def test_convert_goes_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, there, back = tmp_path / "ours.safetensors", tmp_path / "there", tmp_path / "back.safetensors"
    save_model(ours, model_of(ADM))
    convert(ours, there, to="diffusers")
    assert "class_labels" in capsys.readouterr().out
    convert(there, back)
    assert torch.allclose(answer(load_model(back)), answer(model_of(ADM)), atol=1e-6)
    assert "is one file of ours already" in refusal(convert, ours, tmp_path / "b.safetensors")
    (tmp_path / "text").write_text("model")
    assert "not a whole safetensors file" in refusal(convert, tmp_path / "text", tmp_path / "b.safetensors")
    assert "exists; name a new folder" in refusal(convert, ours, there, to="diffusers")
    assert "is a file; name a folder" in refusal(convert, ours, ours / "half.safetensors", dtype="float16")
    assert "use unnoise or diffusers" in refusal(convert, ours, tmp_path / "b", to="onnx")
    assert "says itself what it is" in refusal(load_model, there, preset="adm-64")


def test_sample_draws_from_a_folder(folder: Path, tmp_path: Path, program: Any) -> None:
    ours = tmp_path / "ours.safetensors"
    assert program("convert", folder, ours)[0] == 0
    for source, out in ((folder, "a"), (ours, "b")):
        assert program("sample", source, "-n", 1, "--steps", 2, "--out", tmp_path / out)[0] == 0
    pictures = [Image.open(tmp_path / out / "000000.png").tobytes() for out in "ab"]
    assert pictures[0] == pictures[1]
    edit(folder / "unet" / "config.json", add_attention=False)
    code, _, complaint = program("sample", folder, "--out", tmp_path / "c")
    assert code == 2 and complaint.count("\n") == 1 and "add_attention" in complaint


def test_which_published_models_can_be_written(tmp_path: Path) -> None:
    """As docs/published.md says."""
    written = []
    for name in preset_names():
        preset = load_preset(name)
        if not preset.weights or preset.config.kind != "diffusion" or preset.expect.first_stage:
            continue
        config = preset.published().model
        try:
            scheduler_options(config)
            unet_options(config.network, config.image_size)
        except ValueError:
            continue
        written.append(name)
    assert written == [
        *("adm-64", "adm-256", "adm-256-uncond"),
        *("adm-lsun-bedroom", "adm-lsun-cat", "adm-lsun-horse", "adm-lsun-horse-nodropout"),
        *("ddpm-cifar10", "ddpm-lsun-bedroom", "ddpm-lsun-church", "ddpm-lsun-cat", "ddpm-celebahq-256"),
        *("ddim-celeba-64", "iddpm-lsun-bedroom", "iddpm-lsun-bedroom-slow"),
    ]
