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
fn equal_scores_rank_by_the_given_order_and_are_told() {
    let columns = columns(&["a", "b", "a"], &[""; 3]);
    let vectors = vectors(&[0.0, 10.0, 10.0]);
    let task = Task {
        queries: vec![0],
        ..everyone(3)
    };
    let first = |tie_order: [u32; 3]| {
        let measures = Measures {
            metrics: &METRICS,
            least_grade: 1.0,
            n_hits: 3,
            tie_order: &tie_order,
        };
        let embeddings = Embeddings::new(&vectors, 2).unwrap();
        let answers = evaluate(&task, &columns, &embeddings, &measures, &[vec![]]).unwrap();
        let answer = answers[0].answers[0].clone();
        assert!(answer.is_tied);
        answer.hits[0].row
    };
    assert_eq!((first([0, 1, 2]), first([0, 2, 1])), (1, 2));
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
    rows.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    let relevant: Vec<bool> = rows
        .iter()
        .map(|&row| labels[row] == labels[query])
        .collect();
    let n_relevant = relevant.iter().filter(|&&r| r).count();
    if n_relevant == 0 || n_relevant == relevant.len() {
        return None;
    }
    let found = |k: usize| relevant.iter().take(k).filter(|&&r| r).count() as f64;
    let precisions = (1..=n_relevant)
        .filter(|&rank| relevant[rank - 1])
        .map(|rank| found(rank) / rank as f64);
    Some([
        found(1),
        found(2) / 2.0,
        precisions.sum::<f64>() / n_relevant as f64,
    ])
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
