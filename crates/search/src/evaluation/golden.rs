//! Reference numbers made by independent Python code; testdata/README.md says which.
//!
//! The folder is `M3RET_GOLDEN` where it is set, else `testdata/golden`; sizes are read from it.

use m3ret_testing::{Tolerance, close, folder, sizes};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize as _;
use serde_json::Value;

use super::columns::{Column, Columns};
use super::metrics::{Block, Metric, Ranking, Vote};
use super::ranking::{Answer, Embeddings, Measures, RankedItem, evaluate};
use super::tasks::Task;
use super::{Bootstrap, Clusters, Strata, Stratum};

/// One case: its tensors, and what its JSON says.
struct Case {
    tensors: m3ret_testing::Case,
    json: Value,
}

impl Case {
    fn open(name: &str) -> Self {
        let folder = folder();
        Self {
            tensors: m3ret_testing::Case::open(&folder, name),
            json: sizes(&folder, name),
        }
    }

    fn number(&self, path: &str) -> f64 {
        let number = self.json.pointer(path).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("{path}"))
    }

    fn tolerance(&self, path: &str) -> Tolerance {
        let tolerance = self.json.pointer(path).unwrap_or_else(|| panic!("{path}"));
        Tolerance::deserialize(tolerance).unwrap()
    }

    /// Every second column of the table: queries first, then the gallery.
    fn column(&self, of_queries: &str, of_gallery: &str) -> Column {
        let integers = |name: &str| self.tensors.integers(name);
        let all = [integers(of_queries), integers(of_gallery)].concat();
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        Column::new(texts.iter().map(String::as_str))
    }
}

struct Retrieval {
    case: Case,
    metrics: Vec<Metric>,
    answers: Vec<Answer>,
    n_queries: usize,
    gallery_ids: Vec<i64>,
}

impl Retrieval {
    /// Lists the gallery's rows in the case's order for a query, which has ties by ascending id.
    fn order(&self, answer: &Answer) -> Vec<usize> {
        let ids = self.case.tensors.integers("ranking_ids");
        let ids = ids.chunks(self.gallery_ids.len());
        let ids = ids.into_iter().nth(answer.query as usize).unwrap();
        let known = ids.iter().filter(|&&id| id >= 0);
        let row = |id| self.gallery_ids.iter().position(|other| other == id);
        known.map(|id| row(id).unwrap()).collect()
    }

    /// Measures the case's own order, as if there were no ties.
    fn of_order(&self, answer: &Answer) -> Vec<f64> {
        let label = self.case.tensors.integers("query_label")[answer.query as usize];
        let labels = self.case.tensors.integers("gallery_label");
        let order = self.order(answer).into_iter();
        let grades: Vec<f32> = order
            .map(|row| f32::from(u8::from(labels[row] == label)))
            .collect();
        let ideal = vec![1.0; answer.n_relevant];
        let ranking = Ranking {
            blocks: &Block::of_order(&grades, 1.0),
            n_candidates: answer.n_candidates,
            n_relevant: answer.n_relevant,
            ideal: &ideal,
            total_grade: answer.n_relevant as f64,
        };
        let values = self.metrics.iter();
        let values = values.map(|&metric| ranking.value(metric).unwrap_or(f64::NAN));
        values.collect()
    }
}

fn retrieval() -> Retrieval {
    let case = Case::open("c09_retrieval");
    let ks: Vec<usize> = case.json["k"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| usize::try_from(k.as_u64().unwrap()).unwrap())
        .collect();
    let metrics = Metric::all(&ks);
    let gallery_ids = case.tensors.integers("gallery_id");
    let n_queries = case.tensors.integers("query_label").len();
    let n_rows = n_queries + gallery_ids.len();
    let mut columns = Columns::new(n_rows);
    columns
        .insert("label", case.column("query_label", "gallery_label"))
        .unwrap();
    columns
        .insert("patient", case.column("query_patient", "gallery_patient"))
        .unwrap();
    let row = |idx: usize| u32::try_from(idx).unwrap();
    let task = Task {
        name: "all/label".to_owned(),
        queries: (0..row(n_queries)).collect(),
        gallery: (row(n_queries)..row(n_rows)).collect(),
        relevance: "label".to_owned(),
        query_modality: None,
        gallery_modality: None,
        has_unseen: false,
    };
    let order: Vec<u32> = (0..row(n_rows)).collect();
    let measures = Measures {
        metrics: &metrics,
        least_grade: 1.0,
        n_hits: gallery_ids.len(),
        query_order: &order,
        tie_order: &order,
    };
    let vectors = [case.tensors.floats("query"), case.tensors.floats("gallery")].concat();
    let embeddings = Embeddings::new(&vectors, vectors.len() / n_rows).unwrap();
    let rules = [vec!["patient".to_owned()]];
    let evaluation = evaluate(&task, &columns, &embeddings, &measures, &rules)
        .unwrap()
        .remove(0);
    let n_left_out = evaluation.left_out.n_without_relevant;
    assert_eq!(n_left_out as f64, case.number("/queries_without_relevant"));
    assert_eq!(evaluation.answers.len() + n_left_out, n_queries);
    Retrieval {
        metrics,
        answers: evaluation.answers,
        n_queries,
        gallery_ids,
        case,
    }
}

