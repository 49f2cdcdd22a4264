"""Ranks candidates by the rule of docs/training-log.md, on held-out patients only.

    python3 judge.py FOLDER PROGRAM MODEL [MODEL ...]

FOLDER is that of run.py; a MODEL is the name of a finished run, a model that the program knows, or several finished
runs joined by +, whose vectors are set side by side, each at the same length (needs numpy). Two evaluations are
made below FOLDER/judged (held-out images, and held-out radiographs disturbed with seed 0); each runs again only for
models that it lacks. Printed is a Markdown table: map_at_r of each group, the value of the rule, and beside it
precision_at_5, hit_at_1 and the tasks between CT and radiographs by body part. Numbers in brackets are 95 % intervals of
map_at_r; the last row is the best fixed ranking of the gallery, which never looks at a query.
"""

import json
import pathlib
import subprocess
import sys

# The groups of the rule, each from the evaluation that it is about: the disturbed manifest has a task within X-rays, too.
RULE = {"within": "plain", "within-source": "plain", "pair-disturbed": "disturbed"}
METRICS = ("map_at_r", "precision_at_5", "hit_at_1")


def command(words):
    """Runs the program; status 1 says that an image was refused, which results.json counts."""
    code = subprocess.run([str(word) for word in words], stdout=subprocess.DEVNULL).returncode
    if code not in (0, 1):
        sys.exit(f"{' '.join(map(str, words))} ended with {code}")


def joined(folder, program, manifest, runs, out):
    """Vectors of several runs side by side, a row for each row of the manifest; rows that have none are NaN."""
    import numpy

    arrays = out.parent / f"{out.name}-vectors"
    arrays.mkdir(parents=True, exist_ok=True)
    vectors = []
    for run in runs:
        path = arrays / f"{run}.npy"
        if not path.exists():
            command([program, "embed", manifest, "--model", folder / "runs" / run / "model", "--out", path, "--threads", "1"])
        found = numpy.load(path)
        vectors.append(found / numpy.linalg.norm(found, axis=1, keepdims=True))
    path = arrays / "joined.npy"
    numpy.save(path, (numpy.concatenate(vectors, axis=1) / len(vectors) ** 0.5).astype("float32"))
    return path


def results_of(folder, program, manifest, model, out):
    """Evaluates one model beside `pixels`, which says which tasks are too easy to count, or reads what an earlier run
    left."""
    path = out / ("pixels" if model == "pixels" else "candidate") / "results.json"
    if not path.exists():
        finished = folder / "runs" / model / "model"
        named = ["pixels"] if model == "pixels" or "+" in model else ["pixels", f"candidate={finished if finished.exists() else model}"]
        words = [program, "evaluate", manifest, "--models", ",".join(map(str, named)), "--out", out, "--threads", "1"]
        if "+" in model:
            words += ["--embeddings", f"candidate={joined(folder, program, manifest, model.split('+'), out)}"]
        command(words)
        if model == "pixels" and not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text((out / "results.json").read_text())
    if not path.exists():
        sys.exit(f"{model}: the evaluation left no {path}")
    return json.loads(path.read_text())


def group_mean(results, name, metric):
    """The mean of a group; none where it has no task."""
    found = [group["metrics"][metric]["value"] for group in results["groups"] if group["group"] == name]
    return found[0] if found else None


def with_interval(results, name):
    """The mean map_at_r of a group with its interval."""
    found = [group["metrics"]["map_at_r"] for group in results["groups"] if group["group"] == name]
    return f"{found[0]['value']:.3f} [{found[0]['ci95_low']:.3f}, {found[0]['ci95_high']:.3f}]" if found else "-"


def shown(value):
    """A number of the table."""
    return "-" if value is None else f"{value:.3f}"


def main(folder, program, *models):
    """Prints the table."""
    folder = pathlib.Path(folder).resolve()
    judged = folder / "judged"
    judged.mkdir(exist_ok=True)
    disturbed = judged / "disturbed" / "manifest.csv"
    if not disturbed.exists():
        command([program, "simulate", "radiographs", folder / "validation.csv", "--out", disturbed.parent, "--disturb", "0"])
    print("| model | " + " | ".join(f"{group}, map_at_r" for group in RULE) + " | **rule** | precision_at_5 | hit_at_1 | CT - X-ray by body part |")
    print("|---|" + "---:|" * (len(RULE) + 4))
    for model in models:
        name = model.replace(":", "-").replace("/", "-").replace("+", "-and-")
        results = {
            "plain": results_of(folder, program, folder / "validation.csv", model, judged / f"{name}-plain"),
            "disturbed": results_of(folder, program, disturbed, model, judged / f"{name}-disturbed"),
        }
        found = {metric: [group_mean(results[source], group, metric) for group, source in RULE.items()] for metric in METRICS}
        values = found["map_at_r"]
        rule = "-" if None in values else f"**{sum(values) / len(values):.4f}**"
        beside = [" / ".join(map(shown, found[metric])) for metric in METRICS[1:]]
        tasks = [task for task in results["plain"]["tasks"] if task["task"] in ("cross/CT-DX/body_part", "cross/DX-CT/body_part")]
        cross = ", ".join(f"{task['task'].split('/')[1]} {task['metrics']['map_at_r']['value']:.3f}" for task in tasks)
        cells = [with_interval(results[source], group) for group, source in RULE.items()]
        print(f"| {model} | {' | '.join(cells)} | {rule} | {' | '.join(beside)} | {cross or '-'} |", flush=True)
    constant = {group: [found["constant"] for found in results[source]["groups"] if found["group"] == group] for group, source in RULE.items()}
    cells = [[shown(found[0].get(metric)) if found else "-" for found in constant.values()] for metric in METRICS]
    print(f"| constant | {' | '.join(cells[0])} | - | {' / '.join(cells[1])} | {' / '.join(cells[2])} | - |")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
