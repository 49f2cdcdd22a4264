/* What a person does on the page, told once for a desk and once for a phone, in light and in dark. */

import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { startServer, runProgram } from "./server.mjs";
import { storedZip } from "./zip.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const testdata = path.resolve(here, "../../testdata");
const shots = path.join(here, "screenshots");
const axe = path.join(here, "node_modules/axe-core/axe.min.js");

/** Opens the page in a browser of its own, and hears of everything that must not happen. */
async function open(browser, server, { width, scheme }) {
  const context = await browser.newContext({ viewport: { width, height: width < 600 ? 844 : 900 }, colorScheme: scheme, acceptDownloads: true,
    hasTouch: width < 600, isMobile: width < 600 });
  const faults = [];
  await context.addInitScript({ path: axe });
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => { console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`); });
  });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("console", (message) => { if (message.type() === "error") faults.push(`console: ${message.text()}`); });
  page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(`${server.origin}/`) && !/^(data|blob):/.test(url)) faults.push(`request to ${url}`);
  });
  page.on("requestfailed", (request) => { if (!/ERR_ABORTED/.test(request.failure().errorText)) faults.push(`failed: ${request.url()} ${request.failure().errorText}`); });
  await page.goto(server.address);
  await page.locator("#work").waitFor();
  assert.ok(!page.url().includes("token"), "the token is left in the address");
  return { page, context, faults, name: `${width}-${scheme}` };
}

const picture = (person, what) => person.page.screenshot({ path: path.join(shots, `${person.name}-${what}.png`) });

/** No finding that keeps somebody from using the page. */
async function accessible({ page, name }, what) {
  const found = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} (${node.failureSummary})`).join("; ")}`);
  });
  assert.deepEqual(found, [], `${name} ${what}`);
}

/** The page is as wide as its window. */
async function fits({ page, name }, what) {
  const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= seen, `${name} ${what}: ${wide} px wide in ${seen}`);
}

async function drop({ page }, files) {
  const sent = await Promise.all(files.map(async (file) => ({ name: path.basename(file), bytes: (await readFile(file)).toString("base64") })));
  const transfer = await page.evaluateHandle((all) => {
    const transfer_ = new DataTransfer();
    for (const { name, bytes } of all) transfer_.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
    return transfer_;
  }, sent);
  await page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
}

const answered = (page) => page.waitForResponse((response) => response.url().endsWith("/search"));
async function searching(person, act) {
  const [response] = await Promise.all([answered(person.page), act()]);
  assert.equal(response.status(), 200, await response.text());
  const answer = await response.json();
  // The cards of this answer are there.
  await person.page.locator(".hit", { hasText: answer.hits[0].score.toFixed(4) }).first().waitFor();
  return { answer, sent: response.request().postData() };
}

/** How many greys a canvas shows: its pixels as they are on the screen. */
async function greysOf({ page }, canvas) {
  const png = (await canvas.screenshot()).toString("base64");
  return page.evaluate(async (bytes) => {
    const image = new Image();
    image.src = `data:image/png;base64,${bytes}`;
    await image.decode();
    const drawn = new OffscreenCanvas(image.width, image.height), context = drawn.getContext("2d");
    context.drawImage(image, 0, 0);
    const greys = new Map(), { data } = context.getImageData(0, 0, image.width, image.height);
    for (let i = 0; i < data.length; i += 4) if (data[i] === data[i + 1] && data[i] === data[i + 2]) greys.set(data[i], (greys.get(data[i]) || 0) + 1);
    return [...greys.entries()].filter(([, n]) => n > 20).length;
  }, png);
}

/** Both volumes are drawn, and where one's crosshair goes the other's goes, too. */
async function volumesSideBySide(person, title) {
  const { page } = person;
  const canvases = page.locator("#box canvas.volume");
  assert.equal(await canvases.count(), 2, title);
  for (const i of [0, 1]) await canvases.nth(i).and(page.locator("[data-at]")).waitFor();
  const where = () => Promise.all([0, 1].map((i) => canvases.nth(i).getAttribute("data-at")));
  for (const i of [0, 1]) assert.ok(await greysOf(person, canvases.nth(i)) > 8, `${title}: canvas ${i} is blank`);
  const before = await where();
  await canvases.nth(1).click({ position: { x: 40, y: 60 } });
  await page.locator(`#box canvas.volume:not([data-at="${before[0]}"])`).nth(1).waitFor();
  const after = await where();
  const shares = after.map((text) => text.split(" ").map(Number));
  for (const axis of [0, 1, 2]) assert.ok(Math.abs(shares[0][axis] - shares[1][axis]) < 0.01, `${title}: crosshairs are not linked: ${after}`);
  assert.notDeepEqual(after, before, `${title}: the crosshair did not move`);
  await page.keyboard.press("ArrowUp");
  await page.locator(`#box canvas.volume:not([data-at="${after[1]}"])`).nth(1).waitFor();
  const stepped = await where();
  assert.ok(Number(stepped[1].split(" ")[2]) > Number(after[1].split(" ")[2]), `${title}: the key did not go a slice up`);
  // Without the link only one moves.
  await page.keyboard.press("l");
  await page.keyboard.press("ArrowDown");
  await page.locator(`#box canvas.volume:not([data-at="${stepped[1]}"])`).last().waitFor();
  assert.equal((await where())[0], stepped[0], `${title}: the other moved without a link`);
  await page.keyboard.press("l");
}

