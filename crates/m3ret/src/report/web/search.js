const report = JSON.parse(document.getElementById("data").textContent);
const state = { query: 0, hit: 0, made: [] };
viewer.useLevels(report.hu_levels);

const lastOf = (path) => path.split(/[\\/]/).pop() || path;
const pictureOf = (one) => one.picture === null ? { missing: "a vector has no picture" } : report.pictures[one.picture];

const hasSlider = (image) => Boolean(image && image.views && image.views[0].planes.length > 1);

/** Where to begin among the slices of a hit that was found by one of them: a share of the way; null to begin in the middle. */
function levelOf(hit, image) {
  if (!isSlice(hit.view) || !image || !image.has_slices_first) return null;
  const [part, n] = hit.view.slice(6).split("/").map(Number), { planes, n_all } = image.views[0];
  const wanted = (part - 0.5) / n * n_all - 0.5;
  const far = planes.map((plane) => Math.abs(plane - wanted));
  return far.indexOf(Math.min(...far)) / Math.max(1, planes.length - 1);
}

/** Says that a file is gone, and what is shown in its place. */
function noteOf(image) {
  if (!image || !image.missing || !image.views) return null;
  return make("div", { class: "note", title: image.missing }, `The file cannot be read: ${image.missing}. Shown is the small picture of the gallery.`);
}

function hitCard(query, hit, index) {
  const image = pictureOf(hit), seen = viewer.pictures(image, { first: levelOf(hit, image) });
  state.made.push(seen);
  const card = make("section", { class: "hit", tabindex: "0", "aria-label": `hit ${hit.rank}`, onfocus: () => mark(index),
      onclick: (event) => { if (!event.target.closest(".text, .scroll")) enlarge(index); } },
    seen.element,
    make("div", { class: "text" },
      make("div", { class: "head" }, make("span", { class: "rank num" }, `${hit.rank}.`),
        make("span", { class: "score num" }, hit.score.toFixed(4)),
        make("span", { class: hit.relation.startsWith("same") ? "badge strong" : "badge" }, relations[hit.relation])),
      seenFrom(hit),
      make("div", { class: "what" }, labelsOf(hit) || make("span", { class: "dim" }, "no label")),
      make("div", { class: "path", title: nameOf(hit.file, hit.part) }, nameOf(lastOf(hit.file), hit.part)),
      noteOf(image),
      make("div", { class: "acts" },
        make("button", { type: "button", class: "button-small", onclick: () => enlarge(index) }, "Enlarge"),
        hit.why ? make("button", { type: "button", class: "button-small", onclick: () => enlarge(index, true) }, "Why") : null,
        viewer.copyButton(hit.file, "Copy path")),
      make("details", {}, make("summary", {}, "Details"), detailsTable(hit, image))));
  return card;
}

function detailsTable(hit, image) {
  const file = nameOf(hit.file, hit.part);
  const rows = [["file", file], ["id", hit.id], ...(image && image.facts ? [["size", image.facts]] : []), ...hit.columns]
    /* A path that is said already is not said again. */
    .filter(([name, value]) => !(name === "id" && value === file) && !(name === "path" && [hit.id, file].includes(value)));
  return make("table", {}, rows.map(([name, value]) => make("tr", {}, make("td", {}, name), make("td", {}, value))));
}

/** A colour for each patch of the query, by where it lies: neighbours look alike. */
function colourOf(grid, patch) {
  const [, rows, columns] = grid, cell = patch % (rows * columns);
  const x = (cell % columns + 0.5) / columns, y = (Math.floor(cell / columns) + 0.5) / rows;
  const angle = Math.atan2(y - 0.5, x - 0.5) * 180 / Math.PI, far = Math.min(1, 2 * Math.hypot(x - 0.5, y - 0.5));
  return `hsl(${Math.round(angle + 180)} ${Math.round(60 + 40 * far)}% ${Math.round(66 - 10 * far)}%)`;
}

