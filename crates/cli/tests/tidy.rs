//! House rules that no compiler checks: file sizes, names, ASCII, the lint line.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

const MAX_LINES: usize = 800;
const BANNED_NAMES: &[&str] = &[
    "data", "info", "manager", "handler", "helper", "util", "utils", "misc", "common", "core",
    "types", "mod",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines above the unit tests.
fn body(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text)
}

fn faults(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or("");
    let mut faults = Vec::new();
    if body(&text).lines().count() > MAX_LINES {
        faults.push(format!("more than {MAX_LINES} lines"));
    }
    if BANNED_NAMES.contains(&name) {
        faults.push("a banned file name".into());
    }
    if !text.is_ascii() {
        faults.push("characters outside ASCII".into());
    }
    let marker = ["TO", "DO"].concat();
    if text
        .lines()
        .any(|line| line.contains(&marker) && !line.contains('#'))
    {
        faults.push(format!("{marker} without an issue number"));
    }
    faults
}

#[test]
fn every_source_file_keeps_the_house_rules() {
    let mut files = Vec::new();
    rust_files(&root().join("crates"), &mut files);
    assert!(
        files.len() > 20,
        "the walk found only {} files",
        files.len()
    );
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|path| {
            faults(path)
                .into_iter()
                .map(move |f| format!("{}: {f}", path.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{}",
            manifest.display()
        );
    }
}

#[test]
fn only_one_module_touches_the_output_streams() {
    let mut files = Vec::new();
    rust_files(&root().join("crates/cli/src"), &mut files);
    assert!(files.len() > 20);
    for file in files.iter().filter(|file| !file.ends_with("out.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for stream in [
            "io::stdout",
            "io::stderr",
            "print!(",
            "println!(",
            "Stdout::",
            "Stderr",
            "/dev/tty",
        ] {
            assert!(
                !text.contains(stream),
                "{}: {stream} without the module out",
                file.display()
            );
        }
    }
}
