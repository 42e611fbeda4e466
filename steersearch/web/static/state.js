// What the page shows, as its address keeps it.

// photos: of the query, each with the part of it that is marked, "" for the whole photo.
export const empty = () => ({
  library: null, photos: [], any: false, focuses: [], k: 24, folder: "", after: "", before: "", collapse: false, view: "results",
});

export const MOST_PHOTOS = 16; // to search with

const WEIGHED = /^([\s\S]*):\s*([+-]?(?:\d+\.?\d*|\.\d+))$/;

export function parseFocus(text) {
  const found = WEIGHED.exec(text.trim());
  return found ? { text: found[1].trim(), weight: Number(found[2]) } : { text: text.trim(), weight: 1 };
}

// The marked parts of the photos, as the server reads them: "/" between those of several photos; "" where all are whole.
export const regionOf = ({ photos }) => (photos.some(({ part }) => part) ? photos.map(({ part }) => part ?? "").join("/") : "");

export function withRegion(photos, region) {
  const parts = region.split("/");
  return photos.map((photo, i) => ({ ...photo, part: (parts[i] ?? "").trim() }));
}

// Each once, in the order in which the server takes them.
export function ordered(photos) {
  const once = photos.filter(({ id }, i) => photos.findIndex((one) => one.id === id) === i);
  return [...once.filter(({ kind }) => kind === "image"), ...once.filter(({ kind }) => kind === "upload")];
}

// As the server reads it: always with a weight, so that a text that ends in a number stays a text.
export const writeFocus = ({ text, weight }) => `${text}:${weight}`;

export function fromAddress(search) {
  const given = new URLSearchParams(search), state = empty();
  state.library = given.get("library");
  const photos = [...given].filter(([kind]) => kind === "image" || kind === "upload").map(([kind, id]) => ({ kind, id }));
  state.photos = withRegion(ordered(photos), given.get("region") ?? "").slice(0, MOST_PHOTOS);
  state.any = given.get("any") === "true";
  state.focuses = given.getAll("focus").map(parseFocus).filter((one) => one.text && one.weight);
  state.k = Math.min(200, Math.max(1, Number(given.get("k")) || 24));
  for (const name of ["folder", "after", "before"]) state[name] = given.get(name) ?? "";
  state.collapse = given.get("collapse") === "true";
  state.view = given.get("view") === "map" ? "map" : "results";
  return state;
}

export function searchQuery(state) {
  const query = new URLSearchParams();
  for (const { kind, id } of state.photos) query.append(kind, id);
  if (state.any && state.photos.length > 1) query.set("any", "true");
  for (const focus of state.focuses) query.append("focus", writeFocus(focus));
  if (state.k !== 24) query.set("k", state.k);
  if (regionOf(state)) query.set("region", regionOf(state));
  for (const name of ["folder", "after", "before"]) if (state[name]) query.set(name, state[name]);
  if (state.collapse) query.set("collapse", "true");
  return query;
}

export function toAddress(state) {
  const query = new URLSearchParams();
  if (state.library) query.set("library", state.library);
  for (const [name, value] of searchQuery(state)) query.append(name, value);
  if (state.view === "map") query.set("view", "map");
  return `/?${query}`;
}
