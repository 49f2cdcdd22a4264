const state = { indexes: [], query: null, answer: null, hit: 0, before: [], run: 0, view: "hits", like: [], unlike: [], open: null };
const at = (id) => document.getElementById(id);
const imagesOf = (n) => `${n} ${n === 1 ? "image" : "images"}`;
const isUpload = (name) => name.startsWith("tmp-");
/** The address of what the server has of an image. */
const objectAt = (name, what, index = at("index").value) =>
  `/v1/objects/${encodeURIComponent(name)}/${what}${isUpload(name) ? "" : `?index=${encodeURIComponent(index)}`}`;
/** The images on the page that can be opened. */
const shownCards = () => state.view === "basket" ? basket.items : state.answer ? state.answer.hits : [];

/** Asks the server; a refusal becomes an error with its own words. */
async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { "X-M3RET": "1", ...(options.headers || {}) } });
  if (response.ok) return response.status === 204 ? null : response.json();
  let told = null;
  try { told = await response.json(); } catch { /* An answer that is no JSON has a status at least. */ }
  const error = new Error(told && told.detail ? told.detail : `the server answered ${response.status}`);
  error.status = response.status;
  throw error;
}

function say(text, isFault = false) {
  at("state").replaceChildren(...(text ? [make("p", { class: isFault ? "banner" : "working" }, text)] : []));
}

function fail(error) {
  if (error.status === 401) return showLogin();
  say(`Not answered: ${error.message}.`, true);
}

const optionsNow = () => {
  const modality = at("modality").value.trim().toUpperCase();
  return { k: Number(at("k").value), ...(modality ? { filter: { modality: [modality] } } : {}),
    ...(at("others").checked ? { exclude: ["same_patient"] } : {}) };
};

/** Searches with files, with an upload, or with an image of the index. */
async function search(query) {
  const run = ++state.run;
  say(query.files ? "Reading, embedding and searching \u2026" : "Searching \u2026");
  const path = `/v1/indexes/${encodeURIComponent(at("index").value)}/search`;
  try {
    let answer;
    if (query.files) {
      const form = new FormData();
      form.append("options", JSON.stringify(optionsNow()));
      for (const file of query.files) form.append("file", file, "file");
      answer = await ask(path, { method: "POST", body: form });
    } else {
      const body = JSON.stringify({ ...optionsNow(), ...query.named });
      answer = await ask(path, { method: "POST", body, headers: { "Content-Type": "application/json" } });
    }
    if (run !== state.run) return;
    if (state.query && !query.isAgain) state.before.push(state.query);
    state.query = { name: query.name, named: namedOf(answer.query), images: query.images };
    state.answer = answer;
    state.view = "hits";
    say("");
    show();
    if (!query.isAgain) scrollTo({ top: 0 });
  } catch (error) {
    if (run === state.run) fail(error);
  }
}

/** What a request asks with, to ask it again. */
function namedOf({ object, id, like, unlike, region }) {
  if (like) return { like, unlike: unlike || [] };
  return { ...(object ? { object } : { id }), ...(region ? { region } : {}) };
}
const nameOfQuery = ({ object, id, like }) => object || id || like[0];

function searchLike(hit) {
  if (hit.index && hit.index !== at("index").value) at("index").value = hit.index;
  search({ named: { id: hit.id }, name: nameOf(hit.id, hit.part) });
}
const again = () => { if (state.query) search({ ...state.query, isAgain: true }); };
function back() {
  const before = state.before.pop();
  if (before) search({ ...before, isAgain: true });
}

/** Of several files those of DICOM, where there are some: folders hold indexes, notes and hidden files, too. */
async function imagesAmong(files) {
  const seen = files.filter((file) => file.size > 0 && !/^(\.|DICOMDIR$)/i.test(file.name || ""));
  if (seen.length < 2) return seen;
  const isMarked = async (file) => new TextDecoder("latin1").decode(await file.slice(128, 132).arrayBuffer()) === "DICM";
  const marked = await Promise.all(seen.map(isMarked));
  return marked.some(Boolean) ? seen.filter((_, i) => marked[i]) : seen;
}

