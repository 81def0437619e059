"""Questions about rows over HTTP, in their three forms."""

import json

import httpx
import numpy as np
import pytest

from gmm_engine import FitOptions, Mixture, fit
from service.api.payloads.json_format import JsonCodec
from service.api.payloads.values import DataAnswer
from service.settings import Settings
from tests.service.client import JSON_HEADERS, Client, serving
from tests.service.rows import ONE_OF_EACH, TWO_GROUPS

DIRECT = fit(np.array(TWO_GROUPS), FitOptions(n_components=2, random_state=0)).mixture


@pytest.fixture
def mixture() -> Mixture:
    """The same mixture as the fitted client's, from the engine itself."""
    return DIRECT


def test_predict_gives_the_engine_s_labels(fitted: Client, mixture: Mixture) -> None:
    response = fitted.post("/models/groups/predict", {"X": ONE_OF_EACH})

    assert response.json() == {
        "model": "groups",
        "version": 1,
        "labels": mixture.predict(ONE_OF_EACH).tolist(),
    }


def test_predict_proba_gives_the_engine_s_responsibilities(
    fitted: Client, mixture: Mixture
) -> None:
    between = [[3.0, 4.0], [2.9, 4.1]]

    response = fitted.post("/models/groups/predict_proba", {"X": between})

    assert response.json()["probabilities"] == mixture.predict_proba(between).tolist()


def test_score_samples_gives_the_engine_s_densities(fitted: Client, mixture: Mixture) -> None:
    response = fitted.post("/models/groups/score_samples", {"X": ONE_OF_EACH})

    assert response.json()["log_likelihood"] == mixture.score_samples(ONE_OF_EACH).tolist()


def test_score_gives_every_criterion(fitted: Client, mixture: Mixture) -> None:
    expected = mixture.criteria(ONE_OF_EACH)

    response = fitted.post("/models/groups/score", {"X": ONE_OF_EACH})

    assert response.json() == {
        "model": "groups",
        "version": 1,
        "n_samples": 2,
        "n_parameters": 11,
        "log_likelihood": expected.log_likelihood,
        "mean_log_likelihood": expected.mean_log_likelihood,
        "bic": expected.bic,
        "aic": expected.aic,
        "aicc": None,  # not defined for two rows
        "icl": expected.icl,
    }


@pytest.mark.parametrize(
    "metric", ["bic", "aic", "aicc", "icl", "log_likelihood", "mean_log_likelihood"]
)
def test_one_criterion_is_the_one_among_all(fitted: Client, metric: str) -> None:
    all_of_them = fitted.post("/models/groups/score", {"X": TWO_GROUPS}).json()

    response = fitted.post(f"/models/groups/score/{metric}", {"X": TWO_GROUPS})

    assert response.json() == {
        "model": "groups",
        "version": 1,
        "metric": metric,
        "value": all_of_them[metric],
        "n_samples": 8,
    }


def test_the_scores_of_the_fit_are_kept(fitted: Client) -> None:
    sent = fitted.post("/models/groups/score", {"X": TWO_GROUPS}).json()

    kept = fitted.get("/models/groups/score").json()
    one = fitted.get("/models/groups/score/bic").json()

    assert {name: kept[name] for name in ("model", "version", "n_samples", "n_parameters")} == {
        name: sent[name] for name in ("model", "version", "n_samples", "n_parameters")
    }
    assert kept["bic"] == pytest.approx(sent["bic"])
    assert one == {
        "model": "groups",
        "version": 1,
        "metric": "bic",
        "value": kept["bic"],
        "n_samples": 8,
    }


def test_rows_come_under_three_names(fitted: Client) -> None:
    answers = [
        fitted.post("/models/groups/predict_proba", body).content
        for body in (
            {"X": ONE_OF_EACH},
            {"instances": ONE_OF_EACH},
            {"columns": ["a", "b"], "data": ONE_OF_EACH},
            {"columns": [0, 1], "index": [10, 11], "data": ONE_OF_EACH},
        )
    ]

    assert len(set(answers)) == 1


