//! Runs `m3ret evaluate`, `compare` and `study scaling` as a person would.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and one that cannot run says so"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    clippy::float_cmp,
    reason = "small numbers, and stories told from start to end"
)]

#[path = "person/binary.rs"]
mod binary;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use binary::{json_lines, names_in, npy, run};

const N: usize = 120;

/// A manifest of pictures that are not there, and vectors of 8 numbers: how much they follow the label
/// is `signal`.
fn archive(folder: &Path) {
    let mut text = String::from("path,modality,dims,source,body_part,patient_id,split,pair_id\n");
    for i in 0..N {
        let modality = if i % 3 == 0 { "CT" } else { "DX" };
        let part = ["chest", "hand", "head"][i * 7 % 11 % 3];
        let split = if i % 4 == 0 { "query" } else { "gallery" };
        let pair = if i < 40 {
            format!("pair-{}", i / 2)
        } else {
            String::new()
        };
        writeln!(
            text,
            "{i:03}.png,{modality},2d,site-{},{part},secret-{},{split},{pair}",
            i % 2,
            i / 3
        )
        .unwrap();
    }
    std::fs::write(folder.join("manifest.csv"), text).unwrap();
    for (name, signal) in [("good", 2.0), ("bad", 0.0)] {
        std::fs::write(
            folder.join(format!("{name}.npy")),
            npy(&[N, 8], &vectors(signal)),
        )
        .unwrap();
    }
}

fn vectors(signal: f32) -> Vec<f32> {
    let mut all = Vec::new();
    for i in 0..N {
        let label = i * 7 % 11 % 3;
        let mut vector: Vec<f32> = (0..8)
            .map(|j| (((i * 37 + j * 101) * 7919 % 1009) as f32 / 1009.0) - 0.5)
            .collect();
        vector[label] += signal;
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        all.extend(vector.iter().map(|x| x / length));
    }
    all
}

fn results(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("results.json")).unwrap()).unwrap()
}

fn task<'a>(results: &'a Value, name: &str) -> &'a Value {
    let tasks = results["tasks"].as_array().unwrap();
    tasks
        .iter()
        .find(|task| task["task"] == name)
        .unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn models_are_evaluated_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    archive(root);
    for name in ["good", "bad"] {
        let (code, stdout, stderr) = run(
            root,
            &[
                "evaluate",
                "manifest.csv",
                "--embeddings",
                &format!("{name}.npy"),
                "--out",
                name,
            ],
        );
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("within/DX-2d/body_part"), "{stdout}");
        assert_eq!(
            names_in(&root.join(name)),
            ["per_query.parquet", "report.html", "results.json", "trec"]
        );
        // Nothing of a patient's own number leaves the manifest.
        for file in ["results.json", "report.html", "per_query.parquet"] {
            let bytes = std::fs::read(root.join(name).join(file)).unwrap();
            assert!(
                !bytes.windows(7).any(|window| window == b"secret-"),
                "{file}"
            );
        }
    }
    let good = results(&root.join("good"));
    let within = task(&good, "within/DX-2d/body_part");
    assert_eq!(within["exclude"], serde_json::json!(["patient_id"]));
    assert_eq!(within["metrics"]["hit_at_1"]["value"], 1.0);
    assert!(within["chance"]["hit_at_1"].as_f64().unwrap() < 0.5);
    let rungs = within["ladder"].as_array().unwrap().len();
    assert_eq!(rungs, 3, "self, same patient, same source");
    assert!(
        task(&good, "cross/CT-DX/body_part")["metrics"]["precision_at_5"]["ci95_low"]
            .as_f64()
            .unwrap()
            > 0.9
    );
    assert_eq!(task(&good, "pair/DX-CT")["exclude"], serde_json::json!([]));
    assert!(
        good["privacy"]
            .as_array()
            .unwrap()
            .iter()
            .any(|task| task["task"] == "privacy/DX-2d")
    );

    let (code, stdout, stderr) = run(
        root,
        &["compare", "bad", "good", "--metric", "hit_at_1", "--json"],
    );
    assert_eq!(code, 0, "{stderr}");
    let compared = &json_lines(&stdout)[0];
    let rows = compared["rows"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["name"] == "within/DX-2d/body_part")
        .unwrap();
    assert_eq!(row["verdict"], "better");
    let (code, stdout, _) = run(
        root,
        &["compare", "good", "good", "-o", "t.md", "-o", "t.tex"],
    );
    assert_eq!(code, 0);
    assert!(
        stdout.contains("not distinguishable") && !stdout.contains("better"),
        "{stdout}"
    );
    assert!(
        std::fs::read_to_string(root.join("t.tex"))
            .unwrap()
            .contains("\\begin{tabular}")
    );
    assert!(
        std::fs::read_to_string(root.join("t.md"))
            .unwrap()
            .starts_with("| task")
    );
}

