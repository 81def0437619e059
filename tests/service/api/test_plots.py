"""Pictures over HTTP: what they show as numbers, and that they can be drawn whatever is sent."""

import re
import sys
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, multivariate_normal
from scipy.stats import entropy as scipy_entropy
from sklearn.decomposition import PCA

from gmm_engine import COVARIANCE_FAMILIES, FitOptions, Mixture, fit
from service.api.plots.schemas import Plot
from service.domain.picturing import KINDS, Rows
from service.extras import installed_painter
from tests.service.client import Client
from tests.service.rows import TWO_GROUPS
from tests.support.data import iris

SVG, PNG_TYPE, JSON_TYPE = "image/svg+xml", "image/png", "application/json"
BEGINNINGS = {
    SVG: re.compile(rb"<\?xml .*\s*<!DOCTYPE svg"),
    PNG_TYPE: re.compile(rb"\x89PNG\r\n\x1a\n"),
    JSON_TYPE: re.compile(rb'\{"model":'),
}
JSON = {"accept": JSON_TYPE}
PNG = {"accept": PNG_TYPE}
SMALL = "width=480&height=320"
OF_ROWS = [name for name, kind in KINDS.items() if kind.rows is not Rows.NONE]


@pytest.fixture
def flowers(client: Client) -> Client:
    client.post("/models", {"id": "iris", "n_components": 3, "random_state": 0})
    response = client.post("/models/iris/fit", {"X": iris().tolist()})
    assert response.status_code == 200
    return client


@pytest.fixture
def selected(client: Client) -> Client:
    client.post("/models", {"id": "groups", "random_state": 0})
    rows = np.random.default_rng(0).standard_normal((60, 2)).tolist()
    grid = "n_components=1-3&covariance_type=diag&covariance_type=full&criterion=icl"
    response = client.post(f"/models/groups/select?{grid}", {"X": rows})
    assert response.status_code == 200, response.text
    return client


def mixture_of_iris() -> Mixture:
    return fit(iris(), FitOptions(3, random_state=0)).mixture


def numbers(client: Client, path: str, X: NDArray[np.float64] | None = None) -> dict[str, Any]:
    response = client.get(path, JSON) if X is None else client.post(path, {"X": X.tolist()}, JSON)
    assert response.status_code == 200, response.text
    Plot.model_validate(response.json())
    found: dict[str, Any] = response.json()  # of seven shapes, checked above
    return found


def axis_field(plane: dict[str, Any], name: str) -> NDArray[np.float64]:
    return np.array([axis[name] for axis in plane["axes"]])


def share_within(ellipse: dict[str, float], away: NDArray[np.float64]) -> float:
    """Return how many of the places, seen from the mean, lie in an ellipse."""
    angle = np.deg2rad(ellipse["angle_degrees"])
    along = away @ [np.cos(angle), np.sin(angle)] / (ellipse["width"] / 2)
    across = away @ [-np.sin(angle), np.cos(angle)] / (ellipse["height"] / 2)
    return float(np.mean(along**2 + across**2 <= 1))


@pytest.mark.parametrize("covariance_type", COVARIANCE_FAMILIES)
@pytest.mark.parametrize("features", ["", "?features=2,0"], ids=["principal", "chosen"])
def test_the_ellipses_hold_the_share_of_draws_that_normal_ones_hold(
    client: Client, covariance_type: str, features: str
) -> None:
    client.post(
        "/models",
        {
            "id": "iris",
            "n_components": 3,
            "covariance_type": covariance_type,
            "standardize": True,
            "random_state": 0,
        },
    )
    client.post("/models/iris/fit", {"X": iris().tolist()})
    found = numbers(client, f"/models/iris/plots/clusters{features}")
    drawn = client.post("/models/iris/sample", {"n_samples": 20_000, "random_state": 0}).json()
    basis = axis_field(found["plane"], "direction").T
    scaled = (np.array(drawn["X"]) - iris().mean(axis=0)) / iris().std(axis=0)
    places, labels = (scaled - found["plane"]["origin"]) @ basis, np.array(drawn["labels"])

    for number, component in enumerate(found["components"]):
        away = places[labels == number] - component["mean"]
        for ellipse in component["ellipses"]:
            expected = 1 - np.exp(-0.5 * ellipse["sigmas"] ** 2)
            spread = np.sqrt(expected * (1 - expected) / len(away))
            assert share_within(ellipse, away) == pytest.approx(expected, abs=4 * spread)


