use super::*;
use proptest::prelude::*;

/// Unit vectors at these angles, in degrees.
fn vectors(angles: &[f32]) -> Vec<f32> {
    let vector = |&angle: &f32| {
        let (sin, cos) = angle.to_radians().sin_cos();
        [cos, sin]
    };
    angles.iter().flat_map(vector).collect()
}

fn columns(labels: &[&str], patients: &[&str]) -> Columns {
    let mut columns = Columns::new(labels.len());
    columns
        .insert("label", Column::new(labels.iter().copied()))
        .unwrap();
    columns
        .insert("patient_id", Column::new(patients.iter().copied()))
        .unwrap();
    columns
}

fn everyone(n: u32) -> Task {
    Task {
        name: "all/label".to_owned(),
        queries: (0..n).collect(),
        gallery: (0..n).collect(),
        relevance: "label".to_owned(),
        query_modality: None,
        gallery_modality: None,
        has_unseen: false,
    }
}

const METRICS: [Metric; 4] = [
    Metric::HitAt(1),
    Metric::PrecisionAt(2),
    Metric::MapAtR,
    Metric::MajorityAt(1),
];

fn run(task: &Task, columns: &Columns, vectors: &[f32], exclude: &[&str]) -> Result<Evaluation> {
    let order: Vec<u32> = (0..).take(columns.n_rows()).collect();
    let measures = Measures {
        metrics: &METRICS,
        least_grade: f32::MIN_POSITIVE,
        n_hits: 3,
        query_order: &order,
        tie_order: &order,
    };
    let embeddings = Embeddings::new(vectors, 2)?;
    let rule: Vec<String> = exclude.iter().map(|name| (*name).to_owned()).collect();
    Ok(evaluate(task, columns, &embeddings, &measures, &[rule])?.remove(0))
}

#[test]
fn self_and_the_same_patient_are_no_candidates() {
    let columns = columns(&["a", "a", "b", "a"], &["p", "p", "q", ""]);
    let vectors = vectors(&[0.0, 1.0, 5.0, 90.0]);
    let with = |exclude: &[&str]| run(&everyone(4), &columns, &vectors, exclude).unwrap();
    let rows = |answer: &Answer| answer.hits.iter().map(|hit| hit.row).collect::<Vec<_>>();
    let all = with(&[]);
    assert_eq!(rows(&all.answers[0]), [1, 2, 3]);
    assert_eq!(
        (all.answers[0].n_candidates, all.answers[0].n_relevant),
        (3, 2)
    );
    assert_eq!(all.answers[0].values, [1.0, 0.5, 0.5, 1.0]);
    let others = with(&["patient_id"]);
    assert_eq!(rows(&others.answers[0]), [2, 3]);
    assert_eq!(others.answers[0].values, [0.0, 0.5, 0.0, 0.0]);
    // Row 3 has no known patient, which is no patient of its own.
    assert_eq!(others.answers.last().unwrap().n_candidates, 3);
    // Nothing else has label b.
    assert_eq!(others.left_out.n_without_relevant, 1);
    let retrieved: Vec<u32> = all.n_retrieved.iter().map(|&(_, n)| n).collect();
    assert_eq!(retrieved, [2, 2, 3, 2]);
}

#[test]
fn rows_without_label_or_vector_take_no_part() {
    let columns = columns(&["a", "", "a", "b", "a"], &[""; 5]);
    let mut vectors = vectors(&[0.0, 1.0, 2.0, 3.0, 4.0]);
    vectors[4..6].fill(f32::NAN);
    let evaluation = run(&everyone(5), &columns, &vectors, &[]).unwrap();
    let wanted = LeftOutQueries {
        n_without_vector: 1,
        n_unlabelled: 1,
        n_without_relevant: 1,
        n_only_relevant: 0,
    };
    assert_eq!(evaluation.left_out, wanted);
    assert_eq!((evaluation.n_gallery, evaluation.answers.len()), (3, 2));
}

#[test]
fn one_class_alone_has_nothing_to_tell_apart() {
    let columns = columns(&["a"; 3], &[""; 3]);
    let evaluation = run(&everyone(3), &columns, &vectors(&[0.0, 1.0, 2.0]), &[]).unwrap();
    assert!(evaluation.answers.is_empty());
    assert_eq!(evaluation.left_out.n_only_relevant, 3);
}

