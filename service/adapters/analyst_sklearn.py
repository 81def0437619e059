"""Silhouettes, agreement of labellings and k-means by scikit-learn, of the extra ``analysis``."""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, silhouette_samples

from service.domain.ports import Agreement, Clustering, Silhouette

MAX_SILHOUETTE_ROWS = 5_000
"""Silhouettes take time by the square of the rows; of more a random part is measured."""
SEED = 0
"""Of that part: the same question has the same answer."""


class SklearnAnalyst:
    """Implements ``Analyst``."""

    def silhouette(self, X: NDArray[np.float64], labels: NDArray[np.int64]) -> Silhouette | None:
        n_rows = len(X)
        if n_rows > MAX_SILHOUETTE_ROWS:
            rng = np.random.default_rng(SEED)
            chosen = np.sort(rng.choice(n_rows, MAX_SILHOUETTE_ROWS, replace=False))
            X, labels = X[chosen], labels[chosen]
        if not 2 <= len(np.unique(labels)) < len(labels):
            return None
        values = silhouette_samples(X, labels)
        error = float(values.std(ddof=1)) / len(values) ** 0.5
        return Silhouette(
            value=float(values.mean()),
            n_rows=len(values),
            standard_error=error if len(values) < n_rows else None,
        )

    def agreement(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Agreement:
        return Agreement(
            adjusted_rand_index=float(adjusted_rand_score(left, right)),
            adjusted_mutual_information=float(adjusted_mutual_info_score(left, right)),
        )

    def k_means(
        self, X: NDArray[np.float64], n_clusters: int, *, n_init: int, random_state: int | None
    ) -> Clustering:
        found = KMeans(n_clusters, n_init=n_init, random_state=random_state).fit(X)
        return Clustering(
            labels=found.labels_.astype(np.int64),
            centers=np.asarray(found.cluster_centers_, dtype=np.float64),
            inertia=float(found.inertia_),
            n_iter=int(found.n_iter_),
        )
