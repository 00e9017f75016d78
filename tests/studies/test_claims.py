"""scripts/claims.py: what it reads from a sweep's pictures, held to what is known of them."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models import NAMES
from tests.studies.conftest import FAST
from tests.test_scripts import script, stubborn
from unnoise.classifier import save_classifier
from unnoise.metrics.extractors.classifier import SHIPPED
from unnoise.train.perceptual import Perceptual, open_perceptual

SWEEP = ["sweep", "run", "--against", "real.npz", "--out", "s", "-n", 20, "--bootstrap", 8, *FAST]


@pytest.fixture
def swept(unnoise, place):
    """A sweep of two points -> its folder and the script's functions."""
    code, _, complaints = unnoise(*SWEEP, "--grid", "steps=2,4")
    assert code == 0, complaints
    return place / "s", script("claims")


def test_agreement_is_that_of_the_kept_pictures(swept, place):
    out, claims = swept
    save_classifier(place / "stubborn.safetensors", stubborn(answer=2))
    rows = claims.agreed(claims.read_sweep(out), place / "stubborn.safetensors")
    assert [row[0] for row in rows[1:]] == ["steps=2", "steps=4"]
    for row in rows[1:]:  # four pictures of each of five classes, of which one is always named
        assert row[1] == "20.0 % (8.1 to 41.6)"  # Wilson's, of 4 of 20
        assert row[2] == f"0 % {min(name for k, name in enumerate(NAMES) if k != 2)}"
        assert row[3] == "1.00 ± 0.00"  # the same answer to all
    points = claims.read_sweep(out)
    for point, recall in zip(points, (0.5, 0.2), strict=True):
        point.metric("recall")["value"] = recall
    rows = claims.agreed(points, place / "stubborn.safetensors")
    assert [row[-1] for row in rows[1:]] == ["100 %", "40 %"]


def test_the_ratio_has_the_interval_of_both(swept):
    out, claims = swept
    one, other = claims.read_sweep(out)
    value, low, high = claims.ratio(one, other)
    a, b = one.metric("FD"), other.metric("FD")
    assert value == pytest.approx(a["value"] / b["value"]) and low < value < high
    spread = math.hypot(*((m["interval"][1] - m["interval"][0]) / 2 / m["value"] for m in (a, b)))
    assert math.log(high / low) == pytest.approx(2 * spread)
    assert claims.ratio(one, one)[0] == 1


def test_pictures_of_one_noise_are_compared_with_those_of_other_seeds(swept):
    out, claims = swept
    points = claims.read_sweep(out)
    pixels = Perceptual("pixels", lambda a, b: (a - b).abs().mean((1, 2, 3), keepdim=True))
    rows = claims.alike(points, pixels)
    images = [torch.from_numpy(np.stack([np.asarray(Image.open(f)) for f in files])).float() / 127.5
              for files in (sorted(p.samples.glob("0*.png")) for p in points)]  # fmt: skip
    seeds = (images[1] - images[1].roll(5, 0)).abs().mean()
    noise = (images[0] - images[1]).abs().mean()
    assert rows[1][1].startswith(f"{seeds:.3f}")
    assert rows[2][0] == "steps=2 against steps=4" and rows[2][1].startswith(f"{noise:.3f}")
    assert rows[2][2] == f"{100 * noise / seeds:.0f} %"
    shipped = claims.alike(points[:1] * 2, open_perceptual(SHIPPED, torch.device("cpu")))
    assert shipped[2][1:] == ["0.000 ± 0.000", "0 %"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["agreement", "nowhere", "c"], "name the --out of a sweep"),
        (["ratio", "s", "steps=2", "steps=9"], "no point is called 'steps=9'; there are steps=2; steps=4"),
        (["alike", "s", "--perceptual", "none"], "compares nothing"),
    ],
)
def test_what_cannot_be_read_is_refused(swept, monkeypatch, capsys, arguments, said):
    monkeypatch.setattr("sys.argv", ["claims.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        swept[1].main()
    assert said in capsys.readouterr().err


def test_a_ratio_of_points_of_two_sweeps(swept, place, unnoise, monkeypatch, capsys):
    out, claims = swept
    again = ["t" if part == "s" else part for part in SWEEP]
    code, _, complaints = unnoise(*again, "--grid", "steps=3")
    assert code == 0, complaints
    (other,) = claims.read_sweep(place / "t")
    monkeypatch.setattr("sys.argv", ["claims.py", "ratio", str(out), "steps=4", other.name, "--beside", "t"])
    claims.main()
    value, low, high = claims.ratio(claims.named(claims.read_sweep(out), "steps=4"), other)
    assert capsys.readouterr().out == f"{value:.3f}, 95 % interval {low:.3f} to {high:.3f}\n"
    assert value != claims.ratio(*claims.read_sweep(out))[0]


def test_distances_without_intervals_have_no_ratio(swept):
    out, claims = swept
    file = out / "sweep.json"
    content = json.loads(file.read_text())
    for point in content["points"]:
        for metric in point["metrics"]:
            metric["interval"] = None
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="--bootstrap 100"):
        claims.ratio(*claims.read_sweep(out))
