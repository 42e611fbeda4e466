// The page: what is asked stands in `state` and in the address; everything shown follows from it.

import { Problem, get, photoUrl, send, stream, uploadUrl } from "./api.js";
import { Brush, HINT } from "./brush.js";
import { Dial } from "./dial.js";
import { MapView } from "./map.js";
import { MOST_PHOTOS, empty, fromAddress, ordered, parseFocus, regionOf, searchQuery, toAddress, withRegion, writeFocus } from "./state.js";

const $ = (id) => document.getElementById(id);
const PAGE = 60;
const MARK = -1; // in place of a focus' number: the marked part

let state = empty();
let libraries = [], library = null; // what a library holds
let answer = null; // of the search shown
let browsed = { total: 0, photos: [] };
let shown = []; // the rows in the grid: hits, or photos
let running = null, searched = null; // AbortController of the search, and what it is for
let cut = -Infinity, month = null, active = 0; // the focus whose heatmaps are shown

const dial = new Dial({ $, onTurn: showTurn });
const map = new MapView({
  $, photoAt, open: (row) => openViewer([row], 0), like: (...chosen) => likeChosen(...chosen), point: pointAtHit, problem: showProblem,
});

// ------------------------------------------------------------------------------------------------- small helpers

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function showProblem(error) {
  if (error?.name === "AbortError") return;
  $("problem").textContent = error ? error.message : "";
  $("problem").hidden = !error;
  if (error && !(error instanceof Problem)) console.error(error);
}

const guarded = (action) => async (...args) => {
  try { await action(...args); } catch (error) { showProblem(error); }
};

// On a narrow screen the results lie below what is asked.
const scrollToResults = () => { if (matchMedia("(max-width: 58rem)").matches) $("main").scrollIntoView(); };

// --------------------------------------------------------------------------------------------------- what is asked

function change(changes, { keepAddress = false } = {}) {
  state = { ...state, ...changes };
  if (!keepAddress) history.pushState(null, "", toAddress(state));
  return refresh();
}

const refresh = guarded(async () => {
  showProblem(null);
  await chooseLibrary();
  showQuery();
  if (!library) return;
  if (state.view === "map") map.show(state, library).catch(showProblem).finally(countPhotos);
  const wanted = `${state.library}?${searchQuery(state)}`;
  if (wanted === searched && (answer || running || browsed.total)) return;
  searched = wanted;
  await search();
});

async function chooseLibrary() {
  if (!libraries.length) {
    libraries = await get("/libraries");
    $("library").replaceChildren(...libraries.map((one) =>
      element("option", { value: one.id, title: one.folders.join("\n"), disabled: !!one.problem }, one.name + (one.problem ? " (cannot be opened)" : one.is_there ? "" : " (a folder is gone)"))));
  }
  $("library").parentElement.hidden = !libraries.length;
  const usable = libraries.filter((one) => !one.problem);
  if (!usable.length) {
    library = null;
    say(null, libraries.length ? libraries.map((one) => one.problem).join("\n") : "There is no library yet. Index a folder of photos: steersearch index FOLDER");
    return;
  }
  if (!usable.some((one) => one.id === state.library)) state.library = usable[0].id;
  $("library").value = state.library;
  if (library?.id !== state.library) await loadLibrary();
}

// Photos are counted once something is shown: of a large library that takes seconds after the server's start.
async function loadLibrary() {
  library = await get(`/libraries/${state.library}?counts=false`);
  noteLibrary("counting photos…");
  $("prompts").replaceChildren(...library.prompts.map((one) => element("option", { value: one.prompt })));
  map.libraryChanged(library);
}

const noteLibrary = (photos) => { $("library-note").textContent = `${photos}, ${counted(library.prompts.length, "prompt")}, model ${library.model.split("/").pop()}`; };

async function countPhotos() {
  const mine = library;
  if (!mine || mine.isCounted) return;
  mine.isCounted = true;
  try {
    const { photos } = await get(`/libraries/${mine.id}`);
    if (library === mine) noteLibrary(counted(photos, "photo"));
  } catch { if (library === mine) noteLibrary("photos not counted"); }
}

