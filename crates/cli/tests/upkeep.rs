//! A gallery stays in step with its archive: files that are moved, copied, touched, replaced and gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use serde_json::Value;

use binary::{json_lines, run};
use pictures::{pictures, put, search, texts, vectors};

/// Runs `m3ret index WORDS --json` and returns the status and what it says.
fn index(root: &Path, words: &[&str]) -> (i32, Value) {
    let words = [&["index"], words, &["--json"]].concat();
    let (status, out, told) = run(root, &words);
    let mut lines = json_lines(&out);
    assert_eq!(lines.len(), 1, "{told}");
    (status, lines.remove(0))
}

/// An archive `arch` with pictures 0 to 5, and a gallery `g.m3i` of it.
fn archive() -> tempfile::TempDir {
    let folder = pictures(6);
    let root = folder.path();
    std::fs::create_dir_all(root.join("arch/deep")).unwrap();
    for i in 0..6 {
        let below = if i < 4 { "arch" } else { "arch/deep" };
        let name = format!("{i}.npy");
        std::fs::rename(root.join(&name), root.join(below).join(&name)).unwrap();
    }
    let (status, built) = index(root, &["build", "g.m3i", "arch", "--model", "pixels"]);
    assert_eq!((status, &built["n_added"]), (0, &6.into()));
    folder
}

fn n_items(root: &Path) -> u64 {
    index(root, &["stats", "g.m3i"]).1["n_items"]
        .as_u64()
        .unwrap()
}

#[test]
fn a_moved_archive_is_followed_without_embedding_and_what_is_gone_is_pruned() {
    let folder = archive();
    let root = folder.path();
    let (before, _) = search(root, "g.m3i", &["-i", "0.npy"]);
    std::fs::remove_file(root.join("arch/1.npy")).unwrap();
    std::fs::rename(root.join("arch"), root.join("moved")).unwrap();

    // Nothing is there: the disk may be away.
    let (status, pruned) = index(root, &["prune", "g.m3i"]);
    assert_eq!(
        (status, &pruned["n_pruned"], n_items(root)),
        (1, &0.into(), 6)
    );
    assert_eq!(pruned["away"].as_object().unwrap().len(), 1);

    let (status, moved) = index(root, &["move", "g.m3i", "arch", "moved"]);
    assert_eq!(
        (status, &moved["n_changed"], &moved["n_missing"]),
        (1, &5.into(), &1.into())
    );
    let (_, pruned) = index(root, &["prune", "g.m3i", "--force"]);
    assert_eq!(pruned["pruned_ids"], serde_json::json!(["1.npy"]));
    let (after, _) = search(root, "g.m3i", &["-i", "0.npy"]);
    let files = texts(&after, "file");
    assert!(
        files.iter().all(|file| file.starts_with("moved/")),
        "{files:?}"
    );
    let ids = |hits: &[Value]| -> Vec<String> {
        let ids = texts(hits, "id").into_iter().map(str::to_owned);
        ids.filter(|id| id != "1.npy").collect()
    };
    assert_eq!(ids(&after), ids(&before));
    // Nothing is left to do at the new place.
    let (status, added) = index(root, &["add", "g.m3i", "moved"]);
    assert_eq!(
        (status, &added["n_added"], &added["n_items"]),
        (0, &0.into(), &5.into())
    );

    let (status, _, told) = run(root, &["index", "move", "g.m3i", "elsewhere", "moved"]);
    assert!(
        status == 1 && told.contains("no image of the gallery lies below"),
        "{told}"
    );
    assert!(told.contains("moved"), "{told}");
}

