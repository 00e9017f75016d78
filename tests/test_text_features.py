"""A frozen text encoder: computed once, kept by what it is computed from, refused when it is none."""

import sys
from pathlib import Path

import pytest
import torch

from unnoise.text_features import encode_captions

CAPTIONS = ["a red shoe", "", "the hat"]


@pytest.fixture
def encoder(tmp_path):
    """A tiny BERT of random weights in the layout of transformers, and its folder."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "encoder"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "red", "shoe", "hat"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_features_are_the_encoders_and_computed_once(encoder, tmp_path):
    import transformers

    calls = []
    home = str(tmp_path / "cache")
    found = encode_captions(encoder, CAPTIONS, length=8, home=home, on_progress=lambda *at: calls.append(at))
    assert found.context.shape == (3, 8, 16) and found.mask.sum(1).tolist() == [5, 2, 4]
    again = encode_captions(encoder, CAPTIONS, length=8, home=home, on_progress=lambda *at: calls.append(at))
    assert calls == [(3, 3)] and torch.equal(found.context, again.context)
    model = transformers.AutoModel.from_pretrained(encoder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(encoder)(["a red shoe"], return_tensors="pt")
    with torch.no_grad():
        whole = model(**tokens).last_hidden_state[0]
    assert torch.allclose(found.context[0, :5].float(), whole, atol=2e-3)
    other = encode_captions(encoder, CAPTIONS[:2], length=8, home=home)
    assert len(other.context) == 2 and other.encoder == found.encoder


def test_what_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is no text encoder; name a folder with config.json"):
        encode_captions(tmp_path, CAPTIONS)
    (tmp_path / "config.json").write_text("{}")
    Path(tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="length=2 leaves no room"):
        encode_captions(tmp_path, CAPTIONS, length=2)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"transformers; install it with: pip install 'unnoise\[hf\]'"):
        encode_captions(tmp_path, CAPTIONS, home=str(tmp_path))