#[test]
fn vectors_that_say_nothing_are_refused() {
    let check = |values: &[f32], wanted: &str| {
        let error = Embeddings::new(values, 2).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    };
    check(&[1.0, 0.0, 1.0, 0.0], "the same vector in every row");
    check(&[f32::NAN; 4], "no vector");
    check(&[], "no vector");
    check(&[1.0, 0.0, 2.0, 0.0], "row 1");
    check(&[1.0, 0.0, f32::NAN, 0.5], "row 1");
    check(&[1.0, 0.0, 1.0], "3 numbers");
}

#[test]
fn equal_scores_have_expected_values_and_are_told() {
    let columns = columns(&["a", "b", "a", "b", "a"], &[""; 5]);
    // Row 0 asks: rows 1 and 2 tie, then 3, then 4 which is far.
    let vectors = vectors(&[0.0, 10.0, 10.0, 20.0, 90.0]);
    let task = Task {
        queries: vec![0],
        ..everyone(5)
    };
    let answer = run(&task, &columns, &vectors, &[]).unwrap().answers[0].clone();
    // hit_at_1, precision_at_2, map_at_r (over two items), majority_at_1.
    assert_eq!(answer.values, [0.5, 0.5, (0.5 + 0.25) / 2.0, 0.5]);
    assert!(answer.is_tied && answer.n_beyond == 0);
    let apart = self::vectors(&[0.0, 10.0, 11.0, 20.0, 90.0]);
    let answer = run(&task, &columns, &apart, &[]).unwrap().answers[0].clone();
    assert!(!answer.is_tied);
    assert_eq!(answer.values, [0.0, 0.5, 0.25, 0.0]);
}

/// All gallery items are equally far from every query: one hot number each.
#[test]
fn no_item_leads_all_rankings_of_equal_scores() {
    let n = 64;
    let labels: Vec<&str> = (0..n).map(|i| if i < 40 { "a" } else { "b" }).collect();
    let columns = columns(&labels, &vec![""; n]);
    let vectors: Vec<f32> = (0..n * n)
        .map(|i| f32::from(u8::from(i / n == i % n)))
        .collect();
    let order: Vec<u32> = (0..).take(n).collect();
    let measures = Measures {
        metrics: &METRICS,
        least_grade: 1.0,
        n_hits: 3,
        query_order: &order,
        tie_order: &order,
    };
    let embeddings = Embeddings::new(&vectors, n).unwrap();
    let task = everyone(u32::try_from(n).unwrap());
    let evaluation = evaluate(&task, &columns, &embeddings, &measures, &[vec![]]).unwrap();
    let evaluation = &evaluation[0];
    assert_eq!(evaluation.common_score, Some(0.0));
    for answer in &evaluation.answers {
        assert_eq!(answer.values[..3], answer.chance[..3]);
        assert!(answer.is_tied);
        assert_eq!(answer.n_beyond, n - 1 - 3);
    }
    // Of 192 hits, each item has three on average; in one order three items would have all.
    let most = evaluation.n_retrieved.iter().map(|&(_, n)| n).max();
    assert!(most.unwrap() < 12, "{most:?}");
}

