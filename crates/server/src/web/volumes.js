/* Volumes in niivue, side by side: linked crosshairs, windows, slices by wheel, keys and touch. Loaded when first needed. */

const volumes = (() => {
  const place = "/niivue-0.69.0.js";
  /* As the windows of CT elsewhere: level and width in HU. */
  const windows = [["Soft tissue", 40, 400], ["Lung", -600, 1500], ["Bone", 400, 1800], ["Wide", 238, 2524]];
  const planes = ["three planes", "axial", "coronal", "sagittal"];
  /** HU below which no other image has values. */
  const airHu = -200;
  let loading = null;

  function library() {
    loading = loading || new Promise((then, not) => {
      const script = make("script", { src: place, onload: () => then(globalThis.niivue), onerror: () => { loading = null; not(new Error("the viewer of volumes did not load")); } });
      document.head.append(script);
    });
    return loading;
  }

  const canDraw = () => Boolean(document.createElement("canvas").getContext("webgl2"));

  async function fetched(address, signal) {
    const response = await fetch(address, { signal });
    if (response.ok) return response.arrayBuffer();
    let told = null;
    try { told = await response.json(); } catch { /* An answer that is no JSON has a status at least. */ }
    throw new Error(told && told.detail ? told.detail : `the server answered ${response.status}`);
  }

  /** One volume: its canvas, where the crosshair is, and its window. `onmove` hears of the crosshair as shares of the sides. */
  function pane(title, isCtLabel, onmove) {
    const canvas = make("canvas", { class: "volume", tabindex: "0", role: "img", "aria-label": `${title}, volume` });
    const told = make("div", { class: "small dim num place" }, "Loading \u2026");
    const level = make("input", { type: "number", step: "any", "aria-label": `${title}: level`, onchange: () => take() });
    const width = make("input", { type: "number", step: "any", min: "0", "aria-label": `${title}: width`, onchange: () => take() });
    const element = make("div", { class: "volume-side" }, make("div", { class: "volume-frame" }, canvas), told,
      make("div", { class: "row levels" }, make("label", {}, "level ", level), make("label", {}, "width ", width),
        make("button", { type: "button", class: "button-small", onclick: () => made.auto() }, "Auto")));
    const wanted = new AbortController();
    let nv = null, isQuiet = false, isGone = false;
    const made = {
      element, canvas, isCt: false, isReady: false,
      async load(address) {
        const [niivue, buffer] = await Promise.all([library(), fetched(address, wanted.signal)]);
        if (isGone) return;
        nv = new niivue.Niivue({ logLevel: "error", loadingText: "", backColor: [0, 0, 0, 1], crosshairColor: [0.35, 0.75, 1, 0.9],
          crosshairWidth: 0.4, crosshairWidthUnit: "percent", multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID,
          show3Dcrosshair: false, isColorbar: false, isOrientCube: false, dragAndDropEnabled: false, isRadiologicalConvention: true,
          sagittalNoseLeft: true, multiplanarShowRender: niivue.SHOW_RENDER.NEVER, isResizeCanvas: true, fontMinPx: 11 });
        nv.onLocationChange = (at) => { tell(at); if (!isQuiet) onmove(made, [...at.frac].slice(0, 3)); };
        nv.onIntensityChange = () => show();
        await nv.attachToCanvas(canvas);
        await nv.loadFromArrayBuffer(buffer, "volume.nii.gz");
        if (isGone) return made.close();
        const volume = nv.volumes[0];
        made.isCt = isCtLabel && volume.global_min < airHu;
        made.isReady = true;
        made.auto();
        made.plane(0);
        nv.createOnLocationChange();
      },
      /** Shows all three planes, or one. */
      plane(index) {
        if (!made.isReady) return;
        nv.setSliceType([nv.sliceTypeMultiplanar, nv.sliceTypeAxial, nv.sliceTypeCoronal, nv.sliceTypeSagittal][index]);
      },
      /** Goes some slices on in a plane: 1 and 0 axial, 2 coronal, 3 sagittal. */
      step(by, index) {
        if (!made.isReady) return;
        nv.moveCrosshairInVox(...[[0, 0, by], [0, 0, by], [0, by, 0], [by, 0, 0]][index]);
      },
      /** Moves the crosshair to shares of the sides, and tells nobody. */
      seek(shares) {
        if (!made.isReady) return;
        isQuiet = true;
        nv.scene.crosshairPos = shares.map((share) => clamp(share, 0, 1));
        nv.createOnLocationChange();
        isQuiet = false;
        nv.drawScene();
      },
      window(level_, width_) {
        if (!made.isReady || !(width_ > 0) || !Number.isFinite(level_)) return show();
        const volume = nv.volumes[0];
        volume.cal_min = level_ - width_ / 2;
        volume.cal_max = level_ + width_ / 2;
        nv.updateGLVolume();
        show();
      },
      auto() {
        if (!made.isReady) return;
        const volume = nv.volumes[0];
        if (made.isCt) return made.window(windows[0][1], windows[0][2]);
        const [low, high] = volume.robust_max > volume.robust_min ? [volume.robust_min, volume.robust_max] : [volume.global_min, volume.global_max];
        made.window((low + high) / 2, Math.max(high - low, Number.EPSILON));
      },
      close() {
        isGone = true;
        made.isReady = false;
        /* A volume that nobody waits for any more is not read. */
        wanted.abort();
        if (!nv) return;
        const { gl } = nv;
        nv.cleanup();
        nv = null;
        /* Browsers keep few contexts: this one is given back at once. */
        gl?.getExtension("WEBGL_lose_context")?.loseContext();
      },
      isClosed: () => isGone,
    };
    const take = () => made.window(Number(level.value), Number(width.value));
    const short = (x) => String(Number(x.toPrecision(4)));
    function show() {
      if (!made.isReady) return;
      const { cal_min: low, cal_max: high } = nv.volumes[0];
      level.value = short((low + high) / 2);
      width.value = short(high - low);
    }
    function tell(at) {
      if (!made.isReady) return;
      const sides = nv.volumes[0].dimsRAS, value = at.values && at.values[0] ? at.values[0].value : NaN;
      const [x, y, z] = [0, 1, 2].map((axis) => `${Math.round(at.vox[axis]) + 1}/${sides[axis + 1]}`);
      told.textContent = `axial ${z} \u00b7 coronal ${y} \u00b7 sagittal ${x}` +
        (Number.isFinite(value) ? ` \u00b7 value ${short(value)}${made.isCt ? " HU" : ""}` : "");
      made.canvas.dataset.at = [...at.frac].slice(0, 3).map((share) => share.toFixed(3)).join(" ");
    }
    return made;
  }

  /**
   * Panes for `sides`, each `{ title, address, isCt }`, and the tools for all of them. `onfail(side, error)` hears of a volume
   * that cannot be shown.
   */
  function compare(sides, onfail) {
    const linked = make("input", { type: "checkbox", checked: "" });
    let plane = 0, active = sides.length - 1;
    const onmove = (from, shares) => {
      active = panes.indexOf(from);
      if (linked.checked) for (const one of panes) if (one !== from) one.seek(shares);
    };
    const panes = sides.map((side) => pane(side.title, side.isCt, onmove));
    panes.forEach((one, i) => one.canvas.addEventListener("pointerdown", () => { active = i; }));
    const choice = make("select", { "aria-label": "planes", onchange: () => look(planes.indexOf(choice.value)) }, planes.map((name) => make("option", {}, name)));
    const presets = make("span", { class: "row presets", role: "group", "aria-label": "CT window" },
      windows.map(([name, level, width], i) => make("button", { type: "button", class: "button-small", title: `level ${level}, width ${width} HU, key ${i + 1}`,
        onclick: () => preset(i) }, name)));
    presets.hidden = true;
    const link = make("label", { class: "check", title: "by the share of the way through each volume; the patients are not registered" }, linked, "link crosshairs");
    link.hidden = panes.length < 2;
    function look(index) { plane = index; choice.value = planes[index]; for (const one of panes) one.plane(index); }
    function preset(index) { for (const one of panes) if (one.isCt && windows[index]) one.window(windows[index][1], windows[index][2]); }
    const done = panes.map((one, i) => one.load(sides[i].address).catch((error) => { if (one.isClosed()) return; one.close(); onfail(i, error); })
      .then(() => { presets.hidden = !panes.some((other) => other.isCt); }));
    const step = (by) => { const one = panes[active]; if (one) one.step(by, plane); };
    return {
      panes, tools: [choice, presets, link], done: Promise.all(done),
      keys: {
        ArrowUp: () => step(1), ArrowDown: () => step(-1), PageUp: () => step(10), PageDown: () => step(-10),
        1: () => preset(0), 2: () => preset(1), 3: () => preset(2), 4: () => preset(3), 0: () => { for (const one of panes) one.auto(); },
        v: () => look((plane + 1) % planes.length), l: () => { linked.checked = !linked.checked; },
      },
      close() { for (const one of panes) one.close(); },
    };
  }
  return { compare, canDraw };
})();
