"""Pictures of the page at /ui for ``docs/page``, taken anew by ``make screenshots``."""

import tempfile
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.browser import IRIS, browser, visiting
from tests.e2e.server import running

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "page"
NEW_ROWS = "5.1, 3.5, 1.4, 0.2\n6.3, 2.8, 5.1, 1.5\n5.9, 3.0, 4.2, 1.5"


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory) / "registry") as server,
        browser() as chromium,
    ):
        with visiting(chromium, server.url, width=1360) as visit:
            visit.declare("iris", n_components=3)
            visit.upload(IRIS)
            visit.fit(version=1)
            visit.page.locator("#axis-x").select_option(label="petal_length")
            visit.page.locator("#scatter").focus()
            for _ in range(101):
                visit.page.keyboard.press("ArrowRight")
            visit.page.screenshot(path=PICTURES / "clusters.png")
            visit.page.keyboard.press("Escape")
            visit.select("1-5", ("full", "tied", "diag", "spherical"), version=2)
            visit.predict(NEW_ROWS)
            visit.press("Diagnose the rows")
            expect(visit.page.locator("#components tbody tr")).to_have_count(2)
            visit.page.screenshot(path=PICTURES / "selection.png", full_page=True)
        with visiting(chromium, server.url, width=390, height=844, colours="dark") as visit:
            visit.page.get_by_role("link", name="iris").click()
            visit.upload(IRIS)
            visit.page.get_by_label("Version").select_option("1")
            expect(visit.page.locator("ellipse.sigma-1")).to_have_count(3)
            expect(visit.page.locator("#clusters-note")).to_contain_text("150 rows of iris.csv")
            visit.page.locator("#clusters-title").scroll_into_view_if_needed()
            visit.page.locator("#colour").select_option("uncertainty")
            visit.page.mouse.wheel(0, 420)
            visit.page.wait_for_timeout(300)  # the wheel moves smoothly
            visit.page.screenshot(path=PICTURES / "narrow-dark.png")


if __name__ == "__main__":
    main()
