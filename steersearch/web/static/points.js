// Points in the plane on a 2D canvas. Each leaves a round stamp in a buffer of densities, and the buffer is coloured at
// once: a hundred thousand take some 5 ms of a frame, on any machine; WebGL without a graphics processor took a second.

export const MOVE_MS = 900;
const MOST_PIXELS = 3e6; // of the canvas; beyond, it is enlarged
const CELLS = 256; // of the grid by which points are found, along a side
const PHASES = 4; // places of a stamp within a pixel, each way
const FAINT = 90; // of 255: less than this of a pixel is left out

export class Points {
  // rings: a canvas over it, for what changes while the points stand.
  constructor(canvas, rings) {
    this.canvas = canvas; this.context = canvas.getContext("2d"); this.rings = rings;
    this.zoom = 0.95; this.centre = [0, 0]; this.began = -Infinity; this.stamps = new Map(); this.tones = new Map();
    this.ringed = []; this.pointed = -1; // rows of the hits, best first; the row under the pointer
    this.show(new Float32Array(), null);
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // points: Float32Array (n, 2), NaN for none; before: where each was, or null for a first arrangement.
  show(points, before) {
    this.points = points; this.count = points.length / 2; this.before = before; this.at = new Float32Array(points);
    this.began = before && !matchMedia("(prefers-reduced-motion: reduce)").matches ? performance.now() : -Infinity;
    this.grid = null;
    this.choose([]);
  }

  choose(rows) { this.chosen = new Uint8Array(this.count); for (const row of rows) this.chosen[row] = 1; this.numChosen = rows.length; this.draw(); }
  ring(rows) { this.ringed = rows; this.drawRings(); }
  point(row) { if (row !== this.pointed) { this.pointed = row; this.drawRings(); } }

  draw() { this.isStale = true; this.drawRings(); }

  drawRings() {
    this.waiting ||= requestAnimationFrame((now) => {
      this.waiting = 0;
      this.advance(now);
      this.paint();
      if (now - this.began < MOVE_MS) this.draw();
    });
  }

  // Where the points are at this time of a move.
  advance(now) {
    const past = Math.min(1, (now - this.began) / MOVE_MS), mixed = past * past * (3 - 2 * past), { at, points, before } = this;
    if (this.moved === points && past === 1) return;
    this.moved = past === 1 ? points : null;
    if (past === 1) at.set(points);
    else for (let i = 0; i < at.length; i++) at[i] = before[i] === before[i] ? before[i] + mixed * (points[i] - before[i]) : points[i];
  }

  paint() {
    const { canvas, context } = this, { clientWidth, clientHeight } = canvas;
    if (!clientWidth || !clientHeight) return;
    const scale = Math.min(devicePixelRatio || 1, Math.sqrt(MOST_PIXELS / (clientWidth * clientHeight)));
    const width = Math.round(clientWidth * scale), height = Math.round(clientHeight * scale);
    if (!this.image || canvas.width !== width || canvas.height !== height) {
      canvas.width = width; canvas.height = height;
      this.image = context.createImageData(width, height); this.density = new Uint32Array(width * height); this.isStale = true;
    }
    const style = getComputedStyle(canvas), colour = (name) => style.getPropertyValue(name).trim();
    this.paintRings(scale, colour("--accent"), colour("--card"), colour("--ink"));
    if (!this.isStale) return;
    this.isStale = false;
    const size = scale * Math.min(14, Math.max(2.2, (130 / Math.sqrt(this.count || 1)) * Math.sqrt(this.zoom) + 1.6));
    const pixels = new Uint32Array(this.image.data.buffer);
    this.stamp(0, size); this.tint(pixels, colour("--soft"), this.count > 20000 ? 0.45 : 0.8, true);
    if (this.numChosen) { this.stamp(1, size * 1.5); this.tint(pixels, colour("--accent"), 0.9, false); }
    context.putImageData(this.image, 0, 0);
  }

  // The stamps of all points that are chosen, or are not, into the buffer of densities; 255 is a full one.
  stamp(kind, size) {
    const { at, chosen, density, count } = this, { width, height } = this.canvas, { side, stamps } = this.stampOf(size, width);
    const unit = (Math.min(width, height) / 2) * this.zoom, left = width / 2 - this.centre[0] * unit - side / 2, top = height / 2 + this.centre[1] * unit - side / 2;
    density.fill(0);
    for (let row = 0; row < count; row++) {
      if (chosen[row] !== kind) continue;
      const x = left + at[2 * row] * unit, y = top - at[2 * row + 1] * unit;
      if (!(x >= 0 && y >= 0 && x + side < width && y + side < height)) continue; // nor what has no point
      const column = x | 0, line = y | 0, corner = line * width + column;
      const { places, weights } = stamps[(((y - line) * PHASES) | 0) * PHASES + (((x - column) * PHASES) | 0)];
      for (let i = 0; i < places.length; i++) density[corner + places[i]] += weights[i];
    }
  }

  // Discs of this diameter with a soft edge, one for each place within a pixel: which pixels they touch, and how much.
  stampOf(size, width) {
    const diameter = Math.round(4 * size) / 4, name = `${diameter} ${width}`;
    if (!this.stamps.has(name)) {
      const side = Math.ceil(diameter) + 3, stamps = [];
      for (let phase = 0; phase < PHASES * PHASES; phase++) {
        const x = side / 2 + ((phase % PHASES) + 0.5) / PHASES, y = side / 2 + (Math.floor(phase / PHASES) + 0.5) / PHASES;
        const touched = Array.from({ length: side * side }, (_, i) => [Math.floor(i / side) * width + (i % side), 255 * Math.min(1, diameter / 2 + 0.5 - Math.hypot((i % side) + 0.5 - x, Math.floor(i / side) + 0.5 - y))]).filter(([, weight]) => weight > FAINT);
        stamps.push({ places: Int32Array.from(touched, ([place]) => place), weights: Uint8Array.from(touched, ([, weight]) => weight) });
      }
      this.stamps.set(name, { side, stamps });
    }
    return this.stamps.get(name);
  }

  // Colour the buffer, over what is there or as the first.
  tint(pixels, colour, opacity, isFirst) {
    const { density } = this, name = `${colour} ${opacity}`;
    if (!this.tones.has(name)) {
      const [red, green, blue] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)), plain = (blue << 16) | (green << 8) | red;
      this.tones.set(name, Uint32Array.from({ length: 4096 }, (_, i) => ((Math.round(255 * (1 - (1 - opacity) ** (i / 255))) << 24) | plain) >>> 0));
    }
    const tones = this.tones.get(name);
    if (isFirst) for (let i = 0; i < density.length; i++) pixels[i] = density[i] ? tones[density[i] < 4096 ? density[i] : 4095] : 0;
    else for (let i = 0; i < density.length; i++) if (density[i] > 64) pixels[i] = tones[density[i] < 4096 ? density[i] : 4095];
  }

  paintRings(scale, accent, card, ink) {
    const { rings } = this, context = rings.getContext("2d"), radius = 7 * scale;
    rings.width = this.canvas.width; rings.height = this.canvas.height;
    const disc = (row, grown, fill, line) => {
      if (!(row >= 0) || Number.isNaN(this.at[2 * row])) return;
      const [x, y] = this.toCanvas(this.at[2 * row], this.at[2 * row + 1]);
      context.beginPath(); context.arc(x * scale, y * scale, radius * grown, 0, 2 * Math.PI);
      context.fillStyle = fill; context.fill(); context.lineWidth = 1.5 * scale; context.strokeStyle = line; context.stroke();
    };
    for (const row of [...this.ringed].reverse()) disc(row, 1, accent, card);
    disc(this.pointed, 1.5, this.ringed.includes(this.pointed) ? accent : card, ink);
  }

  // Between pixels of the canvas (CSS) and the plane; the shorter side shows [-1, 1] at zoom 1.
  toPlane(x, y) {
    const { clientWidth: w, clientHeight: h } = this.canvas, side = Math.min(w, h) / 2;
    return [(x - w / 2) / side / this.zoom + this.centre[0], (h / 2 - y) / side / this.zoom + this.centre[1]];
  }

  toCanvas(px, py) {
    const { clientWidth: w, clientHeight: h } = this.canvas, side = Math.min(w, h) / 2;
    return [w / 2 + (px - this.centre[0]) * this.zoom * side, h / 2 - (py - this.centre[1]) * this.zoom * side];
  }

  move(dx, dy) {
    const side = (Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / 2) * this.zoom;
    this.centre = [this.centre[0] - dx / side, this.centre[1] + dy / side];
    this.draw();
  }

  zoomAt(x, y, factor) {
    const [px, py] = this.toPlane(x, y);
    this.zoom = Math.min(200, Math.max(0.5, this.zoom * factor));
    const [qx, qy] = this.toPlane(x, y);
    this.centre = [this.centre[0] + px - qx, this.centre[1] + py - qy];
    this.draw();
  }

  // The rows of each cell of the plane, one cell after the other, and where each begins.
  cells() {
    const starts = new Uint32Array(CELLS * CELLS + 1), rows = new Uint32Array(this.count), cellOf = new Int32Array(this.count);
    for (let row = 0; row < this.count; row++) {
      cellOf[row] = Number.isNaN(this.points[2 * row]) ? -1 : cell(this.points[2 * row]) * CELLS + cell(this.points[2 * row + 1]);
      if (cellOf[row] >= 0) starts[cellOf[row] + 1] += 1;
    }
    for (let i = 0; i < CELLS * CELLS; i++) starts[i + 1] += starts[i];
    const next = starts.slice();
    for (let row = 0; row < this.count; row++) if (cellOf[row] >= 0) rows[next[cellOf[row]]++] = row;
    return { starts, rows };
  }

  // The row of the nearest point within `reach` pixels, or -1.
  nearest(x, y, reach = 14) {
    const { starts, rows } = (this.grid ??= this.cells());
    const [left, top] = this.toPlane(x - reach, y - reach), [right, bottom] = this.toPlane(x + reach, y + reach);
    let best = -1, least = reach * reach;
    for (let i = cell(left); i <= cell(right); i++) {
      for (let k = starts[i * CELLS + cell(bottom)]; k < starts[i * CELLS + cell(top) + 1]; k++) {
        const [cx, cy] = this.toCanvas(this.points[2 * rows[k]], this.points[2 * rows[k] + 1]), away = (cx - x) ** 2 + (cy - y) ** 2;
        if (away < least) { least = away; best = rows[k]; }
      }
    }
    return best;
  }

  // The rows whose points lie on what `mask`, a context in the canvas' pixels (CSS), has painted.
  inside(mask) {
    const { width, height } = mask.canvas, painted = new Uint32Array(mask.getImageData(0, 0, width, height).data.buffer), rows = [];
    const [left, top] = this.toCanvas(0, 0), unit = (Math.min(width, height) / 2) * this.zoom;
    for (let row = 0; row < this.count; row++) {
      const x = left + this.points[2 * row] * unit, y = top - this.points[2 * row + 1] * unit;
      if (x >= 0 && y >= 0 && x < width && y < height && painted[(y | 0) * width + (x | 0)] >>> 31) rows.push(row);
    }
    return rows;
  }
}

const cell = (value) => Math.min(CELLS - 1, Math.max(0, Math.floor(((value + 1) / 2) * CELLS)));
