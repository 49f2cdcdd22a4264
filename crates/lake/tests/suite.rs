//! A lake answers as the gallery does that it was made of: every method of `Collection`, and searches bit for bit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use m3ret_lake::{Lake, LakeKey, LakeWriter, export, import, verify};
use m3ret_search::{
    Batch, Collection, Filter, Gallery, LeftOut, Maker, Method, Numbers, Queries, RowHit, RowId,
    SearchOptions, Setup, View, ViewVectors, Views, Writer, normalize,
};

/// Numbers that look random, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn unit(&mut self, width: usize) -> Vec<f32> {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let mut vector: Vec<f32> = (0..width)
            .map(|_| self.below(2001) as f32 - 1000.5)
            .collect();
        normalize(&mut vector).unwrap();
        vector
    }
}

const WIDTH: usize = 32;

/// What a test gallery is like.
struct Kind {
    name: &'static str,
    n_rows: usize,
    numbers: Numbers,
    views: &'static [&'static str],
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "plain",
        n_rows: 300,
        numbers: Numbers::F32,
        views: &[],
    },
    Kind {
        name: "half",
        n_rows: 200,
        numbers: Numbers::F16,
        views: &[],
    },
    Kind {
        name: "views",
        n_rows: 150,
        numbers: Numbers::F32,
        views: &["front", "side", "slice 1/2", "slice 2/2"],
    },
    Kind {
        name: "views of 16 bits",
        n_rows: 90,
        numbers: Numbers::F16,
        views: &["front", "slice 1/1"],
    },
];

/// Returns `n` cells that are each drawn from some values.
fn drawn(random: &mut Random, n: usize, values: &[&str]) -> Vec<String> {
    let n_values = values.len() as u64;
    (0..n)
        .map(|_| values[random.below(n_values) as usize].to_owned())
        .collect()
}

/// Columns of one part of a gallery: labels, empty cells, and names that SQL does not like.
fn columns(random: &mut Random, n: usize, is_first: bool) -> Vec<(String, Vec<String>)> {
    let patients = (0..40).map(|number| match number {
        0 => String::new(),
        number => format!("{number:032x}"),
    });
    let patients: Vec<String> = patients.collect();
    let patients: Vec<&str> = patients.iter().map(String::as_str).collect();
    let findings = ["a", "b", "a|b", "c| a", "o'n \\ %", ""];
    let mut columns = vec![
        ("modality", drawn(random, n, &["CT", "MR", "US", ""])),
        ("finding", drawn(random, n, &findings)),
        ("patient_id", drawn(random, n, &patients)),
        ("m3ret:root", vec!["/archive".to_owned(); n]),
    ];
    if !is_first {
        // A column that the first rows lack, and a name that is m3ret's own in a lake.
        let odd = (0..n).map(|i| format!("v{}", i % 3)).collect();
        columns.push(("odd `name`.x", odd));
        columns.push(("vector", (0..n).map(|i| format!("w{}", i % 2)).collect()));
    }
    let named = columns.into_iter();
    named
        .map(|(name, cells)| (name.to_owned(), cells))
        .collect()
}

/// Further vectors of two thirds of all rows and views.
fn views(random: &mut Random, n: usize, n_names: usize) -> (Vec<View>, Vec<f32>) {
    let (mut of, mut vectors) = (Vec::new(), Vec::new());
    for row in 0..n as u32 {
        for name in 0..n_names as u32 {
            if random.below(3) > 0 {
                of.push(View { row, name });
                vectors.extend(random.unit(WIDTH));
            }
        }
    }
    (of, vectors)
}

fn setup(numbers: Numbers) -> Setup {
    Setup {
        maker: Maker {
            fingerprint: "test:1".to_owned(),
            model: "test".to_owned(),
            precision: "f32".to_owned(),
        },
        width: WIDTH,
        numbers,
    }
}

