//! Patients who are erased from galleries of a hundred, searched by other code than the library's.

mod hostile;
mod writers;

use std::collections::BTreeMap;
use std::slice::from_ref;

use m3ret_search::{Batch, Maker, Numbers, Setup, View, ViewVectors};

use super::*;
use crate::watch::Quiet;

const WIDTH: usize = 48;
/// Rows of each of the hundred patients.
const N_EACH: usize = 3;

pub(super) fn maker() -> Maker {
    Maker {
        fingerprint: format!("external:test:{WIDTH}"),
        model: "test".to_owned(),
        precision: "f32".to_owned(),
    }
}

/// Numbers that follow from two numbers and look random.
fn random(seed: u64, n: usize) -> impl Iterator<Item = u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    })
    .take(n)
}

#[allow(clippy::cast_precision_loss, reason = "any number does")]
pub(super) fn unit_vector(seed: u64) -> Vec<f32> {
    let numbers = random(seed + 1, WIDTH).map(|x| x as f32 / 4e9 - 0.5);
    let mut vector: Vec<f32> = numbers.collect();
    m3ret_search::normalize(&mut vector).unwrap();
    vector
}

pub(super) fn number_of(patient: usize) -> String {
    format!("PATIENT-{patient:04}")
}

/// How the rows of a test name their patients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Hashed,
    Clear,
    Never,
}

fn picture(row: usize) -> Vec<u8> {
    let bytes = random(row as u64 + 70_000, 300).map(|x| x.to_le_bytes()[0]);
    b"\x89PNG\r\n".iter().copied().chain(bytes).collect()
}

fn id_of(row: usize) -> String {
    format!("archive/folder-{:04}/image.dcm", row * 7)
}

/// Makes a gallery of 100 patients in several segments; rows of every third patient have a view.
pub(super) fn made(folder: &Path, numbers: Numbers, stored: Stored) {
    let setup = Setup {
        maker: maker(),
        width: WIDTH,
        numbers,
    };
    let mut writer = Writer::create(folder, setup).unwrap();
    for rows in [0..180, 180..260, 260..300] {
        put(&mut writer, rows, stored);
    }
    writer.calibrate().unwrap();
}

pub(super) fn put(writer: &mut Writer, rows: std::ops::Range<usize>, stored: Stored) {
    let gallery = writer.gallery();
    let patients = rows.clone().map(|row| {
        let number = number_of(row / N_EACH);
        match stored {
            Stored::Hashed => gallery.pseudonym(columns::PATIENT, &number),
            Stored::Clear | Stored::Never => number,
        }
    });
    let mut columns = vec![
        ("path".to_owned(), rows.clone().map(id_of).collect()),
        (
            "body_part".to_owned(),
            rows.clone()
                .map(|row| format!("part {}", row % 5))
                .collect(),
        ),
    ];
    if stored != Stored::Never {
        columns.push((columns::PATIENT.to_owned(), patients.collect()));
    }
    let vectors: Vec<f32> = rows
        .clone()
        .flat_map(|row| unit_vector(row as u64))
        .collect();
    let ids: Vec<String> = rows.clone().map(id_of).collect();
    let pictures: Vec<Vec<u8>> = rows.clone().map(picture).collect();
    let attachments = [("thumbnail".to_owned(), pictures)];
    let viewed = rows.clone().filter(|row| (row / N_EACH).is_multiple_of(3));
    let of = viewed.clone().map(|row| View {
        row: u32::try_from(row - rows.start).unwrap(),
        name: 0,
    });
    let of: Vec<View> = of.collect();
    let view_vectors = viewed.flat_map(|row| unit_vector(row as u64 + 5000));
    let view_vectors: Vec<f32> = view_vectors.collect();
    let batch = Batch {
        vectors: &vectors,
        ids: &ids,
        columns: &columns,
        attachments: &attachments,
        views: ViewVectors {
            names: &["front".to_owned()],
            of: &of,
            vectors: &view_vectors,
        },
    };
    writer.add(batch).unwrap();
}

