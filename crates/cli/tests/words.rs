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
