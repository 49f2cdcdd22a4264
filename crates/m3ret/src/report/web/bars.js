/* Values as bars, shared by the pages of evaluations. */
const three = (x) => x === null || x === undefined ? "-" : x.toFixed(3);
const content = document.getElementById("content");
const card = (...children) => { const made = make("section", { class: "card" }, ...children); content.append(made); return made; };
const row = (cells, head, numbers = 1) => make("tr", {}, cells.map((cell, i) =>
  make(head ? "th" : "td", { class: i >= numbers ? "n" : null }, cell)));
const percent = (x) => `${Math.min(100, Math.max(0, 100 * x))}%`;

/** A value with its interval, and chance as a dashed line. */
function bar(value, chance) {
  const known = chance !== null && chance !== undefined;
  const made = make("span", { class: "bar", role: "img", "aria-label": `${three(value.value)}, chance ${known ? three(chance) : "unknown"}`,
    title: `${three(value.value)}, chance ${known ? three(chance) : "unknown"}` });
  if (value.ci95_low !== null) {
    const range = make("i");
    range.style.left = percent(value.ci95_low); range.style.width = percent(value.ci95_high - value.ci95_low);
    made.append(range);
  }
  if (known) { const line = make("u"); line.style.left = percent(chance); made.append(line); }
  const point = make("b");
  point.style.left = percent(value.value);
  made.append(point);
  return made;
}
/** The interval of a value in words that leave no blank. */
const interval = (value) => value.ci95_low === null ? "n too small" : `[${three(value.ci95_low)}, ${three(value.ci95_high)}]`;

/** A bar with its value and interval beside it. */
function barWithValue(value, chance) {
  if (!value) return make("span", { class: "dim" }, "not measured");
  const tone = value.ci95_low === null || chance === null || chance === undefined ? "" :
    value.ci95_low > chance ? " above" : value.ci95_high < chance ? " below" : "";
  return make("span", { class: "valued" }, bar(value, chance), make("span", { class: `value${tone}` }, three(value.value)),
    make("span", { class: "dim interval", title: value.ci95_low === null ? "no interval: fewer than five patients" : "95 % interval" }, interval(value)));
}
function barLegend() {
  return make("p", { class: "small legend-line" }, bar({ value: 0.62, ci95_low: 0.5, ci95_high: 0.74 }, 0.3),
    " scale 0 to 1: the mark is the value, the band its 95 % interval, the dashed line chance. ",
    make("span", { class: "value above" }, "Green"), " values lie above chance, ", make("span", { class: "value below" }, "orange"), " ones below.");
}
const metricsOf = (all) => [...new Set(all.flatMap((metrics) => Object.keys(metrics || {})))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
const usualMetric = (names) => ["map_at_r", "precision_at_5", "hit_at_1"].find((name) => names.includes(name)) || names[0];
const metricChoice = (names) => {
  const choice = make("select", { "aria-label": "metric" }, names.map((name) => make("option", { value: name }, name)));
  choice.value = usualMetric(names);
  return choice;
};
document.getElementById("theme").append(viewer.themeButton());
