"use strict";
const report = JSON.parse(document.getElementById("data").textContent);
const state = { query: 0, hit: 0, open: new Set(), colours: true };

/** Makes an element; text is never read as HTML. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) element.append(child);
  }
  return element;
}

const labelsOf = (labels) => [labels.modality, labels.body_part, labels.finding].filter(Boolean).join(" \u00b7 ");
const nameOf = (name, part) => part ? `${name} [${part}]` : name;
const relations = { same_image: "same image", same_series: "same series", same_study: "same study",
  same_patient: "same patient", other_patient: "other patient", unknown: "patient unknown" };

/** The pictures of an image: planes of a volume, frames of a clip, or one. */
function planes(image, overlay) {
  const isClip = image.planes.length > 3;
  const all = image.planes.map((plane) => {
    const picture = make("img", { src: plane.png, alt: plane.name, loading: "lazy" });
    if (plane.aspect !== 1) picture.style.aspectRatio = String(plane.aspect);
    const figure = make("figure", { class: "plane" }, picture,
      image.planes.length > 1 ? make("figcaption", {}, plane.name) : null);
    if (overlay) figure.append(overlay(plane));
    return figure;
  });
  if (all.length === 0) {
    return make("div", { class: "dim small" }, `no picture: ${image.missing || "not known"}`);
  }
  const isPlain = all.length === 1 && image.planes[0].grid[0] === 0;
  const kind = isPlain ? "planes plain" : isClip ? "planes clip" : all.length === 1 ? "planes single" : "planes";
  return make("div", { class: kind }, all);
}

function hitCard(query, hit, index) {
  const badges = [make("span", { class: hit.relation.startsWith("same") ? "badge strong" : "badge" }, relations[hit.relation])];
  for (const label of [hit.modality, hit.body_part, hit.finding, hit.dims, hit.source]) {
    if (label) badges.push(make("span", { class: "badge" }, label));
  }
  const isOpen = state.open.has(index);
  const toggle = hit.why ? make("button", { "aria-expanded": String(isOpen), onclick: () => openWhy(index) },
    isOpen ? "Close" : "Why they match") : null;
  const copy = make("button", { onclick: () => navigator.clipboard && navigator.clipboard.writeText(hit.file) }, "Copy path");
  const card = make("section", { class: "card hit", tabindex: "0", "aria-label": `hit ${hit.rank}`,
      onfocus: () => mark(index) },
    make("div", { class: "row" }, planes(hit),
      make("div", { class: "text" },
        make("div", { class: "score num" }, make("span", { class: "rank" }, String(hit.rank)), hit.score.toFixed(4)),
        make("div", { style: "margin: 6px 0 2px" }, badges),
        make("div", { class: "path" }, nameOf(hit.file, hit.part)),
        make("div", { style: "margin-top: 8px; display: flex; gap: 8px; flex-wrap: wrap" }, toggle, copy))));
  if (isOpen && hit.why) card.append(whyPanel(query, hit));
  return card;
}

/** A colour for each patch of the query, by where it lies: neighbours look alike. */
function colourOf(query, patch) {
  for (const plane of query.planes) {
    const cell = plane.cells.indexOf(patch);
    if (cell >= 0) {
      const [rows, columns] = plane.grid;
      const x = (cell % columns + 0.5) / columns, y = (Math.floor(cell / columns) + 0.5) / rows;
      // Hue runs around the picture's centre; colours near it are paler.
      const angle = Math.atan2(y - 0.5, x - 0.5) * 180 / Math.PI;
      const far = Math.min(1, 2 * Math.hypot(x - 0.5, y - 0.5));
      return `hsl(${Math.round(angle + 180)} ${Math.round(55 + 40 * far)}% ${Math.round(66 - 10 * far)}%)`;
    }
  }
  return "hsl(0 0% 80%)";
}