/// Makes a gallery with labels, empty cells, equal vectors, removed rows, attachments and names that SQL does not like.
fn gallery(folder: &Path, kind: &Kind) -> Gallery {
    let mut random = Random(kind.n_rows as u64);
    let mut writer = Writer::create(folder, setup(kind.numbers)).unwrap();
    let names: Vec<String> = kind.views.iter().map(|&name| name.to_owned()).collect();
    for part in 0..3 {
        let n = kind.n_rows / 3;
        let ids: Vec<String> = (0..n)
            .map(|i| format!("it's {part}/{i} \u{e4}\\"))
            .collect();
        let repeated = random.unit(WIDTH);
        let vector = |i: usize| match i % 7 {
            0 => repeated.clone(),
            _ => random.unit(WIDTH),
        };
        let vectors: Vec<f32> = (0..n).flat_map(vector).collect();
        let columns = columns(&mut random, n, part == 0);
        let thumbnail = |i: usize| match i % 2 {
            0 => vec![1, 2, i as u8],
            _ => Vec::new(),
        };
        let thumbnails = (0..n).map(thumbnail).collect();
        let (of, further) = views(&mut random, n, names.len());
        let batch = Batch {
            vectors: &vectors,
            ids: &ids,
            columns: &columns,
            attachments: &[("thumbnail".to_owned(), thumbnails)],
            views: ViewVectors {
                names: &names,
                of: &of,
                vectors: &further,
            },
        };
        writer.add(batch).unwrap();
    }
    let gone = writer.gallery().rows().step_by(11);
    let gone = gone.map(|row| writer.gallery().id(row).unwrap().to_owned());
    let gone: Vec<String> = gone.collect();
    writer.remove(&gone).unwrap();
    Gallery::open(folder).unwrap()
}

/// Returns where lakes of these tests lie: in the bucket that a variable names, or in a folder.
#[expect(clippy::disallowed_methods, reason = "tests are told by variables")]
fn lake_place(folder: &Path, name: &str) -> PathBuf {
    match std::env::var("M3RET_TEST_BUCKET") {
        Ok(bucket) => {
            let unique = folder
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .trim_start_matches('.')
                .to_owned();
            PathBuf::from(format!("s3://{bucket}/{unique}/{name}"))
        }
        Err(_) => folder.join(name),
    }
}

/// A folder for one test, with the keys of its lakes.
fn begin() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Keys lie in one folder for all tests of this process.
fn keys() -> &'static tempfile::TempDir {
    static KEYS: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    KEYS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        m3ret_lake::keep_in(folder.path());
        folder
    })
}

/// A gallery, and the lake that was made of it.
struct Pair {
    gallery: Gallery,
    lake: Lake,
    /// Where the gallery lies.
    path: PathBuf,
    /// Where the lake lies.
    place: PathBuf,
}

impl Pair {
    fn new(folder: &Path, kind: &Kind) -> Self {
        keys();
        let path = folder.join(format!("{}.m3i", kind.name));
        let gallery = gallery(&path, kind);
        let place = lake_place(folder, kind.name);
        let imported = import(&path, &place, &|_| {}).unwrap();
        assert_eq!(imported.n_rows, gallery.len());
        let lake = Lake::open(&place).unwrap();
        Self {
            gallery,
            lake,
            path,
            place,
        }
    }

    /// What both return must be equal.
    fn same<T: PartialEq + std::fmt::Debug>(&self, of: impl Fn(&dyn Collection) -> T) {
        assert_eq!(of(&self.lake), of(&self.gallery));
    }

    /// The rows of some ids in the gallery, and in the lake.
    fn rows<'a>(&self, ids: impl IntoIterator<Item = &'a String>) -> [Vec<RowId>; 2] {
        let rows = ids.into_iter().map(|id| {
            let near = self.gallery.find(id).unwrap().unwrap();
            (near, self.lake.find(id).unwrap().unwrap())
        });
        let (near, far) = rows.unzip();
        [near, far]
    }
}

fn by_id(collection: &dyn Collection, rows: &[RowId]) -> Vec<String> {
    let ids = collection.ids(rows).unwrap().into_iter();
    ids.map(|id| id.into_owned()).collect()
}

fn as_set(collection: &dyn Collection, rows: &[RowId]) -> BTreeSet<String> {
    by_id(collection, rows).into_iter().collect()
}

fn all_columns(collection: &dyn Collection) -> BTreeSet<String> {
    let columns = collection.columns().into_iter();
    columns.map(str::to_owned).collect()
}