#[test]
fn collapsed_vectors_are_chance_whatever_rounding_does() {
    // A direction and noise of 1e-4 that follows the label: cosines differ in their last bits only.
    let n = 60;
    let class = |i: usize| usize::from(i.is_multiple_of(3));
    let labels: Vec<&str> = (0..n).map(|i| ["a", "b"][class(i)]).collect();
    let columns = columns(&labels, &vec![""; n]);
    let vectors = |noise: f32| -> Vec<f32> {
        let mut all = Vec::new();
        for i in 0..n {
            let mut vector = vec![0.25; 16];
            vector[class(i)] += noise;
            vector[i % 7 + 3] += noise / 3.0;
            crate::normalize(&mut vector).unwrap();
            all.extend(vector);
        }
        all
    };
    let evaluation = |noise: f32| {
        let order: Vec<u32> = (0..).take(n).collect();
        let metrics = Metric::all(&[1, 5, 10]);
        let measures = Measures {
            metrics: &metrics,
            least_grade: 1.0,
            n_hits: 10,
            query_order: &order,
            tie_order: &order,
        };
        let vectors = vectors(noise);
        let embeddings = Embeddings::new(&vectors, 16).unwrap();
        let task = everyone(u32::try_from(n).unwrap());
        let mut found = evaluate(&task, &columns, &embeddings, &measures, &[vec![]]).unwrap();
        (found.remove(0), metrics)
    };
    let (collapsed, metrics) = evaluation(1e-4);
    let score = collapsed.common_score.unwrap();
    assert!((score - 1.0).abs() < 1e-6, "{score}");
    for answer in &collapsed.answers {
        for (idx, metric) in metrics.iter().enumerate() {
            let (value, chance) = (answer.values[idx], answer.chance[idx]);
            assert!(
                metric.is_vote() || value == chance,
                "{metric} {value} {chance}"
            );
        }
    }
    // A vote over random orders is never better than naming the commonest class.
    for (idx, metric) in metrics.iter().enumerate() {
        let mean = |of: fn(&Answer) -> &[f64]| collapsed.mean(|answer| of(answer)[idx]);
        let (value, chance) = (mean(|a| &a.values), mean(|a| &a.chance));
        assert!(value <= chance + 1e-12, "{metric} {value} {chance}");
    }
    let (apart, _) = evaluation(0.1);
    assert_eq!(apart.common_score, None);
    assert!(apart.mean(|answer| answer.values[0]) > 0.99);
}

#[test]
fn several_labels_are_graded_and_do_not_vote() {
    let columns = columns(&["a|b", "a", "c", "b|a"], &[""; 4]);
    let vectors = vectors(&[0.0, 10.0, 20.0, 30.0]);
    let evaluation = run(&everyone(4), &columns, &vectors, &[]).unwrap();
    let answer = &evaluation.answers[0];
    let grades: Vec<f32> = answer.hits.iter().map(|hit| hit.grade).collect();
    assert_eq!(grades, [0.5, 0.0, 1.0]);
    assert_eq!((answer.n_relevant, answer.class), (2, None));
    assert!(answer.values[3].is_nan() && answer.chance[3].is_nan());
}

#[test]
fn missing_columns_and_rows_are_errors() {
    let columns = columns(&["a", "b"], &["p", "q"]);
    let vectors = vectors(&[0.0, 1.0]);
    let task = Task {
        relevance: "organ".to_owned(),
        ..everyone(2)
    };
    assert!(
        run(&task, &columns, &vectors, &[])
            .unwrap_err()
            .to_string()
            .contains("organ")
    );
    assert!(
        run(&everyone(2), &columns, &vectors, &["site"])
            .unwrap_err()
            .to_string()
            .contains("site")
    );
    assert!(run(&everyone(2), &columns, &vectors[..0], &[]).is_err());
}

/// What `evaluate` should give, the slow and plain way: sorts everything for each query.
fn plain(labels: &[&str], patients: &[&str], angles: &[f32], query: usize) -> Option<[f64; 3]> {
    let all = vectors(angles);
    let score = |row: usize| crate::kernels::dot(&all[query * 2..][..2], &all[row * 2..][..2]);
    let is_candidate = |&row: &usize| {
        row != query && (patients[row].is_empty() || patients[row] != patients[query])
    };
    let mut rows: Vec<usize> = (0..labels.len()).filter(is_candidate).collect();
    rows.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    let scores: Vec<f32> = rows.iter().map(|&row| score(row)).collect();
    let relevant: Vec<bool> = rows
        .iter()
        .map(|&row| labels[row] == labels[query])
        .collect();
    let n_relevant = relevant.iter().filter(|&&r| r).count();
    if n_relevant == 0 || n_relevant == relevant.len() {
        return None;
    }
    Some(of_tied(&scores, &relevant))
}

/// `hit_at_1`, `precision_at_2` and `map_at_r`, from the probabilities that a rank, or two ranks, have
/// relevant items.
fn of_tied(scores: &[f32], relevant: &[bool]) -> [f64; 3] {
    let count = |score: f32| {
        let own = (0..scores.len()).filter(|&i| scores[i] == score);
        let n_relevant = own.clone().filter(|&i| relevant[i]).count();
        (own.count() as f64, n_relevant as f64)
    };
    let one = |i: usize| {
        let (n, r) = count(scores[i]);
        r / n
    };
    let both = |i: usize, j: usize| {
        let (n, r) = count(scores[i]);
        if i == j {
            r / n
        } else if scores[i] == scores[j] {
            r / n * (r - 1.0) / (n - 1.0)
        } else {
            one(i) * one(j)
        }
    };
    let n_relevant = relevant.iter().filter(|&&r| r).count();
    let precision = |i: usize| (0..=i).map(|j| both(i, j)).sum::<f64>() / (i + 1) as f64;
    let precisions = (0..n_relevant).map(precision).sum::<f64>();
    let second = if scores.len() > 1 { one(1) } else { 0.0 };
    [
        one(0),
        (one(0) + second) / 2.0,
        precisions / n_relevant as f64,
    ]
}

