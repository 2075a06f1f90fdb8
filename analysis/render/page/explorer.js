"use strict";
// Everything shown comes from the JSON above and is written as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const RAMP = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const BEYOND = ["#2c5aa0", "#7fa6d6", "#d7d5d0", "#e08a5b", "#a63a0f"];
const ordinal = (n) => n + (n % 10 === 1 && n % 100 !== 11 ? "st" : n % 10 === 2 && n % 100 !== 12 ? "nd" : n % 10 === 3 && n % 100 !== 13 ? "rd" : "th");

// Places: layers, or the module of a matrix if layer and role do not identify it.
const plain = data.grids.every((g) => g.place === null);
const placeOf = (g) => g.place ?? (g.layer === null ? "no layer" : String(g.layer));
const places = [...new Set(data.grids.map(placeOf))];
const weights = [...new Set(data.grids.map((g) => g.weight))];
const at = new Map(data.grids.map((g) => [`${placeOf(g)}\n${g.weight}`, g]));

const state = { grid: data.grids[0], pinned: { i: 1, j: 1 }, hovered: null, view: "phi", zoom: 0 };
const grid = () => state.grid;
const nullOf = (g) => data.nulls[g.null];
const phiAt = (g, c) => g.phi[c.i - 1][c.j - 1] / data.scale;
const nullAt = (g, c) => nullOf(g)[c.i - 1][c.j - 1];
const rows = () => Math.min(state.zoom, grid().phi.length);
const columns = () => Math.min(state.zoom, grid().phi[0].length);
const cell = () => state.hovered ?? state.pinned;

function text(element, words) { element.textContent = words; return element; }
function make(tag, words, className) {
  const element = document.createElement(tag);
  if (words !== undefined) element.textContent = words;
  if (className) element.className = className;
  return element;
}
function digits(value, number = 4) {
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size < -6 || size > 5) return value.toExponential(number - 1);
  return String(Number(value.toPrecision(size < -3 ? 3 : number)).toFixed(Math.max(0, (size < -3 ? 3 : number) - 1 - size))).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}
