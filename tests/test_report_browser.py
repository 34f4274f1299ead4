"""The page of `rlcap report` in a real browser: nothing is wider than the screen, dark is dark, and nothing is fetched.

`pytest -m slow tests/test_report_browser.py --basetemp FOLDER` leaves pictures of the page there to be looked at.
"""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from rlcap.cli import main

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium"),
]
RECIPE = """
name: a_name_that_is_rather_long_for_a_narrow_screen_of_a_phone
data: {path: scenes}
encoder: {name: small_cnn, width: 32}
policy: {name: leakgan, embedding: 8, hidden: 16, manager: 8, goal: 4, attention: 8, discriminator: {hidden: 8}}
trainer:
  name: adversarial
  rollout: {samples: 1, length: 12, graph: scored}
  playouts: {every: 4, count: 1}
  turns: {pretraining: 6, adversarial: 1, likelihood: 1}
training: {updates: 8, images: 8, captions: 1, evaluate_every: 4 updates, log_every: 1, threads: 1, device: cpu}
decoding: {length: 12, sample: true}
"""
# Put into a copy of the page: what it measures of itself goes to the page around it.
PROBE = """<script>addEventListener("load", () => {
  const wide = document.documentElement, scrolls = (node) => node && (getComputedStyle(node).overflowX !== "visible"
    ? true : scrolls(node.parentElement));
  const out = [...document.body.querySelectorAll("*")].filter((node) => !scrolls(node.parentElement) &&
    node.getBoundingClientRect().right > wide.clientWidth + 1).map((node) => node.outerHTML.slice(0, 80));
  parent.postMessage({width: wide.clientWidth, needed: wide.scrollWidth, out,
    paper: getComputedStyle(document.body).backgroundColor,
    unseen: [...document.querySelectorAll("svg[role=img]")].filter((node) => !node.closest("details") &&
      node.getBoundingClientRect().height < 10).length}, "*");
});</script>"""
FRAME = """<!DOCTYPE html><body style="margin:0"><pre id="told"></pre><iframe src="probed.html"
style="border:0;width:{width}px;height:4000px"></iframe><script>addEventListener("message", (event) => {{
document.getElementById("told").textContent = JSON.stringify(event.data); }});</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Of three runs, whose names are long."""
    home = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["--quiet", "prepare", "scenes", "--out", "scenes", "--count", "60", "--min-count", "2"]) == 0
        Path("tiny.yaml").write_text(RECIPE)
        names = ["run", "another_run_with_a_long_name", "b" * 40]
        for seed, name in enumerate(names):
            assert main(["--quiet", "train", "tiny.yaml", f"training.seed={seed}", "--out", name]) == 0
        (home / "run" / "metrics.jsonl").open("a").write(
            '{"update": 8, "wall_time": 2e9, "warning/x": "the reward has not risen; try a higher rate"}\n'
        )
        assert main(["--quiet", "report", *names, "--out", "report.html", "--device", "cpu"]) == 0
    return home / "report.html"


def browse(folder: Path, *arguments: str) -> str:
    """What headless chromium prints."""
    assert BROWSER is not None
    quiet = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
    given = ("--headless", "--no-sandbox", "--hide-scrollbars", "--no-first-run", *quiet)
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [BROWSER, *given, profile, *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_the_screen(page, tmp_path, width, scheme):
    html = page.read_text(encoding="utf-8")
    open_to_probe = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    (tmp_path / "probed.html").write_text(open_to_probe.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    preferred = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    frame = f"file://{tmp_path / 'frame.html'}"
    dumped = browse(tmp_path, preferred, "--virtual-time-budget=3000", "--window-size=1300,4000", "--dump-dom", frame)
    told = json.loads(
        re.search('<pre id="told">(.*?)</pre>', dumped, re.S)[1].replace("&lt;", "<").replace("&gt;", ">")
    )
    assert told["width"] == width
    assert told["needed"] <= width, told["out"]
    assert told["out"] == []
    assert told["unseen"] == 0  # of pictures and charts, outside what is folded away
    shade = sum(map(int, re.findall(r"\d+", told["paper"])[:3])) / 3
    assert shade > 200 if scheme == "light" else shade < 60
    shot = tmp_path / f"{scheme}_{width}.png"
    browse(tmp_path, preferred, f"--window-size={max(width, 520)},4000", f"--screenshot={shot}", frame)
    with Image.open(shot) as drawn:
        assert len(drawn.convert("RGB").getcolors(maxcolors=10**7)) > 200  # pictures and charts, not a blank page


@pytest.fixture
def asked() -> Iterator[tuple[int, list[str]]]:
    """A proxy that answers nothing: its port, and the addresses that were asked for."""
    heard: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_error(404)

        def do_CONNECT(self) -> None:
            self.do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, heard
    server.shutdown()


def test_nothing_is_fetched(page, tmp_path, asked):
    port, heard = asked
    proxy = (f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>")
    probe = tmp_path / "probe.html"
    probe.write_text('<img src="http://elsewhere.test/x.png">')
    browse(tmp_path, *proxy, "--virtual-time-budget=3000", "--dump-dom", f"file://{probe}")
    assert "http://elsewhere.test/x.png" in heard  # so the proxy hears a page that fetches
    own = {address.partition("://")[2].partition("/")[0] or address for address in heard} - {"elsewhere.test"}
    heard.clear()
    dumped = browse(tmp_path, *proxy, "--virtual-time-budget=3000", "--dump-dom", f"file://{page}")
    assert "Captions" in dumped
    fetched = {address.partition("://")[2].partition("/")[0] or address for address in heard}
    assert {address for address in fetched - own if "google" not in address} == set()  # the browser's own errands
