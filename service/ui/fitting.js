/* Fits and selections: asked for as jobs, followed by their events, cancelled. */

import { $, busy, el, fillSelect, number, plural, tell } from "./dom.js";
import { all, eventsOf, get, modelPath, request, send } from "./api.js";
import { remember } from "./curl.js";
import { beginSelection, CRITERIA, drawHistory, showSelection } from "./results.js";
import { bodyOf, featuresOf } from "./rows.js";
import { isShown, rowsAtHand, state } from "./state.js";

export const FAMILIES = ["full", "tied", "diag", "spherical"];
const PATIENCE_SECONDS = 20;

let whenDone = null;
let followed = null;

/* ``onDone`` is called with the model's id when one of its jobs has ended. */
export function install(onDone) {
  whenDone = onDone;
  fillSelect($("fit-form").elements.covariance_type, FAMILIES.map((family) => [family, family]));
  fillSelect($("select-form").elements.criterion, Object.entries(CRITERIA), "bic");
  $("families").append(...FAMILIES.map((family) => el("label", { className: "chip" },
    el("input", { type: "checkbox", name: "covariance_type", value: family, checked: true }), family)));
  $("fit-form").addEventListener("submit", (event) => {
    event.preventDefault();
    busy($("fit"), "fit-problem", fit);
  });
  $("select-form").addEventListener("submit", (event) => {
    event.preventDefault();
    busy($("select"), "fit-problem", select);
  });
  $("cancel").addEventListener("click", () => busy($("cancel"), "fit-problem", cancel));
}

/* Fill the forms with the model's hyperparameters; take up a job that runs already. */
export async function show(model = state.model) {
  leave();
  tell("fit-problem", null);
  const fields = $("fit-form").elements;
  for (const name of ["n_components", "covariance_type", "n_init", "random_state"]) {
    fields[name].value = model[name] ?? "";
  }
  if (model.status !== "fitting") return;
  const jobs = await all("jobs", "jobs", { query: { model: model.id, status: "running" }, most: 1 });
  if (jobs.length && isShown(model.id)) follow(jobs[0], null);
}

export const numbersIn = (fields) => ({
  n_components: Number(fields.n_components.value),
  covariance_type: fields.covariance_type.value,
  n_init: Number(fields.n_init.value),
  random_state: fields.random_state.value === "" ? null : Number(fields.random_state.value),
});

function trainingBody() {
  const table = rowsAtHand();
  if (!table) throw new Error("Drop a CSV or paste rows first.");
  if (featuresOf(table).length === 0) throw new Error("Choose at least one column as a feature.");
  return bodyOf(table);
}

async function fit() {
  const { model } = state;
  const body = trainingBody();
  const wanted = numbersIn($("fit-form").elements);
  const changed = Object.fromEntries(Object.entries(wanted).filter(([name, value]) => model[name] !== value));
  const update = Object.keys(changed).length ? request("PATCH", modelPath(model.id), { body: changed }) : null;
  if (update) Object.assign(model, await send(update));
  await start(update, request("POST", modelPath(model.id, "/fit"), { query: { wait: 0 }, body }), null);
}

async function select() {
  const { model } = state;
  const body = trainingBody();
  const fields = $("select-form").elements;
  const families = [...$("families").querySelectorAll(":checked")].map((box) => box.value);
  if (families.length === 0) throw new Error("Choose at least one form of covariances.");
  const criterion = fields.criterion.value;
  const query = { n_components: fields.n_components.value, covariance_type: families, criterion, wait: 0 };
  await start(null, request("POST", modelPath(model.id, "/select"), { query, body }), criterion);
}

async function start(update, asked, criterion) {
  const answer = await send(asked);
  const job = answer.id ? answer : await get(`jobs/${answer.job}`);
  remember("fit", [update, asked, eventsOf(job.id)].filter(Boolean));
  follow(job, criterion);
}

/* Follow a job to its end, wherever the page goes meanwhile. */
function follow(job, criterion) {
  leave();
  const view = job.kind === "select" ? new SelectionView(criterion ?? "bic") : new FitView();
  const source = new EventSource(eventsOf(job.id).url);
  followed = { job, source };
  $("job").hidden = false;
  $("job-title").textContent = job.kind === "select" ? "Selecting" : "Fitting";
  $("job-state").textContent = "waiting for its turn";
  $("job-progress").removeAttribute("value");
  source.addEventListener("progress", (event) => {
    const progress = JSON.parse(event.data);
    const share = view.show(progress);
    $("job-progress").value = share;
  });
  source.addEventListener("done", (event) => {
    source.close();
    finish(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) ask(job.id);
  });
}

/* Without events the job itself is asked, until it has ended. */
async function ask(id) {
  try {
    let job;
    do job = await get(`jobs/${id}`, { wait: PATIENCE_SECONDS });
    while (!job.done && followed?.job.id === id);
    if (job.done) finish(job);
  } catch (problem) {
    tell("fit-problem", problem);
  }
}

function finish(job) {
  if (followed?.job.id !== job.id) return;
  leave();
  if (job.status !== "succeeded") tell("fit-problem", job.error?.detail ?? `The ${job.kind} was ${job.status}.`);
  whenDone(job);
}

function leave() {
  followed?.source.close();
  followed = null;
  $("job").hidden = true;
}

async function cancel() {
  if (followed) await send(request("POST", `jobs/${followed.job.id}/cancel`));
}

const remaining = (seconds) => (seconds === null ? "" : ` · about ${plural(Math.max(1, Math.round(seconds)), "second")} left`);

class FitView {
  points = [];
  run = null;
  begun = 0;
  share = 0;

  /* Show how far the fit is; return that as a share. */
  show(progress) {
    const run = `${progress.restart}/${progress.run}`;
    if (run !== this.run) {
      if (this.run !== null) this.points.push([(this.points.at(-1)?.[0] ?? 0) + 0.5, null]);
      this.begun = Math.ceil(this.points.at(-1)?.[0] ?? 0);
      this.run = run;
    }
    this.points.push([this.begun + progress.iteration, progress.log_likelihood]);
    const start = `start ${progress.restart + 1} of ${progress.n_init}, run ${progress.run + 1}`;
    $("job-state").textContent =
      `${start} · step ${progress.iteration} · ${number(progress.log_likelihood, 7)}${remaining(progress.eta_seconds)}`;
    drawHistory(this.points, `Live: ${start}.`);
    this.share = Math.max(this.share, (progress.restart + progress.iteration / progress.max_iter) / progress.n_init);
    return this.share;
  }
}

class SelectionView {
  candidates = new Map();

  constructor(criterion) {
    this.criterion = criterion;
    beginSelection();
  }

  show({ leaderboard }) {
    if (!leaderboard) return 0;
    for (const leader of leaderboard.leaders) {
      this.candidates.set(`${leader.covariance_type} ${leader.n_components}`, leader);
    }
    const done = this.candidates.size;
    $("job-state").textContent = `${done} of ${leaderboard.n_candidates} candidates`;
    if (done) {
      showSelection({ criterion: this.criterion, best: leaderboard.leaders[0], candidates: [...this.candidates.values()] });
    }
    return done / leaderboard.n_candidates;
  }
}
