/* The list of models at the side. */

import { $, el } from "./dom.js";
import { all, modelPath, request } from "./api.js";
import { remember } from "./curl.js";
import { state } from "./state.js";

const FEW = 8;

let models = [];

export function install() {
  $("model-filter").addEventListener("input", draw);
}

export async function refresh() {
  models = await all("models", "models");
  remember("models", [request("GET", "models")]);
  draw();
  return models;
}

export function draw() {
  const wanted = $("model-filter").value.trim().toLowerCase();
  $("model-filter").hidden = models.length <= FEW;
  $("no-models").hidden = models.length > 0;
  $("model-list").replaceChildren(...models.filter(({ id }) => id.includes(wanted)).map(entry));
}

function entry(model) {
  const link = el("a", { href: `#${modelPath(model.id)}` },
    el("b", {}, model.id), " ",
    el("span", { className: "pill", dataset: { status: model.status } }, model.status),
    el("small", {}, shapeOf(model)));
  if (model.id === state.model?.id) link.setAttribute("aria-current", "page");
  return el("li", {}, link);
}

function shapeOf({ n_components: count, covariance_type: family, latest_version: latest }) {
  return `${latest ? `v${latest}` : "no version"} · declared K = ${count}, ${family}`;
}
