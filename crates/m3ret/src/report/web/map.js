const map = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId("plot"), context = canvas.getContext("2d");
const n = map.names.length, xs = new Float32Array(n), ys = new Float32Array(n);
for (let i = 0; i < n; i++) { xs[i] = map.places[2 * i]; ys[i] = map.places[2 * i + 1]; }
/* Fourteen colours apart in hue and lightness, the first eight after Okabe and Ito; all are seen on white and on black. */
const colours = ["#2f8fd3", "#e69f00", "#00a878", "#dd5a1e", "#cc79a7", "#7b6fe0", "#a8a000", "#56c5e9", "#b5485d", "#6a9a3b",
  "#9a6a3c", "#e58fce", "#4f7d8c", "#f0715f"];
const grey = "#8d9096";
const state = { column: null, hidden: new Set(), view: { x: 0, y: 0, zoom: 1 }, hover: -1, pinned: -1, chosen: new Set(), lasso: null };
const colourOf = new Array(n), classOf = new Int16Array(n);
let width = 0, height = 0, ratio = 1, reach = 18;

/* Where everything lies, and a grid of cells that finds what is near the pointer. */
const range = (all) => all.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
const [left, right] = range(xs), [top_, bottom] = range(ys);
const span = Math.max(right - left, bottom - top_, 1e-9), side = Math.max(1, Math.ceil(Math.sqrt(n / 4)));
const cells = Array.from({ length: side * side }, () => []);
const cellOf = (x, y) => [clamp(Math.floor((x - left) / span * side), 0, side - 1), clamp(Math.floor((y - top_) / span * side), 0, side - 1)];
for (let i = 0; i < n; i++) { const [cx, cy] = cellOf(xs[i], ys[i]); cells[cy * side + cx].push(i); }

const scale = () => 0.92 * Math.min(width / Math.max(right - left, 1e-9), height / Math.max(bottom - top_, 1e-9)) * state.view.zoom;
const screenX = (x, s) => width / 2 + (x - (left + right) / 2) * s + state.view.x;
const screenY = (y, s) => height / 2 + (y - (top_ + bottom) / 2) * s + state.view.y;
const mapX = (x, s) => (x - width / 2 - state.view.x) / s + (left + right) / 2;
const mapY = (y, s) => (y - height / 2 - state.view.y) / s + (top_ + bottom) / 2;
const isHidden = (i) => state.hidden.has(classOf[i]);

/** All points in a rectangle of the screen. */
function inside(x0, y0, x1, y1) {
  const s = scale(), [c0, r0] = cellOf(mapX(x0, s), mapY(y0, s)), [c1, r1] = cellOf(mapX(x1, s), mapY(y1, s)), found = [];
  for (let r = r0; r <= r1; r++) for (let c = c0; c <= c1; c++) for (const i of cells[r * side + c]) {
    const x = screenX(xs[i], s), y = screenY(ys[i], s);
    if (x >= x0 && x <= x1 && y >= y0 && y <= y1 && !isHidden(i)) found.push(i);
  }
  return found;
}
function nearest(x, y, reach) {
  const s = scale();
  let best = -1, least = reach * reach;
  for (const i of inside(x - reach, y - reach, x + reach, y + reach)) {
    const far = (screenX(xs[i], s) - x) ** 2 + (screenY(ys[i], s) - y) ** 2;
    if (far < least) [best, least] = [i, far];
  }
  return best;
}

/* Small pictures: sheets are decoded once. */
const sheets = map.tiles.sheets.map((src) => { const image = new Image(); image.src = src; image.addEventListener("load", () => redraw()); return image; });
const nTiles = map.tiles.of.filter((place) => place >= 0).length;
function tile(to, i, x, y, size) {
  const place = map.tiles.of[i];
  if (place < 0) return false;
  const sheet = sheets[Math.floor(place / map.tiles.n_sheet)], at = place % map.tiles.n_sheet, px = map.tiles.side;
  if (!sheet.complete) return false;
  to.drawImage(sheet, at % map.tiles.columns * px, Math.floor(at / map.tiles.columns) * px, px, px, x, y, size, size);
  return true;
}
function tileCanvas(i) {
  const made = make("canvas", { width: map.tiles.side, height: map.tiles.side, role: "img", "aria-label": map.labels[i] || map.names[i] });
  const to = made.getContext("2d");
  if (!tile(to, i, 0, 0, map.tiles.side)) {
    to.fillStyle = colourOf[i]; to.beginPath();
    to.arc(map.tiles.side / 2, map.tiles.side / 2, map.tiles.side / 5, 0, 7); to.fill();
  }
  return made;
}

