//! Galleries on good and on failing disks.

mod erase;
mod faulty;
mod files;
mod formats;
mod views;

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::disk::RealDisk;
use crate::scan::{Queries, SearchOptions};
use crate::testing::{TestRows, TestViews, gallery, maker, vectors};
use faulty::{Fault, FaultyDisk};

const WIDTH: usize = 8;

/// Everything that a gallery says of its rows, by id: vector, cells, thumbnail and further vectors by view.
type Contents = BTreeMap<String, (Vec<f32>, Vec<String>, Vec<u8>, Views)>;
type Views = BTreeMap<String, Vec<f32>>;

fn contents(gallery: &Gallery) -> Result<Contents> {
    let mut contents = Contents::new();
    for row in gallery.rows() {
        let columns = ["modality", "patient_id", "bucket", "rare", "body_part"];
        let cells = columns.map(|column| gallery.value(row, column).map(str::to_owned));
        let cells = cells.into_iter().collect::<Result<Vec<String>>>()?;
        let thumbnail = gallery.attachment(row, "thumbnail")?.to_vec();
        let views = gallery.view_vectors(row)?.into_iter();
        let views: Views = views
            .map(|(name, vector)| (name.to_owned(), vector))
            .collect();
        let content = (gallery.vector(row)?, cells, thumbnail, views);
        let before = contents.insert(gallery.id(row)?.to_owned(), content);
        assert!(before.is_none(), "an id twice");
    }
    Ok(contents)
}

/// Makes rows; those of every second batch have further vectors.
fn rows(first: usize, n: usize) -> TestRows {
    let rows = TestRows::new(first, vectors(first as u64, n, WIDTH, 0), WIDTH);
    let n_with_views = if first.is_multiple_of(2) { n } else { 0 };
    rows.with_views(TestViews::new(first as u64, n_with_views, WIDTH, 0))
}

/// What rows say of themselves.
fn expected(rows: &TestRows) -> Contents {
    let vectors = rows.vectors.chunks(WIDTH);
    let all = rows.ids.iter().zip(vectors).enumerate();
    all.map(|(idx, (id, vector))| {
        let cells = rows
            .columns
            .iter()
            .map(|(_, cells)| cells[idx].clone())
            .collect();
        let views = rows.views.of.iter().zip(rows.views.vectors.chunks(WIDTH));
        let views = views.filter(|(view, _)| view.row as usize == idx);
        let views = views.map(|(view, vector)| {
            let name = rows.views.names[view.name as usize].clone();
            (name, vector.to_vec())
        });
        let thumbnail = rows.attachments[0].1[idx].clone();
        (
            id.clone(),
            (vector.to_vec(), cells, thumbnail, views.collect()),
        )
    })
    .collect()
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|i| format!("row/{i}")).collect()
}

#[test]
fn what_is_added_is_there_until_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = gallery(&path, WIDTH, Numbers::F32, &[]);
    let mut wanted = Contents::new();
    for (first, n) in [(0, 50), (50, 7), (57, 7), (64, 1), (65, 30)] {
        let rows = rows(first, n);
        writer.add(rows.batch()).unwrap();
        wanted.append(&mut expected(&rows));
        assert_eq!(contents(writer.gallery()).unwrap(), wanted);
        assert_eq!(contents(&Gallery::open(&path).unwrap()).unwrap(), wanted);
    }
    assert!(writer.gallery().n_segments() <= 3);
    writer.remove(&ids((0..95).step_by(3))).unwrap();
    wanted.retain(|id, _| id[4..].parse::<usize>().unwrap() % 3 != 0);
    assert_eq!(contents(writer.gallery()).unwrap(), wanted);
    // A removed id may come back, with other contents.
    let again = rows(0, 1);
    writer.add(again.batch()).unwrap();
    wanted.append(&mut expected(&again));
    writer.compact().unwrap();
    assert_eq!(
        (writer.gallery().n_segments(), writer.gallery().len()),
        (1, wanted.len())
    );
    assert_eq!(contents(&Gallery::open(&path).unwrap()).unwrap(), wanted);
    let report = verify(&path).unwrap();
    assert!(
        report.is_good() && report.leftovers.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.n_rows, wanted.len());
    assert!(writer.gallery().find("row/3").unwrap().is_none());
}

