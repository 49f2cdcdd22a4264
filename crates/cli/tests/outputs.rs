//! Outputs that would replace what the user wrote, or what is being read, as a person would meet them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use binary::{npy, run};
use pictures::{picture, pictures, put, vectors};

/// Every file below a folder, and what it holds.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    all
}

/// Runs `m3ret WORDS`, which must be refused with every word of `wanted` and change no file.
fn refused(root: &Path, words: &[&str], wanted: &[&str]) {
    let before = contents(root);
    let (status, out, told) = run(root, words);
    assert!(
        status != 0 && wanted.iter().all(|word| told.contains(word)),
        "{words:?}: {status} {out}{told}"
    );
    assert!(!told.contains("os error"), "{told}");
    assert!(before == contents(root), "{words:?} changed a file: {told}");
}

fn done(root: &Path, words: &[&str]) {
    let (status, _, told) = run(root, words);
    assert_eq!(status, 0, "{words:?}: {told}");
}

/// Eight pictures in `a`, a manifest of them, and vectors of its rows.
fn archive() -> tempfile::TempDir {
    let folder = pictures(0);
    let root = folder.path();
    std::fs::create_dir(root.join("a")).unwrap();
    let mut rows = "path,body_part,patient_id\n".to_owned();
    for i in 0..8 {
        put(root, &format!("a/i{i}.npy"), npy(&[16, 16], &picture(i)));
        rows += &format!("a/i{i}.npy,part{},p{i}\n", i % 2);
    }
    put(root, "m.csv", rows);
    put(root, "v.npy", vectors(8));
    folder
}

#[test]
fn embed_replaces_only_the_array_and_the_list_that_it_wrote() {
    let folder = archive();
    let root = folder.path();
    for name in ["mine.npy", "mine.safetensors"] {
        let words = ["embed", "m.csv", "-m", "pixels", "-o", name];
        let list = format!("{name}.rows.csv");
        // A list alone, beside an array, and one with the number column of m3ret.
        put(root, &list, "mine\n");
        refused(root, &words, &[&list, "--force"]);
        put(root, name, npy(&[8, 4], &[0.5; 32]));
        refused(root, &words, &[name, "--force"]);
        put(root, &list, "row,path\n0,a/i0.npy\n");
        refused(root, &words, &[name, "--force"]);
        done(root, &[&words[..], &["--force"]].concat());
        // Its own result it replaces without a word.
        done(root, &words);
        // A list that was corrected by hand is the user's.
        let own = std::fs::read_to_string(root.join(&list)).unwrap();
        put(root, &list, own.replacen("row,", "row,note,", 1));
        refused(root, &words, &["--force"]);
    }
    // An array with other vectors than its list has is no longer that of embed.
    done(root, &["embed", "m.csv", "-m", "pixels", "-o", "w.npy"]);
    put(root, "w.npy", npy(&[9, 4], &[0.5; 36]));
    refused(
        root,
        &["embed", "m.csv", "-m", "pixels", "-o", "w.npy"],
        &["w.npy", "--force"],
    );
}

#[test]
fn what_is_being_read_is_never_written_over() {
    let folder = archive();
    let root = folder.path();
    put(root, "q.npy", npy(&[16, 16], &picture(9)));
    done(root, &["index", "build", "g.m3i", "a", "-m", "pixels"]);
    let model = ["-m", "pixels", "--cache", "cache", "--force"];
    let search = |query: &'static str, archive: &'static str, page: &'static str| {
        vec!["search", "-i", query, "-d", archive, "--html", page]
    };
    let catalog = std::fs::read_dir(root.join("g.m3i")).unwrap();
    let mut names = catalog.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let catalog = names.find(|name| name.starts_with("catalog-")).unwrap();
    let catalog = format!("g.m3i/{catalog}");
    for words in [
        vec!["map", "m.csv", "--html", "m.csv"],
        vec!["map", "m.csv", "--html", "a/i0.npy"],
        vec!["map", "a", "--html", "a/i0.npy"],
        vec!["map", "g.m3i", "--html", &catalog],
        search("q.npy", "a", "q.npy"),
        search("a", "m.csv", "a/i3.npy"),
        search("q.npy", "m.csv", "a/i3.npy"),
    ] {
        refused(root, &[&words[..], &model].concat(), &["is being read"]);
    }
    for words in [
        &["embed", "a", "-m", "pixels", "-o", "a/i0.npy"][..],
        &["embed", "m.csv", "-m", "pixels", "-o", "a/i0.npy"],
        &["inspect", "a", "--npy", "a/i.npy", "--thumbnail", "a/i.png"],
        &["split", "m.csv", "--no-duplicates", "--out", "m.csv"],
    ] {
        // `inspect` numbers what it writes.
        put(root, "a/i.0.npy", npy(&[16, 16], &picture(7)));
        let words = [words, &["--force"]].concat();
        refused(root, &words, &["is being read"]);
    }
}

#[test]
fn compare_replaces_a_file_only_if_it_is_told_to() {
    let folder = archive();
    let root = folder.path();
    let evaluate = ["evaluate", "m.csv", "--embeddings", "v=v.npy", "-o", "e"];
    done(root, &evaluate);
    for name in ["paper.md", "paper.tex"] {
        put(root, name, "my work");
        let words = ["compare", "e", "e", "-o", name];
        refused(root, &words, &[name, "is there", "--force"]);
        done(root, &[&words[..], &["--force"]].concat());
        refused(root, &words, &["--force"]);
    }
    refused(
        root,
        &["compare", "e", "e", "-o", "no/t.md"],
        &["no such folder: no"],
    );
}

