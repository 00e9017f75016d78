"""What a report says of a GAN's game: who is winning, and how many different pictures are still drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

from unnoise import html
from unnoise.train.courses import Course, figures

HEADING = "Drawn by the generator"
CAPTION = "Drawn from the average, with standing statistics; a class is a column where they are few."
COURSES = (
    Course(
        curves={"d/real": "real", "d/fake": "drawn"},
        label="score",
        caption="What the discriminator says of real and drawn pictures: at 1 and -1 it asks for no more",
    ),
    Course(
        curves={"d/accuracy": "told right", "health/overfitting": "known by heart"},
        label="share",
        caption="Share of pictures that it tells right (0.5: by chance), and how far it favours what it "
        "learned from",
    ),
    Course(
        curves={"health/diversity": "diversity", "health/near_copies": "near copies"},
        label="share",
        caption="How much pictures of a class differ beside real ones, and how many nearly repeat another: "
        "0 and 1 when collapsed",
    ),
    Course(
        curves={
            f"health/{owner}/{name}": f"{owner}, {name}"
            for owner in ("generator", "discriminator")
            for name in ("first", "ratio")
        },
        label="value",
        caption="The largest singular value of any weight, and the largest ratio of a first to a second: "
        "they jump before a collapse",
    ),
)


def sections(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """The course of the game."""
    return [html.section("The game", figures(log, COURSES))]
