"""The page at /ui in a real browser: from rows to clusters, a selection and predictions."""

import hashlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, expect  # noqa: E402  # only where it is installed

from tests.e2e.browser import CHROMIUM, IRIS, Visit, browser, visiting  # noqa: E402
from tests.e2e.server import Server, running  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; `make browser` installs it"),
]

TWO_FLOWERS = "5.1, 3.5, 1.4, 0.2\n6.3, 2.8, 5.1, 1.5"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("page") / "registry") as server:
        yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as launched:
        yield launched


@pytest.fixture
def visit(chromium: Browser, server: Server) -> Iterator[Visit]:
    with visiting(chromium, server.url) as visit:
        yield visit
        assert visit.complaints == []


@pytest.fixture
def fitted(visit: Visit, request: pytest.FixtureRequest) -> Visit:
    """Open a model that was fitted to iris on the page, one for each test."""
    visit.declare(model_named_after(request), n_components=3)
    visit.upload(IRIS)
    visit.fit(version=1)
    return visit


def model_named_after(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("_", "-")[:60].strip("-")


def test_iris_is_uploaded_fitted_seen_selected_and_predicted(visit: Visit) -> None:
    page = visit.page
    visit.declare("iris", n_components=3, n_init=5)
    visit.upload(IRIS)
    expect(page.locator("#rows-size")).to_have_text("150 rows, 4 features in use")

    visit.fit(version=1)
    expect(page.locator("ellipse.sigma-1")).to_have_count(3)
    expect(page.locator("ellipse.sigma-2")).to_have_count(3)
    expect(page.locator("#clusters-note")).to_contain_text("150 rows of iris.csv")
    expect(page.locator("#figures")).to_contain_text("-180.18")

    visit.select("1-3", ("full", "tied"), version=2)
    expect(page.locator("#selection-note")).to_contain_text("Best by BIC: 2 components, full")
    expect(page.locator("#leaderboard tbody tr")).to_have_count(6)
    expect(page.locator("ellipse.sigma-1")).to_have_count(2)
    expect(page.locator("#version-facts")).to_have_text("v2: K = 2, full")
    expect(page.locator("#model-facts")).to_contain_text("declared for the next fit: K = 3, full")
    expect(page.get_by_role("link", name="iris")).to_contain_text("v2 · declared K = 3, full")

    visit.predict(TWO_FLOWERS)
    shares = page.locator("#predictions tbody tr td:nth-child(8)").all_inner_texts()
    assert shares == ["100 %", "100 %"]


def test_rows_and_labels_are_diagnosed_and_set_beside_k_means(fitted: Visit) -> None:
    fitted.press("Diagnose the rows")
    expect(fitted.page.locator("#components tbody tr")).to_have_count(3)
    expect(fitted.page.locator("#diagnosed")).to_contain_text("Silhouette")
    overlap = fitted.page.locator("#components tbody tr td:last-child").first
    expect(overlap).to_have_text(re.compile(r"0\.\d*[1-9]\d* with 2"))

    fitted.press("Compare with k-means")
    expect(fitted.page.locator("#components")).to_contain_text("Inertia")


def test_a_point_tells_its_responsibilities_to_keys_and_pointer(fitted: Visit) -> None:
    page = fitted.page
    hint = page.locator("#hint")
    expect(page.locator("ellipse.sigma-1")).to_have_count(3)

    page.locator("#scatter").focus()
    page.keyboard.press("End")
    expect(hint).to_contain_text(re.compile(r"Row \d+ · component \d"))
    expect(hint.locator(".shares")).to_contain_text("%")
    page.keyboard.press("Escape")
    expect(hint).to_be_hidden()

    page.locator("#scatter").press("Home")
    place = page.locator("#scatter .here").bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + 3, place["y"] + 3)
    expect(hint).to_be_visible()


def test_uncertainty_and_other_features_are_a_choice_away(fitted: Visit) -> None:
    page = fitted.page
    page.locator("#colour").select_option("uncertainty")
    expect(page.locator("#scatter-legend")).to_contain_text("as unsure as can be")

    page.locator("#axis-x").select_option(label="petal_length")
    expect(page.locator("#scatter svg[role=img]")).to_have_attribute(
        "aria-label", re.compile("petal_length and sepal_width")
    )


def test_a_model_of_principal_axes_is_seen_along_them_and_along_features(visit: Visit) -> None:
    page = visit.page
    visit.declare("principal", n_components=3, principal_axes=2)
    visit.upload(IRIS)
    visit.fit(version=1)

    overlay = page.locator("#scatter svg[role=img]")
    expect(overlay).to_have_attribute("aria-label", re.compile(r"PC 1 \(73 %\) and PC 2 \(23 %\)"))
    expect(page.locator("#figures")).to_contain_text("principal")
    page.locator("#axis-x").select_option(label="petal_length")
    expect(overlay).to_have_attribute("aria-label", re.compile("petal_length"))
    expect(page.locator("ellipse.sigma-1")).to_have_count(3)


