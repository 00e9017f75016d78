"""A run as its owner sees it: stopped, continued, changed, refused."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.tiny import SETTINGS, assert_same_run, changed, tiny_config, tiny_data, tiny_run, weights
from unnoise.config.load import from_dict, merge, read_config
from unnoise.config.schema import ClassifierConfig, TrainConfig
from unnoise.model import load_model
from unnoise.train import checkpoint, start, train
from unnoise.train.diffusion import DiffusionJob
from unnoise.train.events import Measured, Note, Sampled, Saved, Started, StepDone

MAP = {"what": "map", "encoder": {"kind": "spatial"}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps that nothing disturbed."""
    out = tmp_path_factory.mktemp("finished")
    tiny_run(out)
    return out


class Stop(BaseException):
    """Not an Exception, so that nothing on the way can take it for one of its own."""


def stop_at(step: int) -> Any:
    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == step:
            raise Stop

    return listen


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def learned(run: Path) -> list[dict[str, Any]]:
    """The log without clocks and memory."""
    clocks = ("seconds", "images_per_second", "memory")
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines(run)]


def test_a_run_leaves_what_the_design_says(tmp_path: Path) -> None:
    result, events = tiny_run(tmp_path, tiny_config(sample_every=6, label_dropout=0.3))
    assert result.steps == 12 and result.stopped is None and result.exit_status == 0
    assert result.model_path == tmp_path / "model.safetensors"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *("config.yaml", "checkpoints", "metrics.jsonl", "tensorboard", "samples", "lock"),
        *("model.safetensors", "model-ema-0.5.safetensors"),
    }
    assert [p.name for p in sorted((tmp_path / "samples").iterdir())] == [
        f"step-{step:08d}.png" for step in (1, 2, 4, 6, 8, 12)
    ]
    assert [e.step for e in events if isinstance(e, Saved)] == [4, 8, 12]
    assert [e.step for e in events if isinstance(e, Sampled)] == [1, 2, 4, 6, 8, 12]
    assert [e.step for e in events if isinstance(e, StepDone)] == list(range(1, 13))
    assert sum(isinstance(e, Started) for e in events) == 1
    assert [line["step"] for line in lines(tmp_path)] == [3, 6, 9, 12]
    wanted = {"loss", "loss/mse", "loss/vlb", "grad_norm", "lr", "skipped", "images_per_second", "memory"}
    assert all(wanted <= line.keys() for line in lines(tmp_path))
    assert any(f"loss/q{q}" in line for q in range(4) for line in lines(tmp_path))
    model = load_model(tmp_path)
    assert model.info.step == 12 and model.info.ema_rate == 0.9 and model.classes == ("a", "b", "c")
    averages = weights(tmp_path), weights(tmp_path, "model-ema-0.5.safetensors")
    assert any(not torch.equal(averages[0][k], averages[1][k]) for k in averages[0])


def test_the_stored_settings_are_complete(finished: Path) -> None:
    stored = read_config(TrainConfig, finished / "config.yaml")
    assert stored.model.image_size == 8 and stored.model.network.classes == 4
    assert stored.precision == "float32" and stored.compile == "off" and stored.micro_batch == 3


@pytest.mark.parametrize("step", [1, 5, 8, 11])
def test_a_run_cut_off_anywhere_ends_in_the_same_bits(tmp_path: Path, finished: Path, step: int) -> None:
    with pytest.raises(Stop):
        tiny_run(tmp_path, on_event=stop_at(step))
    _, events = tiny_run(tmp_path)
    started = next(e for e in events if isinstance(e, Started))
    assert started.step == (step - 1) // 4 * 4
    assert_same_run(tmp_path, finished)
    assert learned(tmp_path) == learned(finished)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_learns_and_continues_to_the_bit(tmp_path: Path, precision: str) -> None:
    config = tiny_config(precision=precision, steps=8)
    with pytest.raises(Stop):
        tiny_run(tmp_path / "cut", config, on_event=stop_at(6))
    tiny_run(tmp_path / "cut", config)
    tiny_run(tmp_path / "whole", config)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert learned(tmp_path / "cut") == learned(tmp_path / "whole")
    assert ("loss_scale" in lines(tmp_path / "whole")[0]) == (precision == "float16")
    assert all(
        torch.isfinite(w).all() and w.dtype == torch.float32 for w in weights(tmp_path / "cut").values()
    )


def test_a_finished_run_does_nothing_but_mend_its_model_file(tmp_path: Path, finished: Path) -> None:
    tiny_run(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    result, events = tiny_run(tmp_path)
    assert not any(isinstance(e, StepDone | Measured) for e in events)
    assert result.steps == 12
    assert_same_run(tmp_path, finished)


def test_the_same_settings_repeat_and_another_seed_does_not(tmp_path: Path, finished: Path) -> None:
    tiny_run(tmp_path / "again")
    assert_same_run(tmp_path / "again", finished)
    tiny_run(tmp_path / "other", tiny_config(seed=1))
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "other", finished)


