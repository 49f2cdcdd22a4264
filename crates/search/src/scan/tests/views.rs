//! Several vectors a row and a query, against plain definitions.

use super::*;
use crate::gallery::{Batch, ViewVectors};
use crate::scan::Views;
use crate::testing::TestViews;
use crate::{AskedImage, search_across};

/// What a hit says: id, score, view, number of the query's further vector.
type Told = (String, f32, Option<String>, Option<u32>);

/// Segments with and without views, equal vectors within and across rows and segments, and removed rows.
fn several(folder: &std::path::Path, numbers: Numbers, seed: u64) -> Writer {
    let mut writer = gallery(folder, WIDTH, numbers, &[]);
    let mut first = 0;
    for (part, n) in [420, 160, 60, 20].into_iter().enumerate() {
        let own = vectors(seed + n as u64, n, WIDTH, 6);
        let mut rows = TestRows::new(first, own, WIDTH);
        if part % 2 == 0 {
            let mut views = TestViews::new(seed + n as u64, n, WIDTH, 6);
            // A view as good as the row's own vector, and two views that are equal.
            views.vectors[..WIDTH].copy_from_slice(&rows.vectors[..WIDTH]);
            views.vectors.copy_within(2 * WIDTH..3 * WIDTH, 3 * WIDTH);
            rows = rows.with_views(views);
        }
        writer.add(rows.batch()).unwrap();
        first += n;
    }
    let removed: Vec<String> = (0..first).step_by(9).map(|i| format!("row/{i}")).collect();
    writer.remove(&removed).unwrap();
    writer
}

/// Returns the best pair of vectors of a query and a row.
fn best_pair(gallery: &Gallery, query: [&[f32]; 2], row: RowId, views: Views) -> Told {
    let own = gallery.vector(row).unwrap();
    let mut of_row = vec![(None, own)];
    let mut of_query = vec![(None, query[0])];
    let mut handicap = 0.0;
    let further = gallery.view_vectors(row).unwrap().into_iter();
    let further = further.map(|(name, vector)| (Some(name.to_owned()), vector));
    let is_slice = |view: &Option<String>| view.as_deref() == Some("slice 3/8");
    match views {
        Views::Own => {}
        Views::Projections { handicap: number } => {
            handicap = number;
            of_row.extend(further.filter(|(view, _)| !is_slice(view)));
            of_query.extend((0..).map(Some).zip(query[1].chunks(WIDTH)));
        }
        Views::Slices => of_row.extend(further.filter(|(view, _)| is_slice(view))),
    }
    let pairs = of_query.iter().flat_map(|(number, a)| {
        of_row.iter().map(move |(view, b)| {
            let is_own = number.is_none() && view.is_none();
            let score = dot(a, b) - if is_own { 0.0 } else { handicap };
            (score, *number, view.clone())
        })
    });
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, &a.2).cmp(&(b.1, &b.2))));
    let (score, number, view) = pairs.swap_remove(0);
    (gallery.id(row).unwrap().to_owned(), score, view, number)
}

/// Ranks all rows that `allows` for a query: own vector, and further ones.
fn ranked(
    gallery: &Gallery,
    query: [&[f32]; 2],
    views: Views,
    allows: impl Fn(RowId) -> bool,
) -> Vec<Told> {
    let rows = gallery.rows().filter(|&row| allows(row));
    let mut all: Vec<Told> = rows
        .map(|row| best_pair(gallery, query, row, views))
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all
}

fn told(gallery: &Gallery, hits: &[RowHit]) -> Vec<Told> {
    let names = gallery.views();
    let tell = |hit: &RowHit| {
        let view = hit.view.map(|view| names[view.0 as usize].to_owned());
        let id = gallery.id(hit.row).unwrap().to_owned();
        (id, hit.score, view, hit.query_vector)
    };
    hits.iter().map(tell).collect()
}

/// Queries with none to three further vectors.
fn further(seed: u64, n: usize) -> Vec<Vec<f32>> {
    let further = |i: usize| vectors(seed + i as u64, i % 4, WIDTH, 6);
    (0..n).map(further).collect()
}