/// What must be the same of a hit: id, bits of the score, views of both.
type Told = (String, u32, Option<String>, Option<u32>);

/// Says of each hit what must be the same in both.
fn told(collection: &dyn Collection, hits: &[Vec<RowHit>]) -> Vec<Vec<Told>> {
    let views: Vec<String> = collection.views().into_iter().map(str::to_owned).collect();
    let of_query = |hits: &Vec<RowHit>| {
        let rows: Vec<RowId> = hits.iter().map(|hit| hit.row).collect();
        let ids = by_id(collection, &rows);
        let hits = hits.iter().zip(ids).map(|(hit, id)| {
            let view = hit.view.map(|view| views[view.0 as usize].clone());
            (id, hit.score.to_bits(), view, hit.query_vector)
        });
        hits.collect()
    };
    hits.iter().map(of_query).collect()
}

#[test]
fn every_method_answers_as_that_of_the_gallery() {
    let folder = begin();
    for kind in &KINDS {
        let pair = Pair::new(folder.path(), kind);
        let again = import(&pair.path, &pair.place, &|_| {}).unwrap();
        assert_eq!(again.n_rows, 0, "what is there is not imported again");
        pair.same(|one| (one.len(), one.width(), one.numbers()));
        pair.same(|one| one.maker().clone());
        pair.same(|one| one.views().join(" "));
        pair.same(all_columns);
        pair.same(|one| one.pseudonym("patient_id", "P"));
        pair.same(|one| as_set(one, &one.scan().unwrap()));
        pair.same(|one| one.find("none").unwrap());
        for column in all_columns(&pair.gallery) {
            let owned = |one: &dyn Collection| {
                let values = one.values(&column).unwrap().into_iter();
                values.map(|value| value.into_owned()).collect::<Vec<_>>()
            };
            pair.same(owned);
        }
        for (column, value) in [
            ("modality", "CT"),
            ("modality", ""),
            ("finding", "a"),
            ("finding", "o'n \\ %"),
            ("none", ""),
            ("none", "x"),
            ("odd `name`.x", "v1"),
        ] {
            pair.same(|one| as_set(one, &one.find_rows(column, value).unwrap()));
        }
        rows_are_the_same(&pair);
        walks_are_the_same(&pair);
        way_back_loses_nothing(&pair, &folder.path().join("back"));
    }
}

/// Compares what is asked of some rows.
fn rows_are_the_same(pair: &Pair) {
    let (near, far) = (&pair.gallery, &pair.lake);
    let ids = as_set(near, &Collection::scan(near).unwrap());
    let [near_rows, far_rows] = pair.rows(&ids);
    let columns = all_columns(near);
    let columns: Vec<&str> = columns.iter().map(String::as_str).chain(["none"]).collect();
    let cells = Collection::rows(near, &near_rows, &columns).unwrap();
    assert_eq!(far.rows(&far_rows, &columns).unwrap(), cells);
    let vectors = Collection::vectors(near, &near_rows).unwrap();
    assert_eq!(far.vectors(&far_rows).unwrap(), vectors);
    for (near_row, far_row) in near_rows.into_iter().zip(far_rows).take(20) {
        let attached = Collection::attachment(near, near_row, "thumbnail").unwrap();
        assert_eq!(far.attachment(far_row, "thumbnail").unwrap(), attached);
        let views = Collection::view_vectors(near, near_row).unwrap();
        assert_eq!(far.view_vectors(far_row).unwrap(), views);
    }
}

/// Compares walks over all rows with what `scan` and `rows` return.
fn walks_are_the_same(pair: &Pair) {
    let columns = ["finding", "none", "odd `name`.x", "finding"];
    for one in [&pair.gallery as &dyn Collection, &pair.lake] {
        let mut walked: Vec<(RowId, Vec<String>)> = Vec::new();
        one.each_row(&columns, &mut |row, cells| {
            walked.push((row, cells.iter().map(|cell| cell.to_string()).collect()));
        })
        .unwrap();
        let rows = one.scan().unwrap();
        let cells = one.rows(&rows, &columns).unwrap();
        let asked = rows.into_iter().zip(cells);
        let asked =
            asked.map(|(row, cells)| (row, cells.iter().map(|cell| cell.to_string()).collect()));
        assert_eq!(walked, asked.collect::<Vec<_>>());
    }
}