function colour(ramp, share) {
  const place = Math.max(0, Math.min(1, share)) * (ramp.length - 1);
  const low = Math.min(Math.floor(place), ramp.length - 2), part = place - low;
  const channel = (hex, n) => parseInt(hex.slice(1 + 2 * n, 3 + 2 * n), 16);
  return `rgb(${[0, 1, 2].map((n) => Math.round(channel(ramp[low], n) * (1 - part) + channel(ramp[low + 1], n) * part)).join(" ")})`;
}
const shown = {
  phi: (g, c) => phiAt(g, c),
  null: (g, c) => nullAt(g, c),
  beyond: (g, c) => phiAt(g, c) - nullAt(g, c),
};
const largest = Object.fromEntries(Object.entries(shown).map(([view, value]) => {
  let most = 1e-6;
  for (const g of data.grids) g.phi.forEach((line, i) => line.forEach((_, j) => { most = Math.max(most, Math.abs(value(g, { i: i + 1, j: j + 1 }))); }));
  return [view, Math.min(most, 1)];
}));
const limit = () => ($("fit").checked ? largest[state.view] : 1);
function shade(g, c) {
  const value = shown[state.view](g, c) / limit();
  return state.view === "beyond" ? colour(BEYOND, 0.5 + value / 2) : colour(RAMP, value);
}
function ink(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
function canvas(element, width, height) {
  const ratio = window.devicePixelRatio || 1;
  element.width = Math.round(width * ratio);
  element.height = Math.round(height * ratio);
  element.style.width = `${width}px`;
  element.style.height = `${height}px`;
  const pen = element.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, 'Liberation Sans', sans-serif";
  return pen;
}
function widthOf(element) {
  const style = getComputedStyle(element.parentElement);
  return element.parentElement.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
}
function ticks(count, size, least) {
  const step = [1, 2, 4, 8, 16, 32, 64, 128, 256].find((n) => n * size >= least) ?? 512;
  const found = [1];
  for (let n = step; n <= count; n += step) if (n > 1 && (n - 1) * size >= least * 0.75) found.push(n);
  return found;
}

let heat = null; // where the cells of the grid lie, in CSS pixels
function drawHeat() {
  const g = grid(), m = rows(), n = columns();
  const x0 = 30, y0 = 20, total = widthOf($("heat"));
  const w = Math.min((total - x0 - 10) / n, 64);
  const h = Math.min(44, Math.max(7, (total < 500 ? 240 : 380) / m));
  const pen = canvas($("heat"), total, y0 + h * m + 24);
  heat = { x0, y0, w, h, m, n };
  Object.assign($("heat").dataset, { x0, y0, w, h });
  const whole = (x) => Math.round(x * (window.devicePixelRatio || 1)) / (window.devicePixelRatio || 1); // no seams
  for (let i = 1; i <= m; i++) for (let j = 1; j <= n; j++) {
    pen.fillStyle = shade(g, { i, j });
    const left = whole(x0 + (j - 1) * w), top = whole(y0 + (i - 1) * h);
    pen.fillRect(left, top, whole(x0 + j * w) - left, whole(y0 + i * h) - top);
  }
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  pen.fillStyle = ink("--first");
  for (const i of ticks(m, h, 13)) pen.fillText(i, x0 - 5, y0 + (i - 0.5) * h);
  pen.fillText("i", x0 - 5, y0 - 9);
  pen.textAlign = "center";
  pen.fillStyle = ink("--second");
  for (const j of ticks(n, w, 22)) pen.fillText(j, x0 + (j - 0.5) * w, y0 + m * h + 10);
  pen.textAlign = "left";
  pen.fillText("j", x0 + n * w - 5, y0 - 9);
  const c = cell();
  if (c.i <= m && c.j <= n) frame(pen, x0, y0, c.j * w, c.i * h, x0 + (c.j - 1) * w, y0 + (c.i - 1) * h, w, h);
}
function frame(pen, x, y, width, height, left, top, w, h) {
  for (const [style, line] of [["rgb(0 0 0 / 0.75)", 3], ["#fff", 1.25]]) {
    pen.strokeStyle = style;
    pen.lineWidth = line;
    pen.strokeRect(x, y, width, height);
    pen.strokeRect(left, top, w, h);
  }
}
function legend() {
  const ramp = state.view === "beyond" ? BEYOND : RAMP;
  $("ramp").style.background = `linear-gradient(to right, ${ramp.join(", ")})`;
  text($("legend-low"), state.view === "beyond" ? `\u2212${digits(limit(), 3)}` : "0");
  text($("legend-high"), digits(limit(), 3));
}

let strip = null;
function drawOverview() {
  const total = widthOf($("overview")), x0 = Math.min(70, 14 + 6.5 * Math.max(...weights.map((w) => w.length)));
  const w = Math.max(Math.min((total - x0 - 10) / places.length, 44), 2), h = 20;
  const perLine = Math.max(1, Math.floor((total - x0 - 10) / w + 1e-6));
  const lines = Math.ceil(places.length / perLine), block = weights.length * h + 22;
  const pen = canvas($("overview"), total, lines * block);
  strip = { x0, w, h, perLine, block };
  pen.textBaseline = "middle";
  const c = cell();
  weights.forEach((weight, row) => places.forEach((place, index) => {
    const g = at.get(`${place}\n${weight}`), line = Math.floor(index / perLine);
    const left = x0 + (index % perLine) * w, top = line * block + row * h;
    const inside = g && c.i <= g.phi.length && c.j <= g.phi[0].length;
    pen.fillStyle = inside ? shade(g, c) : ink("--quiet");
    pen.fillRect(left, top, w - (w > 6 ? 1.5 : 0), h - 1.5);
    if (g === grid()) {
      pen.strokeStyle = ink("--ink");
      pen.lineWidth = 2;
      pen.strokeRect(left, top, w - 1.5, h - 1.5);
    }
    if (index % perLine === 0) {
      pen.fillStyle = ink("--soft");
      pen.textAlign = "right";
      pen.fillText(weight.length > 11 ? `${weight.slice(0, 10)}\u2026` : weight, x0 - 6, top + h / 2);
    }
  }));
  pen.textAlign = "center";
  pen.fillStyle = ink("--soft");
  const step = [1, 2, 4, 8, 16, 32].find((n) => n * w >= 24) ?? 64;
  if (plain) for (let index = 0; index < places.length; index++) {
    if (Number(places[index]) % step !== 0 && places[index] !== "no layer") continue;
    pen.fillText(places[index] === "no layer" ? "\u2013" : places[index], x0 + (index % perLine + 0.5) * w, Math.floor(index / perLine) * block + weights.length * h + 9);
  }
  text($("overview-title"), `${state.view === "null" ? "chance" : state.view === "phi" ? "\u03c6" : "\u03c6 \u2212 chance"} at i = ${c.i}, j = ${c.j} in every ${plain ? "layer" : "module"}`);
}
function stripAt(event) {
  const box = $("overview").getBoundingClientRect();
  const x = event.clientX - box.left - strip.x0, y = event.clientY - box.top;
  const column = Math.floor(x / strip.w), line = Math.floor(y / strip.block), row = Math.floor((y % strip.block) / strip.h);
  const place = places[line * strip.perLine + column];
  return x >= 0 && column < strip.perLine && row < weights.length ? at.get(`${place}\n${weights[row]}`) : undefined;
}
function nameOf(g) { return g.place !== null ? `${g.place}, ${g.weight}` : g.layer === null ? g.weight : `layer ${g.layer}, ${g.weight}`; }

function drawSpectrum(id, which, index) {
  const g = grid(), s = g.s[which], f = g.figures[which], section = $(id), svg = section.querySelector("svg");
  svg.replaceChildren();
  const n = Math.max(s.length, 1), step = 300 / n, top = s[0] || 1, high = 92;
  svg.setAttribute("viewBox", "0 0 300 96");
  svg.setAttribute("preserveAspectRatio", "none");
  const put = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    svg.append(element);
  };
  s.forEach((value, k) => {
    const height = Math.max((value / top) * high, 0.5), state = k + 1 === index ? "bar at" : k < index ? "bar in" : "bar";
    put("rect", { x: k * step + step * 0.08, y: 94 - height, width: step * 0.84, height, class: state });
  });
  put("line", { x1: 0, x2: 300, y1: 94.5, y2: 94.5, class: "axis" });
  if (data.side.of !== "dW" && f.dW[0] > 0) {
    const points = f.dW.slice(0, n).map((value, k) => `${(k + 0.5) * step},${94 - (value / f.dW[0]) * high}`);
    put("polyline", { points: points.join(" "), class: "dW" });
  }
  const axis = which === 0 ? "i" : "j";
  const strength = index <= s.length ? `\u03c3(${axis} = ${index}) = ${digits(s[index - 1])} of ${data.side.of}` : "";
  const own = data.side.of !== "dW" && index <= f.dW.length ? `, ${digits(f.dW[index - 1])} of dW (line)` : "";
  text(section.querySelector(".value"), strength + own);
  const near = g.near[which].find(([low, high]) => low <= index && index <= high);
  const parts = [`r = ${f.r}`, `scaling ${f.scaling === null ? "unknown" : digits(f.scaling)}`, `\u2016dW\u2016 = ${digits(f.norm)}`, ...(f.rank === null ? [] : [`effective rank ${digits(f.rank, 3)}`])];
  if (f.energy < 0.9999) parts.push(`${digits(100 * f.energy, 3)} % of \u2016dW\u2016\u00b2 shown`);
  if (near) parts.push(`directions ${near[0]} to ${near[1]} are nearly equal: only their span is determined`);
  text(section.querySelector(".figures"), parts.join(" \u00b7 "));
}
function readout() {
  const g = grid(), c = cell(), phi = phiAt(g, c), chance = nullAt(g, c);
  text($("i"), c.i);
  text($("j"), c.j);
  text($("phi"), phi.toFixed(4));
  text($("null"), digits(chance));
  const smaller = Math.min(c.i, c.j), shared = smaller * phi, random = smaller * chance;
  text($("meaning"), `${digits(shared, 3)} of ${smaller} dimension${smaller > 1 ? "s" : ""} shared, ${digits(random, 3)} by chance in a space of ${g.d}.`);
  drawSpectrum("first", 0, c.i);
  drawSpectrum("second", 1, c.j);
}
function draw() { drawHeat(); drawOverview(); legend(); readout(); }