pub(super) fn options() -> EraseOptions {
    EraseOptions {
        who: "tester".to_owned(),
        reason: "asked for".to_owned(),
        time: "2026-01-31T12:34:56Z".to_owned(),
        ..EraseOptions::default()
    }
}

pub(super) fn subject(patient: usize) -> Subject {
    Subject::Patient(Patient::new(&number_of(patient), None).unwrap())
}

fn erase_one(folder: &Path, patient: usize) -> crate::Result<Receipt> {
    erase(&[folder.to_owned()], &subject(patient), &options(), &Quiet)
}

/// Reads everything below a folder.
fn all_bytes(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.append(&mut all_bytes(&path)),
            false => _ = all.insert(path.clone(), std::fs::read(path).unwrap()),
        }
    }
    all
}

fn is_there(files: &BTreeMap<PathBuf, Vec<u8>>, bytes: &[u8]) -> bool {
    // A search for the first byte is quick; the standard library has none for slices.
    files.values().any(|file| {
        let mut at = 0;
        while let Some(next) = file[at..].iter().position(|&byte| byte == bytes[0]) {
            at += next;
            if file[at..].starts_with(bytes) {
                return true;
            }
            at += 1;
        }
        false
    })
}

/// Everything of a patient that must be gone.
fn secrets(patient: usize, gallery: &Gallery) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for row in patient * N_EACH..(patient + 1) * N_EACH {
        let found = gallery.find(&id_of(row)).unwrap().unwrap();
        let mut vectors = vec![gallery.vector(found).unwrap()];
        let views = gallery.view_vectors(found).unwrap().into_iter();
        vectors.extend(views.map(|(_, vector)| vector));
        for vector in vectors {
            all.push(match gallery.numbers() {
                Numbers::F32 => vector[..32].iter().flat_map(|x| x.to_le_bytes()).collect(),
                Numbers::F16 => Vec::new(),
            });
        }
        all.push(id_of(row).into_bytes());
        all.push(picture(row)[..128].to_vec());
    }
    let number = number_of(patient);
    all.push(gallery.pseudonym(columns::PATIENT, &number).into_bytes());
    all.push(number.into_bytes());
    all.retain(|bytes| !bytes.is_empty());
    all
}

type Contents = BTreeMap<String, (Vec<u32>, Vec<String>, Vec<u8>, Vec<Vec<u32>>)>;

/// Everything that a gallery says of its rows, bit for bit.
fn contents(folder: &Path) -> Contents {
    let gallery = Gallery::open(folder).unwrap();
    let bits = |vector: &[f32]| vector.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let rows = gallery.rows().map(|row| {
        let cells = ["path", "body_part", columns::PATIENT];
        let cells = cells.map(|name| gallery.value(row, name).unwrap().to_owned());
        let views = gallery.view_vectors(row).unwrap();
        let views = views.iter().map(|(_, vector)| bits(vector)).collect();
        let vector = bits(&gallery.vector(row).unwrap());
        let picture = gallery.attachment(row, "thumbnail").unwrap().to_vec();
        let id = gallery.id(row).unwrap().to_owned();
        (id, (vector, cells.to_vec(), picture, views))
    });
    rows.collect()
}

fn ids_of(patient: usize) -> Vec<String> {
    let rows = patient * N_EACH..(patient + 1) * N_EACH;
    rows.map(id_of).collect()
}