/* Colours. */
const rampStops = [[68, 76, 190], [40, 150, 200], [60, 180, 120], [190, 190, 40], [240, 110, 60]];
function ramp(share) {
  const at = clamp(share, 0, 1) * (rampStops.length - 1), k = Math.min(rampStops.length - 2, Math.floor(at)), part = at - k;
  return `rgb(${rampStops[k].map((x, i) => Math.round(x + (rampStops[k + 1][i] - x) * part)).join(",")})`;
}
const nBands = 16;
function colourBy(name) {
  const column = map.columns.find((one) => one.name === name) || map.columns[0];
  state.column = column;
  state.hidden.clear();
  const legend = byId("legend");
  byId("legend-title").textContent = column ? column.name : "Legend";
  if (!column) { colourOf.fill(colours[0]); legend.replaceChildren(make("p", { class: "dim small" }, "No column has more than one value.")); redraw(); return; }
  if (column.kind === "numbers") {
    const known = column.cells.filter((x) => x !== null), [low, high] = range(known);
    column.cells.forEach((x, i) => {
      const band = x === null ? nBands : Math.min(nBands - 1, Math.floor((x - low) / Math.max(high - low, 1e-12) * nBands));
      classOf[i] = band;
      colourOf[i] = x === null ? grey : ramp((band + 0.5) / nBands);
    });
    const bar = make("div", { class: "ramp" });
    bar.style.background = `linear-gradient(90deg, ${Array.from({ length: 9 }, (_, i) => ramp(i / 8)).join(",")})`;
    legend.replaceChildren(bar, make("div", { class: "ends" }, make("span", {}, String(low)), make("span", {}, String(high))),
      ...(known.length < n ? [entry(nBands, "not known", grey, n - known.length)] : []));
    redraw();
    return;
  }
  const counts = new Map();
  column.cells.forEach((place) => counts.set(place, (counts.get(place) || 0) + 1));
  /* A cell without a value is grey and takes no colour. */
  let next = 0;
  const own = new Map();
  column.values.forEach((value, place) => own.set(place, value === "" ? grey : colours[next++] || grey));
  column.cells.forEach((place, i) => { classOf[i] = place; colourOf[i] = own.get(place) || grey; });
  const entries = column.values.map((value, place) => entry(place, value || "not known", own.get(place), counts.get(place) || 0));
  const rest = counts.get(column.values.length);
  if (rest) entries.push(entry(column.values.length, `other (${column.n_distinct - column.values.length} values)`, grey, rest));
  const note = next > colours.length ? [make("p", { class: "dim small" }, `Only the first ${colours.length} values have a colour of their own.`)] : [];
  legend.replaceChildren(...entries, ...note, make("p", { class: "dim small" }, "Click a value to show it alone, Shift-click to hide it."));
  redraw();
}
function entry(place, text, colour, count) {
  const dot = make("span", { class: "dot" });
  dot.style.background = colour;
  const button = make("button", { type: "button", "aria-pressed": "true", title: text }, dot, make("span", { class: "word" }, text),
    make("span", { class: "n" }, count.toLocaleString("en")));
  button.place = place;
  button.addEventListener("click", (event) => {
    const all = [...byId("legend").querySelectorAll("button")].map((one) => one.place);
    const isAlone = !state.hidden.has(place) && state.hidden.size === all.length - 1;
    if (event.shiftKey) { if (!state.hidden.delete(place)) state.hidden.add(place); }
    else state.hidden = new Set(isAlone ? [] : all.filter((other) => other !== place));
    for (const one of byId("legend").querySelectorAll("button")) one.setAttribute("aria-pressed", String(!state.hidden.has(one.place)));
    redraw();
  });
  return button;
}