const ALL: [Views; 5] = [
    Views::Own,
    Views::Projections { handicap: 0.0 },
    Views::Projections { handicap: 0.05 },
    Views::Projections {
        handicap: DEFAULT_HANDICAP,
    },
    Views::Slices,
];

#[test]
fn an_exact_search_takes_the_best_pair_of_vectors() {
    for (numbers, seed) in [(Numbers::F32, 1), (Numbers::F16, 50), (Numbers::F32, 99)] {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = several(&folder.path().join("g"), numbers, seed);
        let queries = [vectors(seed + 420, 12, WIDTH, 6), vectors(5, 5, WIDTH, 6)].concat();
        let further = further(seed, queries.len() / WIDTH);
        for is_compact in [false, true] {
            if is_compact {
                writer.compact().unwrap();
            }
            let gallery = writer.gallery();
            assert_eq!(gallery.n_segments() == 1, is_compact);
            let mut n_views = 0;
            for views in ALL {
                for (k, further) in [
                    (1, &further[..]),
                    (10, &[]),
                    (10, &further),
                    (5000, &further),
                ] {
                    let queries = Queries {
                        further,
                        ..of(&queries)
                    };
                    let options = SearchOptions { views, ..exact(k) };
                    let hits = gallery.search(queries, &options).unwrap();
                    for (idx, hits) in hits.iter().enumerate() {
                        let own = &queries.vectors[idx * WIDTH..][..WIDTH];
                        let more = further.get(idx).map_or(&[][..], |more| more);
                        let mut expected = ranked(gallery, [own, more], views, |_| true);
                        expected.truncate(k);
                        let hits = told(gallery, hits);
                        n_views += hits.iter().filter(|hit| hit.2.is_some()).count();
                        assert_eq!(hits, expected, "{views:?} {k} {idx}");
                    }
                }
            }
            assert!(n_views > 100, "{n_views}");
        }
    }
}

#[test]
fn filters_exclusions_and_groups_are_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let writer = several(&folder.path().join("g"), Numbers::F32, 7);
    let gallery = writer.gallery();
    let rows: Vec<RowId> = gallery.rows().step_by(29).collect();
    let read = |row: &RowId| RowAsQuery::read(gallery, &[*row]).unwrap().remove(0);
    let queries: Vec<f32> = rows.iter().flat_map(|row| read(row).own).collect();
    let further: Vec<Vec<f32>> = rows.iter().map(|row| read(row).further).collect();
    let own: Vec<Vec<RowId>> = rows.iter().map(|&row| vec![row]).collect();
    let value = |row: RowId, column: &str| gallery.value(row, column).unwrap().to_owned();
    let left_out = [LeftOut {
        column: "patient_id".to_owned(),
        values: rows.iter().map(|&row| value(row, "patient_id")).collect(),
    }];
    let queries = Queries {
        vectors: &queries,
        own: &own,
        left_out: &left_out,
        further: &further,
    };
    let is_ct = filter("modality", &["CT"], false);
    let is_no_ct = filter("modality", &["CT"], true);
    for filters in [
        vec![],
        vec![is_ct],
        vec![is_no_ct, filter("rare", &["yes"], true)],
    ] {
        for (views, group_by) in
            ALL.into_iter()
                .zip([None, Some("bucket"), None, Some("patient_id")])
        {
            let options = SearchOptions {
                filters: filters.clone(),
                views,
                group_by: group_by.map(str::to_owned),
                ..exact(12)
            };
            let hits = gallery.search(queries, &options).unwrap();
            for (idx, hits) in hits.iter().enumerate() {
                let passes = |row: RowId, filter: &Filter| {
                    filter.values.contains(&value(row, &filter.column)) != filter.is_negated
                };
                let patient = &left_out[0].values[idx];
                let allows = |row: RowId| {
                    row != rows[idx]
                        && value(row, "patient_id") != *patient
                        && filters.iter().all(|filter| passes(row, filter))
                };
                let query = [&queries.vectors[idx * WIDTH..][..WIDTH], &further[idx]];
                let mut expected = ranked(gallery, query, views, allows);
                let mut seen = HashSet::new();
                expected.retain(|(id, ..)| {
                    let row = gallery.find(id).unwrap().unwrap();
                    group_by.is_none_or(|column| seen.insert(value(row, column)))
                });
                expected.truncate(12);
                assert_eq!(told(gallery, hits), expected, "{options:?} {idx}");
            }
        }
    }
}

