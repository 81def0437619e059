/* What a version stores of its fit: the log-likelihood, the selection's table, the figures. */

import { $, el, figures, number, table } from "./dom.js";
import { modelPath, request } from "./api.js";
import { remember } from "./curl.js";
import { LineChart } from "./lines.js";
import { colourOf } from "./palette.js";
import { state } from "./state.js";

export const CRITERIA = {
  bic: "BIC", aic: "AIC", aicc: "AICc", icl: "ICL", held_out_log_likelihood: "held-out log-likelihood",
};
const DASHES = [undefined, [8, 4], [2, 3], [10, 3, 2, 3]];
const MOST_LINES = 12;
/* So many candidates are shown beside the best, even where a third is less. */
const FEWEST_NEAR = 2;
/* The axis is cut where the worst is so many times as far from the best as the best third is. */
const FAR = 2;

let convergence = null;
let selection = null;

export function install() {
  convergence = new LineChart($("convergence"), { x: "step", y: "log-likelihood" });
  selection = new LineChart($("selection"), { x: "components", y: "criterion" });
  document.addEventListener("themechange", () => show());
}

/* Show what is stored with the version, or that there is nothing. */
export function show() {
  const { version } = state;
  const forVersion = version && request("GET", modelPath(version.model, `/versions/${version.version}`));
  for (const card of ["convergence", "figures"]) remember(card, version ? [forVersion] : []);
  remember("selection", version?.selection ? [forVersion] : []);
  showHistory(version?.fit);
  if (version?.selection) showSelection(version.selection);
  else clearSelection();
  showFigures(version);
}

function showHistory(fit) {
  if (!fit) {
    convergence.clear();
    $("convergence-note").textContent = "Grows here while a fit runs.";
    return;
  }
  drawHistory(fit.log_likelihood_history.map((value, i) => [i + 1, value]));
  $("convergence-note").textContent =
    `${fit.stop_reason.replaceAll("_", " ")} after ${fit.n_iter} steps, ${number(fit.duration_seconds, 3)} s`;
}

export function drawHistory(points, note) {
  convergence.draw(points.length ? [{ label: "log-likelihood", colour: colourOf(0), points }] : []);
  if (note) $("convergence-note").textContent = note;
}

/* Draw a table of candidates: {criterion, best, candidates}, whole or as far as it is known. */
export function showSelection({ criterion, best, candidates, complete = true, n_folds: folds = null }) {
  const known = candidates.filter(({ value }) => value !== null);
  const families = [...new Set(known.map((one) => one.covariance_type))].sort();
  const limits = nearBest(known.map(({ value }) => value), isMoreBetter(criterion));
  selection.y = CRITERIA[criterion];
  selection.draw(
    families.map((family, i) => ({
      label: family,
      colour: colourOf(i),
      dash: DASHES[i % DASHES.length],
      points: known.filter((one) => one.covariance_type === family)
        .sort((a, b) => a.n_components - b.n_components).map((one) => [one.n_components, one.value]),
    })),
    best?.value == null ? null : [best.n_components, best.value],
    limits,
  );
  const sense = isMoreBetter(criterion) ? `higher is better, ${folds ?? "several"} folds` : "lower is better";
  const cut = limits ? "; arrows mark those beyond the axis" : "";
  $("selection-note").textContent = best
    ? `Best by ${CRITERIA[criterion]}: ${best.n_components} components, ${best.covariance_type} (ringed; ${sense}${cut})${complete ? "" : "; the time was up before the end"}.`
    : "";
  $("leaderboard").replaceChildren(leaderboardOf(criterion, known));
}

const isMoreBetter = (criterion) => criterion === "held_out_log_likelihood";

/* Where the axis begins and ends that shows the best third; null where all values are near the best. */
function nearBest(values, isMore) {
  if (values.length <= FEWEST_NEAR) return null;
  const best = isMore ? Math.max(...values) : Math.min(...values);
  const away = values.map((value) => Math.abs(value - best)).sort((a, b) => a - b);
  const near = away[Math.max(FEWEST_NEAR, Math.floor(away.length / 3))];
  if (near === 0 || away.at(-1) <= FAR * near) return null;
  return isMore ? [best - 1.2 * near, best + 0.15 * near] : [best - 0.15 * near, best + 1.2 * near];
}

function leaderboardOf(criterion, candidates) {
  const ordered = [...candidates].sort((a, b) => (isMoreBetter(criterion) ? b.value - a.value : a.value - b.value));
  return table(
    ["", "K", "Covariances", CRITERIA[criterion], "log L", "Free"],
    ordered.slice(0, MOST_LINES).map((one, i) => [
      String(i + 1), String(one.n_components), one.covariance_type,
      el("td", { className: i === 0 ? "best" : "", textContent: number(one.value, 7) }),
      number(one.log_likelihood, 7), one.n_parameters == null ? "–" : String(one.n_parameters),
    ]),
  );
}

function clearSelection() {
  selection.clear();
  $("leaderboard").replaceChildren();
  $("selection-note").textContent = state.version
    ? "This version was fitted as declared, not selected."
    : "Fills here while a selection runs.";
}

export function beginSelection() {
  selection.clear();
  $("leaderboard").replaceChildren();
  $("selection-note").textContent = "The first candidates are being fitted …";
}

function showFigures(version) {
  const fit = version?.fit;
  figures($("figures"), !fit ? [] : [
    ["Log-likelihood", number(fit.log_likelihood, 7)],
    ["BIC", number(fit.bic, 7)], ["AIC", number(fit.aic, 7)],
    ["AICc", number(fit.aicc, 7)], ["ICL", number(fit.icl, 7)],
    ["Rows", number(fit.n_samples)], ["Parameters", number(fit.n_parameters)],
    ["Converged", fit.converged ? "yes" : "no"],
    ["Space", fit.space && fit.space !== "original" ? fit.space : null],
  ]);
  $("warnings").replaceChildren(...(fit?.warnings ?? []).map(({ detail }) => el("li", {}, detail)));
}
