//! Several writers, upkeep and erasure: what is there afterwards, and what is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use m3ret_lake::{
    Lake, LakeKey, LakeWriter, MaintainOptions, Rows, allow_again, erase, is_erased, keep_in,
    maintain, search_for, verify,
};
use m3ret_search::{
    Collection, Filter, Maker, Method, Numbers, Queries, SearchOptions, Setup, normalize,
};

const WIDTH: usize = 32;

fn keys() {
    static KEYS: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let folder = KEYS.get_or_init(|| tempfile::tempdir().unwrap());
    keep_in(folder.path());
}

fn setup() -> Setup {
    Setup {
        maker: Maker {
            fingerprint: "test:1".to_owned(),
            model: "test".to_owned(),
            precision: "f32".to_owned(),
        },
        width: WIDTH,
        numbers: Numbers::F32,
    }
}

/// Makes an empty lake in a folder.
fn lake(folder: &Path) -> PathBuf {
    keys();
    let place = folder.join("lake");
    LakeWriter::create(&place, &setup(), &LakeKey::draw().unwrap()).unwrap();
    place
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// A unit vector near one of some centres.
    fn vector(&mut self, n_centres: u64) -> Vec<f32> {
        let mut centre = Self(self.below(n_centres));
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let mut vector: Vec<f32> = (0..WIDTH)
            .map(|_| centre.below(2001) as f32 - 1000.0 + 0.3 * (self.below(2001) as f32 - 1000.0))
            .collect();
        normalize(&mut vector).unwrap();
        vector
    }
}

/// Rows with ids `first`.., patients `P0` to `P9`, hashed with the key of the lake.
fn rows(writer: &LakeWriter, first: usize, n: usize, seed: u64) -> Rows {
    let mut random = Random(seed);
    let cells = |of: &dyn Fn(usize) -> String| (first..first + n).map(of).collect::<Vec<_>>();
    Rows {
        vectors: (0..n).flat_map(|_| random.vector(50)).collect(),
        ids: cells(&|row| format!("image {row:07}")),
        columns: vec![
            (
                "patient_id".to_owned(),
                cells(&|row| {
                    writer
                        .key()
                        .pseudonym("patient_id", &format!("P{}", row % 10))
                }),
            ),
            (
                "modality".to_owned(),
                cells(&|row| ["CT", "MR", "US"][row % 3].to_owned()),
            ),
        ],
        ..Rows::default()
    }
}

const COLUMNS: [&str; 2] = ["patient_id", "modality"];

fn add(
    writer: &mut LakeWriter,
    pieces: Vec<(String, Rows)>,
) -> m3ret_search::Result<m3ret_lake::Added> {
    writer.add(&COLUMNS.map(str::to_owned), &[], pieces.into_iter().map(Ok))
}

#[test]
fn one_origin_of_several_writers_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let place = lake(folder.path());
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let place = &place;
            scope.spawn(move || {
                let mut open = LakeWriter::open(place).unwrap();
                // Two bring the same, two something of their own.
                let own = writer.min(2);
                let first = 1000 * own;
                let piece = (format!("run {own}"), rows(&open, first, 500, own as u64));
                let added = add(&mut open, vec![piece]);
                // Who looks late may find the ids there.
                let told = added.as_ref().map_err(ToString::to_string);
                assert!(added.is_ok() || told.unwrap_err().contains("in the lake already"));
            });
        }
    });
    assert_eq!(verify(&place).unwrap().findings, []);
    assert_eq!(Lake::open(&place).unwrap().len(), 1500);
    let writer = LakeWriter::open(&place).unwrap();
    let origins = ["run 0", "run 1", "run 2", "run 3"].map(str::to_owned);
    assert_eq!(writer.origins(&origins).unwrap().len(), 3);
}