#[test]
fn twenty_of_a_hundred_patients_leave_every_file_and_the_others_stay_bit_for_bit() {
    for (numbers, stored) in [
        (Numbers::F32, Stored::Hashed),
        (Numbers::F16, Stored::Hashed),
        (Numbers::F32, Stored::Clear),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("g.m3i");
        made(&place, numbers, stored);
        let before = contents(&place);
        let gallery = Gallery::open(&place).unwrap();
        let erased: Vec<usize> = (0..20).map(|i| i * 5 + 2).collect();
        let patients = erased.iter().map(|&patient| secrets(patient, &gallery));
        let patients: Vec<Vec<Vec<u8>>> = patients.collect();
        drop(gallery);
        let mut wanted = before.clone();
        for (&patient, secrets) in erased.iter().zip(&patients) {
            let receipt = erase_one(&place, patient).unwrap();
            let [told] = &receipt.places[..] else {
                panic!("one place");
            };
            assert!(receipt.is_proved(), "{receipt:?}");
            assert_eq!(told.counts.n_rows, N_EACH);
            assert_eq!(told.counts.n_thumbnails, N_EACH);
            assert_eq!(
                told.counts.n_views,
                if patient % 3 == 0 { N_EACH } else { 0 }
            );
            let is_clear = told.columns[0].stored == Storing::Clear;
            assert_eq!(is_clear, stored == Stored::Clear);
            let json = serde_json::to_string(&receipt).unwrap();
            let secret = |bytes: &Vec<u8>| json.contains(&*String::from_utf8_lossy(bytes));
            assert!(
                !secrets.iter().any(secret),
                "the receipt gives something away"
            );
            wanted.retain(|id, _| !ids_of(patient).contains(id));
        }
        assert!(contents(&place) == wanted);
        let files = all_bytes(&place);
        for secret in patients.iter().flatten() {
            assert!(!is_there(&files, secret));
        }
        let other = secrets(0, &Gallery::open(&place).unwrap());
        let n_there = other
            .iter()
            .filter(|secret| is_there(&files, secret))
            .count();
        assert!(n_there >= other.len() - 1, "the search finds what is there");
        let report = m3ret_search::verify(&place).unwrap();
        assert!(report.is_good() && report.leftovers.is_empty());
        assert_eq!(Gallery::open(&place).unwrap().n_erased(), 20);
    }
}

#[test]
fn an_image_that_another_patient_has_as_well_stays() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    let mut writer = Writer::open(&place).unwrap();
    let pseudonym = writer
        .gallery()
        .pseudonym(columns::PATIENT, "SOMEBODY-ELSE");
    let attachments = [("thumbnail".to_owned(), vec![picture(6)])];
    // Its id contains that of the erased image.
    let batch = Batch {
        vectors: &unit_vector(6),
        ids: &[format!("{}#row=2", id_of(6))],
        columns: &[(columns::PATIENT.to_owned(), vec![pseudonym])],
        attachments: &attachments,
        ..Batch::default()
    };
    writer.add(batch).unwrap();
    drop(writer);
    let receipt = erase_one(&place, 2).unwrap();
    let scan = &receipt.places[0].scan;
    assert!(receipt.is_proved() && scan.n_shared >= 3, "{scan:?}");
    assert_eq!(receipt.counts().n_rows, N_EACH);
    let left = contents(&place);
    assert!(left.contains_key(&format!("{}#row=2", id_of(6))));
    assert_eq!(left.len(), 300 - N_EACH + 1);
}