async function searchFiles(files) {
  const given = [...files], all = await imagesAmong(given), n_others = given.length - all.length;
  if (!all.length) return say("No file with an image was given.", true);
  if (all.length === 1 && /\.csv$/i.test(all[0].name || "")) return replay(all[0]);
  const name = all.length === 1 ? all[0].name || "pasted image" : `${all.length} files`;
  search({ files: all, name: n_others ? `${name}, ${n_others} others left out` : name });
}

/** A picture, or a sentence in its place. */
function shot(src, alt) {
  const box = make("div", { class: "shot" });
  if (!src) { box.classList.add("none"); box.append("no picture"); return box; }
  const image = make("img", { src, alt, loading: "lazy", onerror: () => { box.classList.add("none"); box.replaceChildren("no picture"); } });
  box.append(image);
  return box;
}

/** What is known of the answer, above its hits. */
const banner = ({ hits, agreement, notes }) =>
  [...(hits.length ? [agreementOf(agreement)] : []), ...notes.map((note) => make("p", { class: "note" }, note))];

/** Buttons of a card that stay pressed. */
function toggles(hit) {
  const named = { name: hit.id, part: hit.part, labels: labelsOf(hit), modality: hit.modality, dims: hit.dims, thumbnail: hit.thumbnail };
  const toggle = (text, title, isOn, then) => {
    const button = make("button", { type: "button", class: "button-small toggle", title, "aria-pressed": String(isOn()), onclick: () => {
      then();
      refreshToggles();
    } }, text);
    button.isOn = isOn;
    return button;
  };
  const item = inBasket(hit);
  return [
    toggle("More", "more like this: part of a search with several images, key m", () => isIn("like", hit.id), () => choose("like", named)),
    toggle("Less", "less like this: part of a search with several images, key n", () => isIn("unlike", hit.id), () => choose("unlike", named)),
    toggle("Basket", "keep in the basket, key a", () => basket.has(item), () => { if (basket.has(item)) basket.remove(item); else basket.add(item); }),
  ];
}
function refreshToggles() {
  for (const button of document.querySelectorAll("button.toggle")) button.setAttribute("aria-pressed", String(button.isOn()));
  showTray();
}

/** A hit as the basket keeps it, with what is needed to find it again. */
function inBasket(hit) {
  if (hit.index) return hit;
  const index = at("index").value, about = state.indexes.find((one) => one.name === index) || {};
  const { modality, body_part, finding, label, dims } = hit;
  return { id: hit.id, part: hit.part, index, generation: state.answer.generation, model: about.model, fingerprint: about.fingerprint,
    query: JSON.stringify(askedAgain(state.query.named)), rank: hit.rank, score: hit.score, modality, body_part, finding, label, dims, thumbnail: hit.thumbnail };
}
/** A query as a file may keep it: uploads are erased, and their names say nothing. */
const askedAgain = (named) => Object.values(named).flat().some((one) => typeof one === "string" && isUpload(one)) ? { upload: true } : named;

const isIn = (list, name) => state[list].some((one) => one.name === name);
/** Puts an image among those that hits should be like, or not, or takes it out. The query is the first of the former. */
function choose(list, image) {
  const isOut = isIn(list, image.name);
  for (const one of ["like", "unlike"]) state[one] = state[one].filter(({ name }) => name !== image.name);
  if (isOut) return;
  const { query } = state.answer || {};
  if (!state.like.length && query && state.view === "hits" && !query.like && !query.region) {
    state.like.push({ name: nameOfQuery(query), labels: labelsOf(query), modality: query.modality, dims: query.dims, thumbnail: query.thumbnail, isQuery: true });
  }
  state[list].push(image);
}
function searchExamples() {
  const images = { like: [...state.like], unlike: [...state.unlike] };
  const named = { like: state.like.map(({ name }) => name), unlike: state.unlike.map(({ name }) => name) };
  search({ named, images, name: `${named.like.length} like, ${named.unlike.length} unlike` });
}

