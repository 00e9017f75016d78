"""An edit made ready for one model: the request checked, classes found, the way down from a noise level."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unnoise.config.load import from_dict, to_dict
from unnoise.config.requests import EditRequest, GenerateRequest
from unnoise.distributed import choose_device
from unnoise.edit.canvas import Frame
from unnoise.edit.checks import check_request, check_steps
from unnoise.edit.palette import Palette, read_palette
from unnoise.edit.telling import Told, open_telling, places_of, words_of
from unnoise.images import ImageBatch, to_pixels
from unnoise.low_res import LowRes, SmallPictures
from unnoise.model import Model
from unnoise.planning import Plan, plan
from unnoise.telling import Telling


@dataclass(frozen=True, eq=False)
class Edit:
    """A request made ready for one model: everything checked, nothing drawn."""

    request: EditRequest
    ready: Plan
    """At the model's own size."""
    palette: Palette | None = None
    """Colours to lead towards."""
    _sized: dict[tuple[int, int], Plan] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what is walked: a picture, or its latents."""
        return self.ready.shape

    @property
    def picture(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        return self.ready.picture

    @property
    def files(self) -> dict[str, str]:
        """Hashes of what results depend on besides the model and their pictures."""
        palette = {} if self.palette is None else {"palette": self.palette.digest}
        return {**self.ready.files, **palette}

    @property
    def frame(self) -> Frame:
        """What a picture is put into."""
        return Frame(self.picture[1], self.ready.step)

    def sized(self, height: int, width: int) -> Plan:
        """The plan for pictures of these sides. Under `fit` tile it works in squares of the model's size."""
        if (height, width) == self.picture[1:]:
            return self.ready
        if (height, width) not in self._sized:
            ready, drawn = self.ready, self.request.generate
            patch = drawn.patch
            if patch is None and self.request.fit == "tile":
                patch = max(1, self.picture[1] // (2 * ready.step)) * 2 * ready.step
            wanted = replace(drawn, height=height, width=width, patch=patch)
            self._sized[height, width] = _diffusion_plan(
                ready.model, wanted, low_res=ready.low_res, telling=ready.telling
            )
        return self._sized[height, width]

    def walked(self, images: Tensor) -> Tensor:
        """What is walked, (B, C, H, W), of images in [-1, 1], where the images are."""
        return self.ready.model.encode(images.to(self.ready.device)).to(images.device)

    def images(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) on the CPU, nominally in [-1, 1], of what was walked."""
        factor = self.picture[1] // self.shape[1]
        ready = self.sized(factor * x.shape[2], factor * x.shape[3])
        return torch.cat([images.float().cpu() for images in ready.decode(x.to(ready.device))])

    def pixels(self, x: Tensor, *, rule: str = "openai") -> Tensor:
        """uint8 (B, H, W, C) on the CPU of what was walked, rounded by `images.to_pixels`'s rule."""
        return to_pixels(self.images(x), rule=rule)

    @property
    def batch_size(self) -> int:
        """Pictures that are inverted side by side; one for `exact`, as kernels then always round alike."""
        return 1 if self.request.generate.exact else self.request.generate.batch_size

    @property
    def top(self) -> int:
        """The entry of the grid that `strength` takes pictures to: -1 leaves them, S - 1 is the noisiest."""
        return entry(self.ready, self.request.strength)

    def told(self, names: Sequence[str]) -> list[Told]:
        """The classes of the pictures of these names, words, and whose boxes and maps."""
        places = places_of(self.request, self.ready.telling, names)
        words = words_of(self.request, self.ready.telling, places)
        return list(map(Told, self.labels(len(names)), words, places))

    def labels(self, count: int) -> list[int | None]:
        """The classes of so many pictures."""
        wanted = self.request.generate.labels
        if len(wanted) > 1 and len(wanted) != count:
            raise ValueError(
                f"{len(wanted)} labels for {count} {'picture' if count == 1 else 'pictures'}; "
                "give one for all of them, or one each"
            )
        if wanted:
            found = self.ready.labels
            return list(found) if len(found) > 1 else [found[0]] * count
        return [_without_a_class(self.ready)] * count

    def name(self, label: int | None) -> str:
        """A class as people call it; "" for none, the null class too."""
        classes = self.ready.classes
        return classes[label] if label is not None and label < len(classes) else ""

    def batch(self, pixels: Sequence[Tensor], labels: Sequence[int | None], ids: Sequence[int]) -> ImageBatch:
        """Results, uint8 (H, W, C) each, as one batch."""
        names = tuple(self.name(label) for label in labels)
        known = [label for label, name in zip(labels, names, strict=True) if label is not None and name]
        whole = len(known) == len(ids)
        return ImageBatch(
            torch.stack(list(pixels)),
            torch.tensor(known) if whole else None,
            tuple(ids),
            names if whole else (),
        )

    def refuse_noise(self, why: str) -> None:
        """ValueError when the sampler adds noise."""
        request = self.request.generate
        if self.ready.sampler.order is None or request.eta > 0:
            with_eta = f" with eta={request.eta:g}" if request.eta else ""
            raise ValueError(
                f"sampler {request.sampler}{with_eta} adds noise, and {why}; use ddim with eta=0, or another "
                "one without noise"
            )


def plan_edit(model: Model, request: EditRequest) -> Edit:
    """Check a request against a model, which moves to the device that it names. ValueError says what does not
    fit.
    """
    request = from_dict(EditRequest, to_dict(request))
    if request.generate.guidance is None:
        request = replace(request, generate=replace(request.generate, guidance=1.0))
    check_request(model, request)
    if request.generate.device != "auto":
        model.to(choose_device(request.generate.device))
    telling = open_telling(model, request)
    # The pictures of an upsampler come with each row.
    small = None if model.config.low_res is None else SmallPictures.held(torch.empty(0))
    palette = read_palette(request.palette, request) if request.palette else None
    edit = Edit(request, _diffusion_plan(model, request.generate, low_res=small, telling=telling), palette)
    check_steps(request, edit.ready.steps)
    edit.labels(max(1, len(request.generate.labels)))  # refuses at once
    return edit


def _diffusion_plan(
    model: Model, request: GenerateRequest, *, low_res: LowRes | None, telling: Telling | None
) -> Plan:
    """The plan of a model that draws step by step."""
    ready = plan(model, request, low_res=low_res, telling=telling)
    if not isinstance(ready, Plan):
        raise ValueError(
            "this model draws in one step, which leaves no way to edit on; name a diffusion model"
        )
    return ready


def entry(ready: Plan, strength: float) -> int:
    """The noisiest entry of the plan's grid whose t is at most `strength` times the last t of training.

    -1, the picture itself, for strength 0 alone.
    """
    if strength == 0:
        return -1
    reached = strength * ready.model.schedule.timesteps[-1].item()
    count = int((ready.schedule.timesteps <= reached + 1e-9).sum())
    if strength == 1:
        count = ready.schedule.steps
    if count == 0:
        least = ready.schedule.timesteps[0].item() / ready.model.schedule.timesteps[-1].item()
        raise ValueError(
            f"strength={strength:g} is less than the first of steps={ready.request.steps}; use 0, or "
            f"{least:.2g} or more, or more steps"
        )
    return count - 1


def _without_a_class(ready: Plan) -> int | None:
    """What an edit that names no class tells the network; ValueError where that cannot be."""
    model, request = ready.model, ready.request
    if ready.guide is not None or request.guidance != 1 and not _guided_by_more(ready):
        raise ValueError("guidance leads towards a class, and none is named; name one with label")
    if model.config.class_rows is None:
        return None
    if model.null_label is None:
        raise ValueError(
            "this model was trained without label dropout, so it cannot draw without a class; name one with "
            "label"
        )
    return model.null_label


def _guided_by_more(ready: Plan) -> bool:
    """Whether guidance has something besides a class to lead towards."""
    telling = ready.telling
    if telling is None:
        return False
    return bool(telling.prompts or telling.given or telling.teller.needs_pictures())
