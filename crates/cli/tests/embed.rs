//! Runs `m3ret embed` as a person would, and reads what it wrote.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Value, json};

use binary::{json_lines, m3ret, names_in, npy, run};

/// A picture of 12 x 16 that no other seed gives.
fn picture(seed: usize) -> Vec<u8> {
    let values = (0..192_usize).map(|i| ((i * (seed + 3) * 37 + i * i) % 251) as f32);
    npy(&[12, 16], &values.collect::<Vec<_>>())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Three pictures, a volume, and files that have no vector.
fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (seed, name) in ["in/a.npy", "in/b/b.npy", "in/z.npy"].iter().enumerate() {
        write(root, name, &picture(seed));
    }
    let values: Vec<f32> = (0..5 * 12 * 16).map(|i| (i * i % 97) as f32).collect();
    write(root, "in/deep.npy", &npy(&[5, 12, 16], &values));
    write(root, "in/cut.npy", &picture(0)[..300]);
    write(root, "in/flat.npy", &npy(&[12, 16], &[1.0; 192]));
    write(root, "in/README.md", b"what this is");
    folder
}

/// The shape and the values of a result.
fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let n_header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(n_header % 64, 0);
    let header = std::str::from_utf8(&bytes[10..n_header]).unwrap();
    assert!(
        header.contains("'<f4'") && header.ends_with('\n'),
        "{header}"
    );
    let shape = header.split(['(', ')']).nth(1).unwrap().split(", ");
    let shape = shape.map(|side| side.parse().unwrap()).collect();
    (shape, floats(&bytes[n_header..]))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (values, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    values
        .iter()
        .map(|&value| f32::from_le_bytes(value))
        .collect()
}

fn read_parquet(path: &Path) -> (Vec<Row>, Vec<(String, String)>) {
    let file = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let metadata = file.metadata().file_metadata().key_value_metadata();
    let metadata = metadata.unwrap().iter();
    let metadata = metadata.map(|pair| (pair.key.clone(), pair.value.clone().unwrap()));
    let rows = file.get_row_iter(None).unwrap().map(Result::unwrap);
    (rows.collect(), metadata.collect())
}

fn cell<'a>(row: &'a Row, name: &str) -> &'a Field {
    let (_, field) = row
        .get_column_iter()
        .find(|(column, _)| *column == name)
        .unwrap();
    field
}

fn text(row: &Row, name: &str) -> Option<String> {
    match cell(row, name) {
        Field::Str(text) => Some(text.clone()),
        Field::Null => None,
        other => panic!("{other:?}"),
    }
}

fn vector(row: &Row) -> Option<Vec<f32>> {
    let list = match cell(row, "embedding") {
        Field::ListInternal(list) => list,
        Field::Null => return None,
        other => panic!("{other:?}"),
    };
    let values = list.elements().iter().map(|element| match element {
        Field::Float(value) => *value,
        other => panic!("{other:?}"),
    });
    Some(values.collect())
}

/// Whether two arrays are the same, bit for bit; NaN is NaN.
fn is_same(one: &[f32], other: &[f32]) -> bool {
    let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|x| x.to_bits()).collect() };
    bits(one) == bits(other)
}

const TINY: [&str; 2] = ["--model", "random:tiny"];

fn embed(folder: &Path, words: &[&str]) -> (i32, String, String) {
    run(folder, &[&["embed"], words].concat())
}