#[test]
fn what_is_refused_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = lake(folder.path());
    let mut writer = LakeWriter::open(&place).unwrap();
    let good = rows(&writer, 0, 100, 1);
    add(&mut writer, vec![("a".to_owned(), good.clone())]).unwrap();
    let before = Lake::open(&place).unwrap();
    let new = rows(&writer, 100, 100, 2);
    let with = |change: &dyn Fn(&mut Rows)| {
        let mut rows = new.clone();
        change(&mut rows);
        rows
    };
    let wrong = [
        (
            "in the lake already",
            vec![new.clone(), rows(&writer, 50, 10, 3)],
        ),
        ("an id that came before", vec![new.clone(), new.clone()]),
        ("an empty id", vec![with(&|rows| rows.ids[7].clear())]),
        ("length 1", vec![with(&|rows| rows.vectors[3] = 9.0)]),
        (
            "infinite or not a number",
            vec![with(&|rows| rows.vectors[3] = f32::NAN)],
        ),
        (
            "rows of modality",
            vec![with(&|rows| _ = rows.columns[1].1.pop())],
        ),
    ];
    for (number, (told, pieces)) in wrong.into_iter().enumerate() {
        let pieces = pieces.into_iter().enumerate();
        let pieces = pieces.map(|(piece, rows)| (format!("wrong {number} {piece}"), rows));
        let error = add(&mut writer, pieces.collect()).unwrap_err().to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
    let after = Lake::open(&place).unwrap();
    assert_eq!(
        (after.len(), after.version()),
        (before.len(), before.version())
    );
    assert_eq!(verify(&place).unwrap().findings, []);
    // Readers stay with what they opened.
    add(&mut writer, vec![("b".to_owned(), new)]).unwrap();
    assert_eq!(before.len(), 100);
    assert_eq!(before.find("image 0000150").unwrap(), None);
    assert_eq!(Lake::open(&place).unwrap().len(), 200);
}

/// The share of exact hits that a quick search finds.
fn recall(lake: &Lake, queries: &[f32], filters: &[Filter]) -> f64 {
    let found = |method| {
        let options = SearchOptions {
            k: 10,
            method,
            filters: filters.to_vec(),
            ..SearchOptions::default()
        };
        let queries = Queries {
            vectors: queries,
            ..Queries::default()
        };
        let hits = lake.search(queries, &options).unwrap();
        let ids = hits.into_iter().map(|hits| {
            let rows: Vec<_> = hits.iter().map(|hit| hit.row).collect();
            let ids = lake
                .ids(&rows)
                .unwrap()
                .into_iter()
                .map(|id| id.into_owned());
            ids.collect::<HashSet<String>>()
        });
        ids.collect::<Vec<_>>()
    };
    let (quick, exact) = (found(Method::Auto), found(Method::Exact));
    let shared = quick
        .iter()
        .zip(&exact)
        .map(|(a, b)| a.intersection(b).count());
    let n: usize = exact.iter().map(HashSet::len).sum();
    assert_eq!(n, 10 * exact.len());
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let share = shared.sum::<usize>() as f64 / n as f64;
    share
}

#[test]
fn an_index_finds_what_was_measured_and_rows_that_came_later() {
    let folder = tempfile::tempdir().unwrap();
    let place = lake(folder.path());
    let mut writer = LakeWriter::open(&place).unwrap();
    let piece = rows(&writer, 0, 22_000, 5);
    add(&mut writer, vec![("a".to_owned(), piece)]).unwrap();
    let done = maintain(&place, &MaintainOptions::default(), &|_| {}).unwrap();
    let plans = done.plans.unwrap();
    assert_eq!(
        (done.n_rows, done.n_unindexed, plans.n_lists),
        (22_000, 0, 16)
    );
    assert!(
        plans.levels.iter().all(|level| level.recall >= 0.99),
        "{plans:?}"
    );
    let mut random = Random(99);
    let queries: Vec<f32> = (0..30).flat_map(|_| random.vector(50)).collect();
    let opened = Lake::open(&place).unwrap();
    let filter = |value: &str| Filter {
        column: "modality".to_owned(),
        values: vec![value.to_owned()],
        is_negated: false,
    };
    for filters in [vec![], vec![filter("CT")], vec![filter("US")]] {
        let recall = recall(&opened, &queries, &filters);
        assert!(recall >= 0.97, "{filters:?}: {recall}");
    }
    // Rows that no index covers are found by their own vectors.
    let later = rows(&writer, 30_000, 300, 6);
    let own = later.vectors[..WIDTH].to_vec();
    add(&mut writer, vec![("b".to_owned(), later)]).unwrap();
    let opened = Lake::open(&place).unwrap();
    let options = SearchOptions {
        k: 1,
        ..SearchOptions::default()
    };
    let first = |lake: &Lake| {
        let queries = Queries {
            vectors: &own,
            ..Queries::default()
        };
        let hits = lake.search(queries, &options).unwrap();
        lake.id(hits[0][0].row).unwrap().into_owned()
    };
    assert_eq!(first(&opened), "image 0030000");
    let done = maintain(&place, &MaintainOptions::default(), &|_| {}).unwrap();
    assert_eq!((done.n_rows, done.n_unindexed), (22_300, 0));
    assert_eq!(first(&Lake::open(&place).unwrap()), "image 0030000");
    assert_eq!(verify(&place).unwrap().findings, []);
}

