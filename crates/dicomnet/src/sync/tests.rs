use std::path::Path;

use super::*;
use crate::Names;
use crate::part10::tests::object;
use crate::spool::SpoolLimits;

/// An archive in memory: objects by name of their series.
#[derive(Default)]
struct Memory {
    series: BTreeMap<String, usize>,
    n_puts: usize,
    is_failing: bool,
}

impl Archive for Memory {
    fn n_objects(&mut self, name: &str) -> std::result::Result<Option<usize>, ArchiveError> {
        Ok(self.series.get(name).copied())
    }

    fn put(&mut self, series: &[SpooledSeries]) -> std::result::Result<PutOutcome, ArchiveError> {
        if self.is_failing {
            return Err("the archive is locked".into());
        }
        self.n_puts += 1;
        for series in series {
            self.series.insert(series.name.clone(), series.n_objects);
        }
        Ok(PutOutcome {
            n_rows: series.len(),
            ..PutOutcome::default()
        })
    }

    fn names(&mut self) -> std::result::Result<HashSet<String>, ArchiveError> {
        Ok(self.series.keys().cloned().collect())
    }

    fn remove(&mut self, names: &HashSet<String>) -> std::result::Result<usize, ArchiveError> {
        self.series.retain(|name, _| !names.contains(name));
        Ok(names.len())
    }
}

struct Quiet;
impl Observer for Quiet {}

/// Syncs a folder once.
fn run(folder: &Path, archive: &mut Memory, options: &SyncOptions) -> Result<Summary> {
    let names = Names::new(b"key");
    let spool = Spool::open(&folder.join("spool"), names, SpoolLimits::default())?;
    let mut cursor = CursorFile::open(&folder.join("cursor.json"))?;
    let origin = Origin::Folder(folder.join("in"));
    let mut desk = Desk {
        spool: &spool,
        cursor: &mut cursor,
    };
    let summary = sync(&origin, &mut desk, archive, options, &Quiet)?;
    assert_eq!(std::fs::read_dir(folder.join("spool")).unwrap().count(), 1);
    Ok(summary)
}

fn options() -> SyncOptions {
    SyncOptions {
        quiet: Duration::ZERO,
        backoff: Vec::new(),
        ..SyncOptions::default()
    }
}

#[test]
fn a_second_sync_finds_everything_there_and_a_longer_series_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("in");
    std::fs::create_dir(&files).unwrap();
    for (name, series, instance) in [
        ("a", "1.1", "1.5"),
        ("b", "1.1", "1.6"),
        ("c", "1.2", "1.7"),
    ] {
        std::fs::write(files.join(name), object(series, instance, b"x")).unwrap();
    }
    let mut archive = Memory::default();
    let mut dry = options();
    dry.is_dry = true;
    let summary = run(folder.path(), &mut archive, &dry).unwrap();
    assert_eq!((summary.n_fetched, archive.n_puts), (2, 0));
    let summary = run(folder.path(), &mut archive, &options()).unwrap();
    assert_eq!((summary.n_fetched, summary.n_objects), (2, 3));
    let before = archive.series.clone();
    let summary = run(folder.path(), &mut archive, &options()).unwrap();
    assert_eq!((summary.n_known, summary.n_fetched), (2, 0));
    assert_eq!((archive.series.clone(), archive.n_puts), (before, 1));
    std::fs::write(files.join("d"), object("1.2", "1.8", b"x")).unwrap();
    let summary = run(folder.path(), &mut archive, &options()).unwrap();
    assert_eq!((summary.n_known, summary.n_fetched), (1, 1));
    assert_eq!(archive.series.values().sum::<usize>(), 4);
}

#[test]
fn what_the_archive_did_not_take_is_added_by_the_next_sync() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("in");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("a"), object("1.1", "1.5", b"x")).unwrap();
    let mut archive = Memory {
        is_failing: true,
        ..Memory::default()
    };
    let failed = run(folder.path(), &mut archive, &options());
    assert!(matches!(failed, Err(Error::Archive(_))));
    archive.is_failing = false;
    let summary = run(folder.path(), &mut archive, &options()).unwrap();
    assert_eq!((summary.n_rows, summary.n_known), (1, 1));
}

#[test]
fn series_that_are_gone_are_removed_unless_most_are() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("in");
    std::fs::create_dir(&files).unwrap();
    for series in 1..=4 {
        let object = object(&format!("1.{series}"), &format!("2.{series}"), b"x");
        std::fs::write(files.join(series.to_string()), object).unwrap();
    }
    let mut archive = Memory::default();
    let mut options = options();
    options.reconcile = Some(Duration::ZERO);
    run(folder.path(), &mut archive, &options).unwrap();
    std::fs::remove_file(files.join("1")).unwrap();
    let summary = run(folder.path(), &mut archive, &options).unwrap();
    assert_eq!((summary.n_removed, archive.series.len()), (1, 3));
    std::fs::remove_file(files.join("2")).unwrap();
    std::fs::remove_file(files.join("3")).unwrap();
    std::fs::remove_file(files.join("4")).unwrap();
    let summary = run(folder.path(), &mut archive, &options).unwrap();
    assert_eq!((summary.n_removed, archive.series.len()), (0, 3));
}
