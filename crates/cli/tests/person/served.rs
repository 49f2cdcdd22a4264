//! An archive whose gallery is served; shared by the tests of the server.

#![allow(
    dead_code,
    reason = "not every test that shares this file uses all of it"
)]

use crate::binary::{npy, run};
use crate::dicom::{self, picture};

/// What no answer, no log and no line of the audit trail may hold.
pub(crate) const SECRETS: [&str; 3] = ["MRN-0815-SECRET", "MRN-4711-SECRET", "Doe^Jane"];

pub(crate) fn image_of(patient: &str, study: &str, seed: usize) -> Vec<u8> {
    dicom::image_of(patient, study, "DX", seed)
}

/// Makes an account of each role for `--token-file tokens`, and returns their tokens.
pub(crate) fn accounts(root: &std::path::Path, roles: [&str; 3]) -> Vec<String> {
    let mut lines = String::new();
    let mut tokens = Vec::new();
    for role in roles {
        let (_, out, _) = run(root, &["serve", "--new-token", &format!("{role}:{role}-1")]);
        let mut words = out
            .lines()
            .map(|line| line.split_once(' ').unwrap().1.trim().to_owned());
        tokens.push(words.next().unwrap());
        lines += &(words.next().unwrap() + "\n");
    }
    std::fs::write(root.join("tokens"), lines).unwrap();
    tokens
}

/// An archive `in` with the gallery `g.m3i`, and a query beside it.
pub(crate) fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("in/two")).unwrap();
    let first = SECRETS[0];
    for (name, bytes) in [
        ("in/a.dcm", image_of(first, "1.2.3", 1)),
        ("in/b.dcm", image_of(first, "1.2.4", 2)),
        ("in/two/c.dcm", image_of(SECRETS[1], "1.2.5", 3)),
        ("in/d.npy", npy(&[24, 32], &picture(5))),
        ("query.dcm", image_of(first, "1.2.3", 6)),
    ] {
        std::fs::write(root.join(name), bytes).unwrap();
    }
    let (status, _, told) = run(root, &["index", "build", "g.m3i", "in"]);
    assert_eq!(status, 0, "{told}");
    folder
}
