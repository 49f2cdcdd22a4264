//! A good gallery of which the input patches some files, with and without new checksums: opened, searched, verified
//! and repaired. Nothing beside it may change.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use m3ret_fuzz::gallery::{Piece, make, seal};
use m3ret_fuzz::input::Input;
use m3ret_fuzz::patch;
use m3ret_search::{
    AskedImage, Filter, Gallery, Method, Plan, Queries, SearchOptions, Views, Writer, repair, search_across, verify,
};

static GOOD: OnceLock<Vec<Piece>> = OnceLock::new();
const BESIDE: &[u8] = b"a file that belongs to nobody";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let good = GOOD.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        make(&folder.path().join("g"))
    });
    let mut input = Input(bytes);
    let mut patched = good.clone();
    for _ in 0..input.byte() % 4 {
        let idx = input.below(patched.len());
        patched[idx].patch(&mut input);
    }
    let mut files = seal(good, &patched);
    let outer = tempfile::tempdir().expect("a temporary folder");
    let folder = outer.path().join("g");
    std::fs::create_dir(&folder).expect("a writable folder");
    std::fs::write(outer.path().join("beside"), BESIDE).expect("a writable folder");
    for _ in 0..input.byte() % 3 {
        let idx = input.below(files.len());
        damage(&folder, &mut files[idx], &mut input);
    }
    for (name, bytes) in &files {
        if !name.is_empty() {
            std::fs::write(folder.join(name), bytes).expect("a writable folder");
        }
    }
    use_gallery(&folder, &mut input);
    let entries = std::fs::read_dir(outer.path()).expect("a readable folder");
    assert_eq!(entries.count(), 2, "something lies beside the gallery");
    let beside = std::fs::read(outer.path().join("beside"));
    assert_eq!(beside.expect("the file beside the gallery"), BESIDE);
});

/// Damages one file as a disk or a person may.
fn damage(folder: &Path, (name, bytes): &mut (String, Vec<u8>), input: &mut Input<'_>) {
    match input.byte() % 6 {
        0 => patch::length(bytes, input),
        1 => name.clear(),
        2 => bytes.clear(),
        3 if !name.is_empty() => {
            let made = std::os::unix::fs::symlink("../beside", folder.join(&*name));
            made.unwrap_or_default();
            name.clear();
        }
        4 if !name.is_empty() => {
            std::fs::create_dir(folder.join(&*name)).unwrap_or_default();
            name.clear();
        }
        _ => patch::bytes(bytes, input),
    }
}

fn use_gallery(folder: &Path, input: &mut Input<'_>) {
    if let Ok(gallery) = Gallery::open(folder) {
        read(&gallery);
        search(&gallery);
    }
    let found = verify(folder).map(|report| report.is_good());
    let is_changed = input.byte() % 4 == 0;
    if is_changed && let Ok(mut writer) = Writer::open(folder) {
        writer.remove(&["row/1".to_owned()]).unwrap_or_default();
        writer.compact().unwrap_or_default();
    }
    if let Ok(repaired) = repair(folder) {
        let now = verify(folder).expect("a repaired gallery");
        assert!(now.is_good(), "{:?} after {:?}", now.findings, repaired);
        let gallery = Gallery::open(folder).expect("a repaired gallery");
        read(&gallery);
        search(&gallery);
    } else {
        assert!(!found.unwrap_or(false) || is_changed, "a good gallery is repaired");
    }
}

fn read(gallery: &Gallery) {
    for name in gallery.columns() {
        let values = gallery.values(name).unwrap_or_default();
        for value in values.into_iter().take(4) {
            gallery.find_rows(name, value).unwrap_or_default();
        }
    }
    for row in gallery.rows().take(200) {
        if let Ok(id) = gallery.id(row) {
            gallery.find(id).unwrap_or_default();
        }
        gallery.vector(row).unwrap_or_default();
        gallery.view_vectors(row).unwrap_or_default();
        gallery.attachment(row, "thumbnail").unwrap_or_default();
        gallery.value(row, "path").unwrap_or_default();
    }
    if let Ok(Some(statistics)) = gallery.statistics() {
        for known in &statistics.agreements {
            for found in [known.estimate(0.5, "CT", None), known.estimate(0.5, "CT", Some("MR"))].into_iter().flatten() {
                assert!((0.0..=1.0).contains(&found.value), "{found:?}");
            }
        }
    }
    gallery.refusals().unwrap_or_default();
}

fn search(gallery: &Gallery) {
    let mut vector = vec![0.0; gallery.width()];
    vector[0] = 1.0;
    let queries = Queries { vectors: &vector, ..Queries::default() };
    let image = AskedImage { modality: "CT", is_flat: true };
    let plan = Plan { k: 5, n_probe: Some(2), depth_short: Some(20), depth_bits: 20, depth_codes: 10 };
    let flat = Plan { n_probe: None, ..plan };
    let filter = Filter { column: "modality".into(), values: vec!["CT".into()], is_negated: false };
    for method in [Method::Auto, Method::Exact, Method::Planned(plan), Method::Planned(flat)] {
        for filters in [Vec::new(), vec![filter.clone()]] {
            let group_by = (!filters.is_empty()).then(|| "path".to_owned());
            for views in [Views::Own, Views::default(), Views::Slices] {
                let (filters, group_by) = (filters.clone(), group_by.clone());
                let options = SearchOptions { k: 5, method, filters, group_by, views };
                let plain = gallery.search(queries, &options).unwrap_or_default();
                let across = search_across(gallery, queries, &[image], &options).unwrap_or_default();
                for hit in plain.iter().chain(&across).flatten() {
                    assert!(hit.score.is_finite(), "{hit:?}");
                }
            }
        }
    }
}
