// The map: the library as points that move when another prompt arranges them.

import { get, photoUrl } from "./api.js";
import { Points } from "./points.js";

function decoded(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

export class MapView {
  constructor({ $, photoAt, open, like, problem }) {
    Object.assign(this, { $, photoAt, open, like, problem });
    this.places = new Map(); this.photos = new Uint32Array(); this.chosen = new Set(); this.known = new Map();
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
    if (this.library !== library.id) { this.library = library.id; this.places = new Map(); this.known = new Map(); this.loaded = null; }
  }

  async show(state) {
    this.points ??= new Points(this.$("map"));
    if (!this.points.works) { this.$("map-note").textContent = "This browser has no WebGL 2, which the map needs."; return; }
    const prompts = [...this.$("map-focus").options].map((one) => one.value);
    const asked = state.focuses[0]?.text;
    if (asked && prompts.includes(asked)) this.$("map-focus").value = asked;
    await this.load();
  }

  async load() {
    const focus = this.$("map-focus").value, method = this.$("map-method").value, name = `${this.library}/${focus}/${method}`;
    if (this.loaded === name) return this.points.draw();
    this.$("map-note").textContent = method === "umap" ? "Computing UMAP, which can take a minute…" : "Computing…";
    try {
      const query = new URLSearchParams({ method, ...(focus ? { focus } : {}) });
      const found = await get(`/libraries/${this.library}/map?${query}`);
      const points = decoded(found.points, Float32Array), photos = decoded(found.photos, Uint32Array);
      const before = this.places.size ? new Float32Array(points.length) : null;
      if (before) photos.forEach((photo, row) => { const old = this.places.get(photo) ?? [points[2 * row], points[2 * row + 1]]; before.set(old, 2 * row); });
      this.photos = photos; this.choose(new Set());
      this.points.show(points, before);
      this.places = new Map([...photos].map((photo, row) => [photo, [points[2 * row], points[2 * row + 1]]]));
      this.loaded = name;
      const left = found.total - found.count;
      const axes = found.explained == null ? "UMAP: near means alike, far says little." : `PCA: the two axes show ${(100 * found.explained).toFixed(0)} % of the variance.`;
      this.$("map-note").textContent = `${found.count.toLocaleString("en")} photos${left ? ` (${left.toLocaleString("en")} have no vector under this prompt)` : ""}. ${axes} Turned to lie like the unsteered map.`;
    } catch (error) { this.$("map-note").textContent = ""; this.problem(error); }
  }

  choose(rows) {
    this.chosen = rows;
    this.points?.choose(rows);
    for (const name of ["like-more", "like-less"]) this.$(name).hidden = !rows.size;
    this.$("like-more").textContent = `More like these ${rows.size}`;
    this.$("like-less").textContent = `Less like these ${rows.size}`;
  }

  async likeChosen(isMore) {
    const numbers = [...this.chosen].slice(0, 200).map((row) => this.photos[row]);
    const ids = (await Promise.all(numbers.map((number) => this.photo(number)))).map((photo) => photo.image_id);
    await this.like(isMore ? ids : [], isMore ? [] : ids, this.$("map-focus").value || null);
  }

  async photo(number) {
    if (!this.known.has(number)) this.known.set(number, await this.photoAt(number));
    return this.known.get(number);
  }

  listen(canvas) {
    let start = null, path = null, moved = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      start = [event.offsetX, event.offsetY]; moved = 0;
      path = this.lassoing || event.shiftKey ? [start] : null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = [event.offsetX, event.offsetY];
      if (!start) return this.hover(...at);
      moved += Math.hypot(at[0] - start[0], at[1] - start[1]);
      if (path) { path.push(at); this.drawLasso(path); } else this.points.move(at[0] - start[0], at[1] - start[1]);
      if (!path) start = at;
    });
    canvas.addEventListener("pointerup", async (event) => {
      if (path) { this.drawLasso([]); if (path.length > 3) this.choose(this.points.inside(path)); }
      else if (start && moved < 4) {
        const row = this.points.nearest(event.offsetX, event.offsetY);
        if (row >= 0) this.open(await this.photo(this.photos[row])); else this.choose(new Set());
      }
      start = path = null;
    });
    canvas.addEventListener("pointerleave", () => { this.$("map-tip").hidden = true; });
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.points?.zoomAt(event.offsetX, event.offsetY, Math.exp(-event.deltaY / 400)); }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }, middle = [canvas.clientWidth / 2, canvas.clientHeight / 2];
      if (moves[event.key]) { event.preventDefault(); this.points.move(...moves[event.key]); }
      if (event.key === "+") this.points.zoomAt(...middle, 1.3);
      if (event.key === "-") this.points.zoomAt(...middle, 1 / 1.3);
    });
  }

  async hover(x, y) {
    const tip = this.$("map-tip"), row = this.points?.nearest(x, y) ?? -1;
    if (row < 0) { tip.hidden = true; this.hovered = -1; return; }
    if (row === this.hovered) return;
    this.hovered = row;
    const photo = await this.photo(this.photos[row]);
    if (this.hovered !== row) return;
    tip.querySelector("img").src = photoUrl(this.library, photo.image_id, "thumbnail");
    tip.querySelector("img").alt = photo.path;
    tip.querySelector("span").textContent = photo.path;
    tip.style.left = `${Math.min(x + 14, this.$("map").clientWidth - 170)}px`;
    tip.style.top = `${Math.min(y + 14, this.$("map").clientHeight - 190)}px`;
    tip.hidden = false;
  }

  drawLasso(path) {
    const layer = this.$("lasso-layer"), context = layer.getContext("2d");
    layer.width = layer.clientWidth; layer.height = layer.clientHeight;
    if (path.length < 2) return;
    context.strokeStyle = getComputedStyle(layer).getPropertyValue("--accent");
    context.lineWidth = 2;
    context.beginPath();
    path.forEach(([x, y]) => context.lineTo(x, y));
    context.closePath(); context.stroke();
  }
}