/** What is put aside: images of a search with several, and the basket. */
function showTray() {
  const chip = (list) => (image) => make("span", { class: `chip ${list}` }, image.thumbnail ? make("img", { src: image.thumbnail, alt: "" }) : null,
    make("span", {}, `${list === "like" ? "more" : "less"}: ${image.isQuery ? "the query" : image.labels || image.name}`),
    make("button", { type: "button", class: "button-small", "aria-label": `take out ${image.name}`, onclick: () => { state[list] = state[list].filter((one) => one !== image); refreshToggles(); } }, "\u00d7"));
  const n = state.like.length + state.unlike.length, n_kept = basket.items.length;
  const ask = make("button", { type: "button", class: "primary", onclick: searchExamples }, "Search with these");
  ask.disabled = !state.like.length;
  at("examples").replaceChildren(...(n ? [...state.like.map(chip("like")), ...state.unlike.map(chip("unlike")), ask,
    make("button", { type: "button", onclick: () => { state.like = []; state.unlike = []; refreshToggles(); } }, "Clear")] : []));
  at("kept").replaceChildren(...(n_kept ? [make("span", {}, `Basket: ${imagesOf(n_kept)}`),
    state.view === "basket" && state.answer ? make("button", { type: "button", onclick: () => { state.view = "hits"; show(); } }, "Back to the hits") : null,
    state.view === "basket" ? null : make("button", { type: "button", onclick: () => showBasket() }, "Show"),
    make("button", { type: "button", onclick: () => basket.download() }, "Save as CSV"),
    make("button", { type: "button", onclick: () => { basket.replace([]); if (state.view === "basket") showBasket(); refreshToggles(); } }, "Empty")].filter(Boolean) : []));
  at("tray").hidden = !n && !n_kept;
}

/** Shows the images of the basket in the place of hits. */
function showBasket(notes = []) {
  state.view = "basket";
  const queries = [...new Set(basket.items.map(({ query }) => query))];
  at("query").hidden = true;
  at("content").replaceChildren(make("h2", {}, "Basket"), ...notes.map((note) => make("p", { class: "note" }, note)),
    basket.items.length ? make("div", { class: "grid" }, basket.items.map(hitCard)) : make("p", {}, "The basket is empty."),
    ...askAgainButton(queries));
  showTray();
  mark(0);
}

/** A way to ask the query again that the images of the basket were found with. */
function askAgainButton(queries) {
  let named = null;
  try { named = queries.length === 1 ? JSON.parse(queries[0]) : null; } catch { /* A file may hold anything; then there is no button. */ }
  if (!named || named.upload || !(named.id || Array.isArray(named.like))) return [];
  const { id, like, unlike, region } = named, index = basket.items[0].index;
  const again_ = { ...(id ? { id } : { like, unlike: unlike || [] }), ...(region ? { region } : {}) };
  return [make("p", {}, make("button", { type: "button", onclick: () => {
    if (state.indexes.some((one) => one.name === index)) at("index").value = index;
    search({ named: again_, name: id || imagesOf(like.length) });
  } }, "Ask the query of these images again"))];
}

/** Shows the images of a saved basket again, as far as the indexes have them. */
async function replay(file) {
  say("Reading the basket \u2026");
  try {
    const saved = basket.read(await file.text());
    if (!saved) return say("Not a saved basket: a CSV with the columns id, index and fingerprint is wanted, as Save as CSV writes it.", true);
    const notes = [], found = [];
    for (const name of new Set(saved.map(({ index }) => index))) {
      const rows = saved.filter(({ index }) => index === name);
      if (!state.indexes.some((index) => index.name === name)) { notes.push(`Not served here is the index ${name}, of which ${imagesOf(rows.length)} were saved.`); continue; }
      for (let from = 0; from < rows.length; from += 1000) found.push(...await replayed(name, rows.slice(from, from + 1000), notes));
    }
    basket.replace(found);
    say("");
    showBasket([`Shown: ${found.length} of ${imagesOf(saved.length)} of ${file.name}.`, ...notes]);
  } catch (error) { fail(error); }
}
async function replayed(index, rows, notes) {
  const body = JSON.stringify({ ids: rows.map(({ id }) => id) });
  const told = await ask(`/v1/indexes/${encodeURIComponent(index)}/images`, { method: "POST", body, headers: { "Content-Type": "application/json" } });
  if (told.missing.length) notes.push(`No longer in ${index}: ${imagesOf(told.missing.length)}.`);
  if (rows.some(({ fingerprint }) => fingerprint && fingerprint !== told.fingerprint)) notes.push(`${index} has another model now than when the basket was saved: scores and hits may differ.`);
  else if (rows.some(({ generation }) => generation && Number(generation) !== told.generation)) notes.push(`${index} has changed since the basket was saved (generation ${told.generation}): a search may find other images.`);
  const known = new Map(told.images.map((image) => [image.id, image]));
  return rows.filter(({ id }) => known.has(id)).map((row) => {
    const score = row.score === "" ? NaN : Number(row.score);
    return { ...row, ...known.get(row.id), score: Number.isFinite(score) ? score : null, rank: Number(row.rank) || null };
  });
}

