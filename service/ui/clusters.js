/* The card of clusters: the rows at hand, or rows drawn from the mixture, and its ellipses. */

import { $, el, fillSelect, number, percent, plural, svg, tell } from "./dom.js";
import { modelPath, request, send } from "./api.js";
import { remember } from "./curl.js";
import { acrossLane, axesOf, entropyOf, seenAlong, seenInLanes } from "./geometry.js";
import { colourOf, pathOf, rampStops, shapeOf } from "./palette.js";
import { bodyOf, columnsFor } from "./rows.js";
import { Scatter } from "./scatter.js";
import { rowsAtHand, state } from "./state.js";

const MOST_POINTS = 4000;
const DRAWN_ROWS = 500;
const LANES = "component";

let scatter = null;
let seen = null;
let turn = 0;

export function install() {
  scatter = new Scatter($("scatter"), describe);
  for (const id of ["axis-x", "axis-y", "colour"]) $(id).addEventListener("change", draw);
  document.addEventListener("themechange", () => seen && drawLegend());
}

/* Ask for the version's parameters and the responsibilities of the rows, and draw them. */
export async function show() {
  const mine = (turn += 1);
  tell("clusters-problem", null);
  if (!state.version) {
    clear();
    return;
  }
  try {
    const found = await ask();
    if (mine !== turn) return;
    seen = found;
    chooseAxes();
    draw();
  } catch (problem) {
    if (mine !== turn) return;
    clear();
    tell("clusters-problem", problem);
  }
}

function clear() {
  seen = null;
  scatter.clear();
  remember("clusters", []);
  $("scatter-legend").replaceChildren();
  $("clusters-note").textContent = "Nothing fitted yet.";
}

async function ask() {
  const { model, at, version } = state;
  const names = version.feature_names;
  const forParameters = request("GET", modelPath(model.id, "/parameters"), { query: at });
  const parameters = await send(forParameters);
  const { known, why } = rowsToShow(names, version.fit.n_features);
  const forRows = known ? null : request("POST", modelPath(model.id, "/sample"),
    { query: at, body: { n_samples: DRAWN_ROWS, random_state: 0 } });
  const { rows, body, indices, note } = known ?? drawn(await send(forRows), names, why);
  const forShares = request("POST", modelPath(model.id, "/predict_proba"), { query: at, body });
  const { probabilities } = await send(forShares);
  remember("clusters", [forParameters, forRows, forShares].filter(Boolean));
  return { parameters, names, rows, indices, note, probabilities };
}

/* The rows at hand as far as they can be shown, or why they can't. */
function rowsToShow(names, count) {
  const table = rowsAtHand();
  if (!table) return { why: "" };
  try {
    return { known: thinned(table, columnsFor(table, { names, count })) };
  } catch (problem) {
    return { why: `${problem.message} ` };
  }
}

/* The columns of a table, of every so many rows where they are many. */
function thinned(table, columns) {
  const step = Math.ceil(table.size / MOST_POINTS);
  const indices = Array.from({ length: Math.ceil(table.size / step) }, (_, i) => i * step);
  const rows = indices.map((i) => columns.map((column) => column.numbers[i]));
  const share = step > 1 ? ` of ${plural(table.size, "row")}` : "";
  return { rows, indices, body: bodyOf(table, columns, indices), note: `${plural(rows.length, "row")}${share} of ${table.name}.` };
}

function drawn({ X }, names, why) {
  return {
    rows: X,
    indices: null,
    body: names ? { columns: names, data: X } : { X },
    note: `${why}${plural(X.length, "row")} drawn from the mixture itself.`,
  };
}

function chooseAxes() {
  seen.axes = axesOf(seen.parameters, seen.names);
  const options = seen.axes.map(({ name }, i) => [String(i), name]);
  const before = [$("axis-x"), $("axis-y")].map((select) => select.selectedOptions[0]?.textContent);
  const isKnown = before.every((name) => options.some(([, text]) => text === name));
  const places = isKnown
    ? before.map((name) => options.find(([, text]) => text === name)[0])
    : ["0", options.length > 1 ? "1" : "0"];
  fillSelect($("axis-x"), options, places[0]);
  fillSelect($("axis-y"), options.length > 1 ? options : [["0", LANES]], places[1]);
}

function draw() {
  if (!seen) return;
  const [x, y] = [seen.axes[Number($("axis-x").value)], seen.axes[Number($("axis-y").value)]];
  const isInLanes = x === y;
  const most = Math.log(Math.max(2, seen.parameters.weights.length));
  const points = seen.rows.map((row, i) => {
    const shares = seen.probabilities[i];
    const component = shares.indexOf(Math.max(...shares));
    return { x: x.ofRow(row), y: isInLanes ? acrossLane(component, i) : y.ofRow(row), row: i, component, certainty: shares[component],
      uncertainty: Math.min(1, entropyOf(shares) / most) };
  }).sort((a, b) => a.x - b.x);
  seen.points = points;
  const components = isInLanes ? seenInLanes(seen.parameters, x) : seenAlong(seen.parameters, x, y);
  scatter.draw({ points, components, x: x.name, y: isInLanes ? LANES : y.name, colour: $("colour").value });
  $("clusters-note").textContent = `${seen.note} Ellipses at one and two standard deviations; drag to look closer, double-click to go back.`;
  drawLegend();
}

function drawLegend() {
  $("scatter-legend").replaceChildren(...($("colour").value === "uncertainty" ? rampLegend() : componentLegend()));
}

function componentLegend() {
  const unsure = seen.points.filter(({ certainty }) => certainty < 0.8).length;
  const entries = seen.parameters.weights.map((weight, k) =>
    el("li", {}, swatch(k), `${k} · ${percent(weight)}`));
  return unsure ? [...entries, el("li", {}, `hollow: no component has 80 % of it (${plural(unsure, "row")})`)] : entries;
}

function rampLegend() {
  const ramp = el("span", { className: "ramp" });
  ramp.style.background = `linear-gradient(90deg, ${rampStops().join(", ")})`;
  return [el("li", {}, "sure", ramp, "as unsure as can be")];
}

export function swatch(component) {
  return svg("svg", { class: "swatch", viewBox: "0 0 12 12", "aria-hidden": "true" },
    svg("path", { d: pathOf(shapeOf(component), 6, 6, 4.2), fill: colourOf(component) }));
}

function describe(index) {
  const point = seen.points[index];
  const shares = seen.probabilities[point.row];
  const row = seen.indices ? `Row ${seen.indices[point.row] + 1}` : "Drawn row";
  const [nameX, nameY] = [$("axis-x"), $("axis-y")].map((select) => select.selectedOptions[0].text);
  const isInLanes = $("axis-x").value === $("axis-y").value;
  const place = `${nameX} ${number(point.x)}${isInLanes ? "" : `, ${nameY} ${number(point.y)}`}`;
  return [
    el("b", {}, `${row} · component ${point.component}`),
    el("span", { className: "quiet" }, place),
    sharesOf(shares),
  ];
}

/* The largest responsibilities as bars. */
function sharesOf(shares) {
  const largest = shares.map((share, k) => [share, k]).sort((a, b) => b[0] - a[0]).slice(0, 6);
  return el("div", { className: "shares" }, ...largest.flatMap(([share, k]) => [
    el("span", {}, swatch(k), ` ${k}`), bar([[share, k]], "share"), el("span", {}, percent(share))]));
}

export function bar(shares, className = "bars") {
  return el("span", { className }, ...shares.map(([share, k]) => {
    const part = el("i");
    part.style.width = `${100 * share}%`;
    part.style.background = colourOf(k);
    return part;
  }));
}
