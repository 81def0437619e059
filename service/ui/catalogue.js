/* The list of models at the side, and the dialogue that declares a new one. */

import { $, busy, el, fillSelect, tell } from "./dom.js";
import { all, modelPath, request, send } from "./api.js";
import { remember } from "./curl.js";
import { FAMILIES, numbersIn } from "./fitting.js";
import { state } from "./state.js";

const FEW = 8;

let models = [];

export function install(onDeclared) {
  fillSelect($("declare-form").elements.covariance_type, FAMILIES.map((family) => [family, family]));
  for (const id of ["new-model", "welcome-new"]) $(id).addEventListener("click", open);
  $("declare-cancel").addEventListener("click", () => $("declare").close());
  $("model-filter").addEventListener("input", draw);
  $("declare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    busy(event.submitter ?? $("declare-cancel"), "declare-problem", async () => onDeclared(await declare()));
  });
}

function open() {
  tell("declare-problem", null);
  $("declare").showModal();
}

async function declare() {
  const fields = $("declare-form").elements;
  const body = {
    ...numbersIn(fields),
    standardize: fields.standardize.checked,
    pca_components: fields.pca_components.value === "" ? null : Number(fields.pca_components.value),
    description: fields.description.value,
  };
  if (fields.id.value) body.id = fields.id.value;
  const model = await send(request("POST", "models", { body }));
  fields.id.value = "";
  $("declare").close();
  return model;
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
  return [`K = ${count}`, family, latest ? `v${latest}` : "no version"].join(" · ");
}
