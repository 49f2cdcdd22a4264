"""Runs the trainings of m3ret-small one after another, at low priority, resumable at any time.

    python3 run.py go FOLDER PROGRAM NAME [NAME ...]    starts or resumes the named runs, in this order
    python3 run.py status FOLDER                        a line each: steps, loss, held-out numbers, core-hours

FOLDER holds everything and lies outside the checkout, for example ~/.local/share/m3ret/m3ret-small:

    train.csv, validation.csv, data.csv   what parts.py made of the pools
    cache/                                prepared images
    programs/                             each program that began a run; a run is resumed with its own
    runs/NAME/                            the run (docs/pretraining.md), and cpu.csv: time, seconds of CPU
    snapshots/NAME/step-N/                the encoder alone, at each checkpoint

NAME.toml beside this script is the config of a run; a name with a seed, NAME-1, takes NAME.toml and seed 1.
Where runs/NAME is lost but a snapshot is left, the run begins from the newest snapshot with the steps that are
left, and says so. A snapshot holds the encoder alone: decoder or head, the optimiser's moments, warm-up and the
order of the data begin again. Snapshots are named by the steps of all lives of a run together.
"""

import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
TICK = 20


def program_of(folder, program, name):
    """The program that began a run, or a copy of `program` for a run that begins now."""
    note = folder / "runs" / f"{name}.program"
    if not note.exists():
        digest = hashlib.sha256(pathlib.Path(program).read_bytes()).hexdigest()[:16]
        kept = folder / "programs" / f"m3ret-{digest}"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(program, kept)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(kept.name + "\n")
    return folder / "programs" / note.read_text().strip()


def config_of(name):
    """The config file and the seed of a run."""
    path, seed = HERE / f"{name}.toml", "0"
    seeded = re.fullmatch(r"(.+)-(\d+)", name)
    if not path.exists() and seeded:
        path, seed = HERE / f"{seeded[1]}.toml", seeded[2]
    if not path.exists():
        sys.exit(f"{name}: found no {path.name} beside run.py")
    return path, seed


def newest(folder, pattern):
    """The entry of the highest step, or none."""
    found = [path for path in folder.glob(pattern) if re.search(r"step-(\d+)$", path.name)]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def command_of(folder, program, name):
    """The command that starts or resumes a run; none if it is finished."""
    path, seed = config_of(name)
    run = folder / "runs" / name
    if (run / "model" / "model.safetensors").exists():
        return None
    sets = {"out": str(run), "manifests": json.dumps([str(folder / "train.csv")]), "seed": seed,
            "images.cache": str(folder / "cache")}
    teachers = tomllib.loads(path.read_text()).get("salt", {}).get("teachers", [])
    if teachers:
        sets["salt.teachers"] = json.dumps([str(folder / teacher) for teacher in teachers])
    command = [str(program_of(folder, program, name)), "pretrain", str(path)]
    snapshot = newest(folder / "snapshots" / name, "step-*")
    if (run / "config.toml").exists():
        command.append("--resume")
    elif snapshot:
        done = int(snapshot.name.split("-")[1])
        steps = int(re.search(r"^steps = (\d+)", path.read_text(), re.M)[1])
        if done >= steps:
            print(f"{name}: finished; the run's folder is lost, and its encoder is {snapshot}", flush=True)
            return None
        print(f"{name}: the run's folder is lost; begins from the encoder of its snapshot at step {done} of {steps}, "
              "with a new decoder or head, new moments and a new warm-up", flush=True)
        sets |= {"init": str(snapshot), "train.steps": str(steps - done)}
        offset_of(folder, name).write_text(f"{done}\n")
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    return command


def offset_of(folder, name):
    """The file that says how many steps the earlier lives of a run made."""
    path = folder / "runs" / f"{name}.offset"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def keep(folder, name, checkpoint):
    """Copies the encoder of a checkpoint, whole or not at all."""
    offset = offset_of(folder, name)
    step = int(checkpoint.name.split("-")[1]) + (int(offset.read_text()) if offset.exists() else 0)
    kept = folder / "snapshots" / name / f"step-{step:09}"
    if kept.exists():
        return
    unfinished = kept.with_name(f"unfinished-{kept.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        shutil.copytree(checkpoint / "model", unfinished)
        unfinished.rename(kept)
    except OSError as error:
        # The run removes old checkpoints while it goes on.
        print(f"{name}: {checkpoint.name} was not kept: {error}", flush=True)


def cpu_seconds(pid):
    """CPU time that a process has taken so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(folder, name, process):
    """Notes the CPU time of a run and keeps snapshots while it goes."""
    run, began = folder / "runs" / name, datetime.datetime.now().isoformat(timespec="seconds")
    while process.poll() is None:
        time.sleep(TICK)
        try:
            taken = cpu_seconds(process.pid)
        except OSError:
            continue
        if run.exists():
            with open(run / "cpu.csv", "a") as file:
                file.write(f"{began},{taken:.1f}\n")
        checkpoint = newest(run / "checkpoints", "step-*") if run.exists() else None
        if checkpoint:
            keep(folder, name, checkpoint)
    checkpoint = newest(run / "checkpoints", "step-*")
    if checkpoint:
        keep(folder, name, checkpoint)
    return process.returncode


def go(folder, program, *names):
    """Runs them in order."""
    for name in names:
        command = command_of(folder, program, name)
        if command is None:
            print(f"{name}: finished before", flush=True)
            continue
        print(f"{name}: {' '.join(command)}", flush=True)
        (folder / "logs").mkdir(exist_ok=True)
        with open(folder / "logs" / f"{name}.txt", "a") as log:
            process = subprocess.Popen(["nice", "-n", "19", *command], stdout=log, stderr=log)
            code = watch(folder, name, process)
        print(f"{name}: ended with {code}", flush=True)
        if code != 0:
            sys.exit(f"{name} failed; its words are in {folder / 'logs' / (name + '.txt')}")


def spent(run):
    """CPU seconds of a run over all its starts."""
    starts = {}
    path = run / "cpu.csv"
    for line in path.read_text().splitlines() if path.exists() else []:
        began, seconds = line.split(",")
        starts[began] = float(seconds)
    return sum(starts.values())


def status(folder):
    """Prints a line for each run."""
    for run in sorted((folder / "runs").iterdir()):
        log = run / "log.jsonl"
        if not log.exists():
            continue
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        steps = [entry for entry in entries if "loss" in entry]
        looks = [entry for entry in entries if entry.get("knn_student")]
        loss = f"{steps[-1]['loss']:.4f}" if steps else "-"
        held = f"{looks[-1]['knn_student']['precision_at_5']:.3f}" if looks else "-"
        is_done = (run / "model" / "model.safetensors").exists()
        print(f"{run.name:24} step {steps[-1]['step'] if steps else 0:>7}  loss {loss:>8}  "
              f"kNN precision@5 {held:>6}  {spent(run) / 3600:6.2f} core-h  {'finished' if is_done else ''}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["go"] and len(sys.argv) > 4:
        go(pathlib.Path(sys.argv[2]).resolve(), *sys.argv[3:])
    elif sys.argv[1:2] == ["status"] and len(sys.argv) == 3:
        status(pathlib.Path(sys.argv[2]).resolve())
    else:
        sys.exit(__doc__)
