"""From pictures to noise and back: how much is lost, and that noise is kept and used again."""

import numpy as np
import pytest
import torch

from tests.analytic import slope
from tests.edit.conftest import MEAN, STD, levels, request
from unnoise.edit import Code, RoundTrip, draw_codes, invert, load_code, save_code
from unnoise.edit.invert import encode
from unnoise.edit.pictures import read_picture
from unnoise.edit.plan import plan_edit
from unnoise.edit.telling import Told
from unnoise.images import to_images


def inverted(model, *pictures, **options):
    return list(invert(model, pictures, request("invert", **options)))


def test_noise_is_what_the_ode_leads_to(exact_model):
    """x_T of a Gaussian picture is its standard score times the spread of x_T; the error falls at order 1."""
    picture, counts, errors = levels(), [12, 25, 50, 100], []
    standard = (to_images(picture[None]).double() - MEAN) / STD
    for steps in counts:
        edit = plan_edit(exact_model, request("invert", steps=f"uniform{steps}", corrections=0))
        x = encode(edit, [read_picture(picture, edit.shape, edit.request)], [Told()])
        alpha_bar = edit.ready.schedule.alpha_bar[-1].item()
        wanted = alpha_bar**0.5 * MEAN + (alpha_bar * STD**2 + 1 - alpha_bar) ** 0.5 * standard
        errors.append((x - wanted).abs().max().item())
    assert 0.8 < slope(counts, errors) < 1.4, errors


def test_corrections_bring_the_picture_back(exact_model):
    lost = [inverted(exact_model, levels(), corrections=c)[0] for c in (0, 1, 2, 6)]
    means = [each.trip.mean for each in lost]
    assert means == sorted(means, reverse=True) and means[0] > 1
    assert lost[-1].trip == RoundTrip(float("inf"), 0, 0)
    assert np.array_equal(lost[-1].back, levels())
    # What is said is what is there.
    error = np.abs(levels().astype(int) - lost[0].back.numpy().astype(int))
    assert lost[0].trip.largest == error.max() and lost[0].trip.mean == pytest.approx(error.mean())
    assert lost[0].trip.psnr == pytest.approx(10 * np.log10(255**2 / (error**2).mean()))


def test_noise_is_kept_and_drawn_from(exact_model, tmp_path):
    options = {"corrections": 6, "steps": "15"}
    (found,) = inverted(exact_model, levels(), **options)
    save_code(tmp_path / "shoe.safetensors", found.code, {"Software": "test"})
    code = load_code(tmp_path / "shoe.safetensors")
    assert torch.equal(code.x_T, found.code.x_T) and code.alpha_bar == found.code.alpha_bar
    (batch,) = draw_codes(exact_model, [code], request("invert", **options))
    assert np.array_equal(batch.pixels[0], levels())
    with pytest.raises(ValueError, match=r"alpha_bar .* steps=ddim20 begins at .* inverted with"):
        draw_codes(exact_model, [code], request("invert", steps="ddim20"))
    small = Code("small", torch.zeros(1, 4, 4), code.alpha_bar)
    with pytest.raises(ValueError, match="its noise is 1x4x4 and the model draws 1x6x6"):
        draw_codes(exact_model, [small], request("invert", **options))


def test_another_class_makes_another_picture_of_the_noise(model):
    options = {"corrections": 1, "steps": "5"}
    (found,) = inverted(model, levels(0, 8), labels=("sandal",), **options)
    assert found.code.label == "Sandal"
    (same,) = draw_codes(model, [found.code], request("invert", labels=("sandal",), **options))
    (other,) = draw_codes(model, [found.code], request("invert", labels=("sneaker",), **options))
    assert torch.equal(same.pixels[0], found.back) and same.names == ("Sandal",)
    assert (other.pixels[0].int() - found.back.int()).abs().max() > 3


def test_several_pictures_are_each_their_own(model):
    options = {"corrections": 1, "steps": "4", "labels": ("0", "1", "2")}
    pictures = [levels(k, 8) for k in range(3)]
    together = inverted(model, *pictures, batch_size=2, **options)
    assert [each.code.label for each in together] == ["T-shirt/top", "Trouser", "Sandal"]
    for k, each in enumerate(together):
        (alone,) = inverted(model, pictures[k], **options | {"labels": (str(k),)})
        torch.testing.assert_close(each.code.x_T, alone.code.x_T, rtol=0, atol=1e-4)


def test_exact_noise_is_equal_to_the_bit(model):
    options = {"corrections": 1, "steps": "3", "exact": True}
    together = inverted(model, *(levels(k, 8) for k in range(3)), **options)
    (alone,) = inverted(model, levels(2, 8), **options)
    assert torch.equal(together[2].code.x_T, alone.code.x_T) and torch.equal(together[2].back, alone.back)


def test_progress_goes_up_and_down(exact_model):
    seen = []
    list(invert(exact_model, [levels()], request("invert", steps="5"), on_step=seen.append))
    assert [(p.step, p.steps) for p in seen] == [(k, 10) for k in range(1, 11)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "ddpm"}, ["ddpm", "adds noise", "ddim"]),
        ({"eta": 0.5}, ["eta=0.5", "adds noise"]),
        ({"corrections": -1}, ["corrections=-1"]),
        ({"strength": 0.3}, ["strength=0.3", "invert"]),
    ],
)
def test_refusals(exact_model, options, words):
    with pytest.raises(ValueError) as error:
        list(invert(exact_model, [levels()], request("invert", **options)))
    for word in words:
        assert word in str(error.value)


def test_files_that_are_no_noise(tmp_path, model):
    from unnoise.model import save_model

    save_model(tmp_path / "model.safetensors", model)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="holds no inverted picture"):
        load_code(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_code(tmp_path / "text.safetensors")
    for x_T in (torch.full((1, 8, 8), float("nan")), torch.ones(1, 8, 8, dtype=torch.int64)):
        save_code(tmp_path / "odd.safetensors", Code("odd", x_T, 0.1), {})
        with pytest.raises(ValueError, match=r"odd\.safetensors: its noise is no finite float32"):
            load_code(tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="stands at alpha_bar nan"):
        list(draw_codes(model, [Code("odd", torch.ones(1, 8, 8), float("nan"))], request("invert")))
