//! Which crate may name which: read from `cargo metadata`, so that no arrow appears unnoticed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Each crate of the workspace, with the crates of the workspace that it may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("m3ret-files", &[]),
    ("m3ret-imaging", &[]),
    ("m3ret-search", &[]),
    ("m3ret-testing", &[]),
    ("m3ret-dicomnet", &["m3ret-files"]),
    ("m3ret-manifest", &["m3ret-files", "m3ret-imaging"]),
    ("m3ret-encoder", &["m3ret-imaging"]),
    ("m3ret-lake", &["m3ret-search"]),
    (
        "m3ret-pretrain",
        &[
            "m3ret-encoder",
            "m3ret-files",
            "m3ret-imaging",
            "m3ret-manifest",
            "m3ret-search",
        ],
    ),
    (
        "m3ret",
        &[
            "m3ret-encoder",
            "m3ret-files",
            "m3ret-imaging",
            "m3ret-lake",
            "m3ret-manifest",
            "m3ret-pretrain",
            "m3ret-search",
        ],
    ),
    (
        "m3ret-cli",
        &[
            "m3ret",
            "m3ret-dicomnet",
            "m3ret-encoder",
            "m3ret-imaging",
            "m3ret-manifest",
            "m3ret-pretrain",
            "m3ret-search",
            "m3ret-server",
        ],
    ),
    (
        "m3ret-server",
        &[
            "m3ret",
            "m3ret-dicomnet",
            "m3ret-files",
            "m3ret-imaging",
            "m3ret-search",
        ],
    ),
    (
        "m3ret-python",
        &[
            "m3ret",
            "m3ret-encoder",
            "m3ret-imaging",
            "m3ret-pretrain",
            "m3ret-search",
        ],
    ),
];

/// Each crate whose tests name a further crate of the workspace, with those crates.
const ARROWS_OF_TESTS: &[(&str, &[&str])] = &[
    ("m3ret-encoder", &["m3ret-testing"]),
    ("m3ret-pretrain", &["m3ret-testing"]),
    ("m3ret-search", &["m3ret-testing"]),
];

/// Crates of the terminal, which only the command line may name.
const OF_THE_TERMINAL: &[&str] = &["clap", "indicatif", "ctrlc"];

/// Families of heavy dependencies, each behind one crate, or the few that are named here.
const FENCED: &[(&str, &[&str])] = &[
    ("burn", &["m3ret-pretrain"]),
    ("dicom-core", &["m3ret-imaging"]),
    ("dicom-ul", &["m3ret-dicomnet"]),
    ("reqwest", &["m3ret-dicomnet", "m3ret-server"]),
    ("rustls", &["m3ret-dicomnet", "m3ret-server"]),
    ("jsonwebtoken", &["m3ret-server"]),
    (
        "blake3",
        &[
            "m3ret",
            "m3ret-dicomnet",
            "m3ret-lake",
            "m3ret-search",
            "m3ret-server",
        ],
    ),
    ("axum", &["m3ret-server"]),
    ("hyper", &["m3ret-server"]),
    ("tokio", &["m3ret-dicomnet", "m3ret-lake", "m3ret-server"]),
    ("lancedb", &["m3ret-lake"]),
    ("lance-io", &["m3ret-lake"]),
    ("object_store", &["m3ret-lake"]),
    ("pyo3", &["m3ret-python"]),
    ("numpy", &["m3ret-python"]),
];

/// Who needs a crate: the product, or its tests alone.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Product,
    Tests,
}

/// Returns what each crate of the workspace needs for one kind of use.
fn needs(kind: Kind) -> BTreeMap<String, BTreeSet<String>> {
    let words = [
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
        "--manifest-path",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ];
    let output = Command::new(env!("CARGO")).args(words).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |package: &Value| {
        let named = package["dependencies"].as_array().unwrap().iter();
        // Kind is "dev" for what tests need, and null or "build" for all others.
        let named = named.filter(|named| (named["kind"] == "dev") == (kind == Kind::Tests));
        let names = named.map(|named| named["name"].as_str().unwrap().to_owned());
        (
            package["name"].as_str().unwrap().to_owned(),
            names.collect(),
        )
    };
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(of)
        .collect()
}

#[test]
fn crates_name_only_those_below_them() {
    let needs = needs(Kind::Product);
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = needs.keys().map(String::as_str).collect();
    assert_eq!(
        found, known,
        "a crate came or went: say here what it may name"
    );
    for (name, allowed) in ARROWS {
        let own = needs[*name].iter().map(String::as_str);
        let wrong: Vec<&str> = own
            .filter(|needed| known.contains(needed) && !allowed.contains(needed))
            .collect();
        assert!(wrong.is_empty(), "{name} may not name {wrong:?}");
    }
}

#[test]
fn tests_name_further_crates_only_where_it_is_said() {
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, needed) in needs(Kind::Tests) {
        let allowed = ARROWS_OF_TESTS.iter().find(|(of, _)| *of == name);
        let allowed = allowed.map_or(&[][..], |(_, allowed)| allowed);
        let own = needed.iter().map(String::as_str);
        let own: Vec<&str> = own.filter(|needed| known.contains(needed)).collect();
        assert_eq!(own, allowed, "tests of {name}");
    }
}

#[test]
fn only_the_command_line_knows_the_terminal_and_families_stay_fenced() {
    for (name, needed) in needs(Kind::Product) {
        for of_terminal in OF_THE_TERMINAL {
            assert!(
                name == "m3ret-cli" || !needed.contains(*of_terminal),
                "{name} names {of_terminal}"
            );
        }
        for (family, owners) in FENCED {
            assert!(
                owners.contains(&name.as_str()) || !needed.contains(*family),
                "{name} names {family}"
            );
        }
    }
}

#[test]
fn the_library_prints_nothing_and_ends_no_program() {
    let library = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../m3ret/src"));
    let mut folders = vec![library.to_owned()];
    let mut n_files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|end| end != "rs") {
                continue;
            }
            n_files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            // An example in a comment may print.
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let text: String = code.collect();
            for banned in ["println!", "process::exit", "build_global", "stdout()"] {
                assert!(!text.contains(banned), "{}: {banned}", path.display());
            }
        }
    }
    assert!(n_files > 50, "found only {n_files} files");
}