def test_the_bars_of_a_single_feature_hold_the_share_that_normal_ones_hold(client: Client) -> None:
    X = np.random.default_rng(0).normal(3.0, 2.0, size=(20_000, 1))
    client.post("/models", {"id": "line"})
    client.post("/models/line/fit", {"X": X.tolist()})
    (component,) = numbers(client, "/models/line/plots/clusters")["components"]

    for bar in component["ellipses"]:
        expected = chi2(1).cdf(bar["sigmas"] ** 2)
        share = np.mean(np.abs(X - component["mean"]) <= bar["width"] / 2)
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / len(X)))
        assert bar["height"] == 0


def test_beyond_two_features_the_plane_is_that_of_the_rows_principal_components(
    flowers: Client,
) -> None:
    found = numbers(flowers, "/models/iris/plots/clusters", iris())
    expected = PCA(2).fit(iris())
    points = found["points"]

    assert axis_field(found["plane"], "share_of_variance") == pytest.approx(
        expected.explained_variance_ratio_, rel=1e-9
    )
    np.testing.assert_allclose(
        np.abs(points["X"]), np.abs(expected.transform(iris())), rtol=1e-9, atol=1e-9
    )
    assert points["labels"] == mixture_of_iris().predict(iris()).tolist()


def test_without_rows_the_plane_is_that_of_the_mixture_itself(flowers: Client) -> None:
    found = numbers(flowers, "/models/iris/plots/clusters")
    expected = PCA(2).fit(iris()).explained_variance_ratio_

    # A fitted mixture has the moments of its rows, but for what is added to the variances.
    assert axis_field(found["plane"], "share_of_variance") == pytest.approx(expected, rel=1e-4)
    assert found["points"] is None


def test_two_features_can_be_chosen_by_index_or_name(flowers: Client) -> None:
    found = numbers(flowers, "/models/iris/plots/uncertainty?features=2,0", iris())
    points = found["points"]

    assert points["X"] == iris()[:, [2, 0]].tolist()
    expected = scipy_entropy(mixture_of_iris().predict_proba(iris()), axis=1)
    np.testing.assert_allclose(np.array(found["entropy"]), expected, rtol=1e-9, atol=1e-15)
    names = ["a", "b", "c", "d"]
    flowers.post("/models/iris/fit", {"columns": names, "data": iris().tolist()})
    named = numbers(flowers, "/models/iris/plots/clusters?features=c,a")["plane"]
    assert axis_field(named, "name").tolist() == ["c", "a"]
    np.testing.assert_array_equal(axis_field(named, "direction"), np.eye(4)[[2, 0]])


def test_a_density_is_the_exact_marginal_and_its_levels_hold_their_shares(flowers: Client) -> None:
    found = numbers(flowers, "/models/iris/plots/density?features=0,2")
    mixture = mixture_of_iris()
    grid = np.stack(np.meshgrid(found["x"], found["y"]), axis=-1)
    expected = sum(
        weight * multivariate_normal(mean[[0, 2]], covariance[np.ix_([0, 2], [0, 2])]).pdf(grid)
        for weight, mean, covariance in zip(
            mixture.weights, mixture.means, mixture.to_dense(), strict=True
        )
    )
    log_density = np.array(found["log_density"], dtype=float)
    draws = mixture.sample(20_000, 0)[0][:, [0, 2]]
    heights = np.log(
        sum(
            weight * multivariate_normal(mean[[0, 2]], cov[np.ix_([0, 2], [0, 2])]).pdf(draws)
            for weight, mean, cov in zip(
                mixture.weights, mixture.means, mixture.to_dense(), strict=True
            )
        )
    )

    np.testing.assert_allclose(log_density, np.log(expected), rtol=1e-8)
    for level in found["levels"]:
        assert np.mean(heights >= level["log_density"]) == pytest.approx(level["share"], abs=0.02)