def test_columns_are_matched_by_name(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2, "random_state": 0})
    client.post("/models/groups/fit", {"X": TWO_GROUPS, "feature_names": ["a", "b"]})
    straight = {"columns": ["a", "b"], "data": [[1.0, 9.0]]}
    swapped = {"columns": ["b", "a"], "data": [[9.0, 1.0]]}

    answers = [
        client.post("/models/groups/score_samples", body).json() for body in (straight, swapped)
    ]

    assert answers[0] == answers[1]


def test_columns_of_other_names_are_refused(client: Client) -> None:
    client.post("/models", {"id": "groups", "n_components": 2})
    client.post("/models/groups/fit", {"columns": ["a", "b"], "data": TWO_GROUPS})

    response = client.post("/models/groups/predict", {"columns": ["a", "c"], "data": ONE_OF_EACH})

    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "feature_names_mismatch"
    assert [error["code"] for error in problem["errors"]] == ["missing_feature", "unknown_feature"]
    assert problem["errors"][1]["pointer"] == "#/columns/1"


@pytest.mark.parametrize(
    "path", ["/predict", "/predict_proba", "/score_samples", "/score", "/score/bic"]
)
def test_every_form_of_a_path_gives_the_same_answer(fitted: Client, path: str) -> None:
    answers = [
        fitted.post(target, {"X": ONE_OF_EACH})
        for target in (
            f"/models/groups{path}",
            f"/models/groups{path}?version=1",
            f"/models/groups/versions/1{path}",
            path,
            f"{path}?model=groups&version=1",
        )
    ]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert answers[-1].headers["content-location"] == f"/models/groups/versions/1{path}"


def test_a_question_may_be_asked_of_an_earlier_version(fitted: Client) -> None:
    fitted.patch("/models/groups", {"n_components": 1})
    fitted.post("/models/groups/fit", {"X": TWO_GROUPS})

    def n_components(path: str) -> int:
        answer = fitted.post(path, {"X": ONE_OF_EACH}).json()
        return len(answer["probabilities"][0])

    assert n_components("/models/groups/predict_proba") == 1
    assert n_components("/models/groups/predict_proba?version=1") == 2
    assert n_components("/models/groups/versions/1/predict_proba") == 2


def test_an_answer_says_which_version_gave_it_and_what_it_cost(fitted: Client) -> None:
    response = fitted.post("/models/groups/predict", {"X": ONE_OF_EACH}, {"x-request-id": "q-1"})

    assert response.headers["gmm-model-version"] == "1"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-request-id"] == "q-1"
    stages = [stage.split(";dur=") for stage in response.headers["server-timing"].split(", ")]
    assert [name for name, _ in stages] == ["parse", "queue", "compute", "encode"]
    assert all(float(milliseconds) >= 0 for _, milliseconds in stages)


@pytest.mark.parametrize(
    ("query", "body", "headers"),
    [
        ("?model=groups", {}, {}),
        ("", {"model": "groups"}, {}),
        ("", {}, {"gmm-model": "groups"}),
        ("?model=groups", {"model": "groups"}, {"gmm-model": "groups"}),
    ],
)
def test_a_bare_form_finds_its_model_in_three_places(
    fitted: Client, query: str, body: dict[str, object], headers: dict[str, str]
) -> None:
    fitted.post("/models", {"id": "other", "n_components": 1})
    fitted.post("/models/other/fit", {"X": TWO_GROUPS})

    response = fitted.post(f"/predict{query}", {"X": ONE_OF_EACH, **body}, headers)

    assert response.json()["model"] == "groups"


def test_two_names_that_disagree_are_refused(fitted: Client) -> None:
    response = fitted.post("/predict?model=groups", {"X": ONE_OF_EACH, "model": "other"})

    assert (response.status_code, response.json()["code"]) == (400, "model_ambiguous")