// ---------------------------------------------------------------------------------------------------- the query box

function showQuery() {
  const { photos } = state, has = photos.length > 0, isOne = photos.length === 1;
  document.body.classList.toggle("no-heat", !$("heat").checked);
  $("query-photos").hidden = !has; $("photo-tools").hidden = !has; $("drop").hidden = has;
  $("query-photos").classList.toggle("one", isOne); $("clear-mark").hidden = !isMarked(); $("change-photo").hidden = !isOne;
  $("clear-mark").textContent = isOne ? "Whole photo" : "Whole photos";
  $("add-photo").hidden = photos.length >= MOST_PHOTOS; $("clear-photo").textContent = isOne ? "Remove" : "Remove all";
  $("joined").hidden = photos.length < 2; $(state.any ? "joined-any" : "joined-all").checked = true;
  showQueryPhotos();
  $("side-by-side").hidden = true;
  showMarked();
  $("region").value = regionOf(state);
  for (const name of ["folder", "after", "before"]) $(name).value = state[name];
  $("count").value = state.k; $("collapse").checked = state.collapse;
  $("focuses").replaceChildren(...state.focuses.map((focus, number) => {
    const change_ = (changes) => change({ focuses: state.focuses.map((one, i) => (i === number ? { ...one, ...changes } : one)) });
    return element("li", {},
      element("button", { type: "button", class: "text", "aria-pressed": String(number === active), title: "Show the heatmaps of this focus", onclick: () => { active = number; showQuery(); showQueryHeat(); drawHits(); } }, focus.text),
      element("input", { type: "number", step: "0.1", value: focus.weight, "aria-label": `Weight of ${focus.text}; below 0 steers away from it`, onchange: (event) => {
        const weight = Number(event.target.value);
        if (weight) change_({ weight }); else event.target.value = focus.weight;
      } }),
      element("button", { type: "button", "aria-label": `Remove ${focus.text}`, onclick: () => change({ focuses: state.focuses.filter((_, i) => i !== number) }) }, "×"));
  }));
  if (active >= state.focuses.length || (active === MARK && !isMarked())) active = 0;
  if (isMarked() && state.focuses.length) {
    $("focuses").append(element("li", {}, element("button", { type: "button", class: "text", "aria-pressed": String(active === MARK), title: "Show where photos match the marked part", onclick: () => { active = MARK; showQuery(); showQueryHeat(); drawHits(); } }, "the marked part")));
  }
  for (const name of ["results", "map"]) $(`tab-${name}`).setAttribute("aria-pressed", String(state.view === name));
  showViews();
}

const isMarked = () => !!regionOf(state);
const showsMark = () => isMarked() && (active === MARK || !state.focuses.length);
const keyOf = ({ kind, id }) => `${state.library}/${kind}/${id}`;
const pictureOf = ({ kind, id }) => (kind === "upload" ? uploadUrl(id, "preview", "?side=640") : photoUrl(state.library, id, "preview", "?side=640"));

// On the map the hits of a search, if there is one, stand beside it.
function showViews() {
  const isMap = state.view === "map";
  $("map-view").hidden = !isMap;
  $("results-view").hidden = isMap && !answer?.hits.length;
  $("views").classList.toggle("with-map", isMap);
}

// The query photos, each with its heatmap and its patches, whose grid the server knows.
let queryShots = []; // { key, item, heat, brush }, as the photos of `state`
let isMarking = false;