function whyPanel(query, hit) {
  const why = hit.why;
  const side = (position) => new Map(why.matches.map((match) => [match[position], match]));
  const ofQuery = side(0), ofHit = side(1);
  const canvases = [];
  let chosen = null;
  const draw = () => canvases.forEach(({ canvas, plane, matches }) => {
    const [rows, columns] = plane.grid;
    const scale = 24;
    canvas.width = columns * scale; canvas.height = rows * scale;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!state.colours) return;
    plane.cells.forEach((patch, cell) => {
      const match = matches.get(patch);
      if (!match) return;
      const x = cell % columns * scale, y = Math.floor(cell / columns) * scale;
      const isChosen = match === chosen;
      context.globalAlpha = chosen && !isChosen ? 0.12 : 0.2 + 0.45 * Math.max(0, Math.min(1, match[2]));
      context.fillStyle = colourOf(query, match[0]);
      context.fillRect(x, y, scale, scale);
      if (isChosen) {
        context.globalAlpha = 1; context.strokeStyle = "#fff"; context.lineWidth = 4;
        context.strokeRect(x + 2, y + 2, scale - 4, scale - 4);
      }
    });
  });
  const overlay = (matches) => (plane) => {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const choose = (event) => {
      const box = canvas.getBoundingClientRect();
      const [rows, columns] = plane.grid;
      const column = Math.min(columns - 1, Math.floor((event.clientX - box.left) / box.width * columns));
      const row = Math.min(rows - 1, Math.floor((event.clientY - box.top) / box.height * rows));
      const match = matches.get(plane.cells[row * columns + column]) || null;
      if (match !== chosen) { chosen = match; draw(); }
    };
    canvas.addEventListener("pointermove", choose);
    canvas.addEventListener("pointerdown", choose);
    canvas.addEventListener("pointerleave", () => { chosen = null; draw(); });
    canvases.push({ canvas, plane, matches });
    return canvas;
  };
  const drop = why.score - why.score_without;
  const told = why.n_left_out === 0
    ? "No patch of one image is nearest to a patch of the other: the score comes from the whole."
    : `Leaving out these ${why.n_left_out} of the hit's ${why.n_patches} patches that show something changes the score from ` +
      `${why.score.toFixed(4)} to ${why.score_without.toFixed(4)} (${drop > 0 ? "-" : "+"}${Math.abs(drop).toFixed(4)}).`;
  const panel = make("div", { class: "why" },
    make("div", { class: "pair" },
      make("div", {}, make("h3", {}, "query"), planes(query, overlay(ofQuery))),
      make("div", {}, make("h3", {}, `hit ${hit.rank}`), planes(hit, overlay(ofHit)))),
    make("p", { class: "num", style: "margin: 10px 0 4px" }, told),
    make("p", { class: "dim small", style: "margin: 0" },
      "The same colour marks patches that are each other's most alike to the encoder; point at one to see its partner. " +
      "Partners may lie on planes that are not shown. " + (why.note ? `Note: ${why.note}.` : "")));
  panel.redraw = draw;
  draw();
  return panel;
}

function openWhy(index) {
  if (state.open.has(index)) state.open.delete(index); else state.open.add(index);
  state.hit = index;
  show();
}

function mark(index) {
  state.hit = index;
  document.querySelectorAll(".hit").forEach((card, i) => card.classList.toggle("current", i === index));
  const why = state.open.has(index) ? "&why" : "";
  history.replaceState(null, "", `#q=${state.query + 1}&hit=${index + 1}${why}`);
}

/** How often searches like this one find what the query shows. */
function banner(query) {
  const found = query.agreement;
  if (!query.hits.length) return null;
  if (!found) {
    return make("p", { class: "dim small" },
      "Agreement: unknown. Too few images of other patients have a known body part.");
  }
  const percent = (share) => `${Math.round(100 * share)} %`;
  const what = found.column.replaceAll("_", " ");
  const text = `In ${percent(found.value)} of such searches (${percent(found.low)} to ${percent(found.high)}, n ${found.n}, ` +
    `${found.searches}) the first hit has the ${what} of its query.`;
  if (found.is_reliable) return make("p", { class: "small" }, text);
  return make("div", { class: "banner", role: "status" },
    make("b", {}, `Not reliable: ${found.searches}`), text);
}

