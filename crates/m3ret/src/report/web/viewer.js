"use strict";
/* Pictures and the window that enlarges them: shared by every page that shows images. No page loads anything. */

/** Makes an element; text is never read as HTML. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
  return element;
}
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

const viewer = (() => {
  /** The usual windows of CT: level and width in HU. */
  const windows = [["soft tissue", 40, 400], ["lung", -600, 1500], ["bone", 400, 1800], ["wide", 238, 2524]];
  let chosen = 0, levels = [[-1024, 0], [1500, 255]];
  const shown = new Set(), groups = new Set();
  const sheets = new Map();

  /** The picture behind an address, decoded once; drawing waits for it. */
  function sheet(src, then) {
    let image = sheets.get(src);
    if (!image) { image = new Image(); image.src = src; sheets.set(src, image); }
    if (image.complete && image.naturalWidth) then(image);
    else image.addEventListener("load", () => then(image), { once: true });
  }

  /** The grey that a window gives to each stored level. */
  function table() {
    const [, level, width] = windows[chosen], greys = new Uint8ClampedArray(256);
    for (let i = 0; i < 256; i++) {
      let k = 0;
      while (k < levels.length - 2 && i > levels[k + 1][1]) k++;
      const [[hu0, l0], [hu1, l1]] = [levels[k], levels[k + 1]];
      const hu = hu0 + (i - l0) / (l1 - l0) * (hu1 - hu0);
      greys[i] = 255 * (hu - (level - width / 2)) / width;
    }
    return greys;
  }

  /** Draws one plane of a view, through the chosen window where its levels are HU. */
  function draw(canvas, view, frame, isHu) {
    sheet(view.src, (image) => {
      if (canvas.wanted !== frame) return;
      const [height, width] = view.size;
      canvas.width = width; canvas.height = height;
      const context = canvas.getContext("2d", { willReadFrequently: isHu });
      const x = frame % view.columns * view.cell[1], y = Math.floor(frame / view.columns) * view.cell[0];
      context.drawImage(image, x, y, width, height, 0, 0, width, height);
      if (!isHu) return;
      const pixels = context.getImageData(0, 0, width, height), greys = table(), bytes = pixels.data;
      for (let i = 0; i < bytes.length; i += 4) bytes[i] = bytes[i + 1] = bytes[i + 2] = greys[bytes[i]];
      context.putImageData(pixels, 0, 0);
    });
  }

  /** One plane with its name, and a canvas above it for marks. */
  function pane(image, index, overlay) {
    const view = image.views[index], canvas = make("canvas", { role: "img" });
    const tag = make("span", { class: "tag" }), frame = make("div", { class: "frame" }, canvas, tag);
    const marks = overlay ? make("canvas", { class: "marks", "aria-hidden": "true" }) : null;
    if (marks) frame.append(marks);
    const made = {
      frame, view, canvas, at: Math.floor(view.planes.length / 2),
      show(at) {
        made.at = clamp(at, 0, view.planes.length - 1);
        canvas.wanted = made.at;
        const many = view.planes.length > 1 ? ` ${view.planes[made.at] + 1} / ${view.n_all}` : "";
        tag.textContent = (view.name + many).trim();
        canvas.setAttribute("aria-label", `${view.name || image.kind}${many}`);
        draw(canvas, view, made.at, image.is_hu);
        if (marks) overlay(marks, image, index, made.at);
      },
    };
    return made;
  }

  /** All views of an image; `slider` adds a way through slices and frames, `plays` moves clips under the pointer. */
  function pictures(image, { slider = true, plays = true, overlay = null, first = null } = {}) {
    if (!image || !image.views) {
      const why = image && image.missing ? `no picture: ${image.missing}` : "no picture";
      return { element: make("div", { class: "pictures" }, make("div", { class: "none" }, why)), n: 0, step() {}, seek() {}, stop() {}, redraw() {} };
    }
    const panes = image.views.map((_, index) => pane(image, index, overlay));
    const main = panes[0], n = main.view.planes.length;
    const box = make("div", { class: `pictures ${image.kind}` }, panes.map((one) => one.frame));
    const range = slider && n > 1 ? make("input", { type: "range", min: 0, max: n - 1, step: 1,
      "aria-label": image.kind === "clip" ? "frame" : "slice" }) : null;
    let timer = 0, heard = null;
    const made = {
      element: box, n, main,
      seek(share, isTold = true) {
        main.show(Math.round(share * (n - 1)));
        if (range) range.value = String(main.at);
        if (isTold && heard) heard(n > 1 ? main.at / (n - 1) : share);
      },
      step(by) { made.seek(clamp(main.at + by, 0, n - 1) / Math.max(1, n - 1)); },
      play() {
        if (timer || n < 2) return;
        timer = setInterval(() => made.seek((main.at + 1) % n / (n - 1)), 140);
        button.textContent = "Pause";
      },
      stop() { clearInterval(timer); timer = 0; button.textContent = "Play"; },
      onseek(then) { heard = then; },
      redraw() { for (const one of panes) one.show(one.at); },
    };
    const button = make("button", { type: "button", onclick: (event) => { event.stopPropagation(); if (timer) made.stop(); else made.play(); } }, "Play");
    for (const one of panes) one.show(one.at);
    if (first !== null) made.seek(first, false);
    if (range) {
      range.value = String(main.at);
      range.addEventListener("input", () => { made.stop(); made.seek(Number(range.value) / (n - 1)); });
      for (const kind of ["click", "keydown"]) range.addEventListener(kind, (event) => event.stopPropagation());
      const row = make("div", { class: "scroll" }, image.kind === "clip" ? button : null, range);
      made.element = make("div", {}, box, row);
    }
    if (plays && image.kind === "clip" && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      box.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") made.play(); });
      box.addEventListener("pointerleave", () => made.stop());
    }
    if (image.is_hu) shown.add(made);
    made.forget = () => { made.stop(); shown.delete(made); };
    return made;
  }

  /** Buttons that window every CT on the page. */
  function windowButtons() {
    const group = make("div", { class: "windows", role: "group", "aria-label": "CT window" },
      windows.map(([name, level, width], index) => make("button", { type: "button", title: `level ${level}, width ${width} HU`,
        "aria-pressed": String(index === chosen), onclick: () => choose(index) }, name)));
    groups.add(group);
    return group;
  }
  function choose(index) {
    if (!windows[index]) return;
    chosen = index;
    for (const group of groups) [...group.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === index)));
    for (const one of shown) one.redraw();
  }

  /**
   * The window that shows a picture large, beside the one it is compared with.
   * `at(index)` gives `{ image, title, other, otherTitle, told, overlays }` or null beyond the ends.
   */
  function lightbox({ at, onmove }) {
    const pair = make("div", { class: "pair" }), told = make("p", { class: "told" }), place = make("span", { class: "dim small" });
    const previous = make("button", { type: "button", title: "left arrow", onclick: () => go(index - 1) }, "Previous");
    const next = make("button", { type: "button", title: "right arrow", onclick: () => go(index + 1) }, "Next");
    const presets = windowButtons();
    const marksBox = make("input", { type: "checkbox", onchange: () => draw_() });
    const marks = make("label", { class: "check" }, marksBox, "matching patches");
    const linked = make("input", { type: "checkbox", checked: "" });
    const link = make("label", { class: "check" }, linked, "scroll both");
    const box = make("dialog", { class: "lightbox", "aria-label": "enlarged picture" },
      make("div", { class: "bar" }, previous, next, place, presets, link, marks, make("span", { class: "grow" }),
        make("button", { type: "button", title: "Esc", onclick: () => box.close() }, "Close")), pair, told);
    document.body.append(box);
    let index = 0, sides = [];
    const clear = () => { for (const side of sides) if (side.forget) side.forget(); sides = []; };
    function draw_() {
      const current = at(index);
      if (!current) return;
      clear();
      const overlays = marksBox.checked && current.overlays || [null, null];
      const own = [current.image, current.title, overlays[1], current.first ?? null];
      const images = current.other ? [[current.other, current.otherTitle, overlays[0], null], own] : [own];
      pair.classList.toggle("alone", images.length === 1);
      pair.replaceChildren(...images.map(([image, title, overlay, first]) => {
        const made = pictures(image, { plays: false, overlay, first });
        sides.push(made);
        const box_ = made.element.classList.contains("pictures") ? [made.element] : [...made.element.children];
        return make("div", { class: "side" }, make("div", { class: "title" }, title), box_);
      }));
      pair.querySelectorAll(".pictures").forEach((one, i) => one.addEventListener("wheel", (event) => {
        event.preventDefault(); sides[i].step(event.deltaY > 0 ? 1 : -1); }, { passive: false }));
      sides.forEach((side, i) => { if (side.onseek) side.onseek((share) => {
        const other = sides[1 - i];
        if (linked.checked && other && other.n > 1) other.seek(share, false);
      }); });
      told.replaceChildren(...[current.told].flat().filter(Boolean));
      place.textContent = current.place || "";
      presets.hidden = !images.some(([image]) => image && image.is_hu);
      link.hidden = !(sides.length > 1 && sides.every((side) => side.n > 1));
      marks.hidden = !current.overlays;
      previous.disabled = !at(index - 1); next.disabled = !at(index + 1);
    }
    function go(to) {
      if (!at(to)) return;
      index = to;
      draw_();
      if (onmove) onmove(index);
    }
    box.addEventListener("close", clear);
    box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
    box.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const keys = {
        ArrowRight: () => go(index + 1), ArrowLeft: () => go(index - 1),
        ArrowDown: () => sides[sides.length - 1].step(1), ArrowUp: () => sides[sides.length - 1].step(-1),
        o: () => { if (!marks.hidden) { marksBox.checked = !marksBox.checked; draw_(); } },
      };
      windows.forEach((_, i) => { keys[String(i + 1)] = () => choose(i); });
      if (keys[event.key]) { keys[event.key](); event.preventDefault(); event.stopPropagation(); }
    });
    return {
      open(to, withMarks = false) { if (!at(to)) return; marksBox.checked = withMarks; index = to; if (!box.open) box.showModal(); go(to); },
      get isOpen() { return box.open; },
    };
  }

  /** A button that copies text and says so. */
  function copyButton(text, label) {
    const button = make("button", { type: "button", class: "button-small", onclick: async (event) => {
      event.stopPropagation();
      const isDone = await copy(typeof text === "function" ? text() : text);
      button.textContent = isDone ? "Copied" : "Not copied";
      setTimeout(() => { button.textContent = label; }, 1500);
    } }, label);
    return button;
  }
  async function copy(text) {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* An older way works from a file, too. */ }
    const area = make("textarea", { readonly: "" });
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    let isDone = false;
    try { isDone = document.execCommand("copy"); } catch { isDone = false; }
    area.remove();
    return isDone;
  }

  /** A button that changes between the system's colours, light and dark. */
  function themeButton() {
    const names = ["auto", "light", "dark"], root = document.documentElement;
    let name = "auto";
    try { name = localStorage.getItem("m3ret-theme") || "auto"; } catch { /* A file may have no storage. */ }
    const button = make("button", { type: "button", class: "button-small", title: "colours of the page" });
    const apply = () => {
      if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
      button.textContent = `Theme: ${name}`;
      button.dispatchEvent(new CustomEvent("theme", { bubbles: true }));
    };
    button.addEventListener("click", () => {
      name = names[(names.indexOf(name) + 1) % names.length];
      try { localStorage.setItem("m3ret-theme", name); } catch { /* The choice lasts as long as the page. */ }
      apply();
    });
    if (!names.includes(name)) name = "auto";
    apply();
    return button;
  }
  return { pictures, lightbox, windowButtons, choose, copy, copyButton, themeButton, useLevels(all) { if (all) levels = all; } };
})();
