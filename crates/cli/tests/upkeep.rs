//! A gallery stays in step with its archive: files that are moved, copied, touched, replaced and gone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/dicom.rs"]
mod dicom;
#[path = "person/pictures.rs"]
mod pictures;

use std::path::Path;

use serde_json::Value;

use binary::{json_lines, run};
use dicom::{Word, dicom};
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
    // b and d are one image, which a query by c finds in both rows.
    let (hits, _) = search(root, "g.m3i", &["-i", "c"]);
    assert_eq!(texts(&hits, "finding"), ["cyst", "mass", "mass"]);
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

/// Returns what the gallery `g.m3i` shows of each image in columns of hits, in the order of ids.
fn shown(root: &Path, columns: &[&str]) -> Vec<Vec<String>> {
    let (hits, told) = search(root, "g.m3i", &["-i", "0.npy"]);
    let text = |hit: &Value, name: &&str| hit[*name].as_str().unwrap_or_default().to_owned();
    let row = |hit: &Value| columns.iter().map(|name| text(hit, name)).collect();
    let mut rows: Vec<Vec<String>> = hits.iter().map(row).collect();
    assert!(!rows.is_empty(), "{told}");
    rows.sort();
    rows
}

/// Writes `query.npy` as `0.npy` of the root, which is in no gallery, so that every image is a hit.
fn put_query(root: &Path) {
    put(
        root,
        "0.npy",
        binary::npy(&[16, 16], &pictures::picture(40)),
    );
}

#[test]
fn a_disk_that_is_away_is_not_what_was_moved_or_dropped() {
    let folder = archive();
    let root = folder.path();
    std::fs::create_dir_all(root.join("new")).unwrap();
    // The disk of `deep` is taken out: its place is empty. One file of it was copied before.
    std::fs::copy(root.join("arch/deep/4.npy"), root.join("new/copy.npy")).unwrap();
    std::fs::rename(root.join("arch/deep"), root.join("disk")).unwrap();
    std::fs::create_dir(root.join("arch/deep")).unwrap();
    std::fs::remove_file(root.join("arch/1.npy")).unwrap();

    let (status, pruned) = index(root, &["prune", "g.m3i"]);
    assert_eq!(
        (status, &pruned["pruned_ids"]),
        (1, &serde_json::json!(["1.npy"]))
    );
    let away: Vec<&u64> = vec![&2];
    let told = pruned["away"].as_object().unwrap();
    assert_eq!(
        told.values()
            .map(|n| n.as_u64().unwrap())
            .collect::<Vec<_>>(),
        away.into_iter().copied().collect::<Vec<_>>()
    );
    assert!(told.keys().next().unwrap().ends_with("arch/deep"));

    // One of three images of the whole archive is found elsewhere: the archive was not moved there.
    std::fs::rename(root.join("arch"), root.join("elsewhere")).unwrap();
    let (_, added) = index(root, &["add", "g.m3i", "new", "--prune"]);
    assert_eq!(
        (&added["n_reused"], &added["n_pruned"], &added["n_items"]),
        (&1.into(), &0.into(), &5.into())
    );
    let (_, pruned) = index(root, &["prune", "g.m3i", "--force"]);
    assert_eq!(pruned["n_items"], 1);
}

#[test]
fn a_folder_takes_no_labels_and_ids_away() {
    let folder = archive();
    let root = folder.path();
    put_query(root);
    std::fs::remove_dir_all(root.join("g.m3i")).unwrap();
    put(
        root,
        "m.csv",
        "id,path,finding\na,arch/0.npy,mass\nb,arch/1.npy,normal\nc,arch/1.npy,cyst\nd,arch/2.npy,mass\n",
    );
    let (status, _) = index(root, &["build", "g.m3i", "m.csv", "--model", "pixels"]);
    assert_eq!(status, 0);
    let stated = |ids: &[&str]| {
        let mut rows = shown(root, &["id", "finding", "file"]);
        rows.retain(|row| ids.contains(&row[0].as_str()));
        rows.into_iter()
            .map(|row| row.join(" "))
            .collect::<Vec<_>>()
    };
    let all = ["a", "b", "c", "d"];
    let before = stated(&all);
    assert_eq!(before.len(), 4);
    // The same files, found by their folder.
    let (_, added) = index(root, &["add", "g.m3i", "arch"]);
    assert_eq!(
        (&added["n_added"], &added["n_items"]),
        (&3.into(), &7.into())
    );
    assert_eq!(stated(&all), before);
    // Their ids and labels follow files that move, and those that exchange their names.
    std::fs::rename(root.join("arch/0.npy"), root.join("arch/moved.npy")).unwrap();
    std::fs::rename(root.join("arch/1.npy"), root.join("spare")).unwrap();
    std::fs::rename(root.join("arch/2.npy"), root.join("arch/1.npy")).unwrap();
    std::fs::rename(root.join("spare"), root.join("arch/2.npy")).unwrap();
    let (_, added) = index(root, &["add", "g.m3i", "arch"]);
    assert_eq!(
        (&added["n_added"], &added["n_items"]),
        (&0.into(), &7.into())
    );
    assert_eq!(
        stated(&all),
        [
            "a mass arch/moved.npy",
            "b normal arch/2.npy",
            "c cyst arch/2.npy",
            "d mass arch/1.npy"
        ]
    );
    // The list says otherwise again.
    put(
        root,
        "m.csv",
        "id,path,finding\na,arch/moved.npy,\nx,arch/1.npy,normal\n",
    );
    let (_, added) = index(root, &["add", "g.m3i", "m.csv"]);
    assert_eq!(
        (&added["n_added"], &added["n_items"]),
        (&0.into(), &7.into())
    );
    assert_eq!(
        stated(&["a", "d", "x"]),
        ["a  arch/moved.npy", "x normal arch/1.npy"]
    );
}

