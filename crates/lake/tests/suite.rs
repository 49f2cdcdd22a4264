//! A lake answers as the gallery does that it was made of: every method of `Collection`, and searches bit for bit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

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

/// Makes a gallery with labels, empty cells, equal vectors, removed rows, attachments and names that SQL does not like.
fn gallery(folder: &Path, kind: &Kind) -> Gallery {
    let mut random = Random(kind.n_rows as u64);
    let setup = Setup {
        maker: Maker {
            fingerprint: "test:1".to_owned(),
            model: "test".to_owned(),
            precision: "f32".to_owned(),
        },
        width: WIDTH,
        numbers: kind.numbers,
    };
    let mut writer = Writer::create(folder, setup).unwrap();
    let patient = |number: u64| match number {
        0 => String::new(),
        number => format!("{number:032x}"),
    };
    for part in 0..3_u64 {
        let n = kind.n_rows / 3;
        let ids: Vec<String> = (0..n)
            .map(|i| format!("it's {part}/{i} \u{e4}\\"))
            .collect();
        let repeated = random.unit(WIDTH);
        let mut vectors = Vec::new();
        for i in 0..n {
            vectors.extend(if i % 7 == 0 {
                repeated.clone()
            } else {
                random.unit(WIDTH)
            });
        }
        let mut columns = vec![
            (
                "modality".to_owned(),
                (0..n)
                    .map(|_| ["CT", "MR", "US", ""][random.below(4) as usize].to_owned())
                    .collect::<Vec<_>>(),
            ),
            (
                "finding".to_owned(),
                (0..n)
                    .map(|_| {
                        ["a", "b", "a|b", "c| a", "o'n \\ %", ""][random.below(6) as usize]
                            .to_owned()
                    })
                    .collect(),
            ),
            (
                "patient_id".to_owned(),
                (0..n).map(|_| patient(random.below(40))).collect(),
            ),
            ("m3ret:root".to_owned(), vec!["/archive".to_owned(); n]),
        ];
        if part > 0 {
            // A column that the first rows lack, and a name that is m3ret's own in a lake.
            columns.push((
                "odd `name`.x".to_owned(),
                (0..n).map(|i| format!("v{}", i % 3)).collect(),
            ));
            columns.push((
                "vector".to_owned(),
                (0..n).map(|i| format!("w{}", i % 2)).collect(),
            ));
        }
        let thumbnails = (0..n)
            .map(|i| {
                if i % 2 == 0 {
                    vec![1, 2, i as u8]
                } else {
                    Vec::new()
                }
            })
            .collect();
        let attachments = [("thumbnail".to_owned(), thumbnails)];
        let names: Vec<String> = kind.views.iter().map(|&name| name.to_owned()).collect();
        let (mut of, mut further) = (Vec::new(), Vec::new());
        for row in 0..n {
            for name in 0..names.len() {
                if random.below(3) > 0 {
                    of.push(View {
                        row: row as u32,
                        name: name as u32,
                    });
                    further.extend(random.unit(WIDTH));
                }
            }
        }
        writer
            .add(Batch {
                vectors: &vectors,
                ids: &ids,
                columns: &columns,
                attachments: &attachments,
                views: ViewVectors {
                    names: &names,
                    of: &of,
                    vectors: &further,
                },
            })
            .unwrap();
    }
    let gone: Vec<String> = writer
        .gallery()
        .rows()
        .step_by(11)
        .map(|row| writer.gallery().id(row).unwrap().to_owned())
        .collect();
    writer.remove(&gone).unwrap();
    Gallery::open(folder).unwrap()
}

/// Returns where lakes of these tests lie: in the bucket that a variable names, or in a folder.
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

fn by_id(collection: &dyn Collection, rows: &[RowId]) -> Vec<String> {
    collection
        .ids(rows)
        .unwrap()
        .into_iter()
        .map(|id| id.into_owned())
        .collect()
}

