/* Rows out of text: CSV with any common separator, with a line of names or without one. */

import { plural } from "./dom.js";

/* Before the comma, which may stand in the decimals of the others. */
const SEPARATORS = ["\t", ";", ","];
const NAMES_OF_LABELS = /^(label|labels|class|species|target|truth|cluster|variety)$/i;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const NOT_FINITE = /^[+-]?(nan|inf(inity)?)$/i;
const DECIMAL_COMMA = /^[+-]?\d*,\d+(e[+-]?\d+)?$/i;
const LONGEST_CELL = 40;

const LARGEST_TEXT = 30 * 1024 * 1024;

export function requireReadable(size) {
  if (size > LARGEST_TEXT) {
    throw new Error("That is more than this page takes. Send large files to the API, as Parquet, Arrow or NPY.");
  }
}

/* A table: its columns with their texts and, unless they are words, the numbers in them. */
export function parseRows(text, name) {
  requireReadable(text.length);
  const lines = cellsOf(text);
  if (lines.length === 0) throw new Error("There are no rows in it.");
  const isNamed = !lines[0].some(isMeantAsNumber);
  const names = isNamed ? lines[0].map((cell, i) => cell || `x${i + 1}`) : lines[0].map((_, i) => `x${i + 1}`);
  const data = isNamed ? lines.slice(1) : lines;
  if (data.length === 0) throw new Error("There is a line of names and no row below it.");
  const ragged = data.findIndex((cells) => cells.length !== names.length);
  if (ragged >= 0) {
    throw new Error(`Row ${ragged + 1} has ${data[ragged].length} values; the first line has ${names.length}.`);
  }
  const columns = names.map((column, i) =>
    columnOf(column, isNamed ? column : String(i + 1), data.map((cells) => cells[i])));
  const label = columns.find((column) => NAMES_OF_LABELS.test(column.name)) ??
    columns.find((column) => column.numbers === null && isFew(column));
  for (const column of columns) column.isFeature = column.numbers !== null && column !== label;
  return { name, isNamed, columns, truth: label?.name ?? null, size: data.length };
}

/* Labels repeat; numbers with words between them, or notes, do not. */
const isFew = (column) => new Set(column.texts).size <= Math.max(2, column.texts.length / 2);

/* A column of which half the cells are meant as numbers is one of numbers, with faults in it. */
function columnOf(name, title, texts) {
  const meant = texts.filter(isMeantAsNumber).length;
  const areNumbers = meant > 0 && 2 * meant >= texts.filter((text) => text !== "").length;
  const faults = [...texts.keys()].filter((row) => !isNumber(texts[row]));
  return { name, title, texts, faults, numbers: areNumbers ? texts.map(Number) : null, isFeature: false };
}

const isNumber = (text) => NUMBER.test(text) && Number.isFinite(Number(text));

const isMeantAsNumber = (text) => [NUMBER, NOT_FINITE, DECIMAL_COMMA].some((form) => form.test(text));

/* Say which cell of the columns is the first that holds no number, and why; null where all do. */
export function faultIn(columns, { isNamed, size }) {
  const faulty = columns.filter(({ faults }) => faults.length > 0);
  if (faulty.length === 0) return null;
  const first = faulty.reduce((one, other) => (other.faults[0] < one.faults[0] ? other : one));
  const row = first.faults[0];
  const others = faulty.reduce((sum, { faults }) => sum + faults.length, -1);
  return [
    `Row ${row + 1}, column ${first.title}: ${reasonOf(first.texts[row])}`,
    others > 0 ? `, and ${plural(others, "more cell")} like it.` : ".",
    row === 0 && !isNamed && size > 1 ? " A first line with a number in it is a row, not a line of names." : "",
  ].join("");
}

function reasonOf(text) {
  if (text === "") return "the cell is empty";
  const shown = text.length > LONGEST_CELL ? `${text.slice(0, LONGEST_CELL)}…` : text;
  if (NUMBER.test(text)) return `${shown} is too large a number`;
  return `${shown} is no number${DECIMAL_COMMA.test(text) ? "; decimals take a point" : ""}`;
}

function requireNumbers(columns, table) {
  const fault = faultIn(columns, table);
  if (fault) throw new Error(fault);
}

function cellsOf(text) {
  const first = text.slice(0, text.search(/[\r\n]|$/));
  const separator = SEPARATORS.find((candidate) => first.includes(candidate)) ?? " ";
  const lines = text.includes('"') ? quotedCells(text, separator) : plainCells(text, separator);
  return lines.filter((cells) => cells.some((cell) => cell !== ""));
}

function plainCells(text, separator) {
  const split = separator === " " ? (line) => line.trim().split(/\s+/) : (line) => line.split(separator);
  return text.replace(/^\uFEFF/, "").split(/\r\n?|\n/).map((line) => split(line).map((cell) => cell.trim()));
}

function quotedCells(text, separator) {
  const lines = [[]];
  let cell = "";
  let isQuoted = false;
  const endCell = () => { lines.at(-1).push(cell.trim()); cell = ""; };
  const whole = text.replace(/^\uFEFF/, "").replaceAll("\r\n", "\n");
  for (let at = 0; at < whole.length; at += 1) {
    const character = whole[at];
    if (isQuoted && character === '"' && whole[at + 1] === '"') { cell += '"'; at += 1; }
    else if (character === '"') isQuoted = !isQuoted;
    else if (!isQuoted && character === separator) endCell();
    else if (!isQuoted && character === "\n") { endCell(); lines.push([]); }
    else cell += character;
  }
  endCell();
  return lines;
}

export const featuresOf = (table) => table.columns.filter((column) => column.isFeature);

export const labelsOf = (table) => table.columns.find((column) => column.name === table.truth)?.texts;

/* The body that carries these columns; names only where the text had some. */
export function bodyOf(table, columns = featuresOf(table), rows = null) {
  requireNumbers(columns, table);
  const indices = rows ?? Array.from({ length: table.size }, (_, i) => i);
  const data = indices.map((i) => columns.map((column) => column.numbers[i]));
  return table.isNamed ? { columns: columns.map((column) => column.name), data } : { X: data };
}

/* The columns that a version asks for, in its order, all of numbers; or an error that says why not. */
export function columnsFor(table, version) {
  const columns = columnsAsked(table, version);
  requireNumbers(columns, table);
  return columns;
}

function columnsAsked(table, { names, count }) {
  if (names && table.isNamed) {
    const missing = names.filter((name) => !table.columns.some((column) => column.name === name));
    if (missing.length > 0) throw new Error(`The rows have no column ${missing.join(", ")}; the version was fitted to it.`);
    return names.map((name) => table.columns.find((column) => column.name === name));
  }
  const features = featuresOf(table);
  if (features.length === count) return features;
  if (table.columns.length === count) return table.columns;
  const words = table.columns.filter(({ numbers }) => numbers === null).map(({ title }) => title);
  const others = words.length > 0 ? `; words are in column ${words.join(", ")}` : "";
  throw new Error(`The rows have ${plural(features.length, "feature")}, the version ${count}${others}.`);
}