#[test]
fn adding_finds_moved_copied_and_touched_files_by_their_bytes() {
    let folder = archive();
    let root = folder.path();
    std::fs::remove_file(root.join("arch/1.npy")).unwrap();
    std::fs::rename(root.join("arch"), root.join("moved")).unwrap();
    let (status, added) = index(root, &["add", "g.m3i", "moved", "--prune"]);
    let counts = |told: &Value| {
        ["n_added", "n_reused", "n_pruned", "n_items"].map(|name| told[name].as_u64().unwrap())
    };
    assert_eq!((status, counts(&added)), (0, [0, 5, 1, 5]));

    // A copy has a row of its own, and the same vector.
    std::fs::copy(root.join("moved/0.npy"), root.join("moved/copy.npy")).unwrap();
    let (_, added) = index(root, &["add", "g.m3i", "moved"]);
    assert_eq!(counts(&added), [0, 1, 0, 6]);
    let (hits, _) = search(root, "g.m3i", &["-i", "0.npy"]);
    assert_eq!(
        (&hits[0]["id"], &hits[0]["relation"]),
        (&"copy.npy".into(), &"same_image".into())
    );

    // A file that was only touched keeps its row and its id.
    let touched = std::fs::File::options()
        .write(true)
        .open(root.join("moved/2.npy"))
        .unwrap();
    touched
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(9))
        .unwrap();
    let (_, added) = index(root, &["add", "g.m3i", "moved"]);
    assert_eq!(counts(&added), [0, 1, 0, 6]);
    let (_, added) = index(root, &["add", "g.m3i", "moved"]);
    assert_eq!(counts(&added), [0, 0, 0, 6]);

    // A manifest of the same files labels the rows that are there.
    put(
        root,
        "m.csv",
        "path,finding\nmoved/0.npy,mass\nmoved/2.npy,normal\n",
    );
    let (_, added) = index(root, &["add", "g.m3i", "m.csv"]);
    assert_eq!(counts(&added), [0, 2, 0, 6]);
    let (hits, _) = search(root, "g.m3i", &["-i", "3.npy", "--filter", "finding=mass"]);
    assert_eq!(texts(&hits, "file"), ["moved/0.npy"]);
}

#[cfg(unix)]
#[test]
fn a_file_that_was_replaced_under_its_size_and_time_is_embedded_again() {
    let folder = archive();
    let root = folder.path();
    let file = root.join("arch/1.npy");
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    let (hits, _) = search(root, "arch", &["-i", "arch/0.npy"]);
    assert_eq!(hits.len(), 5);
    assert_ne!(hits[0]["relation"], "same_image");
    std::fs::copy(root.join("arch/0.npy"), &file).unwrap();
    let open = std::fs::File::options().write(true).open(&file).unwrap();
    open.set_modified(time).unwrap();
    for archive in ["arch", "g.m3i"] {
        let (_, added) = index(root, &["add", "g.m3i", "arch"]);
        // The new bytes are those of another file, which has a vector.
        assert_eq!(added["n_items"], 6);
        let (hits, _) = search(root, archive, &["-i", "arch/0.npy"]);
        assert_eq!(hits[0]["relation"], "same_image", "{archive}");
        assert!(hits[0]["file"].as_str().unwrap().ends_with("1.npy"));
    }
}

#[test]
fn another_listing_of_the_same_bytes_is_searched_without_embedding() {
    let folder = archive();
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,finding\narch/0.npy,mass\narch/deep/4.npy,normal\n",
    );
    std::fs::create_dir(root.join("other")).unwrap();
    for i in 0..3 {
        let name = format!("{i}.npy");
        std::fs::copy(
            root.join("arch").join(&name),
            root.join("other").join(format!("x{i}.npy")),
        )
        .unwrap();
    }
    let (whole, _) = search(root, "arch", &["-i", "arch/3.npy"]);
    let score = |hits: &[Value], end: &str| {
        let hit = hits
            .iter()
            .find(|hit| hit["file"].as_str().unwrap().ends_with(end));
        hit.unwrap()["score"].as_f64().unwrap()
    };
    for (listing, n, ends) in [
        ("m.csv", 2, [("0.npy", "0.npy"), ("4.npy", "4.npy")]),
        ("other", 3, [("x0.npy", "0.npy"), ("x2.npy", "2.npy")]),
    ] {
        let (hits, told) = search(root, listing, &["-i", "arch/3.npy"]);
        assert_eq!(hits.len(), n, "{told}");
        for (end, there) in ends {
            assert_eq!(score(&hits, end).to_bits(), score(&whole, there).to_bits());
        }
    }
}

