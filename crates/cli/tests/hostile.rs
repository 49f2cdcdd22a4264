//! Names and columns of strangers: nothing acts on a terminal, no identifier is stored, no file of a killed run stays.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use binary::{json_lines, names_in, npy, run};
use m3ret::words::acts_on_a_terminal;
use pictures::{picture, pictures, put, search, vectors};

/// All bytes of the files of a folder.
fn bytes_of(folder: &Path) -> Vec<u8> {
    let names = names_in(folder).into_iter();
    names
        .flat_map(|name| std::fs::read(folder.join(name)).unwrap())
        .collect()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

/// Columns that tell of people, in spellings of many programs.
const PEOPLE: [&str; 20] = [
    "PatientName",
    "birth_date",
    "Patient ID",
    "Patient Name",
    "patient",
    "mrn",
    "Geburtsdatum",
    "dob",
    "date_of_birth",
    "ssn",
    "nhs_number",
    "SOPInstanceUID",
    "OtherPatientIDs",
    "PatientAddress",
    "ReferringPhysicianName",
    "StudyDate",
    "report",
    "accession no",
    "scanner",
    "kernel",
];

fn with_people(root: &Path) {
    let mut text = format!("path,patient_id,{},modality\n", PEOPLE.join(","));
    for row in 0..4 {
        let cells: Vec<String> = PEOPLE
            .iter()
            .map(|name| format!("SECRET-{name}-{row}"))
            .collect();
        text += &format!("{row}.npy,SECRET-id-{row},{},CT\n", cells.join(","));
    }
    put(root, "m.csv", text);
    put(root, "f.npy", vectors(4));
}

#[test]
fn a_gallery_stores_no_column_of_people_under_any_name() {
    let folder = pictures(4);
    let root = folder.path();
    with_people(root);
    for (name, words) in MAKERS {
        let (status, told) = build(root, name, words);
        assert_eq!(status, 0, "{told}");
        let bytes = bytes_of(&root.join(name));
        assert!(!has(&bytes, "SECRET"), "{name}");
        for column in PEOPLE {
            assert!(told.contains(column), "{column} in {told}");
        }
        assert!(told.contains("m3ret does not know"), "{told}");
    }
}

/// How a gallery is made, of vectors or of images.
const MAKERS: [(&str, &[&str]); 2] = [
    ("vectors.m3i", &["--embeddings", "f.npy", "--encoder", "x"]),
    ("images.m3i", &["--model", "pixels"]),
];

fn build(root: &Path, name: &str, words: &[&str]) -> (i32, String) {
    let (status, _, told) = run(root, &[&["index", "build", name, "m.csv"], words].concat());
    (status, told)
}

#[test]
fn a_column_that_is_asked_for_is_stored_as_it_is_or_as_hashes() {
    let folder = pictures(4);
    let root = folder.path();
    with_people(root);
    for (name, words) in MAKERS {
        let keep = |columns: [&'static str; 2]| {
            let [one, other] = columns;
            [words, &["--keep", one, "--keep", other]].concat()
        };
        let (status, told) = build(root, name, &keep(["scanner", "nix"]));
        assert!(status == 1 && told.contains("no such column"), "{told}");
        let (status, told) = build(root, name, &keep(["scanner", "report"]));
        assert!(status == 1 && told.contains("--keep report"), "{told}");
        let (status, told) = build(root, name, &keep(["scanner", "mrn"]));
        assert_eq!(status, 0, "{told}");
        let bytes = bytes_of(&root.join(name));
        assert!(has(&bytes, "SECRET-scanner-2") && !has(&bytes, "SECRET-kernel"));
        assert!(has(&bytes, "mrn") && !has(&bytes, "SECRET-mrn"));
    }
    let ask = [
        "search",
        "-d",
        "images.m3i",
        "-i",
        "0.npy",
        "--json",
        "--filter",
        "mrn=SECRET-mrn-2",
    ];
    let (status, out, told) = run(root, &ask);
    assert_eq!(status, 0, "{told}");
    let hits = json_lines(&out)[0]["hits"].as_array().unwrap().clone();
    assert_eq!(hits.len(), 1, "a number is found by its hash");
    assert_eq!(hits[0]["path"], "2.npy");
}

#[test]
fn a_column_that_a_search_names_is_stored_for_it() {
    let folder = pictures(4);
    let root = folder.path();
    put(
        root,
        "manifest.csv",
        "path,scanner\n0.npy,A\n1.npy,B\n2.npy,B\n3.npy,A\n",
    );
    let (hits, told) = search(root, ".", &["-i", "0.npy"]);
    assert_eq!(hits.len(), 3);
    assert!(told.contains("not know are not stored: scanner"), "{told}");
    for _ in 0..2 {
        let (hits, _) = search(root, ".", &["-i", "0.npy", "--filter", "scanner=B"]);
        let mut paths: Vec<&str> = hits
            .iter()
            .map(|hit| hit["path"].as_str().unwrap())
            .collect();
        paths.sort_unstable();
        assert_eq!(paths, ["1.npy", "2.npy"]);
    }
}

/// Names that act on a terminal, deceive or end lines. Not every disk takes bytes that are no text.
fn hostile_names() -> Vec<std::ffi::OsString> {
    let mut names: Vec<std::ffi::OsString> = [
        "x\x1b]0;owned\x07\x1b[31m",
        "line\nbreak\r",
        "rtl\u{202e}gnp",
        "c1\u{9b}31m\u{85}",
        "iso\u{2066}x\u{200f}",
        "<script>alert(1)",
        "=cmd|' '!A0",
        "100%25\u{ad}",
    ]
    .map(std::ffi::OsString::from)
    .to_vec();
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStringExt as _;
        for bytes in [
            &b"M\xfcller\x1b[31m"[..],
            b"M\xf6ller\x1b[31m",
            b"100%FC\xff",
        ] {
            names.push(std::ffi::OsString::from_vec(bytes.to_vec()));
        }
    }
    names
}

