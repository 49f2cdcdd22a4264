const { headline, meaning, results, tasks, map, pictures } = JSON.parse(document.getElementById("data").textContent);
const rule = (columns) => columns.length ? `same ${columns.join(" or ")}` : "the query itself";
document.getElementById("headline").append(make("p", { class: "headline" }, headline), make("p", { class: "dim small" }, meaning));

/** Whether a fixed ranking, the same for every query, nearly solves a task. */
const isConstant = (task) => task.constant_share !== null && task.constant_share >= 0.8;
const tasksOf = (n) => `${n} task${n === 1 ? "" : "s"}`;

function tables() {
  const names = metricsOf(tasks.map((task) => task.metrics)), choice = metricChoice(names), body = make("tbody");
  function fill() {
    body.replaceChildren();
    const name = choice.value;
    const head = (text) => body.append(make("tr", { class: "group" }, make("td", { colspan: 8 }, text)));
    const line = (one, label, gallery) => {
      const value = one.metrics[name], found = one.resolution[name];
      if (!value) return;
      const resolves = !found ? "n too small" : found.expected !== null ? three(found.expected) : `<=${three(found.at_most)}`;
      const constant = one.constant[name] === undefined ? "none" : three(one.constant[name]);
      body.append(make("tr", {}, make("td", {}, label), make("td", {}, barWithValue(value, one.chance[name])),
        [one.n_queries, one.n_patients, gallery, three(one.chance[name]), constant, resolves].map((cell) => make("td", { class: "n wide" }, cell)),
        make("td", { class: "phone-only dim small" }, `n ${one.n_queries}, patients ${one.n_patients}, chance ${three(one.chance[name])}, constant ${constant}`)));
    };
    const link = (task) => make("a", { href: `#${task.task}` }, task.task);
    let group = "";
    for (const task of tasks.filter((task) => !isConstant(task))) {
      if (task.group !== group) head(group = task.group);
      line(task, link(task), task.n_gallery);
    }
    if (results.groups.length > 0) head("means of groups");
    for (const one of results.groups) line(one, `${one.group} (${tasksOf(one.tasks.length)})`, "all");
    const apart = tasks.filter(isConstant);
    if (apart.length > 0) head("a fixed ranking (constant) reaches 0.8 of the maximum: in no mean");
    for (const task of apart) line(task, link(task), task.n_gallery);
  }
  choice.addEventListener("change", fill);
  fill();
  const titles = ["task", "value and 95 % interval", "n", "patients", "gallery", "chance", "constant", "resolves"];
  card(make("h2", {}, "Tasks"), make("p", {}, "Metric ", choice), barLegend(),
    make("table", { class: "tasks" }, make("thead", {}, make("tr", {}, titles.map((title, i) => make("th", { class: i > 1 ? "n" : null }, title)))), body),
    make("p", { class: "dim small" }, "n: queries. constant: the best fixed ranking, the same for every query; a vote has none. resolves: the difference of two models that can be expected to show, or the most it may have to be. n too small: fewer than five patients, so that there is no interval. map_at_r decides groups."));
}

function mixed() {
  if (results.mixed.length === 0) return;
  const table = make("table", {}, row(["relevance", "n", "right and of another modality", "95 % interval", "chance", "of the query's own modality", "95 % interval", "chance"], true));
  for (const one of results.mixed) {
    const [right, own] = [one.right_of_other_modality_at_5, one.own_modality_at_5];
    table.append(row([one.relevance, one.n_queries, three(right.value), interval(right), three(right.chance), three(own.value), interval(own), three(own.chance)]));
  }
  card(make("h2", {}, "All modalities in one gallery"), make("p", { class: "dim small" },
    "Shares of the first five hits, for queries to which an image of another modality is relevant."), table);
}