def test_rows_of_a_single_feature_lie_in_a_lane_for_each_component(visit: Visit) -> None:
    page = visit.page
    visit.declare("single", n_components=2)
    visit.paste("length\n1.0\n1.1\n0.9\n1.2\n5.0\n5.1\n4.9\n5.3")
    visit.fit(version=1)

    expect(page.locator("ellipse.sigma-2")).to_have_count(2)
    expect(page.locator("#scatter svg[role=img]")).to_have_attribute(
        "aria-label", re.compile("length and component")
    )
    boxes = [each.bounding_box() for each in page.locator("ellipse.sigma-2").all()]
    (low, high) = sorted((box for box in boxes if box is not None), key=lambda box: box["y"])
    assert low["y"] + low["height"] < high["y"]
    page.locator("#scatter").press("Home")
    expect(page.locator("#hint")).to_contain_text("length 0.9")


def test_the_ellipses_of_the_page_are_those_of_the_covariances(visit: Visit) -> None:
    covariance = np.array([[4.0, 1.8], [1.8, 1.0]])
    pixels = np.array([30.0, -50.0])  # to a unit, downwards on a screen
    found = visit.page.evaluate(
        """async ([xx, xy, yy, x, y]) =>
             (await import("./ui/geometry.js")).ellipseOf({ xx, xy, yy }, x, y)""",
        [*covariance[[0, 0, 1], [0, 1, 1]], *pixels],
    )
    away = np.random.default_rng(0).multivariate_normal([0, 0], covariance, size=20_000) * pixels
    angle = np.deg2rad(found["degrees"])
    along = away @ [np.cos(angle), np.sin(angle)] / found["rx"]
    across = away @ [-np.sin(angle), np.cos(angle)] / found["ry"]

    for sigmas in (1, 2):
        expected = 1 - np.exp(-0.5 * sigmas**2)
        share = np.mean(along**2 + across**2 <= sigmas**2)
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 20_000))


def test_an_alias_leads_questions_to_an_older_version(fitted: Visit) -> None:
    page = fitted.page
    page.get_by_role("textbox", name="Alias").fill("champion")
    fitted.press("Lead to v1")
    expect(page.locator("#alias-list")).to_contain_text("champion → v1")

    page.locator("#fit-form").get_by_label("Components").fill("2")
    fitted.fit(version=2)
    expect(page.locator("ellipse.sigma-1")).to_have_count(2)

    page.get_by_label("Version").select_option(label="champion → v1")
    expect(page.locator("ellipse.sigma-1")).to_have_count(3)


def test_a_model_is_changed_for_its_next_fit(fitted: Visit) -> None:
    page = fitted.page
    page.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Id")).to_be_disabled()
    expect(dialog.get_by_label("Components")).to_have_value("3")
    dialog.get_by_label("Components").fill("2")
    dialog.get_by_label("Description").fill("two will do")
    dialog.get_by_text("How it is fitted").click()
    dialog.get_by_label("Steps at the most").fill("1")
    dialog.get_by_label("Added to variances").fill("0.01")
    dialog.get_by_role("button", name="Save").click()

    expect(page.locator("#model-facts")).to_contain_text(
        "two will do · declared for the next fit: K = 2, full"
    )
    expect(page.locator("#fit-form").get_by_label("Components")).to_have_value("2")
    fitted.fit(version=2)
    expect(page.locator("ellipse.sigma-1")).to_have_count(2)
    expect(page.locator("#convergence-note")).to_contain_text("max iter after 1 steps")


def test_a_model_is_deleted_when_that_is_confirmed(fitted: Visit) -> None:
    page = fitted.page
    name = page.locator("#model-id").inner_text()
    page.get_by_role("button", name="Delete").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(page.locator("#model")).to_be_hidden()
    expect(page.locator("#model-list").get_by_text(name, exact=True)).to_have_count(0)


def test_a_model_without_rows_at_hand_shows_rows_drawn_from_it(fitted: Visit) -> None:
    fitted.page.reload()

    expect(fitted.page.locator("#clusters-note")).to_contain_text("500 rows drawn")
    expect(fitted.page.locator("ellipse.sigma-1")).to_have_count(3)


def test_the_curl_command_that_is_shown_does_the_same(fitted: Visit) -> None:
    page = fitted.page
    fitted.predict(TWO_FLOWERS)
    page.get_by_role("button", name="Copy as curl: predict").click()
    expect(page.locator("#curl-note")).to_have_text("Copied to the clipboard.")
    command = page.locator("#curl-text").inner_text().split("\n\n")[0]

    words = shlex.split(command)
    answer = httpx.post(words[4], content=words[-1], headers={"Content-Type": "application/json"})

    assert words[:4] == ["curl", "-sS", "-X", "POST"]
    shown = page.locator("#predictions tbody tr td:nth-child(6)").all_inner_texts()
    assert [str(label) for label in answer.json()["labels"]] == [text.strip() for text in shown]


