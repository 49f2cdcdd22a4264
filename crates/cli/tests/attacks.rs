//! Files that once took memory, time or the whole program, as a person would meet them: each is refused with its reason,
//! in little memory, and costs no other image. testdata/README.md lists the files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;
#[path = "person/processes.rs"]
mod processes;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use binary::{json_lines, names_in, npy, run};
use pictures::{picture, pictures, put, vectors};
use processes::{has_ffmpeg, most_memory};

fn attack(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/attacks")
        .join(name)
}

/// Runs `m3ret WORDS` with this much address space: status, standard output, standard error. A status of a signal, as
/// of an aborted process, fails.
#[cfg(target_os = "linux")]
fn run_within(folder: &Path, mebibytes: u64, words: &[&str]) -> (i32, String, String) {
    let script = format!("ulimit -v {}; exec \"$0\" \"$@\"", mebibytes << 10);
    let mut command = Command::new("sh");
    command.current_dir(folder).args(["-c", &script]);
    command.arg(env!("CARGO_BIN_EXE_m3ret")).args(words);
    command.env("NO_COLOR", "1");
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let told = text(stderr);
    let code = status.code();
    assert!(code.is_some_and(|code| code < 128), "{status}: {told}");
    (code.unwrap(), text(stdout), told)
}

#[cfg(not(target_os = "linux"))]
fn run_within(folder: &Path, _: u64, words: &[&str]) -> (i32, String, String) {
    run(folder, words)
}

/// Inspects a file with this much address space; returns the code of its refusal.
fn refusal(folder: &Path, mebibytes: u64, file: &str) -> String {
    let (status, out, told) = run_within(folder, mebibytes, &["inspect", file, "--json"]);
    assert_eq!(status, 1, "{file}: {told}");
    let report = &json_lines(&out)[0];
    assert_eq!(report["verdict"], "refused", "{file}");
    report["reason_codes"][0].as_str().unwrap().to_owned()
}

/// What a small file may take: the program itself, its threads, and the 64 MiB that any file may become.
const USUAL_MIB: u64 = 768;

#[test]
fn jpeg_2000_that_asks_for_more_than_it_holds_is_refused_before_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, code) in [
        // More tile-parts than the marker TLM lists: OpenJPEG wrote behind its heap block.
        ("tlm_2.dcm", "malformed"),
        ("tlm_50.dcm", "malformed"),
        ("tlm_200.dcm", "malformed"),
        // Precincts of one pixel: 0.15 to 36 GB of tables.
        ("p500.dcm", "limit_exceeded"),
        ("p4000.dcm", "limit_exceeded"),
        // A small image in a box in front of the large one that is decoded.
        ("fake_8000.dcm", "malformed"),
        ("fake_30000.dcm", "malformed"),
        ("fake_tiles.dcm", "malformed"),
    ] {
        let path = attack(name);
        assert_eq!(
            refusal(root, USUAL_MIB, path.to_str().unwrap()),
            code,
            "{name}"
        );
        std::fs::copy(path, root.join(name)).unwrap();
    }
    // They cost none of their neighbours.
    put(root, "good.npy", npy(&[16, 16], &picture(1)));
    let (status, out, told) = run_within(root, USUAL_MIB, &["check", ".", "--json"]);
    assert_eq!(status, 1, "{told}");
    let lines = json_lines(&out);
    let (summary, objects) = lines.split_last().unwrap();
    let refused = objects.iter().filter(|line| line["verdict"] == "refused");
    assert_eq!((objects.len(), refused.count()), (9, 8), "{summary}");
}

/// A progressive JPEG whose scans behind the first refine nothing.
fn empty_scans(side: u16, n_scans: usize) -> Vec<u8> {
    let n_blocks = (usize::from(side) / 8).pow(2);
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xdb, 0, 0x43, 0];
    bytes.extend([1; 64]);
    bytes.extend([0xff, 0xc2, 0, 0x0b, 8]);
    bytes.extend([side.to_be_bytes(), side.to_be_bytes()].concat());
    bytes.extend([1, 1, 0x11, 0]);
    for (table, symbol) in [(0, 0), (0x10, 0xe0)] {
        bytes.extend([0xff, 0xc4, 0, 0x14, table, 1]);
        bytes.extend([0; 15]);
        bytes.push(symbol);
    }
    bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0]);
    bytes.extend(vec![0; n_blocks / 8 + 1]);
    // Runs of empty blocks: a symbol of one bit, and 14 bits that say how many more than 16,384.
    let (mut bits, mut left) = (String::new(), n_blocks);
    while left > 0 {
        let run = left.min(32_767);
        bits += &format!("0{:014b}", run.saturating_sub(16_384));
        left -= run.max(16_384).min(left);
    }
    while bits.len() % 8 > 0 {
        bits.push('1');
    }
    let scan: Vec<u8> = (0..bits.len())
        .step_by(8)
        .map(|at| u8::from_str_radix(&bits[at..at + 8], 2).unwrap())
        .flat_map(|byte| [byte, 0].into_iter().take(1 + usize::from(byte == 0xff)))
        .collect();
    for _ in 0..n_scans {
        bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, 1, 0x3f, 0]);
        bytes.extend(&scan);
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

