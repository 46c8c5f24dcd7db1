"""Pictures of every page in both languages, for docs/images: python scripts/screenshots.py URL USER PASSWORD [NAME ...]

The service behind URL should hold something worth looking at: runs, one of them still going on, a sweep, and a data set
with findings.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
TEXTS = ROOT / "src" / "loramill" / "ui" / "i18n"
LANGUAGES = {"en": "en-US", "zh-TW": "zh-TW"}
SIZE = {"width": 1280, "height": 960}
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SETTLE_SECONDS = 2.0
STILL = "[data-testid=stApp][data-test-script-state=notRunning]"
ROW_PIXELS = 33
TICKED = {"experiment": ((1,), "action.open"), "compare": ((2, 3), "action.compare")}
"""Rows of the list of experiments, the first of which still goes on, and what is done with them."""

PAGES = (
    "train",
    "tasks",
    "experiments",
    "sweeps",
    "data",
    "models",
    "admin",
    "experiment",
    "compare",
    "dark",
    "problem",
)
LIVE = "tasks"
"""The page that is shown in the dark, too."""

PATIENCE_MS = 240_000
COLOURS = 256


def main(address: str, username: str, password: str, wanted: list[str]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for language, locale in LANGUAGES.items():
            texts = json.loads((TEXTS / f"{language}.json").read_text(encoding="utf-8"))
            page = browser.new_context(locale=locale, viewport=SIZE).new_page()
            page.set_default_timeout(PATIENCE_MS)
            sign_in(page, address, username, password, texts, IMAGES / f"{language}-sign_in.png")
            for name in wanted or PAGES:
                show(page, name, texts)
                take(page, IMAGES / f"{language}-{name}.png")
        browser.close()


def sign_in(page: Page, address: str, username: str, password: str, texts: dict[str, str], image: Path) -> None:
    page.goto(address)
    page.get_by_label(re.compile(f"^{texts['sign_in.password']}")).first.wait_for()
    take(page, image)
    page.get_by_label(texts["sign_in.username"]).fill(username)
    page.get_by_label(re.compile(f"^{texts['sign_in.password']}")).first.fill(password)
    page.get_by_role("button", name=texts["action.sign_in"]).click()
    page.get_by_role("button", name=re.compile(texts["action.sign_out"])).wait_for()


def show(page: Page, name: str, texts: dict[str, str]) -> None:
    """Go there as a person would; the newest finished runs are opened and compared."""
    page.emulate_media(color_scheme="dark" if name == "dark" else "light")
    if name == "problem":
        page.goto(f"{page.url.split('?')[0].rpartition('/')[0]}/experiment?id=mistyped")
        page.locator(".lm-problem").wait_for()
        return
    name = LIVE if name == "dark" else name
    section = "experiments" if name in TICKED else name
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=texts[f"nav.{section}"], exact=True).click()
    page.get_by_text(texts[f"{section}.about"]).first.wait_for()
    if name in TICKED:
        rows, action = TICKED[name]
        table = page.get_by_test_id("stDataFrame").first
        table.wait_for()
        for row in rows:
            table.click(position={"x": 16, "y": ROW_PIXELS * (row + 1.5)})
        page.get_by_test_id("stButton").get_by_role("button", name=re.compile(f"{texts[action]}$")).click()
        page.get_by_role("button", name=re.compile(texts["action.back_to_list"])).wait_for()


def take(page: Page, image: Path) -> None:
    """Once nothing moves any more; few colours make small files."""
    from PIL import Image

    for _ in range(2):  # charts and tables begin to load when their places are drawn
        page.wait_for_selector(STILL)
        page.wait_for_load_state("networkidle")
        time.sleep(SETTLE_SECONDS)
    page.wait_for_selector(STILL)
    image.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=image)
    Image.open(image).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(image, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
