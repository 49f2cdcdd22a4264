//! Equal scores: neither folders nor the order of rows decide, and collapsed vectors are told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "small numbers, and numbers that must be equal"
)]

#[path = "person/binary.rs"]
mod binary;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use binary::{json_lines, npy, run};

const N: usize = 90;
const WIDTH: usize = 12;
const TASK: &str = "within/US/body_part";

/// The folder is the label, and the first folder has three of five images.
fn organ(i: usize) -> &'static str {
    match i {
        0..54 => "abdomen",
        54..72 => "knee",
        _ => "skull",
    }
}

fn manifest(order: &[usize], folder: fn(usize) -> &'static str) -> String {
    let mut text = String::from("path,modality,body_part,patient_id\n");
    for &i in order {
        writeln!(text, "{}/{i:02}.png,US,{},p{}", folder(i), organ(i), i / 2).unwrap();
    }
    text
}

/// Numbers between -1 and 1 that follow no label.
fn noise(i: usize, j: usize) -> f32 {
    ((i * 37 + j * 101) * 7919 % 1009) as f32 / 504.5 - 1.0
}

fn save(folder: &Path, name: &str, of: impl Fn(usize) -> Vec<f32>) {
    let mut all = Vec::new();
    for i in 0..N {
        let vector = of(i);
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        all.extend(vector.iter().map(|x| x / length));
    }
    std::fs::write(folder.join(name), npy(&[N, WIDTH], &all)).unwrap();
}

fn evaluate(root: &Path, name: &str, more: &[&str]) -> (Value, String) {
    let vectors = format!("{name}.npy");
    let words = ["evaluate", "m.csv", "--embeddings", &vectors, "--out", name];
    let (code, stdout, stderr) = run(root, &[&words[..], more].concat());
    assert_eq!(code, 0, "{stderr}");
    let bytes = std::fs::read(root.join(name).join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&bytes).unwrap();
    let tasks = results["tasks"].as_array().unwrap();
    let task = tasks.iter().find(|task| task["task"] == TASK).unwrap();
    assert_eq!(results["config"]["ties"], "expected");
    (task.clone(), stdout)
}

#[test]
fn collapsed_vectors_are_chance_and_no_better_than_others() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let straight: Vec<usize> = (0..N).collect();
    std::fs::write(root.join("m.csv"), manifest(&straight, organ)).unwrap();
    save(root, "random.npy", |i| {
        (0..WIDTH).map(|j| noise(i, j)).collect()
    });
    // All different, and all cosines within rounding of each other.
    save(root, "flat.npy", |i| {
        (0..WIDTH).map(|j| 1.0 + 5e-5 * noise(i, j)).collect()
    });
    let (random, stdout) = evaluate(root, "random", &[]);
    assert_eq!(random["is_collapsed"], false);
    assert!(!stdout.contains("collapsed"), "{stdout}");
    let (flat, stdout) = evaluate(root, "flat", &[]);
    assert_eq!(flat["is_collapsed"], true);
    assert_eq!(flat["n_tied"], flat["n_queries"]);
    assert!(
        stdout.contains("the vectors are collapsed in every task"),
        "{stdout}"
    );
    let chance = flat["chance"].as_object().unwrap();
    for (metric, chance) in chance {
        let is_vote = metric.starts_with("majority") || metric.starts_with("knn");
        let value = &flat["metrics"][metric]["value"];
        assert!(is_vote || value == chance, "{metric}: {value} {chance}");
        assert!(
            value.as_f64().unwrap() <= chance.as_f64().unwrap() + 1e-12,
            "{metric}"
        );
    }
    // The first folder was in every hit of every query: now hits are drawn from all of them.
    let share = flat["hubness"]["never_retrieved"].as_f64().unwrap();
    assert!(share < 0.1, "{share}");

    for (words, wanted) in [
        (["compare", "random", "flat", "--json"], "second collapsed"),
        (["compare", "flat", "random", "--json"], "first collapsed"),
        (["compare", "flat", "flat", "--json"], "both collapsed"),
    ] {
        let (code, stdout, stderr) = run(root, &words);
        assert_eq!(code, 0, "{stderr}");
        let rows = json_lines(&stdout)[0]["rows"].as_array().unwrap().clone();
        assert!(
            rows.len() >= 3 && rows.iter().all(|row| row["verdict"] == wanted),
            "{stdout}"
        );
    }
    let (_, stdout, _) = run(root, &["compare", "random", "flat"]);
    assert!(stdout.contains("] second collapsed"), "{stdout}");
    assert!(
        !stdout.contains("] better") && !stdout.contains("] worse"),
        "{stdout}"
    );
}

