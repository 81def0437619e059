/* The card of rows: a file dropped or chosen, or pasted text; which columns are features. */

import { $, el, fillSelect, plural, tell } from "./dom.js";
import { faultIn, featuresOf, parseRows, requireReadable } from "./rows.js";
import { rowsAtHand, state } from "./state.js";

export function install(onChange) {
  const drop = $("drop");
  const use = (table) => {
    state.rows.set(state.model.id, table);
    show();
    onChange();
  };
  for (const [name, isOver] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", isOver);
    });
  }
  drop.addEventListener("drop", (event) => take(event.dataTransfer.files[0], use));
  $("file").addEventListener("change", async (event) => {
    await take(event.target.files[0], use);
    event.target.value = "";
  });
  $("use-pasted").addEventListener("click", () => attempt(() => {
    use(parseRows($("pasted").value, "Pasted rows"));
    $("pasted").value = "";
  }));
  $("forget-rows").addEventListener("click", () => {
    state.rows.delete(state.model.id);
    show();
    onChange();
    $("pasted").focus();
  });
  $("features").addEventListener("change", (event) => {
    const table = rowsAtHand();
    table.columns[Number(event.target.value)].isFeature = event.target.checked;
    show();
    onChange();
  });
  $("truth").addEventListener("change", (event) => {
    const table = rowsAtHand();
    table.truth = event.target.value || null;
    const column = table.columns.find((one) => one.name === table.truth);
    if (column) column.isFeature = false;
    show();
    onChange();
  });
}

export function show() {
  const table = rowsAtHand();
  tell("rows-problem", table && problemOf(table));
  $("drop").hidden = table !== null;
  $("rows-known").hidden = table === null;
  if (table === null) return;
  $("rows-name").textContent = table.name;
  const words = table.columns.filter(({ name, numbers }) => numbers === null && name !== table.truth);
  $("rows-size").textContent = [
    `${plural(table.size, "row")}, ${plural(featuresOf(table).length, "feature")} in use`,
    ...words.map(({ name }) => `${name} holds words`),
  ].join("; ");
  $("features").replaceChildren($("features").querySelector("legend"), ...table.columns.flatMap(chip));
  fillSelect($("truth"), [["", "none"], ...table.columns.map(({ name }) => [name, name])], table.truth ?? "");
}

function problemOf(table) {
  const fault = faultIn(featuresOf(table), table);
  if (fault) return `${fault} Mend the rows, or leave the column out.`;
  const areWords = table.columns.every(({ numbers }) => numbers === null);
  return areWords ? `No column holds numbers. ${faultIn(table.columns, table)}` : null;
}

function chip(column, index) {
  if (column.numbers === null) return [];
  const box = el("input", { type: "checkbox", value: String(index), checked: column.isFeature });
  return [el("label", { className: "chip" }, box, column.name)];
}

async function take(file, use) {
  if (!file) return;
  await attempt(async () => {
    requireReadable(file.size);
    use(parseRows(await file.text(), file.name));
  });
}

async function attempt(work) {
  try {
    tell("rows-problem", null);
    await work();
  } catch (problem) {
    tell("rows-problem", problem);
  }
}
