//! Runs `m3ret simulate radiographs` as a person would.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;

use std::path::Path;

use m3ret_imaging::projection::WATER_PER_MM;
use m3ret_imaging::{Limits, ReadOptions, read_path};
use m3ret_manifest::{Manifest, Table};

use binary::{json_lines, names_in, npy, run};

/// Columns, rows and slices of the phantom, and its steps in mm.
const SIDES: [i16; 3] = [20, 16, 10];
const STEPS: [f32; 3] = [2.0, 2.0, 4.0];

/// HU of a block of water in air, nearer to the patient's left and to the head.
fn phantom(x_to_right: i16, z: i16) -> i16 {
    if (4..10).contains(&x_to_right) && z >= 5 {
        0
    } else {
        -1000
    }
}

/// A NIfTI file of 16 bits whose x grows to the patient's left and y to posterior.
fn nifti(value: impl Fn(i16, i16) -> i16) -> Vec<u8> {
    let mut head = vec![0; 352];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348_i32.to_le_bytes());
    for (idx, side) in [3, SIDES[0], SIDES[1], SIDES[2], 1, 1, 1, 1]
        .iter()
        .enumerate()
    {
        put(40 + 2 * idx, &side.to_le_bytes());
    }
    put(70, &4_i16.to_le_bytes());
    put(72, &16_i16.to_le_bytes());
    for (idx, step) in [1.0, STEPS[0], STEPS[1], STEPS[2]].iter().enumerate() {
        put(76 + 4 * idx, &step.to_le_bytes());
    }
    put(108, &352_f32.to_le_bytes());
    put(112, &1_f32.to_le_bytes());
    // Millimetres.
    put(123, &[2]);
    put(254, &1_i16.to_le_bytes());
    // Rows of the transform to RAS: a step of x is to the left, one of y to posterior.
    for (at, step) in [(280, -STEPS[0]), (300, -STEPS[1]), (320, STEPS[2])] {
        put(at, &step.to_le_bytes());
    }
    put(344, b"n+1\0");
    for z in 0..SIDES[2] {
        for _ in 0..SIDES[1] {
            for x in 0..SIDES[0] {
                head.extend(value(SIDES[0] - 1 - x, z).to_le_bytes());
            }
        }
    }
    head
}

/// One axial CT slice in DICOM, with identifiers that must not get out.
fn slice(z: i16) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut element = |group: u16, number: u16, kind: &str, value: &[u8]| {
        let mut value = value.to_vec();
        if value.len() % 2 == 1 {
            value.push(b' ');
        }
        bytes.extend([group.to_le_bytes(), number.to_le_bytes()].concat());
        bytes.extend(kind.as_bytes());
        if kind == "OW" {
            bytes.extend([0, 0]);
            bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        } else {
            bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        }
        bytes.extend(value);
    };
    element(2, 0x10, "UI", b"1.2.840.10008.1.2.1\0");
    element(
        8,
        0x18,
        "UI",
        format!("1.2.826.77.{}\0", 100 + z).as_bytes(),
    );
    element(8, 0x60, "CS", b"CT");
    element(0x10, 0x10, "PN", b"Doe^Jane^Secret");
    element(0x10, 0x20, "LO", b"MRN-0815-SECRET");
    element(0x18, 0x15, "CS", b"CHEST ");
    element(0x20, 0x0d, "UI", b"1.2.826.77.1");
    element(0x20, 0x0e, "UI", b"1.2.826.77.2");
    element(0x20, 0x32, "DS", format!("0\\0\\{}", z * 4).as_bytes());
    element(0x20, 0x37, "DS", b"1\\0\\0\\0\\1\\0");
    element(0x28, 2, "US", &1_u16.to_le_bytes());
    element(0x28, 4, "CS", b"MONOCHROME2 ");
    element(0x28, 0x10, "US", &SIDES[1].to_le_bytes());
    element(0x28, 0x11, "US", &SIDES[0].to_le_bytes());
    element(0x28, 0x30, "DS", b"2\\2");
    for (number, value) in [(0x100, 16_u16), (0x101, 16), (0x102, 15), (0x103, 1)] {
        element(0x28, number, "US", &value.to_le_bytes());
    }
    element(0x28, 0x1052, "DS", b"0");
    element(0x28, 0x1053, "DS", b"1");
    let row = (0..SIDES[0]).map(|x| phantom(SIDES[0] - 1 - x, z));
    let row: Vec<u8> = row.flat_map(i16::to_le_bytes).collect();
    element(0x7fe0, 0x10, "OW", &row.repeat(16));
    bytes
}

fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("in/ct.nii", &nifti(phantom));
    write("in/mr.nii", &nifti(|x, z| x * z));
    write("in/picture.npy", &npy(&[4, 4], &[1.0; 16]));
    for z in 0..SIDES[2] {
        write(&format!("series/{z}"), &slice(z));
    }
    write(
        "manifest.csv",
        b"path,modality,dims,patient_id,body_part,source,split,pair_id\n\
          in/ct.nii,CT,3d,p1,chest,lab,gallery,pair-1\n\
          in/mr.nii,MR,3d,p2,head,lab,gallery,\n\
          in/picture.npy,CT,2d,p3,chest,lab,query,\n\
          in/gone.nii,CT,3d,p4,chest,lab,query,\n",
    );
    folder
}

fn table(path: &Path) -> Table {
    let manifest = Manifest::open(path, &Limits::default()).unwrap();
    manifest.load().unwrap()
}

fn cells(table: &Table, column: &str) -> Vec<String> {
    let cells = table.rows().map(|row| row.get(column).unwrap().to_owned());
    cells.collect()
}

#[test]
fn a_manifest_becomes_pairs_and_what_fails_is_told() {
    let folder = archive();
    let root = folder.path();
    let words = [
        "simulate",
        "radiographs",
        "manifest.csv",
        "--out",
        "drr",
        "--json",
    ];
    let (status, out, told) = run(root, &words);
    assert_eq!(status, 1, "{told}");
    let lines = json_lines(&out);
    let verdicts: Vec<_> = lines
        .iter()
        .filter_map(|line| line["verdict"].as_str())
        .collect();
    assert_eq!(verdicts, ["simulated", "simulated", "refused"]);
    assert_eq!(lines[0]["pixel_mm"], 2.0);
    let summary = &lines[3]["summary"];
    assert_eq!(
        (&summary["n_cts"], &summary["n_others"]),
        (&1.into(), &2.into())
    );
    assert_eq!(
        names_in(&root.join("drr")),
        ["00001-ap.png", "00001-lat.png", "manifest.csv"]
    );
    let table = table(&root.join("drr/manifest.csv"));
    assert_eq!(
        cells(&table, "path"),
        ["../in/ct.nii", "00001-ap.png", "00001-lat.png"]
    );
    assert_eq!(cells(&table, "modality"), ["CT", "DX", "DX"]);
    assert_eq!(cells(&table, "dims"), ["3d", "2d", "2d"]);
    assert_eq!(cells(&table, "pair_id"), ["pair-1"; 3]);
    assert_eq!(cells(&table, "patient_id"), ["p1"; 3]);
    assert_eq!(cells(&table, "source"), ["lab", "drr-lab", "drr-lab"]);
    assert_eq!(cells(&table, "finding"), ["", "drr-ap", "drr-lat"]);
    for row in table.rows() {
        assert!(
            read_path(&row.file(), &ReadOptions::default()).is_ok(),
            "{}",
            row.path()
        );
    }
}

#[test]
fn the_block_lies_where_a_radiologist_looks_for_it() {
    let folder = archive();
    let root = folder.path();
    let words = [
        "simulate",
        "radiographs",
        "in/ct.nii",
        "--out",
        "drr",
        "--bits",
        "16",
    ];
    let (status, out, told) = run(
        root,
        &[&words[..], &["--angles", "0,180", "--window", "0,1"]].concat(),
    );
    assert_eq!(status, 0, "{out}{told}");
    assert_eq!(out, "2 radiographs of 1 CT volume: drr/manifest.csv\n");
    for (name, block) in [("00001-ap.png", 10..16), ("00001-180.png", 4..10)] {
        let picture = &read_path(&root.join("drr").join(name), &ReadOptions::default()).unwrap()[0];
        assert_eq!(picture.shape(), [1, 1, 20, 20], "{name}");
        let depth_mm = f64::from(SIDES[1]) * 2.0;
        let bright = WATER_PER_MM * depth_mm * 65535.0;
        for (idx, &value) in picture.values().iter().enumerate() {
            let (row, column) = (idx / 20, idx % 20);
            // Rows between two slices mix both.
            if row == 9 || row == 10 {
                continue;
            }
            let wanted = if row < 9 && block.contains(&column) {
                bright
            } else {
                0.0
            };
            assert!(
                (f64::from(value) - wanted).abs() < 1.0,
                "{name} {row} {column}: {value}"
            );
        }
    }
}