function matrix() {
  const columns = [...new Set(tasks.map((task) => task.relevance))].filter((name) => name !== "pair_id");
  for (const column of columns) {
    const cells = new Map(), seen = new Set();
    for (const task of tasks) {
      const isHere = task.relevance === column && ["within", "cross", "cross-unseen", "unseen"].includes(task.group);
      const metric = ["map_at_r", "precision_at_5", "hit_at_1"].find((name) => task.metrics[name]);
      if (!isHere || !metric || !task.query_modality || !task.gallery_modality) continue;
      const key = `${task.query_modality} ${task.gallery_modality}`;
      seen.add(task.query_modality); seen.add(task.gallery_modality);
      const cell = cells.get(key) || { n: 0, value: 0, chance: 0, metric };
      cell.n += task.n_queries; cell.value += task.n_queries * task.metrics[metric].value;
      cell.chance += task.n_queries * task.chance[metric];
      cells.set(key, cell);
    }
    const names = [...seen].sort();
    if (names.length < 2) continue;
    const table = make("table", { class: "matrix" }, row(["query \\ gallery", ...names], true, 9));
    for (const from of names) {
      table.append(make("tr", {}, make("th", {}, from), names.map((to) => {
        const cell = cells.get(`${from} ${to}`);
        if (!cell) return make("td", { class: "dim small" }, "no task");
        const [value, chance] = [cell.value / cell.n, cell.chance / cell.n];
        const made = make("td", { title: `n = ${cell.n}` }, make("div", { class: "value" }, three(value)),
          make("div", { class: "dim small" }, `chance ${three(chance)}`));
        const gain = (value - chance) / Math.max(value > chance ? 1 - chance : chance, 0.01);
        made.style.background = `color-mix(in srgb, var(${gain > 0 ? "--right" : "--wrong"}) ${Math.round(45 * Math.abs(gain))}%, transparent)`;
        return made;
      })));
    }
    const metric = cells.values().next().value.metric;
    card(make("h2", {}, `${metric} of ${column}, by modality`), table,
      make("p", { class: "dim small" }, "Green is above chance, orange below; the diagonal pools 2d, 3d and video by their queries."));
  }
}

function ladder() {
  const metric = ["precision_at_5", "hit_at_1"].find((name) => tasks.some((task) => task.ladder && task.ladder.some((rung) => rung.metrics[name] !== undefined)));
  const some = tasks.filter((task) => task.ladder && task.ladder.length > 1);
  if (!metric || some.length === 0) return;
  const rungs = some[0].ladder.map((rung) => rung.exclude);
  const table = make("table", {}, row(["task", ...rungs.map((rung) => `without ${rule(rung)}`)], true));
  for (const task of some) {
    table.append(row([task.task, ...task.ladder.map((rung) => rung.n_queries === 0 ? "no query left" :
      `${three(rung.metrics[metric])} (chance ${three(rung.chance[metric])}, n ${rung.n_queries})`)]));
  }
  card(make("h2", {}, "How much of a score is identity or source"),
    make("p", { class: "dim small" }, `${metric} under growing exclusions. What falls from one column to the next was the same patient, or the same source.`), table);
}

function privacy() {
  if (results.privacy.length === 0) return;
  const table = make("table", {}, row(["images", "n", "same patient first", "95 % interval", "chance"], true));
  for (const task of results.privacy) {
    const value = task.metrics.hit_at_1;
    if (value) table.append(row([task.task.replace("privacy/", ""), task.n_queries, three(value.value), interval(value), three(task.chance.hit_at_1)]));
  }
  card(make("h2", {}, "Privacy"), make("p", { class: "dim small" },
    "How often the nearest of all other images of a kind is of the same patient. High numbers mean that vectors tell who somebody is."), table);
}