def test_every_card_shows_its_requests_as_curl_commands(fitted: Visit) -> None:
    page = fitted.page
    fitted.select("1-2", ("full",), version=2)
    fitted.predict(TWO_FLOWERS)
    fitted.press("Diagnose the rows")
    expect(page.locator("#components tbody tr")).to_have_count(2)
    cards = [button.get_attribute("data-curl") for button in page.locator("[data-curl]").all()]
    for card in cards:
        page.get_by_role("button", name=f"Copy as curl: {card}", exact=True).click()
        expect(page.locator("#curl-text")).to_contain_text(re.compile(r"^curl -sS "))
        page.locator("#curl-close").click()

    assert len(cards) == 10


def test_a_fit_grows_live_and_is_cancelled(visit: Visit, server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        patient = {"id": "patient", "n_components": 30, "tol": 0.0, "max_iter": 100_000}
        client.post("/models", json=patient | {"n_init": 100}).raise_for_status()
    rows = tmp_path / "rows.csv"
    X = np.random.default_rng(0).random((20_000, 2))
    np.savetxt(rows, X, delimiter=",", header="a,b", comments="", fmt="%.6f")
    visit.page.reload()
    visit.page.get_by_role("link", name="patient").click()
    visit.upload(rows)

    visit.press("Fit")
    expect(visit.page.locator("#convergence-note")).to_have_text(re.compile(r"Live: start \d+"))
    expect(visit.page.locator("#convergence canvas")).to_be_visible()
    expect(visit.page.locator("#job-state")).to_contain_text("step")
    visit.press("Cancel")

    expect(visit.page.locator("#fit-problem")).to_contain_text("cancelled")
    expect(visit.page.locator("#job")).to_be_hidden()


def test_rows_that_are_no_table_are_told_where(visit: Visit) -> None:
    visit.declare("ragged", n_components=1)
    visit.paste("1, 2\n3, 4\n5")

    expect(visit.page.locator("#rows-problem")).to_have_text(
        "Row 3 has 1 values; the first line has 2."
    )


@pytest.mark.parametrize(
    ("text", "size", "problem"),
    [
        ("a,b\n1,NaN\n2,3", "2 rows, 2 features", "Row 1, column b: NaN is no number."),
        ("a,b\n1,2\n3,x", "2 rows, 2 features", "Row 2, column b: x is no number."),
        ("1,2\n3,4\n5,", "3 rows, 2 features", "Row 3, column 2: the cell is empty."),
        (
            "1,2\n1e999,-inf",
            "2 rows, 2 features",
            "Row 2, column 1: 1e999 is too large a number, an",
        ),
        ("a;b\n1,5;2,5\n3;4", "2 rows, 2 features", "1,5 is no number; decimals take a point"),
        ("a\tb\n1,5\t2\n3\t4", "2 rows, 2 features", "Row 1, column a: 1,5 is no number;"),
        ("NaN,2\n3,4", "2 rows, 2 features", "Row 1, column 1: NaN is no number."),
        ("a,b\nx,y\nz,t", "2 rows, 0 features", "No column holds numbers. Row 1, column a: x is"),
    ],
)
def test_a_cell_that_holds_no_number_is_told_where(
    visit: Visit, text: str, size: str, problem: str
) -> None:
    page = visit.page
    visit.declare(f"cells-{hashlib.sha256(text.encode()).hexdigest()[:8]}", n_components=1)
    visit.paste(text)

    expect(page.locator("#rows-size")).to_contain_text(f"{size} in use")
    expect(page.locator("#rows-problem")).to_contain_text(problem)


def test_a_column_with_a_fault_is_left_out_when_that_is_chosen(visit: Visit) -> None:
    page = visit.page
    visit.declare("left-out", n_components=1)
    visit.paste("a,b,note\n1,2,one\n3,x,two\n5,6,three\n7,9,four")
    expect(page.locator("#rows-size")).to_have_text("4 rows, 2 features in use; note holds words")
    visit.press("Fit")
    expect(page.locator("#fit-problem")).to_have_text("Row 2, column b: x is no number.")

    page.locator("#features").get_by_label("b").uncheck()
    expect(page.locator("#rows-problem")).to_be_hidden()
    visit.fit(version=1)
    expect(page.locator("#clusters-note")).to_contain_text("4 rows of Pasted rows")


def test_a_first_line_of_numbers_and_a_label_is_a_row(visit: Visit) -> None:
    visit.declare("unnamed", n_components=1)
    visit.paste("5.1,3.5,Iris-setosa\n6.3,2.8,Iris-virginica\n6.0,2.7,Iris-virginica")

    expect(visit.page.locator("#rows-size")).to_have_text("3 rows, 2 features in use")
    expect(visit.page.locator("#truth")).to_have_value("x3")


def test_rows_that_can_t_be_predicted_are_told_why_and_replace_the_old_answer(
    fitted: Visit,
) -> None:
    page = fitted.page
    problem = page.locator("#predict-problem")
    for text, why in {
        "5.1,3.5,1.4,0.2\n6,3,x,1.8": "Row 2, column 3: x is no number.",
        "5.1,3.5,1.4,0.2\n6,3,,1.8": "Row 2, column 3: the cell is empty.",
        "5.1,3.5,1e999,0.2": "Row 1, column 3: 1e999 is too large a number.",
        "5.1,x,1.4,0.2": "Row 1, column 2: x is no number.",
        "NaN,1,2,3": "Row 1, column 1: NaN is no number.",
        "1,2,3": "The rows have 3 features, the version 4.",
        "sepal_length,petal_length\n1,2": "no column sepal_width, petal_width;",
        "": "There are no rows in it.",
    }.items():
        fitted.predict(TWO_FLOWERS)
        expect(problem).to_be_hidden()
        page.get_by_label("New rows, one a line").fill(text)
        fitted.press("Predict")
        expect(problem).to_contain_text(why)
        expect(page.locator("#predictions tbody tr")).to_have_count(0)

    fitted.predict("5.1,3.5,1.4,0.2,Iris-setosa")


def test_the_chart_of_a_selection_shows_the_better_candidates(visit: Visit) -> None:
    page = visit.page
    visit.declare("geyser", n_components=2)
    visit.upload(IRIS.with_name("faithful.csv"))
    visit.select("1-4", ("tied", "spherical"), version=1)

    expect(page.locator("#selection-note")).to_contain_text("arrows mark those beyond the axis")
    expect(page.locator("#selection p")).to_contain_text(
        re.compile(r"spherical: 4 points, 4 beyond the axis.*tied: 4 points, 1 beyond the axis")
    )
    lowest = page.locator("#selection canvas").evaluate(
        """canvas => {
          const { width, height } = canvas;
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
          let lowest = -1;
          for (let i = 0; i < data.length; i += 4) {
            // The first colour of the light palette: that of the spherical ones.
            if (data[i] === 0x00 && data[i + 1] === 0x72 && data[i + 2] === 0xb2) lowest = i / 4;
          }
          return Math.floor(lowest / width) / height;
        }"""
    )
    assert 0 <= lowest < 0.15  # arrows alone, at the edge


def test_a_csv_may_be_dropped_and_rows_may_be_pasted(visit: Visit) -> None:
    page = visit.page
    visit.declare("handed-over", n_components=1)
    dropped = page.evaluate_handle(
        """text => {
          const data = new DataTransfer();
          data.items.add(new File([text], "iris.csv", { type: "text/csv" }));
          return data;
        }""",
        IRIS.read_text(encoding="utf-8"),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    expect(page.locator("#rows-size")).to_have_text("150 rows, 4 features in use")

    visit.press("Other rows")
    visit.paste("a, b\n1, 2\n3, 4\n5, 7")
    expect(page.locator("#rows-size")).to_have_text("3 rows, 2 features in use")
    visit.fit(version=1)
    expect(page.locator("ellipse.sigma-1")).to_have_count(1)


def test_a_refusal_of_the_service_is_shown_as_it_says(chromium: Browser, server: Server) -> None:
    with visiting(chromium, server.url) as visit:
        visit.declare("few", n_components=3)
        visit.paste("1, 2\n3, 4")
        visit.press("Fit")

        expect(visit.page.locator("#fit-problem")).to_contain_text("3")
        assert all("422" in complaint for complaint in visit.complaints)


def test_the_page_fits_a_narrow_screen_in_the_dark(
    chromium: Browser, server: Server, fitted: Visit
) -> None:
    address = fitted.page.url
    with visiting(chromium, server.url, width=375, height=740, colours="dark") as narrow:
        narrow.page.goto(address)
        narrow.page.reload()
        expect(narrow.page.locator("ellipse.sigma-1")).to_have_count(3)
        width = narrow.page.evaluate("document.documentElement.scrollWidth")

        assert width <= 375
        assert narrow.page.locator("html").get_attribute("data-theme") == "dark"
        assert narrow.complaints == []


def test_the_theme_is_kept(visit: Visit) -> None:
    visit.press("Theme: auto")
    visit.press("Theme: light")
    visit.page.reload()

    expect(visit.page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert visit.page.locator("html").get_attribute("data-theme") == "dark"