#[test]
fn golden_c09_rankings() {
    let retrieval = retrieval();
    let Retrieval {
        case,
        answers,
        n_queries,
        gallery_ids,
        ..
    } = &retrieval;
    let n_relevant = case.tensors.integers("num_relevant");
    let scores = case.tensors.floats("scores");
    for answer in answers {
        let query = answer.query as usize;
        let score = |row: usize| scores[query * gallery_ids.len() + row];
        let found = answer.hits.iter().map(|hit| hit.row as usize - n_queries);
        for (hit, row) in answer.hits.iter().zip(found.clone()) {
            assert_eq!(hit.score, score(row));
        }
        // Of equal scores the case lists the smaller id first; their order here is random.
        let mut found: Vec<usize> = found.collect();
        found.sort_by(|&a, &b| {
            let by_id = gallery_ids[a].cmp(&gallery_ids[b]);
            score(b).total_cmp(&score(a)).then(by_id)
        });
        assert_eq!(found, retrieval.order(answer), "query {query}");
        assert!(answer.hits.is_sorted_by(|a, b| a.score >= b.score));
        assert_eq!(i64::try_from(answer.n_relevant).unwrap(), n_relevant[query]);
    }
}

#[test]
fn golden_c09_metrics() {
    let retrieval = retrieval();
    let Retrieval {
        case,
        metrics,
        answers,
        n_queries,
        ..
    } = &retrieval;
    let values: Vec<Vec<f64>> = answers.iter().map(|a| retrieval.of_order(a)).collect();
    let tolerance = case.tolerance("/tolerance");
    let ranked = metrics.iter().enumerate();
    for (idx, metric) in ranked.filter(|(_, metric)| !metric.is_vote()) {
        let wanted = case.tensors.doubles(&format!("per_query.{metric}"));
        let mut sum = 0.0;
        for (answer, values) in answers.iter().zip(&values) {
            let (found, wanted) = (values[idx], wanted[answer.query as usize]);
            let what = format!("{metric} of {}", answer.query);
            close(&[found], &[wanted], tolerance, &what);
            sum += found;
        }
        let mean = sum / answers.len() as f64;
        let wanted = case.number(&format!("/mean/{metric}"));
        close(&[mean], &[wanted], tolerance, &format!("mean {metric}"));
        let with_empty = case.number(&format!("/mean_counting_empty_as_zero/{metric}"));
        let found = sum / *n_queries as f64;
        let what = format!("mean {metric} of all queries");
        close(&[found], &[with_empty], tolerance, &what);
    }
}

#[test]
fn golden_c09_ties_have_the_mean_over_random_orders() {
    // The case has about 20 different scores among 200. Shuffles of equal scores have this mean:
    let retrieval = retrieval();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let n_draws = 400;
    let labels = retrieval.case.tensors.integers("gallery_label");
    let mut n_tied = 0;
    for answer in retrieval.answers.iter().take(6) {
        let label = retrieval.case.tensors.integers("query_label")[answer.query as usize];
        let mut sums = vec![0.0; retrieval.metrics.len()];
        let mut hits = answer.hits.clone();
        for _ in 0..n_draws {
            for ties in hits.chunk_by_mut(|a, b| a.score == b.score) {
                ties.sort_by_cached_key(|_| random.random::<u64>());
            }
            let grade = |row: u32| {
                let idx = row as usize - retrieval.n_queries;
                f32::from(u8::from(labels[idx] == label))
            };
            let grades: Vec<f32> = hits.iter().map(|hit| grade(hit.row)).collect();
            let ideal = vec![1.0; answer.n_relevant];
            let ranking = Ranking {
                blocks: &Block::of_order(&grades, 1.0),
                n_candidates: answer.n_candidates,
                n_relevant: answer.n_relevant,
                ideal: &ideal,
                total_grade: answer.n_relevant as f64,
            };
            for (sum, &metric) in sums.iter_mut().zip(&retrieval.metrics) {
                *sum += ranking.value(metric).unwrap_or(f64::NAN);
            }
        }
        for (idx, metric) in retrieval.metrics.iter().enumerate() {
            let (mean, found) = (sums[idx] / f64::from(n_draws), answer.values[idx]);
            // Five standard errors of a share are 0.125 at most.
            assert!(
                metric.is_vote() || (mean - found).abs() < 0.125,
                "{metric}: {found}, {n_draws} draws {mean}"
            );
        }
        n_tied += u32::from(answer.is_tied);
    }
    assert!(n_tied > 0);
}

