// Points in the plane by WebGL 2: they move from one arrangement to the next on the GPU. regl and what is built on it
// compile code at run time, which the content security policy forbids.

const VERTEX = `#version 300 es
in vec2 from; in vec2 to; in float state;
uniform float mixed, size, zoom; uniform vec2 centre, shape;
out float kind;
void main() {
  gl_Position = vec4((mix(from, to, mixed) - centre) * zoom * shape, 0.0, 1.0);
  gl_PointSize = state > 0.5 ? size * 1.7 : size;
  kind = state;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in float kind; uniform vec3 plain, chosen; uniform float opacity; out vec4 colour;
void main() {
  float away = length(gl_PointCoord - 0.5);
  if (away > 0.5) discard;
  float edge = 1.0 - smoothstep(0.38, 0.5, away);
  float a = (kind > 0.5 ? 1.0 : opacity) * edge;
  colour = vec4((kind > 0.5 ? chosen : plain) * a, a);
}`;
export const MOVE_MS = 900;

export class Points {
  constructor(canvas) {
    this.canvas = canvas;
    this.count = 0; this.zoom = 0.95; this.centre = [0, 0]; this.began = -Infinity; this.frames = 0;
    const gl = (this.gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true, preserveDrawingBuffer: true }));
    if (!gl) return;
    const program = (this.program = gl.createProgram());
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source); gl.compileShader(shader); gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.at = (name) => gl.getUniformLocation(program, name);
    this.buffers = { from: gl.createBuffer(), to: gl.createBuffer(), state: gl.createBuffer() };
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  get works() { return !!this.gl; }

  // points: Float32Array (n, 2); before: where each was, or null for a first arrangement.
  show(points, before) {
    this.count = points.length / 2; this.points = points;
    this.fill("from", before ?? points, 2); this.fill("to", points, 2);
    this.choose(new Set());
    this.began = before && !matchMedia("(prefers-reduced-motion: reduce)").matches ? performance.now() : -Infinity;
    this.grid = null;
    this.draw();
  }

  choose(rows) {
    const state = new Float32Array(this.count);
    for (const row of rows) state[row] = 1;
    this.fill("state", state, 1);
    this.draw();
  }

  fill(name, values, width) {
    const { gl } = this;
    if (!gl) return;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const place = gl.getAttribLocation(this.program, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, width, gl.FLOAT, false, 0, 0);
  }

  draw() {
    if (!this.gl || this.waiting) return;
    this.waiting = requestAnimationFrame((now) => {
      this.waiting = 0; this.frames += 1;
      this.paint(now);
      if (now - this.began < MOVE_MS) this.draw();
    });
  }

  paint(now) {
    const { gl, canvas } = this, scale = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const style = getComputedStyle(canvas), past = Math.min(1, (now - this.began) / MOVE_MS);
    gl.viewport(0, 0, width, height); gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform1f(this.at("mixed"), past * past * (3 - 2 * past));
    gl.uniform1f(this.at("size"), scale * Math.min(14, Math.max(2.2, (130 / Math.sqrt(this.count || 1)) * Math.sqrt(this.zoom) + 1.6)));
    gl.uniform2f(this.at("shape"), Math.min(1, height / width), Math.min(1, width / height));
    gl.uniform2fv(this.at("centre"), this.centre); gl.uniform1f(this.at("zoom"), this.zoom);
    gl.uniform3fv(this.at("plain"), rgb(style.getPropertyValue("--soft"))); gl.uniform3fv(this.at("chosen"), rgb(style.getPropertyValue("--accent")));
    gl.uniform1f(this.at("opacity"), this.count > 20000 ? 0.45 : 0.8);
    gl.drawArrays(gl.POINTS, 0, this.count);
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

  // The row of the nearest point within `reach` pixels, or -1; looked up in a grid of cells.
  nearest(x, y, reach = 14) {
    const cells = 256;
    const cell = (value) => Math.min(cells - 1, Math.max(0, Math.floor(((value + 1) / 2) * cells)));
    if (!this.grid) {
      this.grid = new Map();
      for (let row = 0; row < this.count; row++) {
        const key = cell(this.points[2 * row]) * cells + cell(this.points[2 * row + 1]);
        if (!this.grid.has(key)) this.grid.set(key, []);
        this.grid.get(key).push(row);
      }
    }
    const [left, top] = this.toPlane(x - reach, y - reach), [right, bottom] = this.toPlane(x + reach, y + reach);
    let best = -1, least = reach * reach;
    for (let i = cell(left); i <= cell(right); i++) for (let j = cell(bottom); j <= cell(top); j++) {
      for (const row of this.grid.get(i * cells + j) ?? []) {
        const [cx, cy] = this.toCanvas(this.points[2 * row], this.points[2 * row + 1]);
        const away = (cx - x) ** 2 + (cy - y) ** 2;
        if (away < least) { least = away; best = row; }
      }
    }
    return best;
  }

  // The rows inside a polygon of canvas pixels.
  inside(polygon) {
    const corners = polygon.map(([x, y]) => this.toPlane(x, y)), rows = new Set();
    for (let row = 0; row < this.count; row++) {
      const x = this.points[2 * row], y = this.points[2 * row + 1];
      let isIn = false;
      for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
        const [xi, yi] = corners[i], [xj, yj] = corners[j];
        if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) isIn = !isIn;
      }
      if (isIn) rows.add(row);
    }
    return rows;
  }
}

function rgb(colour) {
  const hex = colour.trim().replace("#", "");
  return [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
}
