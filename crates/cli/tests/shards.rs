//! Embeds an archive by many tasks, as a scheduler runs them: killed, repeated, and with parts that hold nothing.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::too_many_lines, reason = "stories told from start to end")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;
use std::time::Duration;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Row;

use binary::{json_lines, m3ret, names_in, run};
use pictures::{pictures, put};

/// The rows of tables, in the order of their texts.
fn rows(folder: &Path, names: &[String]) -> Vec<Row> {
    let mut all = Vec::new();
    for name in names {
        let file = std::fs::File::open(folder.join(name)).unwrap();
        let file = SerializedFileReader::new(file).unwrap();
        let found: Vec<Row> = file
            .get_row_iter(None)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        all.extend(found);
    }
    all.sort_by_cached_key(Row::to_string);
    all
}

fn tables(folder: &Path) -> Vec<String> {
    let names = names_in(folder).into_iter();
    names
        .filter(|name| name.contains("-of-") && name.ends_with(".parquet"))
        .collect()
}

/// 30 pictures and two files that cannot be read, in the folder `in`, and a manifest that names them twice over.
fn archive() -> tempfile::TempDir {
    let folder = pictures(30);
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    let mut manifest = "path,label\n".to_owned();
    for i in 0..30 {
        std::fs::rename(
            root.join(format!("{i}.npy")),
            root.join(format!("in/{i}.npy")),
        )
        .unwrap();
        manifest += &format!("in/{i}.npy,a\n");
    }
    put(root, "in/cut.npy", "no array");
    put(root, "in/empty.dcm", "");
    manifest += "in/3.npy,again\nin/none.npy,gone\n";
    put(root, "m.csv", manifest);
    folder
}

const MODEL: [&str; 2] = ["--model", "pixels"];

#[test]
fn parts_of_killed_tasks_are_together_what_one_run_makes() {
    let folder = archive();
    let root = folder.path();
    for source in ["in", "m.csv"] {
        let parts = format!("parts-{source}");
        let whole = format!("{parts}/whole.parquet");
        for task in 0..8 {
            let shard = format!("{task}/8");
            let words = [
                "embed",
                source,
                "--out",
                &parts,
                "--shard",
                &shard,
                "--save-every",
                "0",
            ];
            let words = [&words[..], &MODEL].concat();
            // Killed at a moment of its own, and started again.
            let mut child = m3ret(root, &words).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(task * 6));
            child.kill().unwrap();
            child.wait().unwrap();
            let (status, out, log) = run(root, &words);
            assert_eq!(status, 0, "{shard}: {out}{log}");
            let (status, out, log) = run(root, &words);
            assert!(status == 0 && out.contains("done before"), "{out}{log}");
        }
        let (_, _, log) = run(
            root,
            &[&["embed", source, "-o", &whole], &MODEL[..]].concat(),
        );
        let folder = root.join(&parts);
        let (one, many) = (
            rows(&folder, &["whole.parquet".to_owned()]),
            rows(&folder, &tables(&folder)),
        );
        assert!(one.len() >= 30, "{log}");
        assert_eq!(one, many, "{source}");
        let (status, out, _) = run(root, &["embed", "--status", &parts, "--json"]);
        let told = &json_lines(&out)[0];
        assert_eq!(
            (status, told["n_done"].as_u64(), told["n_rows"].as_u64()),
            (0, Some(8), Some(one.len() as u64)),
            "{told}"
        );
        assert_eq!(told["n_refused"], if source == "in" { 2 } else { 1 });
    }
}

#[test]
fn a_part_without_images_is_written_and_done() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(root, "m.csv", "path\nnone.npy\n");
    for task in 0..3 {
        let shard = format!("{task}/3");
        let words = ["embed", "m.csv", "-o", "parts", "--shard", &shard];
        let (status, out, log) = run(root, &[&words[..], &MODEL].concat());
        assert_eq!(status, 0, "{out}{log}");
    }
    let parts = root.join("parts");
    assert_eq!(names_in(&parts).len(), 6, "{:?}", names_in(&parts));
    assert_eq!(
        rows(&parts, &tables(&parts)).len(),
        1,
        "the row of the manifest"
    );
    let (status, out, _) = run(root, &["embed", "--status", "parts"]);
    assert_eq!(
        (status, out.as_str()),
        (0, "3 of 3 parts are done: 0 embedded, 1 refused\n")
    );
}

