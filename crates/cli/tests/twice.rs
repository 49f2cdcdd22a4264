//! Images that a manifest lists twice, files with several images, and people whom header and manifest name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/dicom.rs"]
mod dicom;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use serde_json::Value;

use binary::{json_lines, run};
use dicom::{Word, dicom};
use pictures::{picture, pictures, put, search, texts};

/// Runs `m3ret` with `--json` and returns its last line.
fn told(root: &Path, words: &[&str]) -> Value {
    let (_, out, told) = run(root, &[words, &["--json"]].concat());
    json_lines(&out).pop().expect(&told)
}

/// Volumes of 8 x 8 x 2 voxels at several times, as NIfTI-1.
fn volumes(seeds: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 352];
    bytes[0..4].copy_from_slice(&348_i32.to_le_bytes());
    let n_times = i16::try_from(seeds.len()).unwrap();
    for (i, side) in [4, 8, 8, 2, n_times, 1, 1, 1].into_iter().enumerate() {
        bytes[40 + 2 * i..][..2].copy_from_slice(&i16::to_le_bytes(side));
    }
    bytes[70..72].copy_from_slice(&2_i16.to_le_bytes());
    bytes[72..74].copy_from_slice(&8_i16.to_le_bytes());
    for i in 0..5 {
        bytes[76 + 4 * i..][..4].copy_from_slice(&1_f32.to_le_bytes());
    }
    bytes[108..112].copy_from_slice(&352_f32.to_le_bytes());
    bytes[123] = 2 | 8;
    bytes[344..348].copy_from_slice(b"n+1\0");
    for &seed in seeds {
        bytes.extend((0..128_u8).map(|i| i.wrapping_mul(seed) % 101));
    }
    bytes
}

/// The finding of each image of a gallery, by its part.
fn findings(root: &Path, gallery: &str) -> Vec<String> {
    put(root, "q.npy", binary::npy(&[16, 16], &picture(77)));
    let (hits, _) = search(root, gallery, &["-i", "q.npy"]);
    let text = |hit: &Value, key: &str| hit[key].as_str().unwrap_or("").to_owned();
    let mut found: Vec<String> = hits
        .iter()
        .map(|hit| format!("{} {}", text(hit, "part"), text(hit, "finding")))
        .collect();
    found.sort();
    found
}

#[test]
fn a_folder_takes_no_label_of_a_file_with_several_images() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    put(root, "in/times.nii", volumes(&[3, 5, 7]));
    put(
        root,
        "m.csv",
        "path,part,finding\nin/times.nii,t=1,cyst\nin/times.nii,t=2,mass\n",
    );
    told(root, &["index", "build", "g.m3i", "m.csv", "-m", "pixels"]);
    assert_eq!(findings(root, "g.m3i"), ["t=1 cyst", "t=2 mass"]);
    // The folder has one image more, and says nothing of the others.
    let added = told(root, &["index", "add", "g.m3i", "in"]);
    assert_eq!(added["n_added"], 1, "{added}");
    assert_eq!(findings(root, "g.m3i"), ["t=0 ", "t=1 cyst", "t=2 mass"]);
    // One of three images changes: its label was that of another picture.
    put(root, "in/times.nii", volumes(&[3, 11, 7]));
    told(root, &["index", "add", "g.m3i", "in"]);
    assert_eq!(findings(root, "g.m3i"), ["t=0 ", "t=1 ", "t=2 mass"]);
}

#[test]
fn a_row_that_a_manifest_no_longer_has_leaves_though_its_file_is_listed() {
    let folder = pictures(2);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,finding\n0.npy,mass\n0.npy,cyst\n1.npy,normal\n",
    );
    for gallery in ["added.m3i", "relabelled.m3i"] {
        told(root, &["index", "build", gallery, "m.csv", "-m", "pixels"]);
    }
    for (rows, finding) in [("0.npy,cyst", "cyst"), ("0.npy,scar", "scar")] {
        put(
            root,
            "m.csv",
            format!("path,finding\n{rows}\n1.npy,normal\n"),
        );
        told(root, &["index", "add", "added.m3i", "m.csv"]);
        let mut expected = [format!(" {finding}"), " normal".to_owned()];
        expected.sort();
        assert_eq!(findings(root, "added.m3i"), expected);
        // Nothing leaves by `relabel`, which says that a row is left.
        let relabelled = told(root, &["index", "relabel", "relabelled.m3i", "m.csv"]);
        assert_eq!(relabelled["n_surplus"], 1, "{relabelled}");
        assert_eq!(findings(root, "relabelled.m3i").len(), 3);
    }
    // A folder lists files, and no rows: those of a manifest stay.
    told(root, &["index", "add", "relabelled.m3i", "."]);
    assert!(findings(root, "relabelled.m3i").len() >= 3);
}