function hitCard(hit, index) {
  const isKept = state.view === "basket";
  const name = nameOf(hit.id, hit.part);
  return make("section", { class: "hit", tabindex: "0", "aria-label": isKept ? `image ${index + 1} of the basket` : `hit ${hit.rank}`, onfocus: () => mark(index),
      onclick: (event) => { if (!event.target.closest(".text")) open(index); } },
    shot(hit.thumbnail, isKept ? `image ${index + 1}` : `hit ${hit.rank}`),
    make("div", { class: "text" },
      make("div", { class: "head" }, make("span", { class: "rank num" }, `${isKept ? index + 1 : hit.rank}.`),
        Number.isFinite(hit.score) ? make("span", { class: "score num", title: isKept ? "score of the search that found it" : "" }, hit.score.toFixed(4)) : null,
        make("span", { class: (hit.relation || "").startsWith("same") ? "badge strong" : "badge" }, isKept ? `in ${hit.index}` : relations[hit.relation])),
      isKept ? null : seenFrom(hit),
      make("div", { class: "what" }, labelsOf(hit) || make("span", { class: "dim" }, "no label")),
      make("div", { class: "path", title: name }, name),
      make("div", { class: "acts" },
        make("button", { type: "button", class: "button-small", onclick: () => searchLike(hit) }, "Search like this"),
        make("button", { type: "button", class: "button-small", onclick: () => open(index) }, isKept ? "Look" : "Compare"),
        toggles(hit))));
}

/** The picture of the query; of a region with its rectangle. */
function queryShot(query) {
  const box = shot(query.thumbnail, "query");
  const image = box.querySelector("img");
  if (query.region && query.region.length === 4 && image) {
    const [x0, y0, x1, y1] = query.region, mark_ = make("div", { class: "region", "aria-hidden": "true" });
    box.append(mark_);
    const lay = () => { if (image.naturalWidth) regions.lay(mark_, box, [image.naturalHeight, image.naturalWidth], [x0, y0, x1, y1]); };
    image.addEventListener("load", lay);
    new ResizeObserver(lay).observe(box);
  }
  return box;
}
const regionText = (region) => {
  const percent = (share) => `${Math.round(100 * share)}`;
  const half = region.length / 2, axes = ["x", "y", "z"];
  return `a region: ${axes.slice(0, half).map((axis, i) => `${axis} ${percent(region[i])} to ${percent(region[i + half])} %`).join(", ")}`;
};

function queryPanel({ query }) {
  const facts = [query.region ? regionText(query.region) : null, query.n_images > 1 ? `the first of ${query.n_images} images` : null, ...query.reasons].filter(Boolean);
  const tools = [
    query.like || query.region ? null : make("button", { type: "button", class: "button-small", onclick: chooseRegion }, "Search a region"),
    query.region ? make("button", { type: "button", class: "button-small", onclick: () => search({ named: query.object ? { object: query.object } : { id: query.id }, name: state.query.name }) }, "Search the whole image") : null,
    state.before.length ? make("button", { type: "button", class: "button-small", onclick: back }, "Back") : null,
  ].filter(Boolean);
  if (query.like) {
    const small = (name) => make("img", { src: objectAt(name, "thumbnail.png"), alt: name });
    return [make("h2", {}, "Query ", make("span", { class: "dim" }, "several images")),
      make("div", { class: "small" }, "more like"), make("div", { class: "examples-shown" }, query.like.map(small)),
      query.unlike ? make("div", { class: "small" }, "less like") : null, query.unlike ? make("div", { class: "examples-shown" }, query.unlike.map(small)) : null,
      make("p", { class: "row" }, tools)].filter(Boolean);
  }
  return [
    make("h2", {}, "Query ", make("span", { class: "dim" }, labelsOf(query) || "no label"), make("br"),
      make("span", { class: "path" }, nameOf(state.query.name, query.part))),
    queryShot(query),
    facts.length ? make("p", { class: "dim small" }, facts.join(", ")) : null,
    tools.length ? make("p", { class: "row" }, tools) : null,
  ].filter(Boolean);
}

