//! Rows that are erased: their bytes leave every file, on good and on failing disks, and nobody adds them again.

use super::*;
use crate::disk::Disk;

/// Returns whether a file below a folder holds some bytes.
fn is_in_a_file(folder: &Path, bytes: &[u8]) -> bool {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.into_iter().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => is_in_a_file(&path, bytes),
            false => {
                let file = std::fs::read(path).unwrap();
                file.windows(bytes.len()).any(|window| window == bytes)
            }
        }
    })
}

fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Rows 0 to 3 are those of `p0`.
const ERASED_IDS: usize = 4;

fn erase<D: Disk>(writer: &mut Writer<D>) -> Result<()> {
    let gallery = writer.gallery();
    let there = ids(0..ERASED_IDS).into_iter();
    let there: Vec<String> = there
        .filter(|id| gallery.find(id).unwrap().is_some())
        .collect();
    writer.erase(Erasure {
        ids: &there,
        pseudonyms: &["p0".to_owned()],
        refusals: &[],
    })
}

fn refusal() -> Refusal {
    Refusal {
        key: "1".to_owned(),
        changed: "2".to_owned(),
        reader: "3".to_owned(),
        path: "refused-path".to_owned(),
        file: "/refused-path".to_owned(),
        part: None,
        reason: "truncated".to_owned(),
        message: String::new(),
        pixels: String::new(),
    }
}

fn made(path: &Path) -> Contents {
    let parts = [70, 30].map(|n| vectors(n as u64, n, WIDTH, 0));
    let mut writer = gallery(path, WIDTH, Numbers::F32, &parts);
    writer.remove(&ids([90])).unwrap();
    writer.calibrate().unwrap();
    writer.keep_refusals(&[refusal()]).unwrap();
    contents(writer.gallery()).unwrap()
}

/// Bytes that must be gone, and some that must not be.
fn patterns() -> (Vec<Vec<u8>>, Vec<u8>) {
    let all = vectors(70, 70, WIDTH, 0);
    let of = |row: usize| bytes_of(&all[row * WIDTH..][..WIDTH]);
    let mut gone: Vec<Vec<u8>> = (0..ERASED_IDS).map(of).collect();
    gone.push(b"refused-path".to_vec());
    (gone, of(ERASED_IDS))
}

#[test]
fn a_disk_that_fails_while_rows_are_erased_leaves_a_good_gallery_and_the_same_call_completes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let (gone, kept) = patterns();
    let mut n_failed = 0;
    for fault in [
        Fault::ShortWrite,
        Fault::NoSpace,
        Fault::Io,
        Fault::TornRename,
        Fault::PowerCut,
    ] {
        for at in 0.. {
            let old = made(&path);
            let mut wanted = old.clone();
            wanted.retain(|id, _| !ids(0..ERASED_IDS).contains(id));
            assert!(gone.iter().all(|bytes| is_in_a_file(&path, bytes)));
            let disk = FaultyDisk::new(fault, at);
            let mut writer = Writer::open_on(disk.clone(), &path).unwrap();
            let outcome = erase(&mut writer);
            drop(writer);
            if fault == Fault::PowerCut {
                disk.forget_what_was_not_synced();
            }
            let after = contents(&Gallery::open(&path).unwrap()).unwrap();
            assert!(after == old || after == wanted, "{fault:?} {at}");
            assert!(verify(&path).unwrap().is_good(), "{fault:?} {at}");
            if outcome.is_err() {
                n_failed += 1;
                erase(&mut Writer::open(&path).unwrap()).unwrap();
            }
            let gallery = Gallery::open(&path).unwrap();
            assert_eq!(contents(&gallery).unwrap(), wanted, "{fault:?} {at}");
            assert!(gallery.is_erased("p0") && gallery.n_erased() == 1);
            let report = verify(&path).unwrap();
            assert!(
                report.is_good() && report.leftovers.is_empty(),
                "{report:?}"
            );
            for bytes in &gone {
                assert!(!is_in_a_file(&path, bytes), "{fault:?} {at}");
            }
            assert!(is_in_a_file(&path, &kept));
            std::fs::remove_dir_all(&path).unwrap();
            if !disk.has_failed() {
                break;
            }
        }
    }
    assert!(n_failed > 50, "{n_failed}");
}