/// Says of each hit what must be the same in both.
fn told(
    collection: &dyn Collection,
    hits: &[Vec<RowHit>],
) -> Vec<Vec<(String, u32, Option<String>, Option<u32>)>> {
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
    keys();
    let folder = begin();
    for kind in &KINDS {
        let path = folder.path().join(format!("{}.m3i", kind.name));
        let gallery = gallery(&path, kind);
        let place = lake_place(folder.path(), kind.name);
        assert_eq!(
            import(&path, &place, &|_| {}).unwrap().n_rows,
            gallery.len()
        );
        assert_eq!(
            import(&path, &place, &|_| {}).unwrap().n_rows,
            0,
            "what is there is not imported again"
        );
        let lake = Lake::open(&place).unwrap();
        let near: &dyn Collection = &gallery;
        let far: &dyn Collection = &lake;
        assert_eq!(
            (far.len(), far.width(), far.numbers()),
            (near.len(), near.width(), near.numbers())
        );
        assert_eq!(far.maker(), near.maker());
        assert_eq!(far.views(), near.views());
        let names = |collection: &dyn Collection| {
            collection
                .columns()
                .into_iter()
                .map(str::to_owned)
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(names(far), names(near));
        assert_eq!(
            far.pseudonym("patient_id", "P"),
            near.pseudonym("patient_id", "P")
        );
        let ids: BTreeSet<String> = by_id(near, &near.scan().unwrap()).into_iter().collect();
        let far_rows = far.scan().unwrap();
        assert_eq!(
            by_id(far, &far_rows).into_iter().collect::<BTreeSet<_>>(),
            ids
        );
        let columns: Vec<String> = names(near).into_iter().collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).chain(["none"]).collect();
        let pairs: Vec<(RowId, RowId)> = ids
            .iter()
            .map(|id| {
                (
                    near.find(id).unwrap().unwrap(),
                    far.find(id).unwrap().unwrap(),
                )
            })
            .collect();
        let (near_rows, far_rows): (Vec<RowId>, Vec<RowId>) = pairs.iter().copied().unzip();
        assert_eq!(
            far.rows(&far_rows, &columns).unwrap(),
            near.rows(&near_rows, &columns).unwrap()
        );
        assert_eq!(
            far.vectors(&far_rows).unwrap(),
            near.vectors(&near_rows).unwrap()
        );
        for (near_row, far_row) in pairs.iter().take(20) {
            assert_eq!(
                far.attachment(*far_row, "thumbnail").unwrap(),
                near.attachment(*near_row, "thumbnail").unwrap()
            );
            assert_eq!(
                far.view_vectors(*far_row).unwrap(),
                near.view_vectors(*near_row).unwrap()
            );
        }
        assert_eq!(far.find("none").unwrap(), None);
        for column in &columns {
            assert_eq!(
                far.values(column).unwrap(),
                near.values(column).unwrap(),
                "{column}"
            );
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
            let found = |collection: &dyn Collection| {
                by_id(collection, &collection.find_rows(column, value).unwrap())
                    .into_iter()
                    .collect::<BTreeSet<_>>()
            };
            assert_eq!(found(far), found(near), "{column} {value}");
        }
        assert_eq!(verify(&place).unwrap().findings, []);
        let back = folder.path().join(format!("{} back.m3i", kind.name));
        assert_eq!(export(&place, &back, &|_| {}).unwrap(), near.len());
        let back = Gallery::open(&back).unwrap();
        let again = |row: &RowId| {
            back.find(&gallery.id(*row).unwrap().to_owned())
                .unwrap()
                .unwrap()
        };
        let again: Vec<RowId> = near_rows.iter().map(again).collect();
        assert_eq!(
            Collection::rows(&back, &again, &columns).unwrap(),
            near.rows(&near_rows, &columns).unwrap()
        );
        assert_eq!(
            Collection::vectors(&back, &again).unwrap(),
            near.vectors(&near_rows).unwrap()
        );
        assert_eq!(
            back.pseudonym("patient_id", "P"),
            near.pseudonym("patient_id", "P")
        );
    }
}

