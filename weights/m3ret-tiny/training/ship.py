"""Makes what is shipped of a finished run.

    python3 ship.py RUN OUT [NAME [--log-only]]

  OUT/config.json, OUT/model.safetensors   the model, its weights rounded to f16
  OUT/training/NAME-log.csv                the run's log, thinned to about 200 steps
  OUT/training/NAME-curves.svg             its curves

NAME is that of the run's folder unless told. `--log-only` leaves the weights out: the run was not chosen.
"""

import csv
import json
import os
import shutil
import struct
import sys

COLUMNS = ["step", "epoch", "loss", "alignment", "coding_rate", "effective_rank", "lr", "gradient_norm",
           "teacher_hit_at_1", "teacher_precision_at_5", "student_hit_at_1", "student_precision_at_5", "chance"]
PANELS = [
    ("loss", ["loss"]),
    ("alignment and coding rate", ["alignment", "coding_rate"]),
    ("effective rank", ["effective_rank"]),
    ("kNN, held-out patients: hit@1 and precision@5", ["hit_at_1", "precision_at_5", "chance"]),
]
COLOURS = ["#2a78d6", "#d9581f", "#85837b"]


def to_f16(source, target):
    """Copies a safetensors file of f32 as f16."""
    with open(source, "rb") as file:
        (n_header,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(n_header))
        data = file.read()
    tensors, chunks, at = {}, [], 0
    for name, entry in sorted(header.items()):
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", name
        begin, end = entry["data_offsets"]
        values = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
        chunk = struct.pack(f"<{len(values)}e", *values)
        tensors[name] = {"dtype": "F16", "shape": entry["shape"], "data_offsets": [at, at + len(chunk)]}
        chunks.append(chunk)
        at += len(chunk)
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(target, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def entries(run):
    """The log's steps and its looks at the validation part, as flat rows."""
    rows = []
    for line in open(os.path.join(run, "log.jsonl")):
        entry = json.loads(line)
        row = {name: entry[name] for name in COLUMNS if entry.get(name) is not None}
        for who in ("teacher", "student"):
            found = entry.get(f"knn_{who}")
            if found:
                row[f"{who}_hit_at_1"] = found["hit_at_1"]
                row[f"{who}_precision_at_5"] = found["precision_at_5"]
                row["chance"] = found["chance_hit_at_1"]
        rows.append(row)
    return rows


def thinned(rows, most=200):
    """Every look at the validation part, and about `most` steps, each the mean of those around it."""
    steps = [row for row in rows if "loss" in row]
    each = max(1, len(steps) // most)
    kept = []
    for at in range(0, len(steps), each):
        some = steps[at:at + each]
        mean = dict(some[-1])
        for name in ("loss", "alignment", "coding_rate", "effective_rank", "gradient_norm"):
            values = [row[name] for row in some if name in row]
            if values:
                mean[name] = sum(values) / len(values)
        kept.append(mean)
    kept += [row for row in rows if "chance" in row]
    return sorted(kept, key=lambda row: (row["step"], "chance" in row))


def value_of(row, name):
    """A number of a row; of kNN the teacher's, or else the student's, as the finished model is."""
    return row.get(name, row.get(f"teacher_{name}", row.get(f"student_{name}")))


def line(rows, name, box, low, high, last):
    """One curve as a path."""
    left, top, width, height = box
    points = []
    for row in rows:
        value = value_of(row, name)
        if value is not None:
            x = left + width * row["step"] / max(last, 1)
            y = top + height * (1 - (value - low) / ((high - low) or 1))
            points.append(f"{x:.1f} {y:.1f}")
    return "M" + "L".join(points) if points else ""


def curves(rows, title):
    """Four panels of curves as SVG."""
    last = max(row["step"] for row in rows)
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 520" font-family="sans-serif" font-size="12">',
             '<rect width="860" height="520" fill="#fff"/>', f'<text x="20" y="24" font-size="15">{title}</text>']
    panels = [panel for panel in PANELS if any(value_of(row, name) is not None for row in rows for name in panel[1])]
    for idx, (label, names) in enumerate(panels):
        box = (60 + 420 * (idx % 2), 65 + 235 * (idx // 2), 350, 160)
        found = [value_of(row, name) for row in rows for name in names]
        found = [value for value in found if value is not None]
        low, high = min(found), max(found)
        left, top, width, height = box
        parts.append(f'<text x="{left}" y="{top - 8}">{label}</text>'
                     f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#e3e2db"/>'
                     f'<text x="{left - 6}" y="{top + 10}" text-anchor="end">{high:.3g}</text>'
                     f'<text x="{left - 6}" y="{top + height}" text-anchor="end">{low:.3g}</text>'
                     f'<text x="{left + width}" y="{top + height + 16}" text-anchor="end">step {last}</text>')
        for name, colour in zip(names, COLOURS):
            path = line(rows, name, box, low, high, last)
            parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "\n".join(parts) + "\n</svg>\n"


def main(run, out, name=None, log_only=None):
    """Writes the files."""
    name = name or os.path.basename(os.path.normpath(run))
    training = os.path.join(out, "training")
    os.makedirs(training, exist_ok=True)
    rows = thinned(entries(run))
    with open(os.path.join(training, f"{name}-log.csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
    with open(os.path.join(training, f"{name}-curves.svg"), "w") as file:
        file.write(curves(rows, name))
    if log_only is None:
        shutil.copy(os.path.join(run, "model", "config.json"), out)
        to_f16(os.path.join(run, "model", "model.safetensors"), os.path.join(out, "model.safetensors"))


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
