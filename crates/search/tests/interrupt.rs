//! What is left of a change that is interrupted. Alone in its process, since an interrupt concerns every writer in it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use m3ret_search::{Batch, Gallery, Maker, Numbers, Setup, Writer, abandon_changes, collect};

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn add(writer: &mut Writer, id: &str) {
    let batch = Batch {
        vectors: &[1.0, 0.0, 0.0, 0.0],
        ids: &[id.to_owned()],
        ..Batch::default()
    };
    writer.add(batch).unwrap();
}

/// Files as a writer leaves them that ends between one of them and its catalog.
const UNNAMED: [&str; 5] = [
    "segment-0000000000000009.m3s",
    "segment-0000000000000009.0123456789abcdef.part",
    "dead-0000000000000001-0000000000000009.bits",
    "statistics-0000000000000009.json",
    "catalog-0000000000000009.0123456789abcdef.part",
];

fn leave(folder: &Path, names: &[&str]) {
    for name in names {
        std::fs::write(folder.join(name), "half").unwrap();
    }
}

#[test]
fn an_interrupt_removes_what_no_catalog_names_from_galleries_that_are_changed() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("g.m3i");
    let setup = Setup {
        maker: Maker {
            fingerprint: "f".into(),
            model: "m".into(),
            precision: "f32".into(),
        },
        width: 4,
        numbers: Numbers::F32,
    };
    let mut writer = Writer::create(&folder, setup).unwrap();
    add(&mut writer, "a");
    writer.calibrate().unwrap();
    let whole = names(&folder);
    leave(&folder, &UNNAMED);
    std::fs::write(folder.join("notes.part"), "of the user's").unwrap();
    let mut has_ended = false;
    abandon_changes(|| has_ended = true);
    assert!(has_ended);
    let mut expected = whole.clone();
    expected.push("notes.part".into());
    expected.sort();
    assert_eq!(names(&folder), expected);
    // The program may go on.
    add(&mut writer, "b");
    drop(writer);
    assert_eq!(Gallery::open(&folder).unwrap().len(), 2);
    let whole = names(&folder);

    // A gallery that this process does not change belongs to another one.
    leave(&folder, &UNNAMED);
    abandon_changes(|| {});
    assert_eq!(names(&folder).len(), whole.len() + UNNAMED.len());
    // So it does for a reader while a writer has the lock.
    let writer = Writer::open(&folder).unwrap();
    assert_eq!(names(&folder), whole, "a writer collects");
    leave(&folder, &UNNAMED);
    assert!(collect(&folder).is_err());
    assert_eq!(names(&folder).len(), whole.len() + UNNAMED.len());
    // Without a catalog, a repair needs the segments.
    let catalog = whole
        .iter()
        .find(|name| name.starts_with("catalog-"))
        .unwrap();
    let kept = std::fs::read(folder.join(catalog)).unwrap();
    std::fs::write(folder.join(catalog), "damaged").unwrap();
    abandon_changes(|| {});
    assert_eq!(names(&folder).len(), whole.len() + UNNAMED.len() - 2);
    std::fs::write(folder.join(catalog), kept).unwrap();
    drop(writer);
    collect(&folder).unwrap();
    assert_eq!(names(&folder), whole);
    assert_eq!(Gallery::open(&folder).unwrap().len(), 2);
}
