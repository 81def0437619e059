/* The dialogue that declares a model, or changes what one is declared as for its next fit. */

import { $, busy, fillSelect, tell } from "./dom.js";
import { modelPath, request, send } from "./api.js";
import { remember } from "./curl.js";
import { FAMILIES, numbersIn } from "./fitting.js";
import { state } from "./state.js";

const INITIALIZERS = ["auto", "k-means++", "kmeans", "random", "random_from_data"];
const TEXTS = ["n_components", "covariance_type", "n_init", "random_state", "tol", "max_iter", "init_params", "pca_components", "description"];

/* The model that is changed; null while a new one is declared. */
let changed = null;

/* ``onDone`` is called with a model that was declared or changed. */
export function install(onDone) {
  const form = $("declare-form");
  for (const [name, options] of [["covariance_type", FAMILIES], ["init_params", INITIALIZERS]]) {
    fillSelect(form.elements[name], options.map((option) => [option, option]));
  }
  for (const id of ["new-model", "welcome-new"]) $(id).addEventListener("click", () => open(null));
  $("edit-model").addEventListener("click", () => open(state.model));
  $("declare-cancel").addEventListener("click", () => $("declare").close());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    busy($("declare-send"), "declare-problem", async () => onDone(await sent()));
  });
}

function open(model) {
  changed = model;
  const form = $("declare-form");
  form.reset();
  form.elements.id.disabled = Boolean(model);
  $("declare-title").textContent = model ? `Change ${model.id} for its next fit` : "New model";
  $("declare-send").textContent = model ? "Save" : "Declare";
  if (model) fill(form.elements, model);
  tell("declare-problem", null);
  $("declare").showModal();
}

function fill(fields, model) {
  fields.id.value = model.id;
  for (const name of TEXTS) fields[name].value = model[name] ?? "";
  fields.reg_covar.value = model.reg_covar === "auto" ? "" : model.reg_covar;
  fields.standardize.checked = model.standardize;
}

async function sent() {
  const body = declaredIn($("declare-form").elements);
  const asked = changed
    ? request("PATCH", modelPath(changed.id), { body })
    : request("POST", "models", { body });
  const model = await send(asked);
  $("declare").close();
  remember("models", [asked]);
  return model;
}

const orElse = (field, otherwise) => (field.value === "" ? otherwise : Number(field.value));

function declaredIn(fields) {
  const body = {
    ...numbersIn(fields),
    tol: Number(fields.tol.value),
    max_iter: Number(fields.max_iter.value),
    init_params: fields.init_params.value,
    reg_covar: orElse(fields.reg_covar, "auto"),
    standardize: fields.standardize.checked,
    pca_components: orElse(fields.pca_components, null),
    description: fields.description.value,
  };
  return fields.id.value && !changed ? { id: fields.id.value, ...body } : body;
}