#[test]
fn across_modalities_projections_are_compared_and_within_one_own_vectors_and_slices() {
    let folder = tempfile::tempdir().unwrap();
    let writer = several(&folder.path().join("g"), Numbers::F32, 11);
    let gallery = writer.gallery();
    let rows: Vec<RowId> = gallery.rows().step_by(23).collect();
    let read = |row: &RowId| RowAsQuery::read(gallery, &[*row]).unwrap().remove(0);
    let vectors: Vec<f32> = rows.iter().flat_map(|row| read(row).own).collect();
    let further: Vec<Vec<f32>> = rows.iter().map(|row| read(row).further).collect();
    let own: Vec<Vec<RowId>> = rows.iter().map(|&row| vec![row]).collect();
    let value = |row: RowId, column: &str| gallery.value(row, column).unwrap().to_owned();
    let queries = Queries {
        vectors: &vectors,
        own: &own,
        left_out: &[],
        further: &further,
    };
    // Known, of no row, and unknown.
    let modality = |idx: usize| match idx % 5 {
        0 => String::new(),
        1 => "US".to_owned(),
        _ => value(rows[idx], "modality"),
    };
    let modalities: Vec<String> = (0..rows.len()).map(modality).collect();
    let images = modalities.iter().enumerate();
    let images: Vec<AskedImage<'_>> = images
        .map(|(idx, modality)| AskedImage {
            modality,
            is_flat: idx % 2 == 0,
        })
        .collect();
    let is_ct = filter("modality", &["CT"], false);
    let (mut n_projections, mut n_slices) = (0, 0);
    for (filters, group_by) in [
        (vec![], None),
        (vec![is_ct], None),
        (vec![], Some("bucket")),
        (vec![filter("rare", &["yes"], true)], Some("modality")),
    ] {
        for views in &ALL[..4] {
            let views = *views;
            let options = SearchOptions {
                filters: filters.clone(),
                views,
                group_by: group_by.map(str::to_owned),
                ..exact(12)
            };
            let hits = search_across(gallery, queries, &images, &options).unwrap();
            assert_eq!(hits.len(), rows.len());
            for (idx, hits) in hits.iter().enumerate() {
                let passes = |row: RowId, filter: &Filter| {
                    filter.values.contains(&value(row, &filter.column)) != filter.is_negated
                };
                let is_own = |row: RowId| value(row, "modality") == modalities[idx];
                let query = [&vectors[idx * WIDTH..][..WIDTH], &further[idx]];
                let mut expected = Vec::new();
                let AskedImage { modality, is_flat } = images[idx];
                let within = match views {
                    Views::Projections { .. } if is_flat => Views::Slices,
                    _ => Views::Own,
                };
                for (views, is_within) in [(within, true), (views, false)] {
                    let allows = |row: RowId| {
                        let is_hit = filters.iter().all(|filter| passes(row, filter));
                        let is_there = modality.is_empty() || is_own(row) == is_within;
                        row != rows[idx] && is_hit && is_there
                    };
                    expected.extend(ranked(gallery, query, views, allows));
                }
                expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                let (mut ids, mut seen) = (HashSet::new(), HashSet::new());
                expected.retain(|(id, ..)| ids.insert(id.clone()));
                expected.retain(|(id, ..)| {
                    let row = gallery.find(id).unwrap().unwrap();
                    group_by.is_none_or(|column| seen.insert(value(row, column)))
                });
                expected.truncate(12);
                let hits = told(gallery, hits);
                for hit in &hits {
                    match hit.2.as_deref() {
                        None => {}
                        Some("slice 3/8") => n_slices += 1,
                        Some(_) => n_projections += 1,
                    }
                }
                assert_eq!(hits, expected, "{options:?} {idx}");
            }
        }
    }
    assert!(
        n_projections > 100 && n_slices > 50,
        "{n_projections} {n_slices}"
    );
    assert!(search_across(gallery, queries, &images[1..], &exact(1)).is_err());
}