/** Lets a person choose a part of the query. */
async function chooseRegion() {
  const { query } = state.answer || {}, box = at("box");
  if (!query || query.like || query.region) return;
  const told = make("p", { class: "small" }, "Reading the image \u2026");
  present("region of the query", [make("div", { class: "bar" }, make("b", {}, "Search with a region of the query"),
    make("button", { type: "button", class: "button-small", onclick: () => box.close() }, "Close")), told]);
  try {
    const image = await ask(objectAt(nameOfQuery(query), "pictures"));
    if (!box.open) return;
    viewer.useLevels(image.hu_levels);
    const form = regions.form(image, (region) => {
      box.close();
      search({ named: { ...(query.object ? { object: query.object } : { id: query.id }), region }, name: state.query.name });
    });
    state.open = { close: form.close, keys: {} };
    told.replaceWith(form.element);
  } catch (error) { told.textContent = `The image cannot be shown: ${error.message}.`; }
}

function show() {
  const { answer } = state;
  at("query").hidden = false;
  at("query").classList.toggle("several", Boolean(answer.query.like));
  at("query").replaceChildren(...queryPanel(answer));
  at("content").replaceChildren(...banner(answer),
    answer.hits.length ? make("div", { class: "grid" }, answer.hits.map(hitCard)) : make("p", {}, "Nothing was found."));
  at("about").textContent = about();
  showTray();
  mark(0);
}

function mark(index) {
  state.hit = index;
  document.querySelectorAll(".hit").forEach((card, i) => card.classList.toggle("current", i === index));
}

/** Shows something in the dialog; what it showed before ends. */
function present(label, parts) {
  const box = at("box");
  box.setAttribute("aria-label", label);
  if (state.open) state.open.close();
  state.open = null;
  box.replaceChildren(...parts.filter(Boolean));
  if (!box.open) box.showModal();
}

/** What the query shows beside a hit: of several images the first. */
function ownSide() {
  const { query } = state.answer;
  if (!query.like) return { title: `Query: ${labelsOf(query) || "no label"}`, name: nameOfQuery(query), dims: query.dims, isCt: query.modality === "CT", thumbnail: query.thumbnail, text: nameOf(state.query.name, query.part) };
  const first = ((state.query.images || {}).like || [])[0] || { name: query.like[0] };
  return { title: `First of the query: ${first.labels || "no label"}`, name: query.like[0], dims: first.dims, isCt: first.modality === "CT",
    thumbnail: objectAt(query.like[0], "thumbnail.png"), text: nameOf(query.like[0], first.part) };
}

/** Shows a hit beside the query, and asks why they match. An image of the basket is shown alone. */
function open(index) {
  const hit = shownCards()[index], box = at("box");
  if (!hit) return;
  mark(index);
  const isKept = state.view === "basket", told = make("p", { class: "small" });
  const other = { title: `${isKept ? "Image" : "Hit"}: ${labelsOf(hit) || "no label"}`, name: hit.id, index: hit.index, dims: hit.dims, isCt: hit.modality === "CT",
    thumbnail: hit.thumbnail, text: nameOf(hit.id, hit.part) };
  const sides = isKept ? [other] : [ownSide(), other];
  const go = (by) => { if (shownCards()[index + by]) open(index + by); };
  const button = (text, then, title = "") => make("button", { type: "button", class: "button-small", title, onclick: then }, text);
  const tools = make("span", { class: "row tools" }), seen = sidesOf(sides, tools);
  present(isKept ? "image of the basket" : "query and hit", [
    make("div", { class: "bar" },
      make("span", {}, make("b", {}, isKept ? `${index + 1}. of the basket` : `${hit.rank}. score ${hit.score.toFixed(4)}`), isKept ? "" : ` ${relations[hit.relation]}`),
      tools,
      make("span", { class: "row" }, button("Previous", () => go(-1), "left arrow"), button("Next", () => go(1), "right arrow"),
        button("Search like this", () => { box.close(); searchLike(hit); }), button("Close", () => box.close(), "Esc"))),
    seen.element, told]);
  Object.assign(seen.keys, { ArrowLeft: () => go(-1), ArrowRight: () => go(1) });
  state.open = seen;
  if (!isKept) explain(hit, told, seen.signal);
}