function showQueryPhotos() {
  const kept = new Map(queryShots.map((shot) => [shot.key, shot]));
  queryShots = state.photos.map((photo) => kept.get(keyOf(photo)) ?? newQueryShot(photo));
  queryShots.forEach(({ item, heat, brush }, number) => {
    const name = state.photos.length === 1 ? "The query photo" : `Query photo ${number + 1}`;
    item.querySelector("img").alt = name; heat.hidden = true;
    brush.canvas.setAttribute("aria-label", `Patches of ${name.toLowerCase()}: arrow keys move, space marks`);
    item.querySelector("button").setAttribute("aria-label", `Remove query photo ${number + 1}`);
  });
  const items = queryShots.map(({ item }) => item), list = $("query-photos");
  if (items.length !== list.children.length || items.some((item, i) => item !== list.children[i])) list.replaceChildren(...items);
}

function newQueryShot(photo) {
  const key = keyOf(photo), without = (...instead) => state.photos.flatMap((one) => (keyOf(one) === key ? instead : [one]));
  const heat = element("img", { class: "heat", alt: "", hidden: true });
  const canvas = element("canvas", { class: "patches", role: "application", tabindex: "-1", hidden: true });
  const item = element("li", { class: "shot" }, element("img", { src: pictureOf(photo) }), heat, canvas,
    element("button", { type: "button", onclick: () => change({ photos: without() }) }, "×"));
  const brush = new Brush({ canvas, changed: (part) => { if (part) active = MARK; change({ photos: without({ ...photo, part }) }); } });
  return { key, item, heat, brush };
}

const showMarked = guarded(async () => {
  if (!state.photos.length) isMarking = false;
  $("brush").setAttribute("aria-pressed", String(isMarking)); $("brush").textContent = isMarking ? "Done marking" : "Mark a part";
  $("brush-note").hidden = !isMarking && !(isMarked() && state.photos.length > 1);
  $("brush-note").textContent = [isMarking ? HINT : "", state.photos.length > 1 ? "Photos without a mark are compared whole." : ""].join(" ").trim();
  await Promise.all(queryShots.map(async ({ key, brush }, number) => {
    const photo = state.photos[number], isWanted = isMarking || photo.part;
    if (isWanted) brush.grid ??= await get(`/libraries/${state.library}/patches?${photo.kind}=${photo.id}`);
    const now = state.photos.find((one) => keyOf(one) === key); // it may have changed meanwhile
    if (now) brush.show(brush.grid, now.part ?? "", isMarking);
  }));
});

function setMarking(isOn) { isMarking = isOn; return showMarked(); }

const addFocus = () => {
  const given = parseFocus($("focus").value);
  $("focus").value = "";
  if (!given.text) return refresh();
  if (!given.weight) return showProblem(new Problem(0, `“${given.text}” needs a weight other than 0: above 0 steers towards it, below 0 away from it.`));
  const others = state.focuses.filter((one) => one.text !== given.text);
  // by words alone a search takes one focus
  return change({ focuses: state.photos.length ? [...others, given] : [given] });
};

const withPhotos = (photos) => ({ photos: ordered(photos).slice(0, MOST_PHOTOS) });

// isMore: beside the query photos there are, not in their place.
const takeFiles = guarded(async (files, isMore) => {
  if (!files.length) return;
  say(null, files.length > 1 ? "Sending the photos…" : "Sending the photo…");
  const sent = [];
  for (const file of files) sent.push({ kind: "upload", id: (await send("POST", "/uploads", file)).id });
  await change(withPhotos(isMore ? [...state.photos, ...sent] : sent));
});

// --------------------------------------------------------------------------------------------------------- searching

function say(badge, text) {
  $("badge").hidden = !badge; $("badge").textContent = badge ?? "";
  $("badge").classList.toggle("exact", badge === "exact");
  $("status-text").textContent = text;
}

async function search() {
  running?.abort();
  const mine = (running = new AbortController());
  const hasPhoto = state.photos.length > 0;
  answer = null; cut = -Infinity; month = null; showViews();
  dial.hide(); $("remarks").hidden = true; $("charts").hidden = true; $("more").hidden = true;
  if (!hasPhoto && !state.focuses.length) return browse(0);
  if (!hasPhoto && state.focuses.length > 1) {
    shown = []; drawHits();
    return say(null, "Several focuses need a photo to search with. Choose one, or remove all focuses but one.");
  }
  say(null, "Searching…"); $("stop").hidden = false;
  try {
    for await (const found of stream(`/libraries/${state.library}/search/stream?${searchQuery(state)}&seconds=600`, mine.signal)) showAnswer(found);
  } catch (error) {
    if (error.name !== "AbortError") { say(null, "The search failed."); searched = null; throw error; }
  } finally {
    if (running === mine) { $("stop").hidden = true; running = null; }
    countPhotos();
  }
}

