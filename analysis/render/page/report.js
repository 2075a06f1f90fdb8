"use strict";
// All that a cell shows comes from the JSON above and is written as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const boxes = new Map(data.boxes.map((box) => [box.id, box]));
const dialog = document.getElementById("cell");
const SVG = "http://www.w3.org/2000/svg";

function make(name, content = [], attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const part of [content].flat()) if (part !== null && part !== undefined) made.append(part);
  return made;
}
function draw(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
const wide = (table) => make("div", table, { class: "wide", tabindex: "0" });
// A cell that is an element is a long text, which wraps.
const row = (kind, cells) => make("tr", cells.map((cell) => make(kind, cell, cell instanceof Element ? { class: "why" } : {})));
function table(head, lines) {
  return wide(make("table", [make("thead", row("th", head)), make("tbody", lines.map((line) => row("td", line)))]));
}
const listed = (pairs) => make("dl", pairs.flatMap(([name, value]) => [make("dt", name), make("dd", String(value))]), { class: "pairs" });
const distinct = (values) => [...new Set(values.filter((value) => value !== null))];

// Curves of a cell: dev score over epochs, a line a seed.
function curves(runs) {
  const lines = runs.map((run) => run.curve).filter((curve) => curve.length > 1);
  if (!lines.length) return null;
  const points = lines.flat(), [w, h, m] = [300, 90, 8];
  const range = (at) => [Math.min(...points.map((p) => p[at])), Math.max(...points.map((p) => p[at]))];
  const [[x0, x1], [y0, y1]] = [range(0), range(1)];
  const x = (value) => m + (w - 2 * m) * (value - x0) / (x1 - x0 || 1);
  const y = (value) => h - m - (h - 2 * m) * (value - y0) / (y1 - y0 || 1);
  const drawn = draw("svg", { viewBox: `0 0 ${w} ${h}`, class: "curves", "aria-hidden": "true" });
  for (const line of lines)
    drawn.append(draw("polyline", { points: line.map(([e, v]) => `${x(e).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }));
  const texts = new Map(runs.flatMap((run) => run.curve.map(([, value], number) => [value, run.curve_text[number]])));
  const about = `Dev score after epochs ${x0} to ${x1}, a line a seed: from ${texts.get(y0)} (bottom) to ${texts.get(y1)} (top).`;
  return make("div", [drawn, make("p", about, { class: "how" })]);
}

function runsOf(box) {
  const epochs = distinct(box.runs.flatMap((run) => run.curve.map(([epoch]) => epoch))).sort((a, b) => a - b);
  const lines = box.runs.map((run) => {
    const at = new Map(run.curve.map(([epoch], number) => [epoch, run.curve_text[number]]));
    return [run.seed ?? "", run.text, ...epochs.map((epoch) => at.get(epoch) ?? ""), run.flags.join(", "), make("span", run.reason ?? ""), run.run_id ?? ""];
  });
  const keep = [true, true, ...epochs.map(() => true), box.runs.some((run) => run.flags.length), box.runs.some((run) => run.reason), true];
  const head = ["seed", "score", ...epochs.map((epoch) => `dev, epoch ${epoch}`), "flags", "why not", "run"];
  const kept = (line) => line.filter((_, number) => keep[number]);
  return table(kept(head), lines.map(kept));
}

function answersOf(box) {
  const found = box.answered;
  if (found === null) return [make("p", box.n < box.expected ? "Answers are shown once all its runs are there." : "What its runs answered is not kept.")];
  const kinds = `Of ${found.n} examples ${found.always} were answered right with all ${found.runs} seeds, ${found.never} with none.`;
  const lines = found.examples.map((each) => [each.number, each.document ?? "", each.label, each.answers.join(" "), `${each.right}/${found.runs}`]);
  return [make("p", kinds), table(["example", "document", "right answer", "answers by seed", "right"], lines)];
}

function open(id) {
  const box = boxes.get(id);
  if (!box) return;
  const difference = box.difference && `${box.difference.text}, n=${box.difference.n}, to ${box.reference}`;
  const facts = [
    [box.metric, [box.text, box.interval, box.seeds].filter(Boolean).join(" ")], ["protocol", box.protocol],
    ...(box.paper_text ? [["the paper's", box.paper_text]] : []),
    ...(difference ? [["difference", difference]] : []),
    ...(box.trained !== null ? [["trained weights", box.trained.toLocaleString("en")]] : []),
    ...(box.tuning ? [["tuning", box.tuning]] : []),
    ["commit", distinct(box.runs.map((run) => run.commit)).join(", ") || "none recorded"],
    ["computed on", distinct(box.runs.map((run) => run.computed_on)).join("; ") || "nothing yet"],
  ];
  const seconds = box.runs.map((run) => run.seconds).filter((each) => each !== null);
  if (seconds.length) facts.push(["time", `${seconds.reduce((a, b) => a + b, 0).toFixed(0)} s, ${seconds.length} runs`]);
  document.getElementById("inside").replaceChildren(...[
    make("h2", box.title, { id: "cell-title" }), listed(facts),
    make("h3", "Runs"), runsOf(box), curves(box.runs),
    make("h3", "Answers"), ...answersOf(box),
    ...(box.command ? [make("h3", "Command"), make("p", make("code", box.command))] : []),
    make("h3", "Configuration"), listed(Object.entries(box.settings)),
    make("details", [make("summary", "Settings that all cells share"), listed(Object.entries(data.common))]),
  ].filter((part) => part !== null));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  history.replaceState(null, "", `#${id}`);
}

const boxAt = (target) => target.closest?.("[data-box]")?.getAttribute("data-box");
document.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
  const id = boxAt(event.target);
  if (id) open(id);
});
document.addEventListener("keydown", (event) => {
  if ((event.key === "Enter" || event.key === " ") && event.target.closest?.("a[data-box]")) {
    event.preventDefault();
    open(boxAt(event.target));
  }
});
dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
function follow() {
  const id = location.hash.slice(1);
  if (boxes.has(id)) open(id);
  else if (dialog.open) dialog.close();
}
window.addEventListener("hashchange", follow);
follow();

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
// On paper nothing can be opened.
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("main details:not([open])")];
  for (const each of opened) each.open = true;
});
window.addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