def test_two_headers_that_name_different_models_are_refused(fitted: Client) -> None:
    headers = httpx.Headers(
        [("gmm-model", "groups"), ("gmm-model", "other"), *JSON_HEADERS.items()]
    )

    response = fitted.send("POST", "/predict", body=b'{"X":[[1,2]]}', headers=headers)

    assert (response.status_code, response.json()["code"]) == (400, "model_ambiguous")


def test_a_model_named_twice_alike_in_headers_is_meant(fitted: Client) -> None:
    headers = httpx.Headers(
        [("gmm-model", "groups"), ("gmm-model", "groups"), *JSON_HEADERS.items()]
    )

    response = fitted.send("POST", "/predict", body=b'{"X":[[1,2]]}', headers=headers)

    assert response.json()["model"] == "groups"


def test_without_a_name_among_several_fitted_models_one_is_asked_for(fitted: Client) -> None:
    fitted.post("/models", {"id": "other", "n_components": 1})
    assert fitted.post("/predict", {"X": ONE_OF_EACH}).json()["model"] == "groups"
    fitted.post("/models/other/fit", {"X": TWO_GROUPS})

    response = fitted.post("/predict", {"X": ONE_OF_EACH})

    assert (response.status_code, response.json()["code"]) == (400, "model_required")


def test_without_any_fitted_model_one_is_asked_for(client: Client) -> None:
    response = client.post("/predict", {"X": ONE_OF_EACH})

    assert (response.status_code, response.json()["code"]) == (400, "model_required")


def test_the_configured_model_is_meant_when_none_is_named() -> None:
    with serving(Settings(default_model="second")) as client:
        for name in ("first", "second"):
            client.post("/models", {"id": name})
            client.post(f"/models/{name}/fit", {"X": TWO_GROUPS})

        assert client.post("/predict", {"X": ONE_OF_EACH}).json()["model"] == "second"
        assert client.post("/predict?model=first", {"X": ONE_OF_EACH}).json()["model"] == "first"


def test_a_large_answer_comes_in_parts_and_says_the_same(fitted: Client, mixture: Mixture) -> None:
    asked = {"n_samples": 100_000, "random_state": 3}
    response = fitted.post("/models/groups/sample", asked)

    X, labels = mixture.sample(100_000, 3)
    assert "content-length" not in response.headers
    assert response.headers["content-type"] == "application/json"
    assert np.array_equal(response.json()["X"], X)
    assert np.array_equal(response.json()["labels"], labels)


def test_no_more_is_drawn_than_fits_into_the_memory_of_a_request() -> None:
    with serving(Settings(max_memory_bytes=2**20)) as client:
        client.post("/models", {"id": "groups", "n_components": 2})
        client.post("/models/groups/fit", {"X": TWO_GROUPS})
        most = 2**20 // (8 * 3 * 3)
        refused = client.post("/models/groups/sample", {"n_samples": most + 1})
        drawn = client.post("/models/groups/sample", {"n_samples": most})

    assert (refused.status_code, refused.json()["code"]) == (422, "work_budget_exceeded")
    assert refused.json()["detail"] == f"at most {most} rows of this model are drawn at once"
    assert len(drawn.json()["X"]) == most


@pytest.mark.parametrize(
    "shape", [(0,), (3,), (0, 2), (100_001,), (70_001, 3), (3, 40_000), (5, 200, 200)]
)
def test_parts_join_to_the_bytes_of_the_whole(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape)
    array.flat[:1] = np.nan
    answer = DataAnswer("a", 1, {"first": array, "second": array.T, "third": 0.5, "fourth": "b"})

    parts = list(JsonCodec().encode_in_parts(answer))

    assert b"".join(parts) == JsonCodec().encode(answer)
    assert max(map(len, parts)) < 2**21