function showAnswer(found) {
  answer = found;
  const badge = found.is_exact ? "exact" : found.is_guess ? "a guess" : "approximate";
  const over = found.is_enough ? "" : ` No ranking yet: too few photos were compared.`;
  say(badge, `${sentence(inWords(found))}; ${found.seconds.toFixed(1)} s.${over}${found.is_final ? "" : " Still searching…"}`);
  const remarks = found.focuses.flatMap((focus) => focus.remarks.map((remark) => `${focus.prompt}: ${remark}`));
  $("remarks").replaceChildren(...remarks.map((remark) => element("li", {}, remark))); $("remarks").hidden = !remarks.length;
  for (const hit of found.hits) hit.list_id = found.list_id;
  shown = found.hits; browsed = { total: 0, photos: [] };
  showQueryHeat(); drawHits(); drawCharts(); showViews();
  $("scale").hidden = (!found.focuses.length && !found.hits.some((hit) => hit.layer)) || found.is_guess;
  const canSteer = state.photos.length && found.is_final && found.focuses.length && found.hits.length && !found.is_guess;
  if (canSteer && isMarked()) dial.refuse("Not available while a part is marked: the score then depends on the mark too.");
  else if (canSteer) dial.show(state, found);
  if (state.view !== "map") countPhotos();
}

