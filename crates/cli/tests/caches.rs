//! Caches: a refused file costs once, and what other users may do to a cache.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::{Path, PathBuf};

use serde_json::Value;

use binary::{json_lines, run};
use pictures::{pictures, put};

/// An archive `arch` with pictures 0 to 5 and a damaged one, bad.npy.
fn archive() -> tempfile::TempDir {
    let folder = pictures(6);
    let root = folder.path();
    std::fs::create_dir(root.join("arch")).unwrap();
    for i in 0..6 {
        let name = format!("{i}.npy");
        std::fs::rename(root.join(&name), root.join("arch").join(&name)).unwrap();
    }
    let whole = std::fs::read(root.join("arch/0.npy")).unwrap();
    put(root, "arch/bad.npy", &whole[..whole.len() - 100]);
    folder
}

/// Searches the archive; returns the number of hits and what was told.
fn search(root: &Path, words: &[&str]) -> (i32, usize, String) {
    let usual = [
        "search",
        "-d",
        "arch",
        "-i",
        "arch/0.npy",
        "--cache",
        "cache",
        "--json",
        "-k",
        "20",
        "--model",
        "pixels",
    ];
    let (status, out, told) = run(root, &[&usual[..], words].concat());
    let lines = json_lines(&out);
    let hits = lines
        .first()
        .map_or(0, |line| line["hits"].as_array().unwrap().len());
    (status, hits, told)
}

fn only_gallery(root: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(root.join("cache")).unwrap();
    let gallery = entries.next().unwrap().unwrap().path();
    assert!(entries.next().is_none());
    gallery
}

fn generation(root: &Path) -> u64 {
    let gallery = only_gallery(root);
    let (_, out, _) = run(
        root,
        &["index", "stats", gallery.to_str().unwrap(), "--json"],
    );
    json_lines(&out)[0]["generation"].as_u64().unwrap()
}

const REMEMBERED: &str = "refused before and not read again";

#[test]
fn a_refused_file_is_read_once() {
    let folder = archive();
    let root = folder.path();
    let (status, n_hits, told) = search(root, &[]);
    assert_eq!((status, n_hits), (0, 5), "{told}");
    assert!(
        told.contains("1 image of the archive could not be read"),
        "{told}"
    );
    assert!(!told.contains(REMEMBERED), "{told}");
    let before = generation(root);
    for _ in 0..2 {
        let (status, n_hits, told) = search(root, &[]);
        assert_eq!((status, n_hits), (0, 5), "{told}");
        // It is still told, and nothing is written.
        assert!(
            told.contains("1 image of the archive could not be read"),
            "{told}"
        );
        assert!(told.contains(REMEMBERED), "{told}");
    }
    assert_eq!(generation(root), before);
    // It is read again on request, with other limits, and after a change.
    let (.., told) = search(root, &["--retry"]);
    assert!(!told.contains(REMEMBERED), "{told}");
    let (.., told) = search(root, &[]);
    assert!(told.contains(REMEMBERED), "{told}");
    let (.., told) = search(root, &["--limit", "seconds=7"]);
    assert!(!told.contains(REMEMBERED), "{told}");
    let good = std::fs::read(root.join("arch/5.npy")).unwrap();
    put(root, "arch/bad.npy", good);
    let (_, n_hits, told) = search(root, &[]);
    assert!(!told.contains("could not be read"), "{told}");
    assert_eq!(n_hits, 6);
    // A file that was good becomes bad: its row leaves, and it is remembered.
    put(root, "arch/bad.npy", "nothing");
    put(
        root,
        "arch/4.npy",
        &std::fs::read(root.join("arch/3.npy")).unwrap()[..200],
    );
    for _ in 0..2 {
        let (_, n_hits, _) = search(root, &[]);
        assert_eq!(n_hits, 4);
    }
    std::fs::remove_file(root.join("arch/4.npy")).unwrap();
    let (_, n_hits, told) = search(root, &[]);
    assert_eq!(n_hits, 4);
    assert!(!told.contains(REMEMBERED), "{told}");
    let gallery = only_gallery(root);
    let (status, out, _) = run(
        root,
        &["index", "verify", gallery.to_str().unwrap(), "--json"],
    );
    assert_eq!(
        (status, &json_lines(&out)[0]["is_good"]),
        (0, &Value::Bool(true))
    );
}

