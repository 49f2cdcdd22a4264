//! What is said to a person: names, counts, choices and cells, as they were given and as they are known.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_precision_loss, reason = "small numbers")]

#[path = "person/binary.rs"]
mod binary;
#[path = "person/pictures.rs"]
mod pictures;

use binary::run;
use pictures::{pictures, put};

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