// What was compared, and how, without the word that the badge says.
function inWords({ text, is_exact, of }) {
  const rest = text.replace(/^(exact|approximate)[:;,]? ?/, "");
  if (!is_exact) return rest;
  const [, those, more] = /^over the ([^;]*)(.*)$/s.exec(rest) ?? [null, counted(of, "photo"), rest && `; ${rest}`];
  return `all ${those} compared${more}`;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

async function browse(offset) {
  $("scale").hidden = true;
  const page = await get(`/libraries/${state.library}/photos?offset=${offset}&limit=${PAGE}`, running.signal);
  browsed = { total: page.total, photos: offset ? [...browsed.photos, ...page.photos] : page.photos };
  shown = browsed.photos;
  say(null, page.total ? `${counted(page.total, "photo")}, the newest first. Click one to search with it, or type what to look for.` : "This library holds no photos.");
  $("more").hidden = shown.length >= page.total;
  drawHits();
  if (state.view !== "map") countPhotos();
}

function showQueryHeat(turn = null) {
  const focus = showsMark() || !hasHeat() ? null : answer.focuses[active];
  queryShots.forEach(({ heat }, number) => {
    heat.hidden = !focus;
    if (focus) { heat.src = turn?.queryLayer(active, number) ?? queryHeatUrl(state.photos[number], focus); heat.alt = `Where the model sees “${focus.prompt}” in the query photo`; }
  });
  $("side-by-side").hidden = !state.photos.length || !hasHeat() || answer.focuses.length < 2;
}

const heatQuery = (focus) => `focus=${encodeURIComponent(writeFocus({ text: focus.prompt, weight: 1 }))}&vmax=${focus.vmax}`;

const queryHeatUrl = ({ kind, id }, focus) => (kind === "upload" ? uploadUrl(id, "heatmap", `?library=${state.library}&${heatQuery(focus)}`) : photoUrl(state.library, id, "heatmap", `?${heatQuery(focus)}`));

// ----------------------------------------------------------------------------------------------------------- the hits

const hasHeat = () => answer && answer.focuses.length && !answer.is_guess;

const matchLayer = (row) => (row.layer ? `data:image/png;base64,${row.layer}` : null);

const heatUrl = (row, number) => photoUrl(state.library, row.image_id, "heatmap", `?${heatQuery(answer.focuses[number])}`);

const isOut = (row) => (row.score != null && row.score < cut) || (month && !(row.date ?? "").startsWith(month));

function drawHits(turn = null) {
  const kept = new Map([...$("hits").children].map((item) => [item.dataset.key, item]));
  const items = shown.map((row, number) => {
    const key = `${row.image_id}/${row.path}`, item = kept.get(key) ?? newHit(row);
    item.dataset.key = key; item.dataset.number = number; item.hidden = isOut(row);
    item.querySelector(".rank").textContent = row.rank ?? ""; item.querySelector(".rank").hidden = row.rank == null;
    const score = row.score == null ? "" : row.score.toFixed(3);
    item.querySelector(".score").textContent = answer && !state.photos.length && row.parts?.length ? `${row.score.toFixed(2)} · presence ${row.parts[0].score.toFixed(2)}` : score;
    item.querySelector(".score").hidden = !score;
    item.querySelector(".date").textContent = dated(row);
    const heat = item.querySelector(".heat"), url = showsMark() ? matchLayer(row) : turn?.layer(row, active) ?? (hasHeat() ? heatUrl(row, active) : null);
    heat.hidden = !url;
    if (url) {
      if (heat.getAttribute("src") !== url) heat.src = url;
      heat.alt = showsMark() ? "Where it matches the marked part" : `Where the model sees “${answer.focuses[active].prompt}” in it`;
    }
    return item;
  });
  $("hits").replaceChildren(...items);
  map.showHits(answer ? shown.filter((row) => !isOut(row)) : []);
}

// The hit of a point of the map, and the point of a hit.
function pointAtHit(hit) {
  $("hits").querySelector(".pointed")?.classList.remove("pointed");
  const item = hit && [...$("hits").children].find((one) => shown[one.dataset.number]?.image_id === hit.image_id);
  item?.classList.add("pointed");
  item?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

for (const [name, isOver] of [["pointerover", true], ["focusin", true], ["pointerleave", false], ["focusout", false]]) {
  $("hits").addEventListener(name, (event) => map.point(isOver && answer ? shown[event.target.closest(".hit")?.dataset.number] : null));
}

// A path that may break after its folders and words.
const breakable = (path) => path.split(/(?<=[/_])/).flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));

const dated = (row) => (row.date ? row.date.replace("T", " ").slice(0, 16) + (row.date_source === "file time" ? " (file time)" : "") : "");

function newHit(row) {
  const open = (event) => openViewer(shown, Number(event.currentTarget.closest("li").dataset.number));
  const gone = row.is_away ? " (away)" : row.is_gone ? " (gone)" : row.is_changed ? " (changed)" : "";
  return element("li", { class: "hit" },
    element("button", { type: "button", onclick: open },
      element("span", { class: "shot" },
        element("span", { class: "rank" }),
        element("img", { src: photoUrl(state.library, row.image_id, "thumbnail"), alt: row.path, loading: "lazy" }),
        element("img", { class: "heat", alt: "", hidden: true, loading: "lazy" })),
      element("span", { class: "about" },
        element("span", { class: "score" }),
        element("span", { class: "name" }, ...breakable(row.path), gone),
        element("span", { class: "soft date" }),
        row.copies?.length ? element("span", { class: "soft" }, `and ${row.copies.length} ${row.copies.length === 1 ? "copy" : "copies"}`) : null)));
}