#[test]
fn searches_have_the_hits_of_the_gallery_bit_for_bit() {
    keys();
    let folder = begin();
    for kind in &KINDS {
        let path = folder.path().join(format!("{}.m3i", kind.name));
        let gallery = gallery(&path, kind);
        let place = lake_place(folder.path(), kind.name);
        import(&path, &place, &|_| {}).unwrap();
        let lake = Lake::open(&place).unwrap();
        let mut random = Random(7);
        let rows: Vec<RowId> = gallery.rows().collect();
        let n = 4;
        let own: Vec<RowId> = (0..n).map(|i| rows[i * 13 % rows.len()]).collect();
        let mut vectors = Vec::new();
        for row in &own {
            let mut vector = gallery.vector(*row).unwrap();
            normalize(&mut vector).unwrap();
            vectors.extend(vector);
        }
        let further: Vec<Vec<f32>> = (0..n)
            .map(|i| (0..i % 3).flat_map(|_| random.unit(WIDTH)).collect())
            .collect();
        let far_own: Vec<Vec<RowId>> = own
            .iter()
            .map(|row| vec![lake.find(gallery.id(*row).unwrap()).unwrap().unwrap()])
            .collect();
        let near_own: Vec<Vec<RowId>> = own.iter().map(|row| vec![*row]).collect();
        let patients: Vec<String> = own
            .iter()
            .map(|row| gallery.value(*row, "patient_id").unwrap().to_owned())
            .collect();
        let left_out = [
            LeftOut {
                column: "patient_id".to_owned(),
                values: patients,
            },
            LeftOut {
                column: "none".to_owned(),
                values: vec!["x".to_owned(); n],
            },
        ];
        let filter = |column: &str, values: &[&str], is_negated| Filter {
            column: column.to_owned(),
            values: values.iter().map(|&value| value.to_owned()).collect(),
            is_negated,
        };
        let filters = [
            vec![],
            vec![filter("modality", &["CT"], false)],
            vec![
                filter("modality", &["CT", "MR"], true),
                filter("finding", &["a"], false),
            ],
            vec![filter("finding", &["a", "o'n \\ %"], true)],
            vec![filter("modality", &[""], false)],
            vec![filter("odd `name`.x", &["v1", ""], false)],
        ];
        let views = [
            Views::Own,
            Views::default(),
            Views::Projections { handicap: 0.0 },
            Views::Slices,
        ];
        let mut n_compared = 0;
        for filters in &filters {
            for (number, &views) in views.iter().enumerate() {
                for group_by in [
                    None,
                    Some("patient_id".to_owned()),
                    Some("finding".to_owned()),
                ] {
                    let (k, has_own) = ([3, 40, 1000, 1][number], number % 2 == 0);
                    let options = SearchOptions {
                        k,
                        method: Method::Exact,
                        filters: filters.clone(),
                        group_by,
                        views,
                    };
                    let asked = |own: &[Vec<RowId>], collection: &dyn Collection| {
                        let queries = Queries {
                            vectors: &vectors,
                            own: if has_own { own } else { &[] },
                            left_out: if has_own { &left_out } else { &[] },
                            further: if number == 0 { &[] } else { &further },
                        };
                        told(collection, &collection.search(queries, &options).unwrap())
                    };
                    let (near, far) = (asked(&near_own, &gallery), asked(&far_own, &lake));
                    assert_eq!(far, near, "{} {options:?}", kind.name);
                    n_compared += near.iter().map(Vec::len).sum::<usize>();
                    // Without an index the quick search is the exact one.
                    let options = SearchOptions {
                        method: Method::Auto,
                        ..options
                    };
                    let queries = Queries {
                        vectors: &vectors,
                        ..Queries::default()
                    };
                    let quick = told(&lake, &lake.search(queries, &options).unwrap());
                    let exact = SearchOptions {
                        method: Method::Exact,
                        ..options
                    };
                    assert_eq!(
                        quick,
                        told(&gallery, &gallery.search(queries, &exact).unwrap())
                    );
                }
            }
        }
        assert!(n_compared > 1000, "{n_compared}");
    }
}

#[test]
fn what_a_gallery_refuses_a_lake_refuses() {
    keys();
    let folder = begin();
    let path = folder.path().join("g.m3i");
    let gallery = gallery(&path, &KINDS[0]);
    let place = lake_place(folder.path(), "g");
    import(&path, &place, &|_| {}).unwrap();
    let lake = Lake::open(&place).unwrap();
    let good = Random(3).unit(WIDTH);
    let filter = |column: &str, value: &str| Filter {
        column: column.to_owned(),
        values: vec![value.to_owned()],
        is_negated: false,
    };
    let options = SearchOptions {
        k: 3,
        ..SearchOptions::default()
    };
    let wrong = [
        (vec![0.0; WIDTH], options.clone()),
        (vec![1.0; WIDTH - 1], options.clone()),
        (
            good.clone(),
            SearchOptions {
                filters: vec![filter("modality", "XX")],
                ..options.clone()
            },
        ),
        (
            good.clone(),
            SearchOptions {
                filters: vec![filter("modalty", "CT")],
                ..options.clone()
            },
        ),
        (
            good.clone(),
            SearchOptions {
                group_by: Some("none".to_owned()),
                ..options.clone()
            },
        ),
        (
            good.clone(),
            SearchOptions {
                views: Views::Projections { handicap: -1.0 },
                ..options.clone()
            },
        ),
    ];
    for (vectors, options) in &wrong {
        let queries = Queries {
            vectors,
            ..Queries::default()
        };
        let near = gallery.search(queries, options).unwrap_err().to_string();
        let mut far = lake.search(queries, options).unwrap_err().to_string();
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
        ..lake.maker().clone()
    };
    assert_eq!(
        lake.check_maker(&other).unwrap_err().to_string(),
        Collection::check_maker(&gallery, &other)
            .unwrap_err()
            .to_string()
    );
    // A lake of another key takes no hashes of this one.
    let key = LakeKey::draw().unwrap();
    let setup = Setup {
        maker: lake.maker().clone(),
        width: WIDTH,
        numbers: Numbers::F32,
    };
    let second = lake_place(folder.path(), "second");
    LakeWriter::create(&second, &setup, &key).unwrap();
    let told = import(&path, &second, &|_| {}).unwrap_err().to_string();
    assert!(
        told.contains("hashes of patients mean nothing here"),
        "{told}"
    );
    assert!(
        LakeWriter::create(&second, &setup, &key).is_err(),
        "there is one"
    );
}
