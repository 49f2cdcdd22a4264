//! Lists what can be searched, and searches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response};
use m3ret::images::ImageSource;
use m3ret::options::ColumnValue;
use m3ret::search::{Agreement, Answer, Ask, Hit, Labels, Queries, Relation};
use m3ret_search::Collection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Service, drain, forbidden, json, kind_of, named, parse, read_json, wrong_kind};
use crate::audit::Entry;
use crate::guard::Asker;
use crate::indexes::{Index, Notes, Snapshot};
use crate::objects::{self, Form, receive};
use crate::openapi::{AgreementBody, LabelsBody, Refused, RelationBody};
use crate::problem::{Problem, Result};
use crate::spool::{Upload, VolumeFacts};

/// What is searched for, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchRequest {
    /// Id of an image of the index.
    id: Option<String>,
    vector: Option<Vec<f32>>,
    /// Name of an upload.
    object: Option<String>,
    /// Number of hits.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 100)]
    k: usize,
    /// Values of columns that hits have; `column!` for those that they do not have.
    #[serde(default)]
    filter: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    exclude: Vec<String>,
    group_by: Option<String>,
    #[serde(default)]
    exact: bool,
}

/// A search with an image: its files, and a part `options` with the rest.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; forms are read while they arrive")]
pub(super) struct SearchForm {
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: Vec<String>,
    options: Option<SearchRequest>,
}

type PathResult = std::result::Result<Path<String>, PathRejection>;

fn ten() -> usize {
    10
}

/// Whose neighbours are looked for.
enum Query {
    Id(String),
    Vector(Vec<f32>),
    Upload(Arc<Upload>),
}

/// A hit as clients see it: no path of this machine.
#[derive(Serialize, ToSchema)]
pub(super) struct HitView<'a> {
    rank: usize,
    id: &'a str,
    part: Option<&'a str>,
    score: f32,
    view: Option<&'a str>,
    query_view: Option<&'a str>,
    #[schema(value_type = RelationBody)]
    relation: Relation,
    #[serde(flatten)]
    #[schema(value_type = LabelsBody)]
    labels: &'a Labels,
    thumbnail: String,
}

/// The query as it was understood.
#[derive(Serialize, ToSchema)]
pub(super) struct QueryView<'a> {
    /// Name of the upload, for further searches.
    object: Option<&'a str>,
    id: Option<&'a str>,
    part: Option<&'a str>,
    #[serde(flatten)]
    #[schema(value_type = LabelsBody)]
    labels: &'a Labels,
    /// Codes of what is unusual.
    #[schema(value_type = Vec<String>)]
    reasons: &'a [&'static str],
    /// Number of images of the upload, of which the first is the query.
    n_images: usize,
    thumbnail: Option<String>,
}

/// The answer to a search.
#[derive(Serialize, ToSchema)]
pub(super) struct AnswerView<'a> {
    query: QueryView<'a>,
    #[schema(value_type = Option<AgreementBody>)]
    agreement: &'a Option<Agreement>,
    hits: Vec<HitView<'a>>,
    notes: &'a [String],
    generation: u64,
    took_ms: u64,
}

/// One gallery that is served.
#[derive(Serialize, ToSchema)]
pub(super) struct IndexView {
    name: String,
    rows: usize,
    /// Numbers of a vector.
    width: usize,
    /// Which state of the gallery this is.
    generation: u64,
    /// Name of the model that made the vectors.
    model: String,
    fingerprint: String,
    precision: String,
}

/// Every gallery that is served.
#[derive(Serialize, ToSchema)]
pub(super) struct IndexList {
    indexes: Vec<IndexView>,
}

/// Lists the indexes.
#[utoipa::path(get, path = "/v1/indexes", responses((status = 200, body = IndexList), Refused))]
pub(super) async fn indexes(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
) -> Result<Response<Body>> {
    if !asker.role.may_search() {
        return Err(forbidden());
    }
    let shared = Arc::clone(&service);
    let listed = service.searches.run(move || -> m3ret::Result<_> {
        let all = shared.indexes.all().iter();
        all.map(|index| Ok(described(index, index.newest()?.as_ref())))
            .collect::<m3ret::Result<Vec<_>>>()
    });
    let listed = listed.await?.map_err(|error| Problem::of_library(&error))?;
    json(&IndexList { indexes: listed })
}

fn described(index: &Index, snapshot: &Snapshot) -> IndexView {
    let gallery = snapshot.archive.gallery.as_ref();
    let maker = gallery.maker();
    IndexView {
        name: index.name.clone(),
        rows: gallery.len(),
        width: gallery.width(),
        generation: snapshot.generation,
        model: maker.model.clone(),
        fingerprint: maker.fingerprint.clone(),
        precision: maker.precision.clone(),
    }
}

