"""From a request to pictures: who depends on what, and what is refused."""

import dataclasses

import pytest
import torch

from tests.models import tiny_model, with_info
from unnoise.config.requests import GenerateRequest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.samplers import SAMPLERS
from unnoise.diffusion.spacing import grid
from unnoise.generate import EXACT_BATCH, generate, sample
from unnoise.images import to_images, to_pixels
from unnoise.planning import plan


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def draw(model, **options):
    options = {"n": 1, "steps": "6", "precision": "float32"} | options
    return sample(model, **options)


def one_level(a, b):
    """The rule of the design: within one grey level for at least 99.9 % of pixels."""
    return ((a.int() - b.int()).abs() <= 1).float().mean() >= 0.999


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_picture_k_depends_on_seed_and_k_alone(model, sampler, guidance):
    options = {"sampler": sampler, "guidance": guidance, "seed": 3}
    whole = draw(model, n=11, **options)
    parts = draw(model, n=11, batch_size=4, **options)
    late = draw(model, n=3, first=7, **options)
    assert whole.ids == parts.ids == tuple(range(11)) and late.ids == (7, 8, 9)
    assert one_level(whole.pixels, parts.pixels)
    assert one_level(whole.pixels[7:10], late.pixels)
    assert torch.equal(whole.labels[7:10], late.labels)
    other = draw(model, n=11, **options | {"seed": 4})
    assert not one_level(whole.pixels, other.pixels)


