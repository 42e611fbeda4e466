// The REST interface, as the page uses it.

export class Problem extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

const ROOT = "/api/v1";

async function answered(response) {
  if (response.ok) return response;
  let detail = `the server answered ${response.status}`;
  try { detail = (await response.json()).detail ?? detail; } catch { /* no problem document */ }
  throw new Problem(response.status, detail);
}

async function asked(path, options) {
  let response;
  try {
    response = await fetch(ROOT + path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "the server does not answer; start it again: steersearch serve");
  }
  return answered(response);
}

export async function get(path, signal) { return (await asked(path, { signal })).json(); }

export async function send(method, path, body) {
  const isFile = body instanceof Blob;
  const response = await asked(path, {
    method,
    headers: isFile ? { "Content-Type": body.type || "application/octet-stream" } : body ? { "Content-Type": "application/json" } : {},
    body: isFile ? body : body ? JSON.stringify(body) : undefined,
  });
  return response.status === 204 ? null : response.json();
}

// Server-sent events of a search, as they come.
export async function* stream(path, signal) {
  const response = await asked(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      let end;
      while ((end = rest.indexOf("\n\n")) >= 0) {
        const lines = rest.slice(0, end).split("\n");
        rest = rest.slice(end + 2);
        const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
        const data = JSON.parse(field("data"));
        if (field("event") === "problem") throw new Problem(data.status, data.detail);
        yield data;
      }
    }
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem(0, "the server stopped answering; start it again: steersearch serve");
  }
}

export const photoUrl = (library, id, kind, query = "") => `${ROOT}/libraries/${library}/photos/${id}/${kind}${query}`;
export const uploadUrl = (id, kind, query = "") => `${ROOT}/uploads/${id}/${kind}${query}`;