#[test]
fn models_are_asked_for_the_same_or_not_compared() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    archive(root);
    // One model has no vector of two images: they take no part for both.
    let mut holes = vectors(1.0);
    holes[8..16].fill(f32::NAN);
    holes[400..408].fill(f32::NAN);
    std::fs::write(root.join("holes.npy"), npy(&[N, 8], &holes)).unwrap();
    let both = [
        "evaluate",
        "manifest.csv",
        "--embeddings",
        "good.npy",
        "--embeddings",
        "holes.npy",
        "--out",
    ];
    // `pixels` is not added, as no image is there.
    let (code, stdout, stderr) = run(root, &[&both[..], &["out"]].concat());
    assert_eq!(code, 0, "{stderr}");
    for note in [
        "no image of the manifest is on this machine",
        "2 images take no part",
    ] {
        assert!(stdout.contains(note), "{stdout}");
    }
    for name in ["good", "holes"] {
        run(
            root,
            &[
                "evaluate",
                "manifest.csv",
                "--embeddings",
                &format!("{name}.npy"),
                "--out",
                name,
            ],
        );
    }
    refused(root, &["compare", "good", "holes"], "--models");
    let manifest = std::fs::read_to_string(root.join("manifest.csv")).unwrap();
    let other = manifest
        .replace(",chest,", ",x,")
        .replace(",hand,", ",chest,")
        .replace(",x,", ",hand,");
    std::fs::write(root.join("other.csv"), other).unwrap();
    run(
        root,
        &[
            "evaluate",
            "other.csv",
            "--embeddings",
            "good.npy",
            "--out",
            "other",
        ],
    );
    refused(
        root,
        &["compare", "good", "other"],
        "other images, labels or exclusions",
    );
    // The order of rows changes nothing but their numbers.
    let mut lines: Vec<&str> = manifest.lines().collect();
    lines[1..].reverse();
    std::fs::write(root.join("reverse.csv"), lines.join("\n")).unwrap();
    let reverse: Vec<f32> = vectors(2.0).chunks(8).rev().flatten().copied().collect();
    std::fs::write(root.join("reverse.npy"), npy(&[N, 8], &reverse)).unwrap();
    run(
        root,
        &[
            "evaluate",
            "reverse.csv",
            "--embeddings",
            "reverse.npy",
            "--out",
            "reverse",
        ],
    );
    let [one, two] = ["good", "reverse"].map(|name| results(&root.join(name)));
    for (one, two) in one["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .zip(two["tasks"].as_array().unwrap())
    {
        assert_eq!(
            (&one["task"], &one["metrics"]),
            (&two["task"], &two["metrics"])
        );
    }
}

/// What is said where nothing can be measured.
fn refused(root: &Path, words: &[&str], wanted: &str) {
    let (code, stdout, stderr) = run(root, words);
    assert_eq!(code, 1, "{words:?}: {stdout}");
    assert!(stderr.contains(wanted), "{words:?}: {stderr}");
    assert!(
        !stderr.contains("panicked") && !stderr.contains("secret"),
        "{stderr}"
    );
}