@pytest.mark.parametrize("steps", ["trailing8", "karras8"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_on_every_grid(model, sampler, steps):
    """A learned variance, guidance and clipping are no hindrance; each sampler draws its own pictures."""
    options = {"sampler": sampler, "steps": steps, "guidance": 2.0}
    drawn = draw(model, n=2, **options)
    assert drawn.pixels.float().std() > 5
    assert one_level(draw(model, n=1, first=1, **options).pixels, drawn.pixels[1:])
    has = {field.name for field in dataclasses.fields(SAMPLERS[sampler])}
    for option in {"eta": 1.0, "solver_order": 3}.items():
        if option[0] not in has:
            continue
        other = draw(model, n=2, **options, **dict([option]))
        assert not torch.equal(other.pixels, drawn.pixels)


def test_neither_the_global_generators_nor_the_network_are_touched(model):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = draw(model, n=2, sampler="ddpm")
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    model.network.train()
    b = draw(model, n=2, sampler="ddpm")
    assert model.network.training
    model.network.eval()
    assert torch.equal(a.pixels, b.pixels)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_exact_is_equal_to_the_bit_in_any_request(model, guidance):
    n = 2 * EXACT_BATCH + 3
    options = {"exact": True, "guidance": guidance, "sampler": "ddpm", "steps": "4"}
    whole = draw(model, n=n, **options)
    assert torch.equal(whole.pixels, draw(model, n=n, batch_size=3, **options).pixels)
    k = EXACT_BATCH + 1
    alone = list(generate(model, GenerateRequest(n=n, precision="float32", **options), ids=[2, k]))
    assert [b.ids for b in alone] == [(2,), (k,)]
    assert torch.equal(whole.pixels[[2, k]], torch.cat([b.pixels for b in alone]))
    assert one_level(whole.pixels, draw(model, n=n, **options | {"exact": False}).pixels)


def test_the_whole_path_against_its_pieces(model):
    """DDPM as Algorithm 2 says it, with the pieces of diffusion/ alone: no walk, no sampler."""
    from unnoise.diffusion.prediction import reverse
    from unnoise.diffusion.spacing import space
    from unnoise.diffusion.transforms import clip_x0

    schedule = model.schedule.respaced(space("5", model.schedule.steps))
    ids, label = [4, 5, 6], torch.tensor([2, 2, 2])
    noise = SeededNoise(9, ids)
    like = torch.empty(3, 1, 8, 8)
    x = noise(like, step=-1, draw=0)
    for index, i in enumerate(range(4, -1, -1)):
        at = schedule.at(i, like)
        with torch.no_grad():
            backward = reverse(clip_x0(model.denoiser)(x, at, Condition(label=label)), x, at)
        x = backward.mean
        if i:
            x = x + (0.5 * backward.log_variance).exp() * noise(like, step=index, draw=0)
    drawn = draw(model, n=3, first=4, labels="sandal", sampler="ddpm", steps="5", seed=9)
    assert torch.equal(drawn.pixels, to_pixels(x))
    assert drawn.labels.tolist() == [2, 2, 2] and drawn.names == ("Sandal",) * 3


def test_labels(model):
    assert draw(model, n=7, steps="1").labels.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert draw(model, n=3, first=3, steps="1").names == ("Sneaker", "Ankle boot", "T-shirt/top")
    assert draw(model, n=3, labels=["sneaker", 0], steps="1").labels.tolist() == [3, 0, 3]
    assert draw(model, labels=2, steps="1").names == ("Sandal",)
    nameless = with_info(model, classes=())
    batch = draw(nameless, n=2, labels=["4"], steps="1")
    assert batch.labels.tolist() == [4, 4] and batch.names == ("4", "4")


def test_labels_matter_and_guidance_exaggerates_them(model):
    plain = [draw(model, labels=[c]).pixels.float() for c in ("sandal", "trouser")]
    strong = [draw(model, labels=[c], guidance=3).pixels.float() for c in ("sandal", "trouser")]
    apart, further = (plain[0] - plain[1]).abs().mean(), (strong[0] - strong[1]).abs().mean()
    assert 0 < apart < further


def test_unconditional_models():
    model = tiny_model(classes=())
    batch = draw(model, n=2)
    assert batch.labels is None and batch.names == ()
    with pytest.raises(ValueError, match="knows no classes"):
        draw(model, labels=["sneaker"])
    with pytest.raises(ValueError, match="unconditional"):
        draw(model, guidance=2)


def test_guidance_needs_a_null_class():
    with pytest.raises(ValueError, match="label dropout"):
        draw(tiny_model(null=False), guidance=2)
    assert len(draw(tiny_model(null=False))) == 1


def test_a_model_advises_its_guidance(model):
    """It is drawn with where nothing else is said, and the plan says so."""
    advising = dataclasses.replace(model, info=dataclasses.replace(model.info, guidance=2.5))
    advised = draw(advising, n=2).pixels
    assert torch.equal(advised, draw(model, n=2, guidance=2.5).pixels)
    assert torch.equal(draw(advising, n=2, guidance=1).pixels, draw(model, n=2).pixels)
    assert not torch.equal(advised, draw(model, n=2).pixels)
    assert plan(advising, GenerateRequest()).request.guidance == 2.5
    assert plan(advising, GenerateRequest(conditional=False)).request.guidance == 1
    assert plan(model, GenerateRequest()).request.guidance == 1


def test_clipping_keeps_x0_in_range():
    # An eps network with random weights throws x0 far out of [-1, 1] at the noisy end.
    wild = tiny_model(predicts="eps")
    seen = {}
    for clip in ("auto", "static", "dynamic", "none"):
        reached = []
        draw(wild, clip=clip, on_step=lambda p, reached=reached: reached.append(p.x0.abs().max().item()))
        seen[clip] = max(reached)
    assert seen["auto"] == seen["static"] == 1 and seen["dynamic"] <= 1 < seen["none"]


@pytest.mark.parametrize("spec", ["1", "7", "100", "ddim10", "10,5", "quad5", "trailing5"])
def test_step_counts(model, spec):
    steps = []
    draw(model, steps=spec, on_step=lambda p: steps.append((p.step, p.steps)))
    count = 15 if spec == "10,5" else int("".join(c for c in spec if c.isdigit()))
    assert steps == [(i + 1, count) for i in range(count)]


@pytest.mark.parametrize(
    "sampler, spec, meant",
    [
        ("dpmpp-2m", "7", "trailing7"),
        ("dpmpp-3m", " 7 ", "trailing7"),
        ("unipc", "7", "trailing7"),
        ("dpmpp-2m", "even7", "even7"),
        ("unipc", "4,3", "4,3"),
        ("ddim", "7", "7"),
        ("heun", "7", "7"),
    ],
)
def test_a_plain_count_is_spaced_as_its_sampler_wants_it(model, sampler, spec, meant):
    """The plan says how, so that a picture's own request does not depend on this."""
    ready = plan(model, GenerateRequest(sampler=sampler, steps=spec))
    assert ready.request.steps == meant and ready.steps == 7
    assert torch.equal(ready.schedule.alpha_bar, grid(meant, model.schedule).alpha_bar)


def test_progress_shows_the_picture_growing(model):
    seen = []
    batch = draw(model, n=3, batch_size=2, on_step=seen.append)
    assert [p.ids for p in seen] == [(0, 1)] * 6 + [(2,)] * 6
    assert torch.equal(to_pixels(seen[5].x), batch.pixels[:2])
    assert seen[0].x0.shape == seen[0].x.shape == (2, 1, 8, 8)
    first, last = (to_pixels(seen[i].x0).float() - batch.pixels[:2].float() for i in (0, 5))
    assert last.abs().mean() < first.abs().mean()


def test_a_callback_may_stop_it(model):
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(model, on_step=stop)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_channels_and_size(channels):
    batch = draw(tiny_model(channels=channels, size=6), n=2)
    assert batch.pixels.shape == (2, 6, 6, channels) and batch.pixels.dtype == torch.uint8
    assert len(batch.pictures()) == 2 and batch.grid().width > 6


def test_low_precision_draws_nearly_the_same(model):
    full, half = draw(model, n=4), draw(model, n=4, precision="bfloat16")
    assert half.pixels.shape == full.pixels.shape
    assert 0 < (half.pixels.int() - full.pixels.int()).abs().float().mean() < 8
    assert to_images(half.pixels).dtype == torch.float32
    assert model.network.compute_dtype is None, "left as it was"


def test_precision_auto_is_what_the_hardware_has(model):
    auto = plan(model, GenerateRequest()).precision
    assert auto in ("bfloat16", "float32")
    assert torch.equal(draw(model, precision="auto").pixels, draw(model, precision=auto).pixels)
    assert plan(model, GenerateRequest(precision="float16")).dtype == torch.float16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, ["n=0", "1 or more"]),
        ({"first": -1}, ["first=-1"]),
        ({"batch_size": 0}, ["batch_size=0"]),
        ({"steps": "0"}, ["steps=0", "use 1..100"]),
        ({"steps": 101}, ["steps=101", "use 1..100"]),
        ({"steps": "fast"}, ["steps='fast'"]),
        ({"sampler": "dimm"}, ["dimm", "ddim", "ddpm"]),
        ({"sampler": "ddpm", "eta": 0.5}, ["eta=0.5", "ddpm", "ddim"]),
        ({"eta": 1.5}, ["eta=1.5"]),
        ({"temperature": -1.0}, ["temperature=-1", "0 or more"]),
        ({"sampler": "plms", "temperature": 0.5}, ["temperature=0.5", "plms", "ddpm or ddim"]),
        ({"sampler": "plms", "eta": 0.5}, ["eta=0.5", "plms", "ddim", "dpmpp-2m"]),
        ({"sampler": "dpmpp"}, ["dpmpp", "did you mean", "dpmpp-2m"]),
        ({"sampler": "unipc", "solver_order": 4}, ["solver_order=4", "use 2"]),
        ({"sampler": "heun", "solver_order": 3}, ["solver_order=3", "heun", "unipc"]),
        ({"steps": "karras0"}, ["karras0", "use 1..100"]),
        ({"eta": float("nan")}, ["eta"]),
        ({"guidance": float("inf")}, ["guidance"]),
        ({"labels": ["cat"]}, ["'cat'", "Sneaker"]),
        ({"labels": ["5"]}, ["0..4"]),
        ({"clip": "hard"}, ["clip", "static"]),
        ({"clip": "dynamic", "clip_percentile": 0}, ["percentile=0"]),
        ({"precision": "int8"}, ["precision", "float32"]),
        ({"device": "tpu"}, ["device=tpu", "cpu"]),
        ({"stepz": 4}, ["stepz", "did you mean", "steps"]),
    ],
)
def test_refusals_are_immediate_and_name_the_way_out(model, options, words):
    with pytest.raises(ValueError) as error:
        if "stepz" in options:
            draw(model, **options)
        else:
            generate(
                model, dataclasses.replace(GenerateRequest(), **options)
            )  # refuses before it is iterated
    for word in words:
        assert word in str(error.value)


def test_broken_weights_are_an_error_not_a_black_picture():
    model = tiny_model()
    model.network.out[2].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="picture 0, 1"):
        draw(model, n=2)


def test_a_plan_knows_the_pictures_before_they_are_drawn(model):
    ready = plan(model, GenerateRequest(n=4, first=3, labels=("sneaker", "0"), steps="9"))
    assert list(ready.ids) == [3, 4, 5, 6] and ready.steps == 9
    assert [ready.name(k) for k in ready.ids] == ["T-shirt/top", "Sneaker"] * 2
