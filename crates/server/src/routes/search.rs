//! Lists what can be searched, and searches.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response};
use m3ret::search::{Agreement, Answer, Ask, Hit, Labels, Relation};
use m3ret_search::Collection;
use serde::Serialize;
use utoipa::ToSchema;

use super::query::{Example, Query, SearchRequest, ask_of, query_of};
use super::{Service, json, kind_of, named, parse, read_json, taken, wrong_kind};
use crate::accounts::Role;
use crate::audit::Entry;
use crate::guard::Asker;
use crate::indexes::{Index, Notes, Snapshot};
use crate::objects::{self, Form, receive};
use crate::openapi::{AgreementBody, LabelsBody, Refused, RelationBody};
use crate::problem::{Problem, Result};
use crate::spool::VolumeFacts;

/// A search with an image: its files, and a part `options` with the rest.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; forms are read while they arrive")]
pub(super) struct SearchForm {
    #[schema(min_items = 1, format = Binary, content_media_type = "application/octet-stream")]
    file: Vec<String>,
    options: Option<SearchRequest>,
}

type PathResult = std::result::Result<Path<String>, PathRejection>;

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
    /// Ids and uploads that hits should be like, of a query of several images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    like: Vec<&'a str>,
    /// Those that they should not be like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unlike: Vec<&'a str>,
    /// The region of the image that was asked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a [f64]>,
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
    asker.must(Role::may_search)?;
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
    let (head, body) = request.into_parts();
    let read = taken(body, async |body| {
        take(
            &service,
            &asker,
            &named::<String>(path)?,
            &head.headers,
            body,
        )
        .await
    });
    let (index, request, form) = read.await?;
    let sent = match form {
        Some(form) => Some(objects::keep(&service, &asker, form.files).await?),
        None => None,
    };
    let ask = ask_of(&request, &service)?;
    let query = query_of(request, sent, &service, &asker)?;
    let is_embedded = query.reads_images();
    let gate = match is_embedded {
        true => &service.embeddings,
        false => &service.searches,
    };
    let found = gate
        .run(move || index.with_newest(|snapshot| find(&index, snapshot, &query, &ask, began)))
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
    asker.must(Role::may_search)?;
    let index = service.indexes.named(Some(name))?;
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

/// Searches, on a thread that may wait.
fn find(
    index: &Index,
    snapshot: &Snapshot,
    query: &Query,
    ask: &Ask,
    began: Instant,
) -> Result<Found> {
    let failed = |error: m3ret::Error| Problem::of_library(&error);
    let gallery = snapshot.archive.gallery.as_ref();
    query.check(gallery)?;
    let notes = Notes::default();
    let queries = query.queries(&snapshot.archive.reading().options)?;
    let answers = snapshot
        .archive
        .ask(&queries, ask, &notes)
        .map_err(failed)?;
    let Some(answer) = answers.answers.first() else {
        return Err(query.refusal(&answers.refused));
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
    let shown = answer.hits.iter().map(|hit| (hit.id.as_str(), hit.row()));
    let shown: Vec<_> = shown.collect();
    Ok(Found {
        response: json(&view)?,
        entry: Entry {
            action: "110112 Query".to_owned(),
            index: index.name.clone(),
            query: digest(query, ask, gallery),
            ..snapshot.shown_rows(&shown)?
        },
    })
}

/// Names a query in the audit trail, with what restricts its hits.
fn digest(query: &Query, ask: &Ask, gallery: &dyn Collection) -> String {
    let own = query.digest(gallery);
    if ask.filters.is_empty() && ask.exclude.is_empty() && ask.group_by.is_none() {
        return own;
    }
    let filters = ask.filters.iter().map(ToString::to_string);
    let filters: Vec<String> = filters.collect();
    let whole = serde_json::json!([own, filters, ask.exclude, ask.group_by]);
    gallery.pseudonym("query", &whole.to_string())
}

fn query_view<'a>(query: &'a Query, answer: &'a Answer, index: &Index) -> QueryView<'a> {
    let image = query.image();
    let upload = image.and_then(Example::upload);
    let id = image.and_then(Example::id);
    let of_upload = upload.map(|upload| format!("/v1/objects/{}/thumbnail.png", upload.id));
    let first = upload.and_then(|upload| upload.volumes.first());
    let (like, unlike) = query.examples();
    QueryView {
        object: upload.map(|upload| upload.id.as_str()),
        id,
        like: like.iter().map(Example::name).collect(),
        unlike: unlike.iter().map(Example::name).collect(),
        region: query.region(),
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

/// Names an image in the audit trail: whoever has the gallery can find it, and nobody else.
pub(crate) fn pseudonym(gallery: &dyn Collection, id: &str) -> String {
    gallery.pseudonym("id", id)
}
