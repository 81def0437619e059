/* The page at /ui: opens the model that the address names, and lets every card show it. */

import * as aliases from "./aliases.js";
import * as asking from "./asking.js";
import * as catalogue from "./catalogue.js";
import * as clusters from "./clusters.js";
import * as curl from "./curl.js";
import * as data from "./data.js";
import * as declaring from "./declaring.js";
import * as fitting from "./fitting.js";
import * as results from "./results.js";
import { all, get, modelPath, request, send } from "./api.js";
import { $, busy, el, number, plural } from "./dom.js";
import { isShown, state } from "./state.js";

const LATEST = "latest";
const PATH = /^#models\/([^/]+)$/;

function install() {
  curl.install();
  results.install();
  clusters.install();
  asking.install();
  data.install(onRows);
  aliases.install(() => reload());
  catalogue.install();
  declaring.install(onDeclared);
  fitting.install(onJobDone);
  $("version").addEventListener("change", () => lookAt($("version").value));
  $("delete-model").addEventListener("click", () => $("confirm").showModal());
  $("confirm-no").addEventListener("click", () => $("confirm").close());
  $("confirm-yes").addEventListener("click", deleteModel);
  addEventListener("hashchange", () => openAddressed());
}

async function begin() {
  install();
  try {
    const [service] = await Promise.all([get("version"), catalogue.refresh()]);
    $("service-version").textContent = service.version;
    await openAddressed();
  } catch (problem) {
    $("no-models").hidden = false;
    $("no-models").textContent = problem.message;
  }
}

async function openAddressed() {
  const id = PATH.exec(location.hash)?.[1];
  if (id) await open(decodeURIComponent(id));
  else showWelcome();
}

function showWelcome() {
  state.model = null;
  $("model").hidden = true;
  $("welcome").hidden = false;
  catalogue.draw();
}

async function open(id) {
  try {
    state.model = await get(modelPath(id));
  } catch (problem) {
    showWelcome();
    $("no-models").hidden = false;
    $("no-models").textContent = problem.message;
    return;
  }
  curl.forgetAll();
  $("welcome").hidden = true;
  $("model").hidden = false;
  catalogue.draw();
  data.show();
  await Promise.all([showModel(state.model.aliases.champion ? "alias:champion" : LATEST), fitting.show()]);
}

/* Show the model anew, looking at ``wanted``: "latest", "alias:…" or the number of a version. */
async function showModel(wanted) {
  const { model } = state;
  $("model-id").textContent = model.id;
  $("model-status").textContent = model.status;
  $("model-status").dataset.status = model.status;
  $("model-facts").textContent = factsOf(model);
  curl.remember("model", [request("GET", modelPath(model.id))]);
  const versions = model.latest_version
    ? await all(modelPath(model.id, "/versions"), "versions")
    : [];
  if (!isShown(model.id)) return;
  fillVersions(versions, model, wanted);
  await lookAt($("version").value);
}

function factsOf(model) {
  return [
    model.description, `declared for the next fit: K = ${model.n_components}, ${model.covariance_type}`,
    model.n_features && plural(model.n_features, "feature"),
    model.standardize && "standardised",
    model.pca_components && `principal axes: ${model.pca_components}`,
  ].filter(Boolean).join(" · ");
}

function showVersionFacts() {
  const { version } = state;
  const fitted = version?.hyperparameters;
  $("version-facts").textContent =
    version ? `v${version.version}: K = ${fitted.n_components}, ${fitted.covariance_type}` : "";
}

function fillVersions(versions, model, wanted) {
  const option = (value, text) => el("option", { value, textContent: text });
  const newest = [...versions].sort((a, b) => b.version - a.version);
  const names = [[LATEST, model.latest_version], ...Object.entries(model.aliases).sort()]
    .map(([name, version]) => option(name === LATEST ? LATEST : `alias:${name}`, `${name} → v${version}`));
  const numbers = newest.map((one) =>
    option(String(one.version), `v${one.version} · K = ${one.n_components} ${one.covariance_type}, BIC ${number(one.bic)}`));
  $("version").disabled = versions.length === 0;
  $("version").replaceChildren(...(versions.length === 0 ? [option("", "none yet")] : [
    el("optgroup", { label: "Aliases" }, ...names), el("optgroup", { label: "Versions" }, ...numbers)]));
  const isThere = [...$("version").options].some(({ value }) => value === wanted);
  $("version").value = isThere ? wanted : $("version").options[0].value;
}

async function lookAt(wanted) {
  const { model } = state;
  const alias = /^alias:(.+)$/.exec(wanted)?.[1];
  const version = wanted === LATEST ? model.latest_version : model.aliases[alias] ?? Number(wanted);
  state.at = alias ? { alias } : version ? { version } : {};
  const found = version ? await get(modelPath(model.id, `/versions/${version}`)) : null;
  if (!isShown(model.id)) return;
  state.version = found;
  showVersionFacts();
  results.show();
  aliases.show();
  asking.show();
  await clusters.show();
}

async function onDeclared(model) {
  await catalogue.refresh();
  if (!isShown(model.id)) location.hash = modelPath(model.id);
  else await Promise.all([reload(), fitting.show(model)]);
}

async function onRows() {
  asking.show();
  await clusters.show();
}

async function onJobDone(job) {
  await catalogue.refresh();
  if (isShown(job.model)) await reload(job.status === "succeeded" ? LATEST : undefined);
}

async function reload(wanted = $("version").value) {
  const { model } = state;
  const fresh = await get(modelPath(model.id));
  if (!isShown(model.id)) return;
  state.model = fresh;
  await showModel(wanted);
}

async function deleteModel() {
  const { id } = state.model;
  await busy($("confirm-yes"), "fit-problem", async () => {
    await send(request("DELETE", modelPath(id)));
    state.rows.delete(id);
    await catalogue.refresh();
    location.hash = "";
  });
  $("confirm").close();
}

await begin();