#[test]
fn a_dicom_series_gives_dicom_without_its_identifiers() {
    let folder = archive();
    let root = folder.path();
    let words = [
        "simulate",
        "radiographs",
        "series",
        "--out",
        "drr",
        "--format",
        "dicom",
    ];
    let (status, out, told) = run(root, &words);
    assert_eq!(status, 0, "{out}{told}");
    for name in names_in(&root.join("drr")) {
        let bytes = std::fs::read(root.join("drr").join(&name)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for secret in ["SECRET", "Secret", "1.2.826.77"] {
            assert!(!text.contains(secret), "{secret} in {name}");
        }
    }
    let picture = &read_path(&root.join("drr/00001-ap.dcm"), &ReadOptions::default()).unwrap()[0];
    assert_eq!(picture.modality.as_deref(), Some("DX"));
    let max = picture.values().iter().fold(0.0_f32, |max, &x| max.max(x));
    assert!((f64::from(max) - WATER_PER_MM * 32.0).abs() < 2e-4, "{max}");
    let table = table(&root.join("drr/manifest.csv"));
    assert_eq!(cells(&table, "path")[0], "../series");
    assert_eq!(cells(&table, "body_part"), ["chest"; 3]);
    assert_eq!(cells(&table, "patient_id"), [""; 3]);
    let pairs = cells(&table, "pair_id");
    assert!(pairs[0].starts_with("drr-") && pairs.iter().all(|pair| *pair == pairs[0]));
    // A second run says the same, byte for byte.
    let words = [
        "simulate",
        "radiographs",
        "series",
        "--out",
        "again",
        "--format",
        "dicom",
    ];
    assert_eq!(run(root, &words).0, 0);
    for name in names_in(&root.join("drr")) {
        let read = |folder: &str| std::fs::read(root.join(folder).join(&name)).unwrap();
        assert_eq!(read("drr"), read("again"), "{name}");
    }
}

#[test]
fn nothing_is_overwritten_unless_asked_and_inputs_never() {
    let folder = archive();
    let root = folder.path();
    let simulate = |input: &str, more: &[&str]| {
        let words = ["simulate", "radiographs", input, "--out"];
        run(root, &[&words[..], more].concat())
    };
    assert_eq!(simulate("in/ct.nii", &["drr"]).0, 0);
    let (status, _, told) = simulate("in/ct.nii", &["drr"]);
    assert!(status == 1 && told.contains("--force"), "{told}");
    assert_eq!(simulate("in/ct.nii", &["drr", "--force"]).0, 0);
    for (input, out) in [("in/ct.nii", "in"), ("manifest.csv", "."), ("in", "in/drr")] {
        let (status, _, told) = simulate(input, &[out, "--force"]);
        assert!(
            status == 1 && told.contains("beside what is read"),
            "{told}"
        );
    }
    assert_eq!(
        names_in(&root.join("in")),
        ["ct.nii", "mr.nii", "picture.npy"]
    );
}

#[test]
fn what_is_not_known_to_be_ct_is_refused_unless_a_person_says_so() {
    let folder = archive();
    let root = folder.path();
    let (status, out, _) = run(root, &["simulate", "radiographs", "in", "--out", "drr"]);
    assert_eq!(status, 1);
    assert!(
        out.contains("not_hounsfield") && out.contains("--hounsfield all"),
        "{out}"
    );
    assert!(
        out.contains("2 radiographs of 1 CT volume: drr/manifest.csv"),
        "{out}"
    );
    assert!(out.contains("1 left out: no CT volumes"), "{out}");
    let words = [
        "simulate",
        "radiographs",
        "in/mr.nii",
        "--out",
        "all",
        "--hounsfield",
        "all",
    ];
    assert_eq!(run(root, &words).0, 0);
    let (status, out, _) = run(
        root,
        &["simulate", "radiographs", "in/picture.npy", "--out", "no"],
    );
    assert!(status == 1 && out.contains("nothing written"), "{out}");
    assert!(!root.join("no").exists());
}

/// Runs `simulate radiographs`, and returns what it prints.
fn simulated(root: &Path, input: &str, out: &str, more: &[&str]) -> String {
    let words = ["simulate", "radiographs", input, "--out", out];
    let (status, text, told) = run(root, &[&words[..], more].concat());
    assert_eq!(status, 0, "{text}{told}");
    text
}

#[test]
fn a_disturbance_follows_from_seed_and_path_and_is_marked() {
    let folder = archive();
    let root = folder.path();
    let simulate = |input: &str, out: &str, more: &[&str]| simulated(root, input, out, more);
    let bytes = |folder: &str, name: &str| std::fs::read(root.join(folder).join(name)).unwrap();
    simulate("in/ct.nii", "clean", &["--bits", "16"]);
    let told = simulate("in/ct.nii", "one", &["--disturb", "7", "--json"]);
    simulate("in/ct.nii", "again", &["--disturb", "7"]);
    simulate("in/ct.nii", "other", &["--disturb", "8"]);
    for name in ["00001-ap.png", "00001-lat.png"] {
        assert_eq!(bytes("one", name), bytes("again", name), "{name}");
        assert_ne!(bytes("one", name), bytes("other", name), "{name}");
    }
    let lines = json_lines(&told);
    let angle = |line: &serde_json::Value| line["disturbance"]["rotation_deg"].as_f64().unwrap();
    assert!(angle(&lines[0]).abs() <= 12.0);
    assert!((angle(&lines[0]) - angle(&lines[1])).abs() > 1e-6);
    let picture = &read_path(&root.join("one/00001-ap.png"), &ReadOptions::default()).unwrap()[0];
    let [_, _, height, width] = picture.shape();
    assert_eq!(lines[0]["height"], height);
    assert_eq!(lines[0]["width"], width);
    let marked = table(&root.join("one/manifest.csv"));
    assert_eq!(cells(&marked, "disturbed"), ["", "7", "7"]);
    let clean = table(&root.join("clean/manifest.csv"));
    assert_eq!(cells(&clean, "disturbed"), ["", "", ""]);
}

#[test]
fn radiographs_of_a_manifest_are_disturbed_and_their_ct_is_not_projected() {
    let folder = archive();
    let root = folder.path();
    let simulate = |input: &str, out: &str, more: &[&str]| simulated(root, input, out, more);
    let bytes = |folder: &str, name: &str| std::fs::read(root.join(folder).join(name)).unwrap();
    simulate("in/ct.nii", "clean", &["--bits", "16"]);
    let clean = table(&root.join("clean/manifest.csv"));
    let told = simulate("clean/manifest.csv", "existing", &["--disturb", "7"]);
    assert_eq!(told, "2 radiographs disturbed: existing/manifest.csv\n");
    assert_eq!(
        names_in(&root.join("existing")),
        [
            "manifest.csv",
            "radiograph-00001.png",
            "radiograph-00002.png"
        ]
    );
    let existing = table(&root.join("existing/manifest.csv"));
    assert_eq!(cells(&existing, "path")[0], "../in/ct.nii");
    for column in ["modality", "finding", "source", "pair_id", "dims"] {
        assert_eq!(cells(&existing, column), cells(&clean, column), "{column}");
    }
    assert_eq!(cells(&existing, "disturbed"), ["", "7", "7"]);
    simulate("clean/manifest.csv", "repeat", &["--disturb", "7"]);
    let name = "radiograph-00001.png";
    assert_eq!(bytes("existing", name), bytes("repeat", name));

    let words = ["simulate", "radiographs", "in/ct.nii", "--out", "no"];
    let more = ["--disturb", "1", "--format", "dicom"];
    let (status, _, told) = run(root, &[&words[..], &more].concat());
    assert!(status == 1 && told.contains("--format dicom"), "{told}");
    // Nothing is disturbed twice, and what is no radiograph is left out.
    let words = [
        "simulate",
        "radiographs",
        "existing/manifest.csv",
        "--out",
        "twice",
    ];
    let (status, text, _) = run(root, &[&words[..], &["--disturb", "7"]].concat());
    assert_eq!(status, 0);
    assert!(text.contains("2 radiographs of 1 CT volume"), "{text}");
    assert!(
        text.contains("2 left out: radiographs that are disturbed already"),
        "{text}"
    );
}

#[test]
fn what_radiographs_lack_and_what_changes_none_of_them_is_told() {
    let folder = archive();
    let root = folder.path();
    simulated(root, "in/ct.nii", "clean", &[]);
    let table = "path,modality,dims,source,pair_id\n00001-ap.png,DX,2d,drr-m3ret,\n00001-lat.png,DX,2d,drr-m3ret,\n";
    std::fs::write(root.join("clean/alone.csv"), table).unwrap();
    let words = [
        "simulate",
        "radiographs",
        "clean/alone.csv",
        "--out",
        "alone",
    ];
    let more = ["--disturb", "3", "--side", "64", "--angles", "0"];
    let (status, text, told) = run(root, &[&words[..], &more].concat());
    assert_eq!(status, 0, "{text}{told}");
    assert!(told.contains("2 radiographs without a pair_id"), "{told}");
    assert!(
        told.contains("--angles, --side count for pictures that are projected"),
        "{told}"
    );
    let (_, _, told) = run(
        root,
        &[
            "simulate",
            "radiographs",
            "clean/manifest.csv",
            "--out",
            "b",
            "--disturb",
            "3",
        ],
    );
    assert_eq!(told, "");
}