/// Answers with the most similar images of an index.
#[utoipa::path(
    post,
    path = "/v1/indexes/{name}/search",
    params(("name" = String, Path, description = "Name of the index")),
    request_body(content(
        (SearchRequest = "application/json"),
        (SearchForm = "multipart/form-data")
    )),
    responses((status = 200, body = AnswerView), Refused)
)]
pub(super) async fn search(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: PathResult,
    request: Request,
) -> Result<Response<Body>> {
    let began = Instant::now();
    let (head, mut body) = request.into_parts();
    let taken = match named(path) {
        Ok(name) => take(&service, &asker, &name, &head.headers, &mut body).await,
        Err(problem) => Err(problem),
    };
    let (index, request, form) = match taken {
        Ok(taken) => taken,
        Err(problem) => {
            drain(&mut body).await;
            return Err(problem);
        }
    };
    let sent = match form {
        Some(form) => Some(objects::keep(&service, &asker, form.files).await?),
        None => None,
    };
    let ask = ask_of(&request, &service)?;
    let query = query_of(request, sent, &service, &asker)?;
    let gate = match query {
        Query::Upload(_) => &service.embeddings,
        Query::Id(_) | Query::Vector(_) => &service.searches,
    };
    let is_embedded = matches!(query, Query::Upload(_));
    let found = gate
        .run(move || find(&index, &query, &ask, began))
        .await??;
    service.metrics.search(is_embedded, began.elapsed());
    service.record(&asker, found.entry).await?;
    Ok(found.response)
}

