//! What searches say of themselves, and what `index export`, `clear-cache` and `man` leave alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use serde_json::Value;

use binary::{json_lines, names_in, npy, run};
use pictures::put;

/// 80 vectors of two body parts, two of each patient: those of a patient are nearly equal, those of a part are alike.
fn gallery(root: &Path, name: &str, header: &str, encoder: &str) {
    let mut values = Vec::new();
    let mut rows = format!("path,id,modality,body_part{header}\n");
    for i in 0..80_usize {
        let part = i / 2 % 2;
        let mut vector = [0.1_f32; 8];
        vector[part] = 1.0;
        vector[2 + i / 2 % 6] = 0.3 + (i % 2) as f32 * 0.01;
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        values.extend(vector.iter().map(|x| x / length));
        let patient = match header {
            "" => String::new(),
            _ => format!(",p{}", i / 2),
        };
        rows += &format!("{i}.png,i{i},CT,{}{patient}\n", ["head", "chest"][part]);
    }
    put(root, "m.csv", rows);
    put(root, "f.npy", npy(&[80, 8], &values));
    let words = [
        "index",
        "build",
        name,
        "m.csv",
        "--embeddings",
        "f.npy",
        "--encoder",
        encoder,
    ];
    let (status, _, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
}

fn agreement(root: &Path, gallery: &str, words: &[&str]) -> Value {
    let usual = ["search", "-d", gallery, "-i", "i7", "--json"];
    let (status, out, told) = run(root, &[&usual[..], words].concat());
    assert_eq!(status, 0, "{told}");
    json_lines(&out).remove(0)["agreement"].take()
}

#[test]
fn agreement_is_told_of_searches_that_were_measured_and_of_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    gallery(root, "g.m3i", ",patient_id", "e");
    for words in [
        &["-k", "1"][..],
        &["-k", "12"],
        &["--filter", "modality=CT"],
        &["--offset", "3"],
    ] {
        let found = agreement(root, "g.m3i", words);
        assert_eq!(found["column"], "body_part", "{words:?} {found}");
        assert_eq!(found["measured_on"], "archive");
        assert!(found["value"].as_f64().unwrap() > 0.8, "{found}");
        assert!(found["n"].as_u64().unwrap() >= 30, "{found}");
    }
    for words in [
        &["--filter", "body_part=head"][..],
        &["--filter", "modality=CT", "--filter", "modality=CT"],
        &["--exclude", "body_part"],
        &["--whole"],
        &["--handicap", "0.3"],
    ] {
        assert_eq!(agreement(root, "g.m3i", words), Value::Null, "{words:?}");
    }
    for column in ["patient_id", "path", "m3ret:cells"] {
        let words = ["search", "-d", "g.m3i", "-i", "i7", "--agree", column];
        let (status, _, told) = run(root, &words);
        assert!(status == 1 && told.contains("--agree"), "{column}: {told}");
    }
}

#[test]
fn nothing_is_told_where_patients_are_unknown_or_the_model_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    gallery(root, "g.m3i", "", "e");
    assert_eq!(agreement(root, "g.m3i", &[]), Value::Null);
    // The name of a model whose agreement is known, with other vectors.
    gallery(root, "named.m3i", "", "m3ret-tiny");
    assert_eq!(agreement(root, "named.m3i", &[]), Value::Null);
}