#[test]
fn an_evaluation_goes_only_into_a_folder_of_its_own() {
    let folder = archive();
    let root = folder.path();
    let evaluate = |out: &'static str, more: &[&'static str]| {
        let words = ["evaluate", "m.csv", "--embeddings", "v=v.npy", "-o", out];
        [&words[..], more].concat()
    };
    // Among images and beside the manifest: never.
    for out in ["a", "."] {
        for more in [&[][..], &["--force"]] {
            refused(root, &evaluate(out, more), &["beside what is read"]);
        }
    }
    std::fs::create_dir(root.join("notes")).unwrap();
    put(root, "notes/todo.txt", "mine");
    refused(root, &evaluate("notes", &[]), &["notes", "--force"]);
    done(root, &evaluate("notes", &["--force"]));
    // It holds results now.
    done(root, &evaluate("notes", &[]));
    assert_eq!(std::fs::read(root.join("notes/todo.txt")).unwrap(), b"mine");
    // Several models, twice; and what an evaluation that was killed leaves.
    let several = evaluate("several", &["--models", "hog"]);
    done(root, &several);
    done(root, &several);
    std::fs::remove_file(root.join("several/comparison.json")).unwrap();
    refused(root, &several, &["--force"]);
    for name in [
        "several/comparison.md",
        "several/comparison.tex",
        "several/hog/results.json",
    ] {
        std::fs::remove_file(root.join(name)).unwrap();
    }
    for name in ["report.html", "per_query.parquet"] {
        std::fs::remove_file(root.join("several/hog").join(name)).unwrap();
    }
    std::fs::remove_dir_all(root.join("several/hog/trec")).unwrap();
    done(root, &several);
    refused(
        root,
        &evaluate("m.csv", &["--force"]),
        &["m.csv is a file", "a folder is wanted"],
    );
    refused(
        root,
        &evaluate("v.npy/x", &[]),
        &["v.npy is a file", "a folder is wanted"],
    );
}

#[test]
fn runs_studies_and_galleries_take_no_folder_of_others() {
    let folder = archive();
    let root = folder.path();
    std::fs::create_dir(root.join("mine")).unwrap();
    put(root, "mine/todo.txt", "mine");
    put(root, "mine/key", "my own key");
    let train = "out = \"mine\"\nmanifests = [\"m.csv\"]\nmethod = \"mae\"\n\
                 [model]\npreset = \"tiny\"\nembed_dim = 24\nnum_heads = 2\ndepth = 1\n[train]\nsteps = 1\nbatch = 2\n";
    put(root, "train.toml", train);
    refused(
        root,
        &["pretrain", "train.toml"],
        &["mine holds files", "new or empty"],
    );
    refused(
        root,
        &["pretrain", "train.toml", "--set", "out=m.csv"],
        &["m.csv is a file", "a folder is wanted"],
    );
    let study = |out: &str| {
        format!(
            "out = \"{out}\"\npretrain = \"train.toml\"\nevaluate = \"m.csv\"\nallow_overlap = true\n\
             fractions = [1.0]\n[[sizes]]\nname = \"s\"\nset = []\n"
        )
    };
    for (out, wanted) in [
        ("mine", "mine holds files"),
        ("a", "beside what is read"),
        ("m.csv", "is a file"),
    ] {
        put(root, "scaling.toml", study(out));
        refused(root, &["study", "scaling", "scaling.toml"], &[wanted]);
    }
    for (gallery, wanted) in [
        ("mine", &["mine holds files", "new or empty"][..]),
        ("m.csv", &["m.csv is a file", "a folder is wanted"]),
    ] {
        refused(
            root,
            &["index", "build", gallery, "a", "-m", "pixels"],
            wanted,
        );
    }
    // A file of the name that a gallery's own file has does not make a folder one of m3ret's.
    std::fs::remove_file(root.join("mine/todo.txt")).unwrap();
    refused(
        root,
        &["index", "build", "mine", "a", "-m", "pixels"],
        &["mine holds files"],
    );
}

#[test]
fn a_gallery_without_images_is_not_made() {
    let folder = archive();
    let root = folder.path();
    put(root, "empty.csv", "path,body_part\n");
    put(root, "none.npy", npy(&[0, 4], &[]));
    std::fs::create_dir(root.join("nothing")).unwrap();
    for source in ["empty.csv", "nothing"] {
        refused(
            root,
            &["index", "build", "g.m3i", source, "-m", "pixels"],
            &["found no image", source],
        );
    }
    refused(
        root,
        &[
            "index",
            "build",
            "g.m3i",
            "empty.csv",
            "--embeddings",
            "none.npy",
            "--encoder",
            "e",
        ],
        &["empty.csv", "no image"],
    );
    assert!(!root.join("g.m3i").exists());
}

#[test]
fn a_number_that_is_none_is_refused_in_words() {
    let folder = archive();
    let root = folder.path();
    for (words, wanted) in [
        (&["search", "-i", "a", "-d", "a", "-k", "0"][..], "from 1"),
        (&["search", "-i", "a", "-d", "a", "-k", "ten"], "from 1"),
        (&["dedup", "a", "--near", "much"], "from -1 to 1"),
        (
            &["split", "m.csv", "--out", "s.csv", "--seed", "-"],
            "whole number",
        ),
        (
            &["evaluate", "m.csv", "-o", "e", "--seed", "1.5"],
            "whole number",
        ),
        (
            &["embed", "a", "-o", "w.npy", "--save-every", "x"],
            "whole number",
        ),
    ] {
        refused(root, words, &[wanted, "wanted"]);
    }
    let page = ["map", "a", "--html", "no/map.html", "-m", "pixels"];
    refused(root, &page, &["no such folder: no; make it first"]);
    let cache = [
        "map", "a", "--html", "map.html", "-m", "pixels", "--cache", "m.csv",
    ];
    refused(root, &cache, &["m.csv is a file", "--cache"]);
}
