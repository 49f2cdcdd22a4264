use super::*;
use proptest::prelude::*;

/// The example of docs/evaluation.md: relevant, not, relevant, not, relevant.
const EXAMPLE: Ranking<'static> = Ranking {
    grades: &[1.0, 0.0, 1.0, 0.0, 1.0],
    least_grade: 1.0,
    n_candidates: 5,
    n_relevant: 3,
    ideal: &[1.0, 1.0, 1.0],
    total_grade: 3.0,
};

#[test]
fn the_example_of_the_docs_holds() {
    let rows = [
        (Metric::HitAt(1), 1.0, 0.6),
        (Metric::HitAt(2), 1.0, 0.9),
        (Metric::PrecisionAt(2), 0.5, 0.6),
        (Metric::PrecisionAt(10), 0.3, 0.3),
        (Metric::RecallAt(2), 1.0 / 3.0, 0.4),
        (Metric::MapAt(2), 0.5, 0.525),
        (Metric::MapAtR, 5.0 / 9.0, 0.483_333_333_333),
        (Metric::MrrAt(2), 1.0, 0.75),
        (Metric::NdcgAt(3), 0.703_918_089_034, 0.6),
    ];
    for (metric, value, chance) in rows {
        let found = EXAMPLE.value(metric).unwrap();
        assert!((found - value).abs() < 1e-9, "{metric}: {found}");
        let found = EXAMPLE.chance(metric).unwrap();
        assert!((found - chance).abs() < 1e-9, "chance of {metric}: {found}");
    }
    let nothing = Ranking {
        n_relevant: 0,
        grades: &[0.0; 5],
        total_grade: 0.0,
        ideal: &[],
        ..EXAMPLE
    };
    assert_eq!(nothing.value(Metric::HitAt(1)), None);
    assert_eq!(nothing.chance(Metric::HitAt(1)), None);
}

#[test]
fn votes_of_the_example() {
    let vote = Vote {
        classes: &[1, 2, 2, 3, 3],
        scores: &[0.9, 0.8, 0.7, 0.2, 0.1],
    };
    assert_eq!(vote.winner(1, None), Some(1));
    assert_eq!(vote.winner(3, None), Some(2));
    // Two votes each: the lowest class.
    assert_eq!(vote.winner(5, None), Some(2));
    // exp(0.1 / 0.07) = 4.17: the nearest outweighs two that are 0.1 and 0.2 below.
    assert_eq!(vote.winner(5, Some(KNN_TEMPERATURE)), Some(1));
    assert_eq!(vote.decide(Metric::HitAt(1)), None);
}

#[test]
fn names_are_read_as_they_are_written() {
    for metric in Metric::all(&[1, 5, 10]) {
        assert_eq!(metric.to_string().parse(), Ok(metric));
    }
    for wrong in ["recall", "hit_at_0", "hit_at_", "recall@5", "map_at_x", ""] {
        assert!(wrong.parse::<Metric>().is_err(), "{wrong}");
    }
}

#[test]
fn grades_between_0_and_1_are_gains() {
    let ranking = Ranking {
        grades: &[0.5, 1.0, 0.0],
        least_grade: 0.75,
        n_candidates: 3,
        n_relevant: 1,
        ideal: &[1.0, 0.5],
        total_grade: 1.5,
    };
    let third = 1.0 / 3.0_f64.log2();
    let wanted = (0.5 + third) / (1.0 + 0.5 * third);
    assert!((ranking.value(Metric::NdcgAt(2)).unwrap() - wanted).abs() < 1e-12);
    assert_eq!(ranking.value(Metric::MrrAt(3)), Some(0.5));
}

fn ranking_of(relevant: &[bool]) -> (Vec<f32>, usize) {
    let grades: Vec<f32> = relevant.iter().map(|&r| f32::from(u8::from(r))).collect();
    let n_relevant = relevant.iter().filter(|&&r| r).count();
    (grades, n_relevant)
}

