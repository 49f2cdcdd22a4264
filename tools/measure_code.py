"""Measures how the code is cut: crates, arrows, and what stands in more than one place.

    python3 tools/measure_code.py [FOLDER ...]

Each FOLDER is a checkout, by default this one; a column of the table for each. Standard library only. Tests and
their crate, examples, benches and fuzz targets are left out, and so is everything from `#[cfg(test)]` on in a file.
"""

import collections
import pathlib
import re
import sys

LEFT_OUT = re.compile(r"(^|/)(target|tests|benches|examples|fuzz|golden|testing)(/|$)|(^|/)(tests|golden|testing)\.rs$")
COLUMNS = ["modality", "body_part", "finding", "patient_id", "study_id", "series_id", "source", "split", "dims",
           "license", "pair_id", "disturbed"]
TYPE = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|union) (\w+)", re.M)
FUNCTION = re.compile(r"\bfn \w+(?:<[^>{}]*>)?\(", re.M)
TUPLE = re.compile(r"(?:^|,)\s*\([^()]*,[^()]*\)\s*:\s*\(")
EQUAL_LINES = 6


def sources(root):
    """The code of each file, by its path below the root, without comments and tests."""
    files = {}
    for path in sorted((root / "crates").rglob("*.rs")):
        name = path.relative_to(root).as_posix()
        if LEFT_OUT.search(name):
            continue
        text = re.split(r"#\[cfg\(test\)\]\n(?:pub(?:\(crate\))? )?mod tests", path.read_text())[0]
        files[name] = "\n".join(line for line in text.splitlines() if not line.strip().startswith("//"))
    return files


def crates(root):
    """Each crate with the crates of the workspace that it needs."""
    arrows = {}
    for manifest in sorted((root / "crates").glob("*/Cargo.toml")):
        if LEFT_OUT.search(manifest.relative_to(root).as_posix()):
            continue
        text = manifest.read_text().split("[dev-dependencies]")[0]
        name = re.search(r'^name = "([^"]+)"', text, re.M)[1]
        arrows[name] = set(re.findall(r"^(m3ret[\w-]*)\.workspace = true", text, re.M)) - {name}
    return arrows


def parameters(text):
    """The text between the parentheses of each function."""
    for match in FUNCTION.finditer(text):
        depth, start = 1, match.end()
        for end in range(start, len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                yield text[start:end]
                break


def verbs(files):
    """Imports from one verb's room into another's, where verbs are files of `commands/` or `verbs/`."""
    found = set()
    room = re.compile(r"crates/\w+/src/(?:commands|verbs)/(\w+)")
    known = {match[1] for match in map(room.match, files) if match}
    shared = {"galleries", "duplicates", "embed", "protocol", "npy", "vectors", "evaluation", "report"}
    for name, text in files.items():
        match = room.match(name)
        if not match:
            continue
        depth = name.count("/") - 3
        own = match[1]
        here = r"super::" * 1 if depth == 1 else r"super::super::"
        for other in known - {own} - shared:
            if re.search(rf"(?:crate::(?:commands|verbs)::|\b{here}){other}\b", text):
                found.add((own, other))
    return found


def repeated(files):
    """Passages of equal lines that stand in two places: how many lines begin one."""
    seen = collections.defaultdict(set)
    for name, text in files.items():
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if len(line) > 3 and not line.startswith(("use ", "#["))]
        for i in range(len(lines) - EQUAL_LINES + 1):
            seen["\n".join(lines[i:i + EQUAL_LINES])].add((name, i))
    return sum(1 for places in seen.values() if len(places) > 1)


def measure(root):
    files, arrows = sources(root), crates(root)
    n_lines = lambda start: sum(text.count("\n") + 1 for name, text in files.items() if name.startswith(start))
    code = "\n".join(files.values())
    all_parameters = [text for file in files.values() for text in parameters(file)]
    meanings = collections.Counter(kind for text in files.values() for kind in set(TYPE.findall(text)))
    quoted = re.compile("|".join(f'"{column}"' for column in COLUMNS))
    pages = [path for path in (root / "crates").rglob("*") if path.suffix in (".html", ".rs")
             and not LEFT_OUT.search(path.relative_to(root).as_posix())]
    return [
        ("crates", len(arrows)),
        ("arrows between them", sum(map(len, arrows.values()))),
        ("lines of code of the library (m3ret)", n_lines("crates/m3ret/")),
        ("lines of code of the program (cli; before, app)", n_lines("crates/cli/") + n_lines("crates/app/")),
        ("lines of code in all", n_lines("crates/")),
        ("imports from one verb into another", len(verbs(files))),
        ("files that spell a column's name", sum(1 for text in files.values() if quoted.search(text))),
        ("type names, and those with two meanings", f"{len(meanings)}, {sum(n > 1 for n in meanings.values())}"),
        ("functions, and those with a tuple of parameters",
         f"{len(all_parameters)}, {sum(bool(TUPLE.search(text)) for text in all_parameters)}"),
        ("heads of HTML pages", sum(path.read_text().lower().count("<!doctype html") for path in pages)),
        ("PNG encoders", len(re.findall(r"PngEncoder::new|ImageFormat::Png", code))),
        ("base64 encoders", len(re.findall(r"fn base64", code))),
        (f"passages of {EQUAL_LINES} equal lines that stand twice", repeated(files)),
    ]


def main():
    roots = [pathlib.Path(word) for word in sys.argv[1:]] or [pathlib.Path(__file__).parent.parent]
    tables = [measure(root) for root in roots]
    print("| what |" + "".join(f" {root.resolve().name} |" for root in roots))
    print("|---|" + "---|" * len(roots))
    for rows in zip(*tables):
        print(f"| {rows[0][0]} |" + "".join(f" {value} |" for _, value in rows))


main()