proptest! {
    #[test]
    fn rankings_agree_with_a_sort(rows in prop::collection::vec((0_u8..3, 0_u8..6, 0_u16..90), 3..70)) {
        let label = |i: u8| ["x", "y", "z"][usize::from(i)];
        let patient = |i: u8| ["", "p", "q", "r", "s", "t"][usize::from(i)];
        let labels: Vec<&str> = rows.iter().map(|row| label(row.0)).collect();
        let patients: Vec<&str> = rows.iter().map(|row| patient(row.1)).collect();
        let angles: Vec<f32> = rows.iter().map(|row| f32::from(row.2)).collect();
        prop_assume!(angles.iter().any(|angle| *angle != angles[0]));
        let columns = columns(&labels, &patients);
        let n = u32::try_from(rows.len()).unwrap();
        let evaluation = run(&everyone(n), &columns, &vectors(&angles), &["patient_id"]).unwrap();
        let wanted: Vec<(u32, [f64; 3])> = (0..n)
            .filter_map(|query| Some((query, plain(&labels, &patients, &angles, query as usize)?)))
            .collect();
        prop_assert_eq!(evaluation.answers.len(), wanted.len());
        for (answer, (query, values)) in evaluation.answers.iter().zip(wanted) {
            prop_assert_eq!(answer.query, query);
            for (found, wanted) in answer.values.iter().zip(values) {
                prop_assert!((found - wanted).abs() < 1e-12, "{} {}", found, wanted);
            }
        }
    }
}

/// Items of two classes ask for the rest, as in a cross task.
fn halves(n: u32) -> Task {
    Task {
        name: "cross/A-B/label".to_owned(),
        queries: (0..n / 2).collect(),
        gallery: (n / 2..n).collect(),
        ..everyone(n)
    }
}

#[test]
fn cross_tasks_are_the_mean_over_classes() {
    // Three queries of x find it first, one of y does not.
    let columns = columns(&["x", "x", "x", "y", "x", "y", "y", "z"], &[""; 8]);
    let vectors = vectors(&[0.0, 1.0, 2.0, 3.0, 4.0, 40.0, 50.0, 60.0]);
    let evaluation = run(&halves(8), &columns, &vectors, &[]).unwrap();
    assert_eq!(evaluation.n_classes, [2, 3]);
    let numbers: Vec<u32> = evaluation.answers.iter().map(|a| a.class_number).collect();
    assert_eq!(numbers, [1, 1, 1, 2]);
    assert_eq!(evaluation.mean(|answer| answer.values[0]), 0.5);
    // Of random rankings: (3 x 1/4) / 3 and 2/4.
    assert_eq!(evaluation.mean(|answer| answer.chance[0]), 0.375);
    let plain = Task {
        name: "within/A/label".to_owned(),
        ..halves(8)
    };
    let evaluation = run(&plain, &columns, &vectors, &[]).unwrap();
    assert_eq!(evaluation.mean(|answer| answer.values[0]), 0.75);
    assert_eq!(evaluation.n_classes, [2, 3]);
    assert!(evaluation.answers.iter().all(|a| a.class_number == 0));
}

#[test]
fn the_example_of_constant_in_the_docs_holds() {
    // Queries x, x, x, y; gallery x, x, y, z. By weight x comes first, by weight over R x, too:
    // (3/4) / 2 against (1/4) / 1.
    let columns = columns(&["x", "x", "x", "y", "x", "x", "y", "z"], &[""; 8]);
    let vectors = vectors(&[0.0, 1.0, 2.0, 3.0, 4.0, 40.0, 50.0, 60.0]);
    let of = |task: &Task| run(task, &columns, &vectors, &[]).unwrap().constant;
    let plain = Task {
        name: "within/A/label".to_owned(),
        ..halves(8)
    };
    let found = of(&plain);
    assert_eq!(found[..3], [0.75, 0.75, 0.75]);
    assert!(found[3].is_nan());
    // The mean over classes: y weighs as much, and its one item goes first by weight over R:
    // map_at_r is 1 for y, and x has its first item at rank 2: (1/2 + 0) / 2. In the other order
    // x has 1 and y, whose item is at rank 3, has 0.
    let found = of(&halves(8));
    assert_eq!(found[..3], [0.5, 0.5, 0.625]);
}

