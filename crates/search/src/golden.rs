//! Reference numbers made by independent Python code; testdata/README.md says which.
//!
//! The folder is `M3RET_GOLDEN` where it is set, else `testdata/golden`; sizes are read from it.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::columns::{Column, Columns};
use crate::evaluate::{Answer, Embeddings, Measures, evaluate};
use crate::metrics::{Metric, Ranking, Vote};
use crate::tasks::Task;
use crate::{Bootstrap, Clusters, Strata, Stratum};

struct Case {
    bytes: Vec<u8>,
    json: Value,
}

impl Case {
    fn open(name: &str) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "a test may be told where other cases of the same layout lie"
        )]
        let chosen = std::env::var_os("M3RET_GOLDEN");
        let folder = chosen.map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden"),
            PathBuf::from,
        );
        let read = |end: &str| {
            let path = folder.join(format!("{name}.{end}"));
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        Self {
            bytes: read("safetensors"),
            json: serde_json::from_slice(&read("json")).unwrap(),
        }
    }

    fn numbers<const N: usize, T>(&self, name: &str, from: fn([u8; N]) -> T) -> Vec<T> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors
            .tensor(name)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype().bitsize(), 8 * N, "{name}");
        tensor
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| from(bytes))
            .collect()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.numbers(name, f32::from_le_bytes)
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        self.numbers(name, f64::from_le_bytes)
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        self.numbers(name, i64::from_le_bytes)
    }

    fn number(&self, path: &str) -> f64 {
        self.json
            .pointer(path)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("{path}"))
    }

    /// Every second column of the table: queries first, then the gallery.
    fn column(&self, of_queries: &str, of_gallery: &str) -> Column {
        let all = [self.integers(of_queries), self.integers(of_gallery)].concat();
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        Column::new(texts.iter().map(String::as_str))
    }
}

fn is_close(found: f64, wanted: f64, case: &Case) -> bool {
    let tolerance = |name: &str| case.number(&format!("/tolerance/{name}"));
    (found - wanted).abs() <= tolerance("atol") + tolerance("rtol") * wanted.abs()
}

struct Retrieval {
    case: Case,
    metrics: Vec<Metric>,
    answers: Vec<Answer>,
    n_queries: usize,
    gallery_ids: Vec<i64>,
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
    let gallery_ids = case.integers("gallery_id");
    let n_queries = case.integers("query_label").len();
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
    };
    // Ties rank by the gallery's ids, which are in no order.
    let mut by_id: Vec<usize> = (0..gallery_ids.len()).collect();
    by_id.sort_by_key(|&idx| gallery_ids[idx]);
    let mut tie_order = vec![0; n_rows];
    by_id
        .iter()
        .enumerate()
        .for_each(|(place, &idx)| tie_order[n_queries + idx] = row(place));
    let measures = Measures {
        metrics: &metrics,
        least_grade: 1.0,
        n_hits: gallery_ids.len(),
        tie_order: &tie_order,
    };
    let vectors = [case.floats("query"), case.floats("gallery")].concat();
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
    let Retrieval {
        case,
        answers,
        n_queries,
        gallery_ids,
        ..
    } = retrieval();
    let wanted = case.integers("ranking_ids");
    let n_relevant = case.integers("num_relevant");
    for answer in &answers {
        let query = answer.query as usize;
        let wanted: Vec<i64> = wanted
            .chunks(gallery_ids.len())
            .nth(query)
            .unwrap()
            .iter()
            .copied()
            .filter(|&id| id >= 0)
            .collect();
        let found: Vec<i64> = answer
            .hits
            .iter()
            .map(|hit| gallery_ids[hit.row as usize - n_queries])
            .collect();
        assert_eq!(found, wanted, "query {query}");
        assert_eq!(i64::try_from(answer.n_relevant).unwrap(), n_relevant[query]);
        let scores = case.floats("scores");
        for (hit, idx) in answer
            .hits
            .iter()
            .map(|hit| (hit, hit.row as usize - n_queries))
        {
            assert_eq!(hit.score, scores[query * gallery_ids.len() + idx]);
        }
    }
}

#[test]
fn golden_c09_metrics() {
    let Retrieval {
        case,
        metrics,
        answers,
        n_queries,
        ..
    } = retrieval();
    for (idx, metric) in metrics
        .iter()
        .enumerate()
        .filter(|(_, metric)| !metric.is_vote())
    {
        let wanted = case.doubles(&format!("per_query.{metric}"));
        let mut sum = 0.0;
        for answer in &answers {
            let (found, wanted) = (answer.values[idx], wanted[answer.query as usize]);
            assert!(
                is_close(found, wanted, &case),
                "{metric} of {}: {found} {wanted}",
                answer.query
            );
            sum += found;
        }
        let mean = sum / answers.len() as f64;
        assert!(
            is_close(mean, case.number(&format!("/mean/{metric}")), &case),
            "{metric}"
        );
        let with_empty = case.number(&format!("/mean_counting_empty_as_zero/{metric}"));
        assert!(
            is_close(sum / n_queries as f64, with_empty, &case),
            "{metric}"
        );
    }
}

#[test]
fn golden_c09_bootstrap() {
    let Retrieval {
        case,
        metrics,
        answers,
        ..
    } = retrieval();
    let patients = case.integers("query_patient");
    let patients: Vec<u32> = answers
        .iter()
        .map(|answer| u32::try_from(patients[answer.query as usize] + 1).unwrap())
        .collect();
    let values: Vec<&[f64]> = answers
        .iter()
        .map(|answer| answer.values.as_slice())
        .collect();
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
        let values = case.floats(name);
        let rows = values.chunks_exact(width).map(|row| {
            let mut row = row.to_vec();
            crate::normalize(&mut row).unwrap();
            row
        });
        rows.collect()
    };
    let (train, test) = (unit("train"), unit("test"));
    let labels: Vec<u32> = case
        .integers("train_label")
        .iter()
        .map(|&label| u32::try_from(label).unwrap())
        .collect();
    let tolerance = |name: &str| case.number(&format!("/tolerance/class_scores/{name}"));
    let (wanted, prediction) = (case.doubles("class_scores"), case.integers("prediction"));
    let truth = case.integers("test_label");
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
        };
        let temperature = Some(case.number("/T"));
        for (class, found) in vote.class_scores(k, temperature) {
            let wanted = wanted[idx * n_classes + class as usize];
            assert!(
                (found - wanted).abs() <= tolerance("atol") + tolerance("rtol") * wanted.abs(),
                "{found} {wanted}"
            );
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
    let grades: Vec<f32> = answer.hits.iter().map(|hit| hit.grade).collect();
    let ideal = vec![1.0; answer.n_relevant];
    let ranking = |grades| Ranking {
        grades,
        least_grade: 1.0,
        n_candidates: answer.n_candidates,
        n_relevant: answer.n_relevant,
        ideal: &ideal,
        total_grade: answer.n_relevant as f64,
    };
    for metric in metrics {
        let depth = metric.depth(answer.n_relevant).min(grades.len());
        assert_eq!(
            ranking(&grades[..depth]).value(metric),
            ranking(&grades).value(metric),
            "{metric}"
        );
    }
}