/// A gallery of a large segment whose rows have views around other clusters, and one without views.
fn large_with_views(folder: &std::path::Path, n_clusters: usize) -> Writer {
    let mut writer = gallery(folder, WIDTH, Numbers::F32, &[]);
    for (first, n) in [(0, 4000), (4000, 400)] {
        let rows = TestRows::new(first, vectors(n as u64, n, WIDTH, n_clusters), WIDTH);
        let n_with_views = if first == 0 { n } else { 0 };
        let views = TestViews::new(3, n_with_views, WIDTH, n_clusters);
        writer.add(rows.with_views(views).batch()).unwrap();
    }
    let removed: Vec<String> = (0..4400).step_by(97).map(|i| format!("row/{i}")).collect();
    writer.remove(&removed).unwrap();
    writer.calibrate().unwrap();
    writer
}

#[test]
fn recall_at_10_with_views_is_at_least_0_99_and_scores_are_exact() {
    for n_clusters in [100, 0] {
        let folder = tempfile::tempdir().unwrap();
        let writer = large_with_views(&folder.path().join("g"), n_clusters);
        let gallery = writer.gallery();
        assert!(gallery.n_vectors().unwrap() > 10_000);
        let calibration = gallery.calibration().unwrap();
        assert!(calibration.recall_at_10 >= 0.998, "{calibration:?}");
        assert!(!calibration.plans.is_empty());
        let queries = vectors(99, 60, WIDTH, n_clusters);
        let more: Vec<Vec<f32>> = (0..60)
            .map(|i| vectors(500 + i, i as usize % 3, WIDTH, n_clusters))
            .collect();
        for views in [Views::Own, Views::default(), Views::Slices] {
            for (k, filters, further) in [
                (10, vec![], &[][..]),
                (10, vec![], &more),
                (10, vec![filter("modality", &["CT"], false)], &more),
                (10, vec![filter("bucket", &["7"], false)], &[]),
                (100, vec![], &[]),
                (300, vec![], &more),
            ] {
                let options = SearchOptions {
                    filters,
                    views,
                    ..exact(k)
                };
                let quick = SearchOptions {
                    method: Method::Auto,
                    ..options.clone()
                };
                let queries = Queries {
                    further,
                    ..of(&queries)
                };
                let wanted = gallery.search(queries, &options).unwrap();
                let hits = gallery.search(queries, &quick).unwrap();
                let recall = recall(&wanted, &hits, k);
                assert!(recall >= 0.99, "{n_clusters} {views:?} {k}: {recall}");
                for (wanted, hits) in wanted.iter().zip(&hits) {
                    assert_eq!(hits.len(), wanted.len());
                    for hit in hits {
                        let same = wanted.iter().find(|other| other.row == hit.row);
                        assert!(same.is_none_or(|same| same.score <= hit.score + 0.1));
                    }
                    // Where nothing was missed, everything is the same.
                    let rows =
                        |hits: &[RowHit]| hits.iter().map(|hit| hit.row).collect::<HashSet<_>>();
                    if further.is_empty() && rows(wanted) == rows(hits) {
                        assert_eq!(hits, wanted);
                    }
                }
            }
        }
        let recall = gallery.measure_recall().unwrap().unwrap();
        assert!(recall.iter().all(|&recall| recall >= 0.99), "{recall:?}");
    }
}

