//! Runs the binary as a person would.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use binary::{json_lines, m3ret, names_in, npy, run};

fn archive() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0_u8..24).map(f32::from).collect();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let good = npy(&[1, 2, 3, 4], &values);
    write("in/a.npy", &good);
    write("in/copy/of_a.npy", &good);
    write("in/cut.npy", &good[..good.len() - 1]);
    write("in/README.md", b"what this is");
    write("in/z.npy", &npy(&[1, 1, 2, 2], &[1.5, -1.0, 0.0, f32::NAN]));
    folder
}

#[test]
fn help_reads_well() {
    let folder = tempfile::tempdir().unwrap();
    for (name, words) in [
        ("help", &["--help"][..]),
        ("inspect_help", &["inspect", "--help"]),
        ("check_help", &["check", "--help"]),
        ("embed_help", &["embed", "--help"]),
        ("evaluate_help", &["evaluate", "--help"]),
        ("simulate_help", &["simulate", "radiographs", "--help"]),
        ("split_help", &["split", "--help"]),
    ] {
        let (code, stdout, _) = run(folder.path(), words);
        assert_eq!(code, 0);
        insta::assert_snapshot!(name, stdout);
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &[][..],
        &["inspect"],
        &["check"],
        &["check", "a", "b"],
        &["inspect", "x", "--frames", "0"],
        &["inspect", "x", "--limit", "voxels"],
        &["check", "x", "--jobs", "0"],
        &["look"],
        &["simulate"],
        &["simulate", "radiographs", "x"],
        &[
            "simulate",
            "radiographs",
            "x",
            "--out",
            "y",
            "--angles",
            "0,360",
        ],
    ] {
        let (code, stdout, stderr) = run(folder.path(), words);
        assert_eq!((code, stdout.as_str()), (2, ""), "{words:?}");
        assert!(!stderr.is_empty());
    }
}

