//! The rules of docs/evaluation.md, as a person meets them in files and on the terminal.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and one that cannot run says so"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    reason = "small numbers, and stories told from start to end"
)]

#[path = "person/binary.rs"]
mod binary;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use binary::{json_lines, npy, run};

const N: usize = 480;
const WIDTH: usize = 8;

fn modality(i: usize) -> &'static str {
    ["CT", "DX", "MR", "PT", "US"][i % 5]
}

/// US shows the chest only; elsewhere there are four parts, one of them rare.
fn body_part(i: usize) -> &'static str {
    if i % 5 == 4 {
        return "chest";
    }
    [
        "chest", "hand", "head", "chest", "hand", "head", "chest", "foot",
    ][i * 7 % 11 % 8]
}

/// Images that are not there, with pairs of CT, DX and PT of which some radiographs are disturbed.
fn archive(folder: &Path) {
    let head = "path,modality,dims,source,body_part,region,patient_id,split,pair_id,disturbed\n";
    let mut text = String::from(head);
    for i in 0..N {
        let split = if i % 4 == 0 { "query" } else { "gallery" };
        let (modality, part) = (modality(i), body_part(i));
        let region = if part == "head" { "upper" } else { "rest" };
        let is_pair = i < 120 && !matches!(modality, "MR" | "US");
        let pair = if is_pair {
            format!("pair-{}", i / 5)
        } else {
            String::new()
        };
        let is_disturbed = is_pair && modality == "DX" && i >= 60;
        // Simulated radiographs are in pair tasks only.
        let source = if is_pair && modality == "DX" {
            "drr-x".to_owned()
        } else {
            format!("site-{}", i % 2)
        };
        let seed = if is_disturbed { "7" } else { "" };
        let patient = if i % 17 == 0 {
            String::new()
        } else {
            format!("secret-{}", i / 3)
        };
        writeln!(
            text,
            "{i:03}.png,{modality},2d,{source},{part},{region},{patient},{split},{pair},{seed}"
        )
        .unwrap();
    }
    std::fs::write(folder.join("manifest.csv"), text).unwrap();
    for (name, signal) in [("half", 0.4), ("good", 2.0)] {
        let bytes = npy(&[N, WIDTH], &vectors(signal));
        std::fs::write(folder.join(format!("{name}.npy")), bytes).unwrap();
    }
}

/// How much a vector follows the body part is `signal`.
fn vectors(signal: f32) -> Vec<f32> {
    let mut all = Vec::new();
    for i in 0..N {
        let mut vector: Vec<f32> = (0..WIDTH)
            .map(|j| (((i * 37 + j * 101) * 7919 % 1009) as f32 / 1009.0) - 0.5)
            .collect();
        let label = ["chest", "hand", "head", "foot"]
            .iter()
            .position(|part| *part == body_part(i));
        vector[label.unwrap()] += signal;
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        all.extend(vector.iter().map(|x| x / length));
    }
    all
}

fn evaluate(root: &Path, name: &str, more: &[&str]) -> (Value, String) {
    let vectors = format!("{name}.npy");
    let words = [
        "evaluate",
        "manifest.csv",
        "--embeddings",
        &vectors,
        "--out",
        name,
    ];
    let (code, stdout, stderr) = run(root, &[&words[..], more].concat());
    assert_eq!(code, 0, "{stderr}");
    let bytes = std::fs::read(root.join(name).join("results.json")).unwrap();
    (serde_json::from_slice(&bytes).unwrap(), stdout)
}

fn task<'a>(results: &'a Value, name: &str) -> Option<&'a Value> {
    let tasks = results["tasks"].as_array().unwrap();
    tasks.iter().find(|task| task["task"] == name)
}