#[test]
fn ids_are_replaced_on_request_and_labels_without_embedding() {
    let folder = pictures(3);
    let root = folder.path();
    put(root, "v.npy", vectors(3));
    put(
        root,
        "m.csv",
        "id,path,finding\na,0.npy,mass\nb,1.npy,mass\nc,2.npy,normal\n",
    );
    let vectors_of = |action: &str, more: &[&str]| {
        let words = [
            "index",
            action,
            "g.m3i",
            "m.csv",
            "--embeddings",
            "v.npy",
            "--encoder",
            "e",
            "--normalize",
        ];
        run(root, &[&words[..], more].concat())
    };
    assert_eq!(vectors_of("build", &[]).0, 0);
    let (status, _, told) = vectors_of("add", &[]);
    assert!(status == 1 && told.contains('a'), "{told}");
    put(
        root,
        "m.csv",
        "id,path,finding\na,0.npy,nodule\nd,1.npy,mass\nc,2.npy,normal\n",
    );
    let (status, out, told) = vectors_of("add", &["--replace"]);
    assert_eq!(status, 0, "{told}");
    assert!(out.contains("4 images"), "{out}");

    put(
        root,
        "labels.csv",
        "id,path,finding\na,0.npy,cyst\nb,1.npy,mass\nz,9.npy,mass\n",
    );
    let (status, told) = index(root, &["relabel", "g.m3i", "labels.csv"]);
    let counts = ["n_changed", "n_kept", "n_missing"].map(|name| told[name].as_u64().unwrap());
    assert_eq!((status, counts), (0, [1, 1, 1]));
    let (hits, _) = search(root, "g.m3i", &["-i", "d"]);
    let mut findings = texts(&hits, "finding");
    findings.sort_unstable();
    assert_eq!(findings, ["cyst", "mass", "normal"]);
}

#[test]
fn labels_of_files_are_rewritten_by_place() {
    let folder = archive();
    let root = folder.path();
    let (before, _) = search(root, "g.m3i", &["-i", "0.npy"]);
    put(
        root,
        "m.csv",
        "path,finding,modality\narch/2.npy,mass,MR\narch/deep/5.npy,normal,\n",
    );
    let (status, told) = index(root, &["relabel", "g.m3i", "m.csv"]);
    assert_eq!((status, &told["n_changed"]), (0, &2.into()));
    let (after, _) = search(root, "g.m3i", &["-i", "0.npy"]);
    assert_eq!(texts(&after, "id"), texts(&before, "id"));
    let finding = |id: &str| {
        let hit = after.iter().find(|hit| hit["id"] == id).unwrap();
        (hit["finding"].as_str(), hit["modality"].as_str())
    };
    assert_eq!(finding("2.npy"), (Some("mass"), Some("MR")));
    assert_eq!(finding("deep/5.npy").0, Some("normal"));
    assert_eq!(finding("1.npy").0, None);
    let (_, told) = index(root, &["relabel", "g.m3i", "m.csv"]);
    assert_eq!(
        (&told["n_changed"], &told["n_kept"]),
        (&0.into(), &2.into())
    );
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf8_are_images_like_others() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let folder = pictures(3);
    let root = folder.path();
    std::fs::create_dir(root.join("arch")).unwrap();
    let names = [&b"caf\xe9.npy"[..], b"caf\xea.npy", b"ok.npy"];
    for (i, name) in names.into_iter().enumerate() {
        let to = root.join("arch").join(OsStr::from_bytes(name));
        std::fs::rename(root.join(format!("{i}.npy")), to).unwrap();
    }
    let (hits, told) = search(root, "arch", &["-i", "arch/ok.npy", "--html", "r.html"]);
    let mut ids = texts(&hits, "id");
    ids.sort_unstable();
    assert_eq!(ids, ["bytes:caf%E9.npy", "bytes:caf%EA.npy"], "{told}");
    let page = std::fs::read_to_string(root.join("r.html")).unwrap();
    assert!(!page.contains("No such file"), "every picture is there");
    // What m3ret writes, it reads.
    let words = ["embed", "arch", "--out", "v.npy", "--model", "pixels"];
    assert_eq!(run(root, &words).0, 0);
    let words = [
        "embed",
        "v.npy.rows.csv",
        "--out",
        "w.npy",
        "--model",
        "pixels",
    ];
    let (status, _, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
    let bytes = |name: &str| std::fs::read(root.join(name)).unwrap();
    assert_eq!(bytes("v.npy"), bytes("w.npy"));
    let (status, out, _) = run(root, &["check", "arch", "--json"]);
    assert!(
        status == 0 && out.contains("bytes:arch/caf%E9.npy"),
        "{out}"
    );
}