#[test]
fn no_writer_adds_rows_of_erased_patients_until_they_are_allowed_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    made(&path);
    let mut writer = Writer::open(&path).unwrap();
    erase(&mut writer).unwrap();
    let before = contents(writer.gallery()).unwrap();
    // Row 0 is of p0, as the rows of the batch are four of one patient each.
    let again = rows(0, 1);
    let error = writer.add(again.batch()).unwrap_err();
    assert!(matches!(error, Error::Erased { n_rows: 1, .. }), "{error}");
    assert_eq!(contents(writer.gallery()).unwrap(), before);
    // The number in clear, and a hash of it in a column of any name, are that patient, too.
    let gallery = writer.gallery();
    let columns =
        |name: &str, cells: [&str; 3]| [(name.to_owned(), cells.map(str::to_owned).to_vec())];
    assert!(
        gallery
            .erased_rows(&columns("note", ["p0", "p1", ""]))
            .is_empty()
    );
    assert_eq!(
        gallery.erased_rows(&columns("patient_id", ["p1", "p0", "p0"])),
        [1, 2]
    );
    drop(writer);
    let mut writer = Writer::open(&path).unwrap();
    assert_eq!(writer.allow_again(&["p1".to_owned()]).unwrap(), 0);
    assert_eq!(writer.allow_again(&["p0".to_owned()]).unwrap(), 1);
    writer.add(again.batch()).unwrap();
    assert!(!writer.gallery().is_erased("p0"));
    assert!(verify(&path).unwrap().is_good());
}

#[test]
fn numbers_in_clear_are_known_by_their_pseudonyms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    made(&path);
    let mut writer = Writer::open(&path).unwrap();
    let pseudonym = writer.gallery().pseudonym("patient_id", "p7");
    let erasure = Erasure {
        pseudonyms: std::slice::from_ref(&pseudonym),
        ..Erasure::default()
    };
    writer.erase(erasure).unwrap();
    let gallery = writer.gallery();
    assert!(gallery.is_erased("p7") && gallery.is_erased(&pseudonym) && !gallery.is_erased("p8"));
    let hashed = [("mrn".to_owned(), vec![pseudonym.clone()])];
    assert_eq!(gallery.erased_rows(&hashed), [0]);
    let files = std::fs::read_dir(&path).unwrap();
    let lists = files.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("erased-")
    });
    assert_eq!(lists.count(), 1);
    assert!(!is_in_a_file(&path, pseudonym.as_bytes()));
}

#[test]
fn the_list_survives_damage_of_one_copy_and_a_lost_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    made(&path);
    erase(&mut Writer::open(&path).unwrap()).unwrap();
    let name_of = |start: &str| {
        let mut names = std::fs::read_dir(&path).unwrap().flatten();
        let found = names.find(|entry| entry.file_name().to_string_lossy().starts_with(start));
        found.unwrap().path()
    };
    let list = name_of("erased-");
    let mut bytes = std::fs::read(&list).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&list, &bytes).unwrap();
    assert!(Gallery::open(&path).unwrap().is_erased("p0"));
    assert!(repair(&path).unwrap().notes.is_empty());
    assert!(verify(&path).unwrap().is_good());
    std::fs::write(name_of("catalog-"), "{}").unwrap();
    repair(&path).unwrap();
    assert!(Gallery::open(&path).unwrap().is_erased("p0"));
    assert!(
        Writer::open(&path)
            .unwrap()
            .add(rows(0, 1).batch())
            .is_err()
    );
    std::fs::write(name_of("erased-"), "[]").unwrap();
    assert!(Gallery::open(&path).is_err());
    let notes = repair(&path).unwrap().notes;
    assert!(
        notes.iter().any(|note| note.contains("m3ret erase")),
        "{notes:?}"
    );
    assert_eq!(Gallery::open(&path).unwrap().n_erased(), 0);
}

#[test]
fn the_last_row_takes_codes_lists_and_statistics_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g.m3i");
    let part = vectors(1, 4, WIDTH, 0);
    let mut writer = gallery(&path, WIDTH, Numbers::F16, &[part]);
    writer.calibrate().unwrap();
    let row = writer.gallery().find("row/0").unwrap().unwrap();
    let vector = writer.gallery().vector(row).unwrap();
    let half = vector
        .iter()
        .flat_map(|&x| half::f16::from_f32(x).to_le_bytes());
    let half: Vec<u8> = half.collect();
    assert!(is_in_a_file(&path, &half));
    erase(&mut writer).unwrap();
    assert!(writer.gallery().is_empty() && writer.gallery().n_segments() == 0);
    assert!(writer.gallery().statistics().unwrap().is_none());
    assert!(!is_in_a_file(&path, &half));
    writer.add(rows(8, 4).batch()).unwrap();
}