/** A square of shares: what was told of searches across, what was found up; on the dashed line both are equal. */
function diagram(bins) {
  const parsed = make("div");
  parsed.innerHTML = "<svg></svg>";
  const namespace = parsed.firstChild.namespaceURI;
  const side = 300, left = 44, bottom = 40, svg = (tag, attributes, text) => {
    const made = document.createElementNS(namespace, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const x = (share) => left + share * side, y = (share) => 8 + (1 - share) * side;
  const plot = svg("svg", { viewBox: `0 0 ${left + side + 14} ${side + bottom + 8}`, class: "reliability", role: "img",
    "aria-label": "told agreement against the share of first hits that agree" });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    plot.append(svg("line", { x1: x(share), x2: x(share), y1: y(0), y2: y(1), class: "grid" }), svg("line", { x1: x(0), x2: x(1), y1: y(share), y2: y(share), class: "grid" }),
      svg("text", { x: x(share), y: y(0) + 16, "text-anchor": "middle" }, share), svg("text", { x: x(0) - 6, y: y(share) + 4, "text-anchor": "end" }, share));
  }
  plot.append(svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "ideal" }),
    svg("text", { x: x(0.5), y: y(0) + 34, "text-anchor": "middle" }, "told"),
    svg("text", { x: 12, y: y(0.5), "text-anchor": "middle", transform: `rotate(-90 12 ${y(0.5)})` }, "found"));
  const most = Math.max(...bins.map((bin) => bin.n));
  for (const bin of bins.filter((bin) => bin.n > 0)) {
    const dot = svg("circle", { cx: x(bin.told), cy: y(bin.found), r: 3 + 9 * Math.sqrt(bin.n / most) });
    dot.append(svg("title", {}, `${bin.n} searches: told ${three(bin.told)}, found ${three(bin.found)}`));
    plot.append(dot);
  }
  return plot;
}

function reliability() {
  const told = results.reliability;
  if (!told) return;
  const kinds = make("table", {}, row(["query", "among", "n", "told", "found", "calibration error"], true));
  for (const kind of told.kinds) {
    kinds.append(row([kind.query || "not known", kind.hits ?? "all", kind.n, three(kind.told), three(kind.found), three(kind.ece)]));
  }
  card(make("h2", {}, "How well told agreement holds"), make("p", { class: "dim small" },
    `Of ${told.n_searches} searches by images of other patients: the chance that a search tells of its first hit having the query's ${told.column}, and the share that has it. Expected calibration error ${three(told.ece)}.`),
    make("div", { class: "beside" }, diagram(told.bins), make("div", { class: "kinds" }, kinds)),
    make("p", { class: "dim small" }, "The larger a dot, the more searches; below the dashed line, too much is told. Kinds of at least 30 searches."));
}

function hubness() {
  const table = make("table", {}, row(["task", "k", "never found", "of random rankings", "found most often"], true));
  for (const task of tasks) {
    const hub = task.hubness;
    table.append(row([task.task, hub.k, three(hub.never_retrieved), three(hub.never_retrieved_chance), `by ${hub.most_retrieved} of ${task.n_queries}`]));
  }
  card(make("details", {}, make("summary", {}, "Hubness: the share of the gallery that no query finds among its first k"), table));
}

function picture(image, kind, caption) {
  const source = pictures[image.row];
  const inner = source ? make("img", { src: source, alt: image.labels, loading: "lazy" }) : "no picture";
  return make("figure", { class: kind, title: image.path }, make("div", { class: "pic" }, inner),
    make("figcaption", {}, caption, make("div", { class: "dim" }, image.labels)));
}

function details() {
  const section = card(make("h2", {}, "Queries and what they find"), make("p", { class: "dim small" },
    "Green frames are relevant, dashed orange ones are not. Each task shows evenly spaced queries, then its worst."));
  for (const task of tasks) {
    const value = task.metrics.map_at_r || Object.values(task.metrics)[0];
    const made = make("details", { id: task.task }, make("summary", {},
      `${task.task}: ${three(value.value)}, n ${task.n_queries}, without ${rule(task.exclude)}`));
    for (const shown of task.shown) {
      made.append(make("div", { class: "grid" },
        picture(shown.query, "query", `${shown.worst ? "worst query" : "query"}: ${shown.n_relevant} of ${shown.n_candidates} relevant`),
        shown.hits.map((hit, i) => picture(hit, hit.grade > 0 ? "right" : "wrong", `${i + 1}. ${hit.score.toFixed(3)}`))));
    }
    if (task.confusion) {
      const { classes, counts } = task.confusion;
      made.append(make("h3", {}, "Vote of the first 20: rows are the truth"),
        make("table", {}, row(["", ...classes], true), classes.map((name, i) => row([name, ...counts[i]], false))));
    }
    section.append(made);
  }
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", open);
  open();
  if (tasks[0] && !location.hash) document.getElementById(tasks[0].task).open = true;
}

