"""A real browser on the page at /ui, as a person drives it: words on buttons, files, keys."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
IRIS = Path(__file__).resolve().parents[2] / "examples" / "data" / "iris.csv"
PATIENCE_MS = 60_000
"""On a machine that does much else; nothing waits for so long by itself."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One window on the page, and everything that it complained of."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors of scripts, breaches of the policy, requests to elsewhere."""

    def declare(
        self,
        model_id: str,
        *,
        n_components: int,
        n_init: int = 1,
        principal_axes: int | None = None,
    ) -> None:
        self.page.get_by_role("button", name="New model").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_label("Id").fill(model_id)
        dialog.get_by_label("Components").fill(str(n_components))
        dialog.get_by_label("Restarts").fill(str(n_init))
        if principal_axes is not None:
            dialog.get_by_label("Standardise features").check()
            dialog.get_by_label("Principal axes").fill(str(principal_axes))
        dialog.get_by_role("button", name="Declare").click()
        expect(self.page.locator("#model-id")).to_have_text(model_id)

    def upload(self, file: Path) -> None:
        self.page.get_by_label("choose a file").set_input_files(file)
        expect(self.page.locator("#rows-name")).to_have_text(file.name)

    def paste(self, text: str) -> None:
        self.page.get_by_placeholder("paste rows").fill(text)
        self.page.get_by_role("button", name="Use pasted rows").click()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def fit(self, *, version: int) -> None:
        self.press("Fit")
        self.expect_version(version)

    def select(self, sizes: str, families: tuple[str, ...], *, version: int) -> None:
        form = self.page.locator("#select-form")
        form.get_by_label("Components").fill(sizes)
        for box in form.get_by_role("checkbox").all():
            box.set_checked(box.get_attribute("value") in families)
        self.press("Select")
        self.expect_version(version)

    def expect_version(self, version: int) -> None:
        chosen = self.page.get_by_label("Version").locator("option:checked")
        expect(chosen).to_have_text(f"latest → v{version}")
        expect(self.page.locator("#job")).to_be_hidden()

    def predict(self, text: str) -> None:
        self.page.get_by_label("New rows, one a line").fill(text)
        self.press("Predict")
        expect(self.page.locator("#predictions tbody tr")).to_have_count(len(text.splitlines()))


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM)
        expect.set_options(timeout=PATIENCE_MS)
        try:
            yield launched
        finally:
            launched.close()


@contextmanager
def visiting(
    browser: Browser,
    url: str,
    *,
    width: int = 1440,
    height: int = 900,
    colours: Literal["light", "dark"] = "light",
) -> Iterator[Visit]:
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=colours,
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(context.new_page())
    visit.page.on("console", lambda message: _note(message, visit.complaints))
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((url, "blob:")) else visit.complaints.append(asked.url)
        ),
    )
    try:
        visit.page.goto(f"{url}/ui")
        yield visit
    finally:
        context.close()


def _note(message: ConsoleMessage, complaints: list[str]) -> None:
    if message.type in {"error", "warning"}:
        complaints.append(message.text)