/// The value of a fixed ranking, query by query.
fn of_fixed(
    order: &[usize],
    labels: &[&str],
    patients: &[&str],
    evaluation: &Evaluation,
) -> [f64; 3] {
    let mut numbers = Vec::new();
    for answer in &evaluation.answers {
        let query = answer.query as usize;
        let is_candidate = |&&row: &&usize| {
            row != query && (patients[row].is_empty() || patients[row] != patients[query])
        };
        let relevant: Vec<bool> = order
            .iter()
            .filter(is_candidate)
            .map(|&row| labels[row] == labels[query])
            .collect();
        numbers.push(of_relevant(&relevant));
    }
    [0, 1, 2].map(|idx| {
        let of_metric: Vec<f64> = numbers.iter().map(|numbers| numbers[idx]).collect();
        evaluation.strata.mean(&of_metric)
    })
}

/// `hit_at_1`, `precision_at_2` and `map_at_r` of one ranking.
fn of_relevant(relevant: &[bool]) -> [f64; 3] {
    let n_relevant = relevant.iter().filter(|&&r| r).count();
    let found = |k: usize| relevant.iter().take(k).filter(|&&r| r).count() as f64;
    let precisions = (1..=n_relevant)
        .filter(|&rank| relevant[rank - 1])
        .map(|rank| found(rank) / rank as f64);
    [
        found(1),
        found(2) / 2.0,
        precisions.sum::<f64>() / n_relevant as f64,
    ]
}

/// Numbers of every answer by row of the table that `rows` were taken from.
fn by_row(evaluation: &Evaluation, rows: &[usize]) -> Vec<(usize, Vec<u64>, bool)> {
    let answers = evaluation.answers.iter();
    let answers = answers.map(|answer| {
        let values = answer.values.iter().map(|value| value.to_bits());
        (
            rows[answer.query as usize],
            values.collect(),
            answer.is_tied,
        )
    });
    answers.collect()
}

proptest! {
    #[test]
    fn the_order_of_rows_changes_no_bit(
        rows in prop::collection::vec((0_u8..3, 0_u8..6, 0_u16..12), 4..60),
        shuffle in prop::collection::vec(any::<u32>(), 60),
        names in prop::collection::vec(any::<u32>(), 60),
    ) {
        prop_assume!(rows.iter().any(|row| row.2 != rows[0].2));
        let of = |chosen: &[usize]| {
            let labels: Vec<&str> = chosen.iter().map(|&i| ["x", "y", "z"][usize::from(rows[i].0)]).collect();
            let patients: Vec<&str> = chosen.iter().map(|&i| ["", "p", "q", "r", "s", "t"][usize::from(rows[i].1)]).collect();
            let angles: Vec<f32> = chosen.iter().map(|&i| f32::from(rows[i].2) * 7.0).collect();
            // Places follow from what a row is, not from where it stands.
            let place = |key: &dyn Fn(usize) -> (u32, usize)| {
                let mut sorted: Vec<usize> = (0..chosen.len()).collect();
                sorted.sort_by_key(|&i| key(chosen[i]));
                let mut order = vec![0; chosen.len()];
                (0..).zip(sorted).for_each(|(rank, i)| order[i] = rank);
                order
            };
            let metrics = Metric::all(&[1, 3, 5]);
            let measures = Measures {
                metrics: &metrics,
                least_grade: 1.0,
                n_hits: 5,
                query_order: &place(&|i| (0, i)),
                tie_order: &place(&|i| (names[i], i)),
            };
            let vectors = vectors(&angles);
            let embeddings = Embeddings::new(&vectors, 2).unwrap();
            let task = everyone(u32::try_from(chosen.len()).unwrap());
            let columns = columns(&labels, &patients);
            let rules = [vec!["patient_id".to_owned()]];
            evaluate(&task, &columns, &embeddings, &measures, &rules).unwrap().remove(0)
        };
        let straight: Vec<usize> = (0..rows.len()).collect();
        let mut mixed = straight.clone();
        mixed.sort_by_key(|&i| shuffle[i]);
        let (a, b) = (of(&straight), of(&mixed));
        prop_assert_eq!(by_row(&a, &straight), by_row(&b, &mixed));
        for (one, other) in a.answers.iter().zip(&b.answers) {
            let hits = |answer: &Answer, rows: &[usize]| {
                answer.hits.iter().map(|hit| rows[hit.row as usize]).collect::<Vec<_>>()
            };
            prop_assert_eq!(hits(one, &straight), hits(other, &mixed));
        }
        for idx in 0..a.constant.len() {
            let mean = |evaluation: &Evaluation| evaluation.mean(|answer| answer.values[idx]).to_bits();
            prop_assert_eq!(mean(&a), mean(&b));
        }
    }
}

