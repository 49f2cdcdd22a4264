use super::*;
use proptest::prelude::*;

const RIGHT: Block = Block {
    n: 1,
    n_relevant: 1,
    total_grade: 1.0,
};
const WRONG: Block = Block {
    n: 1,
    n_relevant: 0,
    total_grade: 0.0,
};

/// The example of docs/evaluation.md: relevant, not, relevant, not, relevant.
const EXAMPLE: Ranking<'static> = Ranking {
    blocks: &[RIGHT, WRONG, RIGHT, WRONG, RIGHT],
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
        blocks: &[WRONG; 5],
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
        beyond: &[],
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
        blocks: &Block::of_order(&[0.5, 1.0, 0.0], 0.75),
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
        blocks: &Block::of_order(&grades, 1.0),
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

#[test]
fn the_example_of_ties_in_the_docs_holds() {
    // The ranking of the example, but its second to fourth item have one score: 1 of 3 is relevant.
    let tie = Block {
        n: 3,
        n_relevant: 1,
        total_grade: 1.0,
    };
    let ranking = Ranking {
        blocks: &[RIGHT, tie, RIGHT],
        ..EXAMPLE
    };
    let third = 1.0 / 3.0;
    let discounts = 1.0 / 3.0_f64.log2() + 0.5;
    let rows = [
        (Metric::HitAt(2), 1.0),
        (Metric::PrecisionAt(2), (1.0 + third) / 2.0),
        (Metric::RecallAt(2), (1.0 + third) / 3.0),
        // At rank 2 two relevant items have been seen, if one is there; at rank 3 as well.
        (Metric::MapAt(2), (1.0 + third * 2.0 / 2.0) / 2.0),
        (
            Metric::MapAtR,
            (1.0 + third * 2.0 / 2.0 + third * 2.0 / 3.0) / 3.0,
        ),
        (Metric::MrrAt(2), 1.0),
        (
            Metric::NdcgAt(3),
            (1.0 + third * discounts) / (1.0 + discounts),
        ),
    ];
    for (metric, wanted) in rows {
        let found = ranking.value(metric).unwrap();
        assert!((found - wanted).abs() < 1e-12, "{metric}: {found} {wanted}");
    }
    let cut: Vec<usize> = (0..7).filter(|&k| ranking.is_cut_in_tie(k)).collect();
    assert_eq!(cut, [2, 3]);
    // Five neighbours, of which the last four have one score and two are looked at: of the six pairs
    // one is 1 and 1, one 2 and 2, four are 1 and 2, which give 1 the majority, too.
    let vote = Vote {
        classes: &[1, 1, 2, 1, 2],
        scores: &[0.9, 0.5, 0.5, 0.5, 0.5],
        beyond: &[],
    };
    let share = |class| vote.share_of(Metric::MajorityAt(3), class).unwrap();
    assert!((share(1) - 5.0 / 6.0).abs() < 1e-12 && (share(2) - 1.0 / 6.0).abs() < 1e-12);
}

/// The definitions of docs/evaluation.md for one order, as they were before ties had expected values.
fn of_order(grades: &[f32], least_grade: f32, metric: Metric) -> f64 {
    let is_relevant = |idx: usize| grades[idx] >= least_grade;
    let n_relevant = (0..grades.len()).filter(|&idx| is_relevant(idx)).count();
    let seen = |k: usize| k.min(grades.len());
    let n_found = |k: usize| as_f64((0..seen(k)).filter(|&idx| is_relevant(idx)).count());
    let first = |k: usize| (0..seen(k)).find(|&idx| is_relevant(idx));
    let precision = |k: usize| {
        let (mut n_found, mut sum) = (0, 0.0);
        for rank in 1..=seen(k) {
            if is_relevant(rank - 1) {
                n_found += 1;
                sum += f64::from(n_found) / as_f64(rank);
            }
        }
        sum / as_f64(n_relevant.min(k))
    };
    let mut ideal = grades.to_vec();
    ideal.sort_by(|a, b| b.total_cmp(a));
    match metric {
        Metric::HitAt(k) => f64::from(u8::from(first(k).is_some())),
        Metric::RecallAt(k) => n_found(k) / as_f64(n_relevant),
        Metric::PrecisionAt(k) => n_found(k) / as_f64(k),
        Metric::MapAt(k) => precision(k),
        Metric::MapAtR => precision(n_relevant),
        Metric::MrrAt(k) => first(k).map_or(0.0, |idx| 1.0 / as_f64(idx + 1)),
        Metric::NdcgAt(k) => discounted(grades, k) / discounted(&ideal, k),
        _ => panic!("{metric} is a vote"),
    }
}