#[test]
fn an_erasure_that_is_killed_is_completed_by_the_same_call() {
    let folder = tempfile::tempdir().unwrap();
    // What a killed run has done: nothing, the journal, the removal of rows, or all but the receipt.
    for n_done in 0..4 {
        let place = folder.path().join(format!("{n_done}.m3i"));
        made(&place, Numbers::F32, Stored::Hashed);
        let gallery = Gallery::open(&place).unwrap();
        let secrets = secrets(4, &gallery);
        let pseudonym = gallery.pseudonym(columns::PATIENT, &number_of(4));
        let generation = gallery.generation();
        let targets = targets::plan(from_ref(&place), &subject(4), &options()).unwrap();
        if n_done > 0 {
            // Everything is done, and then undone but for the journal.
            let copy = folder.path().join("copy.m3i");
            copy_folder(&place, &copy);
            one::erase(&targets[0], &subject(4), &Quiet).unwrap();
            if n_done < 3 {
                let journal = std::fs::read_dir(&place).unwrap().flatten().find(|entry| {
                    let name = entry.file_name();
                    name.to_string_lossy().starts_with(m3ret_search::ERASING)
                });
                let journal = journal.unwrap();
                std::fs::copy(journal.path(), copy.join(journal.file_name())).unwrap();
                std::fs::remove_dir_all(&place).unwrap();
                copy_folder(&copy, &place);
            }
            std::fs::remove_dir_all(&copy).unwrap();
        }
        if n_done == 2 {
            Writer::open(&place).unwrap().remove(&ids_of(4)).unwrap();
        }
        let receipt = erase_one(&place, 4).unwrap();
        let told = &receipt.places[0];
        assert!(receipt.is_proved(), "{n_done}");
        assert_eq!(told.counts.n_rows, N_EACH, "{n_done}");
        assert_eq!(told.generation_before, generation, "{n_done}");
        assert!(told.traces.len() > 3 * N_EACH, "{n_done}");
        assert!(told.n_rows_left == 300 - N_EACH && !told.files_removed.is_empty());
        let files = all_bytes(&place);
        assert!(!secrets.iter().any(|secret| is_there(&files, secret)));
        let is_journal = |path: &PathBuf| path.to_string_lossy().contains(m3ret_search::ERASING);
        assert!(!files.keys().any(is_journal));
        assert!(Gallery::open(&place).unwrap().is_erased(&pseudonym));
        // Once more changes nothing.
        let again = erase_one(&place, 4).unwrap();
        assert!(again.is_proved() && again.counts() == Counts::default());
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn searches_that_began_before_go_on_and_later_ones_see_no_erased_row() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    let before = Gallery::open(&place).unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut n_rows = 300;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                let there = Gallery::open(&place).unwrap();
                assert!(there.len() <= n_rows && there.len().is_multiple_of(N_EACH));
                n_rows = there.len();
                for row in there.rows() {
                    there.vector(row).unwrap();
                }
            }
        });
        for patient in 0..5 {
            assert!(erase_one(&place, patient).unwrap().is_proved());
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap();
    });
    let row = before.find(&id_of(0)).unwrap().unwrap();
    assert_eq!(before.vector(row).unwrap(), unit_vector(0));
    let after = Gallery::open(&place).unwrap();
    assert!(after.find(&id_of(0)).unwrap().is_none() && after.len() == 285);
}

#[test]
fn rows_that_were_removed_before_are_erased_too() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    let secrets = secrets(1, &Gallery::open(&place).unwrap());
    Writer::open(&place).unwrap().remove(&ids_of(1)).unwrap();
    assert!(is_there(&all_bytes(&place), &secrets[0]));
    let receipt = erase_one(&place, 1).unwrap();
    let counts = receipt.counts();
    assert_eq!((counts.n_rows, counts.n_rows_removed_before), (0, N_EACH));
    let files = all_bytes(&place);
    assert!(!secrets.iter().any(|secret| is_there(&files, secret)));
}

#[test]
fn a_snapshot_that_holds_rows_is_refused_or_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    let secrets = secrets(3, &Gallery::open(&place).unwrap());
    let before = contents(&place);
    std::fs::create_dir(place.join("snapshots")).unwrap();
    let snapshot = folder.path().join("first");
    copy_folder_files(&place, &snapshot);
    std::fs::rename(&snapshot, place.join("snapshots/first")).unwrap();
    let files = all_bytes(&place);
    let error = erase_one(&place, 3).unwrap_err().to_string();
    assert!(error.contains("--snapshots"), "{error}");
    assert!(all_bytes(&place) == files);
    let rewriting = EraseOptions {
        snapshots: true,
        ..options()
    };
    let receipt = erase(from_ref(&place), &subject(3), &rewriting, &Quiet).unwrap();
    assert!(receipt.is_proved(), "{receipt:?}");
    let kinds: Vec<PlaceKind> = receipt.places.iter().map(|place| place.kind).collect();
    assert_eq!(kinds, [PlaceKind::Snapshot, PlaceKind::Gallery]);
    let files = all_bytes(&place);
    assert!(!secrets.iter().any(|secret| is_there(&files, secret)));
    let mut wanted = before;
    wanted.retain(|id, _| !ids_of(3).contains(id));
    assert!(contents(&place.join("snapshots/first")) == wanted && contents(&place) == wanted);
}