#[test]
fn rows_that_do_not_fit_are_refused_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = gallery(&path, WIDTH, Numbers::F32, &[vectors(0, 5, WIDTH, 0)]);
    let before = contents(writer.gallery()).unwrap();
    let good = rows(10, 3);
    let with = |change: fn(&mut TestRows)| {
        let mut rows = rows(10, 3);
        change(&mut rows);
        rows
    };
    for (bad, wanted) in [
        (with(|rows| rows.vectors[WIDTH] = f32::NAN), "row 1"),
        (with(|rows| rows.vectors[..WIDTH].fill(0.0)), "zeros"),
        (
            with(|rows| rows.vectors.iter_mut().for_each(|x| *x *= 1.1)),
            "length 1.1",
        ),
        (
            with(|rows| rows.vectors.truncate(2 * WIDTH)),
            "rows of vectors",
        ),
        (
            with(|rows| rows.ids[1] = "row/2".to_owned()),
            "in the gallery already",
        ),
        (
            with(|rows| rows.ids[1] = "row/10".to_owned()),
            "came before",
        ),
        (with(|rows| rows.ids[1] = String::new()), "empty"),
        (
            with(|rows| rows.columns[0].1.truncate(1)),
            "rows of modality",
        ),
    ] {
        let error = writer.add(bad.batch()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    assert!(writer.remove(&ids([1, 77])).is_err());
    assert_eq!(contents(writer.gallery()).unwrap(), before);
    writer.add(good.batch()).unwrap();
}

#[test]
fn there_is_one_writer_and_readers_keep_what_they_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = gallery(&path, WIDTH, Numbers::F16, &[vectors(0, 40, WIDTH, 0)]);
    assert!(matches!(Writer::open(&path), Err(Error::Locked { .. })));
    let reader = Gallery::open(&path).unwrap();
    let before = contents(&reader).unwrap();
    writer.remove(&ids(0..39)).unwrap();
    writer.compact().unwrap();
    assert_eq!(contents(&reader).unwrap(), before);
    assert_eq!(Gallery::open(&path).unwrap().len(), 1);
    drop(writer);
    Writer::open(&path).unwrap();
}

#[test]
fn readers_see_whole_states_while_a_writer_works() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = gallery(&path, WIDTH, Numbers::F32, &[vectors(0, 20, WIDTH, 0)]);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut n_opened, mut last) = (0, 0);
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                let gallery = Gallery::open(&path).unwrap();
                let contents = contents(&gallery).unwrap();
                // Rows come in steps of 20, all of them or none.
                assert_eq!(contents.len() % 20, 0);
                assert!(gallery.generation() >= last);
                (n_opened, last) = (n_opened + 1, gallery.generation());
            }
            n_opened
        });
        for step in 1..40 {
            writer.add(rows(20 * step, 20).batch()).unwrap();
            if step % 5 == 0 {
                writer.remove(&ids(20 * step - 40..20 * step - 20)).unwrap();
                writer.compact().unwrap();
            }
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 10);
    });
}

#[test]
fn another_encoder_and_a_folder_of_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let writer = gallery(&path, WIDTH, Numbers::F32, &[]);
    assert!(writer.gallery().check_maker(&maker()).is_ok());
    let other = Maker {
        fingerprint: "test:2".to_owned(),
        ..maker()
    };
    assert!(writer.gallery().check_maker(&other).is_err());
    let other = Maker {
        precision: "bf16".to_owned(),
        ..maker()
    };
    assert!(writer.gallery().check_maker(&other).is_ok());
    assert!(matches!(
        Gallery::open(folder.path()),
        Err(Error::Unsupported { .. })
    ));
    assert!(Gallery::open(&folder.path().join("nothing")).is_err());
    let setup = Setup {
        maker: maker(),
        width: WIDTH,
        numbers: Numbers::F32,
    };
    assert!(Writer::create(folder.path(), setup).is_err());
}