def test_callers_randomness_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    tiny_run(tmp_path, tiny_config(steps=2))
    assert torch.equal(torch.rand(4), expected)


def test_checkpoints_kept(tmp_path: Path) -> None:
    tiny_run(tmp_path, tiny_config(save_every=2, keep_last=2, milestones=[3, 99]))
    paths = checkpoint.listed(tmp_path / "checkpoints")
    scores = {p: checkpoint.load(p).score for p in paths}
    steps = {checkpoint.load(p).step for p in paths}
    assert {3, 10, 12} <= steps and len(steps) <= 4
    assert all(score is not None for score in scores.values())


@pytest.mark.parametrize(
    "change, named",
    [
        ({"optimizer": {"lr": 0.002}}, "optimizer.lr: 0.001 -> 0.002"),
        ({"batch_size": 4}, "batch_size: 8 -> 4"),
        ({"ema": {"rates": [0.9]}}, r"ema.rates: \[0.9, 0.5\] -> \[0.9\]"),
        ({"steps": 20}, "steps: 12 -> 20"),  # cosine: the rate of every step would change
        ({"seed": 9}, "seed: 0 -> 9"),
    ],
)
def test_changed_settings_are_refused_by_name(finished: Path, change: dict[str, Any], named: str) -> None:
    before = (finished / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=f"was started with other settings: {named}; go back to those"):
        tiny_run(finished, tiny_config(**change))
    assert (finished / "config.yaml").read_bytes() == before


def test_some_settings_may_change(tmp_path: Path) -> None:
    config = tiny_config(optimizer={"decay": "none"})
    tiny_run(tmp_path / "long", config)
    tiny_run(tmp_path / "longer", changed(config, steps=6))
    more = changed(config, log_every=1, save_every=5, keep_last=7, sample_every=12, micro_batch=None)
    tiny_run(tmp_path / "longer", more)
    assert_same_run(tmp_path / "longer", tmp_path / "long")
    assert read_config(TrainConfig, tmp_path / "longer" / "config.yaml").steps == 12
    with pytest.raises(ValueError, match="steps: 12 -> 6"):
        tiny_run(tmp_path / "longer", changed(config, steps=6))


def test_open_settings_are_as_they_were(tmp_path: Path) -> None:
    config = tiny_config(compile="auto", precision="auto", micro_batch=None, steps=4)
    tiny_run(tmp_path, config)
    stored = read_config(TrainConfig, tmp_path / "config.yaml")
    assert stored.compile == "off" and stored.precision != "auto" and stored.micro_batch == 8
    result, _ = tiny_run(tmp_path, config)
    assert result.steps == 4
    tiny_run(tmp_path / "plain", tiny_config(precision="float32", steps=4))
    tiny_run(tmp_path / "plain", tiny_config(precision="auto", steps=4))  # whatever auto means by now


def test_other_pictures_are_refused(tmp_path: Path) -> None:
    tiny_run(tmp_path, tiny_config(steps=4))
    with pytest.raises(ValueError, match="the pictures have changed since the last checkpoint"):
        tiny_run(tmp_path, tiny_config(steps=4), dataset=tiny_data(shift=1))


@pytest.mark.parametrize(
    "text, said",
    [
        ("format: 99\nsteps: 3\n", "written by a newer unnoise"),
        ("steps: 3\nwarp: 9\n", "unknown setting warp"),
        ("steps: [", "cannot be read as YAML"),
    ],
)
def test_settings_from_the_future_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        tiny_run(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == text


def test_checkpoints_without_settings_are_refused(tmp_path: Path) -> None:
    tiny_run(tmp_path, tiny_config(steps=4))
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ValueError, match="holds checkpoints but no config.yaml"):
        tiny_run(tmp_path, tiny_config(steps=4))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model-ema-0.5.safetensors", "metrics.jsonl", "samples/mine.png"]
)
def test_a_new_run_replaces_no_file(tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(ValueError, match=f"holds {Path(name).parts[0]} but no config.yaml, and a new run"):
        tiny_run(tmp_path, tiny_config(steps=1))
    assert mine.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


def test_a_folder_with_other_files_takes_a_new_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    tiny_run(tmp_path, tiny_config(steps=1))
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "model.safetensors").exists()


