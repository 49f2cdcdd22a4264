//! Interrupts and kills every verb that writes: nothing is left but what is documented, and results are the old ones or
//! whole new ones. `tools/kill_rounds.py` does the same at more moments.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;
#[path = "person/processes.rs"]
mod processes;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use binary::{names_in, npy, run};
use pictures::{picture, pictures, put};
use processes::{has_ffmpeg, others_of, send, start, wait_for_end_of_others};

const NOTHING: [PathBuf; 0] = [];

/// Every file below a folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_in(&path)),
            false => files.push(path),
        }
    }
    files
}

/// Lists the files that only a run that did not end explains.
fn unfinished(root: &Path) -> Vec<PathBuf> {
    let mut left = files_in(root);
    let galleries: Vec<PathBuf> = left
        .iter()
        .filter_map(|file| file.parent())
        .filter(|folder| m3ret_search::is_gallery(folder))
        .map(Path::to_owned)
        .collect();
    left.retain(|file| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.ends_with(".part") || name.starts_with(".m3ret") || name.starts_with(".tmp")
    });
    for gallery in galleries {
        let before = names_in(&gallery);
        m3ret_search::collect(&gallery).unwrap();
        let after = names_in(&gallery);
        let gone = before.into_iter().filter(|name| !after.contains(name));
        left.extend(gone.map(|name| gallery.join(name)));
    }
    left
}

