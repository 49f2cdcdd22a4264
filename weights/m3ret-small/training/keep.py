"""Keeps what a run of run.py leaves in the checkout: the encoder in 16 bits, a thinned log, and curves.

    python3 keep.py FOLDER NAME [MODEL_FOLDER]

FOLDER is that of run.py. NAME-log.csv and NAME-curves.svg are written beside this script; MODEL_FOLDER gets the model
of a finished run. Needs numpy.
"""

import csv
import json
import pathlib
import shutil
import struct
import sys

import numpy

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = ["step", "epoch", "loss", "alignment", "coding_rate", "effective_rank", "lr", "gradient_norm"]
LOOKS = {"teacher": "knn_teacher", "student": "knn_student"}
# About as many rows of the log are kept.
N_ROWS = 200
PANELS = [("loss", ["loss"]), ("effective rank", ["effective_rank"]), ("coding rate", ["coding_rate"]),
          ("kNN, held-out patients: hit@1 and precision@5", ["hit_at_1", "precision_at_5", "chance"])]
COLOURS = ["#2a78d6", "#d9581f", "#85837b"]


def rows_of(path):
    """The rows of a log, thinned: each has the means of the steps since the last; every look at the held-out part is
    kept."""
    entries = [json.loads(line) for line in path.open()]
    last = max(entry["step"] for entry in entries)
    every = max(1, last // N_ROWS)
    rows, since = [], []
    for entry in entries:
        since += [entry] if entry.get("loss") is not None else []
        looks = {name: entry[key] for name, key in LOOKS.items() if entry.get(key)}
        if not looks and (entry["step"] + 1) % every:
            continue
        row = {"step": entry["step"], "epoch": entry.get("epoch")}
        for name in COLUMNS[2:] if since else []:
            found = [step[name] for step in since if step.get(name) is not None]
            row[name] = sum(found) / len(found) if found else None
        since = []
        for name, look in looks.items():
            row |= {f"{name}_hit_at_1": look["hit_at_1"], f"{name}_precision_at_5": look["precision_at_5"],
                    "chance": look["chance_hit_at_1"]}
        rows.append(row)
    return rows


def points_of(rows, name):
    """Steps and values of one curve; of two networks the teacher's, which is the model."""
    names = [name, f"teacher_{name}", f"student_{name}"]
    points = []
    for row in rows:
        found = [row[name] for name in names if row.get(name) is not None]
        points += [(row["step"], found[0])] if found else []
    return points


def panel(title, curves, place):
    """One diagram of 350 x 160, as lines of SVG; nothing where there is no value."""
    curves = [curve for curve in curves if curve]
    if not curves:
        return []
    x, y = 60 + 420 * (place % 2), 65 + 240 * (place // 2)
    low, high = (pick(value for curve in curves for _, value in curve) for pick in (min, max))
    last = max(step for curve in curves for step, _ in curve)

    def at(step, value):
        return f"{x + 350 * step / max(last, 1):.1f} {y + 160 * (high - value) / ((high - low) or 1):.1f}"

    lines = [f'<text x="{x}" y="{y - 8}">{title}</text><rect x="{x}" y="{y}" width="350" height="160" fill="none" '
             f'stroke="#e3e2db"/><text x="{x - 6}" y="{y + 10}" text-anchor="end">{high:.3g}</text><text x="{x - 6}" '
             f'y="{y + 160}" text-anchor="end">{low:.3g}</text><text x="{x + 350}" y="{y + 176}" '
             f'text-anchor="end">step {last}</text>']
    for curve, colour in zip(curves, COLOURS):
        lines.append(f'<path d="M{"L".join(at(*point) for point in curve)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return lines


def halved(source, out):
    """Writes a safetensors file again with numbers of 16 bits."""
    data = source.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header, parts, start = json.loads(data[8:8 + n]), [], 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, end = entry["data_offsets"]
        values = numpy.frombuffer(data[8 + n + first:8 + n + end], {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        assert numpy.abs(values).max(initial=0) < 65504, f"{name} does not fit 16 bits"
        parts.append(values.astype("<f2").tobytes())
        entry |= {"dtype": "F16", "data_offsets": [start, start + len(parts[-1])]}
        start += len(parts[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def main(folder, name, model=None):
    """Keeps one run."""
    run = pathlib.Path(folder) / "runs" / name
    rows = rows_of(run / "log.jsonl")
    columns = COLUMNS + [f"{who}_{what}" for who in LOOKS for what in ("hit_at_1", "precision_at_5")] + ["chance"]
    with open(HERE / f"{name}-log.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        for row in rows:
            table.writerow("" if row.get(column) is None else f"{row[column]:.6g}" for column in columns)
    lines = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 520" font-family="sans-serif" font-size="12">',
             '<rect width="860" height="520" fill="#fff"/>', f'<text x="20" y="24" font-size="15">{name}</text>']
    panels = [(title, [points_of(rows, curve) for curve in curves]) for title, curves in PANELS]
    for place, (title, curves) in enumerate(found for found in panels if any(found[1])):
        lines += panel(title, curves, place)
    (HERE / f"{name}-curves.svg").write_text("\n".join([*lines, "</svg>"]) + "\n")
    if model:
        out = pathlib.Path(model)
        out.mkdir(parents=True, exist_ok=True)
        halved(run / "model" / "model.safetensors", out / "model.safetensors")
        for other in ("config.json", "README.md"):
            shutil.copy2(run / "model" / other, out / other)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