function drawMap() {
  if (!map) return;
  /* Okabe and Ito's colours, which colour-blind people tell apart; further values are grey. */
  const colours = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a800", "#7a5195"];
  const counts = new Map();
  for (const point of map.points) counts.set(point[2], (counts.get(point[2]) || 0) + 1);
  const kinds = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const colour = (kind) => colours[kinds.indexOf(kind)] || "#999";
  const canvas = make("canvas", { width: 1280, height: 1280, role: "img", "aria-label": "map of images" });
  const legend = make("ul", { class: "legend small" }, kinds.map((kind) => {
    const dot = make("span", { class: "dot" }); dot.style.background = colour(kind);
    return make("li", {}, dot, `${kind || "not known"} (${counts.get(kind)})`);
  }));
  const told = make("p", { class: "small dim", role: "status" }, "\u00a0");
  card(make("h2", {}, "Map"), legend, canvas, told, make("p", { class: "dim small" },
    `${map.points.length} of ${map.n_all} images (t-SNE): neighbours are alike to the model; distances between groups mean nothing.`));
  const xs = map.points.map((point) => point[0]), ys = map.points.map((point) => point[1]);
  const range = (all) => all.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
  const [left, right] = range(xs), [top_, bottom] = range(ys), scale = 1220 / Math.max(right - left, bottom - top_, 1e-9);
  const place = (point) => [640 + (point[0] - (left + right) / 2) * scale, 640 + (point[1] - (top_ + bottom) / 2) * scale];
  const context = canvas.getContext("2d");
  context.globalAlpha = 0.75;
  for (const point of map.points) {
    const [x, y] = place(point);
    context.fillStyle = colour(point[2]);
    context.beginPath(); context.arc(x, y, 6, 0, 7); context.fill();
  }
  canvas.addEventListener("mousemove", (event) => {
    const box = canvas.getBoundingClientRect(), zoom = 1280 / box.width;
    const at = [(event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom];
    let best = null, least = 20 ** 2;
    for (const point of map.points) {
      const [x, y] = place(point), far = (x - at[0]) ** 2 + (y - at[1]) ** 2;
      if (far < least) [best, least] = [point, far];
    }
    told.textContent = best ? `${best[2]} ${best[3]}: ${best[4]}` : "\u00a0";
  });
}

function remarks() {
  const items = [...results.notes];
  if (results.n_refused > 0) {
    items.push(`${results.n_refused} images have no vector: ${Object.entries(results.refused).map(([code, n]) => `${code} ${n}`).join(", ")}`);
  }
  const tied = tasks.filter((task) => task.n_tied > 0).map((task) => `${task.task} (${task.n_tied})`);
  if (tied.length > 0) items.push(`a cut goes through equal scores of relevant and other images, so that metrics are means over their orders (queries): ${tied.join(", ")}`);
  if (items.length > 0) card(make("h2", {}, "Worth knowing"), make("ul", {}, items.map((item) => make("li", {}, item))));
  if (results.skipped.length > 0) {
    card(make("details", {}, make("summary", {}, `${results.skipped.length} tasks do not count`),
      make("table", {}, results.skipped.map((skipped) => row([skipped.task, skipped.reason], false, 2)))));
  }
}

const config = results.config;
document.getElementById("about").textContent = `${results.model}${config.precision ? ` (${config.precision})` : ""} on ${config.manifest}, `
  + `${results.n_rows} rows, m3ret ${results.m3ret_version}, seed ${config.seed}, ${config.n_resamples} draws, config ${results.config_hash}`
  + (config.filter.length ? `, only ${config.filter.join(", ")}` : "");
tables(); mixed(); matrix(); ladder(); reliability(); privacy(); remarks(); details(); hubness(); drawMap();