/// An archive `a`, more images `b`, a manifest of `a`, and a folder for results.
fn archive() -> tempfile::TempDir {
    let folder = pictures(0);
    let root = folder.path();
    for name in ["a", "b", "out", "temporary"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    let mut rows = "path,body_part,patient_id\n".to_owned();
    for i in 0..12 {
        put(root, &format!("a/{i}.npy"), npy(&[16, 16], &picture(i)));
        rows += &format!("a/{i}.npy,part{},p{i}\n", i % 2);
    }
    for i in 12..16 {
        put(root, &format!("b/{i}.npy"), npy(&[16, 16], &picture(i)));
    }
    put(root, "m.csv", rows);
    folder
}

/// Verbs that write, all into `out` or a gallery.
const WRITERS: [&[&str]; 12] = [
    &[
        "embed",
        "a",
        "-m",
        "hog",
        "-o",
        "out/o.npy",
        "--save-every",
        "0",
    ],
    &["embed", "m.csv", "-m", "hog", "-o", "out/o.parquet"],
    &[
        "inspect",
        "a/1.npy",
        "--npy",
        "out/i.npy",
        "--thumbnail",
        "out/i.png",
        "--force",
    ],
    &["split", "m.csv", "--cache", "c", "--out", "out/s.csv"],
    &[
        "map",
        "a",
        "-m",
        "hog",
        "--cache",
        "c",
        "--html",
        "out/map.html",
    ],
    &[
        "search",
        "-i",
        "a/1.npy",
        "-d",
        "a",
        "-m",
        "hog",
        "--cache",
        "c",
        "--html",
        "out/s.html",
    ],
    &["dedup", "a", "--cache", "d"],
    &["evaluate", "m.csv", "-m", "hog", "-o", "out/e"],
    &["index", "build", "out/new.m3i", "a", "-m", "hog"],
    &["index", "add", "out/g.m3i", "b", "-m", "pixels"],
    &["index", "remove", "out/g.m3i", "1.npy"],
    &["index", "compact", "out/g.m3i"],
];

/// What a verb wrote that comes out the same each time.
fn results(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let ends = ["npy", "png", "csv", "parquet", "html"];
    let mut files = files_in(&root.join("out"));
    files.retain(|file| {
        let end = file.extension().and_then(|end| end.to_str());
        file.parent() == Some(&root.join("out")) && end.is_some_and(|end| ends.contains(&end))
    });
    let read = |file: PathBuf| (file.clone(), std::fs::read(file).unwrap());
    files.into_iter().map(read).collect()
}

/// Runs a verb to its end over earlier results; returns the earlier and the new ones.
fn prepare(root: &Path, words: &[&str]) -> [BTreeMap<PathBuf, Vec<u8>>; 2] {
    let (status, _, told) = run(root, &["index", "build", "out/g.m3i", "a", "-m", "pixels"]);
    assert_eq!(status, 0, "{told}");
    let is_index = words[0] == "index";
    let mut all = [BTreeMap::new(), BTreeMap::new()];
    for (idx, results_then) in all.iter_mut().enumerate().filter(|_| !is_index) {
        // The second run has other images to work on.
        put(root, "a/1.npy", npy(&[16, 16], &picture(20 + idx)));
        let (status, _, told) = run(root, words);
        assert!(status < 2, "{words:?}: {told}");
        *results_then = results(root);
    }
    if !is_index {
        put(root, "a/1.npy", npy(&[16, 16], &picture(20)));
        let (status, _, told) = run(root, words);
        assert!(status < 2, "{words:?}: {told}");
        put(root, "a/1.npy", npy(&[16, 16], &picture(21)));
    }
    all
}

/// Milliseconds after which a verb is told to end; where that falls depends on the machine.
fn pauses(nth: usize) -> [u64; 2] {
    [[0, 35], [12, 60], [5, 90]][nth % 3]
}

#[test]
fn an_interrupted_verb_leaves_nothing_unfinished_whenever_it_comes() {
    for (nth, words) in WRITERS.iter().enumerate() {
        for (idx, pause_ms) in pauses(nth).into_iter().enumerate() {
            let folder = archive();
            let root = folder.path();
            let temporary = root.join("temporary");
            let [old, new] = prepare(root, words);
            let mut running = start(root, words, &temporary);
            std::thread::sleep(Duration::from_millis(pause_ms));
            send(["INT", "TERM"][(nth + idx) % 2], &running);
            let status = running.wait().unwrap();
            // Ended before, interrupted, or not even able to listen.
            let is_known = matches!(status.code(), Some(0 | 1 | 130)) || status.signal().is_some();
            assert!(is_known, "{words:?}: {status}");
            assert_eq!(names_in(&temporary), [""; 0], "{words:?}");
            assert_eq!(unfinished(root), NOTHING, "{words:?}");
            for (path, bytes) in results(root) {
                let is_whole = [&old, &new]
                    .iter()
                    .any(|all| all.get(&path) == Some(&bytes));
                // Pages of a search say when they were made.
                assert!(is_whole || words[0] == "search", "{}", path.display());
            }
            wait_for_end_of_others(running.id());
        }
    }
}

#[test]
fn what_a_killed_verb_left_is_gone_after_its_next_run() {
    for (nth, words) in WRITERS.iter().enumerate() {
        for pause_ms in pauses(nth + 1) {
            let folder = archive();
            let root = folder.path();
            let temporary = root.join("temporary");
            prepare(root, words);
            let mut running = start(root, words, &temporary);
            std::thread::sleep(Duration::from_millis(pause_ms));
            send("KILL", &running);
            running.wait().unwrap();
            let (status, _, told) = run(root, words);
            let is_there = told.contains("`m3ret index add` adds what is new");
            if is_there {
                run(root, &["index", "add", "out/new.m3i", "a", "-m", "hog"]);
            }
            assert!(status < 2, "{words:?}: {told}");
            assert_eq!(names_in(&temporary), [""; 0], "{words:?}");
            assert_eq!(unfinished(root), NOTHING, "{words:?}");
            assert!(!root.join("out/o.npy.part").exists());
        }
    }
}

#[test]
fn vectors_of_a_run_that_was_killed_while_it_saved_do_not_stay() {
    let folder = archive();
    let root = folder.path();
    let work = root.join("out/o.npy.part");
    std::fs::create_dir(&work).unwrap();
    for name in [".m3ret-killed.part", "lock"] {
        put(&work, name, "");
    }
    let (status, _, told) = run(root, WRITERS[0]);
    assert_eq!(status, 0, "{told}");
    assert!(!work.exists());
    assert_eq!(names_in(&root.join("out")), ["o.npy", "o.npy.rows.csv"]);
}

/// A film that takes long to decode, as the pixels of a DICOM object.
fn film() -> Vec<u8> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/attacks/slow.mp4.gz");
    let mut film = Command::new("gzip")
        .arg("-dc")
        .arg(packed)
        .output()
        .unwrap()
        .stdout;
    film.resize(film.len().next_multiple_of(2), 0);
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut element = |group: u16, number: u16, kind: &[u8], value: &[u8]| {
        bytes.extend([group.to_le_bytes(), number.to_le_bytes()].concat());
        bytes.extend(kind);
        bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        bytes.extend(value);
    };
    element(2, 0x10, b"UI", b"1.2.840.10008.1.2.4.102\0");
    element(8, 0x60, b"CS", b"ES");
    element(0x28, 2, b"US", &[3, 0]);
    element(0x28, 4, b"CS", b"YBR_PARTIAL_420 ");
    element(0x28, 6, b"US", &[0, 0]);
    element(0x28, 8, b"IS", b"8 ");
    for (number, value) in [
        (0x10, 48_u16),
        (0x11, 64),
        (0x100, 8),
        (0x101, 8),
        (0x102, 7),
        (0x103, 0),
    ] {
        element(0x28, number, b"US", &value.to_le_bytes());
    }
    bytes.extend([
        0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 0xff, 0xff, 0xff, 0xff,
    ]);
    bytes.extend([0xfe, 0xff, 0, 0xe0, 0, 0, 0, 0, 0xfe, 0xff, 0, 0xe0]);
    bytes.extend(u32::try_from(film.len()).unwrap().to_le_bytes());
    bytes.extend(film);
    bytes.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn a_film_of_a_patient_leaves_no_file_and_no_process() {
    if !has_ffmpeg() {
        println!("skipped: there is no ffmpeg");
        return;
    }
    let folder = archive();
    let root = folder.path();
    let temporary = root.join("temporary");
    std::fs::create_dir(root.join("films")).unwrap();
    put(root, "films/film.dcm", film());
    let limit = ["--limit", "seconds=60"];
    for words in [
        &["inspect", "films/film.dcm", "--npy", "out/f.npy"][..],
        &["embed", "films", "-m", "pixels", "-o", "out/f.npy"],
        &[
            "search",
            "-i",
            "films/film.dcm",
            "-d",
            "films",
            "-m",
            "pixels",
            "--cache",
            "c",
        ],
    ] {
        for signal in ["INT", "TERM", "HUP", "KILL"] {
            let words = [words, &limit].concat();
            let mut running = start(root, &words, &temporary);
            // Until it decodes: so the film is wherever it is put.
            while others_of(running.id()).is_empty() && running.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            // A verb that saves what is done waits for the image that it reads, unless it is told twice.
            while running.try_wait().unwrap().is_none() {
                send(signal, &running);
                std::thread::sleep(Duration::from_millis(5));
            }
            running.wait().unwrap();
            assert_eq!(names_in(&temporary), [""; 0], "{words:?} {signal}");
            wait_for_end_of_others(running.id());
            assert!(!root.join("out/f.npy").exists());
            if signal != "KILL" {
                assert_eq!(unfinished(root), NOTHING, "{words:?} {signal}");
            }
        }
    }
}