/** Pictures of both sides: volumes in niivue, clips frame by frame, others as they are. */
function sidesOf(sides, tools) {
  const boxes = sides.map((side) => make("div", {}, make("b", {}, side.title), shot(side.thumbnail, side.title), make("p", { class: "small dim path" }, side.text)));
  const put = (i, element, note) => {
    boxes[i].querySelector(".shot, .volume-side, .leafed")?.replaceWith(element);
    if (note) boxes[i].append(make("p", { class: "small note" }, note));
  };
  const wanted = new AbortController(), { signal } = wanted, ends = [() => wanted.abort()], leafed = [];
  const leaf = (by) => { for (const shown of leafed) shown.step(by); }, keys = { ",": () => leaf(-1), ".": () => leaf(1) };
  const flat = async (i, note) => {
    const side = sides[i];
    try {
      const image = await ask(objectAt(side.name, "pictures", side.index), { signal });
      if (signal.aborted) return;
      viewer.useLevels(image.hu_levels);
      const shown = viewer.pictures(image, { plays: false });
      ends.push(() => { if (shown.forget) shown.forget(); });
      put(i, make("div", { class: "leafed" }, shown.element), note);
      if (shown.n > 1) leafed.push(shown);
    } catch (error) { if (!signal.aborted) put(i, shot(side.thumbnail, side.title), `${note ? `${note} ` : ""}Only the small picture can be shown: ${error.message}.`); }
  };
  const deep = sides.map((side, i) => i).filter((i) => sides[i].dims === "3d");
  sides.forEach((side, i) => { if (side.dims === "video") flat(i); });
  if (deep.length && !volumes.canDraw()) for (const i of deep) flat(i, "This browser has no WebGL 2: slices are shown as pictures.");
  else if (deep.length) {
    const pair = volumes.compare(deep.map((i) => ({ title: sides[i].title, isCt: sides[i].isCt, address: objectAt(sides[i].name, "volume.nii.gz", sides[i].index) })),
      (failed, error) => flat(deep[failed], `The volume is shown as pictures: ${error.message}.`));
    pair.panes.forEach((pane, at_) => put(deep[at_], pane.element));
    tools.append(...pair.tools);
    Object.assign(keys, pair.keys);
    ends.push(pair.close);
  }
  return { keys, signal, element: make("div", { class: sides.length > 1 ? "pair" : "pair alone" }, boxes), close() { for (const end of ends) end(); } };
}

async function explain(hit, told, signal) {
  const { query } = state.answer, own = query.object || query.id;
  if (query.like || query.region) {
    told.textContent = query.like ? "Of a query of several images, matching patches are not compared." : "The whole image of the query is shown; it was asked with a region of it, of which patches are not compared.";
    return;
  }
  told.textContent = "Comparing patches \u2026";
  const index = encodeURIComponent(at("index").value);
  try {
    const { why } = await ask(`/v1/objects/${encodeURIComponent(own)}/why?index=${index}&hit=${encodeURIComponent(hit.id)}`, { signal });
    told.textContent = why
      ? `Without the ${why.n_left_out} patches of the hit that look most alike to the encoder, of ${why.n_patches}, the score of the whole images is ` +
        `${why.score_without.toFixed(4)} instead of ${why.score.toFixed(4)}.${why.note ? ` Note: ${why.note}.` : ""}`
      : "This model has no patches to compare.";
  } catch (error) {
    told.textContent = `Not explained: ${error.message}.`;
  }
}

function about() {
  const index = state.indexes.find((one) => one.name === at("index").value);
  if (!index) return "";
  const took = state.answer ? ` \u00b7 ${state.answer.took_ms} ms` : "";
  return `${index.rows.toLocaleString("en")} images in ${index.name} \u00b7 model ${index.model}${took}`;
}

function showLogin() {
  say("");
  at("work").hidden = true;
  at("login").hidden = false;
  at("token").focus();
}