/// A DICOM file with one frame of a JPEG.
fn jpeg_in_dicom(side: u16, mut frame: Vec<u8>) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut element = |group: u16, number: u16, kind: &[u8], value: &[u8]| {
        bytes.extend([group.to_le_bytes(), number.to_le_bytes()].concat());
        bytes.extend(kind);
        bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        bytes.extend(value);
    };
    element(2, 0x10, b"UI", b"1.2.840.10008.1.2.4.55");
    element(8, 0x60, b"CS", b"OT");
    element(0x28, 2, b"US", &[1, 0]);
    element(0x28, 4, b"CS", b"MONOCHROME2 ");
    for (number, value) in [
        (0x10, side),
        (0x11, side),
        (0x100, 8),
        (0x101, 8),
        (0x102, 7),
        (0x103, 0),
    ] {
        element(0x28, number, b"US", &value.to_le_bytes());
    }
    frame.resize(frame.len().next_multiple_of(2), 0);
    bytes.extend([
        0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0, 0xff, 0xff, 0xff, 0xff,
    ]);
    bytes.extend([0xfe, 0xff, 0, 0xe0, 0, 0, 0, 0, 0xfe, 0xff, 0, 0xe0]);
    bytes.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
    bytes.extend(frame);
    bytes.extend([0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn scans_of_a_jpeg_are_counted_in_dicom_as_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (side, n_scans) in [(4096, 1000), (8192, 20_000)] {
        let frame = empty_scans(side, n_scans);
        put(root, "scans.dcm", jpeg_in_dicom(side, frame.clone()));
        put(root, "scans.jpg", frame);
        for name in ["scans.dcm", "scans.jpg"] {
            assert_eq!(refusal(root, USUAL_MIB, name), "limit_exceeded", "{name}");
        }
    }
}

#[test]
fn a_picture_that_breaks_its_decoder_is_missing_in_a_report_and_said_to_be() {
    let folder = pictures(5);
    let root = folder.path();
    let palette = attack("palette.png");
    assert_eq!(
        refusal(root, USUAL_MIB, palette.to_str().unwrap()),
        "malformed"
    );
    let (status, _, told) = run(root, &["index", "build", "g.m3i", ".", "--model", "pixels"]);
    assert_eq!(status, 0, "{told}");
    // Since the gallery was made, one image became the broken one, and another left.
    std::fs::copy(palette, root.join("3.npy")).unwrap();
    std::fs::remove_file(root.join("4.npy")).unwrap();
    let words = [
        "search", "-i", "0.npy", "-d", "g.m3i", "--html", "o.html", "--json",
    ];
    let (status, out, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
    let hits = &json_lines(&out)[0]["hits"];
    let paths = hits.as_array().unwrap().iter().map(|hit| &hit["path"]);
    let paths: Vec<&Value> = paths.collect();
    assert!(paths.iter().any(|path| *path == "3.npy") && paths.iter().any(|path| *path == "4.npy"));
    let page = std::fs::read_to_string(root.join("o.html")).unwrap();
    assert!(page.trim_end().ends_with("</html>"));
    let n_missing = page.matches("\"missing\":\"").count();
    assert_eq!(n_missing, 2, "the others have their pictures");
    assert!(page.contains("at which the decoder fails"), "the reason");
}

#[test]
fn tables_that_become_far_larger_than_they_are_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for n_columns in [20_000, 80_000] {
        let names: Vec<String> = (0..n_columns).map(|i| format!("c{i}")).collect();
        let text = format!("path,{}\na{}\n", names.join(","), ",v".repeat(n_columns));
        put(root, &format!("columns_{n_columns}.csv"), text);
    }
    for name in ["long_cells", "long_path", "rows_10000000"] {
        let name = format!("{name}.parquet");
        std::fs::copy(attack(&name), root.join(&name)).unwrap();
    }
    for (name, wanted) in [
        ("columns_20000.csv", "columns of one manifest"),
        ("columns_80000.csv", "columns of one manifest"),
        ("long_cells.parquet", "bytes of the manifest in memory"),
        ("long_path.parquet", "bytes of the manifest in memory"),
        ("rows_10000000.parquet", "rows of a manifest of this size"),
    ] {
        for words in [
            &["embed", name, "--model", "pixels", "--out", "o.npy"][..],
            &[
                "search", "-i", "x", "-d", name, "--model", "pixels", "--cache", "c",
            ],
            &["split", name, "--out", "s.csv", "--cache", "c"],
            &["evaluate", name, "--model", "pixels", "--out", "e"],
        ] {
            let (status, _, told) = run_within(root, USUAL_MIB, words);
            assert!(status == 1 && told.contains(wanted), "{words:?}: {told}");
            let left = ["o.npy", "o.npy.part", "s.csv", "e"].map(|name| root.join(name).exists());
            assert_eq!(left, [false; 4], "{words:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_film_whose_tables_are_a_bomb_costs_little_in_every_process() {
    if !has_ffmpeg() {
        println!("skipped: there is no ffmpeg");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let kept = root.join("kept");
    std::fs::create_dir(&kept).unwrap();
    for name in ["samples_10000000.mp4", "samples_80000000.mp4"] {
        let path = attack(name);
        let words = ["inspect", path.to_str().unwrap(), "--json"];
        let (status, n_bytes) = most_memory(root, &words, &kept);
        assert_eq!(status, Some(1), "{name}");
        // The decoder may have 512 MiB; 80 million samples took 3.8 GB.
        assert!(n_bytes < 640 << 20, "{name}: {n_bytes} bytes");
        assert_eq!(names_in(&kept), [""; 0]);
    }
}

/// Bytes of a NIfTI of 8 x 8 x 8 voxels, of which nothing is behind them but a hole in the disk.
fn sparse(path: &Path, n_bytes: u64) {
    let mut bytes = vec![0; 352 + 512];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &348_i32.to_le_bytes());
    for (idx, side) in [3_i16, 8, 8, 8, 1, 1, 1, 1].iter().enumerate() {
        put(40 + 2 * idx, &side.to_le_bytes());
    }
    put(70, &2_i16.to_le_bytes());
    put(72, &8_i16.to_le_bytes());
    for idx in 0..8 {
        put(76 + 4 * idx, &1_f32.to_le_bytes());
    }
    put(108, &352_f32.to_le_bytes());
    put(112, &1_f32.to_le_bytes());
    put(344, b"n+1\0");
    std::fs::write(path, &bytes).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(n_bytes).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn too_little_memory_refuses_one_object_and_reads_the_others() {
    let folder = pictures(4);
    let root = folder.path();
    // Within the limit of bytes, and more than there is.
    sparse(&root.join("s.nii"), (4 << 30) - 4096);
    for words in [
        &["check", ".", "--json"][..],
        &["check", ".", "--json", "--jobs", "1"],
    ] {
        let (status, out, told) = run_within(root, 2048, words);
        assert_eq!(status, 1, "{told}");
        let lines = json_lines(&out);
        let (_, objects) = lines.split_last().unwrap();
        assert_eq!(objects.len(), 5);
        for object in objects {
            let is_sparse = object["path"].as_str().unwrap().ends_with("s.nii");
            assert_eq!(object["verdict"] == "refused", is_sparse, "{object}");
        }
    }
    let words = [
        "index", "build", "g.m3i", ".", "--model", "pixels", "--json",
    ];
    let (status, out, told) = run_within(root, 2048, &words);
    assert_eq!(status, 1, "{told}");
    assert_eq!(json_lines(&out)[0]["n_added"], 4, "{out}");
}

#[test]
fn statistics_of_another_gallery_are_an_error_and_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, n_rows) in [("a", 40), ("b", 60)] {
        let rows: Vec<String> = (0..n_rows)
            .map(|i| format!("p{i},i{i},q{},chest\n", i / 2))
            .collect();
        put(
            root,
            &format!("{name}.csv"),
            format!("path,id,patient_id,body_part\n{}", rows.concat()),
        );
        put(root, &format!("{name}.npy"), vectors(n_rows));
        let [gallery, list, array] = ["m3i", "csv", "npy"].map(|end| format!("{name}.{end}"));
        let words = [
            "index",
            "build",
            &gallery,
            &list,
            "--embeddings",
            &array,
            "--encoder",
            "e",
        ];
        assert_eq!(run(root, &words).0, 0);
    }
    let search = ["search", "-d", "a.m3i", "-i", "i7", "-k", "2"];
    assert_eq!(run(root, &search).0, 0);
    let is_statistics = |name: &String| name.starts_with("agreements-");
    let [own, other] = ["a.m3i", "b.m3i"].map(|gallery| {
        let name = names_in(&root.join(gallery))
            .into_iter()
            .find(is_statistics);
        root.join(gallery).join(name.unwrap())
    });
    std::fs::copy(other, &own).unwrap();
    let (status, out, told) = run(root, &search);
    assert_eq!((status, out.as_str()), (1, ""), "{told}");
    assert!(
        told.contains("agreements-") && told.contains("is damaged"),
        "{told}"
    );
    assert_eq!(run(root, &["index", "verify", "a.m3i"]).0, 1);
}