def test_responsibilities_are_in_the_order_of_labels_and_the_surest_first(flowers: Client) -> None:
    found = numbers(flowers, "/models/iris/plots/responsibilities", iris())
    resp = mixture_of_iris().predict_proba(iris())

    assert found["labels"] == sorted(resp.argmax(axis=1).tolist())
    np.testing.assert_allclose(np.array(found["probabilities"]), resp[found["rows"]], rtol=1e-12)


def test_k_means_is_that_of_the_comparison(flowers: Client) -> None:
    found = numbers(flowers, "/models/iris/plots/kmeans?features=0,1", iris())
    compared = flowers.post("/models/iris/compare/kmeans", {"X": iris().tolist()}).json()

    assert found["kmeans_labels"] == compared["kmeans"]["labels"]
    assert found["differing"] == compared["differing"]
    np.testing.assert_allclose(
        np.array(found["kmeans_centers"]),
        np.array(compared["kmeans"]["centers"])[:, :2],
    )


def test_a_preprocessed_model_is_shown_in_the_space_that_it_sees(client: Client) -> None:
    model = {"id": "axes", "n_components": 3, "standardize": True, "random_state": 0}
    client.post("/models", {**model, "pca_components": 3})
    client.post("/models/axes/fit", {"X": iris().tolist()})
    found = numbers(client, "/models/axes/plots/kmeans", iris())
    scaled = (iris() - iris().mean(axis=0)) / iris().std(axis=0)
    expected = PCA(3).fit(scaled)

    assert found["space"] == "principal"
    assert axis_field(found["plane"], "name").tolist() == ["PC 1", "PC 2"]
    assert axis_field(found["plane"], "share_of_variance") == pytest.approx(
        expected.explained_variance_ratio_[:2], rel=1e-9
    )
    np.testing.assert_allclose(
        np.abs(found["points"]["X"]), np.abs(expected.transform(scaled)[:, :2]), atol=1e-9
    )
    assert client.post(f"/models/axes/plots/kmeans?{SMALL}", {"X": iris().tolist()}).is_success


def test_of_many_rows_a_part_is_shown_always_the_same(flowers: Client) -> None:
    path = "/models/iris/plots/clusters?max_points=20"
    found = numbers(flowers, path, iris())
    points = found["points"]

    assert (points["n_samples"], len(points["rows"]), len(points["X"])) == (150, 20, 20)
    assert found == numbers(flowers, path, iris())


def test_the_convergence_is_the_history_of_the_fit(flowers: Client) -> None:
    found = numbers(flowers, "/models/iris/plots/convergence")
    stored = flowers.get("/models/iris/versions/1").json()["fit"]

    assert found["log_likelihood"] == stored["log_likelihood_history"]
    assert found["converged"] is True


def test_a_selection_is_drawn_from_the_table_of_its_version_or_job(selected: Client) -> None:
    found = numbers(selected, "/models/groups/plots/selection")
    version = selected.get("/models/groups/versions/1").json()
    table = version["selection"]
    best = found["best"]

    for criterion in ("bic", "aic", "icl"):
        expected = min(table["candidates"], key=lambda each: each[criterion])
        assert best[criterion] == {
            "covariance_type": expected["covariance_type"],
            "n_components": expected["n_components"],
            "value": expected[criterion],
        }
    job = version["fit"]["job"]
    assert numbers(selected, f"/models/groups/plots/selection?job={job}") == found
    assert selected.get(f"/models/groups/plots/selection?{SMALL}", PNG).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("media_type", [SVG, PNG_TYPE, JSON_TYPE])
