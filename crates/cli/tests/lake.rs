//! Lakes from the command line, in folders: `./check --lake` runs this, and the same on a real S3 server.

#![cfg(all(unix, feature = "lake"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use serde_json::{Value, json};

use binary::{json_lines, m3ret, run};
use pictures::{pictures, texts};

/// Runs the program with keys in the folder.
fn with_keys(root: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = m3ret(root, words);
    let done = command
        .env("XDG_CONFIG_HOME", root.join("config"))
        .env("M3RET_LAKE_DEADLINE", "60")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        done.status.code().unwrap(),
        text(done.stdout),
        text(done.stderr),
    )
}

fn good(root: &Path, words: &[&str]) -> String {
    let (status, out, log) = with_keys(root, words);
    assert_eq!(status, 0, "{words:?}: {out}{log}");
    out
}

/// 24 pictures in `in`, a manifest of them, and its parts of two tasks in `parts`.
fn archive() -> tempfile::TempDir {
    let folder = pictures(24);
    let root = folder.path();
    let mut manifest = "path,finding,patient_id\n".to_owned();
    for i in 0..24 {
        manifest += &format!("{i}.npy,kind{},P{}\n", i % 3, i / 2);
    }
    std::fs::write(root.join("m.csv"), manifest).unwrap();
    for shard in ["0/2", "1/2"] {
        let words = [
            "embed", "m.csv", "--out", "parts", "--shard", shard, "--model", "pixels",
        ];
        good(root, &words);
    }
    folder
}

fn hits(root: &Path, place: &str, words: &[&str]) -> Vec<Value> {
    let words = [
        &["search", "-d", place, "-i", "3.npy", "-k", "6", "--json"],
        words,
    ]
    .concat();
    let found = json_lines(&good(root, &words));
    found[0]["hits"].as_array().unwrap().clone()
}

#[test]
fn parts_become_a_lake_that_answers_as_a_gallery() {
    let folder = archive();
    let root = folder.path();
    let committed = json_lines(&good(root, &["lake", "commit", "parts", "lake", "--json"]));
    assert_eq!(committed[0]["n_rows"], 24);
    let again = json_lines(&good(root, &["lake", "commit", "parts", "lake", "--json"]));
    assert_eq!(
        (&again[0]["n_rows"], &again[0]["n_parts_before"]),
        (&json!(0), &json!(2))
    );
    good(root, &["lake", "export", "lake", "g.m3i"]);
    for words in [
        &[][..],
        &["--exclude", "same_patient"],
        &["--filter", "finding=kind1"],
        &["--group-by", "patient_id", "--exact"],
    ] {
        let ids = |place: &str| {
            let hits = hits(root, place, words);
            let scores: Vec<Value> = hits.iter().map(|hit| hit["score"].clone()).collect();
            (
                texts(&hits, "id")
                    .into_iter()
                    .map(str::to_owned)
                    .collect::<Vec<_>>(),
                scores,
            )
        };
        let (near, far) = (ids("g.m3i"), ids("lake"));
        assert_eq!(far, near, "{words:?}");
        assert!(near.0.len() >= 3);
    }
    let (status, _, log) = with_keys(
        root,
        &[
            "search",
            "-d",
            "lake",
            "-i",
            "3.npy",
            "--filter",
            "finding=none",
        ],
    );
    assert!(status == 1 && log.contains("kind0"), "{log}");
    // Another place for keys is another person, who has none.
    let (status, _, log) = run(root, &["search", "-d", "lake", "-i", "3.npy"]);
    assert!(status == 1 && log.contains("M3RET_LAKE_KEY"), "{log}");
    assert!(good(root, &["lake", "maintain", "lake"]).contains("24 images"));
    assert!(good(root, &["lake", "verify", "lake"]).contains("24 images"));
    let (status, _, log) = with_keys(root, &["index", "stats", "lake"]);
    assert!(status != 0 && log.contains("lake"), "{log}");
}