async function dicomSeries(person, files) {
  const { answer } = await searching(person, () => drop(person, files));
  assert.equal(answer.query.dims, "3d");
  assert.ok(answer.query.object.startsWith("tmp-"));
  await person.page.locator("#query img").first().evaluate((image) => image.decode());
  await picture(person, "1-series");
  return answer;
}

/** A folder's index, hidden files and notes are no part of its series. */
async function folderWithOthers(person, files, folder) {
  const others = await Promise.all([["DICOMDIR", "x"], [".hidden", "x"], ["notes.txt", "notes of a person"]].map(async ([name, text]) => {
    const file = path.join(folder, name);
    await writeFile(file, text);
    return file;
  }));
  const { answer } = await searching(person, () => drop(person, [...others, ...files]));
  assert.equal(answer.query.dims, "3d");
  await person.page.getByText("8 files, 3 others left out").waitFor();
}

/** A picture from the clipboard. */
async function paste(person) {
  const { page } = person, bytes = (await readFile(path.join(testdata, "real/kermany16-00010.jpg"))).toString("base64");
  const transfer = await page.evaluateHandle((text) => {
    const transfer_ = new DataTransfer();
    transfer_.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], "image.jpg", { type: "image/jpeg" }));
    return transfer_;
  }, bytes);
  const { answer } = await searching(person, () => page.evaluate((clipboardData) => { dispatchEvent(new ClipboardEvent("paste", { clipboardData })); }, transfer));
  assert.equal(answer.hits[0].id, "kermany16-00010.jpg");
}

async function volumes(person, what, answer) {
  const { page } = person;
  const rank = answer.hits.findIndex((hit) => hit.dims === "3d");
  assert.ok(rank >= 0, "no volume among the hits");
  await page.locator(".hit").nth(rank).getByRole("button", { name: "Compare" }).click();
  await volumesSideBySide(person, what);
  await picture(person, `${what}-volumes`);
  await accessible(person, `${what} volumes`);
  await fits(person, `${what} volumes`);
}

/** From hit to hit and back to one, more often than a browser has contexts for canvases. */
async function leafThrough({ page }, index) {
  const n_hits = await page.locator(".hit").count();
  assert.ok(n_hits > index && n_hits > 8, `${n_hits} hits`);
  const press = async (key, n) => { for (let i = 0; i < n; i++) await page.keyboard.press(key); };
  await press("ArrowRight", n_hits);
  await press("ArrowLeft", n_hits);
  await press("ArrowRight", index);
}

async function windows(person) {
  const { page } = person;
  const level = page.getByLabel(/^Hit.*: level$/);
  await page.getByRole("button", { name: "Lung" }).click();
  assert.equal(await level.inputValue(), "-600");
  await page.keyboard.press("3");
  assert.equal(await level.inputValue(), "400");
  await level.fill("50");
  await level.press("Tab");
  assert.equal(await level.inputValue(), "50");
  await page.getByLabel("planes").selectOption("coronal");
  await picture(person, "3-bone-coronal");
  await page.keyboard.press("Escape");
  await page.locator("#box:not([open])").waitFor({ state: "attached" });
}