#[test]
fn neither_names_nor_rows_nor_seeds_decide_ties() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let straight: Vec<usize> = (0..N).collect();
    let signs = |i: usize| -> Vec<f32> {
        let sign = |j| 1.0_f32.copysign(noise(i, j) + 0.4 * noise(organ(i).len(), j));
        (0..WIDTH).map(sign).collect()
    };
    std::fs::write(root.join("m.csv"), manifest(&straight, organ)).unwrap();
    save(root, "signs.npy", signs);
    let (one, stdout) = evaluate(root, "signs", &[]);
    assert!(one["n_tied"].as_u64().unwrap() > 45, "{one}");
    assert!(
        stdout.contains("equal scores of relevant and other images"),
        "{stdout}"
    );
    check_run(&root.join("signs/trec/within.US.body_part.run"));
    let first = std::fs::read(root.join("signs/trec/within.US.body_part.run")).unwrap();

    // Other draws show equal scores in another order, and measure the same.
    let (other, _) = evaluate(root, "signs", &["--seed", "1"]);
    assert_eq!(value(&other, "map_at_r"), value(&one, "map_at_r"));
    let second = std::fs::read(root.join("signs/trec/within.US.body_part.run")).unwrap();
    assert_ne!(first, second);

    // The last rows first: the same to the last bit, and the same hits.
    let reverse: Vec<usize> = (0..N).rev().collect();
    std::fs::write(root.join("m.csv"), manifest(&reverse, organ)).unwrap();
    save(root, "signs.npy", |i| signs(N - 1 - i));
    let (other, _) = evaluate(root, "signs", &[]);
    assert_eq!(other["metrics"], one["metrics"]);
    assert_eq!(
        (&other["n_tied"], &other["hubness"]),
        (&one["n_tied"], &one["hubness"])
    );

    // Folders whose names sort the other way round: only sums over queries round otherwise.
    let renamed = |i: usize| match organ(i) {
        "abdomen" => "zebra",
        "knee" => "yak",
        _ => "ant",
    };
    std::fs::write(root.join("m.csv"), manifest(&straight, renamed)).unwrap();
    save(root, "signs.npy", signs);
    let (other, _) = evaluate(root, "signs", &[]);
    for metric in [
        "map_at_r",
        "precision_at_5",
        "hit_at_1",
        "ndcg_at_10",
        "knn_accuracy",
    ] {
        let difference = value(&other, metric) - value(&one, metric);
        assert!(difference.abs() < 1e-12, "{metric} {difference}");
    }
}

fn value(task: &Value, metric: &str) -> f64 {
    task["metrics"][metric]["value"].as_f64().unwrap()
}

/// A run has a total order: ranks count up, and scores fall.
fn check_run(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut before: Option<(String, u32, f32)> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (query, rank) = (words[0].to_owned(), words[3].parse().unwrap());
        let score: f32 = words[4].parse().unwrap();
        match before {
            Some((last, last_rank, last_score)) if last == query => {
                assert!(rank == last_rank + 1 && score < last_score, "{line}");
            }
            _ => assert_eq!(rank, 1, "{line}"),
        }
        before = Some((query, rank, score));
    }
    assert!(before.is_some());
}