#[test]
fn a_patient_leaves_a_lake_by_the_command_that_galleries_know() {
    let folder = archive();
    let root = folder.path();
    good(root, &["lake", "commit", "parts", "lake"]);
    std::fs::write(root.join("number"), "P1\n").unwrap();
    let erase = ["erase", "-d", "lake", "--patient-file", "number", "--json"];
    let dry = json_lines(&good(root, &[&erase[..], &["--dry-run"]].concat()));
    assert_eq!(dry[0]["places"][0]["counts"]["n_rows"], 2);
    let done = json_lines(&good(
        root,
        &[&erase[..], &["--receipt", "receipt.json"]].concat(),
    ));
    let place = &done[0]["places"][0];
    assert_eq!(
        (
            &place["kind"],
            &place["counts"]["n_rows"],
            &place["n_rows_left"]
        ),
        (&json!("lake"), &json!(2), &json!(22))
    );
    assert_eq!(place["scan"]["n_found"], 0);
    let verify = [
        "erase",
        "-d",
        "lake",
        "--verify",
        "receipt.json",
        "--patient-file",
        "number",
    ];
    good(root, &verify);
    assert!(
        hits(root, "lake", &["--exclude", "same_patient"])
            .iter()
            .all(|hit| hit["id"] != "../2.npy")
    );
    // A receipt that was changed proves nothing.
    let text = std::fs::read_to_string(root.join("receipt.json")).unwrap();
    std::fs::write(
        root.join("receipt.json"),
        text.replace("\"n_rows\": 2", "\"n_rows\": 1"),
    )
    .unwrap();
    let (status, _, log) = with_keys(root, &verify);
    assert!(status == 1 && log.contains("changed"), "{log}");
    std::fs::write(root.join("number"), "P99\n").unwrap();
    let (status, _, log) = with_keys(root, &erase);
    assert!(status == 1 && log.contains("nothing was changed"), "{log}");
    std::fs::write(root.join("number"), "P1\n").unwrap();
    good(
        root,
        &[
            "erase",
            "-d",
            "lake",
            "--allow-again",
            "--patient-file",
            "number",
        ],
    );
}

#[test]
fn what_is_damaged_or_far_is_refused_with_what_to_do() {
    let folder = archive();
    let root = folder.path();
    // The parts are no place for the lake.
    let (status, _, told) = with_keys(root, &["lake", "commit", "parts", "parts"]);
    assert_eq!(status, 1, "{told}");
    assert!(told.contains("holds something else"), "{told}");
    good(root, &["lake", "commit", "parts", "lake"]);
    let search = ["search", "-d", "lake", "-i", "3.npy"];
    let meta = root.join("lake/meta.json");
    let whole = std::fs::read(&meta).unwrap();
    for damage in [&whole[..40], b"", b"{}", b"[[[[[["] {
        std::fs::write(&meta, damage).unwrap();
        let (status, _, told) = with_keys(root, &search);
        assert_eq!(status, 1, "{told}");
        let is_told = told.contains("is damaged") && told.contains("m3ret lake verify");
        assert!(is_told && !told.contains("index verify"), "{told}");
    }
    std::fs::write(&meta, &whole).unwrap();
    // What is missing is named, and no folder of the machine that built the program.
    let data = std::fs::read_dir(root.join("lake/vectors.lance/data")).unwrap();
    for file in data {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let (status, _, told) = with_keys(root, &search);
    assert_eq!(status, 1, "{told}");
    assert!(told.contains(".lance") && !told.contains(".rs:"), "{told}");
    let mut command = m3ret(root, &["search", "-d", "s3://bucket/lake", "-i", "3.npy"]);
    let far = command.env("AWS_ENDPOINT_URL", "http://store.example");
    let told = String::from_utf8(far.output().unwrap().stderr).unwrap();
    assert!(told.contains("AWS_ALLOW_HTTP=true"), "{told}");
}
