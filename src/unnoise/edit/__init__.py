"""Editing with a model: variations of pictures, ways between them, and the noise that they are drawn from."""

from unnoise.config.requests import EditRequest
from unnoise.edit.interpolate import interpolate
from unnoise.edit.invert import Code, Inversion, RoundTrip, draw_codes, invert, load_code, save_code
from unnoise.edit.pictures import Picture
from unnoise.edit.vary import vary

__all__ = [
    "Code", "EditRequest", "Inversion", "Picture", "RoundTrip", "draw_codes", "interpolate", "invert",
    "load_code", "save_code", "vary",
]  # fmt: skip