#[test]
fn identifiers_leave_no_trace_but_a_keyed_hash() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| gallery(&folder.path().join(name), WIDTH, Numbers::F32, &[]);
    let (one, other) = (make("a"), make("b"));
    let hash = one.gallery().pseudonym("patient_id", "Doe^Jane");
    assert_eq!(hash.len(), 32);
    assert_eq!(one.gallery().pseudonym("patient_id", "Doe^Jane"), hash);
    assert_ne!(one.gallery().pseudonym("study_id", "Doe^Jane"), hash);
    assert_ne!(other.gallery().pseudonym("patient_id", "Doe^Jane"), hash);
    assert_eq!(one.gallery().pseudonym("patient_id", ""), "");
    assert!(!format!("{:?}", one.gallery()).contains("key: Key(["));
}

/// Three segments with removed rows, and what is in them.
fn damaged_later(path: &Path) -> Contents {
    let mut writer = gallery(path, WIDTH, Numbers::F32, &[]);
    for (first, n) in [(0, 90), (90, 41), (131, 5)] {
        writer.add(rows(first, n).batch()).unwrap();
    }
    assert_eq!(writer.gallery().n_segments(), 3);
    writer.remove(&ids([3, 50, 100, 131])).unwrap();
    writer.calibrate().unwrap();
    contents(writer.gallery()).unwrap()
}

fn files(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().flatten();
    let files = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file());
    let mut files: Vec<_> = files.filter(|path| !path.ends_with(LOCK)).collect();
    files.sort();
    files
}

/// Reads everything that a search or a lookup may read.
fn read_all(path: &Path) -> Result<(Contents, Vec<Vec<crate::scan::RowHit>>, bool, usize)> {
    let gallery = Gallery::open(path)?;
    let mut n_found = 0;
    for column in ["patient_id", "rare"] {
        for (idx, value) in gallery.values(column)?.into_iter().enumerate() {
            n_found += idx * gallery.find_rows(column, value)?.len();
        }
    }
    let queries = vectors(1, 3, WIDTH, 0);
    let queries = Queries {
        vectors: &queries,
        ..Queries::default()
    };
    let options = SearchOptions {
        k: 10,
        ..SearchOptions::default()
    };
    let hits = gallery.search(queries, &options)?;
    let is_known = gallery.statistics()?.is_some();
    Ok((contents(&gallery)?, hits, is_known, n_found))
}

#[test]
fn no_flipped_bit_changes_an_answer_and_verify_finds_every_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    damaged_later(&path);
    let whole = read_all(&path).unwrap();
    let (mut n_refused, mut n_flips) = (0, 0);
    for file in files(&path) {
        let bytes = std::fs::read(&file).unwrap();
        // Every byte of small files, and 400 places of each segment.
        let step = (bytes.len() / 400).max(1);
        for at in (0..bytes.len())
            .step_by(step)
            .chain(bytes.len().saturating_sub(130)..bytes.len())
        {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&file, &flipped).unwrap();
            n_flips += 1;
            match read_all(&path) {
                Ok(read) => assert!(read == whole, "{} at {at}: another answer", file.display()),
                Err(Error::Damaged { .. }) => n_refused += 1,
                Err(error) => panic!("{} at {at}: {error}", file.display()),
            }
            let report = verify(&path).unwrap();
            assert!(
                !report.is_good(),
                "{} at {at} was not found",
                file.display()
            );
        }
        std::fs::write(&file, &bytes).unwrap();
    }
    assert!(
        n_refused > n_flips / 10 && n_flips > 2000,
        "{n_refused} of {n_flips}"
    );
    assert!(read_all(&path).unwrap() == whole);
}

#[test]
fn a_file_that_is_cut_or_missing_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    damaged_later(&path);
    let whole = read_all(&path).unwrap();
    for file in files(&path) {
        let bytes = std::fs::read(&file).unwrap();
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&file, &bytes[..length]).unwrap();
            match read_all(&path) {
                Ok(read) => assert!(read == whole, "{} cut to {length}", file.display()),
                Err(Error::Damaged { .. } | Error::Io { .. }) => {}
                Err(error) => panic!("{}: {error}", file.display()),
            }
            assert!(!verify(&path).unwrap().is_good());
        }
        std::fs::remove_file(&file).unwrap();
        assert!(read_all(&path).is_err(), "{} missing", file.display());
        std::fs::write(&file, &bytes).unwrap();
    }
}

