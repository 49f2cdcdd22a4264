/* What pages say of an answer and its hits: shared by the report of a search and the page of the server. */

const labelsOf = (labels) => [labels.modality, labels.body_part, labels.finding, labels.label].filter(Boolean).join(" \u00b7 ");
const nameOf = (name, part) => part ? `${name} [${part}]` : name;
const relations = { same_image: "same image", same_series: "same series", same_study: "same study",
  same_patient: "same patient", other_patient: "other patient", unknown: "patient unknown" };
const isSlice = (view) => Boolean(view && view.startsWith("slice "));

/** Says which projections or slices are alike, where these are not the whole images. */
function seenFrom(hit) {
  if (!hit.view && !hit.query_view) return null;
  const seen = isSlice(hit.view) ? `at ${hit.view}` : `seen from the ${hit.view}`;
  const parts = [hit.query_view && `query from the ${hit.query_view}`, hit.view && seen];
  return make("div", { class: "small dim" }, parts.filter(Boolean).join(", "));
}

/** How often searches like this one find what the query shows, and what limits that. */
function agreementOf(found) {
  if (!found) {
    return make("p", { class: "dim small" },
      "Agreement: unknown. Neither the archive nor the model was measured in searches like this one.");
  }
  const percent = (share) => `${Math.round(100 * share)} %`;
  const what = found.column.replaceAll("_", " ");
  const text = `In ${percent(found.value)} of such searches (${percent(found.low)} to ${percent(found.high)}, n ${found.n}, ` +
    `${found.searches}${found.measured_on === "model" ? ", on images kept apart for the model" : ""}) the first hit has the ${what} of its query.`;
  if (found.is_reliable) return make("p", { class: "small" }, text);
  return make("div", { class: "banner", role: "status" },
    make("b", {}, `Not reliable: ${found.searches}`), text);
}

/** Goes from hit to hit; up and down go a row of the grid. */
function step(by, isRow = false) {
  const cards = [...document.querySelectorAll(".hit")];
  if (!cards.length) return;
  const first = cards[0].offsetTop, n = isRow ? Math.max(1, cards.filter((card) => card.offsetTop === first).length) : 1;
  const index = clamp(state.hit + by * n, 0, cards.length - 1);
  mark(index);
  cards[index].focus({ preventScroll: true });
  cards[index].scrollIntoView({ block: "nearest" });
}
