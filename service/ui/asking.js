/* Questions to the version: predictions of new rows, diagnostics of the rows at hand, k-means. */

import { $, busy, el, figures, number, percent, table, tell } from "./dom.js";
import { modelPath, request, send } from "./api.js";
import { bar, swatch } from "./clusters.js";
import { remember } from "./curl.js";
import { bodyOf, columnsFor, labelsOf, parseRows } from "./rows.js";
import { rowsAtHand, state } from "./state.js";

const MOST_SHOWN = 200;
const MOST_BARS = 12;

export function install() {
  $("predict-form").addEventListener("submit", (event) => {
    event.preventDefault();
    busy($("predict"), "predict-problem", predict);
  });
  $("diagnose").addEventListener("click", () => busy($("diagnose"), "diagnostics-problem", diagnose));
  $("kmeans").addEventListener("click", () => busy($("kmeans"), "diagnostics-problem", compare));
}

/* Forget the answers about what was shown before; offer only what can be asked. */
export function show() {
  const { version } = state;
  forgetPredictions();
  forgetDiagnostics();
  for (const id of ["predict-problem", "diagnostics-problem"]) tell(id, null);
  $("predict").disabled = !version;
  for (const id of ["diagnose", "kmeans"]) $(id).disabled = !version || !rowsAtHand();
  const names = version?.feature_names;
  $("predict-form").elements.rows.placeholder = names ? names.join(", ") : "5.1, 3.5, 1.4, 0.2";
}

function forgetPredictions() {
  $("predictions").replaceChildren();
  remember("predict", []);
}

function forgetDiagnostics() {
  for (const id of ["components", "diagnosed"]) $(id).replaceChildren();
  remember("diagnostics", []);
}

const shapeOf = ({ feature_names: names, fit }) => ({ names, count: fit.n_features });

async function predict() {
  const { model, at, version } = state;
  forgetPredictions();
  const rows = parseRows($("predict-form").elements.rows.value, "New rows");
  const columns = columnsFor(rows, shapeOf(version));
  const body = bodyOf(rows, columns);
  const asked = ["predict", "predict_proba", "score_samples"].map((verb) =>
    request("POST", modelPath(model.id, `/${verb}`), { query: at, body }));
  const [labels, shares, densities] = await Promise.all(asked.map(send));
  remember("predict", asked);
  const names = columns.map(({ name }) => name);
  $("predictions").replaceChildren(table(
    ["Row", ...names, "Component", "Responsibilities", "", "log p(x)"],
    body[rows.isNamed ? "data" : "X"].slice(0, MOST_SHOWN).map((row, i) => [
      String(i + 1), ...row.map((value) => number(value)),
      el("td", {}, swatch(labels.labels[i]), ` ${labels.labels[i]}`),
      bar(largest(shares.probabilities[i])), percent(Math.max(...shares.probabilities[i])),
      number(densities.log_likelihood[i]),
    ]),
  ));
}

const largest = (shares) =>
  shares.map((share, k) => [share, k]).sort((a, b) => b[0] - a[0]).slice(0, MOST_BARS);

function bodyAtHand() {
  forgetDiagnostics();
  const rows = rowsAtHand();
  return { rows, body: bodyOf(rows, columnsFor(rows, shapeOf(state.version))) };
}

async function diagnose() {
  const { rows, body } = bodyAtHand();
  const labels = labelsOf(rows);
  const asked = request("POST", modelPath(state.model.id, "/diagnostics"),
    { query: state.at, body: labels ? { ...body, labels } : body });
  const found = await send(asked);
  remember("diagnostics", [asked]);
  figures($("diagnosed"), [
    ["Mean uncertainty", `${number(found.entropy_mean, 3)} nats`],
    ["Largest", `${number(found.entropy_max, 3)} nats`],
    ["Silhouette", found.silhouette && number(found.silhouette.value, 4)],
    ["Rand index, adjusted", found.adjusted_rand_index ?? "no true labels"].map(shortened),
    ["Mutual information, adjusted", found.adjusted_mutual_information].map(shortened),
    ["Least dense row", found.lowest_density[0] && `row ${found.lowest_density[0].row + 1}`],
  ]);
  $("components").replaceChildren(table(
    ["Component", "Weight", "Rows", "Effective", "Condition", "Largest overlap"],
    found.components.map((one, k) => [
      el("td", {}, swatch(k), ` ${k}`), percent(one.weight), number(one.size),
      number(one.effective_size, 4), number(one.condition_number, 3), overlapOf(found.overlap[k], k),
    ]),
  ));
}

const shortened = (value) => (typeof value === "number" ? number(value, 4) : value);

function overlapOf(overlaps, k) {
  const others = overlaps.map((value, other) => [value, other]).filter(([, other]) => other !== k);
  if (others.length === 0) return "–";
  const [value, other] = others.reduce((a, b) => (b[0] > a[0] ? b : a));
  return `${number(value, 3)} with ${other}`;
}

async function compare() {
  const asked = request("POST", modelPath(state.model.id, "/compare/kmeans"),
    { query: state.at, body: bodyAtHand().body });
  const found = await send(asked);
  remember("diagnostics", [asked]);
  figures($("diagnosed"), [
    ["Agreement (Rand, adjusted)", number(found.adjusted_rand_index, 4)],
    ["Rows that differ", `${number(found.n_differing)} of ${number(found.n_samples)}`],
  ]);
  $("components").replaceChildren(table(
    ["", "Mixture", "k-means"],
    [
      ["Silhouette", ...both(found, (side) => side.silhouette?.value)],
      ["Inertia", ...both(found, (side) => side.inertia)],
      ["Rows by cluster", ...[found.mixture, found.kmeans].map((side) => sizes(side.labels, found.n_components))],
    ],
  ));
}

const both = (found, pick) => [found.mixture, found.kmeans].map((side) => number(pick(side), 5));

function sizes(labels, count) {
  const counted = Array(count).fill(0);
  for (const label of labels) counted[label] += 1;
  return counted.join(" · ");
}