async function regionOfPicture(person) {
  const { page } = person;
  await page.keyboard.press("r");
  const frame = page.locator(".region-form .frame");
  await frame.waitFor();
  const box = await frame.boundingBox();
  await page.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.35);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.7, box.y + box.height * 0.65, { steps: 4 });
  await page.mouse.up();
  const left = Number(await page.getByLabel("left edge in percent").inputValue());
  assert.ok(left > 20 && left < 45, `the rectangle begins at ${left} %`);
  await picture(person, "5-region");
  await accessible(person, "region");
  await fits(person, "region");
  const { answer, sent } = await searching(person, () => page.getByRole("button", { name: "Search with this region" }).click());
  assert.equal(JSON.parse(sent).region.length, 4);
  assert.equal(answer.query.region.length, 4);
  assert.equal(answer.agreement, null);
  await page.locator("#query .region").waitFor();
  await picture(person, "6-region-hits");
}

async function regionOfVolume(person) {
  const { page } = person;
  await page.getByRole("button", { name: "Search a region" }).click();
  await page.getByLabel("first slice").fill("3");
  await page.getByLabel("left edge in percent").fill("10");
  await page.getByLabel("left edge in percent").press("Tab");
  await picture(person, "7-region-volume");
  const { sent } = await searching(person, () => page.getByRole("button", { name: "Search with this region" }).click());
  const { region } = JSON.parse(sent);
  assert.ok(region.length === 6 && Math.abs(region[0] - 0.1) < 1e-9 && region[2] > 0 && region[5] === 1, `${region}`);
}

async function severalImages(person) {
  const { page } = person;
  await page.locator(".hit").nth(0).getByRole("button", { name: "More" }).click();
  await page.locator(".hit").nth(1).focus();
  await page.keyboard.press("m");
  await page.locator(".hit").nth(2).getByRole("button", { name: "Less" }).click();
  assert.equal(await page.locator("#examples .chip.like").count(), 3, "the query and two hits");
  assert.equal(await page.locator("#examples .chip.unlike").count(), 1);
  await picture(person, "8-several");
  const { answer, sent } = await searching(person, () => page.getByRole("button", { name: "Search with these" }).click());
  const { like, unlike } = JSON.parse(sent);
  assert.deepEqual([like.length, unlike.length], [3, 1]);
  for (const hit of answer.hits) assert.ok(![...like, ...unlike].includes(hit.id), "an example is a hit of itself");
  assert.equal(answer.agreement, null);
  assert.match(answer.notes.join(" "), /mean of the vectors of 3 images, less 0.5 times that of 1 image/);
  await picture(person, "9-several-hits");
  await accessible(person, "several images");
  await page.getByRole("button", { name: "Clear" }).click();
}

async function saveAndReplay(person, folder) {
  const { page } = person;
  for (const i of [0, 1, 2]) await page.locator(".hit").nth(i).getByRole("button", { name: "Basket" }).click();
  await page.locator(".hit").nth(3).focus();
  await page.keyboard.press("a");
  const kept = await page.locator(".hit .path").evaluateAll((all) => all.slice(0, 4).map((one) => one.textContent));
  const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save as CSV" }).click()]);
  const file = path.join(folder, "basket.csv");
  await saved.saveAs(file);
  const text = await readFile(file, "utf8");
  assert.match(text, /^id,part,index,generation,model,fingerprint,query,rank,score\r\n/);
  assert.equal(text.trim().split("\r\n").length, 5);
  assert.match(text, /m3ret-tiny/);
  await page.reload();
  await page.getByText("Basket: 4 images").waitFor();
  await page.getByRole("button", { name: "Empty" }).click();
  await page.getByRole("button", { name: "Empty" }).waitFor({ state: "detached" });
  // One image that the index does not have, with a name that a spreadsheet would compute.
  const row = text.trim().split("\r\n")[1].split(",");
  await writeFile(file, `${text}'=1+1,,${row.slice(2).join(",")}\r\n`);
  await drop(person, [file]);
  await page.getByText("Shown: 4 of 5 images of basket.csv.").waitFor();
  await page.getByText("No longer in g: 1 image.").waitFor();
  assert.deepEqual(await page.locator(".hit .path").evaluateAll((all) => all.map((one) => one.textContent)), kept);
  await picture(person, "10-basket");
  await accessible(person, "basket");
  await fits(person, "basket");
}

