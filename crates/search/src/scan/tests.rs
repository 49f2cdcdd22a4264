//! The scan against plain definitions.

mod short;
mod views;

use std::collections::HashSet;

use super::calibrate::recall;
use super::*;
use crate::gallery::{Numbers, Writer};
use crate::kernels::dot;
use crate::testing::{TestRows, gallery, vectors};

const WIDTH: usize = 40;

/// Sorts all rows that `allows` by score, then by id: what a search should find.
fn expected(
    gallery: &Gallery,
    query: &[f32],
    k: usize,
    allows: impl Fn(RowId) -> bool,
) -> Vec<(String, f32)> {
    let mut all: Vec<(String, f32)> = gallery
        .rows()
        .filter(|&row| allows(row))
        .map(|row| {
            let score = dot(query, &gallery.vector(row).unwrap());
            (gallery.id(row).unwrap().to_owned(), score)
        })
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(k);
    all
}

fn found(
    gallery: &Gallery,
    queries: Queries<'_>,
    options: &SearchOptions,
) -> Vec<Vec<(String, f32)>> {
    let hits = gallery.search(queries, options).unwrap();
    let named = |hit: &RowHit| (gallery.id(hit.row).unwrap().to_owned(), hit.score);
    hits.iter()
        .map(|hits| hits.iter().map(named).collect())
        .collect()
}

fn exact(k: usize) -> SearchOptions {
    SearchOptions {
        k,
        method: Method::Exact,
        ..SearchOptions::default()
    }
}

fn of(vectors: &[f32]) -> Queries<'_> {
    Queries {
        vectors,
        ..Queries::default()
    }
}

fn filter(column: &str, values: &[&str], is_negated: bool) -> Filter {
    Filter {
        column: column.to_owned(),
        values: values.iter().map(|&value| value.to_owned()).collect(),
        is_negated,
    }
}

/// Three segments, some rows twice, some removed.
fn mixed(folder: &std::path::Path, numbers: Numbers) -> Writer {
    let mut parts = [700, 300, 100].map(|n| vectors(n as u64, n, WIDTH, 10));
    for i in 0..5 {
        // Equal vectors within and across segments: only ids decide.
        let copy = parts[0][i * WIDTH..][..WIDTH].to_vec();
        parts[0][(20 + i) * WIDTH..][..WIDTH].copy_from_slice(&copy);
        parts[2][i * WIDTH..][..WIDTH].copy_from_slice(&copy);
    }
    let mut writer = gallery(folder, WIDTH, numbers, &parts);
    let removed: Vec<String> = (0..1100).step_by(9).map(|i| format!("row/{i}")).collect();
    writer.remove(&removed).unwrap();
    writer
}

#[test]
fn an_exact_search_is_a_sort() {
    for numbers in [Numbers::F32, Numbers::F16] {
        let folder = tempfile::tempdir().unwrap();
        let writer = mixed(&folder.path().join("g"), numbers);
        let gallery = writer.gallery();
        assert_eq!(gallery.n_segments(), 3);
        assert_eq!(gallery.len(), 1100 - 1100_usize.div_ceil(9));
        let queries = [vectors(700, 30, WIDTH, 10), vectors(5, 7, WIDTH, 10)].concat();
        for k in [0, 1, 10, 977, 978, 5000] {
            let hits = found(gallery, of(&queries), &exact(k));
            for (query, hits) in queries.chunks(WIDTH).zip(hits) {
                assert_eq!(hits, expected(gallery, query, k, |_| true), "{k}");
            }
        }
    }
}

#[test]
fn filters_and_exclusions_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let writer = mixed(&folder.path().join("g"), Numbers::F32);
    let gallery = writer.gallery();
    let rows: Vec<RowId> = gallery.rows().step_by(31).collect();
    let queries: Vec<f32> = rows
        .iter()
        .flat_map(|&row| gallery.vector(row).unwrap())
        .collect();
    let own: Vec<Vec<RowId>> = rows.iter().map(|&row| vec![row]).collect();
    let value = |row: RowId, column: &str| gallery.value(row, column).unwrap().to_owned();
    let left_out = [LeftOut {
        column: "patient_id".to_owned(),
        values: rows.iter().map(|&row| value(row, "patient_id")).collect(),
    }];
    let queries_with = Queries {
        vectors: &queries,
        own: &own,
        left_out: &left_out,
        ..Queries::default()
    };
    for filters in [
        vec![],
        vec![filter("modality", &["CT"], false)],
        vec![
            filter("modality", &["CT", "MR"], false),
            filter("rare", &["yes"], true),
        ],
        vec![filter("rare", &[""], true)],
    ] {
        let passes = |row: RowId| {
            filters.iter().all(|filter| {
                filter.values.contains(&value(row, &filter.column)) != filter.is_negated
            })
        };
        let options = SearchOptions {
            filters: filters.clone(),
            ..exact(12)
        };
        for (idx, hits) in found(gallery, queries_with, &options).iter().enumerate() {
            let patient = value(rows[idx], "patient_id");
            let allows =
                |row: RowId| row != rows[idx] && value(row, "patient_id") != patient && passes(row);
            assert_eq!(
                *hits,
                expected(gallery, &queries[idx * WIDTH..][..WIDTH], 12, allows)
            );
        }
    }
}

