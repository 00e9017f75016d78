"""Drawings of strangers: plain shapes are rendered, everything that reaches out or grows is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from unnoise.data.builders import svg

PLAIN = '<path fill="#ff0000" d="M0 0h10v10H0z"/>'


def drawing(body: str) -> str:
    return svg.document(body, 0, 0, 10, 10)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ('<image href="file:///etc/passwd"/>', "<image> is not among the plain shapes"),
        ("<script>1</script>", "<script> is not"),
        ("<style>@import 'x'</style>", "<style> is not"),
        ("<text>a</text>", "<text> is not"),
        ("<foreignObject/>", "<foreignObject> is not"),
        ('<filter id="f"><feImage href="a.png"/></filter>', "<feImage> is not"),
        ('<use href="other.svg#a"/>', "href='other.svg#a' reaches outside"),
        ('<use xlink:href="http://x/y"/>', "xlink:href='http://x/y' reaches outside"),
        ('<path fill="url(http://x/y)" d=""/>', "reaches outside"),
        ('<path style="fill: URL( \'x.svg#a\')" d=""/>', "reaches outside"),
        ('<path onclick="x()" d=""/>', "onclick.* reaches outside"),
        ('<g id="a"><use href="#a"/></g>', "#a uses itself"),
        ('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>', "uses itself"),
        ("<g>" * 101 + "</g>" * 101, "nested deeper"),
        (PLAIN * 20_001, "more than 20,000 elements"),
        ("<g>", "not well-formed"),
        ("<desc>" + "x" * 2**21 + "</desc>", "over the limit"),
    ],
)
def test_what_is_refused(body: str, match: str) -> None:
    with pytest.raises(svg.BadDrawing, match=match):
        svg.check(drawing(body))


def test_laughs_are_refused_before_they_are_drawn() -> None:
    levels = "".join(f'<g id="l{k}">' + f'<use href="#l{k - 1}"/>' * 10 + "</g>" for k in range(1, 12))
    with pytest.raises(svg.BadDrawing, match="once each use is followed"):
        svg.check(drawing(f'<g id="l0">{PLAIN}</g>{levels}'))
    entity = '<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>'
    with pytest.raises(svg.BadDrawing, match="document type or entities"):
        svg.check(entity)


def test_what_is_drawn() -> None:
    renderer = pytest.importorskip("resvg_py")
    body = '<g id="a">' + PLAIN.replace("h10v10H0", "h4v4H0") + '</g><use href="#a" x="6" y="6"/>'
    pixels = np.asarray(Image.open(io.BytesIO(svg.render(renderer, drawing(body), 20))))
    assert pixels.shape == (20, 20, 4)
    alpha = np.zeros((20, 20), np.uint8)
    alpha[:8, :8] = alpha[12:, 12:] = 255
    assert (pixels[..., 3] == alpha).all() and (pixels[alpha > 0, :3] == (255, 0, 0)).all()
    wide = svg.document(PLAIN.replace("h10v10H0", "h20v10H0"), 0, 0, 20, 10)
    pixels = np.asarray(Image.open(io.BytesIO(svg.render(renderer, wide, 20))))
    assert (pixels[5:15, :, 3] == 255).all() and not pixels[:5].any() and not pixels[15:].any(), "centred"
    with pytest.raises(svg.BadDrawing, match="cannot be rendered"):
        svg.render(renderer, "<g/>", 8)
