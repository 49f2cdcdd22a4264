//! Searches of vectors that vary in few directions, by their short codes.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;

const WIDE: usize = 136;

/// Unit vectors of clusters in 24 dimensions, embedded in `WIDE`, with a little noise.
fn latent(seed: u64, n: usize) -> Vec<f32> {
    const N_DIMENSIONS: usize = 24;
    let normal = |random: &mut ChaCha8Rng| -> f32 {
        (0..4).map(|_| random.random::<f32>() - 0.5).sum::<f32>()
    };
    let mut fixed = ChaCha8Rng::seed_from_u64(1);
    let axes: Vec<f32> = (0..N_DIMENSIONS * WIDE)
        .map(|_| normal(&mut fixed))
        .collect();
    let centres: Vec<f32> = (0..60 * N_DIMENSIONS).map(|_| normal(&mut fixed)).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut all = Vec::with_capacity(n * WIDE);
    for _ in 0..n {
        // Small clusters are rare, so some rows have few neighbours.
        let share: f32 = random.random();
        let centre = (share * share * 60.0) as usize % 60 * N_DIMENSIONS;
        let mut vector: Vec<f32> = (0..WIDE).map(|_| 0.3 * normal(&mut random)).collect();
        for (axis, c) in axes.chunks_exact(WIDE).zip(&centres[centre..]) {
            let x = c + 0.6 * normal(&mut random);
            vector.iter_mut().zip(axis).for_each(|(v, a)| *v += x * a);
        }
        crate::embedding::normalize(&mut vector).unwrap();
        all.extend(vector);
    }
    all
}

/// A gallery with a segment that has short codes, one that has none, and removed rows.
fn latent_gallery(folder: &std::path::Path, numbers: Numbers) -> Writer {
    let mut writer = gallery(folder, WIDE, numbers, &[latent(7, 9_000), latent(8, 300)]);
    let removed: Vec<String> = (0..9_300).step_by(97).map(|i| format!("row/{i}")).collect();
    writer.remove(&removed).unwrap();
    writer.calibrate().unwrap();
    writer
}

#[test]
fn every_recall_is_reached_on_other_queries_and_scores_are_exact() {
    for numbers in [Numbers::F32, Numbers::F16] {
        let folder = tempfile::tempdir().unwrap();
        let writer = latent_gallery(&folder.path().join("g"), numbers);
        let gallery = writer.gallery();
        let calibration = gallery.calibration().unwrap();
        assert!(
            calibration.plans[0].depth_short.is_some(),
            "{calibration:?}"
        );
        assert_eq!(calibration.levels.len(), 3);
        let queries = latent(99, 300);
        for k in [1, 10, 100, 250] {
            let wanted = gallery.search(of(&queries), &exact(k)).unwrap();
            for share in [0.95, 0.99, 0.995, 0.999, 1.0] {
                let options = SearchOptions {
                    method: Method::Recall(Recall::new(share).unwrap()),
                    ..exact(k)
                };
                let hits = gallery.search(of(&queries), &options).unwrap();
                let reached = recall(&wanted, &hits, k);
                assert!(reached >= share, "{k} {share}: {reached} {calibration:?}");
                for (wanted, hits) in wanted.iter().zip(&hits) {
                    for hit in hits {
                        let same = wanted.iter().find(|other| other.row == hit.row);
                        assert!(same.is_none_or(|same| same.score == hit.score));
                    }
                }
            }
        }
    }
}

#[test]
fn a_pass_over_all_short_codes_with_room_for_all_is_a_sort() {
    let folder = tempfile::tempdir().unwrap();
    let writer = latent_gallery(&folder.path().join("g"), Numbers::F32);
    let gallery = writer.gallery();
    let rows: Vec<RowId> = gallery.rows().step_by(2_000).collect();
    let queries: Vec<f32> = rows
        .iter()
        .flat_map(|&row| gallery.vector(row).unwrap())
        .collect();
    let own: Vec<Vec<RowId>> = rows.iter().map(|&row| vec![row]).collect();
    // The deepest plan keeps every candidate, so only rules and exact scores decide.
    for n_probe in [None, Some(10_000)] {
        let plan = Plan {
            k: 10,
            n_probe,
            depth_short: Some(10_000),
            depth_bits: 10_000,
            depth_codes: 10_000,
        };
        let options = SearchOptions {
            method: Method::Planned(plan),
            ..exact(10)
        };
        let asked = Queries {
            own: &own,
            ..of(&queries)
        };
        let hits = found(gallery, asked, &options);
        for ((query, hits), own) in queries.chunks(WIDE).zip(hits).zip(&rows) {
            assert_eq!(hits, expected(gallery, query, 10, |row| row != *own));
        }
    }
}

#[test]
fn results_by_short_codes_depend_neither_on_threads_nor_on_company() {
    let folder = tempfile::tempdir().unwrap();
    let writer = latent_gallery(&folder.path().join("g"), Numbers::F32);
    let gallery = writer.gallery();
    let queries = latent(3, 130);
    for share in [0.95, 0.999] {
        let options = SearchOptions {
            method: Method::Recall(Recall::new(share).unwrap()),
            ..exact(10)
        };
        let search = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
            let pool = pool.build().unwrap();
            pool.install(|| gallery.search(of(&queries), &options).unwrap())
        };
        let alone = search(1);
        for _ in 0..5 {
            assert_eq!(search(3), alone);
        }
        for (query, hits) in queries.chunks(WIDE).zip(&alone) {
            assert_eq!(gallery.search(of(query), &options).unwrap()[0], *hits);
        }
    }
}

#[test]
fn a_gallery_with_short_codes_verifies_and_says_so_by_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g");
    let writer = latent_gallery(&path, Numbers::F32);
    let calibration = writer.gallery().calibration().cloned();
    drop(writer);
    let report = crate::verify(&path).unwrap();
    assert!(report.is_good(), "{report:?}");
    let again = Gallery::open(&path).unwrap();
    assert_eq!(again.calibration().cloned(), calibration);
}