/// Two series of three slices each, in one folder.
fn series(root: &Path, folder: &str) {
    std::fs::create_dir_all(root.join(folder)).unwrap();
    for number in 0..2 {
        for slice in 0..3 {
            let uid = format!("1.2.{number}");
            let instance = format!("1.2.{number}.{slice}");
            let place = format!("0\\0\\{slice}");
            let words: [Word<'_>; 9] = [
                (8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.2"),
                (8, 0x18, "UI", &instance),
                (8, 0x60, "CS", "CT"),
                (0x20, 0x0d, "UI", "1.2.3"),
                (0x20, 0x0e, "UI", &uid),
                (0x20, 0x13, "IS", &slice.to_string()),
                (0x20, 0x32, "DS", &place),
                (0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0"),
                (0x28, 0x30, "DS", "1\\1"),
            ];
            let values: Vec<f32> = (0..768)
                .map(|i| (i % (7 + 5 * number + slice)) as f32)
                .collect();
            let name = format!("{folder}/{number}{slice}.dcm");
            put(root, &name, dicom(&words, &values));
        }
    }
}

#[test]
fn a_list_that_names_parts_finds_the_images_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put_query(root);
    series(root, "arch/ct");
    let (status, built) = index(root, &["build", "g.m3i", "arch", "--model", "pixels"]);
    assert_eq!((status, &built["n_added"]), (0, &2.into()), "{built}");
    put(
        root,
        "m.csv",
        "path,part,finding\narch/ct,series=1,mass\narch/ct,series=2,normal\n",
    );
    index(root, &["add", "g.m3i", "m.csv"]);
    let columns = ["part", "finding", "file"];
    let wanted = [
        ["series=1", "mass", "arch/ct"],
        ["series=2", "normal", "arch/ct"],
    ];
    assert_eq!(shown(root, &columns), wanted);
    // And back again, which takes no label away.
    index(root, &["add", "g.m3i", "arch"]);
    assert_eq!(shown(root, &columns), wanted);
    let (_, added) = index(root, &["add", "g.m3i", "arch"]);
    assert_eq!(
        (&added["n_added"], &added["n_reused"]),
        (&0.into(), &0.into())
    );
}

#[cfg(unix)]
#[test]
fn moves_know_folders_by_any_name_and_leave_what_is_there() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let folder = archive();
    let root = folder.path();
    put_query(root);
    let strange = root.join("arch").join(OsStr::from_bytes(b"caf\xe9%.npy"));
    std::fs::copy(root.join("arch/1.npy"), &strange).unwrap();
    index(root, &["add", "g.m3i", "arch"]);
    let before = shown(root, &["id", "score"]);
    std::fs::create_dir(root.join("far")).unwrap();
    std::os::unix::fs::symlink(root.join("far"), root.join("link")).unwrap();
    std::fs::rename(root.join("arch"), root.join("far/arch")).unwrap();
    let (status, moved) = index(root, &["move", "g.m3i", "far/../arch", "link/arch"]);
    assert_eq!((status, &moved["n_changed"]), (0, &7.into()));
    assert_eq!(shown(root, &["id", "score"]), before);
    let files: Vec<String> = shown(root, &["file"]).concat();
    assert!(
        files.contains(&"bytes:far/arch/caf%E9%25.npy".to_owned()),
        "{files:?}"
    );
    // Nothing is left to do, by the folder's own name and through the link.
    for (name, from) in [("far/arch", "link/arch"), ("link/arch", "far/arch")] {
        let (_, added) = index(root, &["add", "g.m3i", name]);
        assert_eq!(
            (&added["n_added"], &added["n_items"]),
            (&0.into(), &7.into())
        );
        let (_, pruned) = index(root, &["prune", "g.m3i"]);
        assert_eq!(pruned["n_items"], 7);
        let (status, moved) = index(root, &["move", "g.m3i", from, "far/arch"]);
        assert_eq!(
            (status, &moved["n_kept"]),
            (0, &0.into()),
            "a move to the same place"
        );
    }
    // Files that are in the gallery at both places.
    std::fs::create_dir(root.join("again")).unwrap();
    std::fs::copy(root.join("far/arch/2.npy"), root.join("again/2.npy")).unwrap();
    std::fs::copy(root.join("far/arch/3.npy"), root.join("again/3.npy")).unwrap();
    put(root, "m.csv", "path\nagain/2.npy\n");
    index(root, &["add", "g.m3i", "m.csv"]);
    let (status, moved) = index(root, &["move", "g.m3i", "far/arch", "again"]);
    assert_eq!(
        (
            status,
            &moved["n_changed"],
            &moved["n_kept"],
            &moved["n_missing"]
        ),
        (1, &1.into(), &1.into(), &5.into())
    );
    assert_eq!(n_items(root), 8);
}