#[test]
fn as_many_rows_come_out_where_each_has_many_equal_views() {
    // 900 rows of ten vectors that are nearly the same: candidates are rows, however many vectors they have.
    let (n_rows, n_views) = (900, 9);
    let own = vectors(4, n_rows, WIDTH, 40);
    let names: Vec<String> = (0..n_views).map(|view| format!("slice {view}")).collect();
    let mut views = TestViews {
        names,
        ..TestViews::default()
    };
    for (row, vector) in (0..).zip(own.chunks(WIDTH)) {
        for name in 0..n_views as u32 {
            views.of.push(crate::gallery::View { row, name });
            views.vectors.extend(vector);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut writer = gallery(&folder.path().join("g"), WIDTH, Numbers::F32, &[]);
    let rows = TestRows::new(0, own, WIDTH).with_views(views);
    writer.add(rows.batch()).unwrap();
    let queries = vectors(77, 50, WIDTH, 40);
    for k in [1, 10, 100] {
        let options = exact(k);
        let plan = Plan {
            k,
            n_probe: (k < 100).then_some(40),
            depth_short: None,
            depth_bits: 2 * k,
            depth_codes: k,
        };
        let quick = SearchOptions {
            method: Method::Planned(plan),
            ..options.clone()
        };
        let gallery = writer.gallery();
        let wanted = gallery.search(of(&queries), &options).unwrap();
        let hits = gallery.search(of(&queries), &quick).unwrap();
        for hits in wanted.iter().chain(&hits) {
            assert!(hits.len() == k && hits.iter().all(|hit| hit.view.is_none()));
        }
    }
}

#[test]
fn results_with_views_depend_neither_on_threads_nor_on_company() {
    let folder = tempfile::tempdir().unwrap();
    let writer = large_with_views(&folder.path().join("g"), 100);
    let gallery = writer.gallery();
    let queries = vectors(3, 60, WIDTH, 100);
    let further = further(8, 60);
    let all = Queries {
        further: &further,
        ..of(&queries)
    };
    for method in [Method::Auto, Method::Exact] {
        for (filters, views) in [
            (vec![], Views::default()),
            (vec![], Views::Own),
            (vec![filter("modality", &["DX"], false)], Views::default()),
        ] {
            let options = SearchOptions {
                filters,
                method,
                views,
                ..exact(10)
            };
            let search = |n_threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
                let pool = pool.build().unwrap();
                pool.install(|| gallery.search(all, &options).unwrap())
            };
            let together = search(1);
            assert_eq!(search(3), together);
            for (idx, hits) in together.iter().enumerate() {
                let alone = Queries {
                    further: &further[idx..=idx],
                    ..of(&queries[idx * WIDTH..][..WIDTH])
                };
                assert_eq!(gallery.search(alone, &options).unwrap()[0], *hits);
            }
        }
    }
}

#[test]
fn views_that_do_not_fit_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let writer = several(&folder.path().join("g"), Numbers::F32, 2);
    let gallery = writer.gallery();
    let query = vectors(1, 1, WIDTH, 0);
    let search = |further: &[Vec<f32>], views| {
        let queries = Queries {
            further,
            ..of(&query)
        };
        let options = SearchOptions { views, ..exact(3) };
        gallery.search(queries, &options).map(drop)
    };
    assert!(search(std::slice::from_ref(&query), Views::default()).is_ok());
    assert!(search(&[vec![], vec![]], Views::default()).is_err());
    assert!(search(&[query[1..].to_vec()], Views::default()).is_err());
    assert!(search(&[vec![0.0; WIDTH]], Views::default()).is_err());
    for handicap in [-0.1, f32::NAN, f32::INFINITY] {
        assert!(
            search(&[], Views::Projections { handicap }).is_err(),
            "{handicap}"
        );
    }
}

#[test]
fn a_batch_of_views_alone_changes_no_other_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = gallery(&folder.path().join("g"), WIDTH, Numbers::F32, &[]);
    let rows = TestRows::new(0, vectors(1, 30, WIDTH, 0), WIDTH);
    writer.add(rows.batch()).unwrap();
    let query = vectors(2, 1, WIDTH, 0);
    let before = told(
        writer.gallery(),
        &writer.gallery().search(of(&query), &exact(30)).unwrap()[0],
    );
    let more = TestRows::new(30, vectors(5, 1, WIDTH, 0), WIDTH);
    let batch = Batch {
        views: ViewVectors {
            names: &["front".to_owned()],
            of: &[crate::gallery::View { row: 0, name: 0 }],
            vectors: &query,
        },
        ..more.batch()
    };
    writer.add(batch).unwrap();
    let gallery = writer.gallery();
    let mut after = told(gallery, &gallery.search(of(&query), &exact(31)).unwrap()[0]);
    let found = after.remove(0);
    assert_eq!(
        (found.0.as_str(), found.2.as_deref()),
        ("row/30", Some("front"))
    );
    assert!((found.1 - (1.0 - DEFAULT_HANDICAP)).abs() < 1e-6);
    assert_eq!(after, before);
}