fn measure(relevant: &[bool], metric: Metric, is_chance: bool) -> f64 {
    with_ranking(relevant, |ranking| {
        if is_chance {
            ranking.chance(metric)
        } else {
            ranking.value(metric)
        }
        .unwrap()
    })
}

fn with_ranking<T>(relevant: &[bool], of: impl Fn(&Ranking<'_>) -> T) -> T {
    let (grades, n_relevant) = ranking_of(relevant);
    let ideal = vec![1.0; n_relevant];
    let ranking = Ranking {
        grades: &grades,
        least_grade: 1.0,
        n_candidates: relevant.len(),
        n_relevant,
        ideal: &ideal,
        total_grade: as_f64(n_relevant),
    };
    of(&ranking)
}

/// Calls `visit` with every order of the relevant among `n` items.
fn every_order(n: usize, n_relevant: usize, mut visit: impl FnMut(&[bool])) {
    for bits in 0..1_u32 << n {
        if bits.count_ones() as usize == n_relevant {
            let order: Vec<bool> = (0..n).map(|i| bits >> i & 1 == 1).collect();
            visit(&order);
        }
    }
}

#[test]
fn chance_is_the_mean_over_every_order() {
    for (n, n_relevant) in [(1, 1), (5, 1), (6, 2), (7, 6), (9, 4), (6, 6)] {
        let ranked = Metric::all(&[1, 3, 12]).into_iter();
        for metric in ranked.filter(|metric| !metric.is_vote()) {
            let (mut sum, mut count) = (0.0, 0);
            every_order(n, n_relevant, |order| {
                sum += measure(order, metric, false);
                count += 1;
            });
            let mut order = vec![false; n];
            order[..n_relevant].fill(true);
            let found = measure(&order, metric, true);
            let wanted = sum / f64::from(count);
            assert!(
                (found - wanted).abs() < 1e-12,
                "{metric} {n} {n_relevant}: {found} {wanted}"
            );
        }
    }
}

proptest! {
    #[test]
    fn metrics_are_shares_and_grow_with_k(relevant in prop::collection::vec(any::<bool>(), 1..40)) {
        prop_assume!(relevant.contains(&true));
        for k in 1..45 {
            for metric in Metric::all(&[k]).into_iter().filter(|metric| !metric.is_vote()) {
                let value = measure(&relevant, metric, false);
                prop_assert!((0.0..=1.0 + 1e-12).contains(&value), "{metric} {value}");
            }
            for family in [Metric::HitAt, Metric::RecallAt, Metric::MrrAt] {
                let (now, next) = (measure(&relevant, family(k), false), measure(&relevant, family(k + 1), false));
                prop_assert!(next >= now);
            }
        }
    }

    #[test]
    fn the_maximum_is_that_of_the_perfect_ranking(n_relevant in 1_usize..20, n_others in 0_usize..20, k in 1_usize..30) {
        let mut relevant = vec![true; n_relevant];
        relevant.resize(n_relevant + n_others, false);
        for metric in Metric::all(&[k]).into_iter().filter(|metric| !metric.is_vote()) {
            let value = measure(&relevant, metric, false);
            let maximum = with_ranking(&relevant, |ranking| ranking.maximum(metric)).unwrap();
            prop_assert!((value - maximum).abs() < 1e-12, "{metric} {value} {maximum}");
        }
    }

    #[test]
    fn a_perfect_ranking_has_every_metric_1(n_relevant in 1_usize..20, n_others in 0_usize..20) {
        let mut relevant = vec![true; n_relevant];
        relevant.resize(n_relevant + n_others, false);
        for metric in [Metric::HitAt(1), Metric::MapAt(5), Metric::MapAtR, Metric::MrrAt(5), Metric::NdcgAt(5), Metric::RecallAt(40)] {
            let value = measure(&relevant, metric, false);
            prop_assert!((value - 1.0).abs() < 1e-12, "{metric} {value}");
        }
    }
}