function choose(g) {
  if (!g) return;
  state.grid = g;
  state.hovered = null;
  const m = g.phi.length, n = g.phi[0].length, most = Math.max(m, n), all = state.zoom >= Number($("zoom").max) || state.zoom === 0;
  $("zoom").max = most;
  state.zoom = all ? most : Math.min(state.zoom, most);
  $("zoom").value = state.zoom;
  $("zoom-label").hidden = most < 2;
  text($("zoom-value"), state.zoom);
  clamp();
  $("place").value = placeOf(g);
  const fields = [];
  for (const weight of weights) {
    const other = at.get(`${placeOf(g)}\n${weight}`);
    if (!other) continue;
    const label = make("label"), input = make("input");
    Object.assign(input, { type: "radio", name: "weight", value: weight, checked: other === g });
    input.addEventListener("change", () => choose(other));
    label.append(input, make("span", weight));
    fields.push(label);
  }
  const focused = document.activeElement?.name === "weight";
  $("weights").replaceChildren(...fields);
  if (focused) $("weights").querySelector("input:checked").focus();
  const number = places.indexOf(placeOf(g)) + 1;
  const title = !plain ? `${g.weight} of module` : g.layer === null ? g.weight : `Layer ${g.layer}, ${g.weight}`;
  const which = plain ? `(the ${ordinal(number)} of ${places.length})` : `${number} of ${places.length}`;
  text($("grid-title"), `${title} ${which}: ${m} \u00d7 ${n} directions of ${data.side.of}`);
  text($("modules"), g.modules[0] === g.modules[1] ? g.modules[0] : g.modules.join(" | "));
  const last = { i: m, j: n }, beyond = Math.min(m, n) * (phiAt(g, last) - nullAt(g, last));
  text($("whole"), `All of both: ${digits(Math.abs(beyond), 3)} dimensions ${beyond < 0 ? "fewer" : "more"} shared than by chance, principal angles from ${digits(g.angles[0], 3)}\u00b0 to ${digits(g.angles[1], 3)}\u00b0.`);
  $("heat").setAttribute("aria-label", `phi of ${nameOf(g)}, i from 1 to ${m}, j from 1 to ${n}`);
  $("before").disabled = number === 1;
  $("after").disabled = number === places.length;
  draw();
}
function clamp() {
  state.pinned = { i: Math.min(Math.max(state.pinned.i, 1), rows()), j: Math.min(Math.max(state.pinned.j, 1), columns()) };
}
function move(step) {
  const place = places[places.indexOf(placeOf(grid())) + step];
  if (place === undefined) return;
  choose(at.get(`${place}\n${grid().weight}`) ?? weights.map((w) => at.get(`${place}\n${w}`)).find(Boolean));
}
function heatAt(event) {
  const box = $("heat").getBoundingClientRect();
  const j = Math.floor((event.clientX - box.left - heat.x0) / heat.w) + 1, i = Math.floor((event.clientY - box.top - heat.y0) / heat.h) + 1;
  return i >= 1 && j >= 1 && i <= heat.m && j <= heat.n ? { i, j } : null;
}

