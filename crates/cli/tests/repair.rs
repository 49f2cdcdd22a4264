//! Repair embeds again what it cannot prove, and tells every id.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use binary::{json_lines, names_in, npy, run};
use pictures::{picture, pictures, put, vectors};

fn index(root: &Path, words: &[&str]) -> (i32, Value) {
    let (status, out, told) = run(root, &[&["index"], words, &["--json"]].concat());
    let mut lines = json_lines(&out);
    assert_eq!(lines.len(), 1, "{told}");
    (status, lines.remove(0))
}

fn segment(gallery: &Path) -> PathBuf {
    let mut names = names_in(gallery).into_iter();
    gallery.join(names.find(|name| name.ends_with(".m3s")).unwrap())
}

fn flip(gallery: &Path, at: usize) {
    let path = segment(gallery);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Scores by id of all images that are like the first.
fn scores(root: &Path, query: &str) -> BTreeMap<String, f64> {
    let words = [
        "search", "-d", "g.m3i", "-i", query, "-k", "500", "--exact", "--json",
    ];
    let (status, out, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
    let lines = json_lines(&out);
    let hits = lines[0]["hits"].as_array().unwrap().iter();
    hits.map(|hit| {
        (
            hit["id"].as_str().unwrap().to_owned(),
            hit["score"].as_f64().unwrap(),
        )
    })
    .collect()
}

fn copy_of(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).unwrap();
    for name in names_in(from) {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn a_flip_anywhere_in_a_small_gallery_costs_nothing_that_has_a_file() {
    let folder = pictures(6);
    let root = folder.path();
    put(root, "query.npy", npy(&[16, 16], &picture(7)));
    std::fs::create_dir(root.join("arch")).unwrap();
    for i in 0..6 {
        std::fs::rename(
            root.join(format!("{i}.npy")),
            root.join(format!("arch/{i}.npy")),
        )
        .unwrap();
    }
    index(
        root,
        &[
            "build",
            "whole.m3i",
            "arch",
            "--model",
            "pixels",
            "--thumbnails",
        ],
    );
    copy_of(&root.join("whole.m3i"), &root.join("g.m3i"));
    let before = scores(root, "query.npy");
    let n_bytes = std::fs::read(segment(&root.join("whole.m3i")))
        .unwrap()
        .len();
    let (mut n_rebuilt, mut n_lost) = (0, 0);
    for share in 0..40 {
        copy_of(&root.join("whole.m3i"), &root.join("g.m3i"));
        flip(&root.join("g.m3i"), n_bytes * share / 40);
        let (status, report) = index(root, &["verify", "g.m3i", "--repair"]);
        let repair = &report["repair"];
        let lost = repair["n_lost"].as_u64().unwrap();
        assert_eq!(status, i32::from(lost > 0), "{report}");
        n_rebuilt += repair["rebuilt_ids"].as_array().unwrap().len();
        n_lost += lost;
        let (status, verified) = index(root, &["verify", "g.m3i"]);
        assert_eq!(
            (status, &verified["n_items"]),
            (0, &(6 - lost).into()),
            "{report}"
        );
        if lost < 6 {
            for (id, score) in scores(root, "query.npy") {
                assert!((score - before[&id]).abs() < 1e-9, "{share}");
            }
        }
        // What could not be told is embedded again by an update, and nothing twice.
        let (_, added) = index(root, &["add", "g.m3i", "arch", "--model", "pixels"]);
        assert_eq!(
            (&added["n_added"], &added["n_items"]),
            (&lost.into(), &6.into()),
            "{report}"
        );
        assert_eq!(scores(root, "query.npy"), before);
    }
    assert!(n_rebuilt > 20 * 6 && n_lost < 12, "{n_rebuilt} {n_lost}");
}

/// A gallery of 120 pictures with labels and ids of a manifest, larger than a block.
fn labelled() -> tempfile::TempDir {
    let folder = pictures(120);
    let root = folder.path();
    let row = |i: usize| format!("{i}.npy,image-{i},p{},finding-{}\n", i / 3, i % 5);
    let rows: String = (0..120).map(row).collect();
    put(
        root,
        "m.csv",
        "path,id,patient_id,finding\n".to_owned() + &rows,
    );
    let (status, built) = index(root, &["build", "g.m3i", "m.csv", "--model", "pixels"]);
    assert_eq!(status, 0, "{built}");
    folder
}

#[test]
fn rows_come_back_with_their_ids_and_labels() {
    let folder = labelled();
    let root = folder.path();
    let before = scores(root, "0.npy");
    flip(&root.join("g.m3i"), 70_000);
    std::fs::write(root.join("1.npy"), npy(&[16, 16], &picture(200))).unwrap();
    let (status, out, told) = run(root, &["index", "verify", "g.m3i", "--repair"]);
    assert!(out.contains("embedded again: image-"), "{out}{told}");
    let lost = out.matches("lost: image-").count();
    assert_eq!(status, i32::from(lost > 0), "{out}");
    let after = scores(root, "0.npy");
    assert_eq!(before.len() - after.len(), lost, "{out}");
    for (id, score) in &after {
        assert!((before[id] - score).abs() < 1e-9, "{id}");
    }
    let asked = [
        "search", "-d", "g.m3i", "-i", "0.npy", "-k", "200", "--json", "--filter",
    ];
    let (_, found, _) = run(root, &[&asked[..], &["finding=finding-2"]].concat());
    let hits = json_lines(&found)[0]["hits"].as_array().unwrap().len();
    assert!(hits >= 24 - lost, "{hits}");
    let (_, added) = index(root, &["add", "g.m3i", "m.csv", "--model", "pixels"]);
    assert_eq!(
        (&added["n_relabelled"], &added["n_items"]),
        (&0.into(), &120.into()),
        "{added}"
    );
}

#[test]
fn what_cannot_be_embedded_again_is_told_with_the_reason() {
    let folder = labelled();
    let root = folder.path();
    for i in 0..60 {
        std::fs::remove_file(root.join(format!("{i}.npy"))).unwrap();
    }
    for i in 60..120 {
        put(root, &format!("{i}.npy"), npy(&[16, 16], &picture(300 + i)));
    }
    flip(&root.join("g.m3i"), 70_000);
    let (status, report) = index(root, &["verify", "g.m3i", "--repair"]);
    assert_eq!(status, 1);
    let lost = report["repair"]["lost"].as_array().unwrap();
    assert!(lost.len() > 5, "{report}");
    assert_eq!(report["repair"]["n_lost"], lost.len());
    for image in lost {
        let id: usize = image["id"].as_str().unwrap()["image-".len()..]
            .parse()
            .unwrap();
        let wanted = match id < 60 {
            true => "its file is not there",
            false => "its file holds other pixels now",
        };
        assert_eq!(image["why"], wanted, "{id}");
    }
}

#[test]
fn vectors_that_were_made_elsewhere_are_lost_with_their_ids() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let rows: String = (0..9000).map(|i| format!("{i}.npy,image-{i}\n")).collect();
    put(root, "m.csv", "path,id\n".to_owned() + &rows);
    put(root, "f.npy", vectors(9000));
    let made = [
        "build",
        "g.m3i",
        "m.csv",
        "--embeddings",
        "f.npy",
        "--encoder",
        "x",
    ];
    assert_eq!(index(root, &made).0, 0);
    flip(&root.join("g.m3i"), 70_000);
    let (status, report) = index(root, &["verify", "g.m3i", "--repair"]);
    assert_eq!(status, 1);
    let lost = report["repair"]["lost"].as_array().unwrap();
    assert!(!lost.is_empty());
    assert!(
        lost.iter()
            .all(|image| image["id"].as_str().unwrap().starts_with("image-"))
    );
    let (status, out, _) = run(root, &["index", "verify", "g.m3i", "--repair"]);
    assert!(status == 0 && out.starts_with("good: "), "{out}");
    let again = [
        "add",
        "g.m3i",
        "m.csv",
        "--embeddings",
        "f.npy",
        "--encoder",
        "x",
        "--replace",
    ];
    assert_eq!(index(root, &again).1["n_items"], 9000);
}