/// Reads a request: the index, what is asked, and the form if it is one.
async fn take(
    service: &Service,
    asker: &Asker,
    name: &str,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<(Arc<Index>, SearchRequest, Option<Form>)> {
    if !asker.role.may_search() {
        return Err(forbidden());
    }
    let index = service.indexes.find(name);
    let index = index.ok_or_else(|| Problem::not_found("index"))?;
    match kind_of(headers).as_str() {
        "application/json" => Ok((
            index,
            read_json(body, headers, &service.limits).await?,
            None,
        )),
        "multipart/form-data" => {
            let form = receive(service, headers, body).await?;
            let request = parse(form.options.as_deref().unwrap_or(b"{}"))?;
            Ok((index, request, Some(form)))
        }
        _ => Err(wrong_kind("application/json or multipart/form-data")),
    }
}

/// An answer that waits for its line of the audit trail.
struct Found {
    response: Response<Body>,
    entry: Entry,
}

fn ask_of(request: &SearchRequest, service: &Service) -> Result<Ask> {
    let max_hits = service.limits.max_hits;
    if request.k == 0 || request.k > max_hits {
        let detail = format!("k: 1 to {max_hits} hits are allowed");
        return Err(Problem::unprocessable("limit_exceeded", detail));
    }
    let filters = request.filter.iter().flat_map(|(column, values)| {
        let (name, is_negated) = match column.strip_suffix('!') {
            Some(name) => (name, true),
            None => (column.as_str(), false),
        };
        values.iter().map(move |value| ColumnValue {
            column: name.to_owned(),
            value: value.clone(),
            is_negated,
        })
    });
    Ok(Ask {
        k: request.k,
        filters: filters.collect(),
        exclude: request.exclude.clone(),
        group_by: request.group_by.clone(),
        is_exact: request.exact,
        ..Ask::default()
    })
}

fn query_of(
    request: SearchRequest,
    sent: Option<Arc<Upload>>,
    service: &Service,
    asker: &Asker,
) -> Result<Query> {
    let SearchRequest {
        id,
        vector,
        object,
        exclude,
        ..
    } = request;
    match (id, vector, object, sent) {
        (Some(id), None, None, None) => Ok(Query::Id(id)),
        (None, Some(vector), None, None) => {
            let max_width = service.limits.max_width;
            if vector.len() > max_width {
                let detail = format!("vector: at most {max_width} numbers are allowed");
                return Err(Problem::unprocessable("limit_exceeded", detail));
            }
            if !exclude.is_empty() {
                let detail = "exclude: of a vector it is not known whose image it is";
                return Err(Problem::unprocessable("invalid_request", detail));
            }
            Ok(Query::Vector(vector))
        }
        (None, None, Some(object), None) => {
            let found = service.spool.find(&object, &asker.name);
            found
                .map(Query::Upload)
                .ok_or_else(|| Problem::not_found("object"))
        }
        (None, None, None, Some(sent)) => Ok(Query::Upload(sent)),
        _ => Err(Problem::unprocessable(
            "invalid_request",
            "exactly one of id, vector, object or a file is wanted",
        )),
    }
}

/// Searches, on a thread that may wait.
fn find(index: &Index, query: &Query, ask: &Ask, began: Instant) -> Result<Found> {
    let failed = |error: m3ret::Error| Problem::of_library(&error);
    let snapshot = index.newest().map_err(failed)?;
    let gallery = snapshot.archive.gallery.as_ref();
    if let Query::Vector(vector) = query {
        check_vector(vector, gallery.width())?;
    }
    let notes = Notes::default();
    let queries = queries_of(query)?;
    let answers = snapshot
        .archive
        .ask(&queries, ask, &notes)
        .map_err(failed)?;
    let Some(answer) = answers.answers.first() else {
        return Err(match query {
            Query::Id(_) => Problem::not_found("image of this id in the index"),
            _ => Problem::unprocessable("unreadable", "the image cannot be embedded"),
        });
    };
    let notes = notes.into_sentences();
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let hits = answer.hits.iter().map(|hit| hit_view(hit, index));
    let view = AnswerView {
        query: query_view(query, answer, index),
        agreement: &answer.agreement,
        hits: hits.collect(),
        notes: &notes,
        generation: snapshot.generation,
        took_ms: took,
    };
    Ok(Found {
        response: json(&view)?,
        entry: Entry {
            action: "110112 Query".to_owned(),
            index: index.name.clone(),
            query: digest_of(query, gallery),
            ..snapshot.shown(answer.hits.iter().map(|hit| hit.id.as_str()))?
        },
    })
}

fn check_vector(vector: &[f32], width: usize) -> Result<()> {
    let is_directed = vector.iter().all(|x| x.is_finite()) && vector.iter().any(|&x| x != 0.0);
    match vector.len() == width && is_directed {
        true => Ok(()),
        false => Err(Problem::unprocessable(
            "invalid_request",
            format!("vector: {width} finite numbers are wanted, not all of them 0"),
        )),
    }
}

fn queries_of(query: &Query) -> Result<Queries> {
    Ok(match query {
        Query::Id(id) => Queries::Ids(vec![id.clone()]),
        Query::Vector(vector) => Queries::Values(vec![vector.clone()]),
        Query::Upload(upload) => {
            let image = upload.image().map_err(|_| Problem::internal("io"))?;
            Queries::Sources(vec![ImageSource::Memory(image)])
        }
    })
}

fn query_view<'a>(query: &'a Query, answer: &'a Answer, index: &Index) -> QueryView<'a> {
    let upload = match query {
        Query::Upload(upload) => Some(upload),
        Query::Id(_) | Query::Vector(_) => None,
    };
    let id = match query {
        Query::Id(id) => Some(id.as_str()),
        Query::Vector(_) | Query::Upload(_) => None,
    };
    let of_upload = upload.map(|upload| format!("/v1/objects/{}/thumbnail.png", upload.id));
    let first = upload.and_then(|upload| upload.volumes.first());
    QueryView {
        object: upload.map(|upload| upload.id.as_str()),
        id,
        part: answer.part.as_deref(),
        labels: &answer.labels,
        reasons: first.map_or(&[], |first: &VolumeFacts| first.reasons.as_slice()),
        n_images: upload.map_or(usize::from(id.is_some()), |upload| upload.volumes.len()),
        thumbnail: of_upload.or_else(|| id.map(|id| objects::address(id, index))),
    }
}

fn hit_view<'a>(hit: &'a Hit, index: &Index) -> HitView<'a> {
    HitView {
        rank: hit.rank,
        id: &hit.id,
        part: hit.part.as_deref(),
        score: hit.score,
        view: hit.view.as_deref(),
        query_view: hit.query_view.as_deref(),
        relation: hit.relation,
        labels: &hit.labels,
        thumbnail: objects::address(&hit.id, index),
    }
}

/// Names a query in the audit trail.
fn digest_of(query: &Query, gallery: &dyn Collection) -> String {
    match query {
        Query::Id(id) => pseudonym(gallery, id),
        Query::Upload(upload) => upload.digest.clone(),
        Query::Vector(vector) => {
            let bytes: Vec<u8> = vector
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
            blake3::hash(&bytes).to_hex().to_string()
        }
    }
}

/// Names an image in the audit trail: whoever has the gallery can find it, and nobody else.
pub(crate) fn pseudonym(gallery: &dyn Collection, id: &str) -> String {
    gallery.pseudonym("id", id)
}