function show() {
  const query = report.queries[state.query];
  const content = document.getElementById("content");
  if (!query) { content.replaceChildren(make("p", {}, "No query could be read.")); return; }
  const cards = query.hits.map((hit, index) => hitCard(query, hit, index));
  content.replaceChildren(...[
    make("section", { class: "card query", "aria-label": "query" },
      make("h2", {}, "Query ", make("span", { class: "path" }, nameOf(query.name, query.part)),
        labelsOf(query.labels) ? make("span", { class: "dim" }, ` \u00b7 ${labelsOf(query.labels)}`) : ""),
      planes(query)),
    banner(query),
    report.has_patches ? null : make("p", { class: "dim small" },
      `The model ${report.model} has no patches: why images match is shown with an encoder only.`),
    query.hits.length ? null : make("p", {}, "Nothing was found."), ...cards].filter(Boolean));
  const select = document.querySelector("#queries select");
  if (select) select.value = String(state.query);
  document.querySelectorAll(".hit").forEach((card, i) => card.classList.toggle("current", i === state.hit));
}

function go(query) {
  state.query = Math.max(0, Math.min(report.queries.length - 1, query));
  state.hit = 0; state.open.clear();
  show(); scrollTo(0, 0); mark(0);
}

function step(by) {
  const cards = document.querySelectorAll(".hit");
  if (!cards.length) return;
  const index = Math.max(0, Math.min(cards.length - 1, state.hit + by));
  mark(index);
  cards[index].focus({ preventScroll: true });
  cards[index].scrollIntoView({ block: "nearest" });
}

function begin() {
  const facts = [`${report.n_items.toLocaleString("en")} images in ${report.archive}`, `model ${report.model}`];
  if (report.filters.length) facts.push(`only ${report.filters.join(", ")}`);
  if (report.excluded.length) facts.push(`without ${report.excluded.join(", ")}`);
  if (report.n_refused) facts.push(`${report.n_refused} images could not be read`);
  facts.push(`m3ret ${report.version}`);
  document.getElementById("about").textContent = facts.join(" \u00b7 ");
  if (report.queries.length > 1) {
    const select = make("select", { "aria-label": "query", onchange: (event) => go(Number(event.target.value)) },
      report.queries.map((query, i) => make("option", { value: String(i) }, `${i + 1}. ${nameOf(query.name, query.part)}`)));
    document.getElementById("queries").append(
      make("button", { onclick: () => go(state.query - 1) }, "Previous"), select,
      make("button", { onclick: () => go(state.query + 1) }, "Next"));
  }
  const place = new URLSearchParams(location.hash.slice(1));
  state.query = Math.max(0, Math.min(report.queries.length - 1, Number(place.get("q") || 1) - 1));
  state.hit = Math.max(0, Number(place.get("hit") || 1) - 1);
  if (place.has("why")) state.open.add(state.hit);
  show();
  if (place.has("hit")) document.querySelectorAll(".hit")[state.hit]?.scrollIntoView();
}

addEventListener("keydown", (event) => {
  const help = document.getElementById("help");
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || event.target.tagName === "SELECT") return;
  const keys = {
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    n: () => go(state.query + 1), p: () => go(state.query - 1), "?": () => help.showModal(),
    o: () => { state.colours = !state.colours; document.querySelectorAll(".why").forEach((panel) => panel.redraw()); },
    Escape: () => { state.open.clear(); show(); },
    Enter: () => { if (event.target.tagName !== "BUTTON") { openWhy(state.hit); step(0); } else return false; },
  };
  if (keys[event.key] && keys[event.key]() !== false) event.preventDefault();
});
begin();
