/* Rows out of text: CSV with any common separator, with a line of names or without one. */

const SEPARATORS = [",", ";", "\t"];
const NAMES_OF_LABELS = /^(label|labels|class|species|target|truth|cluster|variety)$/i;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

const LARGEST_TEXT = 30 * 1024 * 1024;

export function requireReadable(size) {
  if (size > LARGEST_TEXT) {
    throw new Error("That is more than this page takes. Send large files to the API, as Parquet, Arrow or NPY.");
  }
}

/* A table: its columns with their texts and, where all are numbers, those. */
export function parseRows(text, name) {
  requireReadable(text.length);
  const lines = cellsOf(text);
  if (lines.length === 0) throw new Error("There are no rows in it.");
  const isNamed = lines[0].some((cell) => !NUMBER.test(cell));
  const names = isNamed ? lines[0].map((cell, i) => cell || `x${i + 1}`) : lines[0].map((_, i) => `x${i + 1}`);
  const data = isNamed ? lines.slice(1) : lines;
  if (data.length === 0) throw new Error("There is a line of names and no row below it.");
  const ragged = data.findIndex((cells) => cells.length !== names.length);
  if (ragged >= 0) {
    throw new Error(`Row ${ragged + 1} has ${data[ragged].length} values; the first line has ${names.length}.`);
  }
  const columns = names.map((column, i) => columnOf(column, data.map((cells) => cells[i])));
  const label = columns.find((column) => NAMES_OF_LABELS.test(column.name)) ??
    columns.find((column) => column.numbers === null && isFew(column));
  for (const column of columns) column.isFeature = column.numbers !== null && column !== label;
  return { name, isNamed, columns, truth: label?.name ?? null, size: data.length };
}

/* Labels repeat; numbers with words between them, or notes, do not. */
const isFew = (column) => new Set(column.texts).size <= Math.max(2, column.texts.length / 2);

function columnOf(name, texts) {
  const areNumbers = texts.every((text) => NUMBER.test(text) && Number.isFinite(Number(text)));
  return { name, texts, numbers: areNumbers ? texts.map(Number) : null, isFeature: false };
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
  const indices = rows ?? Array.from({ length: table.size }, (_, i) => i);
  const data = indices.map((i) => columns.map((column) => column.numbers[i]));
  return table.isNamed ? { columns: columns.map((column) => column.name), data } : { X: data };
}

/* The columns that a version asks for, in its order, or null where the table has others. */
export function columnsFor(table, { names, count }) {
  if (names && table.isNamed) {
    const found = names.map((name) => table.columns.find((column) => column.name === name));
    return found.every((column) => column?.numbers) ? found : null;
  }
  const features = featuresOf(table);
  return features.length === count ? features : null;
}