async function signIn(token) {
  await ask("/v1/session", { method: "POST", body: JSON.stringify({ token }), headers: { "Content-Type": "application/json" } });
}

/** Forgets what is shown: it may be of a patient who was erased. */
function forgetShown() {
  Object.assign(state, { query: null, answer: null, hit: 0, before: [], run: state.run + 1, view: "hits", like: [], unlike: [] });
  basket.replace([]);
  at("query").hidden = true;
  at("query").replaceChildren();
  at("content").replaceChildren();
  say("");
  begin().catch(fail);
}

async function begin() {
  const [{ indexes }, { role }] = await Promise.all([ask("/v1/indexes"), ask("/v1/session")]);
  at("erase").hidden = role !== "admin";
  state.indexes = indexes;
  at("index").replaceChildren(...indexes.map((index) => make("option", { value: index.name }, index.name)));
  at("login").hidden = true;
  at("work").hidden = false;
  at("about").textContent = about();
  showTray();
}

/** Returns every file of what was dropped, those in folders too. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  async function walk(entry) {
    if (entry.isFile) { files.push(await new Promise((then, not) => entry.file(then, not))); return; }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((then, not) => reader.readEntries(then, not));
      if (!some.length) return;
      for (const one of some) await walk(one);
    }
  }
  for (const entry of entries) await walk(entry);
  return files;
}

at("theme").append(viewer.themeButton());
at("erase").addEventListener("click", () => erasing.show(forgetShown));
at("choose").addEventListener("click", () => at("file").click());
at("choose-folder").addEventListener("click", () => at("folder").click());
for (const id of ["file", "folder"]) at(id).addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  searchFiles(files).catch(() => say("The files cannot be read.", true));
});
for (const id of ["k", "others", "modality"]) at(id).addEventListener("change", again);
/* An image of one index is no query of another; an upload is. */
at("index").addEventListener("change", () => {
  at("about").textContent = about();
  state.like = state.like.filter(({ name }) => isUpload(name));
  state.unlike = state.unlike.filter(({ name }) => isUpload(name));
  refreshToggles();
  if (state.query && state.query.named.object) again();
});
at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(at("token").value.trim()).then(() => { at("token").value = ""; return begin(); })
    .catch((error) => say(error.status === 401 ? "The token is not valid." : `Not signed in: ${error.message}.`, true));
});
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  dropped(event.dataTransfer).then(searchFiles).catch(() => say("What was dropped cannot be read.", true));
});
addEventListener("paste", (event) => { if (event.clipboardData.files.length) searchFiles(event.clipboardData.files).catch(() => say("What was pasted cannot be read.", true)); });
at("box").addEventListener("close", () => {
  if (state.open) state.open.close();
  state.open = null;
  at("box").replaceChildren();
});
at("box").addEventListener("click", (event) => { if (event.target === at("box")) at("box").close(); });
/* Before the viewer of volumes, which has keys of its own. */
addEventListener("keydown", (event) => {
  const isTyping = ["SELECT", "INPUT", "TEXTAREA"].includes(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
  const cards = shownCards(), hit = cards[state.hit];
  const press = (title) => document.querySelectorAll(".hit")[state.hit]?.querySelector(`.toggle[title*="key ${title}"]`)?.click();
  const keys = at("box").open ? (state.open || {}).keys || {} : {
    j: () => step(1), k: () => step(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
    ArrowDown: () => step(1, true), ArrowUp: () => step(-1, true), o: () => at("choose").click(), b: back, r: chooseRegion,
    s: () => { if (hit) searchLike(hit); }, a: () => press("a"), m: () => press("m"), n: () => press("n"),
    Enter: event.target.tagName === "BUTTON" || event.target.tagName === "A" ? null : () => open(state.hit),
  };
  if (!keys[event.key] || (!at("box").open && event.key.startsWith("Arrow") && !cards.length)) return;
  event.preventDefault();
  event.stopPropagation();
  keys[event.key]();
}, true);

(async () => {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    /* The token leaves the address before anything else is asked. */
    history.replaceState(null, "", location.pathname);
    try { await signIn(token); } catch { /* Without a session the page asks for a token. */ }
  }
  try { await begin(); } catch (error) { fail(error); }
})();
