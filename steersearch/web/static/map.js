// The map: the library as points that move when another prompt arranges them. Row i is photo i of the list of photos.

import { Problem, get, photoUrl } from "./api.js";
import { Points } from "./points.js";

const REST_MS = 60; // the pointer stays on a point before its photo is asked for
const NO_POINT = 65535;

export class MapView {
  constructor({ $, photoAt, open, like, point, problem }) {
    Object.assign(this, { $, photoAt, open, like, problem, onPoint: point });
    this.chosen = []; this.known = new Map(); this.hits = []; this.hovered = -1;
    $("map-focus").onchange = () => this.load();
    $("map-method").onchange = () => this.load();
    $("lasso").onclick = () => { this.lassoing = !this.lassoing; $("lasso").setAttribute("aria-pressed", String(this.lassoing)); };
    $("like-more").onclick = () => this.likeChosen(true);
    $("like-less").onclick = () => this.likeChosen(false);
    this.listen($("map"));
  }

  libraryChanged(library) {
    const focus = this.$("map-focus"), before = focus.value;
    const option = (value, text) => { const made = document.createElement("option"); made.value = value; made.textContent = text; return made; };
    focus.replaceChildren(...(library.has_unsteered ? [option("", "the whole photo (no prompt)")] : []), ...[...new Set(library.prompts.map((one) => one.prompt))].map((prompt) => option(prompt, `“${prompt}”`)));
    if ([...focus.options].some((one) => one.value === before)) focus.value = before;
    if (this.library !== library.id) { this.library = library.id; this.listId = null; }
    this.loaded = null;
  }

  async show(state) {
    this.points ??= new Points(this.$("map"), this.$("map-rings"));
    const prompts = [...this.$("map-focus").options].map((one) => one.value);
    const asked = state.focuses[0]?.text;
    if (asked && asked !== this.asked && prompts.includes(asked)) this.$("map-focus").value = asked;
    this.asked = asked;
    await this.load();
  }

  async load() {
    const focus = this.$("map-focus").value, method = this.$("map-method").value, name = `${this.library}/${focus}/${method}`;
    if (this.loaded === name) return this.points.draw();
    this.wanted = name;
    const before = this.$("map-note").textContent;
    this.$("map-note").textContent = method === "umap" ? "Computing UMAP, which takes a minute for 10,000 photos…" : "Computing…";
    try {
      const query = new URLSearchParams({ method, ...(focus ? { focus } : {}) });
      const found = await get(`/libraries/${this.library}/map?${query}`);
      if (this.wanted !== name) return; // another was chosen meanwhile
      const points = decoded(found.points), isSame = this.listId === found.list_id;
      if (!isSame) this.known = new Map();
      this.choose([]);
      this.points.show(points, isSame ? this.points.at : null);
      this.listId = found.list_id; this.loaded = name;
      this.showHits(this.hits);
      requestAnimationFrame(() => performance.mark("map painted"));
      const left = found.total - found.count;
      const axes = found.explained == null ? "UMAP: nearby photos are alike; long distances mean little." : `PCA: the two axes show ${(100 * found.explained).toFixed(0)} % of the variance.`;
      this.$("map-note").textContent = `${found.count.toLocaleString("en")} photos${left ? ` (${left.toLocaleString("en")} have no vector under this prompt)` : ""}. ${axes}${focus ? " Turned to lie like the map without a prompt." : ""}`;
    } catch (error) {
      if (this.wanted !== name) return;
      if (method !== "umap" || !(error instanceof Problem) || !error.status) { this.$("map-note").textContent = before; return this.problem(error); }
      this.$("map-method").value = "pca";
      await this.load();
      this.$("map-note").textContent = `PCA is shown instead of UMAP: ${error.message}.`;
    }
  }

  // hits: of the present search, best first; one of another list of photos has no known point.
  showHits(hits) {
    this.hits = hits;
    this.points?.ring(hits.filter((hit) => hit.list_id === this.listId).map((hit) => hit.number));
  }

  // The point of a hit under the pointer; null: of none.
  point(hit) { this.points?.point(hit && hit.list_id === this.listId ? hit.number : -1); }

  choose(rows) {
    this.chosen = rows;
    this.points?.choose(rows);
    for (const name of ["like-more", "like-less"]) this.$(name).hidden = !rows.length;
    const these = rows.length > MOST_CHOSEN ? `${MOST_CHOSEN} of these ${rows.length.toLocaleString("en")}` : `these ${rows.length}`;
    this.$("like-more").textContent = `More like ${these}`;
    this.$("like-less").textContent = `Less like ${these}`;
  }