#[test]
fn a_filter_that_no_row_can_pass_is_an_error_that_says_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let writer = mixed(&folder.path().join("g"), Numbers::F32);
    let query = vectors(1, 1, WIDTH, 0);
    for (filter, wanted) in [
        (filter("modality", &["ct"], false), "CT, DX, MR"),
        (
            filter("Modality", &["CT"], false),
            "modality, patient_id, bucket, rare",
        ),
    ] {
        let options = SearchOptions {
            filters: vec![filter],
            ..exact(3)
        };
        let error = writer
            .gallery()
            .search(of(&query), &options)
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{error}");
    }
    // Values that exist, but not together.
    let options = SearchOptions {
        filters: vec![
            filter("bucket", &["3"], false),
            filter("bucket", &["4"], false),
        ],
        ..exact(3)
    };
    assert_eq!(
        writer.gallery().search(of(&query), &options).unwrap(),
        [vec![]]
    );
}

#[test]
fn a_group_has_one_hit_the_best() {
    let folder = tempfile::tempdir().unwrap();
    let writer = mixed(&folder.path().join("g"), Numbers::F32);
    let gallery = writer.gallery();
    let queries = vectors(8, 6, WIDTH, 10);
    for (column, k) in [
        ("patient_id", 10),
        ("patient_id", 1000),
        ("modality", 5),
        ("rare", 500),
    ] {
        let options = SearchOptions {
            group_by: Some(column.to_owned()),
            ..exact(k)
        };
        for (query, hits) in queries
            .chunks(WIDTH)
            .zip(found(gallery, of(&queries), &options))
        {
            let mut seen = HashSet::new();
            let mut wanted = expected(gallery, query, usize::MAX, |_| true);
            wanted.retain(|(id, _)| {
                let row = gallery.find(id).unwrap().unwrap();
                let value = gallery.value(row, column).unwrap();
                value.is_empty() || seen.insert(value.to_owned())
            });
            wanted.truncate(k);
            assert_eq!(hits, wanted, "{column}");
        }
    }
}

/// A gallery with one large segment, a small one and removed rows.
fn large(folder: &std::path::Path, n_clusters: usize) -> Writer {
    let parts = [12_000, 500].map(|n| vectors(n as u64, n, WIDTH, n_clusters));
    let mut writer = gallery(folder, WIDTH, Numbers::F32, &parts);
    let removed: Vec<String> = (0..12_500)
        .step_by(97)
        .map(|i| format!("row/{i}"))
        .collect();
    writer.remove(&removed).unwrap();
    writer.calibrate().unwrap();
    writer
}

#[test]
fn recall_at_10_of_other_queries_is_at_least_0_995_with_and_without_clusters() {
    for n_clusters in [100, 0] {
        let folder = tempfile::tempdir().unwrap();
        let writer = large(&folder.path().join("g"), n_clusters);
        let gallery = writer.gallery();
        let calibration = gallery.calibration().unwrap();
        assert!(calibration.recall_at_10 >= 0.998, "{calibration:?}");
        assert_eq!(
            calibration.plans[0].n_probe.is_some(),
            n_clusters > 0,
            "{calibration:?}"
        );
        let queries = vectors(99, 200, WIDTH, n_clusters);
        for (k, filters) in [
            (10, vec![]),
            (10, vec![filter("modality", &["CT"], false)]),
            (10, vec![filter("bucket", &["7"], false)]),
            (100, vec![]),
            (300, vec![]),
        ] {
            let exact = SearchOptions {
                filters,
                ..exact(k)
            };
            let quick = SearchOptions {
                method: Method::Auto,
                ..exact.clone()
            };
            let wanted = gallery.search(of(&queries), &exact).unwrap();
            let hits = gallery.search(of(&queries), &quick).unwrap();
            let recall = recall(&wanted, &hits, k);
            assert!(recall >= 0.995, "{n_clusters} {k}: {recall}");
            // What is found has the exact score, and passes.
            for (wanted, hits) in wanted.iter().zip(&hits) {
                for hit in hits {
                    let same = wanted.iter().find(|other| other.row == hit.row);
                    assert!(same.is_none_or(|same| same.score == hit.score));
                    if let [filter] = &exact.filters[..] {
                        let value = gallery.value(hit.row, &filter.column).unwrap();
                        assert_eq!(value, filter.values[0]);
                    }
                }
            }
        }
        assert!(
            gallery
                .measure_recall()
                .unwrap()
                .unwrap()
                .iter()
                .all(|&recall| recall >= 0.995)
        );
    }
}