/// Every order of items that falls by score.
fn orders(scores: &[f32]) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in scores {
        let longer = |order: &Vec<usize>| {
            let left = (0..scores.len()).filter(|idx| !order.contains(idx));
            let best = left.clone().map(|idx| scores[idx]).fold(f32::MIN, f32::max);
            let next = left.filter(|&idx| scores[idx] == best);
            next.map(|idx| [&order[..], &[idx]].concat())
                .collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    orders
}

/// A ranking of all candidates, cut to blocks that cover `depth` items.
fn tied_value(scores: &[f32], grades: &[f32], metric: Metric, depth: usize) -> f64 {
    const LEAST: f32 = 0.5;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let [scores, grades] =
        [scores, grades].map(|all| -> Vec<f32> { order.iter().map(|&idx| all[idx]).collect() });
    let n_kept = (0..scores.len())
        .find(|&n| n >= depth && scores[n] != scores[n - 1])
        .unwrap_or(scores.len());
    let mut ideal = grades.clone();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let ranking = Ranking {
        blocks: &Block::of_scores(&scores[..n_kept], &grades[..n_kept], LEAST),
        n_candidates: grades.len(),
        n_relevant: grades.iter().filter(|&&grade| grade >= LEAST).count(),
        ideal: &ideal,
        total_grade: grades.iter().copied().map(f64::from).sum(),
    };
    ranking.value(metric).unwrap()
}

/// The mean over every order that scores allow.
fn brute_force(scores: &[f32], of: impl Fn(&[usize]) -> f64) -> f64 {
    let orders = orders(scores);
    orders.iter().map(|order| of(order)).sum::<f64>() / as_f64(orders.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn ties_have_the_mean_over_all_orders(rows in prop::collection::vec((0_u8..3, 0_u8..4), 1..7)) {
        let scores: Vec<f32> = rows.iter().map(|row| f32::from(row.0) / 8.0).collect();
        let grades: Vec<f32> = rows.iter().map(|row| [0.0, 1.0 / 3.0, 0.5, 1.0][usize::from(row.1)]).collect();
        prop_assume!(grades.iter().any(|&grade| grade >= 0.5));
        let n_relevant = grades.iter().filter(|&&grade| grade >= 0.5).count();
        for metric in Metric::all(&[1, 2, 4, 9]).into_iter().filter(|metric| !metric.is_vote()) {
            let wanted = brute_force(&scores, |order| {
                let grades: Vec<f32> = order.iter().map(|&idx| grades[idx]).collect();
                of_order(&grades, 0.5, metric)
            });
            for depth in [metric.depth(n_relevant), scores.len()] {
                let found = tied_value(&scores, &grades, metric, depth);
                prop_assert!((found - wanted).abs() < 1e-12, "{} {} {}", metric, found, wanted);
            }
        }
    }

    #[test]
    fn tied_votes_have_the_share_of_all_orders(
        rows in prop::collection::vec((0_u8..3, 0_u32..4), 1..8),
        n_listed in 1_usize..8,
    ) {
        let mut rows = rows;
        rows.sort_by_key(|row| std::cmp::Reverse(row.0));
        let scores: Vec<f32> = rows.iter().map(|row| f32::from(row.0) / 50.0).collect();
        let classes: Vec<u32> = rows.iter().map(|row| row.1).collect();
        let n_listed = n_listed.min(rows.len());
        let n_more = scores[n_listed..].iter().filter(|&&score| score == scores[n_listed - 1]).count();
        let vote = Vote {
            classes: &classes[..n_listed],
            scores: &scores[..n_listed],
            beyond: &classes[n_listed..n_listed + n_more],
        };
        for k in 1..=n_listed {
            for temperature in [None, Some(KNN_TEMPERATURE)] {
                for class in 0..4 {
                    let wanted = brute_force(&scores, |order| {
                        let classes: Vec<u32> = order.iter().map(|&idx| classes[idx]).collect();
                        let vote = Vote { classes: &classes, scores: &scores, beyond: &[] };
                        f64::from(u8::from(vote.winner(k, temperature) == Some(class)))
                    });
                    let found = vote.share(k, temperature, class);
                    prop_assert!((found - wanted).abs() < 1e-12, "{} of {}: {} {}", class, k, found, wanted);
                }
            }
        }
    }

    #[test]
    fn without_ties_the_bits_are_those_of_the_order(grades in prop::collection::vec(0_u8..5, 1..60)) {
        let grades: Vec<f32> = grades.iter().map(|&grade| [0.0, 0.0, 1.0 / 3.0, 1.0 / 7.0, 1.0][usize::from(grade)]).collect();
        for least_grade in [f32::MIN_POSITIVE, 0.2, 1.0] {
            let n_relevant = grades.iter().filter(|&&grade| grade >= least_grade).count();
            let mut ideal = grades.clone();
            ideal.sort_by(|a, b| b.total_cmp(a));
            // Scores that all differ, and blocks that are known to hold one item each.
            let scores: Vec<f32> = (0..grades.len()).map(|idx| 1.0 - idx as f32 / 64.0).collect();
            for blocks in [Block::of_scores(&scores, &grades, least_grade), Block::of_order(&grades, least_grade)] {
                let ranking = Ranking {
                    blocks: &blocks,
                    n_candidates: grades.len(),
                    n_relevant,
                    ideal: &ideal,
                    total_grade: grades.iter().copied().map(f64::from).sum(),
                };
                for metric in Metric::all(&[1, 5, 10, 100]).into_iter().filter(|metric| !metric.is_vote()) {
                    let Some(found) = ranking.value(metric) else {
                        prop_assert_eq!(n_relevant, 0);
                        continue;
                    };
                    let wanted = of_order(&grades, least_grade, metric);
                    prop_assert_eq!(found.to_bits(), wanted.to_bits(), "{} {} {}", metric, found, wanted);
                }
            }
        }
    }

    #[test]
    fn one_score_for_all_is_chance_to_the_last_bit(n in 2_usize..300, share in 0.0_f64..1.0) {
        let n_relevant = ((share * n as f64) as usize).clamp(1, n - 1);
        let grades: Vec<f32> = (0..n).map(|idx| f32::from(u8::from(idx < n_relevant))).collect();
        let ideal = vec![1.0; n_relevant];
        let ranking = Ranking {
            blocks: &Block::of_scores(&vec![0.5; n], &grades, 1.0),
            n_candidates: n,
            n_relevant,
            ideal: &ideal,
            total_grade: as_f64(n_relevant),
        };
        for metric in Metric::all(&[1, 5, 10, 400]) {
            prop_assert_eq!(ranking.value(metric), ranking.chance(metric), "{}", metric);
        }
    }
}

#[test]
fn large_votes_of_one_score_are_fast_and_sum_to_1() {
    // 5,000 items of 1,000 classes, five each, and 100 votes.
    let classes: Vec<u32> = (0..5000).map(|idx| idx % 1000).collect();
    let scores = vec![0.25; 100];
    let vote = Vote {
        classes: &classes[..100],
        scores: &scores,
        beyond: &classes[100..],
    };
    let total: f64 = (0..1000)
        .map(|class| vote.share_of(Metric::KnnAccuracy, class).unwrap())
        .sum();
    assert!((total - 1.0).abs() < 1e-9, "{total}");
    let first = vote.share_of(Metric::MajorityAt(100), 0).unwrap();
    let last = vote.share_of(Metric::MajorityAt(100), 999).unwrap();
    assert!(last > 0.0 && first > last && first < 0.1, "{first} {last}");
}