#[test]
fn rows_of_one_image_keep_their_labels_whatever_their_order() {
    let folder = archive();
    let root = folder.path();
    put_query(root);
    std::fs::remove_dir_all(root.join("g.m3i")).unwrap();
    let list = |findings: [&str; 3]| {
        let rows: Vec<String> = findings
            .iter()
            .map(|finding| format!("arch/0.npy,{finding},\n"))
            .collect();
        format!("path,finding,id\n{}arch/1.npy,normal,one\n", rows.concat())
    };
    put(root, "m.csv", list(["mass", "cyst", "nodule"]));
    index(root, &["build", "g.m3i", "m.csv", "--model", "pixels"]);
    let before = shown(root, &["id", "finding"]);
    put(root, "m.csv", list(["nodule", "scar", "mass"]));
    for (n_changed, n_kept) in [(1, 3), (0, 4)] {
        let (status, told) = index(root, &["relabel", "g.m3i", "m.csv"]);
        let counts = ["n_changed", "n_kept", "n_missing"].map(|name| told[name].as_u64().unwrap());
        assert_eq!((status, counts), (0, [n_changed, n_kept, 0]));
        let after = shown(root, &["id", "finding"]);
        let is_scar = |row: &Vec<String>| row[1] == "scar";
        assert_eq!(after.iter().filter(|row| is_scar(row)).count(), 1);
        for (row, earlier) in after.iter().zip(&before) {
            assert!(
                row == earlier || (is_scar(row) && earlier[1] == "cyst" && row[0] == earlier[0]),
                "{after:?}"
            );
        }
    }
}

#[test]
fn an_id_is_asked_with_as_it_is_shown_and_bad_vectors_are_refused_queries() {
    let folder = pictures(3);
    let root = folder.path();
    put(root, "v.npy", vectors(3));
    put(root, "m.csv", "path\n0.npy\nbytes:caf%E9.npy\n2.npy\n");
    let words = [
        "index",
        "build",
        "g.m3i",
        "m.csv",
        "--embeddings",
        "v.npy",
        "--encoder",
        "e",
        "--normalize",
    ];
    assert_eq!(run(root, &words).0, 0);
    // Files of these names are there, and their vectors were made elsewhere.
    for id in ["0.npy", "bytes:caf%E9.npy"] {
        let (hits, told) = search(root, "g.m3i", &["-i", id]);
        assert_eq!(hits.len(), 2, "{told}");
    }
    let mut values: Vec<f32> = vec![0.5; 12];
    values[5] = f32::NAN;
    put(root, "q.npy", binary::npy(&[3, 4], &values));
    let (status, out, told) = run(
        root,
        &[
            "search",
            "-d",
            "g.m3i",
            "--embeddings",
            "q.npy",
            "--encoder",
            "e",
            "--json",
        ],
    );
    assert_eq!(status, 1, "{told}");
    let answers = json_lines(&out);
    let names: Vec<&str> = answers
        .iter()
        .filter_map(|answer| answer["query"].as_str())
        .collect();
    assert!(
        names.contains(&"row 0") && names.contains(&"row 2"),
        "{out}"
    );
    assert!(
        told.contains("row 1") || out.contains("row 1"),
        "{told}{out}"
    );
}