#[test]
fn results_depend_neither_on_threads_nor_on_company() {
    let folder = tempfile::tempdir().unwrap();
    let writer = large(&folder.path().join("g"), 100);
    let gallery = writer.gallery();
    let queries = vectors(3, 130, WIDTH, 100);
    for method in [Method::Auto, Method::Exact] {
        for filters in [vec![], vec![filter("modality", &["DX"], false)]] {
            let options = SearchOptions {
                filters,
                method,
                ..exact(10)
            };
            let search = |n_threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
                let pool = pool.build().unwrap();
                pool.install(|| gallery.search(of(&queries), &options).unwrap())
            };
            let alone = search(1);
            // A search whose threads wait for one another hangs by chance only.
            for _ in 0..20 {
                assert_eq!(search(3), alone);
            }
            for (query, hits) in queries.chunks(WIDTH).zip(&alone) {
                assert_eq!(gallery.search(of(query), &options).unwrap()[0], *hits);
            }
        }
    }
}

#[test]
fn queries_that_do_not_fit_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let writer = mixed(&folder.path().join("g"), Numbers::F32);
    let gallery = writer.gallery();
    let query = vectors(1, 1, WIDTH, 0);
    let options = exact(3);
    assert!(gallery.search(of(&query[..WIDTH - 1]), &options).is_err());
    assert!(gallery.search(of(&[0.0; WIDTH]), &options).is_err());
    assert!(gallery.search(of(&[f32::NAN; WIDTH]), &options).is_err());
    let own = [vec![], vec![]];
    let too_many = Queries {
        own: &own,
        ..of(&query)
    };
    assert!(gallery.search(too_many, &options).is_err());
    assert_eq!(
        gallery.search(of(&[]), &options).unwrap(),
        Vec::<Vec<RowHit>>::new()
    );
}

#[test]
fn an_empty_gallery_has_no_hits() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = gallery(&folder.path().join("g"), WIDTH, Numbers::F32, &[]);
    let query = vectors(1, 1, WIDTH, 0);
    assert_eq!(
        writer.gallery().search(of(&query), &exact(3)).unwrap(),
        [vec![]]
    );
    let rows = TestRows::new(0, query.clone(), WIDTH);
    writer.add(rows.batch()).unwrap();
    writer.remove(&rows.ids).unwrap();
    assert_eq!(
        writer.gallery().search(of(&query), &exact(3)).unwrap(),
        [vec![]]
    );
    writer.compact().unwrap();
    assert!(writer.gallery().is_empty());
}

/// A gallery in which the rows nearest to its first one, `n_near` of them, are of one patient; and
/// that row.
fn crowded(folder: &std::path::Path, n_near: usize) -> (Writer, Vec<f32>) {
    let all = vectors(12_000, 12_000, WIDTH, 100);
    let query = all[..WIDTH].to_vec();
    let score = |row: usize| dot(&query, &all[row * WIDTH..][..WIDTH]);
    let mut order: Vec<usize> = (0..12_000).collect();
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    let mut patients: Vec<String> = (0..12_000).map(|row| format!("p{row}")).collect();
    for &row in &order[..n_near] {
        patients[row] = "near".to_owned();
    }
    let mut rows = TestRows::new(0, all, WIDTH);
    rows.columns = vec![("patient_id".to_owned(), patients)];
    let mut writer = gallery(folder, WIDTH, Numbers::F32, &[]);
    writer.add(rows.batch()).unwrap();
    writer.calibrate().unwrap();
    (writer, query)
}

#[test]
fn hits_are_found_where_all_near_rows_are_left_out_or_removed() {
    for n_near in [50, 100, 200, 300, 1000, 6000] {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, query) = crowded(&folder.path().join("g"), n_near);
        let plan = writer.gallery().calibration().unwrap().plans[0];
        assert!(plan.n_probe.is_some(), "{plan:?}");
        let left_out = [LeftOut {
            column: "patient_id".to_owned(),
            values: vec!["near".to_owned()],
        }];
        let ask = |writer: &Writer, left_out: &[LeftOut], method| {
            let queries = Queries {
                left_out,
                ..of(&query)
            };
            let options = SearchOptions {
                method,
                ..exact(10)
            };
            writer.gallery().search(queries, &options).unwrap()
        };
        // Beyond what lies in the lists that are looked at, the answer is exact.
        let least = |n_near| if n_near >= 200 { 1.0 } else { 0.9 };
        let check = |writer: &Writer, left_out: &[LeftOut], what: &str| {
            let wanted = ask(writer, left_out, Method::Exact);
            let found = ask(writer, left_out, Method::Auto);
            let recall = recall(&wanted, &found, 10);
            assert!(recall >= least(n_near), "{n_near} {what}: {recall}");
        };
        check(&writer, &left_out, "left out");
        let near = writer.gallery().rows();
        let near = near.filter(|&row| writer.gallery().value(row, "patient_id").unwrap() == "near");
        let near: Vec<String> = near
            .map(|row| writer.gallery().id(row).unwrap().to_owned())
            .collect();
        writer.remove(&near).unwrap();
        check(&writer, &[], "removed");
    }
}