#[test]
fn an_image_that_is_listed_twice_is_one_image() {
    let folder = pictures(4);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,finding,patient_id\n0.npy,mass,p0\n0.npy,cyst,p0\n1.npy,,p1\n2.npy,,p2\n3.npy,,p3\n",
    );
    // It is no hit of itself, by file and by id.
    for query in ["0.npy", "0.npy#row=2"] {
        let (hits, _) = search(root, "m.csv", &["-i", query]);
        assert_eq!(texts(&hits, "path"), ["1.npy", "2.npy", "3.npy"], "{query}");
    }
    // It is no copy of itself.
    let (_, out, _) = run(
        root,
        &[
            "dedup", "m.csv", "--cache", "cache", "-m", "pixels", "--json",
        ],
    );
    let pairs = json_lines(&out);
    let is_itself =
        |pair: &&Value| pair["files"].is_array() && pair["files"][0] == pair["files"][1];
    assert_eq!(pairs.iter().find(is_itself), None);
    // Its rows stay together in a split.
    let (status, _, told) = run(root, &["split", "m.csv", "-o", "s.csv", "--cache", "cache"]);
    assert_eq!(status, 0, "{told}");
    let written = std::fs::read_to_string(root.join("s.csv")).unwrap();
    let splits: Vec<&str> = written.lines().skip(1).take(2).collect();
    let of = |line: &str| line.rsplit(',').next().map(str::to_owned);
    assert_eq!(of(splits[0]), of(splits[1]), "{written}");
}

/// An image of a patient as DICOM.
fn image_of(patient: &str, seed: usize) -> Vec<u8> {
    let number = format!("1.2.3.{seed}");
    let words: [Word<'_>; 4] = [
        (8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.1.1"),
        (8, 0x18, "UI", &number),
        (8, 0x60, "CS", "DX"),
        (0x10, 0x20, "LO", patient),
    ];
    let values: Vec<f32> = (0..24 * 32).map(|i| ((i * seed) % 251) as f32).collect();
    dicom(&words, &values)
}

#[test]
fn an_identifier_that_header_and_manifest_state_alike_is_of_both() {
    let folder = pictures(2);
    let root = folder.path();
    put(root, "a.dcm", image_of("P1", 3));
    put(root, "b.dcm", image_of("XYZ", 5));
    put(root, "c.dcm", image_of("P1", 7));
    put(
        root,
        "m.csv",
        "path,patient_id\na.dcm,P1\nb.dcm,P1\nc.dcm,\n0.npy,P1\n1.npy,P2\n",
    );
    let expected = [
        ("0.npy", "same_patient"),
        ("1.npy", "other_patient"),
        ("b.dcm", "same_patient"),
        ("c.dcm", "same_patient"),
    ];
    let relations = |archive: &str| {
        let (hits, _) = search(root, archive, &["-i", "a.dcm"]);
        let text = |hit: &Value, key: &str| hit[key].as_str().unwrap().to_owned();
        let mut found: Vec<[String; 2]> = hits
            .iter()
            .map(|hit| [text(hit, "path"), text(hit, "relation")])
            .collect();
        found.sort();
        found
    };
    let expected = expected.map(|(path, relation)| [path.to_owned(), relation.to_owned()]);
    assert_eq!(relations("m.csv"), expected);
    // A corrected manifest is as good as one that was right from the start.
    put(
        root,
        "older.csv",
        "path,patient_id\na.dcm,P7\nb.dcm,\nc.dcm,P9\n0.npy,P1\n1.npy,P2\n",
    );
    told(
        root,
        &["index", "build", "g.m3i", "older.csv", "-m", "pixels"],
    );
    told(root, &["index", "relabel", "g.m3i", "m.csv"]);
    assert_eq!(relations("g.m3i"), expected);
}

#[test]
fn copies_are_of_one_patient_by_the_same_rule_as_hits() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(root, "a.dcm", image_of("P1", 3));
    put(root, "b.dcm", image_of("P1", 3));
    put(root, "c.dcm", image_of("P2", 5));
    put(root, "d.dcm", image_of("P2", 5));
    // Headers agree, and the manifest names one of two; then headers agree, and the manifest disagrees in kind.
    put(
        root,
        "m.csv",
        "path,patient_id\na.dcm,anon1\nb.dcm,\nc.dcm,anon2\nd.dcm,anon2\n",
    );
    let verdicts = |words: &[&str]| {
        let usual = [
            "dedup", "m.csv", "--cache", "cache", "-m", "pixels", "--json",
        ];
        let (_, out, told) = run(root, &[&usual[..], words].concat());
        let pairs = json_lines(&out);
        [["a.dcm", "b.dcm"], ["c.dcm", "d.dcm"]].map(|ids| {
            let pair = pairs
                .iter()
                .find(|pair| pair["ids"] == serde_json::json!(ids));
            pair.expect(&told)["same_patient"].clone()
        })
    };
    assert_eq!(verdicts(&[]), [true, true]);
    // A header's number says nothing of a manifest's pseudonym.
    put(root, "b.dcm", image_of("", 3));
    put(
        root,
        "m.csv",
        "path,patient_id\na.dcm,\nb.dcm,anon1\nc.dcm,anon2\nd.dcm,anon3\n",
    );
    assert_eq!(verdicts(&[]), [Value::Null, Value::from(true)]);
}