#[test]
fn golden_c09_bootstrap() {
    let retrieval = retrieval();
    let Retrieval {
        case,
        metrics,
        answers,
        ..
    } = &retrieval;
    let patients = case.tensors.integers("query_patient");
    let patients: Vec<u32> = answers
        .iter()
        .map(|answer| u32::try_from(patients[answer.query as usize] + 1).unwrap())
        .collect();
    let values: Vec<Vec<f64>> = answers.iter().map(|a| retrieval.of_order(a)).collect();
    let strata = Strata::new(&vec![Stratum::default(); values.len()]);
    let clusters = Clusters::new(&patients);
    let intervals = clusters.intervals(&values, metrics.len(), &strata, Bootstrap::default());
    for name in ["hit_at_1", "map_at_r"] {
        let idx = metrics
            .iter()
            .position(|metric| metric.to_string() == name)
            .unwrap();
        let interval = intervals[idx].unwrap();
        let bound =
            |which: &str| case.number(&format!("/bootstrap/values/{name}/indicative_{which}"));
        // The generators differ: the bounds of the case are good to about this.
        let spread = bound("spread").max(0.01);
        assert!(
            (interval.low - bound("low")).abs() <= spread,
            "{name} {interval:?}"
        );
        assert!(
            (interval.high - bound("high")).abs() <= spread,
            "{name} {interval:?}"
        );
    }
}

#[test]
fn golden_c10_knn() {
    let case = Case::open("c10_knn");
    let k = usize::try_from(case.json["k"].as_u64().unwrap()).unwrap();
    let n_classes = usize::try_from(case.json["classes"].as_u64().unwrap()).unwrap();
    let width = usize::try_from(case.json["d"].as_u64().unwrap()).unwrap();
    let unit = |name: &str| -> Vec<Vec<f32>> {
        let values = case.tensors.floats(name);
        let rows = values.chunks_exact(width).map(|row| {
            let mut row = row.to_vec();
            crate::normalize(&mut row).unwrap();
            row
        });
        rows.collect()
    };
    let (train, test) = (unit("train"), unit("test"));
    let labels: Vec<u32> = case
        .tensors
        .integers("train_label")
        .iter()
        .map(|&label| u32::try_from(label).unwrap())
        .collect();
    let tolerance = case.tolerance("/tolerance/class_scores");
    let (wanted, prediction) = (
        case.tensors.doubles("class_scores"),
        case.tensors.integers("prediction"),
    );
    let truth = case.tensors.integers("test_label");
    let mut n_right = 0;
    for (idx, query) in test.iter().enumerate() {
        let mut nearest: Vec<(f32, u32)> = train
            .iter()
            .zip(&labels)
            .map(|(row, &label)| (crate::kernels::dot(query, row), label))
            .collect();
        nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (scores, classes): (Vec<f32>, Vec<u32>) = nearest.into_iter().unzip();
        let vote = Vote {
            classes: &classes,
            scores: &scores,
            beyond: &[],
        };
        let temperature = Some(case.number("/T"));
        for (class, found) in vote.class_scores(k, temperature) {
            let wanted = wanted[idx * n_classes + class as usize];
            let what = format!("query {idx}, class {class}");
            close(&[found], &[wanted], tolerance, &what);
        }
        let winner = i64::from(vote.winner(k, temperature).unwrap());
        assert_eq!(winner, prediction[idx]);
        n_right += i32::from(winner == truth[idx]);
    }
    assert_eq!(
        f64::from(n_right) / truth.len() as f64,
        case.number("/accuracy")
    );
}

#[test]
fn a_ranking_that_is_cut_has_the_values_of_the_whole() {
    let Retrieval {
        metrics, answers, ..
    } = retrieval();
    let answer = &answers[0];
    let [scores, grades]: [Vec<f32>; 2] = [0, 1].map(|which| {
        let hits = answer.hits.iter();
        let number = |hit: &RankedItem| [hit.score, hit.grade][which];
        hits.map(number).collect()
    });
    let ideal = vec![1.0; answer.n_relevant];
    let value = |n_kept: usize, metric| {
        let ranking = Ranking {
            blocks: &Block::of_scores(&scores[..n_kept], &grades[..n_kept], 1.0),
            n_candidates: answer.n_candidates,
            n_relevant: answer.n_relevant,
            ideal: &ideal,
            total_grade: answer.n_relevant as f64,
        };
        ranking.value(metric)
    };
    for metric in metrics {
        // The last block stays whole.
        let depth = metric.depth(answer.n_relevant).min(grades.len());
        let n_more = scores[depth..].iter();
        let n_more = n_more.take_while(|&&score| score == scores[depth - 1]);
        let n_kept = depth + n_more.count();
        assert_eq!(
            value(n_kept, metric),
            value(grades.len(), metric),
            "{metric}"
        );
    }
}
