"""Editing with a model: holes, margins, colours, detail, variations, ways between pictures, their noise."""

from unnoise.config.requests import EditRequest
from unnoise.edit.colorize import colorize
from unnoise.edit.inpaint import inpaint, outpaint
from unnoise.edit.interpolate import interpolate
from unnoise.edit.invert import Code, Inversion, RoundTrip, draw_codes, invert, load_code, save_code
from unnoise.edit.pictures import Picture
from unnoise.edit.stroke import stroke
from unnoise.edit.upscale import consistency, upscale
from unnoise.edit.vary import vary

__all__ = [
    "Code", "EditRequest", "Inversion", "Picture", "RoundTrip", "colorize", "consistency", "draw_codes",
    "inpaint", "interpolate", "invert", "load_code", "outpaint", "save_code", "stroke", "upscale", "vary",
]  # fmt: skip