#[test]
fn a_gallery_that_was_named_remembers_too() {
    let folder = archive();
    let root = folder.path();
    let index = |words: &[&str]| {
        let (status, out, told) = run(root, &[&["index"], words, &["--json"]].concat());
        (status, json_lines(&out).pop().unwrap_or_default(), told)
    };
    let (status, built, _) = index(&["build", "g.m3i", "arch", "--model", "pixels"]);
    assert_eq!(
        (status, &built["refused"][0]["is_remembered"]),
        (1, &Value::Bool(false))
    );
    let (status, added, _) = index(&["add", "g.m3i", "arch"]);
    assert_eq!(
        (status, &added["refused"][0]["is_remembered"]),
        (1, &Value::Bool(true))
    );
    assert_eq!(added["n_kept"], 6);
    let (_, added, _) = index(&["add", "g.m3i", "arch", "--retry"]);
    assert_eq!(added["refused"][0]["is_remembered"], Value::Bool(false));
    // What another folder holds is not forgotten when this one is added.
    std::fs::create_dir(root.join("more")).unwrap();
    std::fs::copy(root.join("arch/1.npy"), root.join("more/m.npy")).unwrap();
    index(&["add", "g.m3i", "more"]);
    let (_, added, _) = index(&["add", "g.m3i", "arch"]);
    assert_eq!(added["refused"][0]["is_remembered"], Value::Bool(true));
    // A path that is gone is forgotten with the next removal.
    let listed = || {
        let names = std::fs::read_dir(root.join("g.m3i")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("refusals-")).count()
    };
    assert_eq!(listed(), 1);
    std::fs::remove_file(root.join("arch/bad.npy")).unwrap();
    index(&["remove", "g.m3i", "2.npy"]);
    assert_eq!(listed(), 0);
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::symlink_metadata(path)
        .unwrap()
        .permissions()
        .mode()
        & 0o7777
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_cache_is_entered_by_its_user_alone() {
    let folder = archive();
    let root = folder.path();
    search(root, &[]);
    let gallery = only_gallery(root);
    assert_eq!((mode(&root.join("cache")), mode(&gallery)), (0o700, 0o700));
    for entry in std::fs::read_dir(&gallery).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()) & 0o022, 0, "{:?}", entry.file_name());
    }
    // What an older m3ret left readable is closed.
    set_mode(&gallery, 0o755);
    search(root, &[]);
    assert_eq!(mode(&gallery), 0o700);
    // A gallery that was named keeps the modes that the user's umask gives.
    run(
        root,
        &["index", "build", "g.m3i", "arch", "--model", "pixels"],
    );
    std::fs::create_dir(root.join("plain")).unwrap();
    assert_eq!(mode(&root.join("g.m3i")), mode(&root.join("plain")));
}

#[cfg(unix)]
#[test]
fn a_cache_that_others_write_to_is_refused() {
    let folder = archive();
    let root = folder.path();
    std::fs::create_dir(root.join("cache")).unwrap();
    for mode in [0o777, 0o775, 0o703] {
        set_mode(&root.join("cache"), mode);
        let (status, _, told) = search(root, &[]);
        assert_eq!(status, 1, "{mode:o}");
        assert!(
            told.contains("chmod go-w") && told.contains("--cache"),
            "{told}"
        );
        assert_eq!(std::fs::read_dir(root.join("cache")).unwrap().count(), 0);
    }
    // With the sticky bit, others cannot replace what is ours.
    set_mode(&root.join("cache"), 0o1777);
    assert_eq!(search(root, &[]).0, 0);
    let gallery = only_gallery(root);
    set_mode(&gallery, 0o777);
    let (status, _, told) = search(root, &[]);
    assert!(status == 1 && told.contains("chmod go-w"), "{told}");
    set_mode(&gallery, 0o700);
    // A link in place of the gallery leads nowhere.
    let elsewhere = root.join("elsewhere");
    std::fs::rename(&gallery, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &gallery).unwrap();
    let (status, _, told) = search(root, &[]);
    assert!(status == 1 && told.contains("is a link or file"), "{told}");
}

#[cfg(unix)]
#[test]
fn links_in_a_cache_have_nothing_overwritten() {
    let folder = archive();
    let root = folder.path();
    search(root, &[]);
    let gallery = only_gallery(root);
    let victim = root.join("victim");
    std::fs::write(&victim, "precious").unwrap();
    for name in ["key.part", "catalog-0000000000000001.part", "key", "lock"] {
        std::fs::remove_dir_all(&gallery).unwrap();
        std::fs::create_dir(&gallery).unwrap();
        set_mode(&gallery, 0o700);
        std::os::unix::fs::symlink(&victim, gallery.join(name)).unwrap();
        search(root, &[]);
        assert_eq!(
            std::fs::read_to_string(&victim).unwrap(),
            "precious",
            "{name}"
        );
    }
}

#[cfg(unix)]
#[test]
fn names_of_galleries_do_not_make_an_archive_one() {
    let folder = archive();
    let root = folder.path();
    put(root, "arch/catalog-2024.json", "{}");
    put(root, "arch/catalog-0000000000000007.json", "{}");
    let pipe = root.join("arch/catalog-0000000000000001.json");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", root.join("arch/catalog-0000000000000002.json"))
        .unwrap();
    let (status, n_hits, told) = search(root, &[]);
    assert_eq!((status, n_hits), (0, 5), "{told}");
}