  async likeChosen(isMore) {
    const step = Math.max(1, this.chosen.length / MOST_CHOSEN), rows = Array.from({ length: Math.min(this.chosen.length, MOST_CHOSEN) }, (_, i) => this.chosen[Math.floor(i * step)]);
    try {
      const ids = (await Promise.all(rows.map((row) => this.photo(row)))).map((photo) => photo.image_id);
      await this.like(isMore ? ids : [], isMore ? [] : ids, this.$("map-focus").value || null);
    } catch (error) { this.problem(error); }
  }

  // The photo of a row; where the list of photos has changed meanwhile, the map is made anew.
  async photo(row) {
    if (!this.known.has(row)) {
      const { list_id, photo } = await this.photoAt(row);
      if (list_id !== this.listId) { this.loaded = null; await this.load(); throw new DOMException("another list", "AbortError"); }
      this.known.set(row, photo);
    }
    return this.known.get(row);
  }

  listen(canvas) {
    let start = null, path = null, moved = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      start = [event.offsetX, event.offsetY]; moved = 0;
      path = this.lassoing || event.shiftKey ? [start] : null;
      this.hover(null);
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = [event.offsetX, event.offsetY];
      if (!start) return this.hover(at);
      moved += Math.hypot(at[0] - start[0], at[1] - start[1]);
      if (path) { path.push(at); this.drawLasso(path); } else this.points.move(at[0] - start[0], at[1] - start[1]);
      if (!path) start = at;
    });
    canvas.addEventListener("pointerup", async (event) => {
      if (path) {
        const mask = this.drawLasso(path, true);
        if (path.length > 3) this.choose(this.points.inside(mask));
        this.drawLasso([]);
      } else if (start && moved < 4) {
        const row = this.points.nearest(event.offsetX, event.offsetY);
        if (row >= 0) this.photo(row).then(this.open, this.problem); else this.choose([]);
      }
      start = path = null;
    });
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.points?.zoomAt(event.offsetX, event.offsetY, Math.exp(-event.deltaY / 400)); }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }, middle = [canvas.clientWidth / 2, canvas.clientHeight / 2];
      if (moves[event.key]) { event.preventDefault(); this.points.move(...moves[event.key]); }
      if (event.key === "+") this.points.zoomAt(...middle, 1.3);
      if (event.key === "-") this.points.zoomAt(...middle, 1 / 1.3);
    });
  }

  // Mark the point under the pointer and its hit, and show its photo once the pointer rests; null: it left the map.
  hover(at) {
    const row = at ? this.points?.nearest(...at) ?? -1 : -1;
    if (row === this.hovered) return;
    this.hovered = row;
    this.$("map-tip").hidden = true;
    clearTimeout(this.resting);
    this.points?.point(row);
    this.onPoint(row < 0 ? null : this.hits.find((hit) => hit.number === row && hit.list_id === this.listId));
    if (row >= 0) this.resting = setTimeout(() => this.tip(row, ...at), REST_MS);
  }

  async tip(row, x, y) {
    let photo;
    try { photo = await this.photo(row); } catch (error) { return this.problem(error); }
    if (this.hovered !== row) return;
    const tip = this.$("map-tip");
    tip.querySelector("img").src = photoUrl(this.library, photo.image_id, "thumbnail");
    tip.querySelector("img").alt = photo.path;
    tip.querySelector("span").textContent = photo.path;
    tip.style.left = `${Math.min(x + 14, this.$("map").clientWidth - 170)}px`;
    tip.style.top = `${Math.min(y + 14, this.$("map").clientHeight - 190)}px`;
    tip.hidden = false;
  }

  // The lasso as it is drawn, or filled, as the mask of what lies in it.
  drawLasso(path, isFilled = false) {
    const layer = this.$("lasso-layer"), context = layer.getContext("2d", { willReadFrequently: true });
    layer.width = layer.clientWidth; layer.height = layer.clientHeight;
    if (path.length < 2) return context;
    context.strokeStyle = getComputedStyle(layer).getPropertyValue("--accent");
    context.lineWidth = 2;
    context.beginPath();
    path.forEach(([x, y]) => context.lineTo(x, y));
    context.closePath();
    if (isFilled) context.fill(); else context.stroke();
    return context;
  }
}

const MOST_CHOSEN = 200; // photos of a lasso by which others are searched

function decoded(text) {
  const bytes = atob(text), points = new Float32Array(bytes.length / 2);
  for (let i = 0; i < points.length; i++) {
    const whole = bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8);
    points[i] = whole === NO_POINT ? NaN : whole / 32767 - 1;
  }
  return points;
}