$("heat").addEventListener("pointermove", (event) => {
  state.hovered = heatAt(event);
  if (event.buttons && state.hovered) state.pinned = state.hovered;
  draw();
});
$("heat").addEventListener("pointerleave", () => { state.hovered = null; draw(); });
$("heat").addEventListener("pointerdown", (event) => { const c = heatAt(event); if (c) { state.pinned = c; state.hovered = null; draw(); } });
$("heat").addEventListener("keydown", (event) => {
  const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (by) { state.hovered = null; state.pinned = { i: state.pinned.i + by[0], j: state.pinned.j + by[1] }; clamp(); draw(); }
  else if (event.key === "PageUp") move(-1);
  else if (event.key === "PageDown") move(1);
  else return;
  event.preventDefault();
});
$("overview").addEventListener("pointermove", (event) => {
  const g = stripAt(event), c = cell();
  const inside = g && c.i <= g.phi.length && c.j <= g.phi[0].length;
  text($("overview-value"), inside ? `${nameOf(g)}: ${phiAt(g, c).toFixed(4)}, chance ${digits(nullAt(g, c))}` : "");
});
$("overview").addEventListener("pointerleave", () => text($("overview-value"), ""));
$("overview").addEventListener("click", (event) => choose(stripAt(event)));
$("place").addEventListener("change", () => move(places.indexOf($("place").value) - places.indexOf(placeOf(grid()))));
$("before").addEventListener("click", () => move(-1));
$("after").addEventListener("click", () => move(1));
$("zoom").addEventListener("input", () => { state.zoom = Number($("zoom").value); text($("zoom-value"), state.zoom); clamp(); draw(); });
for (const input of $("views").querySelectorAll("input")) input.addEventListener("change", () => { state.view = input.value; draw(); });
$("fit").addEventListener("change", draw);
window.addEventListener("resize", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

const [one, two] = data.adapters;
text($("about"), `Of ${data.grids.length} matri${data.grids.length > 1 ? "ces" : "x"}, how much the first i ${data.side.description} of one adapter and the first j of the other share: of the smaller of the two spans, the part that lies in the larger.`);
const named = (adapter) => { const dd = make("dd", `${adapter.name} `); dd.append(make("small", adapter.format)); return dd; };
$("adapters").append(make("dt", "i", "one"), named(one), make("dt", "j", "two"), named(two));
for (const [id, adapter, axis] of [["first", one, "i"], ["second", two, "j"]]) text($(id).querySelector("h3"), `${axis}: ${adapter.name}`);
text($("place-label"), plain ? "Layer" : "Module");
$("place").append(...places.map((place) => { const option = make("option", place); option.value = place; return option; }));
text($("description"), data.side.description);
$("notes").append(...data.notes.map((note) => make("li", note)));
text($("command"), data.command);
choose(state.grid);
