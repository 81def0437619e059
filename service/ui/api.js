/* Requests of the public API, and each as the curl command that does the same. */

const BASE = new URL(".", document.baseURI);
const LONGEST_INLINE_BODY = 1500;

export class Problem extends Error {
  constructor(status, problem) {
    const places = (problem.errors ?? []).slice(0, 3).map((wrong) => `${wrong.pointer}: ${wrong.detail}`);
    super([problem.detail ?? problem.title ?? `The service answered ${status}.`, ...places].join(" · "));
    this.status = status;
    this.code = problem.code;
  }
}

/* What to ask, as a value: it is sent by ``send`` and shown by ``curlOf``. */
export function request(method, path, { query = {}, body } = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) {
    for (const item of [value].flat()) url.searchParams.append(name, item);
  }
  return { method, url, body: body === undefined ? undefined : JSON.stringify(body) };
}

export async function send({ method, url, body }) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, { method, headers, body });
  } catch {
    throw new Problem(0, { detail: "The service does not answer. Is it running?" });
  }
  const text = await response.text();
  if (!response.ok) throw new Problem(response.status, problemIn(text));
  return text ? JSON.parse(text) : null;
}

function problemIn(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: "The answer was no answer of this service." };
  }
}

export const get = (path, query) => send(request("GET", path, { query }));

export const modelPath = (id, rest = "") => `models/${encodeURIComponent(id)}${rest}`;

/* Every page of a list, up to ``most`` entries. */
export async function all(path, field, { query = {}, most = 1000 } = {}) {
  const found = [];
  let token = null;
  do {
    const page = await get(path, { ...query, page_size: 200, ...(token ? { page_token: token } : {}) });
    found.push(...page[field]);
    token = page.next_page_token;
  } while (token && found.length < most);
  return found;
}

export const eventsOf = (job) => request("GET", `jobs/${encodeURIComponent(job)}/events`);

const isLong = (asked) => (asked.body?.length ?? 0) > LONGEST_INLINE_BODY;

export function curlOf(asked) {
  const words = ["curl -sS"];
  if (asked.url.pathname.endsWith("/events")) words[0] += "N";
  if (asked.method !== "GET") words.push(`-X ${asked.method}`);
  words.push(quoted(asked.url.href));
  if (asked.body !== undefined) {
    words.push("-H 'Content-Type: application/json'");
    words.push(isLong(asked) ? "--data-binary @rows.json" : `-d ${quoted(asked.body)}`);
  }
  return words.join(" ");
}

export const longBodyOf = (asked) => asked.find(isLong)?.body;

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