#[test]
fn what_cannot_be_measured_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    archive(root);
    let manifest = std::fs::read_to_string(root.join("manifest.csv")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
    let evaluate = |manifest: &'static str, more: &[&'static str]| {
        [
            &[
                "evaluate",
                manifest,
                "--out",
                "out",
                "--embeddings",
                "good.npy",
            ],
            more,
        ]
        .concat()
    };
    refused(
        root,
        &evaluate("manifest.csv", &["--relevance", "organ"]),
        "--relevance organ: the manifest has no such column; it has path, modality",
    );
    refused(
        root,
        &evaluate("manifest.csv", &["--exclude", "site"]),
        "--exclude site",
    );
    refused(
        root,
        &evaluate("manifest.csv", &["--filter", "modality=XX"]),
        "--filter modality=XX: no image has this value; there are CT, DX",
    );
    refused(
        root,
        &evaluate("manifest.csv", &["--filter", "x=XX"]),
        "no such column",
    );
    refused(root, &evaluate("good.npy", &[]), "no manifest");
    write("empty.csv", "path,body_part\n");
    refused(root, &evaluate("empty.csv", &[]), "found no rows");
    write("queries.csv", &manifest.replace("gallery", "query"));
    refused(root, &evaluate("queries.csv", &[]), "m3ret split");
    write("leak.csv", &manifest.replacen("gallery", "pretrain", 1));
    refused(root, &evaluate("leak.csv", &[]), "--allow-overlap");
    write(
        "plain.csv",
        &manifest
            .replace("body_part", "organ")
            .replace("pair_id", "pair"),
    );
    refused(root, &evaluate("plain.csv", &[]), "--relevance");

    std::fs::write(root.join("same.npy"), npy(&[N, 2], &[1.0, 0.0].repeat(N))).unwrap();
    refused(
        root,
        &[
            "evaluate",
            "manifest.csv",
            "--out",
            "out",
            "--embeddings",
            "same.npy",
        ],
        "the same vector",
    );
    std::fs::write(root.join("short.npy"), npy(&[2, 2], &[1.0, 0.0, 0.0, 1.0])).unwrap();
    refused(
        root,
        &[
            "evaluate",
            "manifest.csv",
            "--out",
            "out",
            "--embeddings",
            "short.npy",
        ],
        "120 rows",
    );
    refused(root, &["compare", "out", "nothing"], "m3ret evaluate");

    let identity = [
        "--exclude",
        "none",
        "--relevance",
        "patient_id",
        "--filter",
        "patient_id!=secret-3",
    ];
    let (code, _, _) = run(root, &evaluate("manifest.csv", &identity));
    assert_eq!(code, 0);
    for file in ["results.json", "report.html", "per_query.parquet"] {
        let bytes = std::fs::read(root.join("out").join(file)).unwrap();
        assert!(
            !bytes.windows(7).any(|window| window == b"secret-"),
            "{file}"
        );
    }
    refused(
        root,
        &[
            "evaluate",
            "manifest.csv",
            "--out",
            "out",
            "--embeddings",
            "pixels=good.npy",
        ],
        "another one",
    );
    refused(
        root,
        &[
            "evaluate",
            "manifest.csv",
            "--out",
            "out",
            "--embeddings",
            "..=good.npy",
        ],
        "no name of a folder",
    );

    // One class only, and no relevant item: stated, and the rest goes on.
    write(
        "one.csv",
        &manifest
            .replace(",hand,", ",chest,")
            .replace(",head,", ",chest,"),
    );
    let (code, stdout, _) = run(root, &evaluate("one.csv", &[]));
    assert_eq!(code, 0);
    assert!(
        stdout.contains("have only relevant items in the gallery"),
        "{stdout}"
    );
    let (code, stdout, _) = run(
        root,
        &evaluate("manifest.csv", &["--relevance", "patient_id"]),
    );
    assert_eq!(code, 0);
    assert!(
        stdout.contains("have no relevant item in the gallery"),
        "{stdout}"
    );
}

