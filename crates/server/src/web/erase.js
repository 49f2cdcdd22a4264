/* Erasing a patient from every index, for accounts that may. */

const erasing = (() => {
  const reasons = {
    nothing_to_erase: "No image of this patient is in the indexes, and nothing was changed. Where numbers have an issuer, it must be given.",
    no_patients_stored: "An index stores no patients: its images can only be erased by their ids, with m3ret erase.",
    held_by_snapshot: "A snapshot of an index holds images of the patient. Nothing was changed; erase from snapshots, too.",
    repair_pending: "A repair of an index is not complete. Nothing was changed; run m3ret index verify --repair first.",
    locked_ask_again: "Another program writes to an index. Erase again: what was begun is completed.",
    audit: "The patient is erased, but the audit trail could not be written.",
  };
  const field = (label, attributes) => {
    const input = make("input", { autocomplete: "off", spellcheck: "false", ...attributes });
    return { input, element: make("label", { class: "field" }, label, input) };
  };

  /** What was done in one index. */
  function told(place) {
    const { n_rows, n_rows_removed_before, n_views, n_thumbnails } = place.counts, { scan } = place;
    const name = place.place.split(/[\\/]/).pop();
    const left = n_rows || n_rows_removed_before
      ? `${imagesOf(n_rows)} erased${n_rows_removed_before ? `, and ${n_rows_removed_before} that had been removed before` : ""}, with ${n_views} further vectors and ${n_thumbnails} small pictures`
      : "no image of the patient";
    const isClean = scan.n_found === 0 && !scan.not_searched.length;
    const sought = `${scan.n_files} files searched for ${scan.n_traces} traces: ${scan.n_found} found`;
    const doubts = [place.n_sharing ? `${imagesOf(place.n_sharing)} that stay share another identifier` : null,
      place.n_with_issuer ? `${imagesOf(place.n_with_issuer)} that stay have a number with an issuer` : null,
      place.n_without_patient ? `${imagesOf(place.n_without_patient)} that stay name no patient` : null,
      scan.not_searched.length ? `${scan.not_searched.length} places could not be searched` : null].filter(Boolean);
    return make("li", { class: isClean ? "" : "doubt" }, make("b", {}, name), `: ${left}. ${sought}.${doubts.length ? ` Look at these: ${doubts.join("; ")}.` : ""}`);
  }

  /** The receipt, to be kept. */
  const save = (receipt) =>
    saveFile(`erasure-${receipt.time.replace(/:/g, "")}.json`, "application/json", `${JSON.stringify(receipt, null, 2)}\n`);

  /** Sends the request, and waits until its job has ended; `onbegun` is called once the server has taken it. */
  async function erase(request, signal, onbegun) {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID ? crypto.randomUUID() : String(Math.random()) };
    let job = await ask("/v1/erasures", { method: "POST", body: JSON.stringify(request), headers, signal });
    onbegun();
    while (!["done", "failed"].includes(job.state)) job = await ask(`/v1/jobs/${job.job}?wait=20`, { signal });
    return job;
  }

  function show(ondone) {
    const box = at("box"), ended = new AbortController();
    const number = field("PatientID", { required: "", maxlength: "1024" }), issuer = field("IssuerOfPatientID, where headers name one", { maxlength: "1024" });
    const reason = field("reason, for the receipt; without the number", { maxlength: "256" });
    const snapshots = make("input", { type: "checkbox" }), sure = make("input", { type: "checkbox", required: "" });
    const state_ = make("div", { class: "small", role: "status", "aria-live": "polite" });
    const go = make("button", { type: "submit", class: "danger" }, "Erase");
    const form = make("form", { class: "erase" },
      make("p", {}, "All images of a patient leave every index: vectors, small pictures, statistics, and what was uploaded. The patient is not added again. The images themselves stay in the archive."),
      number.element, issuer.element, reason.element,
      make("label", {}, snapshots, " from snapshots, too"),
      make("label", {}, sure, " I know that this cannot be undone"),
      make("div", { class: "row" }, go), state_);
    form.addEventListener("input", () => state_.replaceChildren());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const request = { patient_id: number.input.value.trim(), reason: reason.input.value.trim(), snapshots: snapshots.checked,
        ...(issuer.input.value.trim() ? { issuer: issuer.input.value.trim() } : {}) };
      go.disabled = true;
      state_.replaceChildren(make("p", { class: "working" }, "Erasing, and searching every file afterwards …"));
      let isBegun = false;
      try {
        // What is shown may be of the patient: it goes before the outcome is known.
        const job = await erase(request, ended.signal, () => { isBegun = true; ondone(); });
        const failed = job.failures.map(({ reason: code }) => reasons[code] || `Not erased: ${code}.`);
        if (!job.result) { state_.replaceChildren(...failed.map((text) => make("p", { class: "banner" }, text))); go.disabled = false; return; }
        const receipt = job.result;
        form.replaceChildren(make("ul", {}, receipt.places.map(told)), ...failed.map((text) => make("p", { class: "banner" }, text)),
          make("p", { class: "small" }, "Not reached:"), make("ul", { class: "small dim" }, receipt.not_reached.map((text) => make("li", {}, text))),
          make("div", { class: "row" }, make("button", { type: "button", class: "primary", onclick: () => save(receipt) }, "Save the receipt")));
        form.querySelector("button").focus();
        ondone();
      } catch (error) {
        if (ended.signal.aborted) return;
        state_.replaceChildren(make("p", { class: "banner" }, isBegun
          ? `The erasure was begun, and how it ended is not known: ${error.message}. Erase again: what was begun is completed, and the audit trail tells it.`
          : `Not erased: ${error.message}.`));
        go.disabled = false;
      }
    });
    present("erase a patient", [make("div", { class: "bar" }, make("b", {}, "Erase a patient"),
      make("button", { type: "button", class: "button-small", onclick: () => box.close() }, "Close")), form]);
    // The dialog may be closed while the server works; the erasure goes on, and the audit trail tells how it ended.
    state.open = { keys: {}, close: () => ended.abort() };
    number.input.focus();
  }

  return { show };
})();
