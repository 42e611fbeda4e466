// The patches of the query photo: marked by drawing over it, or by arrow keys and space. They travel as boxes in percent,
// so that the address holds for whatever grid another model has.

export const HINT = "Draw over the photo; begin on a marked patch to erase. Arrow keys and space do the same.";

export class Brush {
  // canvas: lies over the photo.  changed(region): after a stroke.
  constructor({ canvas, changed }) {
    Object.assign(this, { canvas, changed });
    this.grid = null; this.marked = new Uint8Array(); this.isOn = false; this.cursor = null;
    const at = (event) => this.cellAt(event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight);
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.isOn || !this.grid || at(event) < 0) return;
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      this.value = this.marked[at(event)] ? 0 : 1; this.last = null;
      this.paint(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (this.value != null) this.paint(event); });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { if (this.value != null) { this.value = null; this.tell(0); } });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.draw()); canvas.addEventListener("blur", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // grid: as the server gives it, null for none.  isOn: whether it can be drawn on.
  show(grid, region, isOn) {
    clearTimeout(this.telling);
    this.grid = grid; this.isOn = isOn;
    this.marked = grid ? cellsOf(region, grid) : new Uint8Array();
    this.canvas.tabIndex = isOn ? 0 : -1;
    this.canvas.classList.toggle("marking", isOn);
    this.draw();
  }

  cellAt(x, y) {
    const { rows, columns, left, top, right, bottom } = this.grid;
    const column = Math.floor(((100 * x - left) / (right - left)) * columns), row = Math.floor(((100 * y - top) / (bottom - top)) * rows);
    return column >= 0 && row >= 0 && column < columns && row < rows ? row * columns + column : -1;
  }

  // Mark, or erase, all cells from where the pointer was to where it is.
  paint(event) {
    const { clientWidth, clientHeight } = this.canvas, to = [event.offsetX / clientWidth, event.offsetY / clientHeight], from = this.last ?? to;
    const steps = 1 + Math.ceil(Math.hypot((to[0] - from[0]) * this.grid.columns, (to[1] - from[1]) * this.grid.rows) * 3);
    for (let step = 1; step <= steps; step++) {
      const cell = this.cellAt(from[0] + ((to[0] - from[0]) * step) / steps, from[1] + ((to[1] - from[1]) * step) / steps);
      if (cell >= 0) { this.marked[cell] = this.value; this.cursor = cell; }
    }
    this.last = to;
    this.draw();
  }

  key(event) {
    if (!this.isOn || !this.grid) return;
    const { rows, columns } = this.grid, moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    this.cursor ??= Math.floor(rows / 2) * columns + Math.floor(columns / 2);
    if (moves[event.key]) {
      const [down, along] = moves[event.key], row = Math.floor(this.cursor / columns) + down, column = (this.cursor % columns) + along;
      if (row >= 0 && column >= 0 && row < rows && column < columns) this.cursor = row * columns + column;
      if (event.shiftKey) { this.marked[this.cursor] = 1; this.tell(600); }
    } else if (event.key === " " || event.key === "Enter") {
      this.marked[this.cursor] = this.marked[this.cursor] ? 0 : 1;
      this.tell(600);
    } else return;
    event.preventDefault(); event.stopPropagation();
    this.draw();
  }

  tell(after) {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => this.changed(regionOf(this.marked, this.grid)), after);
  }

  draw() {
    const { canvas, grid } = this;
    canvas.hidden = !grid || (!this.isOn && !this.marked.some(Boolean));
    if (canvas.hidden || !canvas.clientWidth) return;
    const scale = devicePixelRatio || 1, context = canvas.getContext("2d");
    canvas.width = canvas.clientWidth * scale; canvas.height = canvas.clientHeight * scale;
    const x = (column) => (canvas.width / 100) * (grid.left + ((grid.right - grid.left) * column) / grid.columns);
    const y = (row) => (canvas.height / 100) * (grid.top + ((grid.bottom - grid.top) * row) / grid.rows);
    const box = (cell) => { const row = Math.floor(cell / grid.columns), column = cell % grid.columns; return [x(column), y(row), x(column + 1) - x(column), y(row + 1) - y(row)]; };
    const isMarked = (row, column) => row >= 0 && column >= 0 && row < grid.rows && column < grid.columns && this.marked[row * grid.columns + column];
    if (this.isOn) {
      context.fillStyle = "#0004"; context.fillRect(0, 0, canvas.width, canvas.height);
      this.marked.forEach((value, cell) => { if (value) context.clearRect(...box(cell)); });
      context.strokeStyle = "#fff5"; context.lineWidth = 1;
      context.beginPath();
      for (let i = 0; i <= grid.columns; i++) { context.moveTo(x(i), y(0)); context.lineTo(x(i), y(grid.rows)); }
      for (let i = 0; i <= grid.rows; i++) { context.moveTo(x(0), y(i)); context.lineTo(x(grid.columns), y(i)); }
      context.stroke();
    }
    const outline = new Path2D(); // of what is marked
    for (let row = 0; row < grid.rows; row++) for (let column = 0; column < grid.columns; column++) {
      if (!isMarked(row, column)) continue;
      const [l, t, w, h] = box(row * grid.columns + column);
      if (!isMarked(row - 1, column)) { outline.moveTo(l, t); outline.lineTo(l + w, t); }
      if (!isMarked(row + 1, column)) { outline.moveTo(l, t + h); outline.lineTo(l + w, t + h); }
      if (!isMarked(row, column - 1)) { outline.moveTo(l, t); outline.lineTo(l, t + h); }
      if (!isMarked(row, column + 1)) { outline.moveTo(l + w, t); outline.lineTo(l + w, t + h); }
    }
    for (const [colour, width] of [["#fff", 5], [getComputedStyle(canvas).getPropertyValue("--accent"), 2.5]]) {
      context.strokeStyle = colour; context.lineWidth = width * scale; context.lineCap = "square"; context.stroke(outline);
    }
    if (this.isOn && this.cursor != null && document.activeElement === canvas) { context.strokeStyle = "#fff"; context.lineWidth = 3 * scale; context.setLineDash([4 * scale, 3 * scale]); context.strokeRect(...box(this.cursor)); }
  }
}

