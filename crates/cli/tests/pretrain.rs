//! Runs `m3ret pretrain` as a person would, and kills it as a machine would.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use binary::{json_lines, m3ret, npy, run};

const CONFIG: &str = "out = 'whole'
manifests = ['manifest.csv']
method = 'mae'

[model]
embed_dim = 96
depth = 4
num_heads = 3
patch = [4, 8, 8]
side = 32
max_depth = 8

[images]
validation = 0.3

[views]
side = 32
depth = 8
local_side = 16
local_depth = 4
n_local = 2

[mae]
decoder_dim = 32
decoder_depth = 1
decoder_heads = 2

[simdino]
head_hidden = 64
head_out = 16

[train]
steps = 24
batch = 6
checkpoint_every = 4

[monitor]
knn_every = 8
knn_relevance = 'modality'
";

/// Ten pictures and volumes with a manifest and a config.
fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = "path,modality,patient_id\n".to_owned();
    for seed in 0..10_usize {
        let (shape, modality) = if seed < 6 {
            (vec![40, 36], "DX")
        } else {
            (vec![9, 36, 40], "CT")
        };
        let n: usize = shape.iter().product();
        let values = (0..n).map(|i| ((i * (seed + 3) * 37 + i * i) % 251) as f32);
        let bytes = npy(&shape, &values.collect::<Vec<_>>());
        std::fs::write(folder.path().join(format!("{seed}.npy")), bytes).unwrap();
        rows += &format!("{seed}.npy,{modality},p{seed}\n");
    }
    std::fs::write(folder.path().join("manifest.csv"), rows).unwrap();
    std::fs::write(folder.path().join("config.toml"), CONFIG).unwrap();
    folder
}

/// Steps with their losses, and looks at the validation part.
fn log(folder: &Path, out: &str) -> Vec<(u64, Value, Value)> {
    let text = std::fs::read_to_string(folder.join(out).join("log.jsonl")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    json_lines(whole)
        .into_iter()
        .map(|line| {
            let step = line["step"].as_u64().unwrap();
            (step, line["loss"].clone(), line["knn_student"].clone())
        })
        .collect()
}

#[test]
fn a_killed_run_goes_on_to_the_same_losses() {
    for changes in [
        &["method=mae"][..],
        &["method=sim_dino"],
        &["method=mae", "model.stem=conv", "mae.target=both"],
        &["method=sim_dino", "model.stem=conv", "images.synthetic=0.2"],
        &[
            "method=salt",
            "salt.changed=0.5",
            "salt.teachers=['teacher/model']",
        ],
    ] {
        let folder = archive();
        let root = folder.path();
        let set: Vec<&str> = changes
            .iter()
            .flat_map(|change| ["--set", change])
            .collect();
        let teacher = ["pretrain", "config.toml", "--set", "out=teacher"];
        let few = ["--set", "train.steps=2"];
        if changes[0] == "method=salt" {
            assert_eq!(run(root, &[&teacher[..], &few].concat()).0, 0);
        }
        let (code, text, errors) = run(root, &[&["pretrain", "config.toml"], &set[..]].concat());
        assert_eq!(code, 0, "{errors}");
        assert!(text.contains("whole/model"), "{text}");
        let wanted = log(root, "whole");
        assert_eq!(wanted.len(), 24 + 4);

        let words = [
            &["pretrain", "config.toml", "--set", "out=killed"],
            &set[..],
        ]
        .concat();
        for (killed_at, goes_on) in [(6, false), (13, true), (21, true)] {
            let mut command = m3ret(root, &words);
            if goes_on {
                command.arg("--resume");
            }
            let mut child = command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let begun = Instant::now();
            let reached =
                |log: &[(u64, Value, Value)]| log.iter().any(|(step, ..)| *step >= killed_at);
            while !reached(&log(root, "killed")) && begun.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(1));
            }
            // SIGKILL: nothing can be tidied up.
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let last = [&words[..], &["--resume"]].concat();
        let (code, _, errors) = run(root, &last);
        assert_eq!(code, 0, "{errors}");
        assert_eq!(log(root, "killed"), wanted, "{changes:?}");
        let weights =
            |out: &str| std::fs::read(root.join(out).join("model/model.safetensors")).unwrap();
        assert_eq!(weights("killed"), weights("whole"), "{changes:?}");
    }
}

