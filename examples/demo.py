"""The whole road on real data: declare, fit, predict, score and draw two mixtures over HTTP.

`make demo` runs this. It starts the service on a free port with a registry directory of its own,
talks to it only over HTTP, prints what was found and draws it, compares the log-likelihoods with
published ones and ends with 1 if any of them is missed.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "demo-output"
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0
FIT_WAIT_SECONDS = 240
"""The first fit on a machine compiles the engine's passes."""
REQUEST_TIMEOUT_SECONDS = FIT_WAIT_SECONDS + 10.0
GOLDEN_TOLERANCE = 1e-3
PICTURES_OF_ROWS = ("clusters", "density", "uncertainty", "responsibilities", "kmeans")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Real rows, how many components to look for, and the log-likelihood others have found."""

    name: str
    title: str
    n_components: int
    golden_log_likelihood: float
    columns: Sequence[str]
    X: NDArray[np.float64]  # (n_samples, n_features)
    species: NDArray[np.int64] | None

    @property
    def payload(self) -> dict[str, object]:
        return {"columns": list(self.columns), "data": self.X.tolist()}


@dataclass(frozen=True, slots=True)
class Answers:
    """What the service said about one data set."""

    fit: dict[str, object]
    means: NDArray[np.float64]  # (n_components, n_features)
    labels: NDArray[np.int64]  # (n_samples,)
    probabilities: NDArray[np.float64]  # (n_samples, n_components)
    bic: float


def main() -> int:
    # mclust 6.0.0, model VVV: the best known full-covariance fits.
    faithful = read_dataset("faithful", "Old Faithful", 2, golden=-1130.264068)
    iris = read_dataset("iris", "Iris", 3, golden=-180.18548)
    with running_service(OUTPUT) as client:
        print(f"The service answers at {client.base_url}, its registry is {OUTPUT / 'registry'}")
        reached = [demonstrate(client, dataset) for dataset in (faithful, iris)]
    print("\nThe service is stopped.")
    return 0 if all(reached) else 1


def demonstrate(client: httpx.Client, dataset: Dataset) -> bool:
    answers = ask(client, dataset)
    print_report(dataset, answers)
    draw(client, dataset, OUTPUT / "pictures")
    return is_golden(dataset, answers)


def read_dataset(name: str, title: str, n_components: int, *, golden: float) -> Dataset:
    with (HERE / "data" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    table = np.array(rows, dtype=np.float64)
    has_label = header[-1] == "label"
    n_features = len(header) - has_label
    return Dataset(
        name=name,
        title=title,
        n_components=n_components,
        golden_log_likelihood=golden,
        columns=header[:n_features],
        X=table[:, :n_features],
        species=table[:, -1].astype(np.int64) if has_label else None,
    )


# --- the service --------------------------------------------------------------------------------


@contextmanager
def running_service(output: Path) -> Iterator[httpx.Client]:
    """Start `gmm-service serve` on a free port with a fresh registry; stop it at the end."""
    registry, log = output / "registry", output / "service.log"
    shutil.rmtree(registry, ignore_errors=True)
    output.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).with_name("gmm-service")), "serve"]
    command += ["--host", "127.0.0.1", "--port", "0", "--registry-dir", str(registry)]
    settings = {**os.environ, "GMM_PRELOAD_EXTRAS": "true"}
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(  # noqa: S603 (our own command)
            command, stdout=out, stderr=subprocess.STDOUT, env=settings
        )
    try:
        url = wait_for_url(process, log)
        with httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_SECONDS) as client:
            wait_until_ready(process, client)
            yield client
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_SECONDS)


def wait_for_url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address that the service prints once it is bound."""
    for _ in attempts(process, "said no address"):
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8"))
        if found:
            return found[0]
    raise AssertionError("unreachable: attempts() raises when the time is up")


def wait_until_ready(process: subprocess.Popen[bytes], client: httpx.Client) -> None:
    """Return when the service takes requests; 503 says that it is still starting."""
    for _ in attempts(process, "was not ready"):
        answer = client.get("/readyz")
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            answer_of(answer)
            return


def attempts(process: subprocess.Popen[bytes], complaint: str) -> Iterator[None]:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the service ended at once; see {OUTPUT / 'service.log'}")
        yield
        time.sleep(0.05)
    raise SystemExit(f"the service {complaint} in time; see {OUTPUT / 'service.log'}")


def ask(client: httpx.Client, dataset: Dataset) -> Answers:
    """Declare, fit, and put every question to the fitted model."""
    model = f"/models/{dataset.name}"
    declaration = {
        "id": dataset.name,
        "n_components": dataset.n_components,
        "covariance_type": "full",
        "n_init": 10,
        "random_state": 0,
    }
    post(client, "/models", declaration)
    fit = post(client, f"{model}/fit?wait={FIT_WAIT_SECONDS}", dataset.payload)
    proba = post(client, f"{model}/predict_proba", dataset.payload)
    return Answers(
        fit=fit,
        means=np.array(get(client, f"{model}/parameters")["means"]),
        labels=np.array(post(client, f"{model}/predict", dataset.payload)["labels"]),
        probabilities=np.array(proba["probabilities"]),
        bic=number_in(post(client, f"{model}/score/bic", dataset.payload), "value"),
    )