#[test]
fn cross_tasks_need_two_classes_and_are_means_over_them() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let (results, stdout) = evaluate(folder.path(), "half", &[]);
    assert_eq!(results["protocol"], 3);
    let reason = |name: &str| {
        assert!(task(&results, name).is_none(), "{name}");
        let mut skipped = results["skipped"].as_array().unwrap().iter();
        let skipped = skipped.find(|skipped| skipped["task"] == name).unwrap();
        skipped["reason"].as_str().unwrap().to_owned()
    };
    // All queries of US have one class; where its gallery is asked, nothing can be ranked wrong.
    assert!(reason("cross/US-CT/body_part").contains("have 1 class and the gallery 4 classes"));
    assert!(reason("cross/CT-US/body_part").contains("only relevant items"));
    let cross = task(&results, "cross/DX-CT/body_part").unwrap();
    assert_eq!(
        (&cross["group"], &cross["averaged_over"]),
        (&"cross".into(), &"query_classes".into())
    );
    assert!(cross["n_query_classes"].as_u64().unwrap() >= 3);
    // MR and PET are not mixed with what encoders are trained on.
    for (name, group) in [
        ("cross/CT-MR/body_part", "cross-unseen"),
        ("cross/PT-DX/body_part", "cross-unseen"),
        ("unseen/PT-2d/body_part", "unseen"),
    ] {
        assert_eq!(task(&results, name).unwrap()["group"], group, "{name}");
    }
    assert!(task(&results, "within/PT-2d/body_part").is_none());
    // Fixed rankings stand beside every number, and the terminal shows them.
    for task in results["tasks"].as_array().unwrap() {
        for metric in ["map_at_r", "precision_at_5", "hit_at_1"] {
            let [constant, maximum] = ["constant", "maximum"].map(|key| task[key][metric].as_f64());
            let (constant, maximum) = (constant.unwrap(), maximum.unwrap());
            assert!(constant <= maximum + 1e-9, "{} {metric}", task["task"]);
        }
    }
    assert!(
        stdout.contains("constant") && stdout.contains("resolves"),
        "{stdout}"
    );
    assert!(stdout.contains("mean of cross-unseen"), "{stdout}");
    assert!(stdout.contains("mixed    body_part"), "{stdout}");
}

