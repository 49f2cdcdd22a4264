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
use m3ret_search::{Batch, Gallery, Numbers, Setup, Writer};
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

/// An archive `a` with a good and a broken file of each name, and a manifest of some.
fn hostile_archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("a")).unwrap();
    for (seed, name) in hostile_names().iter().enumerate() {
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
    folder
}

/// Runs verbs, none of which may write what acts on a terminal, or end by a fault of ours.
fn check_words(root: &Path, verbs: &[&[&str]]) {
    for words in verbs {
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
}

#[test]
fn no_name_acts_on_a_terminal_whatever_the_verb() {
    let folder = hostile_archive();
    let root = folder.path();
    check_words(root, &VERBS);
    // Every image was found, and each under a name of its own.
    let (_, out, _) = run(root, &["index", "stats", "h.m3i", "--json"]);
    assert_eq!(json_lines(&out)[0]["n_items"], hostile_names().len());
}

/// Verbs that measure and make models and images.
const MEASURES: [&[&str]; 17] = [
    &["evaluate", "e.csv", "-m", "pixels", "-o", "e\u{202e}"],
    &[
        "evaluate",
        "e.csv",
        "-m",
        "pixels",
        "-o",
        "f\x1b[31m",
        "--json",
    ],
    &["evaluate", "e.csv", "-m", "no\x1b[2J", "-o", "g"],
    &[
        "evaluate",
        "e.csv",
        "-m",
        "pixels",
        "-o",
        "g",
        "--relevance",
        "no\u{9b}31m",
    ],
    &[
        "evaluate",
        "no\nsuch\x1b[31m.csv",
        "-m",
        "pixels",
        "-o",
        "g",
    ],
    &["compare", "e\u{202e}", "f\x1b[31m", "-o", "t\u{9b}31m.md"],
    &["compare", "e\u{202e}", "f\x1b[31m", "--json"],
    &["compare", "no\x1b[31m", "e\u{202e}"],
    &["simulate", "radiographs", "a", "--out", "s\x1b[31m"],
    &[
        "simulate",
        "radiographs",
        "e.csv",
        "--out",
        "s\u{202e}",
        "--json",
    ],
    &["simulate", "radiographs", "no\nsuch\u{9b}31m", "--out", "s"],
    &["pretrain", "p\x1b[31m.toml"],
    &["pretrain", "p\x1b[31m.toml", "--resume", "--json"],
    &["pretrain", "no\u{202e}.toml"],
    &["pretrain", "p\x1b[31m.toml", "--set", "no\x1b[31m=1"],
    &["study", "scaling", "s\u{202e}.toml"],
    &["study", "scaling", "no\nsuch\x1b[31m.toml"],
];

#[test]
fn no_name_acts_on_a_terminal_where_models_are_made_and_measured() {
    let folder = hostile_archive();
    let root = folder.path();
    let mut rows = "path,body_part,patient_id,modality\n".to_owned();
    for (i, name) in hostile_names().iter().enumerate() {
        if let Some(name) = name.to_str() {
            // Some of them cannot be read.
            let end = if i == 3 { "png" } else { "npy" };
            rows += &format!("\"a/{name}.{end}\",part\x1b[3{}m,p\u{202e}{i},CT\n", i % 2);
        }
    }
    put(root, "e.csv", rows);
    let train = "out = \"run\\u001b[31m\"\nmanifests = [\"e.csv\"]\nmethod = \"mae\"\n[model]\npreset = \"tiny\"\n\
                 embed_dim = 24\nnum_heads = 2\ndepth = 1\n[images]\nvalidation = 0.0\n[train]\nsteps = 1\nbatch = 2\n";
    put(root, "p\x1b[31m.toml", train);
    let study = "out = \"study\\u202e\"\npretrain = \"p\\u001b[31m.toml\"\nevaluate = \"e.csv\"\nallow_overlap = true\n\
                 fractions = [1.0]\n[[sizes]]\nname = \"s\"\nset = []\n";
    put(root, "s\u{202e}.toml", study);
    check_words(root, &MEASURES);
    assert!(root.join("e\u{202e}/results.json").exists());
    assert!(root.join("run\x1b[31m/log.jsonl").exists());
}

/// A gallery as older programs made them: with their names of columns, and with columns of people as they were.
fn older_gallery(root: &Path, maker: m3ret_search::Maker) {
    let setup = Setup {
        maker,
        width: 4,
        numbers: Numbers::F32,
    };
    let mut writer = Writer::create(&root.join("g.m3i"), setup).unwrap();
    let mut vector = [0.0; 16];
    (0..4).for_each(|row| vector[5 * row] = 1.0);
    let ids: Vec<String> = (0..4).map(|row| format!("i{row}")).collect();
    let cells = |name: &str| (0..4).map(|row| format!("OLD-{name}-{row}")).collect();
    let mut columns: Vec<(String, Vec<String>)> = ["PatientName", "mrn", "report", "finding"]
        .map(|name| (name.to_owned(), cells(name)))
        .into();
    columns.push(("root".into(), vec![root.to_str().unwrap().to_owned(); 4]));
    columns.push((
        "path".into(),
        (0..4).map(|row| format!("{row}.npy")).collect(),
    ));
    let batch = Batch {
        vectors: &vector,
        ids: &ids,
        columns: &columns,
        ..Batch::default()
    };
    writer.add(batch).unwrap();
}

#[test]
fn columns_of_people_leave_a_gallery_of_an_older_program_when_it_is_labelled_again() {
    let folder = pictures(6);
    let root = folder.path();
    // The maker of vectors that a person brings.
    put(root, "t.csv", "path,id\n0.npy,a\n1.npy,b\n");
    put(root, "t.npy", vectors(2));
    let given = ["--embeddings", "t.npy", "--encoder", "e"];
    run(
        root,
        &[&["index", "build", "t.m3i", "t.csv"], &given[..]].concat(),
    );
    older_gallery(
        root,
        Gallery::open(&root.join("t.m3i")).unwrap().maker().clone(),
    );
    for words in [
        &["index", "stats", "g.m3i"][..],
        &["search", "-d", "g.m3i", "-i", "i1"],
        &[
            "search",
            "-d",
            "g.m3i",
            "-i",
            "i1",
            "--filter",
            "finding=OLD-finding-2",
        ],
    ] {
        let (status, _, told) = run(root, words);
        assert_eq!(status, 0, "{words:?}: {told}");
    }
    assert!(has(&bytes_of(&root.join("g.m3i")), "OLD-PatientName-1"));
    // New rows have none of it, and numbers of people as hashes.
    put(
        root,
        "t.csv",
        "path,id,PatientName,mrn,report,finding\n4.npy,j4,NEW-n,NEW-m,NEW-r,NEW-f\n5.npy,j5,NEW-n,NEW-m,NEW-r,NEW-f\n",
    );
    let (status, _, told) = run(
        root,
        &[&["index", "add", "g.m3i", "t.csv"], &given[..]].concat(),
    );
    assert_eq!(status, 0, "{told}");
    let bytes = bytes_of(&root.join("g.m3i"));
    assert!(has(&bytes, "NEW-f"));
    for name in ["NEW-n", "NEW-m", "NEW-r"] {
        assert!(!has(&bytes, name), "{name}");
    }
    // A row that is written again keeps what the manifest says now, and nothing else.
    let rows: Vec<String> = (0..4)
        .map(|row| format!("{row}.npy,i{row},x,y\n"))
        .collect();
    put(
        root,
        "m.csv",
        format!("path,id,finding,PatientName\n{}", rows.concat()),
    );
    let (status, _, told) = run(root, &["index", "relabel", "g.m3i", "m.csv"]);
    assert_eq!(status, 0, "{told}");
    assert_eq!(run(root, &["index", "compact", "g.m3i"]).0, 0);
    assert!(!has(&bytes_of(&root.join("g.m3i")), "OLD-"));
    assert_eq!(run(root, &["index", "verify", "g.m3i"]).0, 0);
    assert_eq!(run(root, &["search", "-d", "g.m3i", "-i", "i1"]).0, 0);
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
