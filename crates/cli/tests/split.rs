//! Runs `m3ret split` as a person would.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::cast_precision_loss,
    clippy::too_many_lines,
    reason = "small numbers, and stories told from start to end"
)]

#[path = "person/binary.rs"]
mod binary;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use binary::{json_lines, names_in, npy, run};

/// A picture of 96 x 128: waves that the seed gives, moved to the left.
fn picture(seed: usize, by: usize) -> Vec<u8> {
    let waves: Vec<[f32; 3]> = (1..7_usize)
        .map(|wave| {
            let mixed = (wave + 8 * seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            [16, 32, 48].map(|bit| (mixed >> bit & 0xff) as f32 / 255.0)
        })
        .collect();
    let value = |i: usize| {
        let (row, column) = ((i / 128) as f32 / 96.0, (i % 128 + by) as f32 / 128.0);
        let turns = waves
            .iter()
            .map(|[y, x, phase]| 3.0 * (y * row + x * column) + phase);
        let sum: f32 = turns
            .map(|turns| (turns * std::f32::consts::TAU).cos())
            .sum();
        1000.0 + 100.0 * sum
    };
    npy(&[96, 128], &(0..96 * 128).map(value).collect::<Vec<f32>>())
}

/// A manifest as a person would read it: the cells of each row by column.
fn table(path: &Path) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut lines = text.lines();
    let names = cells(lines.next().unwrap());
    lines
        .map(|line| names.iter().cloned().zip(cells(line)).collect())
        .collect()
}

fn splits(path: &Path) -> BTreeMap<String, String> {
    let rows = table(path).into_iter();
    rows.map(|row| (row["path"].clone(), row["split"].clone()))
        .collect()
}

/// Runs `m3ret split WORDS --cache cache`: exit status, JSON lines, what was said.
fn split(root: &Path, words: &[&str]) -> (i32, Vec<Value>, String) {
    let words = [&["split"], words, &["--cache", "cache", "--json"]].concat();
    let (status, out, told) = run(root, &words);
    assert!(!(out.clone() + &told).contains("SECRET"), "{out}{told}");
    (status, json_lines(&out), told)
}

/// 60 pictures of 30 patients; of two more patients one has a copy of the other's image, two are
/// joined by near duplicates over a third without a patient, and two by a pair.
fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    let mut rows = Vec::new();
    let mut row = |name: &str, bytes: Vec<u8>, patient: &str, pair: &str| {
        std::fs::write(root.join("in").join(name), bytes).unwrap();
        rows.push(format!("{name},DX,2d,{patient},{pair},mine\n"));
    };
    for i in 0..60 {
        let patient = format!("SECRET-{}", i / 2);
        row(&format!("{i:02}.npy"), picture(100 + i, 0), &patient, "");
    }
    row("copy-a.npy", picture(1, 0), "SECRET-a", "");
    row("copy-b.npy", picture(1, 0), "SECRET-b", "");
    row("near-a.npy", picture(4, 0), "SECRET-c", "");
    row("near-b.npy", picture(4, 3), "", "");
    row("near-c.npy", picture(4, 6), "SECRET-d", "");
    row("pair-a.npy", picture(5, 0), "SECRET-e", "SECRET-pair");
    row("pair-b.npy", picture(6, 0), "SECRET-f", "SECRET-pair");
    let head = "path,modality,dims,patient_id,pair_id,owner\n";
    std::fs::write(root.join("in/m.csv"), head.to_owned() + &rows.concat()).unwrap();
    rows.reverse();
    std::fs::write(root.join("in/back.csv"), head.to_owned() + &rows.concat()).unwrap();
    folder
}