#[test]
fn any_column_is_relevance_and_what_a_constant_solves_is_apart() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    archive(root);
    let (results, stdout) = evaluate(root, "half", &["--relevance", "region"]);
    assert!(task(&results, "cross/DX-CT/region").is_some());
    // Three of four images are of one region: always naming it has 0.8 within most tasks.
    let groups = results["groups"].as_array().unwrap();
    let of_groups: Vec<&str> = groups
        .iter()
        .flat_map(|group| group["tasks"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    let mut n_apart = 0;
    for task in results["tasks"].as_array().unwrap() {
        let is_apart = task["constant_share"].as_f64().unwrap() >= 0.8;
        let name = task["task"].as_str().unwrap();
        n_apart += usize::from(is_apart);
        assert!(!is_apart || !of_groups.contains(&name), "{name}");
    }
    assert!(n_apart > 0);
    assert!(
        stdout.contains("a fixed ranking (constant) reaches 0.8"),
        "{stdout}"
    );
    let (code, stdout, stderr) = run(root, &["compare", "half", "half"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("(constant)"), "{stdout}");
}

#[test]
fn disturbed_radiographs_are_measured_apart() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let (results, _) = evaluate(folder.path(), "half", &[]);
    let n = |name: &str| task(&results, name).unwrap()["n_queries"].as_u64().unwrap();
    assert_eq!((n("pair/DX-CT"), n("pair-disturbed/DX-CT")), (12, 12));
    assert_eq!((n("pair/CT-DX"), n("pair-disturbed/CT-DX")), (12, 12));
    let group = |name: &str| task(&results, name).unwrap()["group"].clone();
    assert_eq!(group("pair-disturbed/PT-DX"), "pair-disturbed");
    assert!(task(&results, "pair-disturbed/CT-PT").is_none());
}

#[test]
fn comparisons_show_three_metrics_and_never_mix_protocols() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    archive(root);
    let (half, _) = evaluate(root, "half", &[]);
    evaluate(root, "good", &[]);
    let (code, stdout, stderr) = run(root, &["compare", "half", "good", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let compared = &json_lines(&stdout)[0];
    let rows = compared["rows"].as_array().unwrap();
    let row = |name: &str, metric: &str| {
        let found = rows
            .iter()
            .find(|row| row["name"] == name && row["metric"] == metric);
        found.unwrap_or_else(|| panic!("{name} {metric}: {stdout}"))
    };
    for metric in ["map_at_r", "precision_at_5", "hit_at_1"] {
        let cross = row("cross/CT-MR/body_part", metric);
        let of_task = task(&half, "cross/CT-MR/body_part").unwrap();
        for (key, wanted) in [
            ("a", &of_task["metrics"][metric]["value"]),
            ("chance", &of_task["chance"][metric]),
            ("constant", &of_task["constant"][metric]),
        ] {
            let difference = cross[key].as_f64().unwrap() - wanted.as_f64().unwrap();
            assert!(difference.abs() < 1e-9, "{metric} {key}");
        }
    }
    // The mean of a group is that of results.json.
    let groups = half["groups"].as_array().unwrap();
    let group = groups
        .iter()
        .find(|group| group["group"] == "cross-unseen")
        .unwrap();
    let n_tasks = group["tasks"].as_array().unwrap().len();
    let mean = row(&format!("cross-unseen ({n_tasks} tasks)"), "map_at_r");
    let value = group["metrics"]["map_at_r"]["value"].as_f64().unwrap();
    assert!((mean["a"].as_f64().unwrap() - value).abs() < 1e-9);
    assert_eq!(mean["verdict"], "better");

    // Results of the first protocol name none, and have neither classes nor constants.
    let old = |name: &str| {
        let path = root.join(name).join("results.json");
        let mut results: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let fields = results.as_object_mut().unwrap();
        for key in ["protocol", "groups", "mixed"] {
            fields.remove(key);
        }
        for task in results["tasks"].as_array_mut().unwrap() {
            let task = task.as_object_mut().unwrap();
            for key in [
                "constant",
                "maximum",
                "constant_share",
                "resolution",
                "averaged_over",
            ] {
                task.remove(key);
            }
        }
        std::fs::write(path, results.to_string()).unwrap();
    };
    old("half");
    let (code, _, stderr) = run(root, &["compare", "half", "good"]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("half was evaluated by protocol 1 and good by protocol 3"),
        "{stderr}"
    );
    old("good");
    let (code, stdout, stderr) = run(root, &["compare", "half", "good"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("Both follow protocol 1"), "{stdout}");
    let newer = root.join("good/results.json");
    let text = std::fs::read_to_string(&newer).unwrap();
    // Protocol 2 is read, too.
    for name in ["half", "good"] {
        let path = root.join(name).join("results.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replacen('{', "{\"protocol\":2,", 1)).unwrap();
    }
    let (code, stdout, stderr) = run(root, &["compare", "half", "good"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("Both follow protocol 2"), "{stdout}");
    std::fs::write(&newer, text.replacen('{', "{\"protocol\":4,", 1)).unwrap();
    let (code, _, stderr) = run(root, &["compare", "half", "good"]);
    assert_eq!(
        (code, stderr.contains("use a newer m3ret")),
        (1, true),
        "{stderr}"
    );
}

/// Recomputes everything with numpy.
#[test]
fn numpy_gives_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    archive(root);
    let several = std::fs::read_to_string(root.join("manifest.csv")).unwrap();
    std::fs::write(
        root.join("labels.csv"),
        several.replace(",foot,", ",hand|foot,"),
    )
    .unwrap();
    evaluate(root, "half", &[]);
    let words = [
        "evaluate",
        "labels.csv",
        "--embeddings",
        "half.npy",
        "--out",
        "labels",
    ];
    assert_eq!(run(root, &words).0, 0);
    check_with_numpy(root, ["half", "manifest.csv", "half.npy"]);
    check_with_numpy(root, ["labels", "labels.csv", "half.npy"]);
    // Vectors of two values have few cosines: nearly every cut goes through a tie.
    let signs: Vec<f32> = vectors(0.4)
        .iter()
        .map(|x| (1.0 / (WIDTH as f32).sqrt()).copysign(*x))
        .collect();
    std::fs::write(root.join("signs.npy"), npy(&[N, WIDTH], &signs)).unwrap();
    evaluate(root, "signs", &[]);
    check_with_numpy(root, ["signs", "manifest.csv", "signs.npy"]);
}

fn check_with_numpy(root: &Path, [out, manifest, vectors]: [&str; 3]) {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test may be told which Python to use"
    )]
    let python = std::env::var("M3RET_PYTHON").unwrap_or_else(|_| "python3".into());
    #[allow(clippy::disallowed_methods, reason = "a full check must not skip")]
    let is_full = std::env::var_os("M3RET_FULL").is_some();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tools/oracles/check_protocol.py"
    );
    let output = Command::new(python)
        .arg(script)
        .args([out, manifest, vectors])
        .current_dir(root)
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) => output,
        _ if is_full => panic!("numpy or pyarrow is missing: {output:?}"),
        _ => return println!("skipped: Python with numpy and pyarrow is not there"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("agree"), "{text}");
}
