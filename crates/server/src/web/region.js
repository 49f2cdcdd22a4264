/* A part of the query, chosen on its picture: a rectangle, and a range of slices of a volume. */

const regions = (() => {
  const percent = (share) => Math.round(1000 * share) / 10;

  /** Where a picture is drawn in its box, which it fills in one direction. */
  function drawnIn(box, [height, width]) {
    const { width: w, height: h } = box.getBoundingClientRect(), scale = Math.min(w / width, h / height);
    return { left: (w - width * scale) / 2, top: (h - height * scale) / 2, width: width * scale, height: height * scale };
  }

  /** Lays a rectangle of shares over a picture. */
  function lay(mark, box, size, [x0, y0, x1, y1]) {
    const { left, top, width, height } = drawnIn(box, size);
    Object.assign(mark.style, { left: `${left + x0 * width}px`, top: `${top + y0 * height}px`, width: `${(x1 - x0) * width}px`, height: `${(y1 - y0) * height}px` });
  }

  /** A form on the pictures of an image; `onask(region)` gets the numbers of the request. */
  function form(image, onask) {
    const isDeep = image.kind === "volume", view = image.views[0];
    const shown = viewer.pictures({ ...image, kind: isDeep ? "slices" : image.kind, views: [view] }, { plays: false });
    const frame = shown.main.frame, mark = make("div", { class: "region", "aria-hidden": "true" });
    frame.classList.add("choosing");
    frame.append(mark);
    let rectangle = [0.25, 0.25, 0.75, 0.75];
    const names = ["left", "top", "right", "bottom"];
    const inputs = names.map((name, i) => make("input", { type: "number", min: "0", max: "100", step: "0.1", "aria-label": `${name} edge in percent`, onchange: () => {
      const value = clamp(Number(inputs[i].value) / 100 || 0, 0, 1), next = [...rectangle];
      next[i] = value;
      take(next);
    } }));
    const slices = isDeep ? [1, view.n_all].map((value, i) => make("input", { type: "number", min: "1", max: String(view.n_all), step: "1", value: String(value),
      "aria-label": i ? "last slice" : "first slice" })) : [];
    const ask = make("button", { type: "button", class: "primary", onclick: () => onask(numbers()) }, "Search with this region");

    function take([x0, y0, x1, y1]) {
      const least = 0.01;
      rectangle = [Math.min(x0, 1 - least), Math.min(y0, 1 - least), 0, 0];
      rectangle[2] = clamp(x1, rectangle[0] + least, 1);
      rectangle[3] = clamp(y1, rectangle[1] + least, 1);
      inputs.forEach((input, i) => { input.value = String(percent(rectangle[i])); });
      lay(mark, frame, view.size, rectangle);
    }
    function numbers() {
      const [x0, y0, x1, y1] = rectangle;
      if (!isDeep) return rectangle;
      const [first, last] = slices.map((input) => clamp(Math.round(Number(input.value)) || 1, 1, view.n_all));
      return [x0, y0, (Math.min(first, last) - 1) / view.n_all, x1, y1, Math.max(first, last) / view.n_all];
    }
    const at = (event) => {
      const box = frame.getBoundingClientRect(), { left, top, width, height } = drawnIn(frame, view.size);
      return [clamp((event.clientX - box.left - left) / width, 0, 1), clamp((event.clientY - box.top - top) / height, 0, 1)];
    };
    let begin = null;
    frame.addEventListener("pointerdown", (event) => { event.preventDefault(); begin = at(event); frame.setPointerCapture(event.pointerId); });
    frame.addEventListener("pointermove", (event) => {
      if (!begin) return;
      const [x, y] = at(event);
      take([Math.min(begin[0], x), Math.min(begin[1], y), Math.max(begin[0], x), Math.max(begin[1], y)]);
    });
    for (const kind of ["pointerup", "pointercancel"]) frame.addEventListener(kind, () => { begin = null; });
    const resized = new ResizeObserver(() => lay(mark, frame, view.size, rectangle));
    resized.observe(frame);

    const setSlice = (i) => { slices[i].value = String(view.planes[shown.main.at] + 1); };
    const element = make("div", { class: "region-form" }, make("div", { class: "region-picture" }, shown.element),
      make("div", { class: "region-tools" },
        make("p", { class: "small" }, isDeep ? `Drag over a slice, and name the first and the last one (of ${view.n_all}, ${view.name === "axial" ? "from the feet up" : "as stored"}).` : "Drag over the picture."),
        make("div", { class: "row edges sides" }, names.map((name, i) => make("label", {}, `${name} % `, inputs[i]))),
        isDeep ? make("div", { class: "row edges" }, ["first slice", "last slice"].map((name, i) => make("span", { class: "row" }, make("label", {}, `${name} `, slices[i]),
          make("button", { type: "button", class: "button-small", onclick: () => setSlice(i) }, i ? "last is the one shown" : "first is the one shown")))) : null,
        make("div", { class: "row" }, ask, make("button", { type: "button", onclick: () => { take([0, 0, 1, 1]); slices.forEach((input, i) => { input.value = String(i ? view.n_all : 1); }); } }, "Whole image")),
        make("p", { class: "small dim" }, "The region is embedded alone, as an image of its own. How often such searches agree was not measured.")));
    take(rectangle);
    return { element, close() { resized.disconnect(); if (shown.forget) shown.forget(); } };
  }
  return { form, lay };
})();
