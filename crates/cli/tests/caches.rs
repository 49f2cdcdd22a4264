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

#[test]
fn a_gallery_that_followed_its_archive_has_forgotten_what_was_refused_at_the_old_place() {
    let folder = archive();
    let root = folder.path();
    let index = |words: &[&str]| {
        let (_, out, told) = run(root, &[&["index"], words, &["--json"]].concat());
        json_lines(&out).pop().unwrap_or_else(|| panic!("{told}"))
    };
    let listed = || {
        let names = binary::names_in(&root.join("g.m3i")).into_iter();
        names.filter(|name| name.starts_with("refusals-")).count()
    };
    for is_copy in [false, true] {
        index(&["build", "g.m3i", "arch", "--model", "pixels"]);
        assert_eq!(listed(), 1);
        std::fs::rename(root.join("arch"), root.join("moved")).unwrap();
        if is_copy {
            // The old place has its files still, which the gallery follows no more.
            std::fs::create_dir(root.join("arch")).unwrap();
            for name in binary::names_in(&root.join("moved")) {
                std::fs::copy(root.join("moved").join(&name), root.join("arch").join(name))
                    .unwrap();
            }
        }
        assert_eq!(index(&["move", "g.m3i", "arch", "moved"])["n_changed"], 6);
        assert_eq!(listed(), 0, "is a copy: {is_copy}");
        for is_remembered in [false, true] {
            let added = index(&["add", "g.m3i", "moved"]);
            assert_eq!(added["refused"][0]["is_remembered"], is_remembered);
        }
        std::fs::remove_dir_all(root.join("g.m3i")).unwrap();
        let _ = std::fs::remove_dir_all(root.join("arch"));
        std::fs::rename(root.join("moved"), root.join("arch")).unwrap();
    }
}

/// Headers of 16 x 16 numbers that lie in a file `v.raw` or `v.img` beside them: name, bytes, name of the other file.
fn headers() -> [(&'static str, Vec<u8>, &'static str); 3] {
    let meta = "ObjectType = Image\nNDims = 2\nDimSize = 16 16\nElementType = MET_FLOAT\n\
                BinaryDataByteOrderMSB = False\nElementDataFile = v.raw\n";
    let nrrd = "NRRD0004\ntype: float\ndimension: 2\nsizes: 16 16\nendian: little\nencoding: raw\n\
                data file: v.raw\n\n";
    let mut pair = vec![0; 348];
    let mut put = |at: usize, value: &[u8]| pair[at..at + value.len()].copy_from_slice(value);
    put(0, &348_i32.to_le_bytes());
    for (idx, side) in [2_i16, 16, 16, 1, 1, 1, 1, 1].iter().enumerate() {
        put(40 + 2 * idx, &side.to_le_bytes());
    }
    put(70, &16_i16.to_le_bytes());
    put(72, &32_i16.to_le_bytes());
    for idx in 0..8 {
        put(76 + 4 * idx, &1_f32.to_le_bytes());
    }
    put(112, &1_f32.to_le_bytes());
    put(344, b"ni1\0");
    [
        ("h.mhd", meta.into(), "v.raw"),
        ("h.nhdr", nrrd.into(), "v.raw"),
        ("v.hdr", pair, "v.img"),
    ]
}

fn voxels(seed: usize) -> Vec<u8> {
    let values = pictures::picture(seed).into_iter();
    values.flat_map(f32::to_le_bytes).collect()
}

