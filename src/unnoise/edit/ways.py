"""The kinds of edit that make any number of results of each picture."""

from unnoise.config.requests import EditKind
from unnoise.edit.colorize import COLORIZE
from unnoise.edit.inpaint import INPAINT, OUTPAINT
from unnoise.edit.redraw import Way
from unnoise.edit.stroke import STROKE
from unnoise.edit.upscale import UPSCALE
from unnoise.edit.vary import VARY

WAYS: dict[EditKind, Way] = {
    "vary": VARY,
    "inpaint": INPAINT,
    "outpaint": OUTPAINT,
    "colorize": COLORIZE,
    "upscale": UPSCALE,
    "stroke": STROKE,
}
