"""Debian's Chromium, driven by Playwright, and the ways of a person who uses the page."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 60_000
TABLE_HEAD, TABLE_ROW, TICK = 35, 35, 16
"""Pixels of a table's canvas."""


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Skips where there is none, but never on CI."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and not os.environ.get("CI"):
        pytest.skip("needs Chromium: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found or "chromium", args=FLAGS)
        yield browser
        browser.close()


class Person:
    """Somebody at a browser of their own.

    Args:
        texts: key -> text of the language that the browser asks for, as in ``i18n``.
    """

    def __init__(self, browser: Browser, address: str, language: str, texts: dict[str, str]) -> None:
        self.context = browser.new_context(locale=language, viewport={"width": 1280, "height": 900})
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.address, self.texts = address, texts
        self.dialogs: list[str] = []
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def opens(self, path: str = "/") -> None:
        self.page.goto(f"{self.address}{path}")

    def says(self, key: str, **values: object) -> str:
        return self.texts[key].format(**values) if values else self.texts[key]

    def button(self, key: str) -> Locator:
        return self.page.get_by_role("button", name=re.compile(rf"(^|\W){re.escape(self.says(key))}$")).first

    def field(self, key: str) -> Locator:
        return self.page.get_by_label(re.compile(f"^{re.escape(self.says(key))}")).first

    def presses(self, key: str) -> None:
        self.button(key).click()

    def writes(self, key: str, text: str) -> None:
        self.field(key).fill(text)
        self.field(key).press("Tab")

    def chooses_or_types(self, key: str, text: str) -> None:
        """In a field that offers words and takes others."""
        box = self.page.get_by_role(
            "combobox", name=re.compile(f"^{re.escape(self.says(key))}|{re.escape(self.says(key))}\\.?$")
        )
        box.first.fill(text)
        box.first.press("Enter")

    def unfolds(self, key: str) -> None:
        fold = self.page.get_by_test_id("stExpander").filter(has=self.page.locator("summary", has_text=self.says(key)))
        if fold.locator("details[open]").count() == 0:
            fold.locator("summary").click()

    def goes_to(self, key: str) -> None:
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=self.says(key), exact=True).click()

    def sees(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE_MS)

    def sees_not(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_text(text)).to_have_count(0)

    def sees_badge(self, key: str) -> None:
        badge = self.page.locator(".lm-badge", has_text=re.compile(f"^{re.escape(self.says(key))}$"))
        expect(badge.first).to_be_visible(timeout=PATIENCE_MS)

    def signs_in(self, username: str, password: str) -> None:
        self.writes("sign_in.username", username)
        self.field("sign_in.password").fill(password)
        self.presses("action.sign_in")
        expect(self.button("action.sign_out")).to_be_visible(timeout=PATIENCE_MS)
        self.page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")

    def ticks(self, *rows: int, table: int = 0) -> None:
        """Rows of a table, which is one canvas."""
        canvas = self.page.get_by_test_id("stDataFrame").nth(table)
        expect(canvas).to_be_visible()
        canvas.scroll_into_view_if_needed()
        for row in rows:
            canvas.click(position={"x": TICK, "y": TABLE_HEAD + TABLE_ROW * row + TABLE_ROW // 2})
