//! `m3ret erase` as a person runs it: numbers from files, receipts, proofs, and what is said.

#![allow(clippy::too_many_lines, reason = "stories told from start to end")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use binary::{json_lines, m3ret, run};
use pictures::{pictures, put};

const BUILD: &[&str] = &["index", "build", "g.m3i", "m.csv", "--model", "pixels"];

fn archive() -> tempfile::TempDir {
    let folder = pictures(6);
    let mut manifest = "path,id,patient_id\n".to_owned();
    for i in 0..6 {
        manifest += &format!("{i}.npy,image-number-{i},PERSON-{:05}\n", i / 2);
    }
    put(folder.path(), "m.csv", manifest);
    put(folder.path(), "who", "PERSON-00001\n");
    let (status, _, told) = run(folder.path(), BUILD);
    assert_eq!(status, 0, "{told}");
    folder
}

fn all_files(folder: &Path) -> Vec<u8> {
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
    names.sort_by_key(|entry| entry.as_ref().unwrap().path());
    let files = names.into_iter().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .flat_map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn holds(bytes: &[u8], wanted: &str) -> bool {
    bytes
        .windows(wanted.len())
        .any(|window| window == wanted.as_bytes())
}

/// Runs the same erasure on copies of a gallery, killed at moments all over it; the same command completes each.
#[cfg(unix)]
#[test]
fn an_erasure_that_is_killed_at_any_moment_is_completed_by_the_same_command() {
    let folder = archive();
    let root = folder.path();
    let erase = ["erase", "--patient-file", "who", "-d", "g.m3i"];
    let whole = root.join("whole");
    std::fs::rename(root.join("g.m3i"), &whole).unwrap();
    let anew = || {
        let _ = std::fs::remove_dir_all(root.join("g.m3i"));
        copy_folder(&whole, &root.join("g.m3i"));
    };
    anew();
    let began = Instant::now();
    assert_eq!(run(root, &erase).0, 0);
    let took = began.elapsed();
    let n_rounds = 24;
    let mut n_killed = 0;
    for round in 0..n_rounds {
        anew();
        let mut child = m3ret(root, &erase).spawn().unwrap();
        std::thread::sleep(took * round / n_rounds);
        child.kill().unwrap();
        n_killed += usize::from(child.wait().unwrap().code().is_none());
        let (status, out, told) = run(root, &[&erase[..], &["--receipt", "r.json"]].concat());
        // Whoever was killed after the end has nothing left to erase.
        let is_over = told.contains("no image of this patient");
        assert!(status == 0 || is_over, "round {round}: {out}{told}");
        assert!(!holds(&all_files(&root.join("g.m3i")), "image-number-2"));
        if status == 0 {
            let verify = ["erase", "--verify", "r.json", "-d", "g.m3i"];
            let (status, out, told) = run(root, &verify);
            assert_eq!(status, 0, "round {round}: {out}{told}");
        }
        let (status, out, told) = run(root, &["index", "verify", "g.m3i"]);
        assert_eq!(status, 0, "round {round}: {out}{told}");
        assert!(out.contains("4"), "{out}");
        let _ = std::fs::remove_file(root.join("r.json"));
    }
    assert!(n_killed > 4, "only {n_killed} were killed before their end");
}

#[test]
fn objects_that_wait_beside_the_gallery_are_not_overlooked() {
    let folder = archive();
    let root = folder.path();
    let place = root.join("g.received/0123");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("1.dcm"), "..PERSON-00001..").unwrap();
    std::fs::write(place.join("2.dcm"), "..PERSON-00002..").unwrap();
    let erase = ["erase", "--patient-file", "who", "-d", "g.m3i"];
    let (status, out, told) = run(root, &[&erase[..], &["--receipt", "r.json"]].concat());
    assert!(
        status == 1 && out.contains("g.received/0123/1.dcm"),
        "{out}{told}"
    );
    assert!(!out.contains("2.dcm") && !out.contains("PERSON"), "{out}");
    let verify = [
        "erase",
        "--verify",
        "r.json",
        "-d",
        "g.m3i",
        "--patient-file",
        "who",
    ];
    assert_eq!(run(root, &verify).0, 1);
    std::fs::remove_file(place.join("1.dcm")).unwrap();
    let (status, out, told) = run(root, &verify);
    assert_eq!(status, 0, "{out}{told}");
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_patient_is_erased_proved_refused_and_allowed_again() {
    let folder = archive();
    let root = folder.path();
    let before = all_files(&root.join("g.m3i"));
    assert!(holds(&before, "image-number-2"));
    let erase = ["erase", "--patient-file", "who", "-d", "g.m3i"];
    let (status, out, _) = run(root, &[&erase[..], &["--dry-run"]].concat());
    assert_eq!(status, 0);
    assert!(out.contains("would be erased    2 images"), "{out}");
    assert_eq!(all_files(&root.join("g.m3i")), before);

    let telling = ["--reason", "asked for", "--who", "tester"];
    let receipt = ["--receipt", "receipt.json"];
    let (status, out, told) = run(root, &[&erase[..], &telling, &receipt].concat());
    assert_eq!(status, 0, "{out}{told}");
    assert!(
        out.contains("erased    2 images from g.m3i, 4 left"),
        "{out}"
    );
    assert!(out.contains("nothing is left"), "{out}");
    let after = all_files(&root.join("g.m3i"));
    assert!(!holds(&after, "image-number-2") && holds(&after, "image-number-4"));
    let text = std::fs::read_to_string(root.join("receipt.json")).unwrap();
    for secret in ["PERSON-00001", "image-number"] {
        assert!(!(out.clone() + &told + &text).contains(secret));
    }

    // A receipt that lies there is not lost.
    let (status, _, told) = run(root, &[&erase[..], &receipt].concat());
    assert!(status == 1 && told.contains("receipt.json"), "{told}");

    let prove = ["erase", "--verify", "receipt.json", "-d", "g.m3i"];
    let (status, out, _) = run(
        root,
        &[&prove[..], &["--patient-file", "who", "--json"]].concat(),
    );
    let proved = &json_lines(&out)[0];
    assert_eq!(status, 0, "{out}");
    assert_eq!(proved["n_images"], 0);
    assert_eq!(proved["is_listed"], true);
    assert_eq!(proved["scan"]["n_found"], 0);
    put(root, "changed.json", text.replace("tester", "nobody"));
    let (status, _, told) = run(root, &["erase", "--verify", "changed.json", "-d", "g.m3i"]);
    assert!(status == 1 && told.contains("was changed"), "{told}");

    let (status, out, _) = run(root, &["index", "add", "g.m3i", "m.csv", "--json"]);
    assert_eq!(status, 1);
    assert!(out.contains("\"erased\""), "{out}");

    let allow = [
        "erase",
        "--allow-again",
        "--patient-file",
        "who",
        "-d",
        "g.m3i",
        "--json",
    ];
    let (status, out, _) = run(root, &allow);
    assert_eq!(
        (status, &json_lines(&out)[0]["action"]),
        (0, &"allow_again".into())
    );
    let (status, out, _) = run(
        root,
        &["index", "add", "g.m3i", "m.csv", "--retry", "--json"],
    );
    assert_eq!(status, 0, "{out}");
    let (status, out, _) = run(root, &prove);
    assert!(
        status == 1 && out.contains("2 images of what was erased"),
        "{out}"
    );
}

#[test]
fn numbers_come_from_standard_input_and_are_never_repeated() {
    let folder = archive();
    let root = folder.path();
    for (input, wanted, status) in [
        ("", "is empty", 1),
        ("PERSON-00001\nPERSON-00002\n", "control character", 1),
        ("PERSON-99999\n", "no image of this patient", 1),
        ("PERSON-00002\r\n", "2 images", 0),
    ] {
        let words = ["erase", "--patient-file", "-", "-d", "g.m3i"];
        let mut child = m3ret(root, &words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(status), "{told}");
        assert!(told.contains(wanted) && !told.contains("PERSON"), "{told}");
    }
}

#[test]
fn images_are_erased_by_id_and_wrong_usage_is_refused() {
    let folder = archive();
    let root = folder.path();
    put(root, "ids", "image-number-0\nimage-number-5\n");
    let (status, out, told) = run(
        root,
        &["erase", "--rows-from", "ids", "-d", "g.m3i", "--json"],
    );
    assert_eq!(status, 0, "{told}");
    assert_eq!(json_lines(&out)[0]["places"][0]["counts"]["n_rows"], 2);
    assert!(!holds(&all_files(&root.join("g.m3i")), "image-number-5"));
    for (words, wanted) in [
        (&["erase", "-d", "g.m3i"][..], 2),
        (&["erase", "--id", "a"], 2),
        (
            &["erase", "--id", "a", "--patient-file", "who", "-d", "g.m3i"],
            2,
        ),
        (&["erase", "--verify", "x", "--dry-run", "-d", "g.m3i"], 2),
        (&["erase", "--allow-again", "--id", "a", "-d", "g.m3i"], 2),
        (&["erase", "--id", "image-number-0", "-d", "g.m3i"], 1),
        (
            &[
                "erase",
                "--id",
                "image-number-1",
                "--issuer",
                "x",
                "-d",
                "g.m3i",
            ],
            1,
        ),
        (&["erase", "--id", "image-number-1", "-d", "none.m3i"], 1),
        (&["erase", "--verify", "m.csv", "-d", "g.m3i"], 1),
    ] {
        let (status, _, told) = run(root, words);
        assert_eq!(status, wanted, "{words:?}: {told}");
    }
}