/* Drawing: many points as pixels, few as discs, and pictures where there is room. */
const rgbOf = new Map();
function rgb(colour) {
  if (!rgbOf.has(colour)) {
    const probe = make("canvas", { width: 1, height: 1 }).getContext("2d");
    probe.fillStyle = colour; probe.fillRect(0, 0, 1, 1);
    const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
    rgbOf.set(colour, (255 << 24 | b << 16 | g << 8 | r) >>> 0);
  }
  return rgbOf.get(colour);
}
function dots(visible, s, radius) {
  if (visible.length > 6000) {
    const w = canvas.width, h = canvas.height, image = context.createImageData(w, h), pixels = new Uint32Array(image.data.buffer);
    const r = Math.max(1, Math.round(radius * ratio)), offsets = [];
    for (let dy = -r; dy <= r; dy++) for (let dx = -r; dx <= r; dx++) if (dx * dx + dy * dy <= r * r + 1) offsets.push([dx, dy]);
    for (const i of visible) {
      const x = Math.round(screenX(xs[i], s) * ratio), y = Math.round(screenY(ys[i], s) * ratio), colour = rgb(colourOf[i]);
      for (const [dx, dy] of offsets) {
        const px = x + dx, py = y + dy;
        if (px >= 0 && px < w && py >= 0 && py < h) pixels[py * w + px] = colour;
      }
    }
    context.putImageData(image, 0, 0);
    return;
  }
  const batches = new Map();
  for (const i of visible) { if (!batches.has(colourOf[i])) batches.set(colourOf[i], []); batches.get(colourOf[i]).push(i); }
  context.globalAlpha = 0.85;
  for (const [colour, all] of batches) {
    context.fillStyle = colour;
    context.beginPath();
    for (const i of all) { const x = screenX(xs[i], s), y = screenY(ys[i], s); context.moveTo(x + radius, y); context.arc(x, y, radius, 0, 7); }
    context.fill();
  }
  context.globalAlpha = 1;
}
function framed(i, s, size, weight) {
  const x = screenX(xs[i], s) - size / 2, y = screenY(ys[i], s) - size / 2;
  if (!tile(context, i, x, y, size)) return false;
  context.lineWidth = weight; context.strokeStyle = colourOf[i];
  context.strokeRect(x, y, size, size);
  return true;
}
function ring(i, s, radius, colour, weight = 2.5) {
  context.lineWidth = weight; context.strokeStyle = colour;
  context.beginPath(); context.arc(screenX(xs[i], s), screenY(ys[i], s), radius, 0, 7); context.stroke();
}
let isWaiting = false;
function redraw() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => { isWaiting = false; drawNow(); });
}
function drawNow() {
  ratio = Math.min(2, devicePixelRatio || 1);
  width = canvas.clientWidth; height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const s = scale(), visible = inside(-60, -60, width + 60, height + 60);
  const radius = clamp(90 / Math.sqrt(n), 1.4, 5) * Math.min(2.2, Math.sqrt(state.view.zoom));
  const size = clamp(0.62 * Math.sqrt(width * height / Math.max(1, visible.length)), 0, 110);
  const hasTiles = byId("images").checked && size >= 22 && visible.length <= 1500;
  reach = hasTiles ? Math.max(18, 0.7 * size) : 18;
  if (hasTiles) { const bare = visible.filter((i) => !framed(i, s, size, 2)); dots(bare, s, radius); } else dots(visible, s, radius);
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  if (state.chosen.size) for (const i of visible) if (state.chosen.has(i)) ring(i, s, hasTiles ? size * 0.6 : radius + 1.5, ink, 1.2);
  if (state.pinned >= 0) {
    context.strokeStyle = ink; context.lineWidth = 1; context.globalAlpha = 0.6;
    for (const i of map.near[state.pinned]) {
      context.beginPath(); context.moveTo(screenX(xs[state.pinned], s), screenY(ys[state.pinned], s));
      context.lineTo(screenX(xs[i], s), screenY(ys[i], s)); context.stroke();
    }
    context.globalAlpha = 1;
    for (const i of map.near[state.pinned]) { if (!framed(i, s, Math.max(28, hasTiles ? size : 0), 2)) ring(i, s, radius + 3, ink); }
    if (!framed(state.pinned, s, Math.max(48, hasTiles ? size : 0), 4)) ring(state.pinned, s, radius + 6, ink);
  }
  if (state.hover >= 0) ring(state.hover, s, hasTiles ? size * 0.6 : radius + 3, ink);
  if (state.lasso) {
    context.strokeStyle = ink; context.lineWidth = 1.5; context.setLineDash([5, 4]);
    context.beginPath(); state.lasso.forEach(([x, y], i) => i ? context.lineTo(x, y) : context.moveTo(x, y)); context.closePath(); context.stroke();
    context.setLineDash([]);
  }
  byId("seen").textContent = visible.length === n ? "" : `${visible.length.toLocaleString("en")} in view`;
}

