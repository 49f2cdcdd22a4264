//! Searches over all modalities in one gallery, as `results.json` holds them.

use m3ret_search::evaluation::{Clusters, Embeddings, MixedAnswer, Strata, Stratum, mixed};
use serde::Serialize;

use super::results::{Settings, Value};
use super::subject::Subject;

/// A search over all modalities in one gallery, judged by its first five hits.
#[derive(Debug, Serialize)]
pub struct MixedResult {
    /// Name of the search, `mixed/` and the relevance column.
    pub task: String,
    /// The column, or columns joined by `+`, whose equal values are relevant.
    pub relevance: String,
    /// Columns whose value a hit must not share with its query.
    pub exclude: Vec<String>,
    /// Number of queries to which an image of another modality is relevant.
    pub n_queries: usize,
    /// Number of patients of these queries.
    pub n_patients: usize,
    /// Number of images in the gallery that have a vector and a label.
    pub n_gallery: usize,
    /// Number of other queries, to which only images of their own modality are relevant.
    pub n_without_other_modality: usize,
    /// Share of the first five hits that are relevant and of another modality than the query.
    pub right_of_other_modality_at_5: Share,
    /// Share of the first five hits that are of the modality of the query.
    pub own_modality_at_5: Share,
}

/// A share of hits as a mean over queries, with that of random rankings.
#[derive(Debug, Serialize)]
pub struct Share {
    /// The mean of the model, 0..=1.
    #[serde(flatten)]
    pub value: Value,
    /// The mean of random rankings, 0..=1.
    pub chance: f64,
}

/// Measures every relevance column; columns without a query that counts are skipped.
pub(super) fn measure(
    subject: &Subject,
    embeddings: &Embeddings<'_>,
    settings: &Settings<'_>,
) -> anyhow::Result<Vec<MixedResult>> {
    let measures = settings.measures(subject);
    let mut results = Vec::new();
    for task in &subject.tasks.mixed {
        let found = mixed(
            task,
            &subject.columns,
            embeddings,
            &measures,
            &subject.exclude,
        )?;
        if found.answers.is_empty() {
            continue;
        }
        let patients = found
            .answers
            .iter()
            .map(|answer| subject.patient(answer.query));
        let clusters = Clusters::new(&patients.collect::<Vec<_>>());
        let strata = Strata::new(&vec![Stratum::default(); found.answers.len()]);
        let rows: Vec<[f64; 2]> = found
            .answers
            .iter()
            .map(|answer| [answer.right_of_other_modality, answer.own_modality])
            .collect();
        let intervals = clusters.intervals(&rows, 2, &strata, settings.bootstrap);
        let mean = |of: fn(&MixedAnswer) -> f64| {
            strata.mean(&found.answers.iter().map(of).collect::<Vec<_>>())
        };
        let share = |idx: usize, value: f64, chance: f64| Share {
            value: Value::new(value, intervals[idx]),
            chance,
        };
        results.push(MixedResult {
            task: task.name.clone(),
            relevance: task.relevance.clone(),
            exclude: subject.exclude.clone(),
            n_queries: found.answers.len(),
            n_patients: clusters.len(),
            n_gallery: found.n_gallery,
            n_without_other_modality: found.n_without_other,
            right_of_other_modality_at_5: share(
                0,
                mean(|answer| answer.right_of_other_modality),
                mean(|answer| answer.right_of_other_modality_chance),
            ),
            own_modality_at_5: share(
                1,
                mean(|answer| answer.own_modality),
                mean(|answer| answer.own_modality_chance),
            ),
        });
    }
    Ok(results)
}