/// Returns which files below a folder hold some bytes.
fn files_with(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path)
                .unwrap()
                .windows(needle.len())
                .any(|part| part == needle)
            {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn an_erased_patient_leaves_no_byte_and_is_not_added_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = lake(folder.path());
    let mut writer = LakeWriter::open(&place).unwrap();
    let all = rows(&writer, 0, 21_000, 7);
    let theirs: Vec<usize> = (0..21_000).filter(|row| row % 10 == 4).collect();
    // Vectors are stored as they are; texts may be compressed, and are looked for afterwards only.
    let vectors: Vec<Vec<u8>> = theirs[..20]
        .iter()
        .map(|&row| {
            let vector = all.vectors[row * WIDTH..][..16].iter();
            vector.flat_map(|x| x.to_le_bytes()).collect()
        })
        .collect();
    let ids = theirs[..20]
        .iter()
        .map(|&row| all.ids[row].clone().into_bytes());
    let ids: Vec<Vec<u8>> = ids.collect();
    let pseudonym = writer.key().pseudonym("patient_id", "P4");
    add(&mut writer, vec![("a".to_owned(), all)]).unwrap();
    maintain(&place, &MaintainOptions::default(), &|_| {}).unwrap();
    let is_there = |needle: &Vec<u8>| !files_with(&place, needle).is_empty();
    assert!(vectors.iter().all(is_there), "they are there before");

    let erased = erase(&place, &pseudonym, &|_| {}).unwrap();
    assert_eq!((erased.n_rows, erased.was_listed), (theirs.len(), false));
    assert_eq!(erased.searched.leftovers, []);
    let text = pseudonym.clone().into_bytes();
    assert!(!vectors.iter().chain(&ids).chain([&text]).any(is_there));
    let opened = Lake::open(&place).unwrap();
    assert_eq!(opened.len(), 21_000 - theirs.len());
    assert_eq!(opened.find_rows("patient_id", &pseudonym).unwrap(), []);
    assert_eq!(verify(&place).unwrap().findings, []);
    assert_eq!(search_for(&place, &erased.traces).unwrap().leftovers, []);
    assert_eq!(is_erased(&place, &pseudonym).unwrap(), [true, false]);

    let again = rows(&writer, 50_000, 100, 8);
    let added = add(&mut writer, vec![("b".to_owned(), again)]).unwrap();
    assert_eq!((added.n_rows, added.n_erased), (90, 10));
    assert!(allow_again(&place, &pseudonym).unwrap() && !allow_again(&place, &pseudonym).unwrap());
    let again = rows(&writer, 60_000, 100, 9);
    let added = add(&mut writer, vec![("c".to_owned(), again)]).unwrap();
    assert_eq!((added.n_rows, added.n_erased), (100, 0));
    // What is there again is found again.
    assert_ne!(search_for(&place, &erased.traces).unwrap().leftovers, []);
}
