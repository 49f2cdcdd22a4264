//! What is said to a person: names, counts, choices and cells, as they were given and as they are known.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use binary::{json_lines, run};
use pictures::{pictures, put, search, texts};

#[test]
fn names_reach_a_terminal_without_characters_that_act_on_it() {
    let folder = pictures(6);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,id\n0.npy,a\n1.npy,b\u{202e}\n2.npy,c\n",
    );
    let mut told = String::new();
    for words in [
        &[
            "index",
            "build",
            "g\u{202e}.m3i",
            "m.csv",
            "--model",
            "pixels",
        ][..],
        &["search", "-d", "g\u{202e}.m3i", "-i", "a"],
        &["search", "-d", "g\u{202e}.m3i", "-i", "no\u{200f}thing"],
        &["index", "stats", "g\u{202e}.m3i"],
        &["index", "stats", "g\u{2066}.m3i"],
        &[
            "map",
            ".",
            "--model",
            "pixels",
            "--cache",
            "cache",
            "--html",
            "x\u{200b}.html",
        ],
    ] {
        let (_, out, err) = run(root, words);
        told += &(out + &err);
    }
    for name in ["g\\u{202e}.m3i", "no\\u{200f}thing", "x\\u{200b}.html"] {
        assert!(told.contains(name), "{name} in {told}");
    }
    let raw = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}');
    assert!(!told.contains(raw), "{told:?}");
}

#[test]
fn a_split_changes_no_cell_but_those_of_its_own_column() {
    let folder = pictures(4);
    let root = folder.path();
    let rows = [
        "0.npy,unknown, mass ,nan",
        "1.npy,anonymous,n/a,1",
        "2.npy,P7,none,",
        "3.npy,-,,NaN",
    ];
    put(
        root,
        "m.csv",
        format!("path,Patient ID,finding,age\n{}\n", rows.join("\n")),
    );
    for out in ["sp.csv", "sp.parquet"] {
        let words = ["split", "m.csv", "-o", out, "--no-duplicates"];
        let (status, _, told) = run(root, &words);
        assert_eq!(status, 0, "{told}");
    }
    let split = std::fs::read_to_string(root.join("sp.csv")).unwrap();
    let mut lines = split.lines();
    assert_eq!(lines.next(), Some("path,Patient ID,finding,age,split"));
    for (line, row) in lines.zip(rows) {
        let (cells, split) = line.rsplit_once(',').unwrap();
        assert_eq!(cells, row);
        assert!(["query", "gallery"].contains(&split), "{split}");
    }
    // Through Parquet and back.
    let words = [
        "split",
        "sp.parquet",
        "-o",
        "again.csv",
        "--no-duplicates",
        "--overwrite",
    ];
    run(root, &words);
    let again = std::fs::read_to_string(root.join("again.csv")).unwrap();
    assert_eq!(again, split);
}

#[test]
fn a_split_says_which_columns_it_does_not_write() {
    let folder = pictures(4);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,patient_id\n0.npy,a\n1.npy,b\n2.npy,c\n3.npy,d\n",
    );
    let (_, _, told) = run(
        root,
        &["embed", "m.csv", "--model", "pixels", "-o", "e.parquet"],
    );
    assert!(root.join("e.parquet").exists(), "{told}");
    let words = ["split", "e.parquet", "-o", "s.parquet", "--no-duplicates"];
    let (status, _, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
    assert!(told.contains("s.parquet has no column embedding"), "{told}");
    // Vectors of our own are no column that anybody misses elsewhere.
    let words = [
        "dedup",
        "e.parquet",
        "--model",
        "pixels",
        "--cache",
        "cache",
    ];
    let (_, _, told) = run(root, &words);
    assert!(!told.contains("embedding"), "{told}");
}

#[test]
fn space_around_an_id_is_no_part_of_it() {
    let folder = pictures(4);
    let root = folder.path();
    put(
        root,
        "m.csv",
        "path,id,finding\n0.npy, one ,x\n1.npy,two,x\n2.npy,three\u{a0},x\n",
    );
    let words = ["index", "build", "g.m3i", "m.csv", "--model", "pixels"];
    assert_eq!(run(root, &words).0, 0);
    let (hits, _) = search(root, "g.m3i", &["-i", "3.npy"]);
    assert_eq!(texts(&hits, "id"), ["one", "three", "two"]);
    put(
        root,
        "n.csv",
        "path,id,finding\n0.npy,one ,y\n1.npy, two,x\n2.npy,three,y\n",
    );
    let (_, out, told) = run(root, &["index", "relabel", "g.m3i", "n.csv", "--json"]);
    let summary = &json_lines(&out)[0];
    assert_eq!(summary["n_missing"], 0, "{told}");
    // Two rows of one id are one image twice, however they are padded.
    put(root, "twice.csv", "path,id\n0.npy,a\n1.npy, a\n");
    let words = ["index", "build", "t.m3i", "twice.csv", "--model", "pixels"];
    let (status, _, told) = run(root, &words);
    assert_eq!(status, 1, "{told}");
}

/// A gallery of a manifest with labels and patients.
fn labelled() -> tempfile::TempDir {
    let folder = pictures(6);
    let root = folder.path();
    let rows =
        "0.npy,,p1\n1.npy,mass,p2\n2.npy,mass|cyst,p3\n3.npy,normal,p4\n4.npy,cyst,p5\n5.npy,,\n";
    put(root, "m.csv", format!("path,finding,patient_id\n{rows}"));
    let words = ["index", "build", "g.m3i", "m.csv", "--model", "pixels"];
    assert_eq!(run(root, &words).0, 0);
    folder
}