/** Draws the matching patches of one side; `side` is 0 for the query and 1 for the hit. */
function overlayOf(query, hit, side) {
  const matches = new Map(hit.why.matches.map((match) => [match[side], match]));
  const grid = pictureOf(query).patches.grid;
  return (canvas, image, index, frame) => {
    const view = image.views[index], { grid: [nz, ny, nx], area: [top, left, height, width], is_sliced } = image.patches;
    const scale = Math.max(1, Math.round(640 / Math.max(...view.size)));
    canvas.width = view.size[1] * scale; canvas.height = view.size[0] * scale;
    const n = view.planes.length, context = canvas.getContext("2d");
    if (is_sliced && (index > 0 || frame !== Math.floor(n / 2))) return;
    const z = Math.min(nz - 1, Math.floor((view.planes[frame] + 0.5) / view.n_all * nz));
    const isUp = view.name === "coronal" || view.name === "sagittal";
    const middle = (n_) => Math.min(n_ - 1, Math.floor(n_ / 2));
    /* Rows and columns of patches on this plane: where they begin, how many there are, and which patch it is. */
    const planes = [
      [ny, nx, top, height, left, width, (r, c) => (z * ny + r) * nx + c],
      [nz, nx, 0, 1, left, width, (r, c) => ((isUp ? nz - 1 - r : r) * ny + middle(ny)) * nx + c],
      [nz, ny, 0, 1, top, height, (r, c) => ((isUp ? nz - 1 - r : r) * ny + c) * nx + middle(nx)],
    ];
    const [rows, columns, y0, h, x0, w, patchAt] = planes[index];
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      const match = matches.get(patchAt(r, c));
      if (!match) continue;
      const [x, y] = [(c / columns - x0) / w * canvas.width, (r / rows - y0) / h * canvas.height];
      const [dx, dy] = [canvas.width / columns / w, canvas.height / rows / h];
      context.fillStyle = context.strokeStyle = colourOf(grid, match[0]);
      context.globalAlpha = 0.12 + 0.3 * clamp(match[2], 0, 1);
      context.fillRect(x, y, dx, dy);
      context.globalAlpha = 0.9; context.lineWidth = 2;
      context.strokeRect(x + 1, y + 1, dx - 2, dy - 2);
    }
  };
}

function whyText(hit) {
  const why = hit.why, drop = why.score - why.score_without;
  return `Patches of one colour are each other's most alike to the encoder. Without these ${why.n_left_out} of the hit's ${why.n_patches} ` +
    `patches the score is ${why.score_without.toFixed(4)} instead of ${why.score.toFixed(4)} (${drop > 0 ? "-" : "+"}${Math.abs(drop).toFixed(4)}). ` +
    `Partners may lie on planes that are not shown.${why.note ? ` Note: ${why.note}.` : ""}`;
}

const box = viewer.lightbox({
  at(index) {
    const query = report.queries[state.query], hit = query && query.hits[index];
    if (!hit) return null;
    const image = pictureOf(hit), own = query.picture === null ? null : pictureOf(query);
    return {
      image, other: own, first: levelOf(hit, image),
      title: [make("b", {}, `${hit.rank}. ${labelsOf(hit) || "no label"}`), make("br"),
        `score ${hit.score.toFixed(4)}, ${relations[hit.relation]} \u00b7 ${nameOf(lastOf(hit.file), hit.part)}${image.facts ? ` \u00b7 ${image.facts}` : ""}`],
      otherTitle: [make("b", {}, `Query: ${labelsOf(query.labels) || "no label"}`), make("br"),
        `${nameOf(lastOf(query.name), query.part)}${own && own.facts ? ` \u00b7 ${own.facts}` : ""}`],
      place: `hit ${index + 1} of ${query.hits.length}`,
      overlays: hit.why && own && own.patches && image.patches ? [overlayOf(query, hit, 0), overlayOf(query, hit, 1)] : null,
      told: hit.why ? whyText(hit) : null,
    };
  },
  onmove: (index) => { mark(index); document.querySelectorAll(".hit")[index]?.scrollIntoView({ block: "nearest" }); },
});
const enlarge = (index, withMarks = false) => { mark(index); box.open(index, withMarks); };

function mark(index) {
  state.hit = index;
  document.querySelectorAll(".hit").forEach((card, i) => card.classList.toggle("current", i === index));
  try { history.replaceState(null, "", `#q=${state.query + 1}&hit=${index + 1}`); } catch { /* A page in a frame may have no history. */ }
}