def test_a_finished_run_without_checkpoints_is_not_begun_again(tmp_path: Path) -> None:
    tiny_run(tmp_path, tiny_config(steps=1))
    model = (tmp_path / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(ValueError, match="holds model.safetensors but no checkpoint to go on from"):
        tiny_run(tmp_path, tiny_config(steps=1))
    assert (tmp_path / "model.safetensors").read_bytes() == model


@pytest.mark.parametrize("inside", [".", "runs/first"])
@pytest.mark.parametrize("setting", ["data", "validation"])
def test_a_run_inside_its_pictures_is_refused(tmp_path: Path, inside: str, setting: str) -> None:
    config = tiny_config(data={"source": str(tmp_path)})
    if setting == "validation":
        config = TrainConfig(kind="classifier", classifier=ClassifierConfig(validation=str(tmp_path)))
    with pytest.raises(ValueError, match="is inside the data .*; name a folder elsewhere"):
        tiny_run(tmp_path / inside, config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("before", [None, "empty", "notes.txt"])
def test_a_refused_run_leaves_no_trace(tmp_path: Path, before: str | None) -> None:
    out = tmp_path / "new" / "run"
    if before:
        out.mkdir(parents=True)
    if before == "notes.txt":
        (out / before).write_text("mine")
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="none does not exist"):
        train(tiny_config(data={"source": str(tmp_path / "none")}), out)
    assert sorted(tmp_path.rglob("*")) == there


def test_a_full_disk_costs_the_steps_since_the_last_checkpoint(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint._write_tensors

    def full(path: Path, tensors: Any) -> Any:
        if "00000008" in str(path) and path.name.startswith("optimizer"):
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, tensors)

    monkeypatch.setattr(checkpoint, "_write_tensors", full)
    with pytest.raises(
        OSError, match="No space left on device while writing the checkpoint of step 8"
    ) as caught:
        tiny_run(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000004"]
    monkeypatch.undo()
    tiny_run(tmp_path)
    assert_same_run(tmp_path, finished)


def test_a_grid_that_overflows_does_not_stop_the_run(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_: Any, **__: Any) -> Any:
        raise FloatingPointError("not a number in picture 3")

    monkeypatch.setattr(DiffusionJob, "sample", overflow)
    result, events = tiny_run(tmp_path, tiny_config(sample_every=12))
    assert result.steps == 12 and result.stopped is None
    notes = [e.text for e in events if isinstance(e, Note)]
    assert notes[0] == "no grid after step 1: not a number in picture 3"
    assert_same_run(tmp_path, finished)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    seen = []

    def another(event: Any) -> None:
        if isinstance(event, StepDone) and not seen:
            with pytest.raises(ValueError, match="is being written by process") as caught:
                tiny_run(tmp_path)
            seen.append(str(caught.value))

    tiny_run(tmp_path, tiny_config(steps=2), on_event=another)
    assert "name another --out" in seen[0]


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ValueError, match="x is a file; name a folder"):
        tiny_run(tmp_path / "x")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"steps": 0}, "steps=0 is not possible; use 1 to"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"keep_last": 0}, "keep_last=0"),
        ({"label_dropout": 1.0}, "label_dropout=1.0"),
        ({"ema": {"rates": [0.9, 0.9]}}, "ema.rates=.*once"),
        ({"ema": {"rates": [1.0]}}, "ema.rates"),
        ({"optimizer": {"lr": 0.0}}, "optimizer.lr=0.0"),
        ({"minutes": -1.0}, "minutes=-1.0"),
        ({"sample_every": 2, "sample_steps": 21}, "sample_steps=21 .*use 1..20"),
        ({"device": "tpu"}, "device=tpu is not known; use auto, cpu"),
        (
            {"model": {"schedule": {"beta_start": None, "beta_end": None}}},
            r"^schedule.steps=20: the last step of the linear .*\(alpha_bar=0\), and a model would draw none",
        ),
        (
            {"model": {"schedule": {"name": "sqrt", "steps": 400, "beta_end": 0.9}}},
            "schedule.steps=400: the last step of the sqrt schedule",
        ),
        ({"model": {"network": {"channel_mult": [1] * 5}}}, "multiple of 16"),
        ({"objective": {"name": "simple"}}, "objective.name=simple"),
        ({"objective": {"error": "l1"}}, "objective.error=l1 means nothing to objective.name=hybrid"),
        ({"model": {"v_posterior": 0.5}}, "model.v_posterior=0.5 .*fixed_small"),
        ({"optimizer": {"cycles": [{"steps": 5}]}}, "optimizer.warmup_steps=2 with cycles"),
        (
            {
                "optimizer": {
                    "decay": "linear",
                    "warmup_steps": 0,
                    "cycles": [{"steps": 5, "warmup_steps": 5}],
                }
            },
            r"cycles\[0\]: warmup_steps=5 of steps=5",
        ),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny_run(tmp_path, tiny_config(**change))
    assert not (tmp_path / "config.yaml").exists()