fn copy_folder_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in m3ret_search::files_of(from).unwrap() {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn what_lies_elsewhere_in_the_folder_is_found_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    std::fs::create_dir_all(place.join("notes/deep")).unwrap();
    std::fs::write(place.join("notes/deep/list.txt"), id_of(9)).unwrap();
    std::fs::write(place.join(format!("{}.txt", number_of(3))), "x").unwrap();
    let receipt = erase_one(&place, 3).unwrap();
    let scan = &receipt.places[0].scan;
    assert!(!receipt.is_proved());
    assert!(scan.n_found >= 2, "{scan:?}");
    assert!(scan.found_in.contains(&"notes/deep/list.txt".to_owned()));
    assert!(!format!("{receipt:?}").contains(&number_of(3)));
    // The damaged files of a repair leave with the patient.
    std::fs::remove_dir_all(place.join("notes")).unwrap();
    std::fs::remove_file(place.join(format!("{}.txt", number_of(3)))).unwrap();
    std::fs::create_dir(place.join("quarantine")).unwrap();
    std::fs::write(place.join("quarantine/x.m3s"), id_of(12)).unwrap();
    assert!(erase_one(&place, 4).unwrap().is_proved());
    assert!(!place.join("quarantine").exists());
}

#[test]
fn a_receipt_proves_itself_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("g.m3i");
    made(&place, Numbers::F32, Stored::Hashed);
    let path = folder.path().join("receipt.json");
    let kept = EraseOptions {
        receipt: Some(path.clone()),
        ..options()
    };
    let receipt = erase(from_ref(&place), &subject(8), &kept, &Quiet).unwrap();
    let places = [place.clone()];
    let check = |patient: Option<&Patient>| verify(&path, &places, patient, &Quiet);
    let patient = Patient::new(&number_of(8), None).unwrap();
    let [told] = &check(Some(&patient)).unwrap()[..] else {
        panic!("one gallery");
    };
    assert!(told.is_good() && told.n_images == 0 && told.is_listed == Some(true));
    assert_eq!(told.scan.n_traces, receipt.places[0].traces.len());
    assert!(check(Some(&Patient::new("PATIENT-0009", None).unwrap())).is_err());
    // Every change of a value is found.
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("tester", "nobody"),
        ("\"n_rows\": 3", "\"n_rows\": 2"),
        ("2026-01-31", "2026-01-30"),
        ("\"n_found\": 0", "\"n_found\": 1"),
        ("\"format\": 1", "\"format\": 2"),
        ("\"reason\"", "\"reasons\""),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        std::fs::write(&path, changed).unwrap();
        assert!(check(None).is_err(), "{from}");
    }
    std::fs::write(&path, &text).unwrap();
    // What comes back is found.
    std::fs::write(place.join("x"), id_of(24)).unwrap();
    assert!(!check(None).unwrap()[0].is_good());
    std::fs::remove_file(place.join("x")).unwrap();
    allow_again(from_ref(&place), &patient, &options()).unwrap();
    put(&mut Writer::open(&place).unwrap(), 24..26, Stored::Hashed);
    let again = &check(None).unwrap()[0];
    assert!(again.n_images == 2 && again.scan.n_found == 0 && !again.is_good());
    let other = folder.path().join("other.m3i");
    made(&other, Numbers::F32, Stored::Hashed);
    assert!(verify(&path, &[other], None, &Quiet).is_err());
}