/* What is said of points. */
function told(i) {
  const column = state.column, parts = [make("b", {}, map.labels[i] || "no label"), make("br"), make("span", { class: "path" }, map.names[i])];
  if (column) {
    const cell = column.kind === "numbers" ? column.cells[i] : column.values[column.cells[i]];
    if (cell !== null && cell !== undefined && cell !== "") parts.push(make("br"), `${column.name}: ${cell}`);
  }
  return parts;
}
function hover(i, x, y) {
  if (i === state.hover) { if (i >= 0) place_(x, y); return; }
  state.hover = i;
  const box = byId("hover");
  box.hidden = i < 0;
  if (i >= 0) {
    const picture = tileCanvas(i), shown = Math.min(176, map.tiles.side * 2);
    picture.style.width = picture.style.height = `${shown}px`;
    box.replaceChildren(picture, ...told(i));
    place_(x, y);
  }
  redraw();
}
function place_(x, y) {
  const box = byId("hover");
  box.style.left = `${clamp(x + 18 + box.offsetWidth > width ? x - box.offsetWidth - 18 : x + 18, 0, Math.max(0, width - box.offsetWidth))}px`;
  box.style.top = `${clamp(y - 20, 0, Math.max(0, height - box.offsetHeight))}px`;
}
const smallTile = (i, text) => make("button", { type: "button", class: "tile", title: `${map.labels[i]}\n${map.names[i]}`, onclick: () => pin(i, true) },
  tileCanvas(i), make("span", {}, text));
function pin(i, isCentred = false) {
  state.pinned = i;
  const box = byId("pinned");
  box.hidden = i < 0;
  if (i >= 0) {
    box.replaceChildren(make("h2", {}, "Image"), make("div", { class: "one" }, tileCanvas(i), make("div", {}, told(i))),
      make("div", { class: "acts" }, viewer.copyButton(map.names[i], "Copy path"), viewer.copyButton(map.ids[i], "Copy id"),
        make("button", { type: "button", class: "button-small", onclick: () => pin(-1) }, "Close")),
      make("h2", {}, "Nearest in the full space"),
      make("div", { class: "tiles" }, map.near[i].map((other, k) => smallTile(other, `${k + 1}. ${map.labels[other] || map.names[other]}`))));
    if (isCentred) {
      const s = scale(), x = screenX(xs[i], s), y = screenY(ys[i], s);
      if (x < 0 || y < 0 || x > width || y > height) { state.view.x += width / 2 - x; state.view.y += height / 2 - y; }
    }
  }
  redraw();
}
const csvCell = (text) => {
  /* A cell that begins like a formula is text to a spreadsheet. */
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
function choose(all) {
  state.chosen = new Set(all);
  const box = byId("chosen"), list = [...state.chosen];
  box.hidden = list.length === 0;
  const csv = () => `id,path,label\r\n${list.map((i) => [map.ids[i], map.names[i], map.labels[i]].map(csvCell).join(",")).join("\r\n")}\r\n`;
  const save = () => {
    const link = make("a", { download: "m3ret-selection.csv", href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  box.replaceChildren(make("h2", {}, `${list.length.toLocaleString("en")} selected`),
    make("div", { class: "acts" }, viewer.copyButton(() => list.map((i) => map.ids[i]).join("\n"), "Copy ids"),
      make("button", { type: "button", class: "button-small", onclick: save }, "Download CSV"),
      make("button", { type: "button", class: "button-small", onclick: () => choose([]) }, "Clear")),
    make("div", { class: "tiles" }, list.slice(0, 60).map((i) => smallTile(i, map.labels[i] || map.names[i]))),
    list.length > 60 ? make("p", { class: "dim small" }, `and ${(list.length - 60).toLocaleString("en")} more, all in the CSV`) : "");
  redraw();
}
function isWithin(loop, x, y) {
  let isIn = false;
  for (let i = 0, j = loop.length - 1; i < loop.length; j = i++) {
    const [xi, yi] = loop[i], [xj, yj] = loop[j];
    if ((yi > y) !== (yj > y) && x < (xj - xi) * (y - yi) / (yj - yi) + xi) isIn = !isIn;
  }
  return isIn;
}

/* Pointers. */
const pointers = new Map();
let began = null, pinch = null;
const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
function zoom(factor, x = width / 2, y = height / 2) {
  const to = clamp(state.view.zoom * factor, 0.5, 400), by = to / state.view.zoom;
  const dx = x - width / 2, dy = y - height / 2;
  state.view = { x: dx - (dx - state.view.x) * by, y: dy - (dy - state.view.y) * by, zoom: to };
  redraw();
}
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  const place = at(event);
  pointers.set(event.pointerId, place);
  if (pointers.size === 2) {
    const [a, b] = [...pointers.values()];
    pinch = Math.hypot(a[0] - b[0], a[1] - b[1]); began = null; state.lasso = null;
    return;
  }
  if (event.shiftKey || byId("lasso").getAttribute("aria-pressed") === "true") state.lasso = [place];
  began = { place, view: { ...state.view }, hasMoved: false };
});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = at(event);
  if (pointers.has(event.pointerId)) pointers.set(event.pointerId, [x, y]);
  if (pinch && pointers.size === 2) {
    const [a, b] = [...pointers.values()], far = Math.hypot(a[0] - b[0], a[1] - b[1]);
    zoom(far / pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    pinch = far;
    return;
  }
  if (began) {
    const [dx, dy] = [x - began.place[0], y - began.place[1]];
    if (Math.hypot(dx, dy) > 4) began.hasMoved = true;
    if (state.lasso) state.lasso.push([x, y]);
    else if (began.hasMoved) { state.view.x = began.view.x + dx; state.view.y = began.view.y + dy; }
    redraw();
    if (began.hasMoved) { hover(-1, x, y); return; }
  }
  hover(nearest(x, y, reach), x, y);
});
canvas.addEventListener("pointerup", (event) => {
  pointers.delete(event.pointerId);
  if (pointers.size < 2) pinch = null;
  const [x, y] = at(event);
  if (state.lasso && state.lasso.length > 3) {
    const s = scale(), loop = state.lasso, all = inside(0, 0, width, height).filter((i) => isWithin(loop, screenX(xs[i], s), screenY(ys[i], s)));
    choose(all);
  } else if (began && !began.hasMoved) pin(nearest(x, y, reach + 4));
  state.lasso = null; began = null;
  redraw();
});
canvas.addEventListener("pointercancel", (event) => { pointers.delete(event.pointerId); began = null; pinch = null; state.lasso = null; redraw(); });
canvas.addEventListener("pointerleave", () => hover(-1, 0, 0));
canvas.addEventListener("wheel", (event) => { event.preventDefault(); const [x, y] = at(event); zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, x, y); }, { passive: false });
const whole = () => { state.view = { x: 0, y: 0, zoom: 1 }; redraw(); };
canvas.addEventListener("dblclick", whole);
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const move = (dx, dy) => { state.view.x += dx; state.view.y += dy; redraw(); };
  const keys = { ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
    "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), "0": whole,
    Enter: () => pin(nearest(width / 2, height / 2, Math.max(width, height))), Escape: () => { pin(-1); choose([]); } };
  if (keys[event.key]) { keys[event.key](); event.preventDefault(); }
});

