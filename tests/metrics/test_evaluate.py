"""Whole evaluations: every kind of side, what the result says, resuming, and refusals."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.metrics.double import Double, double  # noqa: F401
from unnoise.config.requests import EvaluateRequest
from unnoise.metrics.collect import collect
from unnoise.metrics.evaluate import evaluate
from unnoise.metrics.extractors import EXTRACTORS
from unnoise.metrics.reference import write_reference
from unnoise.metrics.result import compare, read_evaluation
from unnoise.metrics.sources import open_pictures


def pictures(n, seed, *, size=16, channels=3, shift=0):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 200, (n, 4, 4, channels))
    return (np.repeat(np.repeat(low, size // 4, 1), size // 4, 2) + shift).astype(np.uint8)


@pytest.fixture
def made(tmp_path):
    paths = {}
    for name, array in {
        "real": pictures(60, 1),
        "same": pictures(50, 2),
        "moved": pictures(50, 3, shift=50),
    }.items():
        paths[name] = str(tmp_path / f"{name}.npz")
        np.savez(paths[name], arr_0=array)
    paths["folder"] = str(tmp_path / "folder")
    (tmp_path / "folder").mkdir()
    for i, picture in enumerate(pictures(20, 4)):
        Image.fromarray(picture).save(tmp_path / "folder" / f"{i}.png")
    paths["zip"] = str(tmp_path / "pictures.zip")
    with zipfile.ZipFile(paths["zip"], "w") as file:
        for i in range(20):
            file.write(tmp_path / "folder" / f"{i}.png", f"{i}.png")
    return paths


@pytest.fixture
def ask(tmp_path, double):  # noqa: F811
    def run(samples, against, **options):
        values = {"features": "double", "cache": str(tmp_path / "cache"), "device": "cpu", "bootstrap": 20}
        return evaluate(EvaluateRequest(samples=samples, against=against, **values | options))

    return run


def test_worse_samples_score_worse_beyond_the_interval(made, ask, tmp_path):
    good, bad = ask(made["same"], made["real"]), ask(made["moved"], made["real"])
    names = [m.name for m in good.metrics]
    assert names == [
        f"{m}[double]" for m in ("FD", "sFD", "KID", "precision", "recall", "density", "coverage")
    ]
    for metric in good.metrics:
        assert metric.interval[0] <= metric.value <= metric.interval[1]
        assert metric.floor is not None
    assert good["FD[double]"].infinite < good["FD[double]"].value
    good.save(tmp_path / "good.json")
    assert read_evaluation(tmp_path / "good.json") == json_round(good)
    found = compare(good, bad)
    assert {d.name: d.better for d in found.differences}["FD[double]"] == "first"
    assert not found.protocol
    again = compare(good, good)
    assert {d.better for d in again.differences} == {"neither"}


def json_round(evaluation):
    """Tuples inside the protocol come back as lists."""
    content = json.loads(evaluation.to_json())
    return type(evaluation)(
        samples=evaluation.samples,
        against=evaluation.against,
        metrics=evaluation.metrics,
        protocol=content["protocol"],
        warnings=evaluation.warnings,
        nearest=content["nearest"],
    )


def test_protocol_and_warnings(made, ask):
    found = ask(made["same"], made["real"])
    protocol = found.protocol
    assert protocol["samples_n"] == 50 and protocol["reference_n"] == 60
    assert protocol["features"] == "double" and protocol["weights_hash"] == "d0"
    assert any("50,000" in w for w in found.warnings)
    assert "FD[double]" in "\n".join(found.lines())


@pytest.mark.parametrize("kind", ["folder", "zip", "same"])
def test_every_kind_of_pictures(made, ask, kind):
    assert ask(made[kind], made["real"])["FD[double]"].value >= 0


def test_built_in_data(ask, made):
    found = ask("fashion-mnist-10k", "fashion-mnist-10k", n=200, neighbours=100)
    assert found["FD[double]"].value < found["FD[double]"].floor * 20
    assert found.protocol["reference_n"] == 10_000


def test_jpeg_on_one_side_is_said(made, ask, tmp_path):
    (tmp_path / "jpeg").mkdir()
    for i, picture in enumerate(pictures(20, 5)):
        Image.fromarray(picture).save(tmp_path / "jpeg" / f"{i}.jpg")
    assert any("JPEG" in w for w in ask(str(tmp_path / "jpeg"), made["real"]).warnings)


def test_sizes_that_differ_are_said(made, ask, tmp_path):
    np.savez(tmp_path / "big.npz", arr_0=pictures(20, 5, size=32))
    assert any("32x32" in w for w in ask(str(tmp_path / "big.npz"), made["real"]).warnings)


def test_an_interrupted_evaluation_continues(made, ask, double, monkeypatch):  # noqa: F811
    monkeypatch.setattr("unnoise.metrics.collect.SHARD", 16)
    first = ask(made["same"], made["real"])
    assert double.calls == 110
    assert ask(made["same"], made["real"]).metrics == first.metrics
    assert double.calls == 110


def write(tmp_path, network, spec, name="ref.npz", features=False):
    request = EvaluateRequest(cache=str(tmp_path / "cache"))
    source = open_pictures(spec, request)
    found = collect(source, network, cache=request.cache)
    path = tmp_path / name
    write_reference(
        path,
        source,
        network,
        frechet=found.frechet,
        spatial=found.spatial,
        table=found.table if features else None,
    )
    return str(path)


@pytest.mark.parametrize("features", [False, True])
def test_a_reference_file_stands_for_its_data(made, ask, tmp_path, double, features):  # noqa: F811
    path = write(tmp_path, double, made["real"], features=features)
    whole, short = ask(made["same"], made["real"]), ask(made["same"], path)
    for name in ("FD[double]", "sFD[double]", "KID[double]", "precision[double]", "recall[double]"):
        assert short[name].value == pytest.approx(whole[name].value, rel=1e-9), name
    assert short.protocol["reference_n"] == 60


def test_adm_reference_of_statistics_alone(made, ask, tmp_path, double, monkeypatch):  # noqa: F811
    """OpenAI's files say no network: they are Inception's."""
    path = write(tmp_path, double, made["real"])
    with np.load(path) as file:
        np.savez(tmp_path / "adm.npz", **{k: file[k] for k in ("mu", "sigma", "mu_s", "sigma_s")})
    with pytest.raises(ValueError, match="made with inception features"):
        ask(made["same"], str(tmp_path / "adm.npz"))
    monkeypatch.setattr(double, "name", "inception")
    found = ask(made["same"], str(tmp_path / "adm.npz"))
    assert [m.name for m in found.metrics] == ["FID", "sFID", "IS"]


def test_roles_are_not_swappable(made, ask):
    one, other = ask(made["moved"], made["real"]), ask(made["real"], made["moved"])
    assert one["FD[double]"].value == pytest.approx(other["FD[double]"].value, rel=1e-6)
    assert one["precision[double]"].value == other["recall[double]"].value


def test_paired_reconstructions(made, ask, tmp_path):
    clean = pictures(60, 1)
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 5, clean.shape), 0, 255).astype(np.uint8)
    np.savez(tmp_path / "noisy.npz", arr_0=noisy)
    found = ask(str(tmp_path / "noisy.npz"), made["real"], paired=True)
    assert 30 < found["PSNR"].value < 38
    assert 0.5 < found["SSIM"].value < 1
    assert found["PSNR"].better == "higher"


def test_near_copies_are_found(made, ask):
    assert ask(made["real"], made["real"]).nearest["share_of_near_copies"] == 1
    assert ask(made["same"], made["real"]).nearest["share_of_near_copies"] < 0.2


class TestRefusals:
    def test_channels(self, made, ask, tmp_path):
        np.savez(tmp_path / "grey.npz", arr_0=pictures(20, 5, channels=1))
        with pytest.raises(ValueError, match=r"samples have 1 channels .* has 3"):
            ask(str(tmp_path / "grey.npz"), made["real"])

    def test_one_picture(self, made, ask, tmp_path):
        np.savez(tmp_path / "one.npz", arr_0=pictures(1, 5))
        with pytest.raises(ValueError, match="one picture"):
            ask(str(tmp_path / "one.npz"), made["real"])
        with pytest.raises(ValueError, match="one picture"):
            ask(made["real"], str(tmp_path / "one.npz"))

    def test_nan_features(self, made, tmp_path, monkeypatch):
        monkeypatch.setitem(EXTRACTORS, "bad", lambda weights=None, device="cpu": Double(broken=True))
        with pytest.raises(ValueError, match="NaN or infinite"):
            evaluate(
                EvaluateRequest(
                    samples=made["same"], against=made["real"], features="bad", cache=str(tmp_path)
                )
            )

    def test_another_network(self, made, ask, tmp_path):
        path = write(tmp_path, Double(name="other"), made["real"])
        with pytest.raises(ValueError, match="made with other features and the samples go through double"):
            ask(made["same"], path)
        path = write(tmp_path, Double(weights_hash="d1"), made["real"])
        with pytest.raises(ValueError, match="with other weights"):
            ask(made["same"], path)

    def test_corrupt_npz(self, made, ask, tmp_path):
        whole = write(tmp_path, Double(), made["real"])
        data = bytearray(open(whole, "rb").read())
        (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match="damaged"):
            ask(made["same"], str(tmp_path / "cut.npz"))
        data[200:260] = bytes(60)
        (tmp_path / "bent.npz").write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged|make it again"):
            ask(made["same"], str(tmp_path / "bent.npz"))

    def test_pickled_npz(self, made, ask, tmp_path):
        np.savez(tmp_path / "pickled.npz", mu=np.array([{}], dtype=object), sigma=np.eye(12))
        with pytest.raises(ValueError, match="pickled"):
            ask(made["same"], str(tmp_path / "pickled.npz"))
        np.savez(tmp_path / "pictures.npz", arr_0=np.array([{}], dtype=object))
        with pytest.raises(ValueError, match="arr_0"):
            ask(str(tmp_path / "pictures.npz"), made["real"])

    def test_flat_pictures(self, made, ask, tmp_path):
        flat = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 16, 16, 3))
        np.savez(tmp_path / "flat.npz", arr_0=flat)
        with pytest.raises(ValueError, match="flat colour"):
            ask(str(tmp_path / "flat.npz"), str(tmp_path / "flat.npz"))

    def test_equal_pictures(self, made, ask, tmp_path):
        np.savez(tmp_path / "equal.npz", arr_0=np.repeat(pictures(1, 5), 20, 0))
        with pytest.raises(ValueError, match="copies"):
            ask(str(tmp_path / "equal.npz"), made["real"])

    def test_unknown_names(self, made, ask):
        with pytest.raises(ValueError, match="nothing-there"):
            ask("nothing-there", made["real"])
        with pytest.raises(ValueError, match="no feature network"):
            ask(made["same"], made["real"], features="resnet")

    @pytest.mark.parametrize("option", [{"n": 1}, {"n": 51}, {"batch_size": 0}, {"bootstrap": -1}])
    def test_numbers(self, made, ask, option):
        with pytest.raises(ValueError, match=next(iter(option))):
            ask(made["same"], made["real"], **option)

    def test_missing_weights(self, made, ask, tmp_path, monkeypatch):
        for variable in ("UNNOISE_INCEPTION", "UNNOISE_WEIGHTS"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("urllib.request.urlopen", offline)
        with pytest.raises(ValueError, match=r"fetch https://.*6726825d.pth and put it at"):
            ask(made["same"], made["real"], features="inception")


def offline(*_, **__):
    raise OSError("no network")