#[test]
fn what_was_exported_is_built_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    gallery(root, "g.m3i", ",patient_id", "e");
    let export = ["index", "export", "g.m3i", "-o", "e.npy"];
    assert_eq!(run(root, &export).0, 0);
    let (status, _, told) = run(root, &export);
    assert!(status == 1 && told.contains("e.npy"), "{told}");
    assert_eq!(run(root, &[&export[..], &["--force"]].concat()).0, 0);
    assert!(!names_in(root).contains(&"e.views.npy".to_owned()));
    let again = [
        "index",
        "build",
        "h.m3i",
        "e.npy.rows.csv",
        "--embeddings",
        "e.npy",
        "--encoder",
        "e",
    ];
    let (status, _, told) = run(root, &again);
    assert_eq!(status, 0, "{told}");
    let hits = |gallery: &str| {
        let (_, out, _) = run(
            root,
            &["search", "-d", gallery, "-i", "i7", "--json", "-k", "80"],
        );
        let answer = json_lines(&out).remove(0);
        let hits = answer["hits"].as_array().unwrap().iter();
        hits.map(|hit| {
            (
                hit["id"].clone(),
                hit["score"].clone(),
                hit["body_part"].clone(),
            )
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(hits("g.m3i"), hits("h.m3i"));
}

#[test]
fn only_galleries_of_a_cache_are_cleared_and_only_their_files() {
    let folder = pictures::pictures(4);
    let root = folder.path();
    std::fs::create_dir(root.join("arch")).unwrap();
    for i in 0..4 {
        std::fs::rename(
            root.join(format!("{i}.npy")),
            root.join(format!("arch/{i}.npy")),
        )
        .unwrap();
    }
    let search = [
        "search",
        "-d",
        "arch",
        "-i",
        "arch/0.npy",
        "--model",
        "pixels",
        "--cache",
        "cache",
    ];
    assert_eq!(run(root, &search).0, 0);
    let own = names_in(&root.join("cache")).remove(0);
    let build = [
        "index",
        "build",
        "cache/mine.m3i",
        "arch",
        "--model",
        "pixels",
    ];
    assert_eq!(run(root, &build).0, 0);
    put(&root.join("cache").join(&own), "thesis.txt", "keep");
    let (_, out, _) = run(root, &["index", "cached", "--cache", "cache", "--json"]);
    assert_eq!(json_lines(&out)[0]["n_items"], 4);
    let clear = ["index", "clear-cache", "--cache", "cache"];
    assert_eq!(
        run(root, &[&clear[..], &["--older-than", "1"]].concat()).0,
        0
    );
    assert!(names_in(&root.join("cache").join(&own)).len() > 3);
    assert_eq!(run(root, &clear).0, 0);
    assert_eq!(names_in(&root.join("cache").join(&own)), ["thesis.txt"]);
    assert_eq!(run(root, &["index", "verify", "cache/mine.m3i"]).0, 0);
}

#[test]
fn manual_pages_take_no_place_of_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(root, "m3ret-search.1", "mine");
    let (status, _, told) = run(root, &["man", "."]);
    assert!(status == 1 && told.contains("m3ret-search.1"), "{told}");
    assert_eq!(names_in(root), ["m3ret-search.1"]);
    assert_eq!(run(root, &["man", ".", "--force"]).0, 0);
    let page = std::fs::read_to_string(root.join("m3ret-index-build.1")).unwrap();
    assert!(
        page.contains("m3ret") && page.contains("thumbnails"),
        "{page}"
    );
    let (status, script, _) = run(root, &["completions", "bash"]);
    assert!(status == 0 && script.contains("clear-cache"));
}

#[cfg(unix)]
#[test]
fn a_repair_takes_nothing_away_that_cannot_be_read_now() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    gallery(root, "g.m3i", ",patient_id", "e");
    let before = names_in(&root.join("g.m3i"));
    let segment = before.iter().find(|name| name.ends_with(".m3s")).unwrap();
    // As somebody does who moves a large file to another disk.
    let place = root.join("g.m3i").join(segment);
    std::fs::rename(&place, root.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(root.join("elsewhere"), &place).unwrap();
    let (status, _, told) = run(root, &["index", "verify", "g.m3i", "--repair"]);
    assert!(
        status == 1 && told.contains("nothing was changed"),
        "{told}"
    );
    assert_eq!(names_in(&root.join("g.m3i")), before);
    std::fs::remove_file(&place).unwrap();
    std::fs::rename(root.join("elsewhere"), &place).unwrap();
    assert_eq!(run(root, &["index", "verify", "g.m3i"]).0, 0);
}