#[test]
fn a_choice_that_is_not_there_is_answered_with_those_that_are() {
    let folder = labelled();
    let root = folder.path();
    let search = ["search", "-d", "g.m3i", "-i", "1.npy"];
    let map = ["map", "g.m3i", "--html", "map.html"];
    let evaluate = [
        "evaluate",
        "m.csv",
        "--model",
        "pixels",
        "-o",
        "out",
        "--relevance",
        "finding",
    ];
    let values = "no image has this value; there are cyst, mass, normal";
    let of_gallery = "the gallery has no such column; it has ";
    let of_manifest = "the manifest has no such column; it has path, finding, patient_id";
    for (verb, option, wanted) in [
        (&search[..], ["--filter", "finding=nix"], values),
        (&evaluate, ["--filter", "Finding=nix"], values),
        (&search, ["--filter", "nix=1"], of_gallery),
        (&search, ["--group-by", "nix"], of_gallery),
        (&search, ["--exclude", "nix"], of_gallery),
        (&map, ["--color", "nix"], of_gallery),
        (&evaluate, ["--filter", "nix=1"], of_manifest),
        (&evaluate, ["--exclude", "nix"], of_manifest),
        (&evaluate, ["--relevance", "nix"], of_manifest),
        (
            &search,
            ["--filter", "patient_id=P9"],
            "--filter patient_id=P9: no image has this value\n",
        ),
        (
            &evaluate,
            ["--filter", "patient_id=P9"],
            "--filter patient_id=P9: no image has this value\n",
        ),
    ] {
        let words = match option[0] {
            "--relevance" => [&evaluate[..6], &option].concat(),
            _ => [verb, &option].concat(),
        };
        let (status, _, told) = run(root, &words);
        assert_eq!(status, 1, "{told}");
        let named = format!("{} {}", option[0], option[1]);
        assert!(told.contains(&named) && told.contains(wanted), "{told}");
        for hidden in ["m3ret:key", "m3ret:cells", "m3ret:root", "p1", "p4"] {
            assert!(!told.contains(hidden), "{hidden} in {told}");
        }
    }
    // What is there is found, patients by the name that a person knows.
    let hits = pictures::search(root, "g.m3i", &["-i", "0.npy", "--filter", "patient_id=p3"]).0;
    assert_eq!(texts(&hits, "id"), ["2.npy"]);
    let both = ["--filter", "finding=cyst", "--filter", "patient_id=p2"];
    let (status, _, told) = run(root, &[&evaluate[..], &both].concat());
    assert!(
        status == 1 && told.contains("found no rows that pass every --filter"),
        "{told}"
    );
}

#[test]
fn a_score_to_compare_with_is_a_cosine_and_printed_as_it_was_given() {
    let folder = labelled();
    let root = folder.path();
    for words in [
        &["dedup", "g.m3i", "--near", "nan"][..],
        &["dedup", "g.m3i", "--near", "-1.5"],
        &["split", "m.csv", "-o", "s.csv", "--near", "2"],
    ] {
        let (status, _, told) = run(root, words);
        assert!(
            status == 2 && told.contains("a number from -1 to 1 is wanted"),
            "{told}"
        );
    }
    let words = [
        "split", "m.csv", "-o", "s.csv", "--json", "--cache", "cache",
    ];
    let (status, out, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
    assert!(out.contains("\"near\":0.98,"), "{out}");
}

#[test]
fn what_came_and_went_is_said_by_file() {
    let folder = pictures(5);
    let root = folder.path();
    std::fs::create_dir(root.join("in")).unwrap();
    for seed in 0..4 {
        std::fs::rename(
            root.join(format!("{seed}.npy")),
            root.join(format!("in/{seed}.npy")),
        )
        .unwrap();
    }
    put(root, "in/notes.txt", "no image");
    let words = ["index", "build", "g.m3i", "in", "--model", "pixels"];
    let (_, out, _) = run(root, &words);
    assert!(
        out.contains("4 images, 4 new") && out.contains("1 file holds no image format"),
        "{out}"
    );
    std::fs::copy(root.join("4.npy"), root.join("in/2.npy")).unwrap();
    let (_, out, _) = run(root, &["index", "add", "g.m3i", "in"]);
    assert!(
        out.contains("4 images, 1 new, 1 replaced or removed, 3 unchanged; 1 file holds"),
        "{out}"
    );
    std::fs::remove_file(root.join("in/1.npy")).unwrap();
    let (_, out, _) = run(root, &["index", "prune", "g.m3i"]);
    assert_eq!(out, "gone: in/1.npy\n3 images left\n");
    // An id of the user's stands beside the file.
    put(
        root,
        "m.csv",
        "path,id\nin/0.npy,left knee\nin/2.npy,b\nin/3.npy,c\n",
    );
    let words = ["index", "build", "h.m3i", "m.csv", "--model", "pixels"];
    assert_eq!(run(root, &words).0, 0);
    std::fs::remove_file(root.join("in/0.npy")).unwrap();
    let (_, out, _) = run(root, &["index", "prune", "h.m3i", "--json"]);
    let summary = &json_lines(&out)[0];
    assert_eq!(summary["pruned_ids"], serde_json::json!(["left knee"]));
    assert_eq!(summary["pruned_files"], serde_json::json!(["in/0.npy"]));
}

#[test]
fn what_cannot_be_left_out_is_said_once() {
    let folder = labelled();
    let root = folder.path();
    let words = [
        "search",
        "-d",
        "g.m3i",
        "-i",
        "5.npy",
        "--exclude",
        "same_patient",
    ];
    let (status, _, told) = run(root, &words);
    assert_eq!(status, 0, "{told}");
    let n_notes = told
        .lines()
        .filter(|line| line.contains("--exclude"))
        .count();
    assert_eq!(n_notes, 1, "{told}");
}