proptest! {
    #[test]
    fn constant_is_that_of_two_rankings_and_none_is_better_by_precision(
        rows in prop::collection::vec((0_u8..4, 0_u8..6, 0_u16..90), 8..50),
        shuffle in prop::collection::vec(any::<u32>(), 50),
        is_cross: bool,
        excludes: bool,
    ) {
        let label = |i: u8| ["x", "y", "z", ""][usize::from(i)];
        let patient = |i: u8| ["", "p", "q", "r", "s", "t"][usize::from(i)];
        let labels: Vec<&str> = rows.iter().map(|row| label(row.0)).collect();
        let patients: Vec<&str> = rows.iter().map(|row| if excludes { patient(row.1) } else { "" }).collect();
        let angles: Vec<f32> = rows.iter().map(|row| f32::from(row.2)).collect();
        prop_assume!(angles.iter().any(|angle| *angle != angles[0]));
        let columns = columns(&labels, &patients);
        let n = rows.len();
        let mut task = halves(u32::try_from(n).unwrap());
        if !is_cross {
            task.name = "within/A/label".to_owned();
        }
        let evaluation = run(&task, &columns, &vectors(&angles), &["patient_id"]).unwrap();
        prop_assume!(!evaluation.answers.is_empty());
        // The slow and plain way: every item's sums over all queries.
        let weights = evaluation.strata.weights();
        let sums = |item: usize| {
            let mut sums = [0.0; 2];
            for (answer, weight) in evaluation.answers.iter().zip(&weights) {
                if labels[answer.query as usize] == labels[item] {
                    sums[0] += weight;
                    sums[1] += weight / answer.n_relevant as f64;
                }
            }
            sums.map(|sum: f64| (sum * 1e9).round())
        };
        let mut wanted = [0.0_f64; 3];
        let gallery: Vec<usize> = (n / 2..n).filter(|&row| !labels[row].is_empty()).collect();
        for first in [0, 1] {
            let mut order = gallery.clone();
            order.sort_by(|&a, &b| {
                let (x, y) = (sums(a), sums(b));
                let by = |i: usize| y[i].total_cmp(&x[i]);
                by(first).then(by(1 - first)).then(labels[a].cmp(labels[b])).then(a.cmp(&b))
            });
            let found = of_fixed(&order, &labels, &patients, &evaluation);
            for (wanted, found) in wanted.iter_mut().zip(found) {
                *wanted = wanted.max(found);
            }
        }
        for (found, wanted) in evaluation.constant.iter().zip(wanted) {
            prop_assert!((found - wanted).abs() < 1e-9, "{} {}", found, wanted);
        }
        if !excludes {
            let mut order = gallery;
            order.sort_by_key(|&row| shuffle[row % 50]);
            let other = of_fixed(&order, &labels, &patients, &evaluation);
            prop_assert!(other[0] <= evaluation.constant[0] + 1e-9);
            prop_assert!(other[1] <= evaluation.constant[1] + 1e-9);
        }
        // The mean over classes, the slow and plain way.
        if is_cross {
            let classes: std::collections::BTreeSet<&str> =
                evaluation.answers.iter().map(|answer| labels[answer.query as usize]).collect();
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let of_class = |class: &&str| {
                let own = evaluation.answers.iter().filter(|a| labels[a.query as usize] == *class);
                mean(&own.map(|answer| answer.values[2]).collect::<Vec<_>>())
            };
            let wanted = mean(&classes.iter().map(of_class).collect::<Vec<_>>());
            prop_assert!((evaluation.mean(|answer| answer.values[2]) - wanted).abs() < 1e-12);
            prop_assert_eq!(evaluation.n_classes[0], classes.len());
        }
    }

    #[test]
    fn mixed_searches_agree_with_a_sort(rows in prop::collection::vec((0_u8..3, 0_u8..6, 0_u16..90, 0_u8..3), 6..50)) {
        let label = |i: u8| ["x", "y", "z"][usize::from(i)];
        let patient = |i: u8| ["", "p", "q", "r", "s", "t"][usize::from(i)];
        let labels: Vec<&str> = rows.iter().map(|row| label(row.0)).collect();
        let patients: Vec<&str> = rows.iter().map(|row| patient(row.1)).collect();
        let modalities: Vec<&str> = rows.iter().map(|row| ["CT", "DX", "US"][usize::from(row.3)]).collect();
        let angles: Vec<f32> = rows.iter().map(|row| f32::from(row.2)).collect();
        prop_assume!(angles.iter().any(|angle| *angle != angles[0]));
        let mut columns = columns(&labels, &patients);
        columns.insert("modality", Column::new(modalities.iter().copied())).unwrap();
        let n = rows.len();
        let all = vectors(&angles);
        let order: Vec<u32> = (0..).take(n).collect();
        let measures = Measures { metrics: &[], least_grade: f32::MIN_POSITIVE, n_hits: 1, query_order: &order, tie_order: &order };
        let embeddings = Embeddings::new(&all, 2).unwrap();
        let task = everyone(u32::try_from(n).unwrap());
        let found = mixed(&task, &columns, &embeddings, &measures, &["patient_id".to_owned()]).unwrap();
        let score = |a: usize, b: usize| crate::kernels::dot(&all[a * 2..][..2], &all[b * 2..][..2]);
        let mut wanted = Vec::new();
        for query in 0..n {
            let mut candidates: Vec<usize> = (0..n)
                .filter(|&row| row != query && (patients[row].is_empty() || patients[row] != patients[query]))
                .collect();
            candidates.sort_by(|&a, &b| score(query, b).total_cmp(&score(query, a)));
            let is_own = |row: usize| modalities[row] == modalities[query];
            let is_right = |row: usize| labels[row] == labels[query] && !is_own(row);
            let share = |rows: &[usize], of: &dyn Fn(usize) -> bool| rows.iter().filter(|&&row| of(row)).count() as f64;
            let n_right = share(&candidates, &is_right);
            let n_same = candidates.iter().filter(|&&row| labels[row] == labels[query]).count();
            if n_right == 0.0 || n_same == candidates.len() {
                continue;
            }
            // Of the items with one score, each is at each of their ranks with the same probability.
            let n_top = candidates.len().min(5);
            let at = |rank: usize, of: &dyn Fn(usize) -> bool| {
                let is_tied = |row: &&usize| score(query, **row) == score(query, candidates[rank]);
                let tied: Vec<usize> = candidates.iter().filter(is_tied).copied().collect();
                share(&tied, of) / tied.len() as f64
            };
            let expected = |of: &dyn Fn(usize) -> bool| (0..n_top).map(|rank| at(rank, of)).sum::<f64>() / 5.0;
            let n_all = candidates.len() as f64;
            let chance = |n_own: f64| n_top as f64 / 5.0 * n_own / n_all;
            wanted.push((
                query as u32,
                [
                    expected(&is_right),
                    chance(n_right),
                    expected(&is_own),
                    chance(share(&candidates, &is_own)),
                ],
            ));
        }
        prop_assert_eq!(found.answers.len(), wanted.len());
        prop_assert_eq!(found.answers.len() + found.n_without_other, n);
        for (answer, (query, numbers)) in found.answers.iter().zip(wanted) {
            prop_assert_eq!(answer.query, query);
            let own = [
                answer.right_of_other_modality,
                answer.right_of_other_modality_chance,
                answer.own_modality,
                answer.own_modality_chance,
            ];
            for (found, wanted) in own.iter().zip(numbers) {
                prop_assert!((found - wanted).abs() < 1e-12, "{} {}", found, wanted);
            }
        }
    }
}
