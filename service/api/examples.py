"""Requests and answers as ``openapi.json`` shows them; a test holds them to the schemas."""

from collections.abc import Mapping

Example = Mapping[str, object]

MOMENT = "2026-11-23T18:00:00.000000Z"

ROWS: Example = {"X": [[5.1, 3.5], [6.7, 3.1]]}
ROWS_OF_MODEL: Example = {"model": "iris", **ROWS}
TRAINING_ROWS: Example = {
    "X": [[5.1, 3.5], [4.9, 3.0], [6.7, 3.1], [6.3, 2.5]],
    "feature_names": ["sepal_length", "sepal_width"],
}

HYPERPARAMETERS: Example = {
    "n_components": 2,
    "covariance_type": "full",
    "tol": 1e-6,
    "max_iter": 500,
    "n_init": 10,
    "init_params": "auto",
    "reg_covar": "auto",
    "random_state": 0,
    "standardize": False,
    "pca_components": None,
}
MODEL: Example = {
    **HYPERPARAMETERS,
    "id": "iris",
    "description": "",
    "labels": {"team": "botany"},
    "status": "fitted",
    "latest_version": 1,
    "aliases": {"champion": 1},
    "feature_names": ["sepal_length", "sepal_width"],
    "n_features": 2,
    "created_at": MOMENT,
    "updated_at": MOMENT,
}
CRITERIA: Example = {
    "n_samples": 150,
    "n_parameters": 11,
    "log_likelihood": -217.4,
    "mean_log_likelihood": -1.4493,
    "bic": 489.9,
    "aic": 456.8,
    "aicc": 458.7,
    "icl": 492.3,
}
FIT_RESULT: Example = {
    "model": "iris",
    "version": 1,
    "job": "job-8f14e45fceea167a5a36",
    "converged": True,
    "stop_reason": "converged",
    "n_iter": 2,
    **CRITERIA,
    "n_features": 2,
    "log_likelihood_history": [-220.1, -217.4],
    "weights": [0.33, 0.67],
    "warnings": [],
    "duration_seconds": 0.012,
    "space": "original",
}
CANDIDATE: Example = {
    "n_components": 2,
    "covariance_type": "full",
    "rank": 1,
    "value": 489.9,
    "origin": "fresh",
    "n_parameters": 11,
    "log_likelihood": -217.4,
    "mean_log_likelihood": -1.4493,
    "bic": 489.9,
    "aic": 456.8,
    "aicc": 458.7,
    "icl": 492.3,
    "held_out_log_likelihood": None,
    "held_out_standard_error": None,
    "converged": True,
    "n_iter": 2,
    "warnings": [],
    "error": None,
}
SELECTION: Example = {
    "criterion": "bic",
    "n_folds": None,
    "complete": True,
    "best": {"n_components": 2, "covariance_type": "full", "value": 489.9},
    "candidates": [CANDIDATE],
}
SELECTION_RESULT: Example = {**FIT_RESULT, "selection": SELECTION}
FIT_ESTIMATE: Example = {
    "model": "iris",
    "n_samples": 150,
    "n_features": 2,
    "n_components": 3,
    "work": 36_000,
    "memory_bytes": 102_880,
    "seconds": 0.03,
    "seconds_at_most": 0.41,
    "uncertainty": 1.5,
}
QUEUED_JOB: Example = {
    "id": "job-8f14e45fceea167a5a36",
    "kind": "fit",
    "model": "iris",
    "status": "queued",
    "done": False,
    "progress": None,
    "created_at": MOMENT,
    "started_at": None,
    "finished_at": None,
    "result": None,
    "selection": None,
    "error": None,
}
JOB: Example = {
    **QUEUED_JOB,
    "status": "running",
    "progress": {
        "restart": 0,
        "run": 2,
        "n_init": 10,
        "iteration": 12,
        "max_iter": 500,
        "log_likelihood": -217.9,
        "delta": 0.03,
        "eta_seconds": 1.5,
        "leaderboard": None,
    },
    "started_at": MOMENT,
}
EVENTS = """\
event: progress
data: {"restart":0,"run":2,"n_init":10,"iteration":12,"max_iter":500,\
"log_likelihood":-217.9,"delta":0.03,"eta_seconds":1.5}
id: 1795456800000000

event: done
data: {"id":"job-8f14e45fceea167a5a36","status":"succeeded","done":true}
id: 1795456801000000

"""
VERSION_SUMMARY: Example = {
    "model": "iris",
    "version": 1,
    "job": "job-8f14e45fceea167a5a36",
    "created_at": MOMENT,
    "n_components": 2,
    "covariance_type": "full",
    "n_features": 2,
    "n_samples": 150,
    "converged": True,
    "mean_log_likelihood": -1.4493,
    "bic": 489.9,
}
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
VERSION: Example = {
    "model": "iris",
    "version": 1,
    "created_at": MOMENT,
    "hyperparameters": HYPERPARAMETERS,
    "feature_names": ["sepal_length", "sepal_width"],
    "fit": FIT_RESULT,
    "data_sha256": DIGEST,
    "artifact": {"sha256": DIGEST, "size_bytes": 1024},
    "libraries": {"numpy": "2.4.6"},
    "selection": None,
}
ALIAS: Example = {"model": "iris", "alias": "champion", "version": 1, "updated_at": MOMENT}
ALIAS_HISTORY: Example = {
    "model": "iris",
    "alias": "champion",
    "history": [
        {"action": "rollback", "version": 1, "changed_at": MOMENT},
        {"action": "set", "version": 2, "changed_at": MOMENT},
        {"action": "set", "version": 1, "changed_at": MOMENT},
    ],
}
PREDICT: Example = {"model": "iris", "version": 1, "labels": [0, 1]}
PREDICT_PROBA: Example = {
    "model": "iris",
    "version": 1,
    "probabilities": [[0.99, 0.01], [0.02, 0.98]],
}
SCORE_SAMPLES: Example = {"model": "iris", "version": 1, "log_likelihood": [-1.2, -1.9]}
SCORE: Example = {"model": "iris", "version": 1, **CRITERIA}
METRIC: Example = {
    "model": "iris",
    "version": 1,
    "metric": "bic",
    "value": 489.9,
    "n_samples": 150,
}
PARAMETERS: Example = {
    "model": "iris",
    "version": 1,
    "space": "principal",
    "covariance_type": "diag",
    "weights": [0.33, 0.67],
    "means": [[-1.2, 0.1], [0.6, -0.05]],
    "covariances": [[0.12, 0.14], [0.43, 0.11]],
    "precisions": [[8.33, 7.14], [2.33, 9.09]],
    "precisions_cholesky": [[2.89, 2.67], [1.53, 3.02]],
    "center": [5.84, 3.06],
    "scale": [0.83, 0.43],
    "axes": [[0.71, 0.71], [-0.71, 0.71]],
    "variance_ratio": [0.56, 0.44],
}
LABELLED_ROWS: Example = {**ROWS, "labels": ["setosa", "virginica"]}
SILHOUETTE: Example = {"value": 0.61, "n_rows": 2, "standard_error": None}
DIAGNOSTICS: Example = {
    "model": "iris",
    "version": 1,
    "n_samples": 2,
    "space": "original",
    "components": [
        {"weight": 0.33, "size": 1, "effective_size": 1.01, "condition_number": 4.2},
        {"weight": 0.67, "size": 1, "effective_size": 0.99, "condition_number": 6.8},
    ],
    "overlap": [[1.0, 0.04], [0.04, 1.0]],
    "entropy_mean": 0.08,
    "entropy_max": 0.1,
    "silhouette": None,
    "adjusted_rand_index": 1.0,
    "adjusted_mutual_information": 1.0,
    "lowest_density": [{"row": 1, "log_likelihood": -1.9, "label": 1}],
    "labels": [0, 1],
    "entropy": [0.06, 0.1],
    "log_likelihood": [-1.2, -1.9],
}
COMPARISON: Example = {
    "model": "iris",
    "version": 1,
    "n_samples": 2,
    "space": "original",
    "n_components": 2,
    "mixture": {
        "labels": [0, 1],
        "centers": [[5.0, 3.4], [6.3, 2.9]],
        "inertia": 0.22,
        "silhouette": SILHOUETTE,
    },
    "kmeans": {
        "labels": [0, 1],
        "centers": [[5.1, 3.5], [6.7, 3.1]],
        "inertia": 0.0,
        "silhouette": SILHOUETTE,
        "n_iter": 2,
    },
    "adjusted_rand_index": 1.0,
    "adjusted_mutual_information": 1.0,
    "n_differing": 0,
    "differing": [],
}
SAMPLE: Example = {
    "model": "iris",
    "version": 1,
    "X": [[6.1, 2.8], [5.0, 3.3]],
    "labels": [1, 0],
}
PLOT: Example = {
    "model": "iris",
    "version": 1,
    "kind": "convergence",
    "space": "original",
    "log_likelihood": [-201.3, -185.6, -180.2],
    "converged": True,
    "stop_reason": "converged",
}
