/* Elements by id, new elements, numbers for people. No text becomes markup anywhere. */

export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { dataset = {}, ...rest } = properties;
  Object.assign(element, rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => el("option", { value, textContent: text })));
  if (chosen !== undefined) select.value = chosen;
}

export function table(headings, rows) {
  return el(
    "table", {},
    el("thead", {}, el("tr", {}, ...headings.map((text) => el("th", { scope: "col", textContent: text })))),
    el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map(cell)))),
  );
}

function cell(content) {
  return content instanceof HTMLTableCellElement ? content : el("td", {}, content);
}

export function figures(list, entries) {
  const shown = entries.filter(([, value]) => value !== null && value !== undefined);
  list.replaceChildren(...shown.map(([name, value]) =>
    el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: value }))));
}

export function number(value, digits = 5) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(digits - 2);
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en", { maximumFractionDigits: decimals });
}

export const percent = (value) => `${(100 * value).toFixed(value > 0.0005 && value < 0.9995 ? 1 : 0)} %`;

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/* Show what went wrong in the element ``id``; with nothing, take it away. */
export function tell(id, problem) {
  const place = $(id);
  place.hidden = !problem;
  place.textContent = problem ? problem.message ?? String(problem) : "";
}

/* Run ``work`` once at a time for its button; tell its failure in ``problemId``. */
export async function busy(button, problemId, work) {
  tell(problemId, null);
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (problem) {
    tell(problemId, problem);
    return undefined;
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}
