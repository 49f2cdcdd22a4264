use std::collections::HashMap;

use super::*;
use crate::config::{Composition, WeightBy};

/// `one` has 60 DX and 20 CT, `two` 15 CT, `three` 5 US.
fn archive() -> Archive {
    let mut archive = Archive::new("path,modality,source");
    for (source, modality, n) in [
        ("one", "DX", 60),
        ("two", "CT", 15),
        ("one", "CT", 20),
        ("three", "US", 5),
    ] {
        for i in 0..n {
            archive.row(format!("{source}{modality}{i}.png,{modality},{source}"));
        }
    }
    archive
}

fn sampler(config: &Config) -> (Arc<Items>, Sampler) {
    let items = load(config);
    let sampler = Sampler::new(&items, config).unwrap();
    (items, sampler)
}

fn counts<K: std::hash::Hash + Eq>(drawn: impl IntoIterator<Item = K>) -> HashMap<K, usize> {
    let mut counts = HashMap::new();
    for one in drawn {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

#[test]
fn every_item_comes_once_an_epoch_and_in_another_order_in_the_next() {
    let archive = archive();
    let mut config = archive.config();
    config.train.batch = 10;
    let (_, sampler) = sampler(&config);
    let epoch = |epoch: u64| -> Vec<usize> {
        (10 * epoch..10 * (epoch + 1))
            .flat_map(|step| sampler.batch(step))
            .collect()
    };
    assert_eq!(sampler.steps_per_epoch(), 10);
    let mut orders = std::collections::HashSet::new();
    for number in [0, 1, 2, 1_000_000] {
        let drawn = epoch(number);
        assert_eq!(counts(drawn.clone()).len(), 100, "epoch {number}");
        orders.insert(drawn);
    }
    assert_eq!(orders.len(), 4);
}

#[test]
fn mixed_batches_run_on_over_the_end_of_an_epoch() {
    let archive = archive();
    let mut config = archive.config();
    config.train.batch = 64;
    let (_, sampler) = sampler(&config);
    let drawn: Vec<usize> = (0..25).flat_map(|step| sampler.batch(step)).collect();
    assert_eq!(drawn.len(), 1600);
    assert!(counts(drawn).values().all(|&n| n == 16));
    assert_eq!(sampler.steps_of(16), 25);
    assert_eq!(sampler.steps_per_epoch(), 2);
    assert!((sampler.epoch_at(25) - 16.0).abs() < 1e-12);
    config.train.batch = 300;
    let (_, sampler) = self::sampler(&config);
    assert!(counts(sampler.batch(5)).values().all(|&n| n == 3));
}

#[test]
fn a_temperature_gives_groups_constant_quotas_and_items_equal_chances() {
    for (temperature, weight_by, expected) in [
        (0.0, WeightBy::Source, [34, 33, 33]),
        (0.5, WeightBy::Source, [60, 25, 15]),
        (2.0, WeightBy::Source, [96, 3, 1]),
        (20.0, WeightBy::Source, [98, 1, 1]),
    ] {
        let archive = archive();
        let mut config = archive.config();
        config.train.batch = 20;
        config.images.temperature = temperature;
        config.images.weight_by = weight_by;
        let (items, sampler) = sampler(&config);
        let mut all = Vec::new();
        for epoch in 0..60 {
            let drawn: Vec<usize> = (5 * epoch..5 * (epoch + 1))
                .flat_map(|step| sampler.batch(step))
                .collect();
            let by_source = counts(drawn.iter().map(|&item| items.source(item)));
            let got = ["one", "two", "three"].map(|source| by_source[source]);
            for (got, expected) in got.into_iter().zip(expected) {
                assert!(
                    got.abs_diff(expected) <= 1,
                    "{temperature}: {got} {expected}"
                );
            }
            all.extend(drawn);
        }
        // Items of one group come equally often, up to the one pass that is under way.
        let each = counts(all);
        for source in ["one", "two", "three"] {
            let of_source = (0..100).filter(|&item| items.source(item) == source);
            let times: Vec<usize> = of_source
                .map(|item| each.get(&item).copied().unwrap_or(0))
                .collect();
            let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
            assert!(most - least <= 1, "{source}: {least} to {most}");
        }
    }
}

#[test]
fn batches_of_a_single_modality_are_full_and_cover_the_epoch() {
    let archive = archive();
    let mut config = archive.config();
    config.train.batch = 8;
    config.images.batch_composition = Composition::SingleModality;
    for (temperature, n_batches) in [(1.0, 8 + 5 + 1), (0.0, 4 + 6 + 5)] {
        config.images.temperature = temperature;
        let (items, sampler) = sampler(&config);
        assert_eq!(sampler.steps_per_epoch(), n_batches, "{temperature}");
        let mut modalities = Vec::new();
        let mut drawn = Vec::new();
        for step in 0..n_batches {
            let batch = sampler.batch(step);
            assert_eq!(batch.len(), 8);
            let of_batch = counts(batch.iter().map(|&item| items.modality(item)));
            assert_eq!(of_batch.len(), 1);
            modalities.extend(of_batch.into_keys());
            drawn.extend(batch);
        }
        if temperature >= 1.0 {
            assert_eq!(counts(drawn).len(), 100);
        }
        let sorted = modalities.is_sorted();
        assert!(!sorted, "batches are shuffled: {modalities:?}");
        assert!((sampler.epoch_at(n_batches) - 1.0).abs() < 1e-12);
    }
}

#[test]
fn any_step_is_the_same_alone_as_after_all_before_it() {
    for composition in [Composition::Mixed, Composition::SingleModality] {
        let archive = archive();
        let mut config = archive.config();
        config.images.temperature = 0.3;
        config.images.batch_composition = composition;
        let (_, one) = sampler(&config);
        let in_order: Vec<Vec<usize>> = (0..200).map(|step| one.batch(step)).collect();
        let (_, other) = sampler(&config);
        for step in [199, 3, 77, 0] {
            assert_eq!(other.batch(step as u64), in_order[step]);
        }
        config.seed += 1;
        let (_, seeded) = sampler(&config);
        assert_ne!(seeded.batch(3), in_order[3]);
    }
}

#[test]
fn senseless_settings_are_refused() {
    let archive = archive();
    let mut config = archive.config();
    let items = load(&config);
    config.images.temperature = -1.0;
    assert!(Sampler::new(&items, &config).is_err());
    config.images.temperature = f64::NAN;
    assert!(Sampler::new(&items, &config).is_err());
    config.images.temperature = 1.0;
    config.train.batch = 0;
    assert!(Sampler::new(&items, &config).is_err());
}

#[test]
fn the_share_of_synthetic_places_is_kept_and_items_go_on_without_a_gap() {
    for (share, batch) in [(0.15, 64), (0.1, 10), (0.5, 1), (0.125, 20), (0.3, 7)] {
        let archive = archive();
        let mut config = archive.config();
        config.train.batch = batch;
        config.images.synthetic = share;
        let (items, sampler) = sampler(&config);
        let (mut drawn, mut numbers) = (Vec::<usize>::new(), Vec::<usize>::new());
        for step in 0..200 {
            let places = sampler.places(step);
            assert_eq!(places.len(), batch);
            let (synthetic, real): (Vec<usize>, Vec<usize>) =
                places.iter().partition(|&&place| items.is_synthetic(place));
            assert_eq!(real, sampler.batch(step));
            drawn.extend(real);
            numbers.extend(synthetic);
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            let wanted = share * ((step + 1) * batch as u64) as f64;
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            let found = numbers.len() as f64;
            assert!((found - wanted).abs() < 0.5 + 1e-6, "{found}, {wanted}");
        }
        assert!(
            numbers
                .into_iter()
                .eq((items.len()..).take(200 * batch - drawn.len()))
        );
        // Without synthetic objects the same items come in the same order.
        config.images.synthetic = 0.0;
        config.train.batch = 1;
        let (_, plain) = self::sampler(&config);
        let wanted = (0..drawn.len() as u64).flat_map(|step| plain.batch(step));
        assert!(wanted.eq(drawn.iter().copied()));
        // An epoch is over when each item came once.
        config.images.synthetic = share;
        config.train.batch = batch;
        let (_, sampler) = self::sampler(&config);
        for n_epochs in 1..4 {
            let steps = sampler.steps_of(n_epochs);
            let n_drawn = |steps: u64| {
                (0..steps)
                    .map(|step| sampler.batch(step).len())
                    .sum::<usize>()
            };
            let wanted = usize::try_from(100 * n_epochs).unwrap();
            assert!(n_drawn(steps) >= wanted && n_drawn(steps - 1) < wanted);
        }
    }
}

#[test]
fn batches_of_a_single_modality_hold_synthetic_objects_too() {
    let archive = archive();
    let mut config = archive.config();
    config.train.batch = 8;
    config.images.synthetic = 0.25;
    config.images.batch_composition = Composition::SingleModality;
    let (items, sampler) = sampler(&config);
    let mut all = Vec::new();
    for step in 0..sampler.steps_per_epoch() {
        let batch = sampler.batch(step);
        assert_eq!((batch.len(), sampler.places(step).len()), (6, 8));
        let modality = items.modality(batch[0]);
        assert!(batch.iter().all(|&item| items.modality(item) == modality));
        all.extend(batch);
    }
    assert_eq!(counts(all).len(), 100);
}