def test_each_kind_is_answered_with_or_without_rows_in_each_format_or_refused(
    selected: Client, kind: str, method: str, media_type: str
) -> None:
    path, accept = f"/models/groups/plots/{kind}?{SMALL}", {"accept": media_type}
    rows = {"X": np.random.default_rng(0).standard_normal((60, 2)).tolist()}
    answer = selected.get(path, accept) if method == "GET" else selected.post(path, rows, accept)
    unfit = {"GET": Rows.NEEDED, "POST": Rows.NONE}[method]

    if KINDS[kind].rows is unfit:
        code = {"GET": "rows_required", "POST": "rows_not_shown"}[method]
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    else:
        assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
        assert BEGINNINGS[media_type].match(answer.content)
        assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("kind", OF_ROWS)
def test_every_picture_of_rows_is_drawn_alike_each_time(flowers: Client, kind: str) -> None:
    body = {"X": iris()[::5].tolist()}
    path = f"/models/iris/plots/{kind}?{SMALL}&theme=dark&palette=viridis"
    one, other = flowers.post(path, body), flowers.post(path, body)

    assert (one.status_code, one.headers["content-type"]) == (200, SVG)
    assert one.headers["gmm-model-version"] == "1"
    root = ET.fromstring(one.content)  # noqa: S314  # our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert one.content == other.content


@pytest.mark.parametrize(("width", "height"), [(640, 333), (1001, 777), (2400, 1600)])
def test_a_picture_has_the_size_that_was_asked_for(
    flowers: Client, width: int, height: int
) -> None:
    path = f"/models/iris/plots/clusters?width={width}&height={height}"
    root = ET.fromstring(flowers.get(path).content)  # noqa: S314  # our own
    assert (root.get("width"), root.get("height")) == (str(width), str(height))

    response = flowers.get(path, PNG)

    assert response.headers["content-type"] == "image/png"
    assert response.content[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(response.content[16:20]) == width
    assert int.from_bytes(response.content[20:24]) == height


@pytest.mark.parametrize(
    ("scale", "offset"), [(1e150, 0.0), (1e-100, 0.0), (1.0, 1e12)], ids=["huge", "tiny", "far"]
)
def test_rows_of_any_size_can_be_drawn(client: Client, scale: float, offset: float) -> None:
    X = (scale * iris()[::4] + offset).tolist()
    client.post("/models", {"id": "wild", "n_components": 2, "random_state": 0})
    assert client.post("/models/wild/fit", {"X": X}).status_code == 200
    for kind in ("clusters", "density", "uncertainty"):
        drawn = client.post(f"/models/wild/plots/{kind}?{SMALL}", {"X": X}, PNG)
        assert drawn.status_code == 200, drawn.text


@pytest.mark.parametrize("kind", OF_ROWS)
def test_few_or_equal_rows_can_be_drawn(client: Client, kind: str) -> None:
    client.post("/models", {"id": "one"})
    client.post("/models/one/fit", {"X": iris().tolist()})
    for rows in (iris()[:1], iris()[[0, 0, 0]]):
        path = f"/models/one/plots/{kind}?{SMALL}"
        drawn = client.post(path, {"X": rows.tolist()}, PNG)
        assert drawn.status_code == 200, drawn.text


@pytest.mark.parametrize("kind", OF_ROWS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_single_feature_is_seen_in_every_kind_of_picture(
    client: Client, kind: str, theme: str
) -> None:
    X = [[row[0]] for row in TWO_GROUPS]
    client.post("/models", {"id": "line", "n_components": 2, "random_state": 0})
    client.post("/models/line/fit", {"X": X})
    for rows in (X, X[:1], [X[0]] * 3):
        drawn = client.post(f"/models/line/plots/{kind}?{SMALL}&theme={theme}", {"X": rows}, PNG)
        few = kind == "kmeans" and rows is not X
        assert drawn.status_code == (422 if few else 200), drawn.text
    if KINDS[kind].rows is Rows.WELCOME:
        assert client.get(f"/models/line/plots/{kind}?{SMALL}", PNG).status_code == 200


def test_one_of_several_features_can_be_looked_at(flowers: Client) -> None:
    found = numbers(flowers, "/models/iris/plots/clusters?features=2", iris())
    mixture = mixture_of_iris()

    assert found["points"]["X"] == iris()[:, [2]].tolist()
    assert found["points"]["labels"] == mixture.predict(iris()).tolist()
    for component, mean, covariance in zip(
        found["components"], mixture.means, mixture.to_dense(), strict=True
    ):
        assert component["mean"] == pytest.approx([mean[2]], rel=1e-12)
        assert component["covariance"][0] == pytest.approx([covariance[2, 2]], rel=1e-12)


def test_a_narrow_component_of_a_single_feature_is_not_missed(client: Client) -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, 200), rng.normal(1e4, 1e-3, 200)])[:, np.newaxis]
    client.post("/models", {"id": "line", "n_components": 2, "random_state": 0})
    client.post("/models/line/fit", {"X": X.tolist()})
    found = numbers(client, "/models/line/plots/density")
    density = np.exp(np.array(found["log_density"], dtype=float))

    assert np.trapezoid(density, found["x"]) == pytest.approx(1.0, abs=0.01)