function drawCharts() {
  const scores = shown.map((row) => row.score).filter((score) => score != null);
  $("charts").hidden = scores.length < 5;
  if (scores.length < 5) return;
  const least = Math.min(...scores), most = Math.max(...scores), bins = new Array(30).fill(0);
  for (const score of scores) bins[Math.min(29, Math.floor(((score - least) / (most - least || 1)) * 30))] += 1;
  const highest = Math.max(...bins);
  $("histogram").replaceChildren(...bins.map((count, i) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect"), height = (46 * count) / highest;
    const from = least + (i / 30) * (most - least);
    for (const [name, value] of Object.entries({ x: i * 10 + 1, y: 48 - height, width: 8, height })) bar.setAttribute(name, value);
    if (from + (most - least) / 60 >= cut) bar.setAttribute("class", "in");
    return bar;
  }));
  $("cut").dataset.least = least; $("cut").dataset.most = most;
  if (cut === -Infinity) $("cut").value = 0;
  $("cut-value").textContent = (cut === -Infinity ? least : cut).toFixed(3);
  const months = new Map();
  for (const row of shown) if (row.date && row.date.length >= 7) months.set(row.date.slice(0, 7), (months.get(row.date.slice(0, 7)) ?? 0) + 1);
  const tallest = Math.max(1, ...months.values());
  $("timeline").replaceChildren(...[...months].sort().map(([name, count]) => {
    const bar = element("button", { type: "button", title: `${name}: ${counted(count, "hit")}`, "aria-label": `${name}: ${counted(count, "hit")}`, "aria-pressed": String(name === month), onclick: () => { month = month === name ? null : name; drawCharts(); drawHits(); } });
    bar.style.height = `${(100 * count) / tallest}%`;
    return bar;
  }));
  $("timeline").parentElement.hidden = months.size < 2;
  $("month-value").textContent = month ? `${month} only` : "";
}

// The hits at another gate_scale: their order by the turn's scores; null: as they were found.
function showTurn(turn) {
  if (!answer) return;
  const score = (row) => turn.scores.get(row.image_id) ?? -Infinity;
  shown = turn ? [...answer.hits].map((row) => ({ ...row, score: score(row) })).sort((a, b) => b.score - a.score).map((row, i) => ({ ...row, rank: i + 1 })) : answer.hits;
  drawHits(turn);
  showQueryHeat(turn);
}

// --------------------------------------------------------------------------------------------------------- the viewer

let viewed = { rows: [], number: 0 };

async function photoAt(number) {
  const { list_id, photos } = await get(`/libraries/${state.library}/photos?offset=${number}&limit=1`);
  return { list_id, photo: photos[0] };
}

function openViewer(rows, number) {
  viewed = { rows, number };
  const row = rows[number], src = photoUrl(state.library, row.image_id, "preview", "?side=1200");
  $("viewer-name").textContent = row.path;
  const parts = hasHeat() && row.parts?.length ? answer.focuses.map((focus, i) => [`${focus.prompt}: ${row.parts[i].score.toFixed(3)}`, heatUrl(row, i)]) : [];
  if (row.layer) parts.push(["where it matches the marked part", matchLayer(row)]);
  showShots((parts.length ? parts : [[null, null]]).map(([caption, heat]) => [src, row.path, caption, heat]));
  const facts = [`${row.width} × ${row.height}`, row.date && `${row.date.replace("T", " ")} (${row.date_source})`, row.rank && `rank ${row.rank}`, row.score != null && `score ${row.score.toFixed(4)}`, row.z != null && `${row.z.toFixed(1)} standard deviations above the mean`, row.copies?.length && `copies: ${row.copies.map((copy) => copy + (row.copies_gone.includes(copy) ? " (gone)" : "")).join(", ")}`];
  $("viewer-facts").textContent = facts.filter(Boolean).join(" · ");
  for (const name of ["like", "previous", "next"]) $(`viewer-${name}`).hidden = false;
  $("viewer-previous").disabled = number === 0; $("viewer-next").disabled = number === rows.length - 1;
  $("viewer-reveal").hidden = document.body.dataset.canReveal !== "yes";
  $("viewer-add").hidden = !state.photos.length || state.photos.length >= MOST_PHOTOS;
  if (!$("viewer").open) $("viewer").showModal();
}