// "l%,t%,r%,b%;…" or one box in pixels: the cells whose centres lie in a box, of a smaller box the one it lies in.
export function cellsOf(region, grid) {
  const { rows, columns, left, top, right, bottom, width, height } = grid, marked = new Uint8Array(rows * columns);
  for (const text of region.split(";")) {
    const sides = text.split(",").map(parseFloat);
    if (sides.length !== 4 || sides.some(Number.isNaN)) continue;
    const [l, t, r, b] = text.includes("%") ? sides : sides.map((side, i) => (100 * side) / (i % 2 ? height : width));
    const columnOf = (x) => ((x - left) / (right - left)) * columns - 0.5, rowOf = (y) => ((y - top) / (bottom - top)) * rows - 0.5;
    let isEmpty = true;
    for (let row = Math.max(0, Math.ceil(rowOf(t))); row < Math.min(rows, rowOf(b)); row++)
      for (let column = Math.max(0, Math.ceil(columnOf(l))); column < Math.min(columns, columnOf(r)); column++) { marked[row * columns + column] = 1; isEmpty = false; }
    const row = Math.floor(rowOf((t + b) / 2) + 0.5), column = Math.floor(columnOf((l + r) / 2) + 0.5);
    if (isEmpty && row >= 0 && column >= 0 && row < rows && column < columns) marked[row * columns + column] = 1;
  }
  return marked;
}

// The marked cells as boxes: runs of a row, joined where the next row has the same.
export function regionOf(marked, grid) {
  const { rows, columns, left, top, right, bottom } = grid, boxes = [];
  for (let row = 0; row < rows; row++) {
    for (let from = 0; from < columns; from++) {
      if (!marked[row * columns + from]) continue;
      let to = from;
      while (to < columns && marked[row * columns + to]) to += 1;
      const above = boxes.find((box) => box.from === from && box.to === to && box.end === row);
      if (above) above.end = row + 1; else boxes.push({ from, to, row, end: row + 1 });
      from = to;
    }
  }
  const x = (column) => left + ((right - left) * column) / columns, y = (row) => top + ((bottom - top) * row) / rows;
  const percent = (value) => `${Number(Math.min(100, Math.max(0, value)).toFixed(2))}%`;
  return boxes.map((box) => [x(box.from), y(box.row), x(box.to), y(box.end)].map(percent).join(",")).join(";");
}
