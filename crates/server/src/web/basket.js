/** Gives a person a file that the page made. */
function saveFile(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/* Images that a person put aside: kept while the tab is open, saved as CSV, and shown again from it. */

const basket = (() => {
  const place = "m3ret-basket", columns = ["id", "part", "index", "generation", "model", "fingerprint", "query", "rank", "score"];
  let items = [];
  try { items = JSON.parse(sessionStorage.getItem(place)) || []; } catch { /* Without storage a basket lasts as long as the page. */ }
  const save = () => { try { sessionStorage.setItem(place, JSON.stringify(items)); } catch { /* As above. */ } };
  const keyOf = ({ index, id }) => JSON.stringify([index, id]);
  const has = (item) => items.some((one) => keyOf(one) === keyOf(item));

  /** A cell that no spreadsheet takes for a formula: a quote before what begins like one, or with such a quote. */
  const guarded = (text) => /^['=+\-@\t\r\n]/.test(text) ? `'${text}` : text;
  const plain = (text) => /^'['=+\-@\t\r\n]/.test(text) ? text.slice(1) : text;
  const cell = (value) => {
    const text = guarded(value === null || value === undefined ? "" : String(value));
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const toCsv = () => [columns, ...items.map((item) => columns.map((name) => item[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";

  /** Rows of a CSV; quoted cells may hold commas, line breaks and doubled quotes. */
  function rowsOf(text) {
    const rows = [];
    let row = [], value = "", isQuoted = false;
    const end = () => { row.push(plain(value)); value = ""; };
    for (let i = 0; i < text.length; i++) {
      const c = text[i];
      if (isQuoted) {
        if (c !== '"') value += c;
        else if (text[i + 1] === '"') { value += c; i++; } else isQuoted = false;
      } else if (c === '"') isQuoted = true;
      else if (c === ",") end();
      else if (c === "\n" || c === "\r") {
        if (c === "\r" && text[i + 1] === "\n") i++;
        end();
        rows.push(row);
        row = [];
      } else value += c;
    }
    if (value || row.length) { end(); rows.push(row); }
    return rows.filter((one) => one.some(Boolean));
  }

  /** Reads a saved basket; null where the text is none. */
  function read(text) {
    const [header, ...rows] = rowsOf(text.replace(/^\ufeff/, ""));
    if (!header || !["id", "index", "fingerprint"].every((name) => header.includes(name))) return null;
    const known = columns.filter((name) => header.includes(name));
    return rows.map((row) => Object.fromEntries(known.map((name) => [name, row[header.indexOf(name)] || ""]))).filter((item) => item.id && item.index);
  }

  return {
    get items() { return items; },
    has, read, toCsv,
    add(item) { if (!has(item)) items.push(item); save(); },
    remove(item) { items = items.filter((one) => keyOf(one) !== keyOf(item)); save(); },
    replace(all) { items = all; save(); },
    download() { saveFile("m3ret-basket.csv", "text/csv", toCsv()); },
  };
})();
