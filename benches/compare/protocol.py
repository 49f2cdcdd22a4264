"""Measures the baselines of docs/benchmarks.md by docs/evaluation.md, on several sets in one run.

    python protocol.py OUT NAME=MANIFEST.csv... [--program m3ret] [--models m3ret-tiny,hog]
        [--networks NAME=FOLDER]... [--disturb NAME=SEED]...

NAME=FOLDER holds `efficientnet.npy` and `resnet.npy` of networks.py for that manifest. `pixels` and
`random:tiny` are always measured; a model that the program does not know is left out, and said so.
With --disturb, a set's simulated radiographs are disturbed into OUT/NAME-disturbed, and measured there;
networks.py has to see them too: --networks NAME-disturbed=FOLDER.

OUT/NAME-evaluation is what `m3ret evaluate` writes. Printed, and written to OUT/tables.md: for each set the floors (what
a difference has to reach, from pixels alone) first, then one table of group means for each metric with
intervals, chance and constant, the differences to pixels, and searches over all modalities.
"""

import argparse
import json
import pathlib
import struct
import subprocess

METRICS = ("map_at_r", "precision_at_5", "hit_at_1")


def pairs(values):
    return dict(value.split("=", 1) for value in values)


def three(x):
    return "-" if x is None else f"{x:.3f}"


def interval(value):
    if value["ci95_low"] is None:
        return three(value["value"])
    return f"{three(value['value'])} [{three(value['ci95_low'])}, {three(value['ci95_high'])}]"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def is_known(program, model, out):
    """Whether the program has the model: one picture is enough to find out."""
    probe = out / "probe.bmp"
    head = b"BM" + struct.pack("<IHHI", 102, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 24, 0, 48, 2835, 2835, 0, 0)
    probe.write_bytes(head + bytes(range(48)))
    words = [program, "embed", probe, "--model", model, "--out", out / "probe.npy"]
    return subprocess.run(words, capture_output=True).returncode == 0


def measure(arguments, name, manifest, models, folder):
    words = [arguments.program, "evaluate", str(manifest), "--models", ",".join(models), "--out", str(folder)]
    networks = pairs(arguments.networks).get(name)
    for network in ("efficientnet", "resnet") if networks else ():
        words += ["--embeddings", f"{network}={pathlib.Path(networks) / network}.npy"]
    print(" ".join(words), flush=True)
    # Status 1 says that an image was refused: it is counted in results.json.
    status = subprocess.run(words, stdout=subprocess.DEVNULL).returncode
    if status not in (0, 1):
        raise SystemExit(f"m3ret evaluate ended with status {status}")


def read(folder):
    found = {}
    for path in sorted(folder.glob("*/results.json")):
        results = json.loads(path.read_text())
        found[results["model"]] = results
    comparisons = json.loads((folder / "comparison.json").read_text())
    first = "pixels"
    names = [first] + [name for name in found if name != first]
    return {name: found[name] for name in names}, comparisons


def label(group):
    n = len(group["tasks"])
    return f"{group['group']} ({n} task{'' if n == 1 else 's'})"


def tables(name, folder):
    found, comparisons = read(folder)
    pixels = found["pixels"]
    text = f"### {name}\n\nWhat a difference has to reach (`expected`, and `at_most` for any two models), from `pixels` and the design alone:\n\n"
    rows = []
    for group in pixels["groups"]:
        cells = [label(group), str(group["n_queries"]), str(group["n_patients"])]
        for metric in METRICS:
            floor = group["resolution"].get(metric)
            cells.append("-" if not floor else f"{three(floor['expected'])} (<= {three(floor['at_most'])})")
        rows.append(cells)
    text += table(["group", "n", "patients", *METRICS], rows)
    for metric in METRICS:
        rows = []
        for group in pixels["groups"]:
            of_models = [next(g for g in results["groups"] if g["group"] == group["group"]) for results in found.values()]
            rows.append([label(group), three(group["chance"][metric]), three(group["constant"][metric]),
                         *(interval(g["metrics"][metric]) for g in of_models)])
        text += f"\n`{metric}`:\n\n" + table(["group", "chance", "constant", *found], rows)
    text += "\nDifferences to `pixels` (`*`: the interval excludes 0), with the half-width that the pair really had:\n\n"
    rows = []
    for metric in METRICS:
        for group in pixels["groups"]:
            cells = [f"{group['group']}, {metric}", three((group["resolution"].get(metric) or {}).get("expected"))]
            for model in list(found)[1:]:
                comparison = next(c for c in comparisons if c["b"] == model)
                row = next(r for r in comparison["rows"] if r["is_group"] and r["metric"] == metric and r["name"] == label(group))
                mark = "*" if row["verdict"] in ("better", "worse") else ""
                half = "" if row["ci95_low"] is None else f" (half-width {(row['ci95_high'] - row['ci95_low']) / 2:.3f})"
                cells.append(f"{row['difference']:+.3f}{mark}{half}")
            rows.append(cells)
    text += table(["group", "expected", *list(found)[1:]], rows)
    apart = [task for task in pixels["tasks"] if task["constant_share"] is not None and task["constant_share"] >= 0.8]
    if apart:
        listed = ", ".join(f"`{task['task']}` ({task['constant_share']:.2f})" for task in apart)
        text += f"\nApart, as a fixed ranking reaches this share of the maximum: {listed}.\n"
    one_class = [skipped["task"] for skipped in pixels["skipped"] if "class" in skipped["reason"]]
    if one_class:
        text += f"\nSkipped, as one side has one class ({len(one_class)}): {', '.join(f'`{task}`' for task in one_class)}.\n"
    rows = []
    for model, results in found.items():
        for mixed in results["mixed"]:
            right, own = mixed["right_of_other_modality_at_5"], mixed["own_modality_at_5"]
            rows.append([model, mixed["relevance"], str(mixed["n_queries"]), interval(right), three(right["chance"]), interval(own), three(own["chance"])])
    if rows:
        text += "\nAll modalities in one gallery, of the first five hits:\n\n"
        text += table(["model", "relevance", "n", "right, of another modality", "chance", "of the query's modality", "chance"], rows)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("sets", nargs="+", metavar="NAME=MANIFEST.csv")
    parser.add_argument("--program", default="m3ret")
    parser.add_argument("--models", default="m3ret-tiny,hog")
    parser.add_argument("--networks", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--disturb", action="append", default=[], metavar="NAME=SEED")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    asked = ["pixels", "random:tiny", *arguments.models.split(",")]
    models = [model for model in asked if is_known(arguments.program, model, arguments.out)]
    for model in set(asked) - set(models):
        print(f"left out: {model} is no model of {arguments.program}")
    sets = {name: pathlib.Path(manifest) for name, manifest in pairs(arguments.sets).items()}
    for name, seed in pairs(arguments.disturb).items():
        folder = arguments.out / f"{name}-disturbed"
        if not (folder / "manifest.csv").is_file():
            words = [arguments.program, "simulate", "radiographs", str(sets[name]), "--out", str(folder), "--disturb", seed]
            print(" ".join(words), flush=True)
            subprocess.run(words, check=False)
        sets[f"{name}-disturbed"] = folder / "manifest.csv"
    text = []
    for name, manifest in sets.items():
        folder = arguments.out / f"{name}-evaluation"
        measure(arguments, name, manifest, models, folder)
        text.append(tables(name, folder))
        (arguments.out / "tables.md").write_text("\n".join(text))
    print("\n".join(text))


main()