/** What begins like a formula is guarded in the file and comes back as it was. */
async function formulas({ page }) {
  const [text, back] = await page.evaluate(() => {
    const ids = ["=1+1", "+1", "-1", "@x", "'=x", "\tx", "a,\"b\"\nc", "plain"];
    basket.replace(ids.map((id) => ({ id, index: "g", fingerprint: "f", query: "=HYPERLINK(1)" })));
    const csv = basket.toCsv(), read = basket.read(csv);
    basket.replace([]);
    return [csv, [ids, read.map(({ id }) => id)]];
  });
  assert.deepEqual(back[1], back[0]);
  for (const cell of text.split(/[,\r\n]+/)) assert.ok(!/^"?[=+\-@\t]/.test(cell), `a formula: ${cell}`);
}

async function clip(person) {
  const { page } = person;
  const { answer } = await searching(person, () => page.locator("#file").setInputFiles(path.join(testdata, "real/itk-pocus-00008.mp4")));
  assert.equal(answer.query.dims, "video");
  const rank = Math.max(0, answer.hits.findIndex((hit) => hit.dims === "video"));
  await page.locator(".hit").nth(rank).getByRole("button", { name: "Compare" }).click();
  const tag = page.locator("#box .leafed .tag").first();
  await tag.waitFor();
  // Both sides are clips.
  await page.locator("#box .leafed").nth(1).waitFor();
  const before = await tag.textContent();
  await page.keyboard.press(".");
  assert.notEqual(await tag.textContent(), before, "no next frame");
  await page.getByRole("button", { name: "Play" }).first().click();
  await page.getByRole("button", { name: "Pause" }).waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await picture(person, "11-clip");
  await page.keyboard.press("Escape");
}

async function zips(person, files, folder) {
  const { page } = person;
  const file = path.join(folder, "series.zip");
  await writeFile(file, storedZip(await Promise.all(files.map(async (one) => [path.basename(one), await readFile(one)]))));
  const { answer } = await searching(person, () => page.locator("#file").setInputFiles(file));
  assert.equal(answer.query.dims, "3d");
  const two = path.join(testdata, "real");
  await writeFile(file, storedZip([["a.jpg", await readFile(path.join(two, "kermany16-00010.jpg"))], ["b.jpg", await readFile(path.join(two, "kermany16-00011.jpg"))]]));
  await page.locator("#file").setInputFiles(file);
  await page.getByText("holds several images or none").waitFor();
}

/** A patient leaves the index, and a receipt says so without the number. */
async function erasePatient(person, patient, folder) {
  const { page } = person;
  const rows = async () => Number((await page.locator("#about").textContent()).match(/^([\d,]+) images/)[1].replace(",", ""));
  const before = await rows();
  await page.getByRole("button", { name: "Erase a patient" }).click();
  const number = page.getByLabel("PatientID", { exact: true }), go = page.getByRole("button", { name: "Erase", exact: true });
  await number.fill("nobody-of-this-name");
  await go.click();
  assert.ok(await page.getByLabel("I know that").evaluate((box) => !box.checkValidity()), "erased without being sure");
  await page.getByLabel("I know that").check();
  await go.click();
  await page.getByText("No image of this patient is in the indexes").waitFor();
  await number.fill(patient);
  await page.getByLabel("reason").fill("as asked");
  await picture(person, "12-erase");
  await accessible(person, "erase");
  await fits(person, "erase");
  await go.click();
  const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save the receipt" }).click()]);
  await picture(person, "13-erased");
  await accessible(person, "erased");
  const file = path.join(folder, "receipt.json");
  await saved.saveAs(file);
  const text = await readFile(file, "utf8"), [place] = JSON.parse(text).places;
  assert.ok(!text.includes(patient), "the receipt names the patient");
  assert.ok(place.counts.n_rows > 0 && place.counts.n_thumbnails > 0 && place.scan.n_found === 0 && place.scan.n_traces > 0, text);
  await runProgram(["erase", "--verify", file, "-d", path.join(folder, "g.m3i")]);
  await page.getByRole("button", { name: "Close" }).click();
  assert.equal(await page.locator(".hit").count(), 0, "hits of before are left");
  await page.waitForFunction((n) => !document.querySelector("#about").textContent.startsWith(`${n} `), before.toLocaleString("en"));
  assert.equal(await rows(), before - place.counts.n_rows);
}

/** Tells the story; where it ends early, says what the page said, and leaves a picture of it. */
async function story(browser, server, size, folder) {
  const person = await open(browser, server, size);
  try {
    await told(person, size, folder);
  } catch (error) {
    await picture(person, "failed");
    console.error(`${person.name}: ${person.faults.join("\n") || "the page said nothing"}`);
    throw error;
  }
  await person.context.close();
  console.log(`the page at ${person.name}${size.isShort ? ", in short" : ""}: well`);
}

async function told(person, size, folder) {
  const { page } = person;
  const series = (await readdir(path.join(testdata, "dicom/series_axial"))).sort().map((name) => path.join(testdata, "dicom/series_axial", name));
  await picture(person, "0-begin");
  await accessible(person, "begin");
  await volumes(person, "2-series", await dicomSeries(person, series));
  await accessible(person, "series");
  await fits(person, "series");
  await page.getByRole("button", { name: "Close" }).click();
  if (!size.isShort) {
    const ct = await searching(person, () => page.locator("#file").setInputFiles(path.join(testdata, "real/totalseg-00007.nii.gz")));
    await regionOfVolume(person);
    const back = await searching(person, () => page.keyboard.press("b"));
    assert.deepEqual(back.answer.hits.map(({ id }) => id), ct.answer.hits.map(({ id }) => id));
    await searching(person, () => page.locator(".hit", { hasText: "CT" }).first().getByRole("button", { name: "Search like this" }).click());
    const again = await searching(person, () => page.keyboard.press("b"));
    assert.deepEqual(again.answer.hits.map(({ id }) => id), ct.answer.hits.map(({ id }) => id));
    await searching(person, () => page.locator(".hit", { hasText: "CT" }).first().getByRole("button", { name: "Search like this" }).click());
    const cts = await page.locator(".hit", { hasText: "CT" }).count();
    assert.ok(cts > 0);
    await page.locator(".hit", { hasText: "CT" }).first().getByRole("button", { name: "Compare" }).click();
    await volumesSideBySide(person, "CT");
    const modalities = await page.locator(".hit .what").allTextContents();
    await leafThrough(person, modalities.findIndex((text) => text.includes("CT")));
    await volumesSideBySide(person, "CT again");
    await picture(person, "4-ct");
    await windows(person);
    await searching(person, () => page.locator("#file").setInputFiles(path.join(testdata, "real/drr-totalseg-00001.png")));
    await regionOfPicture(person);
    await searching(person, () => page.getByRole("button", { name: "Search the whole image" }).click());
    await severalImages(person);
    await saveAndReplay(person, folder);
    await formulas(person);
    await paste(person);
    await folderWithOthers(person, series, folder);
    await clip(person);
    await zips(person, series, folder);
    await erasePatient(person, size.patient, folder);
  }
  // The one refusal that the story asks for is an answer that the browser reports, too.
  const left = person.faults.filter((fault) => !/status of 422/.test(fault));
  assert.deepEqual(left, [], person.name);
}

const folder = await mkdtemp(path.join(tmpdir(), "m3ret-page-"));
await rm(shots, { recursive: true, force: true });
await mkdir(shots, { recursive: true });
let browser = null, server = null;
try {
  await runProgram(["index", "build", path.join(folder, "g.m3i"), path.join(testdata, "real/manifest.csv"), "--thumbnails"]);
  server = await startServer(["-d", path.join(folder, "g.m3i"), "--spool", path.join(folder, "spool")]);
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-background-networking", "--disable-component-update", "--no-first-run"] });
  for (const size of [{ width: 1280, scheme: "light", patient: "ge-head" }, { width: 390, scheme: "dark", patient: "vocalfolds-patient1" }, { width: 1280, scheme: "dark", isShort: true }, { width: 390, scheme: "light", isShort: true }]) {
    await story(browser, server, size, folder);
  }
} finally {
  if (browser) await browser.close();
  if (server) await server.end();
  await rm(folder, { recursive: true, force: true });
}