def draw(client: httpx.Client, dataset: Dataset, folder: Path) -> None:
    """Keep a picture of every kind; that of the selection is of a version that one makes."""
    folder.mkdir(exist_ok=True)
    model = f"/models/{dataset.name}"
    for kind in PICTURES_OF_ROWS:
        keep(client.post(f"{model}/plots/{kind}", json=dataset.payload), folder, kind)
    keep(client.get(f"{model}/plots/convergence"), folder, "convergence")
    grid = f"n_components=1-5&n_init=1&wait={FIT_WAIT_SECONDS}"
    found = post(client, f"{model}/select?{grid}", dataset.payload)
    keep(client.get(f"{model}/plots/selection?version={found['version']}"), folder, "selection")
    print(f"\nPictures: {folder / dataset.name}-*.svg")


def keep(response: httpx.Response, folder: Path, kind: str) -> None:
    """Write a picture down, named after its model."""
    require_success(response)
    model = response.request.url.path.split("/")[2]
    (folder / f"{model}-{kind}.svg").write_bytes(response.content)


def post(client: httpx.Client, path: str, body: dict[str, object]) -> dict[str, object]:
    return answer_of(client.post(path, json=body))


def get(client: httpx.Client, path: str) -> dict[str, object]:
    return answer_of(client.get(path))


def answer_of(response: httpx.Response) -> dict[str, object]:
    require_success(response)
    answer: dict[str, object] = response.json()
    return answer


def require_success(response: httpx.Response) -> None:
    if response.status_code not in {httpx.codes.OK, httpx.codes.CREATED}:
        raise SystemExit(f"{response.request.url}: {response.status_code} {response.text}")


def number_in(answer: dict[str, object], key: str) -> float:
    value = answer[key]
    if not isinstance(value, int | float):
        raise SystemExit(f"the service's {key} is not a number: {value!r}")
    return float(value)


# --- the report ---------------------------------------------------------------------------------


def print_report(dataset: Dataset, answers: Answers) -> None:
    n_samples, n_features = dataset.X.shape
    print(f"\n{dataset.title}: {n_samples} rows, {n_features} columns, K = {dataset.n_components}")
    print("=" * 78)
    print_parameters(dataset, answers)
    print_criteria(dataset, answers)
    print_rows(dataset, answers)


def print_parameters(dataset: Dataset, answers: Answers) -> None:
    weights = np.array(answers.fit["weights"])
    print(f"{'component':>9}  {'weight':>7}" + "".join(f"  {c:>12}" for c in dataset.columns))
    for k, (weight, mean) in enumerate(zip(weights, answers.means, strict=True)):
        print(f"{k:>9}  {weight:>7.4f}" + "".join(f"  {value:>12.4f}" for value in mean))


def print_criteria(dataset: Dataset, answers: Answers) -> None:
    verdict = "reached" if is_golden(dataset, answers) else "MISSED"
    golden = dataset.golden_log_likelihood
    print(
        f"\nlog-likelihood  {number_in(answers.fit, 'log_likelihood'):.6f}"
        f"   (mclust 6.0.0: {golden:.6f}, {verdict} to {GOLDEN_TOLERANCE:g})"
    )
    print(f"BIC             {answers.bic:.6f}   (lower is better)")
    print(
        f"EM              {'converged' if answers.fit['converged'] else 'not converged'} after"
        f" {answers.fit['n_iter']} steps, best of 10 starts,"
        f" {number_in(answers.fit, 'duration_seconds'):.2f} s"
    )
    if dataset.species is not None:
        agreement = adjusted_rand_score(dataset.species, answers.labels)
        print(f"adjusted Rand   {agreement:.4f}   (labels against the three species)")


def print_rows(dataset: Dataset, answers: Answers) -> None:
    """Print the ten rows whose component is least certain: there soft and hard labels differ."""
    certainty = answers.probabilities.max(axis=1)
    components = "".join(f"  {f'p({k})':>6}" for k in range(dataset.n_components))
    print("\nThe ten least certain rows: label, responsibilities, values")
    print(f"{'row':>5}  {'label':>5}{components}" + "".join(f"  {c:>12}" for c in dataset.columns))
    for row in np.argsort(certainty, kind="stable")[:10]:
        soft = "".join(f"  {p:>6.4f}" for p in answers.probabilities[row])
        values = "".join(f"  {value:>12g}" for value in dataset.X[row])
        print(f"{row:>5}  {answers.labels[row]:>5}{soft}{values}")


def is_golden(dataset: Dataset, answers: Answers) -> bool:
    found = number_in(answers.fit, "log_likelihood")
    return abs(found - dataset.golden_log_likelihood) <= GOLDEN_TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
