"""What the numbers are called, whose definitions they follow, and what a reader is warned of."""

import numpy as np
import pytest
import torch

from tests.metrics.double import Double, double  # noqa: F401
from tests.metrics.test_evaluate import ask, made, pictures  # noqa: F401
from tests.models import tiny_model, with_info
from unnoise.config.requests import EvaluateRequest, GenerateRequest
from unnoise.metrics import weights as store
from unnoise.metrics.collect import Collected
from unnoise.metrics.evaluate import choose_network
from unnoise.metrics.features import Features, Names, Table
from unnoise.metrics.inception_score import inception_score, inception_score_fidelity
from unnoise.metrics.measures import Side, measure
from unnoise.metrics.precision_recall import precision_recall_fidelity
from unnoise.metrics.report import meaning
from unnoise.metrics.statistics import Moments
from unnoise.model import save_model


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (Names("inception"), "FID sFID IS KID precision"),
        (Names("inception", paired=True), "rFID sFID IS KID precision"),
        (Names("effnet-lite0", paired=True), "rFD[effnet-lite0] sFD[effnet-lite0]"),
    ],
)
def test_names(names, expected):
    metrics = ("FD", "sFD", "IS", "KID", "precision")
    assert [names(m) for m in metrics[: len(expected.split())]] == expected.split()


def test_names_of_torch_fidelity():
    names = Names("inception", "torch-fidelity")
    assert [names(m) for m in ("FD", "KID", "IS", "recall")] == [
        "FID", "KID", "IS (torch-fidelity)", "recall (torch-fidelity)",
    ]  # fmt: skip
    assert Names("small", "torch-fidelity")("precision") == "precision[small] (torch-fidelity)"
    assert meaning("precision[small] (torch-fidelity)") == meaning("precision") != ""
    assert meaning("rFID") and meaning("consistency[4x]")


def features(path):
    with np.load(path) as file:
        return Double()(torch.from_numpy(file["arr_0"]))


def test_torch_fidelity_s_definitions(made, ask, double, monkeypatch):  # noqa: F811
    monkeypatch.setattr(double, "name", "inception")
    ours, other = (ask(made["same"], made["real"], evaluator=e) for e in ("adm", "torch-fidelity"))
    assert ours["FID"] == other["FID"] and ours["KID"] == other["KID"] and ours["sFID"] == other["sFID"]
    real, fake = features(made["real"]), features(made["same"])
    assert ours["IS"].value == pytest.approx(inception_score(fake=fake.probs), rel=1e-6)
    expected = inception_score_fidelity(fake=fake.probs).mean
    assert other["IS (torch-fidelity)"].value == pytest.approx(expected, rel=1e-6)
    assert abs(expected - ours["IS"].value) > 1e-3
    both = precision_recall_fidelity(real=real.pool, fake=fake.pool)
    assert other["precision (torch-fidelity)"].value == both.precision
    assert other["recall (torch-fidelity)"].value == both.recall
    assert other.protocol["evaluator"] == "torch-fidelity"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"evaluator": "clean-fid"}, "evaluator=clean-fid is not known"),
        ({"evaluator": "torch-fidelity", "half": True}, "half is the distances of ADM"),
        ({"consistency": 2}, "add --paired"),
        ({"paired": True}, "no pairs"),
    ],
)
def test_settings_that_do_not_go_together(made, ask, options, reason):  # noqa: F811
    with pytest.raises(ValueError, match=reason):
        ask(made["same"], made["real"], **options)


def test_pairs_say_so_and_look_for_no_copies(made, ask, tmp_path):  # noqa: F811
    clean = pictures(60, 1)
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 8, clean.shape), 0, 255).astype(np.uint8)
    np.savez(tmp_path / "noisy.npz", arr_0=noisy)
    found = ask(str(tmp_path / "noisy.npz"), made["real"], paired=True, consistency=4)
    assert found["rFD[double]"].value >= 0 and found.nearest is None
    # The mean of 4 x 4 independent errors is 12 dB smaller.
    assert found["consistency[4x]"].value == pytest.approx(found["PSNR"].value + 20 * np.log10(4), abs=1.0)
    with pytest.raises(ValueError, match="consistency=5 does not divide pictures of 16x16"):
        ask(str(tmp_path / "noisy.npz"), made["real"], paired=True, consistency=5)


def test_unbalanced_classes_are_said(made, ask, tmp_path):  # noqa: F811
    def warned(labels):
        np.savez(tmp_path / "labelled.npz", arr_0=pictures(40, 7), arr_1=np.array(labels))
        return [w for w in ask(str(tmp_path / "labelled.npz"), made["real"]).warnings if "unbalanced" in w]

    assert warned([0] * 30 + [1] * 10) == ["the samples' classes are unbalanced: 10 to 30 pictures a class"]
    assert not warned([0, 1] * 20)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 100}, "these are not averaged (EMA) weights"),
        ({}, "does not say whether its weights are averaged (EMA)"),
        ({"step": 100, "ema_rate": 0.9}, None),
    ],
)
def test_weights_that_are_no_average_are_said(made, ask, tmp_path, changes, said):  # noqa: F811
    model = with_info(tiny_model(channels=3, size=16), **changes)
    save_model(tmp_path / "run" / "model.safetensors", model)
    request = {"n": 6, "generate": GenerateRequest(steps="1", batch_size=6)}
    found = [w for w in ask(str(tmp_path / "run"), made["real"], **request).warnings if "EMA" in w]
    assert [said in w for w in found] == ([True] if said else [])


def test_few_samples_are_said(made, ask):  # noqa: F811
    warnings = ask(made["folder"], made["real"], n=10).warnings
    assert any("fewer give a larger FD[double]" in w for w in warnings)
    assert any("10 samples for 12 features: the covariance is singular" in w for w in warnings)


def test_auto_takes_what_there_is(monkeypatch, tmp_path):
    """Without Inception's weights: EfficientNet for colour where it is installed, else unnoise-small."""
    for name in ("UNNOISE_INCEPTION", "UNNOISE_WEIGHTS", "UNNOISE_EFFICIENTNET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    installed = {"effnet-lite0", "unnoise-small"}

    def opener(name, **_):
        if name not in installed:
            raise ValueError("not installed")
        return Double(name=name)

    def chosen(channels):
        warnings = []
        network = choose_network(EvaluateRequest(), "cpu", warnings, channels=channels)
        assert f"measured with {network.name}, not Inception" in warnings[0]
        assert store.INCEPTION.file in warnings[0]
        return network.name

    monkeypatch.setattr("unnoise.metrics.evaluate.open_features", opener)
    assert (chosen(3), chosen(1)) == ("effnet-lite0", "unnoise-small")
    installed.remove("effnet-lite0")
    assert chosen(3) == "unnoise-small"


def test_the_kernel_distance_stands_first_where_the_middle_layer_does():
    generator = torch.Generator().manual_seed(0)
    tables, gaussians = [], []
    for n in (40, 30):
        x = torch.randn(n, 16, generator=generator)
        tables.append(Table.of(Features(x, middle=x[:, :4])))
        gaussians.append(Moments.of(x[:, :4]).gaussian())
    real = Side(gaussians[0], None, tables[0], None, {}, "", 40)
    fake = Collected(tables[1], gaussians[1], None)
    found, _ = measure(EvaluateRequest(bootstrap=0), Names("e"), real, fake)
    assert [m.name for m in found][:2] == ["KID[e]", "FD[e]"]