def test_a_seed_draws_the_same_rows_again(fitted: Client, mixture: Mixture) -> None:
    first, second = (
        fitted.post("/models/groups/sample", {"n_samples": 5, "random_state": 3}).json()
        for _ in range(2)
    )
    X, labels = mixture.sample(5, 3)

    assert first == second
    assert (first["X"], first["labels"]) == (X.tolist(), labels.tolist())


@pytest.mark.parametrize(
    ("covariance_type", "shape"),
    [("full", (2, 2, 2)), ("tied", (2, 2)), ("diag", (2, 2)), ("spherical", (2,))],
)
def test_parameters_come_in_the_shape_of_their_family(
    client: Client, covariance_type: str, shape: tuple[int, ...]
) -> None:
    client.post("/models", {"id": "m", "n_components": 2, "covariance_type": covariance_type})
    client.post("/models/m/fit", {"X": TWO_GROUPS})

    parameters = client.get("/models/m/parameters").json()

    assert parameters["covariance_type"] == covariance_type
    assert np.shape(parameters["weights"]) == (2,)
    assert np.shape(parameters["means"]) == (2, 2)
    assert np.shape(parameters["covariances"]) == shape
    assert np.shape(parameters["precisions"]) == shape


def test_a_number_comes_back_as_it_was(fitted: Client, mixture: Mixture) -> None:
    """Seventeen digits: parsed again, a double is the same double."""
    content = fitted.get("/models/groups/parameters").content

    assert np.array_equal(np.array(json.loads(content)["means"]), mixture.means)


def test_a_large_body_is_answered_like_a_small_one(fitted: Client, mixture: Mixture) -> None:
    X = np.random.default_rng(0).normal(size=(20_000, 2))

    response = fitted.post("/models/groups/predict", {"X": X})

    assert response.json()["labels"] == mixture.predict(X).tolist()


def test_a_model_without_a_version_can_not_answer(client: Client) -> None:
    client.post("/models", {"id": "new"})

    for response in (
        client.post("/models/new/predict", {"X": ONE_OF_EACH}),
        client.get("/models/new/score"),
        client.get("/models/new/parameters"),
    ):
        assert (response.status_code, response.json()["code"]) == (409, "model_not_fitted")


def test_a_question_whose_time_has_passed_is_not_answered(fitted: Client) -> None:
    response = fitted.post(
        "/models/groups/predict", {"X": ONE_OF_EACH}, {"request-timeout": "0.000000001"}
    )

    assert response.status_code == 503
    assert response.json()["code"] == "deadline_exceeded"
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "given",
    [
        "0.5000000000000000000001", ".5", "5.", "1e9", "2.5E+1", "9999999999", "9" * 32, "1e999",
        "60" + "0" * 30,
    ],
)  # fmt: skip
def test_a_request_timeout_is_any_number_of_seconds(fitted: Client, given: str) -> None:
    response = fitted.post("/models/groups/predict", {"X": ONE_OF_EACH}, {"request-timeout": given})

    assert response.status_code == 200


@pytest.mark.parametrize("given", ["0", "0e9", ".0", "1e-9", "1e-999"])
def test_a_request_timeout_of_no_time_has_passed(fitted: Client, given: str) -> None:
    response = fitted.post("/models/groups/predict", {"X": ONE_OF_EACH}, {"request-timeout": given})

    assert response.json()["code"] == "deadline_exceeded"


@pytest.mark.parametrize(
    "given",
    [
        "", "soon", "-1", "-0", "+1", "nan", "inf", "1e", "e3", ".", "1_0", "1,5", "0x1", "5s",
        "9" * 33, "1e0 1",
    ],
)  # fmt: skip
def test_a_request_timeout_that_is_no_number_of_seconds_is_refused(
    fitted: Client, given: str
) -> None:
    response = fitted.post("/models/groups/predict", {"X": ONE_OF_EACH}, {"request-timeout": given})

    assert response.status_code == 400
    assert "Request-Timeout is a decimal number of seconds" in response.json()["detail"]
