"""`python -m experiments.page_shots`: what the report page looks like, as docs/figures/report_page*.png.

Prices the shipped digits network on Stripes, writes its page, and photographs it in Chromium, light and dark. Needs
playwright and a Chromium on the PATH; pictures differ by the fonts of the machine, so that nothing compares them.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import hwsim
from experiments.drawing import write_bytes
from hwsim.console import wrote
from hwsim.report.files import write_report

NETWORK, MACHINE = "networks/digits_silu_w4a4", "stripes"
WIDTH, MARGIN = 1100, 16  # pixels; below the last section
# Picture -> colour scheme, and the sections of the page that it shows.
PICTURES = {"report_page": ("light", ("#time", "#roofline")), "report_page_dark": ("dark", ("#machine",))}


def small(png: bytes) -> bytes:
    """The picture with 128 colours: a quarter of the bytes, no difference to see."""
    from PIL import Image

    target = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128).save(target, "png", optimize=True)
    return target.getvalue()


def photograph(page_file: Path, browser: str) -> dict[str, bytes]:
    """Every picture of the page, as PNG."""
    from playwright.sync_api import sync_playwright

    found: dict[str, bytes] = {}
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for name, (scheme, sections) in PICTURES.items():
            page = chromium.new_page(color_scheme=scheme, viewport={"width": WIDTH, "height": 900})  # type: ignore[arg-type]
            page.goto(page_file.as_uri())
            page.add_style_tag(content="nav { position: static !important }")
            boxes = [box for s in sections if (box := page.locator(s).bounding_box())]
            top, bottom = min(b["y"] for b in boxes), max(b["y"] + b["height"] for b in boxes)
            clip = {"x": 0.0, "y": top, "width": float(WIDTH), "height": bottom - top + MARGIN}
            found[name] = small(page.screenshot(full_page=True, clip=clip))  # type: ignore[arg-type]
            page.close()
        chromium.close()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 without a browser."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.page_shots", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args(arguments)
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("experiments.page_shots: no Chromium on the PATH (Debian: apt-get install chromium)")
        return 2
    report = hwsim.evaluate(NETWORK, MACHINE, effort="quick")
    with tempfile.TemporaryDirectory() as folder:
        write_report(report, Path(folder) / "page")
        for name, png in photograph(Path(folder) / "page" / "report.html", browser).items():
            wrote(write_bytes(options.out / f"{name}.png", png))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
