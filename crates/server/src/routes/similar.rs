//! Similar series under the UIDs by which a PACS knows them.

use std::sync::Arc;

use m3ret::index::UID_SEALED;
use m3ret::options::ColumnValue;
use m3ret::search::{Ask, Queries};
use m3ret_dicomnet::Uid;

use super::Service;
use crate::accounts::Role;
use crate::audit::Entry;
use crate::guard::Asker;
use crate::indexes::{Index, SILENT, Snapshot};
use crate::problem::{Problem, Result};

/// Whose neighbours are looked for.
pub(super) enum Of {
    Series(Uid),
    Id(String),
}

/// A hit whose UIDs could be opened.
#[derive(Debug, Clone)]
pub(super) struct SimilarSeries {
    /// A keyed hash of its id.
    pub(super) name: String,
    pub(super) study: String,
    pub(super) series: String,
    pub(super) modality: Option<String>,
    pub(super) score: f32,
    pub(super) rank: usize,
    /// Chance that the first hit agrees with its query; only of the first hit.
    pub(super) agreement: Option<f64>,
    pub(super) relation: String,
}

/// What is similar.
#[derive(Debug, Default)]
pub(super) struct Similar {
    pub(super) hits: Vec<SimilarSeries>,
    /// Number of hits without a UID that can be opened.
    pub(super) n_closed: usize,
}

/// Searches among other studies.
pub(super) async fn similar(
    service: &Arc<Service>,
    asker: &Asker,
    index: Arc<Index>,
    (of, k, modality): (Of, usize, Option<String>),
) -> Result<Similar> {
    asker.must(Role::may_search)?;
    if service.seal_key.is_none() {
        let detail = "this server has no key by which UIDs are opened (--key-file)";
        return Err(Problem::unprocessable("no_key", detail));
    }
    let ask = Ask {
        k,
        filters: modality
            .into_iter()
            .map(|value| ColumnValue {
                column: "modality".to_owned(),
                value,
                is_negated: false,
            })
            .collect(),
        exclude: vec!["same_study".to_owned()],
        // One image stands for a series.
        group_by: Some("series_id".to_owned()),
        ..Ask::default()
    };
    let shared = Arc::clone(service);
    let found = service
        .searches
        .run(move || index.with_newest(|snapshot| find(&shared, (&index, snapshot), &of, &ask)));
    let (similar, entry) = found.await??;
    service.record(asker, entry).await?;
    Ok(similar)
}

fn find(
    service: &Service,
    (index, snapshot): (&Index, &Snapshot),
    of: &Of,
    ask: &Ask,
) -> Result<(Similar, Entry)> {
    let failed = |error: m3ret::Error| Problem::of_library(&error);
    let damaged = |_| Problem::internal("gallery");
    let gallery = snapshot.archive.gallery.as_ref();
    let id = match of {
        Of::Id(id) => gallery.find(id).map_err(damaged)?.map(|_| id.clone()),
        Of::Series(uid) => {
            let hash = gallery.pseudonym("series_id", uid.expose());
            let rows = gallery.find_rows("series_id", &hash).map_err(damaged)?;
            let first = rows.first().map(|row| gallery.id(*row)).transpose();
            first.map_err(damaged)?.map(|id| id.into_owned())
        }
    };
    let id = id.ok_or_else(|| Problem::not_found("image of this name in the index"))?;
    let query = gallery.pseudonym("id", &id);
    let answers = snapshot.archive.ask(&Queries::Ids(vec![id]), ask, &SILENT);
    let answers = answers.map_err(failed)?;
    let mut similar = Similar::default();
    let mut shown = Vec::new();
    for answer in &answers.answers {
        let agreement = answer.agreement.as_ref().map(|agreement| agreement.value);
        for hit in &answer.hits {
            let sealed = gallery.value(hit.row(), UID_SEALED).map_err(damaged)?;
            let key = service.seal_key.as_ref();
            let opened = key.and_then(|key| key.unseal(&sealed).ok());
            let Some([study, series]) = opened.filter(|[study, _]| !study.is_empty()) else {
                similar.n_closed += 1;
                continue;
            };
            shown.push((hit.id.as_str(), hit.row()));
            let relation = serde_json::to_value(hit.relation).unwrap_or_default();
            similar.hits.push(SimilarSeries {
                name: gallery.pseudonym("id", &hit.id),
                study,
                series,
                modality: hit.labels.modality.clone(),
                score: hit.score,
                rank: hit.rank,
                agreement: agreement.filter(|_| hit.rank == 1),
                relation: relation.as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    let entry = Entry {
        action: "110112 Query".to_owned(),
        index: index.name.clone(),
        query,
        ..snapshot.shown_rows(&shown)?
    };
    Ok((similar, entry))
}
