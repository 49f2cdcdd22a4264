"""Asks the demo's gallery, prints the answers and writes a report.

    python3 tools/demo/ask.py OUT --m3ret PROGRAM --model MODEL --began SECONDS

OUT holds manifest.csv and gallery.m3i; OUT/report.html is written. SECONDS is when the demo began, since 1970.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import manifest
import report

N_HITS = 6
TIMEOUT_S = 300
JPEG_WIDTH = 480


@dataclasses.dataclass(frozen=True)
class Question:
    """A query: the first of some images that is there, and what may be found."""

    title: str
    text: str
    images: tuple  # ends of paths in the manifest, the best first
    filters: tuple = ()  # (column, value)
    exclude: tuple = ()


# What works comes first, what fails last.
QUESTIONS = [
    Question("Simulated X-ray to CT", "This X-ray was computed from a CT. Which CT is it from? Volumes are found"
             " by their projections.",
             ("radiographs/cranium-whole-lat.png", "real/drr-totalseg-00001.png"), filters=(("modality", "CT"),)),
    Question("The same X-ray, disturbed", "Another visit's picture: turned, cropped, windowed otherwise, noisy.",
             ("disturbed/cranium-whole-lat.png", "disturbed/lidc-chest-whole-ap.png"), filters=(("modality", "CT"),)),
    Question("Mammogram to other views", "Which images are like this mammogram? Three other views of the same patient"
             " are there, and four of another.", ("mammogram-a-left-cc.dcm",)),
    Question("CT to CT", "Which CT of other patients is like this head CT?",
             ("dcm-qa-ct-00011.nii.gz",), filters=(("modality", "CT"),), exclude=("same_patient",)),
    Question("Clip to clip", "Which clips are like this ultrasound clip?",
             ("heart-us-cine.dcm", "itk-pocus-clarius-00003.mp4"), filters=(("dims", "video"),)),
    Question("Endoscopy to everything", "Which images are like this still of a larynx?", ("vocalfolds-00002.jpg",)),
    Question("CT to MR", "Which MR is like this head CT? The shipped weights never saw an MR.",
             ("cranium-whole.nii", "dcm-qa-ct-00005.nii.gz"), filters=(("modality", "MR"),)),
    Question("X-ray to X-ray", "Which X-rays of other patients are like this chest X-ray? Most X-rays here are simulated,"
             " and look unlike it.",
             ("chest-cr.dcm", "kermany16-00010.jpg"), filters=(("modality", "DX"),), exclude=("same_patient",)),
    Question("What does not work: a real X-ray to CT", "Which CT is like this chest X-ray? No CT here is of this patient,"
             " and the encoder hardly tells body parts across X-ray and CT.",
             ("kermany16-00011.jpg",), filters=(("modality", "CT"),)),
]


def command(program, *arguments):
    """Runs m3ret and returns its JSON objects."""
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=TIMEOUT_S, check=False)
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    if not objects:
        raise RuntimeError(done.stderr.strip())
    return objects


def query_of(question, rows):
    """Returns the manifest's row that a question asks with, if it and something to find are there."""
    fitting = [row for row in rows if all(row[column] == value for column, value in question.filters)]
    for image in question.images:
        for row in rows:
            if ("/" + row["path"]).endswith("/" + image) and any(other is not row for other in fitting):
                return row
    return None


def answer(question, row, options):
    """Asks one question; the answer holds the manifest's row of the query and of every hit."""
    filters = [part for column, value in question.filters for part in ("--filter", f"{column}={value}")]
    exclude = [part for what in question.exclude for part in ("--exclude", what)]
    gallery = options.out / "gallery.m3i"
    return command(options.m3ret, "search", "-d", str(gallery), "-i", str(options.out / row["path"]), "-k", str(N_HITS),
                   "--json", "--model", options.model, *filters, *exclude)[0]


def pictures(paths, options):
    """Draws images as m3ret shows them, as small JPEG; of an image that cannot be drawn, none."""
    drawn = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {str(options.out / path): path for path in sorted(paths)}
        target = os.path.join(folder, "picture.png")
        for image in command(options.m3ret, "inspect", "--json", "--thumbnail", target, *files):
            if image.get("thumbnail"):
                drawn.setdefault(files[image["path"]], small_jpeg(image["thumbnail"]))
    return {path: picture for path, picture in drawn.items() if picture}


def small_jpeg(path):
    """Makes a picture fit for a page, with the program that already reads the videos."""
    scale = f"scale='min({JPEG_WIDTH},iw)':-2:flags=area"
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-vf", scale, "-q:v", "4", "-f", "mjpeg", "-"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
    return done.stdout if done.returncode == 0 else None


def words(row):
    """Says what an image is."""
    return f"{row['modality']} {row['body_part']}".strip()


def tell(asked, number):
    """Prints a question and its hits."""
    print(f"\n  {number} {asked.question.title}: {asked.question.text}")
    mark = "   * seen in training" if asked.row["trained_on"] else ""
    print(f"      asked with {words(asked.row)}, {pathlib.PurePath(asked.row['path']).name}{mark}")
    print(f"      {report.agreement_of(asked)}")
    for hit in asked.hits:
        mark = "   * seen in training" if hit.row["trained_on"] else ""
        name = pathlib.PurePath(hit.row["path"]).name
        view = f", seen from: {hit.view}" if hit.view else ""
        print(f"      {hit.rank}  {hit.score:6.3f}  {words(hit.row):<14}  {hit.relation:<13}  {name}{view}{mark}")


def ask_all(rows, options):
    """Asks every question that the images allow."""
    by_path = {row["path"]: row for row in rows}
    asked = []
    for number, question in enumerate(QUESTIONS, 1):
        row = query_of(question, rows)
        if row is None:
            print(f"\n  {number}/{len(QUESTIONS)} {question.title}: left out, its images could not be fetched")
            continue
        told = answer(question, row, options)
        hits = [report.Hit(hit["rank"], hit["score"], hit["relation"].replace("_", " "), hit["view"], by_path[hit["path"]])
                for hit in told["hits"]]
        asked.append(report.Asked(question, row, told["agreement"], hits))
        tell(asked[-1], f"{number}/{len(QUESTIONS)}")
    return asked


def main():
    """Asks, prints, and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--m3ret", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--began", required=True, type=float)
    options = parser.parse_args()
    rows = manifest.read(options.out / "manifest.csv")
    asked = ask_all(rows, options)
    shown = {row["path"] for one in asked for row in [one.row, *(hit.row for hit in one.hits)]}
    version = subprocess.run([options.m3ret, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0]
    page = report.page(asked, pictures(shown, options), rows, report.Made(
        version, options.model, collections.Counter(row["modality"] for row in rows), time.time() - options.began))
    options.out.joinpath("report.html").write_text(page, encoding="utf-8")
    print(f"\n  * the shipped weights were trained on this image or on another of the same object"
          f"\n  report with pictures: {options.out}/report.html")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"demo: {error}")