#[test]
fn repair_keeps_every_row_that_can_be_proved() {
    let folder = tempfile::tempdir().unwrap();
    let whole_path = folder.path().join("whole.m3i");
    let whole = damaged_later(&whole_path);
    let mut n_lost = 0;
    for (case, file) in files(&whole_path).into_iter().enumerate() {
        let bytes = std::fs::read(&file).unwrap();
        for share in [5, 30, 50, 70, 95] {
            let at = bytes.len() * share / 100;
            let path = folder.path().join(format!("{case}-{share}.m3i"));
            std::fs::create_dir(&path).unwrap();
            for other in files(&whole_path) {
                std::fs::copy(&other, path.join(other.file_name().unwrap())).unwrap();
            }
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            std::fs::write(path.join(file.file_name().unwrap()), flipped).unwrap();
            let repair = repair(&path).unwrap();
            assert!(!repair.report.is_good());
            assert!(
                verify(&path).unwrap().is_good(),
                "{} {share}",
                file.display()
            );
            let (left, ..) = read_all(&path).unwrap();
            // Thumbnails that cannot be proved are left out; rows never change.
            for (id, (vector, cells, _, views)) in &left {
                assert_eq!((vector, cells), (&whole[id].0, &whole[id].1));
                assert!(
                    views
                        .iter()
                        .all(|(name, view)| whole[id].3.get(name) == Some(view))
                );
            }
            assert_eq!(
                left.len() + repair.n_lost,
                whole.len(),
                "{} {share}",
                file.display()
            );
            n_lost += repair.n_lost;
            // What was repaired can be written to again.
            Writer::open(&path)
                .unwrap()
                .add(rows(500, 3).batch())
                .unwrap();
        }
    }
    // A flip in a vector loses the rows of its block: here all rows of the segment.
    assert!(n_lost > 0);
}

#[test]
fn a_lost_catalog_is_made_anew_of_the_segments() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let whole = damaged_later(&path);
    let catalog = files(&path)
        .into_iter()
        .find(|file| file.to_string_lossy().contains("catalog-"));
    std::fs::write(catalog.unwrap(), "nothing").unwrap();
    assert!(matches!(Gallery::open(&path), Err(Error::Damaged { .. })));
    let repair = repair(&path).unwrap();
    assert_eq!(repair.quarantined.len(), 1);
    assert!(repair.notes.iter().any(|note| note.contains("catalog")));
    assert_eq!(read_all(&path).unwrap().0, whole);
    assert!(verify(&path).unwrap().is_good());
}

#[test]
fn statistics_are_read_once_and_are_those_that_the_catalog_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let mut writer = gallery(&path, WIDTH, Numbers::F32, &[vectors(5, 60, WIDTH, 0)]);
    assert!(writer.gallery().statistics().unwrap().is_none());
    writer.calibrate().unwrap();
    let reader = Gallery::open(&path).unwrap();
    let file = path.join(&reader.catalog.statistics.as_ref().unwrap().file);
    let whole = std::fs::read(&file).unwrap();

    // The file is of another state; its own checksums are good.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, catalog::to_copies(&Statistics::default()).unwrap()).unwrap();
    let error = Gallery::open(&path).unwrap_err();
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(name), "{error}");
    let findings = verify(&path).unwrap().findings;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].file == name && !findings[0].is_harmless);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &whole).unwrap();
    assert!(verify(&path).unwrap().is_good());

    // A reader keeps those of its state.
    writer.calibrate().unwrap();
    assert!(!file.exists());
    let first = reader.statistics().unwrap().unwrap();
    assert!(!first.agreements.is_empty());
    assert!(std::ptr::eq(first, reader.statistics().unwrap().unwrap()));
}

/// One change of a gallery.
#[derive(Debug, Clone, Copy)]
enum Change {
    Add,
    Remove,
    Replace,
    Compact,
}

impl Change {
    fn make<D: crate::Disk>(self, writer: &mut Writer<D>) -> Result<()> {
        match self {
            Self::Add => writer.add(rows(200, 6).batch()),
            Self::Remove => writer.remove(&ids([1, 60])),
            Self::Replace => writer.replace(rows(2, 1).batch(), &ids([2])),
            Self::Compact => writer.compact(),
        }
    }
}