/// Exports the lake and compares the gallery that comes of it.
fn way_back_loses_nothing(pair: &Pair, back: &Path) {
    let near = &pair.gallery;
    assert_eq!(verify(&pair.place).unwrap().findings, []);
    assert_eq!(export(&pair.place, back, &|_| {}).unwrap(), near.len());
    let again = Gallery::open(back).unwrap();
    let rows: Vec<RowId> = near.rows().collect();
    let ids = by_id(near, &rows);
    let rows_again: Vec<RowId> = ids
        .iter()
        .map(|id| again.find(id).unwrap().unwrap())
        .collect();
    let columns = all_columns(near);
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    assert_eq!(
        Collection::rows(&again, &rows_again, &columns).unwrap(),
        Collection::rows(near, &rows, &columns).unwrap()
    );
    assert_eq!(
        Collection::vectors(&again, &rows_again).unwrap(),
        Collection::vectors(near, &rows).unwrap()
    );
    let hash = |one: &Gallery| one.pseudonym("patient_id", "P");
    assert_eq!(hash(&again), hash(near));
    std::fs::remove_dir_all(back).unwrap();
}

/// Some rows of a gallery, asked for.
struct Asked {
    vectors: Vec<f32>,
    /// The rows in the gallery, and in the lake.
    own: [Vec<Vec<RowId>>; 2],
    left_out: [LeftOut; 2],
    further: Vec<Vec<f32>>,
}

impl Asked {
    fn new(pair: &Pair) -> Self {
        let mut random = Random(7);
        let rows: Vec<RowId> = pair.gallery.rows().collect();
        let n = 4;
        let rows: Vec<RowId> = (0..n).map(|i| rows[i * 13 % rows.len()]).collect();
        let mut vectors = Collection::vectors(&pair.gallery, &rows).unwrap();
        for vector in vectors.chunks_exact_mut(WIDTH) {
            normalize(vector).unwrap();
        }
        let further = (0..n).map(|i| (0..i % 3).flat_map(|_| random.unit(WIDTH)).collect());
        let further = further.collect();
        let patients = Collection::rows(&pair.gallery, &rows, &["patient_id"]).unwrap();
        let patients = patients
            .concat()
            .iter()
            .map(|cell| cell.to_string())
            .collect();
        let left_out = [("patient_id", patients), ("none", vec!["x".to_owned(); n])];
        let own = pair.rows(&by_id(&pair.gallery, &rows));
        Self {
            vectors,
            own: own.map(|rows| rows.into_iter().map(|row| vec![row]).collect()),
            left_out: left_out.map(|(column, values)| LeftOut {
                column: column.to_owned(),
                values,
            }),
            further,
        }
    }

    /// The queries to the gallery (0) or the lake (1).
    fn queries(&self, collection: usize, has_own: bool, has_further: bool) -> Queries<'_> {
        Queries {
            vectors: &self.vectors,
            own: if has_own { &self.own[collection] } else { &[] },
            left_out: if has_own { &self.left_out } else { &[] },
            further: if has_further { &self.further } else { &[] },
        }
    }
}

fn filter(column: &str, values: &[&str], is_negated: bool) -> Filter {
    Filter {
        column: column.to_owned(),
        values: values.iter().map(|&value| value.to_owned()).collect(),
        is_negated,
    }
}

fn filters() -> [Vec<Filter>; 6] {
    [
        vec![],
        vec![filter("modality", &["CT"], false)],
        vec![
            filter("modality", &["CT", "MR"], true),
            filter("finding", &["a"], false),
        ],
        vec![filter("finding", &["a", "o'n \\ %"], true)],
        vec![filter("modality", &[""], false)],
        vec![filter("odd `name`.x", &["v1", ""], false)],
    ]
}