#[test]
fn a_study_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/real/manifest.csv");
    let real = real.canonicalize().unwrap();
    let text = |path: &Path| format!("{:?}", path.to_str().unwrap());
    // Everything on one seed of 18 images: leave-one-out.
    let labelled = std::fs::read_to_string(&real)
        .unwrap()
        .replace("pretrain", "");
    let images = real.parent().unwrap().to_str().unwrap();
    let mut lines = labelled.lines();
    let mut manifest = format!("{}\n", lines.next().unwrap());
    lines.for_each(|line| manifest += &format!("{images}/{line}\n"));
    std::fs::write(root.join("all.csv"), manifest).unwrap();
    let pretrain = format!(
        "out = \"unused\"\nmanifests = [{}]\nmethod = \"sim_dino\"\n\
         [model]\npreset = \"tiny\"\nembed_dim = 24\nnum_heads = 2\ndepth = 1\npatch = [4, 8, 8]\nside = 32\nmax_depth = 4\n\
         [images]\nvalidation = 0.0\n[views]\nside = 32\ndepth = 4\nlocal_side = 16\nlocal_depth = 4\nn_local = 1\n\
         [simdino]\nhead_hidden = 16\nhead_out = 8\n[train]\nsteps = 2\nbatch = 4\n[monitor]\nknn_every = 0\n",
        text(&real)
    );
    std::fs::write(root.join("pretrain.toml"), pretrain).unwrap();
    let study = "out = \"study\"\npretrain = \"pretrain.toml\"\nevaluate = \"all.csv\"\nallow_overlap = true\nfractions = [0.5, 1.0]\n\
                 [[sizes]]\nname = \"a\"\nset = []\n[[sizes]]\nname = \"b\"\nset = [\"model.depth=2\"]\n";
    std::fs::write(root.join("study.toml"), study).unwrap();
    let words = ["study", "scaling", "study.toml"];
    // 18 images have no task of 20 queries: the study says so at its end, after all runs.
    let (code, stdout, stderr) = run(root, &words);
    assert_eq!(
        (code, stderr.contains("no task is fit for a mean")),
        (1, true),
        "{stdout} {stderr}"
    );
    assert_eq!(stdout.matches("Training ").count(), 4, "{stdout}");
    assert_eq!(
        names_in(&root.join("study/evaluations")),
        ["a-0.5", "a-1", "b-0.5", "b-1", "pixels"]
    );
    // One evaluation and one run are lost: only they are made again.
    std::fs::remove_dir_all(root.join("study/evaluations/a-1")).unwrap();
    std::fs::remove_file(root.join("study/runs/b-1.json")).unwrap();
    std::fs::remove_dir_all(root.join("study/runs/b-1")).unwrap();
    let (_, stdout, _) = run(root, &words);
    assert_eq!(stdout.matches("Training ").count(), 1, "{stdout}");
    assert!(stdout.contains("Training b on 1 of the data"), "{stdout}");
    assert!(root.join("study/evaluations/a-1/complete").is_file());
    // Other settings are another study, and patients must not be trained on and evaluated unnoticed.
    refused(
        root,
        &["study", "scaling", "study.toml", "--set", "train.steps=3"],
        "other settings",
    );
    let strict = study.replace("allow_overlap = true", "");
    std::fs::write(root.join("strict.toml"), strict).unwrap();
    refused(
        root,
        &["study", "scaling", "strict.toml"],
        "trained on and evaluated",
    );
    std::fs::write(
        root.join("wrong.toml"),
        study.replace("[0.5, 1.0]", "[0.0]"),
    )
    .unwrap();
    refused(root, &["study", "scaling", "wrong.toml"], "above 0");
}

/// Compares the TREC files with `pytrec_eval`.
#[test]
fn trec_eval_gives_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    archive(root);
    // Half signal: rankings that are neither perfect nor random.
    std::fs::write(root.join("half.npy"), npy(&[N, 8], &vectors(0.5))).unwrap();
    let (code, _, stderr) = run(
        root,
        &[
            "evaluate",
            "manifest.csv",
            "--embeddings",
            "half.npy",
            "--out",
            "out",
            // Runs as long as any R, so that map_at_r is compared, too.
            "-k",
            "1,5,10,100",
        ],
    );
    assert_eq!(code, 0, "{stderr}");
    #[allow(
        clippy::disallowed_methods,
        reason = "a test may be told which Python to use"
    )]
    let python = std::env::var("M3RET_PYTHON").unwrap_or_else(|_| "python3".into());
    #[allow(clippy::disallowed_methods, reason = "a full check must not skip")]
    let is_full = std::env::var_os("M3RET_FULL").is_some();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tools/oracles/check_trec.py"
    );
    let output = Command::new(python)
        .arg(script)
        .arg(root.join("out"))
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) => output,
        _ if is_full => panic!("pytrec_eval is missing: {output:?}"),
        _ => return println!("skipped: Python with pytrec_eval is not there"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("agree; 0 queries have runs shorter"),
        "{text}"
    );
}