#[test]
fn inspect_describes_an_array_and_writes_it_back() {
    let folder = archive();
    let words = [
        "inspect",
        "in/a.npy",
        "--json",
        "--npy",
        "out.npy",
        "--thumbnail",
        "out.png",
    ];
    let (code, stdout, stderr) = run(folder.path(), &words);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let [object] = &json_lines(&stdout)[..] else {
        panic!("{stdout}")
    };
    assert_eq!(object["path"], "in/a.npy");
    assert_eq!(object["format"], "npy");
    assert_eq!(object["shape"], serde_json::json!([1, 2, 3, 4]));
    assert_eq!(object["value"]["mean"], 11.5);
    assert_eq!(object["value"]["n_non_finite"], 0);
    assert_eq!(
        (&object["npy"], &object["thumbnail"]),
        (&"out.npy".into(), &"out.png".into())
    );
    let bytes = std::fs::read(folder.path().join("out.npy")).unwrap();
    let original = std::fs::read(folder.path().join("in/a.npy")).unwrap();
    assert_eq!(bytes[bytes.len() - 96..], original[original.len() - 96..]);
    let picture = std::fs::read(folder.path().join("out.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert_eq!(names_in(folder.path()), ["in", "out.npy", "out.png"]);
}

#[test]
fn inspect_numbers_the_files_of_several_objects() {
    let folder = archive();
    let words = [
        "inspect",
        "in/cut.npy",
        "in/a.npy",
        "in/z.npy",
        "--npy",
        "o.npy",
        "--json",
    ];
    let (code, stdout, _) = run(folder.path(), &words);
    assert_eq!(code, 1, "one was refused");
    let written: Vec<Value> = json_lines(&stdout)
        .iter()
        .map(|line| line["npy"].clone())
        .collect();
    assert_eq!(written, [Value::Null, "o.0.npy".into(), "o.1.npy".into()]);
    assert_eq!(names_in(folder.path()), ["in", "o.0.npy", "o.1.npy"]);
}

#[test]
fn inspect_refuses_in_json_and_in_words() {
    let folder = archive();
    let (code, stdout, stderr) = run(
        folder.path(),
        &["inspect", "in/cut.npy", "nowhere", "--json"],
    );
    assert_eq!((code, stderr.as_str()), (1, ""));
    let lines = json_lines(&stdout);
    assert_eq!(lines[0]["verdict"], "refused");
    assert_eq!(lines[0]["reason_codes"], serde_json::json!(["truncated"]));
    assert!(lines[0]["error"].as_str().unwrap().contains("wanted"));
    assert_eq!(lines[1]["reason_codes"], serde_json::json!(["io"]));
    let (code, stdout, _) = run(folder.path(), &["inspect", "in/cut.npy"]);
    assert_eq!(code, 1);
    assert!(
        stdout.starts_with("in/cut.npy: refused\n  error    truncated: "),
        "{stdout}"
    );
}

#[test]
fn inspect_lists_every_object_of_a_folder() {
    let folder = archive();
    let (code, stdout, _) = run(folder.path(), &["inspect", "in"]);
    assert_eq!(code, 1);
    let titles: Vec<&str> = stdout
        .lines()
        .filter(|line| line.starts_with("in/"))
        .collect();
    assert_eq!(
        titles,
        [
            "in/a.npy: ok",
            "in/copy/of_a.npy: ok",
            "in/cut.npy: refused",
            "in/z.npy: warning"
        ]
    );
    assert!(
        stdout.ends_with("1 other file holds no image format\n"),
        "{stdout}"
    );
    std::fs::create_dir(folder.path().join("nothing")).unwrap();
    assert_eq!(run(folder.path(), &["inspect", "nothing"]).0, 1);
}

#[test]
fn check_reports_every_object_and_duplicates_for_any_number_of_threads() {
    let folder = archive();
    let (code, stdout, stderr) = run(folder.path(), &["check", "in", "--json", "-j", "1"]);
    assert_eq!((code, stderr.as_str()), (1, ""));
    let lines = json_lines(&stdout);
    let verdicts: Vec<(&str, &str)> = lines[..lines.len() - 1]
        .iter()
        .map(|line| {
            (
                line["path"].as_str().unwrap(),
                line["verdict"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        verdicts,
        [
            ("in/README.md", "not_an_image"),
            ("in/a.npy", "ok"),
            ("in/copy/of_a.npy", "ok"),
            ("in/cut.npy", "refused"),
            ("in/z.npy", "warning"),
        ]
    );
    let summary = &lines[lines.len() - 1]["summary"];
    let counts = [
        "n_objects",
        "n_ok",
        "n_warning",
        "n_refused",
        "n_not_images",
    ];
    assert_eq!(
        counts.map(|key| summary[key].as_u64().unwrap()),
        [4, 2, 1, 1, 1]
    );
    assert_eq!(summary["reason_codes"]["truncated"], 1);
    assert_eq!(
        summary["duplicate_pixels"][0][1]["path"],
        "in/copy/of_a.npy"
    );
    for jobs in ["2", "5"] {
        let again = run(folder.path(), &["check", "in", "--json", "-j", jobs]);
        assert_eq!(again.1, stdout, "{jobs} threads");
    }
}

#[test]
fn check_exits_with_0_only_if_everything_was_readable() {
    let folder = archive();
    let (code, stdout, stderr) = run(folder.path(), &["check", "in/copy"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(
        stdout.starts_with("1 object: 1 ok, 0 with warnings, 0 refused ("),
        "{stdout}"
    );
    std::fs::remove_file(folder.path().join("in/cut.npy")).unwrap();
    assert_eq!(run(folder.path(), &["check", "in"]).0, 0);
    assert_eq!(run(folder.path(), &["check", "in", "--strict"]).0, 1);
    let (code, _, stderr) = run(folder.path(), &["check", "nowhere"]);
    assert_eq!(code, 1);
    assert!(stderr.starts_with("m3ret: opening nowhere: "), "{stderr}");
}

#[test]
fn limits_of_the_command_line_are_kept() {
    let folder = archive();
    let words = ["inspect", "in/a.npy", "--json", "--limit", "voxels=23"];
    let (code, stdout, _) = run(folder.path(), &words);
    assert_eq!(code, 1);
    assert_eq!(
        json_lines(&stdout)[0]["reason_codes"],
        serde_json::json!(["limit_exceeded"])
    );
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let folder = archive();
    let good = std::fs::read(folder.path().join("in/a.npy")).unwrap();
    // Far more output than a pipe holds.
    for idx in 0..600 {
        std::fs::write(folder.path().join(format!("in/{idx:04}.npy")), &good).unwrap();
    }
    for verb in ["inspect", "check"] {
        let mut child = m3ret(folder.path(), &[verb, "in", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert_eq!(
            (status.code(), String::from_utf8(stderr).unwrap().as_str()),
            (Some(0), "")
        );
    }
}

#[test]
fn a_result_never_replaces_what_is_read_or_the_other_result() {
    let folder = archive();
    let before = std::fs::read(folder.path().join("in/a.npy")).unwrap();
    for words in [
        ["inspect", "in/a.npy", "--npy", "in/../in/a.npy"].as_slice(),
        &["inspect", "in/a.npy", "--thumbnail", "in/a.npy"],
        &["inspect", "in/a.npy", "--npy", "x", "--thumbnail", "x"],
    ] {
        let (code, _, stderr) = run(folder.path(), words);
        assert_eq!(code, 1, "{words:?}");
        assert!(stderr.contains("name"), "{stderr}");
    }
    assert_eq!(
        std::fs::read(folder.path().join("in/a.npy")).unwrap(),
        before
    );
    assert!(!folder.path().join("x").exists());
}

#[test]
fn an_error_is_told_once() {
    let folder = archive();
    let (code, _, stderr) = run(folder.path(), &["check", "nowhere"]);
    assert_eq!(
        (code, stderr.matches("No such file").count()),
        (1, 1),
        "{stderr}"
    );
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let folder = archive();
    let pipe = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let header =
        "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\nencoding: raw\ndata file: pipe\n\n";
    std::fs::write(folder.path().join("in/piped.nhdr"), header).unwrap();
    std::fs::rename(&pipe, folder.path().join("in/pipe")).unwrap();
    let (code, stdout, _) = run(folder.path(), &["inspect", "in/pipe", "in/piped.nhdr"]);
    assert_eq!(code, 1, "{stdout}");
    assert_eq!(stdout.matches("refused").count(), 2, "{stdout}");
}

#[cfg(unix)]
#[test]
fn a_header_cannot_point_at_itself_or_through_a_link() {
    let folder = archive();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("in/link")).unwrap();
    for name in ["link", "self.nhdr"] {
        let header = format!(
            "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\nencoding: raw\ndata file: {name}\n\n"
        );
        std::fs::write(folder.path().join("in/self.nhdr"), header).unwrap();
        let (code, stdout, _) = run(folder.path(), &["inspect", "in/self.nhdr"]);
        assert_eq!(code, 1, "{stdout}");
        assert!(
            stdout.contains("another file in the header's folder"),
            "{stdout}"
        );
    }
}