function showShots(shots) {
  $("viewer-shots").replaceChildren(...shots.map(([src, alt, caption, heat]) => element("figure", {},
    element("span", { class: "shot" }, element("img", { src, alt }), heat ? element("img", { class: "heat", src: heat, alt: caption }) : null),
    caption ? element("figcaption", { class: "small soft" }, caption) : null)));
}

// The query photos under each focus.
function openQuery() {
  viewed = { rows: [], number: 0 };
  $("viewer-name").textContent = state.photos.length === 1 ? "The query photo" : "The query photos";
  showShots(state.photos.flatMap((photo) => answer.focuses.map((focus) => [pictureOf(photo), "The query photo", focus.prompt, queryHeatUrl(photo, focus)])));
  $("viewer-facts").textContent = "";
  for (const name of ["like", "add", "reveal", "previous", "next"]) $(`viewer-${name}`).hidden = true;
  $("viewer").showModal();
}

const turnPage = (by) => {
  const next = viewed.number + by;
  if (viewed.rows[next]) openViewer(viewed.rows, next);
};

// ------------------------------------------------------------------------------------------------------- more like it

const likeChosen = guarded(async (more, less, focus) => {
  running?.abort(); searched = null;
  const found = await send("POST", `/libraries/${state.library}/like`, { more, less, focus, k: state.k });
  state = { ...state, view: "results", ...withPhotos([]) };
  showQuery(); dial.hide();
  showAnswer(found);
});

// --------------------------------------------------------------------------------------------------------------- jobs

let polling = 0;

const showJobs = guarded(async () => {
  const jobs = await get("/jobs");
  $("jobs").replaceChildren(...jobs.slice(0, 8).map((job) => {
    const isActive = job.state === "running" || job.state === "waiting";
    const what = job.prompts.join(", ") || "all prompts";
    const said = job.state === "running" && job.total ? `${job.done.toLocaleString("en")} of ${counted(job.total, "photo")}, ${job.images_per_s.toFixed(1)} a second`
      : job.state === "done" ? `done: ${counted(job.added ?? 0, "photo")} added, ${(job.skipped ?? 0).toLocaleString("en")} skipped` : job.error ?? job.state;
    return element("li", {}, `${what}: ${said}`,
      job.state === "running" && job.total ? element("progress", { max: job.total, value: job.done, "aria-label": what }) : null,
      isActive ? element("button", { type: "button", class: "quiet", onclick: guarded(async () => { await send("DELETE", `/jobs/${job.id}`); showJobs(); }) }, "Stop") : null);
  }));
  const wasPolling = polling;
  clearTimeout(polling);
  polling = jobs.some((job) => job.state === "running" || job.state === "waiting") ? setTimeout(showJobs, 800) : 0;
  if (wasPolling && !polling && library) await loadLibrary();
});

// ------------------------------------------------------------------------------------------------------------- wiring