#[test]
fn what_belongs_together_goes_to_one_split() {
    let folder = archive();
    let root = folder.path();
    let out = root.join("in/out.csv");
    // Of three near duplicates, the first and the last are none of each other.
    let dedup = [
        "dedup", "in/m.csv", "--near", "0.96", "--cache", "cache", "--json",
    ];
    let summary = json_lines(&run(root, &dedup).1).pop().unwrap();
    assert_eq!(
        (
            &summary["summary"]["n_exact"],
            &summary["summary"]["n_near"]
        ),
        (&1.into(), &2.into())
    );
    let mut seen = BTreeSet::new();
    for seed in ["0", "1", "2", "3", "4", "5"] {
        let words = [
            "in/m.csv",
            "--out",
            "in/out.csv",
            "--near",
            "0.96",
            "--force",
        ];
        let words = [&words[..], &["--pretrain", "0.4", "--seed", seed]].concat();
        let (status, lines, told) = split(root, &words);
        assert_eq!(status, 0, "{told}");
        assert!(told.contains("1 row has no patient_id"), "{told}");
        let summary = &lines[0]["summary"];
        assert_eq!(
            (&summary["n_items"], &summary["n_groups"]),
            (&67.into(), &33.into())
        );
        let expected = serde_json::json!({"patient": 30, "pair": 1, "exact": 1, "near": 2});
        assert_eq!(summary["n_joined"], expected);
        let splits = splits(&out);
        for i in 0..30 {
            let of = |i: usize| &splits[&format!("{i:02}.npy")];
            assert_eq!(of(2 * i), of(2 * i + 1));
        }
        for names in [
            &["copy-a", "copy-b"][..],
            &["near-a", "near-b", "near-c"],
            &["pair-a", "pair-b"],
        ] {
            let words: BTreeSet<&String> = names
                .iter()
                .map(|name| &splits[&format!("{name}.npy")])
                .collect();
            assert_eq!(words.len(), 1, "{names:?}");
        }
        // 33 groups of one cell: 6.6 queries, 13.2 gallery, 13.2 pretrain.
        for (split, low) in [("query", 6), ("gallery", 13), ("pretrain", 13)] {
            let n_groups = summary["splits"][split]["n_groups"].as_u64().unwrap();
            assert!((low..=low + 1).contains(&n_groups), "{split} {n_groups}");
        }
        seen.insert(splits);
    }
    assert_eq!(seen.len(), 6, "every seed gives another split");
    // A split is what it says: nothing overlaps.
    let (status, lines, _) = split(root, &["in/out.csv", "--check", "--near", "0.96"]);
    assert_eq!((status, lines.len()), (0, 1));
}

#[test]
fn rows_in_another_order_are_split_alike_and_columns_stay() {
    let folder = archive();
    let root = folder.path();
    for (manifest, out) in [("in/m.csv", "in/one.csv"), ("in/back.csv", "in/two.csv")] {
        assert_eq!(split(root, &[manifest, "--out", out]).0, 0);
    }
    let expected = splits(&root.join("in/one.csv"));
    assert_eq!(splits(&root.join("in/two.csv")), expected);
    for (before, mut after) in table(&root.join("in/m.csv"))
        .into_iter()
        .zip(table(&root.join("in/one.csv")))
    {
        after.remove("split");
        assert_eq!(before, after);
    }
    // Somewhere else, paths lead back.
    std::fs::create_dir(root.join("else")).unwrap();
    let (status, _, told) = split(root, &["in/m.csv", "--out", "else/out.csv"]);
    assert_eq!(
        (status, told.contains("67 paths were changed")),
        (0, true),
        "{told}"
    );
    for (path, split) in splits(&root.join("else/out.csv")) {
        assert!(root.join("else").join(&path).exists(), "{path}");
        assert_eq!(expected[path.strip_prefix("../in/").unwrap()], split);
    }
    // A patient more moves few others.
    let text = std::fs::read_to_string(root.join("in/m.csv")).unwrap();
    std::fs::write(root.join("in/new.npy"), picture(3, 0)).unwrap();
    std::fs::write(
        root.join("in/more.csv"),
        text + "new.npy,DX,2d,SECRET-g,,mine\n",
    )
    .unwrap();
    assert_eq!(split(root, &["in/more.csv", "--out", "in/out.csv"]).0, 0);
    let after = splits(&root.join("in/out.csv"));
    let moved = expected
        .iter()
        .filter(|(path, split)| after[*path] != **split);
    assert!(moved.count() <= 6);
    // Parquet holds the same.
    assert_eq!(split(root, &["in/m.csv", "--out", "in/out.parquet"]).0, 0);
    let again = ["in/out.parquet", "--out", "in/again.csv"];
    let (status, _, told) = split(root, &again);
    assert_eq!((status, told.contains("--overwrite")), (1, true), "{told}");
    assert_eq!(split(root, &[&again[..], &["--overwrite"]].concat()).0, 0);
    assert_eq!(splits(&root.join("in/again.csv")), expected);
}