const by = byId("by");
by.append(...map.columns.map((column) => make("option", { value: column.name }, column.name)));
if (map.columns.some((column) => column.name === map.color)) by.value = map.color;
by.disabled = map.columns.length === 0;
by.addEventListener("change", () => colourBy(by.value));
byId("lasso").addEventListener("click", (event) => {
  const isOn = event.currentTarget.getAttribute("aria-pressed") !== "true";
  event.currentTarget.setAttribute("aria-pressed", String(isOn));
  canvas.classList.toggle("lasso", isOn);
});
byId("in").addEventListener("click", () => zoom(1.4));
byId("out").addEventListener("click", () => zoom(1 / 1.4));
byId("whole").addEventListener("click", whole);
byId("images").addEventListener("change", redraw);
if (nTiles === 0) byId("images").closest("label").hidden = true;
byId("theme").append(viewer.themeButton());
byId("theme").addEventListener("theme", redraw);
const facts = [`${n.toLocaleString("en")} images in ${map.archive}`, `model ${map.model}`];
if (map.n_all > n) facts[0] = `${n.toLocaleString("en")} of ${map.n_all.toLocaleString("en")} images in ${map.archive}, evenly spaced by id`;
if (nTiles < n) facts.push(`${nTiles.toLocaleString("en")} have a picture`);
byId("about").textContent = facts.join(" \u00b7 ");
addEventListener("resize", redraw);
new ResizeObserver(redraw).observe(canvas);
width = canvas.clientWidth; height = canvas.clientHeight;
colourBy(by.value || map.color);
