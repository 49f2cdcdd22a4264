"use strict";
const map = JSON.parse(document.getElementById("data").textContent);
const canvas = document.getElementById("plot"), context = canvas.getContext("2d");
/* Okabe and Ito's colours, which colour-blind people tell apart; further values are grey. */
const colours = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a800", "#7a5195"];
const counts = new Map();
for (const point of map.points) counts.set(point[2], (counts.get(point[2]) || 0) + 1);
const values = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
const colourOf = new Map(values.map((value, i) => [value, value === "" ? "#999" : colours[i] || "#999"]));
const hidden = new Set();
const xs = map.points.map((point) => point[0]), ys = map.points.map((point) => point[1]);
const range = (all) => all.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);
const [left, right] = range(xs), [top_, bottom] = range(ys);
let view = { x: 0, y: 0, zoom: 1 }, chosen = -1, side = 0;

function place(point) {
  const scale = 0.92 * side / Math.max(right - left, bottom - top_, 1e-9) * view.zoom;
  return [side / 2 + (point[0] - (left + right) / 2) * scale + view.x, side / 2 + (point[1] - (top_ + bottom) / 2) * scale + view.y];
}
function draw() {
  const ratio = devicePixelRatio || 1;
  side = canvas.clientWidth;
  canvas.style.height = `${side}px`;
  canvas.width = canvas.height = Math.round(side * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const radius = Math.max(1.8, Math.min(5, 90 / Math.sqrt(map.points.length))) * Math.min(2, Math.sqrt(view.zoom));
  map.points.forEach((point, i) => {
    if (hidden.has(point[2])) return;
    const [x, y] = place(point);
    context.globalAlpha = i === chosen ? 1 : 0.75;
    context.fillStyle = colourOf.get(point[2]);
    context.beginPath(); context.arc(x, y, i === chosen ? radius * 2 : radius, 0, 7); context.fill();
  });
}
function nearest(event) {
  const box = canvas.getBoundingClientRect(), at = [event.clientX - box.left, event.clientY - box.top];
  let best = [-1, 15 ** 2];
  map.points.forEach((point, i) => {
    if (hidden.has(point[2])) return;
    const [x, y] = place(point), far = (x - at[0]) ** 2 + (y - at[1]) ** 2;
    if (far < best[1]) best = [i, far];
  });
  return best[0];
}
let drag = null;
canvas.addEventListener("pointerdown", (event) => { drag = [event.clientX - view.x, event.clientY - view.y]; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointerup", () => { drag = null; });
canvas.addEventListener("pointermove", (event) => {
  if (drag) { view.x = event.clientX - drag[0]; view.y = event.clientY - drag[1]; }
  chosen = nearest(event);
  const point = map.points[chosen];
  document.getElementById("told").textContent = point ? `${point[3]}  ${point[4]}` : "";
  draw();
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const factor = event.deltaY < 0 ? 1.2 : 1 / 1.2, box = canvas.getBoundingClientRect();
  const x = event.clientX - box.left - side / 2, y = event.clientY - box.top - side / 2;
  view = { x: x - (x - view.x) * factor, y: y - (y - view.y) * factor, zoom: view.zoom * factor };
  draw();
}, { passive: false });
canvas.addEventListener("dblclick", () => { view = { x: 0, y: 0, zoom: 1 }; draw(); });
for (const value of values.slice(0, 24)) {
  const button = document.createElement("button"), dot = document.createElement("span"), item = document.createElement("li");
  dot.className = "dot"; dot.style.background = colourOf.get(value);
  button.append(dot, `${value || "not known"} (${counts.get(value)})`);
  button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => {
    if (!hidden.delete(value)) hidden.add(value);
    button.setAttribute("aria-pressed", String(!hidden.has(value)));
    draw();
  });
  item.append(button); document.getElementById("legend").append(item);
}
document.getElementById("about").textContent =
  `${map.points.length.toLocaleString("en")} images in ${map.archive}, coloured by ${map.color}, model ${map.model}`;
addEventListener("resize", draw);
draw();