#[test]
fn without_images_copies_are_not_found_and_that_is_said() {
    let folder = archive();
    let root = folder.path();
    let words = ["in/m.csv", "--out", "in/out.csv", "--no-duplicates"];
    let (status, lines, told) = split(root, &words);
    assert_eq!(
        (status, told.contains("no image was read")),
        (0, true),
        "{told}"
    );
    let summary = &lines[0]["summary"];
    assert_eq!(
        (&summary["n_groups"], &summary["model"]),
        (&36.into(), &Value::Null)
    );
    assert!(!root.join("cache").exists());
    // For a person: a table, and no colour or cursor outside a terminal.
    let (_, out, _) = run(root, &[&["split"], &words[..], &["--force"]].concat());
    assert!(
        out.contains("67 images in 36 groups") && out.contains("DX 2d"),
        "{out}"
    );
    assert!(!out.contains('\x1b'));
}

#[test]
fn a_check_lists_what_two_sides_share_by_row_and_file() {
    let folder = archive();
    let root = folder.path();
    let with = |split: &[(&str, &str)], rest: &str| {
        let mut text = "path,patient_id,pair_id,split\n".to_owned();
        for row in table(&root.join("in/m.csv")) {
            let of = split
                .iter()
                .find(|(path, _)| row["path"] == format!("{path}.npy"));
            let of = of.map_or(rest, |(_, word)| word);
            let (path, patient, pair) = (&row["path"], &row["patient_id"], &row["pair_id"]);
            text += &format!("{path},{patient},{pair},{of}\n");
        }
        text
    };
    let one = [
        ("01", "query"),
        ("copy-a", "gallery"),
        ("near-b", "gallery"),
        ("pair-b", "query"),
    ];
    std::fs::write(root.join("in/one.csv"), with(&one, "pretrain")).unwrap();
    let before = names_in(&root.join("in"));
    let words = ["in/one.csv", "--near", "0.96", "--check"];
    let (status, lines, told) = split(root, &words);
    assert_eq!(status, 1, "{told}");
    let [overlaps @ .., summary] = &lines[..] else {
        panic!("nothing was said")
    };
    let kinds: Vec<&str> = overlaps
        .iter()
        .map(|line| line["overlap"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["patient", "pair", "exact", "near", "near"]);
    let row = &overlaps[0]["pretrain"][0];
    assert_eq!(
        (&row["row"], &row["file"]),
        (&1.into(), &"in/00.npy".into())
    );
    assert_eq!(overlaps[0]["evaluation"][0]["split"], "query");
    assert_eq!(summary["summary"]["n_evaluation_overlapping"], 4);
    assert_eq!(
        split(root, &[&words[..], &["--allow-overlap"]].concat()).0,
        0
    );
    let (status, out, told) = run(root, &[&["split", "--cache", "cache"], &words[..]].concat());
    assert_eq!(status, 1, "{told}");
    assert!(
        out.contains("same patient\n  pretrain  row 1       in/00.npy\n"),
        "{out}"
    );
    assert!(!out.contains("SECRET"), "{out}");
    // Between manifests: the same images on both sides, in other files of other folders.
    std::fs::create_dir(root.join("bench")).unwrap();
    std::fs::copy(root.join("in/07.npy"), root.join("bench/a.npy")).unwrap();
    std::fs::write(root.join("bench/b.npy"), picture(2, 0)).unwrap();
    std::fs::write(root.join("in/all.csv"), with(&[], "pretrain")).unwrap();
    std::fs::write(
        root.join("bench/m.csv"),
        "path,subject_id,split\na.npy,,gallery\nb.npy,SECRET-0,query\n",
    )
    .unwrap();
    let (status, lines, told) = split(root, &["in/all.csv", "--check", "bench/m.csv"]);
    let kinds: Vec<&Value> = lines.iter().map(|line| &line["overlap"]).collect();
    assert_eq!(
        (status, kinds),
        (1, vec![&"patient".into(), &"exact".into(), &Value::Null]),
        "{told}"
    );
    let own: Vec<PathBuf> = [&lines[1]["pretrain"][0], &lines[1]["evaluation"][0]]
        .map(|row| row["file"].as_str().unwrap().into())
        .to_vec();
    assert_eq!(own, ["in/07.npy", "bench/a.npy"].map(PathBuf::from));
    let (status, _, told) = split(root, &["in/all.csv", "--check"]);
    assert_eq!(
        (status, told.contains("nothing to compare")),
        (1, true),
        "{told}"
    );
    let after: Vec<String> = names_in(&root.join("in"));
    assert_eq!(
        after.len(),
        before.len() + 1,
        "a check writes nothing: {after:?}"
    );
}

#[test]
fn real_images_are_split_by_patient() {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/real");
    let manifest = real.join("manifest.csv");
    let manifest = manifest.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let words = [manifest, "--out", "out.csv", "--pretrain", "0.4"];
    let (status, _, told) = split(root, &words);
    assert_eq!((status, told.contains("--overwrite")), (1, true), "{told}");
    assert!(!root.join("out.csv").exists());
    let (status, lines, told) = split(root, &[&words[..], &["--overwrite"]].concat());
    assert_eq!(status, 0, "{told}");
    assert!(told.contains("hold fewer than 3 groups"), "{told}");
    let summary = &lines[0]["summary"];
    assert_eq!(
        (&summary["n_items"], &summary["n_groups"]),
        (&18.into(), &9.into())
    );
    let mut of_patient: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in table(&root.join("out.csv")) {
        let splits = of_patient.entry(row["patient_id"].clone()).or_default();
        splits.insert(row["split"].clone());
    }
    assert!(
        of_patient.values().all(|splits| splits.len() == 1),
        "{of_patient:?}"
    );
    assert_eq!(of_patient.len(), 9);
}

#[test]
fn wrong_usage_is_told_before_anything_is_read() {
    let folder = archive();
    let root = folder.path();
    for words in [
        &["in/m.csv"][..],
        &["in/m.csv", "--out", "out.npy"],
        &["in/m.csv", "--out", "out.csv", "--check"],
        &["in/m.csv", "--out", "out.csv", "--query", "20"],
        &[
            "in/m.csv",
            "--out",
            "out.csv",
            "--query",
            "0.5",
            "--pretrain",
            "0.5",
        ],
        &["in/m.csv", "--out", "out.csv", "--allow-overlap"],
    ] {
        assert_eq!(split(root, words).0, 2, "{words:?}");
    }
    std::fs::write(root.join("in/twice.csv"), "path\n00.npy\n01.npy\n00.npy\n").unwrap();
    for (words, wanted) in [
        (&["in/m.csv", "--out", "in/m.csv"][..], "is being read"),
        (&["in", "--out", "out.csv"], "a folder"),
        (
            &["in/m.csv", "--out", "out.csv", "--stratify", "age"],
            "path, modality, dims",
        ),
        (&["in/m.csv", "--check", "in/m.csv"], "named twice"),
    ] {
        let (status, _, told) = split(root, words);
        assert_eq!(
            (status, told.contains(wanted)),
            (1, true),
            "{words:?} {told}"
        );
    }
    assert!(!root.join("out.csv").exists() && !root.join("cache").exists());
    let words = ["in/twice.csv", "--out", "out.csv", "--no-duplicates"];
    let (status, lines, _) = split(root, &words);
    assert_eq!((status, &lines[0]["summary"]["n_groups"]), (0, &2.into()));
}