function queryPanel(query) {
  const image = pictureOf(query), seen = viewer.pictures(image);
  state.made.push(seen);
  const hasHu = [image, ...query.hits.map(pictureOf)].some((one) => one && one.is_hu);
  return [
    make("h2", {}, "Query ", make("span", { class: "dim" }, labelsOf(query.labels) || "no label"), make("br"),
      make("span", { class: "path", title: nameOf(query.name, query.part) }, nameOf(lastOf(query.name), query.part))),
    make("div", { class: "seen open", onclick: (event) => { if (!event.target.closest(".scroll")) box.open(state.hit); } }, seen.element),
    image.facts ? make("p", { class: "dim small facts" }, image.facts) : null,
    noteOf(image),
    make("div", { class: "tools" }, hasHu ? viewer.windowButtons() : null,
      query.hits.length ? make("button", { type: "button", class: "button-small enlarge", onclick: () => box.open(state.hit) }, "Compare with the hit") : null),
  ].filter(Boolean);
}

function show() {
  const query = report.queries[state.query], content = document.getElementById("content");
  for (const one of state.made) if (one.forget) one.forget();
  state.made = [];
  if (!query) {
    document.getElementById("query").hidden = true;
    content.replaceChildren(make("p", {}, "No query could be read."));
    return;
  }
  document.getElementById("query").replaceChildren(...queryPanel(query));
  content.replaceChildren(...[
    query.hits.length ? agreementOf(query.agreement) : null,
    query.hits.length ? null : make("p", {}, "Nothing was found."),
    make("div", { class: query.hits.some((hit) => hasSlider(pictureOf(hit))) ? "grid level" : "grid" }, query.hits.map((hit, index) => hitCard(query, hit, index)))].filter(Boolean));
  const select = document.querySelector("#queries select");
  if (select) select.value = String(state.query);
  document.querySelectorAll(".hit").forEach((card, i) => card.classList.toggle("current", i === state.hit));
}

function go(query) {
  state.query = clamp(query, 0, report.queries.length - 1);
  state.hit = 0;
  show(); scrollTo(0, 0); mark(0);
}

function begin() {
  document.getElementById("theme").append(viewer.themeButton());
  const facts = [`${report.n_items.toLocaleString("en")} images in ${report.archive}`, `model ${report.model}`];
  if (report.filters.length) facts.push(`only ${report.filters.join(", ")}`);
  if (report.excluded.length) facts.push(`without ${report.excluded.join(", ")}`);
  if (report.n_refused) facts.push(`${report.n_refused} images could not be read`);
  facts.push(`m3ret ${report.version}`);
  document.getElementById("about").textContent = facts.join(" \u00b7 ");
  if (report.queries.length > 1) {
    const select = make("select", { "aria-label": "query", onchange: (event) => go(Number(event.target.value)) },
      report.queries.map((query, i) => make("option", { value: String(i) }, `${i + 1}. ${nameOf(lastOf(query.name), query.part)}`)));
    document.getElementById("queries").append(
      make("button", { type: "button", onclick: () => go(state.query - 1) }, "Previous"), select,
      make("button", { type: "button", onclick: () => go(state.query + 1) }, "Next"));
  }
  const place = new URLSearchParams(location.hash.slice(1));
  state.query = clamp(Number(place.get("q") || 1) - 1, 0, Math.max(0, report.queries.length - 1));
  state.hit = Math.max(0, Number(place.get("hit") || 1) - 1);
  show();
  if (place.has("hit")) document.querySelectorAll(".hit")[state.hit]?.scrollIntoView({ block: "nearest" });
}

addEventListener("keydown", (event) => {
  const help = document.getElementById("help");
  const isTyping = ["SELECT", "INPUT", "TEXTAREA"].includes(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || box.isOpen || isTyping) return;
  const keys = {
    j: () => step(1), k: () => step(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
    ArrowDown: () => step(1, true), ArrowUp: () => step(-1, true),
    n: () => go(state.query + 1), p: () => go(state.query - 1), "?": () => help.showModal(),
    Enter: () => { if (["BUTTON", "SUMMARY"].includes(event.target.tagName)) return false; enlarge(state.hit); },
  };
  for (const i of [1, 2, 3, 4]) keys[String(i)] = () => viewer.choose(i - 1);
  if (keys[event.key] && keys[event.key]() !== false) event.preventDefault();
});
begin();