def test_attention_that_the_network_never_reaches_is_told(tmp_path: Path) -> None:
    network = {"width": 16, "channel_mult": [1, 1], "attention": [2, 16]}
    _, events = tiny_run(tmp_path, tiny_config(steps=1, model={"network": network}))
    (told,) = [event.text for event in events if isinstance(event, Note) and "attention" in event.text]
    assert told.startswith("model.network.attention: no attention at 16, which")
    assert told.endswith("this network's are 1, 2")


def test_a_network_that_cannot_be_built_is_refused_before_the_pictures_are_read(tmp_path: Path) -> None:
    network = {"width": 16, "attention": [1], "head_channels": 7}
    config = tiny_config(data={"source": str(tmp_path / "none")}, model={"network": network})
    with pytest.raises(ValueError, match="head_channels=7 does not divide the 16 channels"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"data": {"boxes": "b.json"}}, "data.boxes=b.json means nothing to a model that is not told boxes"),
        ({"data": {"maps": "m", "map_classes": 3}}, "data.maps=m means nothing to a model .* semantic map"),
        ({"data": {"map_classes": 3}}, "data.map_classes=3 means nothing without data.maps"),
        ({"kind": "classifier", "data": {"boxes": "b"}}, "data.boxes=b means nothing"),
        ({"model": {"told": [MAP]}, "data": {"maps": "m"}}, "data.map_classes=None: say how many"),
        ({"model": {"told": [MAP]}, "data": {"maps": "m", "map_classes": 300}}, "=300: .* 1 to 256"),
        ({"model": {"told": [MAP]}, "data": {"maps": "m", "map_classes": 3}}, "data.maps=m is no folder"),
        ({"kind": "classifier", "classifier": {"validation": "gone"}}, "gone does not exist"),
        ({"kind": "autoencoder", "autoencoder": {"perceptual": "vgg.pt"}}, "perceptual=vgg.pt is no file"),
        ({"evaluate": {"every": 1, "features": "incepton"}}, "evaluate: features='incepton' is no feature"),
        (
            {"evaluate": {"every": 1}, "model": {"low_res": 4}},
            "evaluate.every=1 measures models that draw al",
        ),
        ({"classifier": {}}, "classifier is set, but kind=diffusion trains none"),
    ],
)
def test_what_needs_no_pictures_is_refused_before_they_are_read(
    tmp_path: Path, change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "open_data", lambda *_, **__: pytest.fail("the pictures were read"))
    settings = change if "kind" in change else merge(SETTINGS, change)
    settings = merge(settings, {"data": {"source": "fashion-mnist-10k"}})
    with pytest.raises(ValueError, match=said):
        train(from_dict(TrainConfig, settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_data_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(steps=1)
    tiny_run(tmp_path, config)
    monkeypatch.setattr(start, "open_data", lambda *_, **__: pytest.fail("the pictures were read"))
    with pytest.raises(ValueError, match="was started with other settings: data.size: 8 -> 16"):
        train(changed(config, data={"size": 16}), tmp_path)


def test_settings_of_latent_diffusion_train(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "model": {"variance": "fixed_small", "v_posterior": 0.1},
        "objective": {"name": "simple", "error": "l1", "elbo_weight": 0.01},
        "optimizer": {
            "decay": "cosine",
            "warmup_steps": 0,
            "cycles": [{"steps": 3, "warmup_steps": 1, "start": 0.1}],
        },
    }
    result, _ = tiny_run(tmp_path, tiny_config(steps=2, **settings))
    assert result.steps == 2
    model = load_model(tmp_path)
    assert model.denoiser.v_posterior == 0.1
    drawn = [model.sample(n=2, steps="4", sampler="ddpm", temperature=t).pixels for t in (1.0, 1.0, 0.1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    longer, _ = tiny_run(tmp_path, tiny_config(steps=4, **settings))
    assert longer.steps == 4


def test_a_network_of_another_kind_trains_draws_and_is_read_back(tmp_path: Path) -> None:
    network = {"kind": "ddpm", "width": 64, "channel_mult": [1, 2], "attention": [2]}
    config = tiny_config(model={"network": network}, steps=2, sample_every=2)
    result, _ = tiny_run(tmp_path, config)
    assert result.steps == 2 and list((tmp_path / "samples").iterdir())
    model = load_model(tmp_path)
    assert type(model.network).__name__ == "DdpmUNet" and model.config.network.classes == 4
    assert model.sample(n=3, steps="2", labels="b").pixels.shape == (3, 8, 8, 1)
    assert "kind: ddpm" in (tmp_path / "config.yaml").read_text()