/// What a person may do with such names.
const VERBS: [&[&str]; 19] = [
    &["check", "a"],
    &["check", "a", "--json"],
    &["embed", "a", "--model", "pixels", "--out", "o.npy"],
    &["embed", "m.csv", "--model", "pixels", "--out", "o.parquet"],
    &["index", "build", "g\u{202e}.m3i", "a", "--model", "pixels"],
    &[
        "index", "build", "h.m3i", "a", "--model", "pixels", "--json",
    ],
    &[
        "index",
        "build",
        "\x1b[31m.m3i",
        "m.csv",
        "--model",
        "pixels",
        "--keep",
        "no\x1b[2J",
    ],
    &["index", "stats", "h.m3i"],
    &["index", "verify", "h.m3i"],
    &["index", "remove", "h.m3i", "no\x1b[31m"],
    &["search", "-i", "a/rtl\u{202e}gnp.npy", "-d", "h.m3i"],
    &[
        "search",
        "-i",
        "a/rtl\u{202e}gnp.npy",
        "-d",
        "h.m3i",
        "--json",
    ],
    &["search", "-i", "no\u{9b}31m", "-d", "h.m3i"],
    &[
        "search",
        "-i",
        "a",
        "-d",
        "h.m3i",
        "--filter",
        "modality=\x1b[31m",
    ],
    &["dedup", "h.m3i"],
    &["dedup", "h.m3i", "--json"],
    &[
        "map",
        "h.m3i",
        "--html",
        "\x1b[31m.html",
        "--color",
        "x\u{202e}",
    ],
    &["split", "m.csv", "--out", "s\x1b.csv", "--cache", "c"],
    &["inspect", "no\x1b[31m.png", "a/c1\u{9b}31m\u{85}.png"],
];

#[test]
fn no_name_acts_on_a_terminal_whatever_the_verb() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("a")).unwrap();
    let names = hostile_names();
    for (seed, name) in names.iter().enumerate() {
        let mut good = name.clone();
        good.push(".npy");
        std::fs::write(
            root.join("a").join(good),
            npy(&[16, 16], &picture(seed % 5)),
        )
        .unwrap();
        let mut broken = name.clone();
        broken.push(".png");
        std::fs::write(root.join("a").join(broken), b"\x89PNG\r\n\x1a\nxx").unwrap();
    }
    put(
        root,
        "m.csv",
        "path,finding\na/rtl\u{202e}gnp.npy,\x1b[31mred\u{9b}\n\"a/line\nbreak\r.npy\",b\n",
    );
    for words in VERBS {
        let (_, out, told) = run(root, words);
        for text in [&out, &told] {
            let acting = |c: char| acts_on_a_terminal(c) && c != '\n' && c != '\t';
            let at = text.find(acting);
            assert_eq!(
                at.map(|at| &text[at.saturating_sub(30)..]),
                None,
                "{words:?}"
            );
        }
        assert!(!(out + &told).contains("internal error"), "{words:?}");
    }
    // Every image was found, and each under a name of its own.
    let (_, out, _) = run(root, &["index", "stats", "h.m3i", "--json"]);
    assert_eq!(json_lines(&out)[0]["n_items"], names.len());
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let folder = pictures(6);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,patient_id\n0.npy,a\n1.npy,b\n2.npy,c\n3.npy,d\n",
    );
    let verbs: [&[&str]; 4] = [
        &["embed", ".", "--model", "pixels", "--out", "out/o.npy"],
        &["split", "m.csv", "--out", "out/s.csv", "--no-duplicates"],
        &["index", "build", "g.m3i", ".", "--model", "pixels"],
        &["map", "g.m3i", "--html", "out/map.html"],
    ];
    std::fs::create_dir(root.join("out")).unwrap();
    for words in verbs {
        put(root, "out/.m3ret-killed.part", "vectors");
        put(root, "out/mine.part", "a file of the user's");
        let (status, _, told) = run(root, words);
        let left = names_in(&root.join("out"));
        let is_index = words[0] == "index";
        assert!(left.contains(&"mine.part".to_owned()));
        assert_eq!(
            left.contains(&".m3ret-killed.part".to_owned()),
            is_index,
            "{words:?} {status}: {told}"
        );
    }
}
