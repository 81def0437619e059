/* The card of aliases: which names lead where; lead one to the version that is shown. */

import { $, busy, el } from "./dom.js";
import { modelPath, request, send } from "./api.js";
import { remember } from "./curl.js";
import { state } from "./state.js";

let changed = null;

export function install(onChange) {
  changed = onChange;
  $("alias-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const alias = $("alias-form").elements.alias.value;
    change($("put-alias"), request("PUT", pathOf(alias), { body: { version: state.version.version } }));
  });
}

const pathOf = (alias, rest = "") => modelPath(state.model.id, `/aliases/${encodeURIComponent(alias)}${rest}`);

export function show() {
  const { model, version } = state;
  remember("aliases", [request("GET", modelPath(model.id, "/aliases"))]);
  $("put-alias").disabled = !version;
  $("put-alias").textContent = version ? `Lead to v${version.version}` : "Lead here";
  const entries = Object.entries(model.aliases).sort();
  $("alias-list").replaceChildren(...entries.map(([alias, number]) => el("li", {},
    el("span", {}, el("b", {}, alias), ` → v${number}`),
    button(`Roll ${alias} back`, "Roll back", () => request("POST", pathOf(alias, "/rollback"))),
    button(`Remove ${alias}`, "Remove", () => request("DELETE", pathOf(alias))),
  )));
}

function button(title, text, asked) {
  const made = el("button", { type: "button", className: "plain small", textContent: text, title });
  made.addEventListener("click", () => change(made, asked()));
  return made;
}

function change(pressed, asked) {
  return busy(pressed, "aliases-problem", async () => {
    await send(asked);
    await changed();
    remember("aliases", [asked]);
  });
}