def test_names_of_features_are_no_formulas_and_no_markup(client: Client) -> None:
    names = ["$\\frac{", "<b>\u0000\U0001f33c花" + "x" * 200]
    client.post("/models", {"id": "named", "n_components": 2, "random_state": 0})
    client.post("/models/named/fit", {"columns": names, "data": TWO_GROUPS})
    response = client.get(f"/models/named/plots/clusters?{SMALL}")

    assert response.status_code == 200
    ET.fromstring(response.content)  # noqa: S314  # our own


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "uncertainty", 422, "rows_required"),
        ("GET", "responsibilities", 422, "rows_required"),
        ("GET", "kmeans", 422, "rows_required"),
        ("POST", "convergence", 422, "rows_not_shown"),
        ("POST", "selection", 422, "rows_not_shown"),
        ("GET", "selection", 409, "no_selection"),
        ("GET", "pie", 404, "plot_not_found"),
        ("GET", "clusters?features=0,7", 422, "invalid_parameter"),
        ("GET", "clusters?features=0,0", 422, "invalid_parameter"),
        ("GET", "clusters?features=", 422, "invalid_parameter"),
        ("GET", "clusters?features=0,1,0", 422, "invalid_parameter"),
        ("GET", "clusters?width=1", 422, "invalid_parameter"),
        ("GET", "clusters?palette=rainbow", 422, "invalid_parameter"),
        ("GET", "clusters?colour=red", 422, "invalid_parameter"),
        ("POST", "clusters?max_points=0", 422, "invalid_parameter"),
        ("GET", "convergence?job=none", 404, "job_not_found"),
        ("GET", "convergence?job=none&version=1", 422, "invalid_parameter"),
    ],
)
def test_what_can_t_be_drawn_is_refused(
    fitted: Client, method: str, path: str, status: int, code: str
) -> None:
    path = f"/models/groups/plots/{path}"
    response = fitted.get(path) if method == "GET" else fitted.post(path, {"X": TWO_GROUPS})

    assert (response.status_code, response.json()["code"]) == (status, code)


def test_other_formats_than_pictures_and_numbers_are_not_offered(fitted: Client) -> None:
    response = fitted.get("/models/groups/plots/clusters", {"accept": "image/gif"})
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")


def test_without_the_library_there_are_still_the_numbers(
    fitted: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    installed_painter.cache_clear()
    refused = fitted.get("/models/groups/plots/clusters")

    assert (refused.status_code, refused.json()["code"]) == (501, "extra_not_installed")
    assert "`plots`" in refused.json()["detail"]
    assert fitted.get("/models/groups/plots/clusters", JSON).status_code == 200