#[test]
fn an_interrupted_run_saves_what_it_has() {
    let folder = archive();
    let root = folder.path();
    let words = [
        "pretrain",
        "config.toml",
        "--set",
        "train.steps=5000",
        "--json",
    ];
    let child = m3ret(root, &words)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while log(root, "whole").len() < 6 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = child.id().to_string();
    std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert!(errors.contains("--resume resumes it"), "{errors}");
    let n_done = log(root, "whole")
        .iter()
        .filter(|(_, loss, _)| !loss.is_null())
        .count();
    let checkpoint = format!("whole/checkpoints/step-{n_done:09}/state.json");
    assert!(root.join(checkpoint).exists());
}

#[test]
fn a_trained_model_is_taken_by_embed_at_once() {
    let folder = archive();
    let root = folder.path();
    let (code, text, _) = run(
        root,
        &[
            "pretrain",
            "config.toml",
            "--json",
            "--set",
            "train.steps=3",
        ],
    );
    assert_eq!(code, 0);
    assert_eq!(json_lines(&text).len(), 3 + 2);
    // The same run, by the copy of its settings and from elsewhere.
    let (code, _, errors) = run(
        &root.join("whole"),
        &["pretrain", "config.toml", "--resume"],
    );
    assert_eq!(code, 0, "{errors}");
    let words = [
        "embed",
        "manifest.csv",
        "--model",
        "whole/model",
        "--out",
        "v.npy",
    ];
    let (code, text, errors) = run(root, &words);
    assert_eq!(code, 0, "{errors}");
    assert!(text.contains("10 vectors of 96 numbers"), "{text}");
}

#[test]
fn wrong_settings_are_told_before_anything_is_written() {
    let folder = archive();
    let root = folder.path();
    for (words, part) in [
        (
            &["--set", "train.batch=0"][..],
            "setting train.batch: expected 1 to 65536, found 0",
        ),
        (&["--set", "train.bacth=1"], "unknown field `bacth`"),
        (
            &["--set", "manifests=[\"none.csv\"]"],
            "opening the manifest",
        ),
        (
            &[
                "--set",
                "images.split=nothing",
                "--set",
                "train.device=cuda",
            ],
            "--features cuda",
        ),
        (&["--resume"], "no run to go on with"),
    ] {
        let all = [&["pretrain", "config.toml"], words].concat();
        let (code, _, errors) = run(root, &all);
        assert_eq!(code, 1, "{errors}");
        assert!(errors.contains(part), "{errors}");
        assert!(!root.join("whole").exists(), "{words:?}");
    }
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

#[test]
fn a_run_that_was_written_before_resumes_to_the_losses_it_would_have_had() {
    let kept = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/runs/version1"
    ));
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    copy(kept, root);
    // Settings hold absolute paths.
    let config = root.join("run/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("ROOT", root.to_str().unwrap());
    std::fs::write(&config, text).unwrap();
    let wanted = log(kept, "run");
    let (status, _, told) = run(root, &["pretrain", "run/config.toml", "--resume"]);
    assert_eq!(status, 0, "{told}");
    let found = log(root, "run");
    assert_eq!(found.len(), wanted.len());
    for ((step, loss, _), (_, expected, _)) in found.iter().zip(&wanted) {
        let (loss, expected) = (loss.as_f64().unwrap(), expected.as_f64().unwrap());
        // Another kind of CPU adds in another order.
        assert!(
            (loss - expected).abs() < 1e-4,
            "step {step}: {loss} {expected}"
        );
    }
    assert!(root.join("run/model/model.safetensors").exists());
    assert!(root.join("run/report.html").exists());
}