#[test]
fn searches_have_the_hits_of_the_gallery_bit_for_bit() {
    let folder = begin();
    let views = [
        Views::Own,
        Views::default(),
        Views::Projections { handicap: 0.0 },
        Views::Slices,
    ];
    for kind in &KINDS {
        let pair = Pair::new(folder.path(), kind);
        let asked = Asked::new(&pair);
        let mut n_compared = 0;
        for filters in filters() {
            for (number, views) in views.into_iter().enumerate() {
                for group_by in [None, Some("patient_id"), Some("finding")] {
                    let options = SearchOptions {
                        k: [3, 40, 1000, 1][number],
                        method: Method::Exact,
                        filters: filters.clone(),
                        group_by: group_by.map(str::to_owned),
                        views,
                    };
                    n_compared += hits_are_the_same(&pair, &asked, &options, number);
                }
            }
        }
        assert!(n_compared > 1000, "{n_compared}");
    }
}

/// Compares searches with and without own rows and further vectors; returns how many hits were compared.
fn hits_are_the_same(pair: &Pair, asked: &Asked, options: &SearchOptions, number: usize) -> usize {
    let (has_own, has_further) = (number.is_multiple_of(2), number != 0);
    let (near, far) = (&pair.gallery, &pair.lake);
    let search = |one: &dyn Collection, queries, options: &SearchOptions| {
        told(one, &one.search(queries, options).unwrap())
    };
    let found = search(near, asked.queries(0, has_own, has_further), options);
    let found_far = search(far, asked.queries(1, has_own, has_further), options);
    assert_eq!(found_far, found, "{} {options:?}", pair.place.display());
    // Without an index the quick search is the exact one.
    let quick = SearchOptions {
        method: Method::Auto,
        ..options.clone()
    };
    assert_eq!(
        search(far, asked.queries(1, false, false), &quick),
        search(near, asked.queries(0, false, false), options)
    );
    found.iter().map(Vec::len).sum()
}

#[test]
fn what_a_gallery_refuses_a_lake_refuses() {
    let folder = begin();
    let pair = Pair::new(folder.path(), &KINDS[0]);
    let good = Random(3).unit(WIDTH);
    let plain = SearchOptions {
        k: 3,
        ..SearchOptions::default()
    };
    let filtered = |column, value| SearchOptions {
        filters: vec![filter(column, &[value], false)],
        ..plain.clone()
    };
    let grouped = SearchOptions {
        group_by: Some("none".to_owned()),
        ..plain.clone()
    };
    let handicapped = SearchOptions {
        views: Views::Projections { handicap: -1.0 },
        ..plain.clone()
    };
    let wrong = [
        (vec![0.0; WIDTH], plain.clone()),
        (vec![1.0; WIDTH - 1], plain.clone()),
        (good.clone(), filtered("modality", "XX")),
        (good.clone(), filtered("modalty", "CT")),
        (good.clone(), grouped),
        (good.clone(), handicapped),
    ];
    for (vectors, options) in &wrong {
        let queries = Queries {
            vectors,
            ..Queries::default()
        };
        let near = pair.gallery.search(queries, options);
        let near = near.unwrap_err().to_string();
        let far = pair.lake.search(queries, options);
        let mut far = far.unwrap_err().to_string();
        // Columns stand in another order.
        if near.contains("one of the gallery's") {
            far = far.split(':').next().unwrap().to_owned();
            assert!(near.starts_with(&far), "{near} / {far}");
        } else {
            assert_eq!(far, near);
        }
    }
    let other = Maker {
        fingerprint: "other".to_owned(),
        ..pair.lake.maker().clone()
    };
    pair.same(|one| one.check_maker(&other).unwrap_err().to_string());
}

#[test]
fn a_lake_of_another_key_takes_no_hashes() {
    let folder = begin();
    let pair = Pair::new(folder.path(), &KINDS[0]);
    let key = LakeKey::draw().unwrap();
    let second = lake_place(folder.path(), "second");
    LakeWriter::create(&second, &setup(Numbers::F32), &key).unwrap();
    let told = import(&pair.path, &second, &|_| {}).unwrap_err();
    let told = told.to_string();
    assert!(
        told.contains("hashes of patients mean nothing here"),
        "{told}"
    );
    let again = LakeWriter::create(&second, &setup(Numbers::F32), &key);
    assert!(again.is_err(), "there is one");
}