#[test]
fn a_folder_becomes_one_row_for_each_image_in_the_order_of_the_paths() {
    let folder = archive();
    let words = ["in", "--model", "pixels", "-o", "v.npy", "--json"];
    let (code, stdout, stderr) = embed(folder.path(), &words);
    assert_eq!((code, stderr.as_str()), (1, ""), "two were refused");
    let lines = json_lines(&stdout);
    let told: Vec<Value> = lines[..6]
        .iter()
        .map(|line| json!([line["row"], line["path"], line["verdict"], line["dims"]]))
        .collect();
    let expected = [
        json!([0, "in/a.npy", "embedded", "2d"]),
        json!([1, "in/b/b.npy", "embedded", "2d"]),
        json!([null, "in/cut.npy", "refused", null]),
        json!([2, "in/deep.npy", "embedded", "3d"]),
        json!([null, "in/flat.npy", "refused", "2d"]),
        json!([3, "in/z.npy", "embedded", "2d"]),
    ];
    assert_eq!(told, expected);
    assert_eq!(lines[2]["reason_codes"], json!(["truncated"]));
    assert_eq!(lines[4]["reason_codes"], json!(["no_direction"]));
    let summary = &lines[6]["summary"];
    let counts = ["n_embedded", "n_refused", "n_kept", "n_not_images", "width"];
    assert_eq!(
        counts.map(|key| summary[key].as_u64().unwrap()),
        [4, 2, 0, 1, 1024]
    );
    assert_eq!(
        summary["reason_codes"],
        json!({"no_direction": 1, "truncated": 1})
    );
    let (shape, values) = read_npy(&folder.path().join("v.npy"));
    assert_eq!(shape, [4, 1024]);
    for vector in values.chunks_exact(1024) {
        let norm: f32 = vector.iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
    let rows = std::fs::read_to_string(folder.path().join("v.npy.rows.csv")).unwrap();
    let expected = "row,path,part,modality,body_part,dims,refused\n\
        0,in/a.npy,,,,2d,\n\
        1,in/b/b.npy,,,,2d,\n\
        2,in/deep.npy,,,,3d,\n\
        3,in/z.npy,,,,2d,\n\
        ,in/cut.npy,,,,,truncated\n\
        ,in/flat.npy,,,,2d,no_direction\n";
    assert_eq!(rows, expected);
    assert_eq!(names_in(folder.path()), ["in", "v.npy", "v.npy.rows.csv"]);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let folder = archive();
    let mut first = None;
    for (jobs, threads) in [("1", "1"), ("2", "3"), ("5", "2")] {
        let words = [
            "in",
            "-o",
            "v.npy",
            "--json",
            "-j",
            jobs,
            "--threads",
            threads,
        ];
        let (_, stdout, _) = embed(folder.path(), &[&words[..], &TINY].concat());
        let mut lines = json_lines(&stdout);
        lines.pop();
        let (_, values) = read_npy(&folder.path().join("v.npy"));
        let (told, expected) = first.get_or_insert_with(|| (lines.clone(), values.clone()));
        assert_eq!(&lines, told);
        assert!(
            is_same(&values, expected),
            "{jobs} readers, {threads} threads"
        );
    }
}

#[test]
fn every_format_holds_the_same_vectors_and_says_what_made_them() {
    let folder = archive();
    let root = folder.path();
    for out in ["v.npy", "v.safetensors", "v.parquet"] {
        embed(root, &[&["in", "-o", out][..], &TINY].concat());
    }
    let (shape, values) = read_npy(&root.join("v.npy"));
    assert_eq!(shape, [5, 192]);
    let bytes = std::fs::read(root.join("v.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert!(metadata["fingerprint"].starts_with("random:tiny:0:"));
    assert_eq!(metadata["model"], "random:tiny");
    let rows: Value = serde_json::from_str(&metadata["rows"]).unwrap();
    assert_eq!(rows[1], json!({"path": "in/b/b.npy"}));
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("embeddings").unwrap();
    assert_eq!(tensor.shape(), [5, 192]);
    assert!(is_same(&floats(tensor.data()), &values));
    let (rows, metadata) = read_parquet(&root.join("v.parquet"));
    let vectors: Vec<f32> = rows.iter().flat_map(|row| vector(row).unwrap()).collect();
    assert!(is_same(&vectors, &values));
    assert_eq!(text(&rows[1], "path").unwrap(), "in/b/b.npy");
    assert_eq!(text(&rows[2], "dims").unwrap(), "3d");
    assert_eq!(text(&rows[2], "modality"), None);
    assert!(metadata.contains(&("model".into(), "random:tiny".into())));
    assert!(metadata.iter().any(|(key, _)| key == "precision"));
    assert!(!root.join("v.parquet.rows.csv").exists());
}

/// A manifest of a picture, what cannot be read, a DICOM series, and a file with two images.
fn manifest() -> tempfile::TempDir {
    let folder = archive();
    let root = folder.path();
    let series = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/dicom/series_axial");
    for entry in std::fs::read_dir(series).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        write(
            root,
            &format!("set/series/{name}"),
            &std::fs::read(&path).unwrap(),
        );
    }
    // NIfTI-1: 4 x 3 x 2 voxels at 2 times, as u8.
    let mut nifti = vec![0; 352];
    nifti[0..4].copy_from_slice(&348_i32.to_le_bytes());
    for (i, side) in [4_i16, 4, 3, 2, 2, 1, 1, 1].into_iter().enumerate() {
        nifti[40 + 2 * i..][..2].copy_from_slice(&side.to_le_bytes());
    }
    nifti[70..72].copy_from_slice(&2_i16.to_le_bytes());
    nifti[72..74].copy_from_slice(&8_i16.to_le_bytes());
    for i in 0..5 {
        nifti[76 + 4 * i..][..4].copy_from_slice(&1_f32.to_le_bytes());
    }
    nifti[108..112].copy_from_slice(&352_f32.to_le_bytes());
    nifti[123] = 2 | 8;
    nifti[344..348].copy_from_slice(b"n+1\0");
    nifti.extend((0..48_u8).map(|i| i * 5 % 53));
    write(root, "set/times.nii", &nifti);
    let table = "finding,path,part\n\
        one,../in/z.npy,\n\
        two,../in/cut.npy,\n\
        ,series,\n\
        three,times.nii,\n\
        four,times.nii,t=1\n\
        five,nowhere.png,\n";
    write(root, "set/manifest.csv", table.as_bytes());
    folder
}

#[test]
fn a_manifest_becomes_one_row_for_each_of_its_rows() {
    let folder = manifest();
    let root = folder.path();
    let words = ["set/manifest.csv", "-o", "v.npy", "--json"];
    let (code, stdout, _) = embed(root, &[&words[..], &TINY].concat());
    assert_eq!(code, 1);
    let codes: Vec<Value> = json_lines(&stdout)[..6]
        .iter()
        .map(|line| line["reason_codes"].clone())
        .collect();
    let ok = json!([]);
    let expected = [
        ok.clone(),
        json!(["truncated"]),
        ok.clone(),
        json!(["mismatch"]),
        ok,
        json!(["io"]),
    ];
    assert_eq!(codes, expected, "{stdout}");
    let (shape, values) = read_npy(&root.join("v.npy"));
    assert_eq!(shape, [6, 192]);
    let is_nan = |row: &[f32]| row.iter().all(|value| value.is_nan());
    let refused: Vec<bool> = values.chunks_exact(192).map(is_nan).collect();
    assert_eq!(refused, [false, true, false, true, false, true]);
    let rows = std::fs::read_to_string(root.join("v.npy.rows.csv")).unwrap();
    assert!(rows.contains("\n3,times.nii,,,,,mismatch\n"), "{rows}");
    assert!(rows.contains("\n2,series,,CT,"), "{rows}");

    embed(
        root,
        &[&["set/manifest.csv", "-o", "v.parquet"][..], &TINY].concat(),
    );
    let (rows, _) = read_parquet(&root.join("v.parquet"));
    assert_eq!(rows.len(), 6);
    assert_eq!(text(&rows[0], "finding").unwrap(), "one");
    assert_eq!(text(&rows[2], "finding"), None);
    assert_eq!(text(&rows[1], "refused").unwrap(), "truncated");
    assert_eq!(vector(&rows[1]), None);
    assert!(is_same(
        &vector(&rows[4]).unwrap(),
        &values[4 * 192..5 * 192]
    ));

    // The table of vectors is a manifest again, in another folder than the first.
    embed(root, &[&["v.parquet", "-o", "w.npy"][..], &TINY].concat());
    assert!(is_same(&read_npy(&root.join("w.npy")).1, &values));
}

/// Pictures enough for many batches.
fn pictures() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..48 {
        write(folder.path(), &format!("in/{seed:02}.npy"), &picture(seed));
    }
    folder
}

const SLOW: [&str; 7] = [
    "embed",
    "in",
    "--model",
    "random:tiny",
    "--save-every",
    "0",
    "--out",
];

/// Starts a run, and waits until it has saved something.
fn start(folder: &Path, out: &str) -> Child {
    let mut child = m3ret(folder, &[&SLOW[..], &[out]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let shard: PathBuf = folder.join(format!("{out}.part/shard-000000.m3s"));
    while !shard.exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "no shard came");
        assert_eq!(child.try_wait().unwrap(), None, "it ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn kill(folder: &Path, out: &str) {
    let mut child = start(folder, out);
    // SIGKILL: nothing of ours can run any more.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!folder.join(out).exists(), "it was not done yet");
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let folder = pictures();
    let root = folder.path();
    kill(root, "v.npy");
    let (code, stdout, stderr) = run(root, &[&SLOW[..], &["v.npy", "--json"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let lines = json_lines(&stdout);
    assert_eq!(lines.len(), 49);
    let n_kept = lines[48]["summary"]["n_kept"].as_u64().unwrap();
    assert!((8..48).contains(&n_kept), "{n_kept}");
    let note = format!("m3ret: going on: {n_kept} of 48 are done in v.npy.part\n");
    assert_eq!(stderr, note);
    assert_eq!(names_in(root), ["in", "v.npy", "v.npy.rows.csv"]);
    run(root, &[&SLOW[..], &["w.npy"]].concat());
    let files = ["v.npy", "w.npy"].map(|name| std::fs::read(root.join(name)).unwrap());
    assert!(files[0] == files[1], "the same as without interruption");
}

#[test]
fn what_changed_since_a_killed_run_is_embedded_anew() {
    let folder = pictures();
    let root = folder.path();
    kill(root, "v.npy");
    write(root, "in/00.npy", &picture(1000));
    std::fs::remove_file(root.join("in/01.npy")).unwrap();
    let (_, _, stderr) = run(root, &[&SLOW[..], &["v.npy"]].concat());
    assert!(
        stderr.contains(
            "left out 2 objects of v.npy.part that were embedded and changed or vanished"
        ),
        "{stderr}"
    );
    run(root, &[&SLOW[..], &["w.npy"]].concat());
    let files = ["v.npy", "w.npy"].map(|name| std::fs::read(root.join(name)).unwrap());
    assert!(files[0] == files[1]);
}

#[test]
fn work_of_another_model_is_not_lost_without_asking() {
    let folder = pictures();
    let root = folder.path();
    kill(root, "x.npy");
    let work = root.join("x.npy.part");
    let before = names_in(&work);
    let words = ["in", "--model", "pixels", "-o", "x.npy"];
    let (code, _, stderr) = embed(root, &words);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("its work is of another model (random:tiny:0:")
            && stderr.contains(", now pixels:32:1); "),
        "{stderr}"
    );
    assert_eq!(names_in(&work), before);
    let (code, stdout, stderr) = embed(root, &[&words[..], &["--restart"]].concat());
    assert_eq!(code, 0);
    assert_eq!(
        stderr,
        "m3ret: removed what was in x.npy.part: starting again\n"
    );
    assert!(
        stdout.starts_with("48 vectors of 1024 numbers: x.npy\n"),
        "{stdout}"
    );
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_what_it_has_and_says_how_to_go_on() {
    let folder = pictures();
    let words = ["embed", "in", "--model", "random:tiny", "-o", "v.npy"];
    let mut child = m3ret(folder.path(), &[&words[..], &["--json"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(130));
    let expected = "m3ret: interrupted; what is done is in v.npy.part, \
        and the same command resumes it\n";
    assert_eq!(String::from_utf8(stderr).unwrap(), expected);
    assert_eq!(names_in(folder.path()), ["in", "v.npy.part"]);
    let shards = names_in(&folder.path().join("v.npy.part"));
    assert_eq!(shards, ["lock", "settings.json", "shard-000000.m3s"]);
    let (code, stdout, _) = run(folder.path(), &words);
    assert_eq!(code, 0);
    assert!(stdout.contains(" from the run before\n"), "{stdout}");
}

#[test]
fn a_reader_who_leaves_does_not_cost_the_result() {
    let folder = archive();
    for (source, expected) in [("in", 1), ("in/b", 0)] {
        for (name, words) in [("v.npy", &["--json"][..]), ("w.npy", &[])] {
            let words = [&["embed", source, "--model", "pixels", "-o", name], words].concat();
            let mut child = m3ret(folder.path(), &words)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            drop(child.stdout.take());
            let code = child.wait().unwrap().code();
            assert_eq!(code, Some(expected), "{words:?}");
        }
        let files = ["in", "v.npy", "v.npy.rows.csv", "w.npy", "w.npy.rows.csv"];
        assert_eq!(names_in(folder.path()), files);
        for name in &files[1..] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}

#[test]
fn results_inside_the_folder_are_not_embedded() {
    let folder = archive();
    let words = ["in", "--model", "pixels", "-o", "in/v.npy"];
    let first = embed(folder.path(), &words).1;
    let again = embed(folder.path(), &words).1;
    let without_speed = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("speed"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(without_speed(&again), without_speed(&first));
    assert!(
        first.contains("4 embedded, 2 refused (no_direction 1, truncated 1)"),
        "{first}"
    );
}

#[test]
fn results_of_earlier_runs_are_not_embedded() {
    let folder = pictures();
    let root = folder.path();
    for out in ["in/00-old.npy", "in/old.safetensors"] {
        embed(root, &["in", "--model", "pixels", "-o", out]);
    }
    kill(root, "in/x.npy");
    let words = ["in", "--model", "pixels", "-o", "in/v.npy", "--json"];
    let lines = json_lines(&embed(root, &words).1);
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!(summary["n_embedded"], 48);
    assert_eq!(summary["n_not_images"], 0);
    assert_eq!(summary["n_refused"], 0);
}

#[test]
fn a_result_never_replaces_what_is_read() {
    let folder = manifest();
    std::fs::copy(
        folder.path().join("in/a.npy"),
        folder.path().join("set/a.npy"),
    )
    .unwrap();
    write(folder.path(), "set/own.csv", b"path\na.npy\n");
    for words in [
        ["in/a.npy", "-o", "in/a.npy"],
        ["set/own.csv", "-o", "set/a.npy"],
    ] {
        let (code, _, stderr) = embed(folder.path(), &words);
        assert_eq!(code, 1);
        assert!(stderr.contains("give the result another name"), "{stderr}");
    }
    assert_eq!(
        std::fs::read(folder.path().join("in/a.npy")).unwrap(),
        picture(0)
    );
}

#[test]
fn a_name_that_no_file_can_have_is_refused_before_the_work() {
    let folder = archive();
    let root = folder.path();
    for taken in ["d.npy", "e.npy.rows.csv", "f.parquet"] {
        std::fs::create_dir(root.join(taken)).unwrap();
    }
    let before = names_in(root);
    for out in ["d.npy", "e.npy", "f.parquet"] {
        let (code, _, stderr) = embed(root, &["in", "--model", "dinosaur", "-o", out]);
        assert_eq!(code, 1, "{out}");
        assert!(stderr.contains("is no regular file"), "{stderr}");
        assert_eq!(names_in(root), before, "{out}");
    }
    // A table has no list beside it.
    std::fs::create_dir(root.join("g.parquet.rows.csv")).unwrap();
    let words = ["in/b", "--model", "pixels", "-o", "g.parquet"];
    assert_eq!(embed(root, &words).0, 0);
}

#[test]
fn an_older_array_and_its_list_are_replaced_together() {
    let folder = archive();
    let root = folder.path();
    let words = ["in/b", "--model", "pixels", "-o", "v.npy"];
    assert_eq!(embed(root, &words).0, 0);
    assert_eq!(
        embed(root, &["in", "--model", "pixels", "-o", "v.npy"]).0,
        1
    );
    let n_rows = read_npy(&root.join("v.npy")).0[0];
    let list = std::fs::read_to_string(root.join("v.npy.rows.csv")).unwrap();
    assert_eq!((n_rows, list.lines().count()), (4, 1 + 4 + 2));
    assert_eq!(names_in(root), ["in", "v.npy", "v.npy.rows.csv"]);
}

#[test]
fn without_a_model_the_shipped_one_is_taken_and_it_is_said() {
    let folder = archive();
    let (code, stdout, stderr) = embed(folder.path(), &["in/a.npy", "-o", "v.parquet"]);
    assert_eq!(code, 0);
    assert!(
        stderr.starts_with("m3ret: no --model given; using m3ret-tiny, for research use only"),
        "{stderr}"
    );
    assert!(
        stdout.starts_with("1 vector of 192 numbers: v.parquet\n"),
        "{stdout}"
    );
}

#[test]
fn where_nothing_can_be_embedded_nothing_is_written() {
    let folder = archive();
    let root = folder.path();
    std::fs::create_dir(root.join("nothing")).unwrap();
    for source in ["in/cut.npy", "nothing", "in/README.md", "nowhere"] {
        let words = [source, "-o", "v.npy", "--model", "pixels"];
        assert_eq!(embed(root, &words).0, 1, "{source}");
        assert_eq!(names_in(root), ["in", "nothing"], "{source}");
    }
}

#[test]
fn an_unknown_model_and_a_wrong_name_are_told() {
    let folder = archive();
    let words = ["in", "-o", "v.npy", "--model", "dinosaur"];
    let (code, _, stderr) = embed(folder.path(), &words);
    assert_eq!(code, 1);
    assert!(
        stderr.starts_with(
            "m3ret: found no model named \"dinosaur\"; looked for\n  dinosaur: not there\n"
        ),
        "{stderr}"
    );
    assert!(stderr.contains("weights/dinosaur"), "{stderr}");
    let (code, _, stderr) = embed(folder.path(), &["in", "-o", "no/v.npy"]);
    let expected = "m3ret: no such folder: no; make it first\n";
    assert_eq!((code, stderr.as_str()), (1, expected));
    assert_eq!(names_in(folder.path()), ["in"]);
    for words in [
        &["in", "-o", "v.csv"][..],
        &["in"],
        &["in", "-o", "v.npy", "--precision", "f64"],
        &["in", "-o", "v.npy", "--threads", "0"],
    ] {
        assert_eq!(embed(folder.path(), words).0, 2, "{words:?}");
    }
}

/// `M3RET_PYTHON` names the interpreter, otherwise `python3` is tried.
#[test]
fn python_reads_every_format() {
    const SCRIPT: &str = r"
import csv, json, sys
import numpy, pandas
from safetensors import safe_open
array = numpy.load('v.npy')
assert array.dtype == numpy.float32 and array.shape == (6, 192), array.shape
with safe_open('v.safetensors', 'numpy') as file:
    assert numpy.array_equal(file.get_tensor('embeddings'), array, equal_nan=True)
    assert json.loads(file.metadata()['rows'])[2]['path'] == 'series'
table = pandas.read_parquet('v.parquet')
assert list(table.columns) == ['finding', 'path', 'part', 'refused', 'embedding']
good = table['refused'].isna()
assert numpy.array_equal(numpy.stack(table['embedding'][good]), array[good])
assert table['embedding'][~good].isna().all()
rows = list(csv.DictReader(open('v.npy.rows.csv')))
assert [int(row['row']) for row in rows] == list(range(6))
";
    #[allow(
        clippy::disallowed_methods,
        reason = "a test may be told which Python to use"
    )]
    let python = std::env::var("M3RET_PYTHON").unwrap_or_else(|_| "python3".into());
    let folder = manifest();
    for out in ["v.npy", "v.safetensors", "v.parquet"] {
        let words = ["set/manifest.csv", "-o", out];
        embed(folder.path(), &[&words[..], &TINY].concat());
    }
    let ran = Command::new(python)
        .current_dir(folder.path())
        .args(["-B", "-c", SCRIPT])
        .output();
    let Ok(output) = ran else {
        println!("skipped: no Python (set M3RET_PYTHON)");
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("ModuleNotFoundError") {
        println!("skipped: numpy, pandas, pyarrow or safetensors is not installed");
        return;
    }
    assert!(output.status.success(), "{stderr}");
}
