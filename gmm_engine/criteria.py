"""Information criteria of a mixture on data. All are signed so that lower is better."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Criteria:
    """Everything the criteria are computed from, and the criteria themselves."""

    n_samples: float
    """The sum of the sample weights; the number of rows without weights."""
    n_parameters: int
    log_likelihood: float
    """Σ w_i log p(x_i)"""
    log_max_resp: float
    """Σ w_i log max_k γ_ik: how surely the rows are assigned; 0 is wholly."""

    def __add__(self, other: "Criteria") -> "Criteria":
        """Return the criteria of these rows and others of the same mixture together."""
        return Criteria(
            self.n_samples + other.n_samples,
            self.n_parameters,
            self.log_likelihood + other.log_likelihood,
            self.log_max_resp + other.log_max_resp,
        )

    @property
    def mean_log_likelihood(self) -> float:
        return self.log_likelihood / self.n_samples

    @property
    def bic(self) -> float:
        """Bayesian information criterion, −2 log L + p ln n (Schwarz 1978)."""
        return -2.0 * self.log_likelihood + self.n_parameters * math.log(self.n_samples)

    @property
    def aic(self) -> float:
        """Akaike information criterion, −2 log L + 2p (Akaike 1974)."""
        return -2.0 * self.log_likelihood + 2.0 * self.n_parameters

    @property
    def aicc(self) -> float:
        """AIC corrected for small samples (Hurvich and Tsai 1989).

        Infinite for n ≤ p + 1, where it is not defined.
        """
        spare = self.n_samples - self.n_parameters - 1
        if spare <= 0:
            return math.inf
        return self.aic + 2.0 * self.n_parameters * (self.n_parameters + 1) / spare

    @property
    def icl(self) -> float:
        """Integrated classification likelihood, BIC − 2 Σ ln max_k γ_ik (Biernacki et al. 2000)."""
        return self.bic - 2.0 * self.log_max_resp