#[test]
fn a_header_is_read_again_when_the_file_with_its_voxels_changes() {
    for (name, header, beside) in headers() {
        let folder = archive();
        let root = folder.path();
        std::fs::remove_file(root.join("arch/bad.npy")).unwrap();
        std::fs::create_dir(root.join("arch/one")).unwrap();
        put(root, &format!("arch/one/{name}"), &header);
        let raw = format!("arch/one/{beside}");
        put(root, &raw, &voxels(7)[..600]);
        for is_first in [true, false] {
            let (_, n_hits, told) = search(root, &[]);
            assert_eq!(n_hits, 5, "{name}: {told}");
            assert_eq!(told.contains(REMEMBERED), !is_first, "{name}: {told}");
        }
        put(root, &raw, voxels(7));
        let (_, n_hits, told) = search(root, &[]);
        assert_eq!(n_hits, 6, "{name}: {told}");
        // Other voxels under an equal header are another image, wherever they lie.
        std::fs::create_dir(root.join("arch/two")).unwrap();
        put(root, &format!("arch/two/{name}"), &header);
        put(root, &format!("arch/two/{beside}"), voxels(3));
        let (hits, told) = pictures::search(root, "arch", &["-i", "arch/3.npy"]);
        let path = format!("two/{name}");
        let score = |hit: &Value| hit["score"].as_f64().unwrap();
        let is_equal = |hit: &&Value| score(hit) > 0.9999;
        let equal: Vec<&Value> = hits
            .iter()
            .filter(is_equal)
            .map(|hit| &hit["path"])
            .collect();
        assert_eq!(equal, [&path], "{told}");
        // And those of a file that changed are embedded again.
        put(root, &raw, voxels(4));
        let (hits, _) = pictures::search(root, "arch", &["-i", "arch/4.npy"]);
        let equal: Vec<&Value> = hits
            .iter()
            .filter(is_equal)
            .map(|hit| &hit["path"])
            .collect();
        assert_eq!(equal, [&format!("one/{name}")]);
    }
}

/// Gives a folder and all below it to a user, and takes the right to write from that user.
#[cfg(target_os = "linux")]
fn make_read_only(path: &Path, user: Option<u32>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            make_read_only(&entry.unwrap().path(), user);
        }
    }
    std::os::unix::fs::chown(path, user, user).unwrap();
    set_mode(path, if path.is_dir() { 0o500 } else { 0o400 });
}

/// Searches as a user for whom modes count: the system's own user may write anywhere.
#[cfg(target_os = "linux")]
fn search_as(root: &Path, program: &Path, user: Option<u32>) -> (i32, usize, String) {
    use std::os::unix::process::CommandExt as _;
    let mut command = std::process::Command::new(program);
    command.current_dir(root).args([
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
    ]);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output().unwrap();
    let [out, told] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    let hits = json_lines(&out)
        .first()
        .map_or(0, |line| line["hits"].as_array().unwrap().len());
    (output.status.code().unwrap(), hits, told)
}

#[cfg(target_os = "linux")]
#[test]
fn a_cache_that_cannot_be_written_is_searched_as_it_is() {
    let folder = archive();
    let root = folder.path();
    let program = root.join("m3ret");
    std::fs::copy(env!("CARGO_BIN_EXE_m3ret"), &program).unwrap();
    set_mode(&program, 0o755);
    set_mode(root, 0o755);
    // The user `nobody`, unless these are the files of a plain user.
    let is_system = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(root).unwrap()) == 0;
    let user = is_system.then_some(65_534);
    search(root, &[]);
    make_read_only(&root.join("cache"), user);
    // With the file that was refused, it is up to date.
    let (status, n_hits, told) = search_as(root, &program, user);
    assert_eq!((status, n_hits), (0, 5), "{told}");
    assert!(
        told.contains(REMEMBERED) && !told.contains("cannot be written"),
        "{told}"
    );
    let one = std::fs::read(root.join("arch/1.npy")).unwrap();
    put(root, "arch/new.npy", one);
    std::fs::remove_file(root.join("arch/2.npy")).unwrap();
    let (status, n_hits, told) = search_as(root, &program, user);
    assert_eq!((status, n_hits), (0, 5), "{told}");
    assert!(
        told.contains("cannot be written, so that it is searched as it is: 1 image is new"),
        "{told}"
    );
    set_mode(&root.join("cache"), 0o700);
    set_mode(&only_gallery(root), 0o700);
    set_mode(&only_gallery(root).join("lock"), 0o600);
    let (_, n_hits, told) = search_as(root, &program, user);
    assert_eq!(n_hits, 5, "{told}");
    assert!(!told.contains("cannot be written"), "{told}");
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
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.file_name());
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
