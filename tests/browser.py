"""Headless Chromium, for pages that people will look at: what it complains of, asks for and shows."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no Chromium on this machine: apt-get install chromium"
OWN = "not an origin"
"""Who Chromium names for requests that no page made, such as its look for updates."""
PROBE = """<script>addEventListener("load", () => {
const box = e => { const r = e.getBoundingClientRect(); return [r.x, r.y + scrollY, r.width, r.height] };
const all = name => [...document.querySelectorAll(name)];
document.body.dataset.probe = JSON.stringify({
  images: all("img").map(e => ({alt: e.alt, natural: e.naturalWidth, box: box(e)})),
  tables: all("table").map(e => ({rows: e.rows.length, box: box(e), text: e.innerText})),
  charts: all("svg").map(e => ({curves: e.querySelectorAll("polyline").length, box: box(e)})),
  headings: all("h2").map(e => e.innerText),
  text: document.body.innerText,
  wider: document.documentElement.scrollWidth - innerWidth,
  height: document.documentElement.scrollHeight,
})})</script>"""


@dataclass(frozen=True)
class Opened:
    """A page as the browser has it."""

    facts: dict[str, Any]
    """What PROBE found: images, tables, charts, ... with their boxes in pixels."""
    console: list[str]
    """Messages of the page."""
    requests: list[str]
    """Addresses that it asked for besides its own file."""
    pixels: np.ndarray
    """The whole page, uint8 (H, W, 3)."""

    def cut(self, box: list[float]) -> np.ndarray:
        """The pixels of a box (x, y, width, height)."""
        x, y, width, height = (round(v) for v in box)
        return self.pixels[y : y + height, x : x + width]


def open_page(page: Path, folder: Path, *, width: int = 1100) -> Opened:
    """Open a copy of a page with a probe in it, then the page itself for its picture; both in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    probed = folder / "probed.html"
    text = page.read_text(encoding="utf-8")
    probed.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    log = folder / "net.json"
    done = _run(folder, f"--log-net-log={log}", f"--window-size={width},900", "--dump-dom", probed.as_uri())
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    facts = json.loads(html.unescape(found[1]))
    shot = folder / "page.png"
    _run(folder, f"--window-size={width},{facts['height']}", f"--screenshot={shot}", page.resolve().as_uri())
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return Opened(facts, re.findall(r"CONSOLE\S* (.*)", done.stderr), _requests(log), pixels)


def _run(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"),
    ]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)


def _requests(log: Path) -> list[str]:
    """What pages asked the network for; files and data: addresses never come so far."""
    content = json.loads(log.read_text())
    started = content["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    events = [e.get("params", {}) for e in content["events"] if e["type"] == started]
    return [e["url"] for e in events if "url" in e and e.get("initiator") != OWN]