#[test]
fn what_is_missing_damaged_or_of_others_is_said() {
    let folder = archive();
    let root = folder.path();
    let embed = |shard: &str, more: &[&str]| {
        let words = ["embed", "in", "-o", "parts", "--shard", shard];
        run(root, &[&words[..], &MODEL, more].concat())
    };
    for shard in ["0/6", "2/6", "3/6"] {
        assert_eq!(embed(shard, &[]).0, 0);
    }
    let status = || run(root, &["embed", "--status", "parts"]);
    let (code, out, _) = status();
    assert!(code == 1 && out.contains("--array=1,4-5"), "{out}");
    // A table that was cut, and a mark that is none.
    let table = root.join("parts/2-of-6.parquet");
    let bytes = std::fs::read(&table).unwrap();
    std::fs::write(&table, &bytes[..bytes.len() - 1]).unwrap();
    put(root, "parts/3-of-6.done", "{}");
    let (code, out, _) = status();
    assert!(code == 1 && out.contains("--array=1-5"), "{out}");
    // A table with other bytes of the same number is found by the task itself.
    let mut other = bytes.clone();
    other[10] ^= 1;
    std::fs::write(&table, &other).unwrap();
    for shard in ["1/6", "2/6", "3/6", "4/6", "5/6"] {
        let (code, out, log) = embed(shard, &[]);
        assert!(code == 0 && !out.contains("before"), "{out}{log}");
    }
    assert_eq!(std::fs::read(&table).unwrap(), bytes);
    assert_eq!(status().0, 0);
    // However the archive is named, a path is of one task.
    let absolute = root.join("in");
    for source in ["./in/", absolute.to_str().unwrap()] {
        let words = ["embed", source, "-o", "again", "--shard"];
        for shard in ["0/2", "1/2"] {
            std::fs::remove_dir_all(root.join("again")).unwrap_or_default();
            let (code, _, log) = run(
                root,
                &[
                    &["embed", "in", "-o", "again", "--shard", shard],
                    &MODEL[..],
                ]
                .concat(),
            );
            assert_eq!(code, 0, "{log}");
            let other = if shard == "0/2" { "1/2" } else { "0/2" };
            let (code, _, log) = run(root, &[&words[..], &[other], &MODEL[..]].concat());
            assert_eq!(code, 0, "{log}");
            let again = root.join("again");
            assert_eq!(rows(&again, &tables(&again)).len(), 30, "{source}");
            assert_eq!(run(root, &["embed", "--status", "again"]).0, 0);
        }
    }
    // An archive that changed between two tasks.
    put(
        root,
        "in/new.npy",
        std::fs::read(root.join("in/1.npy")).unwrap(),
    );
    let words = ["embed", "in", "-o", "parts", "--shard", "0/6", "--restart"];
    let (code, _, log) = run(root, &[&words[..], &MODEL].concat());
    assert!(code == 1 && log.contains("the archive changed"), "{log}");
    std::fs::remove_file(root.join("in/new.npy")).unwrap();
    let (code, _, log) = run(root, &[&words[..], &MODEL].concat());
    assert_eq!(code, 0, "{log}");
    // Others do not go with these.
    let (code, _, log) = embed("0/7", &[]);
    assert!(
        code == 1 && log.contains("parts of 6 tasks, wanted of 7"),
        "{log}"
    );
    let words = [
        "embed", "in", "-o", "parts", "--shard", "0/6", "--model", "hog",
    ];
    let (code, _, log) = run(root, &words);
    assert!(
        code == 1 && log.contains("parts of the model pixels"),
        "{log}"
    );
    let (code, _, log) = run(root, &["embed", "--status", "in"]);
    assert!(code == 1 && log.contains("0-of-8.done"), "{log}");
    for wrong in [
        &["embed", "in", "-o", "parts", "--shard", "6/6"][..],
        &["embed", "in", "-o", "parts", "--shard", "x"],
        &["embed", "in", "-o", "parts"],
        &["embed", "in", "--status", "parts"],
        &["embed"],
    ] {
        assert_eq!(run(root, wrong).0, 2, "{wrong:?}");
    }
}
