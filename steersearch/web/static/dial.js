// The steering dial: hits on screen at another gate_scale. Five steps are steered in the background; between them scores
// are interpolated, and where the dial rests they are steered. The note says which it is.

import { get } from "./api.js";
import { searchQuery } from "./state.js";

const STEPS = [1, 0, 0.5, 1.5, 2];
const REST_MS = 300;

export class Dial {
  constructor({ $, onTurn }) {
    this.$ = $; this.onTurn = onTurn; this.steps = new Map();
    $("dial").oninput = () => this.turned();
    for (const name of ["pointerdown", "focus"]) $("dial").addEventListener(name, () => this.prepare());
  }

  // Says why there is nothing to turn.
  refuse(reason) {
    this.hide();
    this.$("dial").disabled = true; this.$("dial").value = 1; this.$("dial-value").textContent = "1.00";
    this.say(reason);
    this.$("dial-section").hidden = false;
  }

  show(state, answer) {
    this.hide();
    this.$("dial").disabled = false;
    const query = searchQuery(state);
    for (const name of ["k", "region", "folder", "after", "before", "collapse"]) query.delete(name);
    for (const hit of answer.hits.slice(0, 60)) query.append("photos", hit.image_id);
    this.path = `/libraries/${state.library}/dial?${query}`;
    this.$("dial").value = 1; this.$("dial-value").textContent = "1.00";
    this.say("0: as the backbone sees it; 1: as trained.");
    this.$("dial-section").hidden = false;
  }

  hide() {
    this.wanted?.abort(); clearTimeout(this.resting);
    this.steps = new Map(); this.path = null; this.preparing = false;
    this.$("dial-section").hidden = true;
  }

  say(text) { this.$("dial-note").textContent = text; }

  async steered(scale, signal) {
    const path = this.path;
    if (!this.steps.has(scale)) {
      const found = await get(`${path}&gate_scale=${scale}`, signal);
      if (path !== this.path) return null;
      this.steps.set(scale, found);
    }
    return this.steps.get(scale);
  }

  async prepare() {
    if (this.preparing || !this.path) return;
    this.preparing = true;
    try { for (const scale of STEPS) if (this.path) await this.steered(scale); } catch { this.preparing = false; }
  }

  turned() {
    const scale = Number(this.$("dial").value);
    this.$("dial-value").textContent = scale.toFixed(2);
    this.prepare();
    clearTimeout(this.resting); this.wanted?.abort();
    if (this.steps.has(scale)) return this.exact(scale);
    this.between(scale);
    this.resting = setTimeout(async () => {
      this.wanted = new AbortController();
      try { if (await this.steered(scale, this.wanted.signal)) this.exact(scale); }
      catch (error) { if (error.name !== "AbortError") this.say(error.message); }
    }, REST_MS);
  }

  exact(scale) {
    const step = this.steps.get(scale);
    this.onTurn(turnOf(step, (i) => step.scores[i]));
    this.say(`Exact at ${scale.toFixed(2)}: all ${step.image_ids.length} photos on screen steered in ${step.seconds.toFixed(1)} s. Other photos were not steered again.`);
  }

  between(scale) {
    const known = [...this.steps.keys()].sort((a, b) => a - b);
    const low = known.filter((one) => one <= scale).pop(), high = known.find((one) => one >= scale);
    if (low == null || high == null) return this.say("Steering the photos on screen…");
    const a = this.steps.get(low), b = this.steps.get(high), part = high === low ? 0 : (scale - low) / (high - low);
    const near = part < 0.5 ? a : b;
    this.onTurn(turnOf(near, (i) => (a.scores[i] == null || b.scores[i] == null ? null : a.scores[i] + part * (b.scores[i] - a.scores[i]))));
    this.say(`Interpolated between ${low} and ${high}; heatmaps of ${near.gate_scale}. Steering…`);
  }
}

function turnOf(step, scoreAt) {
  const numbers = new Map(step.image_ids.map((id, i) => [id, i]));
  const picture = (content) => content && `data:image/png;base64,${content}`;
  return {
    scores: new Map(step.image_ids.map((id, i) => [id, scoreAt(i) ?? -Infinity])),
    layer: (row, focus) => picture(step.layers[focus]?.[numbers.get(row.image_id)]),
    queryLayer: (focus, photo) => picture(step.query_layers[focus]?.[photo]),
  };
}
