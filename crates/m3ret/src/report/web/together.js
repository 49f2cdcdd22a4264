const page = JSON.parse(document.getElementById("data").textContent);
document.getElementById("about").textContent = `${page.models.length} models on ${page.manifest}, ${(page.n_rows || 0).toLocaleString("en")} rows, m3ret ${page.version}`;
/* Simple models are there to be compared with: they come last. */
const sorted = [...page.models].sort((a, b) => Number(a.is_simple) - Number(b.is_simple));
document.getElementById("headline").append(...sorted.map((model) => make("p", { class: model.is_simple ? "headline simple" : "headline" }, model.headline, " ",
  make("a", { href: model.report }, "Report"), model.n_refused ? make("span", { class: "dim" }, ` ${model.n_refused} images have no vector.`) : "")),
make("p", { class: "dim small" }, page.meaning));

const found = new Map();
for (const comparison of page.differences) for (const one of comparison.rows) found.set(JSON.stringify([comparison.a, comparison.b, one.name, one.metric]), one);
const words = { better: "better", worse: "worse", "not distinguishable": "no difference", "too few patients": "n too small" };
const baselines = [...new Set(page.differences.map((one) => one.a))];

/** What is said of a model against the simpler ones. */
function verdicts(model, line, metric) {
  return baselines.filter((a) => a !== model.name).map((a) => {
    const one = found.get(JSON.stringify([a, model.name, line.about.name, metric]));
    if (!one) return null;
    const range = one.low === null ? "n too small" : `[${three(one.low)}, ${three(one.high)}]`;
    const sign = one.difference > 0 ? "+" : "";
    return make("span", { class: `verdict ${one.verdict.replaceAll(" ", "-")}`, title: `difference to ${a}: ${sign}${three(one.difference)} ${range}` },
      `${a}: ${words[one.verdict] || one.verdict}`);
  }).filter(Boolean);
}

const names = metricsOf(page.lines.flatMap((line) => line.models));
const choice = metricChoice(names), body = make("div", { class: "lines" });
function fill() {
  const metric = choice.value;
  body.replaceChildren();
  let heading = "";
  for (const line of page.lines) {
    if (!line.models.some((model) => model && model[metric])) continue;
    if (line.heading !== heading) body.append(make("h3", {}, heading = line.heading));
    const chance = line.about.chance[metric], constant = line.about.constant[metric];
    const gallery = line.about.gallery === null ? "" : `, gallery ${line.about.gallery}`;
    body.append(make("section", { class: "task" }, make("div", { class: "name" }, line.about.name),
      make("div", { class: "dim small" }, `n ${line.about.n}, patients ${line.about.patients}${gallery}, chance ${three(chance)}, ` +
        `constant ${constant === undefined ? "none for a vote" : three(constant)}`),
      page.models.map((model, i) => make("div", { class: "model" }, make("span", { class: "who" }, model.name),
        barWithValue(line.models[i] && line.models[i][metric], chance), make("span", { class: "verdicts" }, verdicts(model, line, metric))))));
  }
}
choice.addEventListener("change", fill);
fill();
card(make("h2", {}, "Tasks"), make("p", {}, "Metric ", choice), barLegend(),
  baselines.length ? make("p", { class: "small dim" }, `Against ${baselines.join(" and ")}: better and worse mean that the 95 % interval of the paired difference excludes 0; hog is compared by map_at_r only.`) :
    make("p", { class: "small dim" }, "No image of the manifest is here, so that pixels is not evaluated beside and models are not compared with it."), body);
const skipped = Object.entries(page.skipped);
if (skipped.length) card(make("details", {}, make("summary", {}, `${skipped.length} tasks do not count, each with its reason`),
  make("table", {}, skipped.map((cells) => row(cells, false, 2)))));
