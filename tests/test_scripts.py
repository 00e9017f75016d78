"""The scripts that back numbers in the README."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from tests.models import NAMES, tiny_model
from unnoise.classifier import agreement, build_classifier, save_classifier
from unnoise.config.schema import GenerateRequest
from unnoise.model import save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.settings import ClassifierSettings

SCRIPT = Path(__file__).parents[1] / "scripts" / "label_agreement.py"


def script():
    spec = importlib.util.spec_from_file_location("label_agreement", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["label_agreement"] = module
    spec.loader.exec_module(module)
    return module


def stubborn(answer=2, classes=NAMES):
    """A classifier that says the same of every picture."""
    settings = ClassifierSettings(widths=(8,), features=4, classes=len(classes))
    model = build_classifier(settings, ModelInfo(classes=tuple(classes)))
    with torch.no_grad():
        model.network.head.bias[answer] = 100.0
    return model


def test_a_classifier_that_always_says_one_thing_agrees_with_that_class_alone():
    found = script().measure(tiny_model(), stubborn(), GenerateRequest(n=13, steps="2"))
    counts = {name: 3 if k < 3 else 2 for k, name in enumerate(NAMES)}
    assert found.classes == {
        name: (total if k == 2 else 0, total) for k, (name, total) in enumerate(counts.items())
    }
    assert found.count == 13 and found.share == pytest.approx(3 / 13)
    assert found.error == pytest.approx((3 / 13 * 10 / 13 / 13) ** 0.5)


def test_classes_are_compared_by_name():
    pixels = torch.zeros(4, 8, 8, 1, dtype=torch.uint8)
    other = stubborn(answer=0, classes=("Sandal", "Trouser"))
    assert agreement(other, pixels, ["Sandal", "Trouser", "Sandal", "Sandal"]) == {
        "Sandal": (3, 3),
        "Trouser": (0, 1),
    }
    with pytest.raises(ValueError, match="'Bag' is none of the classifier's"):
        agreement(other, pixels, ["Sandal", "Bag", "Bag", "Bag"])


def test_an_unconditional_model_has_nothing_to_agree_with():
    with pytest.raises(ValueError, match="no classes"):
        script().measure(tiny_model(classes=(), null=False), stubborn(), GenerateRequest(n=1, steps="1"))


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "m.safetensors", tiny_model())
    save_classifier(tmp_path / "c.safetensors", stubborn())

    def run(*options):
        arguments = ["m.safetensors", "c.safetensors", "-n", "5", "--steps", "2", *options]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        script().main()

    run("--test", "", "--json", "found.json")
    said = capsys.readouterr().out
    assert said.startswith("20.0 % ± 17.9 of 5 samples agree") and "100.0 %  (1 of 1)" in said
    facts = json.loads((tmp_path / "found.json").read_text())
    assert facts["share"] == pytest.approx(0.2) and facts["classes"]["Sandal"] == 1
    with pytest.raises(SystemExit) as left:
        run("--guidance", "nan")
    assert left.value.code == 2 and capsys.readouterr().err.count("\n") == 1
