//! Small pictures and vectors, and searches of them; shared by the tests of manifests and vectors.

#![allow(
    dead_code,
    reason = "not every test that shares this file uses all of it"
)]

use std::path::Path;

use serde_json::Value;

use crate::binary::{json_lines, npy, run};

/// A picture of 16 x 16 in which `seed` decides where the bright spot is.
pub(crate) fn picture(seed: usize) -> Vec<f32> {
    let spot = [(seed * 5 % 16) as f32, (seed * 3 % 16) as f32];
    let value = |i: usize| {
        let (row, column) = ((i / 16) as f32, (i % 16) as f32);
        let distance = (row - spot[0]).powi(2) + (column - spot[1]).powi(2);
        100.0 * (-distance / 20.0).exp() + column * seed as f32 / 4.0
    };
    (0..256).map(value).collect()
}

/// Pictures 0.npy, 1.npy, ... in a new folder.
pub(crate) fn pictures(n: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..n {
        put(
            folder.path(),
            &format!("{seed}.npy"),
            npy(&[16, 16], &picture(seed)),
        );
    }
    folder
}

pub(crate) fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

/// Unit vectors of 4 numbers, one a row.
pub(crate) fn vectors(n: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for i in 0..n {
        let vector: Vec<f32> = (0..4)
            .map(|j| ((i * 31 + j * 17) % 23) as f32 - 11.0)
            .collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        all.extend(vector.iter().map(|x| x / length));
    }
    npy(&[n, 4], &all)
}

/// Searches with `pixels` and returns the first answer's hits, and what was told.
pub(crate) fn search(root: &Path, archive: &str, words: &[&str]) -> (Vec<Value>, String) {
    let usual = [
        "search", "-d", archive, "--cache", "cache", "--json", "-k", "20",
    ];
    let mut all = [&usual[..], words].concat();
    // A gallery has its model.
    if Path::new(archive)
        .extension()
        .is_none_or(|end| end != "m3i")
    {
        all.extend(["--model", "pixels"]);
    }
    let (_, out, told) = run(root, &all);
    let answers = json_lines(&out);
    assert!(!answers.is_empty(), "{told}");
    (answers[0]["hits"].as_array().unwrap().clone(), told)
}

pub(crate) fn texts<'a>(hits: &'a [Value], key: &str) -> Vec<&'a str> {
    let mut texts: Vec<&str> = hits.iter().filter_map(|hit| hit[key].as_str()).collect();
    texts.sort_unstable();
    texts
}
