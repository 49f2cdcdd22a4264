//! What the jail forbids, tried by the programs of the system.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::*;

const BUDGET: Budget = Budget {
    memory_bytes: BASE_BYTES,
    cpu_s: 1,
};

fn run(program: &str, args: &[&str], input: &File) -> (ExitStatus, Vec<u8>) {
    let mut command = Command::new(program);
    confine(&mut command, program.as_ref(), input, BUDGET).unwrap();
    let child = command
        .args(args)
        .stdin(Stdio::from(input.try_clone().unwrap()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let out = child.unwrap().wait_with_output().unwrap();
    (out.status, out.stdout)
}

fn file_with(folder: &Path, name: &str, text: &str) -> File {
    std::fs::write(folder.join(name), text).unwrap();
    File::open(folder.join(name)).unwrap()
}

#[test]
fn the_input_can_be_opened_again_and_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let input = file_with(folder.path(), "input", "film");
    let _other = file_with(folder.path(), "other", "another patient");
    let (status, text) = run("cat", &["/proc/self/fd/0"], &input);
    assert!(status.success());
    assert_eq!(text, b"film");
    let other = folder.path().join("other");
    let (status, text) = run("cat", &[other.to_str().unwrap()], &input);
    assert!(!status.success());
    assert!(text.is_empty());
    let (status, _) = run("ls", &[folder.path().to_str().unwrap()], &input);
    assert!(!status.success());
}

#[test]
fn a_file_in_memory_can_be_opened_again() {
    let mut input = super::super::in_memory(b"a film of a DICOM object").unwrap();
    let (status, text) = run("cat", &["/proc/self/fd/0"], &input);
    assert!(status.success());
    assert_eq!(text, b"a film of a DICOM object");
    // Nothing was written through it.
    let mut whole = Vec::new();
    std::io::Seek::rewind(&mut input).unwrap();
    input.read_to_end(&mut whole).unwrap();
    assert_eq!(whole, b"a film of a DICOM object");
}

#[test]
fn nothing_is_written_made_or_removed() {
    let folder = tempfile::tempdir().unwrap();
    let input = file_with(folder.path(), "input", "film");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (program, args) in [
        ("touch", vec![path("new")]),
        ("mkdir", vec![path("new")]),
        ("ln", vec!["-s".to_owned(), "/".to_owned(), path("new")]),
        ("rm", vec!["-f".to_owned(), path("input")]),
        ("mv", vec![path("input"), path("new")]),
        ("chmod", vec!["777".to_owned(), path("input")]),
        (
            "dd",
            vec![
                "if=/dev/zero".to_owned(),
                "count=1".to_owned(),
                format!("of={}", path("input")),
            ],
        ),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (status, _) = run(program, &args, &input);
        assert!(!status.success(), "{program}");
        assert_eq!(
            std::fs::read_to_string(path("input")).unwrap(),
            "film",
            "{program}"
        );
        assert!(!folder.path().join("new").exists(), "{program}");
    }
}

#[test]
fn memory_and_time_end() {
    let input = File::open("/dev/zero").unwrap();
    let (status, _) = run("dd", &["bs=600M", "count=1", "of=/dev/null"], &input);
    assert!(!status.success());
    let (status, _) = run("dd", &["bs=100M", "count=1", "of=/dev/null"], &input);
    // Writing to a device other than a pipe is not allowed either.
    assert!(!status.success());
    let (status, out) = run("head", &["-c", "1000000"], &input);
    assert!(status.success());
    assert_eq!(out.len(), 1_000_000);
    let (status, _) = run("sha256sum", &[], &input);
    assert!(matches!(status.signal(), Some(9 | 24)), "{status}");
}

#[test]
fn no_process_is_started() {
    let input = File::open("/dev/null").unwrap();
    let (status, out) = run("env", &["echo", "by exec alone"], &input);
    assert!(status.success());
    assert_eq!(out, b"by exec alone\n");
    let (status, out) = run("sh", &["-c", "/bin/echo forked; true"], &input);
    assert!(!status.success() || out.is_empty());
    let (_, out) = run("timeout", &["5", "echo", "forked"], &input);
    assert!(out.is_empty());
}

/// This test is its own helper: with the variable set it starts a child, tells its number and waits.
#[test]
#[allow(clippy::disallowed_methods, reason = "the test starts itself")]
fn a_child_dies_with_its_parent() {
    const ROLE: &str = "M3RET_TEST_JAIL_PARENT";
    if std::env::var_os(ROLE).is_some() {
        let mut command = Command::new("sleep");
        let input = File::open("/dev/null").unwrap();
        confine(&mut command, "sleep".as_ref(), &input, BUDGET).unwrap();
        let mut child = command
            .arg("600")
            .stdin(Stdio::from(input))
            .spawn()
            .unwrap();
        println!("child {}", child.id());
        std::io::stdout().flush().unwrap();
        child.wait().unwrap();
        return;
    }
    let name = "video::jail::tests::a_child_dies_with_its_parent";
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(parent.stdout.take().unwrap()));
    let pid = lines
        .find_map(|line| Some(line.unwrap().split_once("child ")?.1.trim().to_owned()))
        .unwrap();
    let alive =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "));
    assert!(alive());
    parent.kill().unwrap();
    parent.wait().unwrap();
    for _ in 0..1000 {
        if !alive() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the child outlives its parent");
}

#[test]
fn a_budget_grows_with_frames_up_to_the_limit() {
    let small = Budget::new(0, 60, 4 << 30);
    let large = Budget::new(3840 * 2160, 60, 4 << 30);
    assert_eq!(small.memory_bytes, BASE_BYTES);
    assert!(large.memory_bytes > small.memory_bytes);
    assert_eq!(Budget::new(u64::MAX, 60, 4 << 30).memory_bytes, 4 << 30);
    assert_eq!(Budget::new(u64::MAX, 60, 1).memory_bytes, BASE_BYTES);
}
