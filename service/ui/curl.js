/* "The same with curl": what each card last asked, ready to be copied. */

import { $ } from "./dom.js";
import { curlOf, longBodyOf } from "./api.js";

const asked = new Map();
let bodyUrl = null;

/* Note the requests behind what the card shows. */
export function remember(card, requests) {
  asked.set(card, requests);
  buttonOf(card).disabled = requests.length === 0;
}

export function forgetAll() {
  for (const card of [...asked.keys()].filter((name) => name !== "models")) remember(card, []);
}

const buttonOf = (card) => document.querySelector(`[data-curl="${card}"]`);

export function install() {
  for (const button of document.querySelectorAll("[data-curl]")) {
    button.disabled = true;
    button.title = "Copy as curl";
    button.setAttribute("aria-label", `Copy as curl: ${button.dataset.curl}`);
    button.addEventListener("click", () => show(asked.get(button.dataset.curl)));
  }
  $("curl-close").addEventListener("click", () => $("curl").close());
  $("curl-copy").addEventListener("click", copy);
  $("curl").addEventListener("close", dropBody);
}

async function show(requests) {
  $("curl-text").textContent = requests.map(curlOf).join("\n\n");
  const body = longBodyOf(requests);
  const link = $("curl-body");
  link.hidden = body === undefined;
  if (body !== undefined) {
    bodyUrl = URL.createObjectURL(new Blob([body], { type: "application/json" }));
    link.href = bodyUrl;
  }
  $("curl").showModal();
  await copy();
}

async function copy() {
  const text = $("curl-text").textContent;
  try {
    await navigator.clipboard.writeText(text);
    $("curl-note").textContent = "Copied to the clipboard.";
  } catch {
    getSelection().selectAllChildren($("curl-text"));
    $("curl-note").textContent = "Selected; copy it with your keyboard.";
  }
}

function dropBody() {
  if (bodyUrl) URL.revokeObjectURL(bodyUrl);
  bodyUrl = null;
}