#[test]
fn every_failure_of_the_disk_leaves_the_old_state_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (mut n_cases, mut n_failed) = (0, 0);
    for fault in [
        Fault::ShortWrite,
        Fault::NoSpace,
        Fault::Io,
        Fault::TornRename,
        Fault::PowerCut,
    ] {
        for change in [
            Change::Add,
            Change::Remove,
            Change::Replace,
            Change::Compact,
        ] {
            for at in 0.. {
                let path = folder.path().join("g.m3i");
                let parts = [70, 30].map(|n| vectors(n as u64, n, WIDTH, 0));
                let mut writer = gallery(&path, WIDTH, Numbers::F32, &parts);
                writer.remove(&ids([5])).unwrap();
                let old = contents(writer.gallery()).unwrap();
                drop(writer);

                let disk = FaultyDisk::new(fault, at);
                let mut writer = Writer::open_on(disk.clone(), &path).unwrap();
                let outcome = change.make(&mut writer);
                drop(writer);
                if fault == Fault::PowerCut {
                    disk.forget_what_was_not_synced();
                }
                let after = contents(&Gallery::open(&path).unwrap()).unwrap();
                let report = verify(&path).unwrap();
                assert!(report.is_good(), "{fault:?} {change:?} {at}: {report:?}");
                let mut again = Writer::open(&path).unwrap();
                if after == old && outcome.is_err() {
                    change.make(&mut again).unwrap();
                }
                let new = contents(again.gallery()).unwrap();
                assert!(after == old || after == new, "{fault:?} {change:?} {at}");
                assert!(
                    outcome.is_err() || after == new,
                    "{fault:?} {change:?} {at}: lost"
                );
                n_failed += usize::from(outcome.is_err());
                n_cases += 1;
                drop(again);
                let leftovers = verify(&path).unwrap().leftovers;
                assert!(
                    leftovers.is_empty(),
                    "{fault:?} {change:?} {at}: {leftovers:?}"
                );
                std::fs::remove_dir_all(&path).unwrap();
                if !disk.has_failed() {
                    break;
                }
            }
        }
    }
    assert!(n_cases > 400 && n_failed > 200, "{n_failed} of {n_cases}");
}

#[test]
fn a_disk_that_fails_while_a_gallery_is_made_leaves_none_or_a_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let setup = || Setup {
        maker: maker(),
        width: WIDTH,
        numbers: Numbers::F32,
    };
    for fault in [
        Fault::NoSpace,
        Fault::Io,
        Fault::TornRename,
        Fault::PowerCut,
    ] {
        for at in 0.. {
            let disk = FaultyDisk::new(fault, at);
            let outcome = Writer::create_on(disk.clone(), &path, setup()).map(drop);
            if fault == Fault::PowerCut {
                disk.forget_what_was_not_synced();
            }
            match outcome {
                Ok(()) => assert!(Gallery::open(&path).unwrap().is_empty()),
                // The same command works once the disk does.
                Err(_) => match Gallery::open(&path) {
                    Ok(gallery) => assert!(gallery.is_empty()),
                    Err(_) => drop(Writer::create(&path, setup()).unwrap()),
                },
            }
            let mut writer = Writer::open(&path).unwrap();
            writer.add(rows(0, 2).batch()).unwrap();
            drop(writer);
            std::fs::remove_dir_all(&path).unwrap();
            if !disk.has_failed() {
                break;
            }
        }
    }
}

#[test]
fn a_real_disk_is_what_it_says() {
    use std::io::Write as _;

    use crate::disk::{Disk as _, DiskFile as _};
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    let mut file = RealDisk.create(&one).unwrap();
    file.write_all(b"x").unwrap();
    file.sync().unwrap();
    RealDisk.rename(&one, &two).unwrap();
    RealDisk.sync_folder(folder.path()).unwrap();
    assert_eq!(std::fs::read(&two).unwrap(), b"x");
    RealDisk.remove(&two).unwrap();
    assert!(RealDisk.remove(&two).is_err());
}