$("library").onchange = () => change({ ...empty(), view: state.view, library: $("library").value });
$("home").onclick = (event) => { event.preventDefault(); change({ ...empty(), library: state.library }); };
$("focus-form").onsubmit = (event) => { event.preventDefault(); addFocus(); scrollToResults(); };
$("drop").onclick = () => $("file").click();
let addsMore = false; // whether the file that is chosen comes beside the query photos
for (const [name, isMore] of [["change-photo", false], ["add-photo", true]]) $(name).onclick = () => { addsMore = isMore; $("file").click(); };
$("clear-photo").onclick = () => change(withPhotos([]));
$("clear-mark").onclick = () => change({ photos: withRegion(state.photos, "") });
$("brush").onclick = () => setMarking(!isMarking);
$("side-by-side").onclick = openQuery;
for (const name of ["all", "any"]) $(`joined-${name}`).onchange = () => change({ any: name === "any" });
$("file").onchange = () => { takeFiles([...$("file").files], addsMore); $("file").value = ""; addsMore = false; };
$("file").oncancel = () => { addsMore = false; };
for (const name of ["dragover", "dragenter"]) document.addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => { event.preventDefault(); $("drop").classList.remove("over"); takeFiles([...event.dataTransfer.files], !!event.target.closest?.(".query")); });
document.addEventListener("paste", (event) => { const files = [...event.clipboardData.files]; if (files.length) { event.preventDefault(); takeFiles(files, false); } });
$("region").onchange = () => change({ photos: withRegion(state.photos, $("region").value) });
for (const name of ["folder", "after", "before"]) $(name).onchange = () => change({ [name]: $(name).value });
$("count").onchange = () => change({ k: Math.min(200, Math.max(1, Number($("count").value) || 24)) });
$("collapse").onchange = () => change({ collapse: $("collapse").checked });
$("heat").onchange = () => document.body.classList.toggle("no-heat", !$("heat").checked);
$("stop").onclick = () => { running?.abort(); say(answer ? (answer.is_exact ? "exact" : "approximate") : null, answer ? `${sentence(inWords(answer))}. Stopped.` : "Stopped."); };
$("more").onclick = guarded(async () => { running ??= new AbortController(); await browse(browsed.photos.length); });
for (const view of ["results", "map"]) $(`tab-${view}`).onclick = () => { change({ view }); scrollToResults(); };
$("cut").oninput = () => {
  const { least, most } = $("cut").dataset, part = Number($("cut").value) / 100;
  cut = part ? Number(least) + part * (most - least) : -Infinity;
  drawCharts(); drawHits();
};
$("job-form").onsubmit = guarded(async (event) => {
  event.preventDefault();
  const prompt = $("job-prompt").value.trim();
  await send("POST", `/libraries/${state.library}/jobs`, { prompts: prompt ? [prompt] : [] });
  $("job-prompt").value = "";
  polling = 1;
  await showJobs();
});
$("jobs-section").ontoggle = () => { if ($("jobs-section").open) showJobs(); };
$("show-skipped").onclick = guarded(async (event) => {
  event.preventDefault();
  const skips = await get(`/libraries/${state.library}/skipped`);
  $("skipped").replaceChildren(...(skips.length ? skips.map((skip) => element("li", {}, `${skip.path}: ${skip.reason}`)) : [element("li", {}, "none")]));
  $("skipped").hidden = false;
});
$("viewer-close").onclick = () => $("viewer").close();
$("viewer").onclick = (event) => { if (event.target === $("viewer")) $("viewer").close(); };
const viewedPhoto = () => ({ kind: "image", id: viewed.rows[viewed.number].image_id });
$("viewer-like").onclick = () => { $("viewer").close(); change({ ...withPhotos([viewedPhoto()]), view: "results" }); };
$("viewer-add").onclick = () => { $("viewer").close(); change({ ...withPhotos([...state.photos, viewedPhoto()]), view: "results" }); };
$("viewer-reveal").onclick = guarded(async () => { await send("POST", `/libraries/${state.library}/photos/${viewed.rows[viewed.number].image_id}/reveal`); });
$("viewer-previous").onclick = () => turnPage(-1);
$("viewer-next").onclick = () => turnPage(1);
for (const name of ["error", "load"]) document.addEventListener(name, ({ target }) => { if (target.matches?.(".shot > img:not(.heat)")) target.parentElement.classList.toggle("broken", name === "error"); }, true);
addEventListener("popstate", () => { state = fromAddress(location.search); if ($("viewer").open) $("viewer").close(); refresh(); });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if ($("viewer").open) {
    if (event.key === "ArrowLeft") turnPage(-1);
    if (event.key === "ArrowRight") turnPage(1);
    return;
  }
  if (event.target.closest("input, select, textarea")) return;
  if (event.key === "/") { event.preventDefault(); $("focus").focus(); }
  if (event.key === "h") { $("heat").click(); }
  if (event.key === "m") change({ view: state.view === "map" ? "results" : "map" });
  const hit = event.target.closest(".hit");
  if (hit && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    const next = event.key === "ArrowLeft" ? hit.previousElementSibling : hit.nextElementSibling;
    next?.querySelector("button").focus();
  }
});

state = fromAddress(location.search);
refresh();
