const state = { indexes: [], query: null, answer: null, hit: 0, before: [], run: 0 };
const at = (id) => document.getElementById(id);


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
    state.query = { name: query.name, named: answer.query.object ? { object: answer.query.object } : { id: answer.query.id } };
    state.answer = answer;
    say("");
    show();
  } catch (error) {
    if (run === state.run) fail(error);
  }
}

const searchLike = (hit) => search({ named: { id: hit.id }, name: nameOf(hit.id, hit.part) });
const again = () => { if (state.query) search({ ...state.query, isAgain: true }); };
function back() {
  const before = state.before.pop();
  if (before) search({ ...before, isAgain: true });
}

function searchFiles(files) {
  const all = [...files].filter((file) => file.size > 0);
  if (!all.length) return say("No file was given.", true);
  search({ files: all, name: all.length === 1 ? all[0].name || "pasted image" : `${all.length} files` });
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

function hitCard(hit, index) {
  return make("section", { class: "hit", tabindex: "0", "aria-label": `hit ${hit.rank}`, onfocus: () => mark(index),
      onclick: (event) => { if (!event.target.closest(".text")) open(index); } },
    shot(hit.thumbnail, `hit ${hit.rank}`),
    make("div", { class: "text" },
      make("div", { class: "head" }, make("span", { class: "rank num" }, `${hit.rank}.`),
        make("span", { class: "score num" }, hit.score.toFixed(4)),
        make("span", { class: hit.relation.startsWith("same") ? "badge strong" : "badge" }, relations[hit.relation])),
      seenFrom(hit),
      make("div", { class: "what" }, labelsOf(hit) || make("span", { class: "dim" }, "no label")),
      make("div", { class: "path", title: nameOf(hit.id, hit.part) }, nameOf(hit.id, hit.part)),
      make("div", { class: "acts" },
        make("button", { type: "button", class: "button-small", onclick: () => searchLike(hit) }, "Search like this"),
        make("button", { type: "button", class: "button-small", onclick: () => open(index) }, "Compare"))));
}

function queryPanel({ query }) {
  const facts = [query.n_images > 1 ? `the first of ${query.n_images} images` : null, ...query.reasons].filter(Boolean);
  return [
    make("h2", {}, "Query ", make("span", { class: "dim" }, labelsOf(query) || "no label"), make("br"),
      make("span", { class: "path" }, nameOf(state.query.name, query.part))),
    shot(query.thumbnail, "query"),
    facts.length ? make("p", { class: "dim small" }, facts.join(", ")) : null,
    state.before.length ? make("p", {}, make("button", { type: "button", class: "button-small", onclick: back }, "Back")) : null,
  ].filter(Boolean);
}

function show() {
  const { answer } = state;
  at("query").hidden = false;
  at("query").replaceChildren(...queryPanel(answer));
  at("content").replaceChildren(...banner(answer),
    answer.hits.length ? make("div", { class: "grid" }, answer.hits.map(hitCard)) : make("p", {}, "Nothing was found."));
  at("about").textContent = about();
  mark(0);
}

function mark(index) {
  state.hit = index;
  document.querySelectorAll(".hit").forEach((card, i) => card.classList.toggle("current", i === index));
}

/** Shows a hit beside the query, and asks why they match. */
function open(index) {
  const hit = state.answer && state.answer.hits[index], box = at("box");
  if (!hit) return;
  mark(index);
  const { query } = state.answer, told = make("p", { class: "small" }, "Comparing patches \u2026");
  const side = (title, src, text) => make("div", {}, make("b", {}, title), shot(src, title), make("p", { class: "small dim path" }, text));
  box.replaceChildren(
    make("div", { class: "bar" },
      make("span", {}, make("b", {}, `${hit.rank}. score ${hit.score.toFixed(4)}`), ` ${relations[hit.relation]}`),
      make("span", { class: "row" },
        make("button", { type: "button", class: "button-small", onclick: () => { box.close(); searchLike(hit); } }, "Search like this"),
        make("button", { type: "button", class: "button-small", onclick: () => box.close() }, "Close"))),
    make("div", { class: "pair" },
      side(`Query: ${labelsOf(query) || "no label"}`, query.thumbnail, nameOf(state.query.name, query.part)),
      side(`Hit: ${labelsOf(hit) || "no label"}`, hit.thumbnail, nameOf(hit.id, hit.part))),
    told);
  if (!box.open) box.showModal();
  explain(hit, told);
}

async function explain(hit, told) {
  const { query } = state.answer, own = query.object || query.id;
  const index = encodeURIComponent(at("index").value);
  try {
    const { why } = await ask(`/v1/objects/${encodeURIComponent(own)}/why?index=${index}&hit=${encodeURIComponent(hit.id)}`);
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

async function begin() {
  const { indexes } = await ask("/v1/indexes");
  state.indexes = indexes;
  at("index").replaceChildren(...indexes.map((index) => make("option", { value: index.name }, index.name)));
  at("login").hidden = true;
  at("work").hidden = false;
  at("about").textContent = about();
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
at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", (event) => { searchFiles(event.target.files); event.target.value = ""; });
for (const id of ["k", "others", "modality"]) at(id).addEventListener("change", again);
/* An image of one index is no query of another; an upload is. */
at("index").addEventListener("change", () => { at("about").textContent = about(); if (state.query && state.query.named.object) again(); });
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
addEventListener("paste", (event) => { if (event.clipboardData.files.length) searchFiles(event.clipboardData.files); });
addEventListener("keydown", (event) => {
  const isTyping = ["SELECT", "INPUT", "TEXTAREA"].includes(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping || at("box").open) return;
  const hit = () => state.answer && state.answer.hits[state.hit];
  const keys = {
    j: () => step(1), k: () => step(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
    ArrowDown: () => step(1, true), ArrowUp: () => step(-1, true), o: () => at("choose").click(), b: back,
    s: () => { if (hit()) searchLike(hit()); },
    Enter: event.target.tagName === "BUTTON" ? null : () => open(state.hit),
  };
  if (!keys[event.key] || (event.key.startsWith("Arrow") && !state.answer)) return;
  event.preventDefault();
  keys[event.key]();
});

(async () => {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    /* The token leaves the address before anything else is asked. */
    history.replaceState(null, "", location.pathname);
    try { await signIn(token); } catch { /* Without a session the page asks for a token. */ }
  }
  try { await begin(); } catch (error) { fail(error); }
})();
