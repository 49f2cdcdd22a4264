//! DICOMweb: objects by STOW-RS, and similar series and studies as QIDO-RS lists them.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use m3ret_dicomnet::Uid;
use m3ret_dicomnet::stow::{Stow, StowAnswer, StowFault};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::similar::{Of, Similar, SimilarSeries, similar};
use super::{Service, each_piece, kind_of, named, taken, ten, wrong_kind};
use crate::accounts::Role;
use crate::audit::Entry;
use crate::dicom::Dicom;
use crate::guard::Asker;
use crate::openapi::Refused;
use crate::problem::{Problem, Result};

/// The kind of DICOM in JSON.
const DICOM_JSON: &str = "application/dicom+json";

/// How many are listed, and of which modality. Viewers send further parameters, such as `includefield`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// At most so many.
    #[serde(default = "ten")]
    #[param(minimum = 1, maximum = 100)]
    limit: usize,
    /// Begin of the list; viewers ask for further pages, of which there are none.
    #[serde(default)]
    #[param(maximum = 4_294_967_295_u32)]
    offset: u32,
    /// Only hits of this modality.
    #[serde(rename = "Modality", alias = "ModalitiesInStudy")]
    modality: Option<String>,
    /// The index; may be left out where there is one.
    index: Option<String>,
}

type PathResult<T> = std::result::Result<Path<T>, PathRejection>;
type ListingResult = std::result::Result<Query<Listing>, QueryRejection>;

/// A study of the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described; the path is read as texts")]
struct StudyUid {
    /// `StudyInstanceUID`
    #[param(pattern = "^[0-9]([0-9.]{0,62}[0-9])?$")]
    study: String,
}

/// A series of the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described; the path is read as texts")]
struct SeriesUid {
    /// `SeriesInstanceUID`
    #[param(pattern = "^[0-9]([0-9.]{0,62}[0-9])?$")]
    series: String,
}

/// Stores objects.
#[utoipa::path(
    post,
    path = "/dicom-web/studies",
    request_body(content = Vec<u8>, content_type = "multipart/related"),
    responses(
        (status = 200, body = Object, content_type = "application/dicom+json", description = "All objects are stored"),
        (status = 202, body = Object, content_type = "application/dicom+json", description = "Some are"),
        (status = 409, body = Object, content_type = "application/dicom+json", description = "None is"),
        Refused
    )
)]
pub(super) async fn stow(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Result<Response<Body>> {
    store(&service, &asker, None, request).await
}

/// Stores objects of one study.
#[utoipa::path(
    post,
    path = "/dicom-web/studies/{study}",
    params(StudyUid),
    request_body(content = Vec<u8>, content_type = "multipart/related"),
    responses(
        (status = 200, body = Object, content_type = "application/dicom+json", description = "All objects are stored"),
        (status = 202, body = Object, content_type = "application/dicom+json", description = "Some are"),
        (status = 409, body = Object, content_type = "application/dicom+json", description = "None is"),
        Refused
    )
)]
pub(super) async fn stow_study(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: PathResult<String>,
    request: Request,
) -> Result<Response<Body>> {
    let study: String = named(path)?;
    let study = uid(&study)?;
    store(&service, &asker, Some(study), request).await
}

async fn store(
    service: &Arc<Service>,
    asker: &Asker,
    study: Option<Uid>,
    request: Request,
) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let answer = taken(body, async |body| {
        take(service, asker, study, (&head.headers, body)).await
    });
    let answer = answer.await?;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    dicom_json(status, &answer.body)
}

async fn take(
    service: &Arc<Service>,
    asker: &Asker,
    study: Option<Uid>,
    (headers, body): (&HeaderMap, &mut Body),
) -> Result<StowAnswer> {
    asker.must(Role::may_index)?;
    let dicom: &Dicom = service.dicom.as_ref().ok_or_else(|| {
        Problem::new(
            404,
            "not_found",
            "this server takes no objects by DICOM (--dicom-into)",
        )
    })?;
    if kind_of(headers) != "multipart/related" {
        return Err(wrong_kind("multipart/related; type=\"application/dicom\""));
    }
    // A body that breaks off may have stored objects: the line comes first.
    let entry = Entry {
        action: "110107 Import".to_owned(),
        index: dicom.index.name.clone(),
        ..Entry::default()
    };
    service.record(asker, entry).await?;
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let mut stow = Stow::new(&dicom.spool, kind.unwrap_or_default(), study).map_err(of_fault)?;
    let limit = service.limits.max_upload_bytes;
    let take = |piece: &[u8]| tokio::task::block_in_place(|| stow.push(piece)).map_err(of_fault);
    each_piece(body, ("body", limit), take).await?;
    tokio::task::block_in_place(|| stow.finish()).map_err(of_fault)
}

fn of_fault(fault: StowFault) -> Problem {
    match fault {
        StowFault::Form(fault) => crate::objects::of_fault(fault),
        StowFault::TooMany => Problem::new(413, "limit_exceeded", "the body has too many parts"),
        StowFault::Empty => Problem::new(400, "broken_form", "the body has no part"),
    }
}

/// Lists series that are similar to a series of an index.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/similar",
    params(
        StudyUid,
        SeriesUid,
        Listing
    ),
    responses(
        (status = 200, body = Vec<Object>, content_type = "application/dicom+json"),
        (status = 204, description = "None is similar"),
        Refused
    )
)]
pub(super) async fn similar_series(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: PathResult<(String, String)>,
    listing: ListingResult,
) -> Result<Response<Body>> {
    let (study, series) = named(path)?;
    uid(&study)?;
    let found = look(&service, &asker, &series, listing).await?;
    let items = found.hits.iter().map(|hit| {
        let mut item = series_item(hit);
        item["00090010"] = strings("LO", &["M3RET"]);
        item["00091001"] = json!({"vr": "FD", "Value": [hit.score]});
        item["00091003"] = strings("CS", &[&hit.relation.to_uppercase()]);
        item["00091004"] = json!({"vr": "IS", "Value": [hit.rank]});
        if let Some(agreement) = hit.agreement {
            item["00091002"] = json!({"vr": "FD", "Value": [agreement]});
        }
        item
    });
    list(items.collect(), &found)
}

/// Lists the studies of series that are similar to a series, as a viewer lists studies.
#[utoipa::path(
    get,
    path = "/dicom-web/similar/{series}/studies",
    params(SeriesUid, Listing),
    responses(
        (status = 200, body = Vec<Object>, content_type = "application/dicom+json"),
        (status = 204, description = "None is similar"),
        Refused
    )
)]
pub(super) async fn similar_studies(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: PathResult<String>,
    listing: ListingResult,
) -> Result<Response<Body>> {
    let series: String = named(path)?;
    let found = look(&service, &asker, &series, listing).await?;
    let mut studies: Vec<(&str, Vec<&str>, usize)> = Vec::new();
    for hit in &found.hits {
        let modality = hit.modality.as_deref().unwrap_or_default();
        match studies.iter_mut().find(|(study, _, _)| *study == hit.study) {
            Some((_, modalities, n)) => {
                *n += 1;
                if !modalities.contains(&modality) {
                    modalities.push(modality);
                }
            }
            None => studies.push((&hit.study, vec![modality], 1)),
        }
    }
    let items = studies.iter().map(|(study, modalities, n)| {
        json!({
            "0020000D": strings("UI", &[study]),
            "00080061": strings("CS", modalities),
            "00201206": {"vr": "IS", "Value": [n]},
        })
    });
    list(items.collect(), &found)
}

/// Lists the similar series of one of these studies.
#[utoipa::path(
    get,
    path = "/dicom-web/similar/{series}/studies/{study}/series",
    params(
        SeriesUid,
        StudyUid,
        Listing
    ),
    responses(
        (status = 200, body = Vec<Object>, content_type = "application/dicom+json"),
        (status = 204, description = "None is similar"),
        Refused
    )
)]
pub(super) async fn similar_series_of_study(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: PathResult<(String, String)>,
    listing: ListingResult,
) -> Result<Response<Body>> {
    let (series, study) = named(path)?;
    uid(&study)?;
    let found = look(&service, &asker, &series, listing).await?;
    let of_study = found.hits.iter().filter(|hit| hit.study == study);
    list(of_study.map(series_item).collect(), &found)
}

/// A series as QIDO lists it.
fn series_item(hit: &SimilarSeries) -> Value {
    json!({
        "00080060": strings("CS", &[hit.modality.as_deref().unwrap_or_default()]),
        "0020000D": strings("UI", &[&hit.study]),
        "0020000E": strings("UI", &[&hit.series]),
    })
}

async fn look(
    service: &Arc<Service>,
    asker: &Asker,
    series: &str,
    listing: ListingResult,
) -> Result<Similar> {
    let invalid = || {
        let detail = "?limit=10&Modality=CT&index=NAME are taken";
        Problem::unprocessable("invalid_request", detail)
    };
    let Query(listing) = listing.map_err(|_| invalid())?;
    let series = uid(series)?;
    if listing.limit == 0 || listing.limit > service.limits.max_hits {
        return Err(invalid());
    }
    asker.must(Role::may_search)?;
    let index = service.indexes.named(listing.index.as_deref())?;
    if listing.offset > 0 {
        return Ok(Similar::default());
    }
    let modality = listing.modality.filter(|modality| !modality.is_empty());
    similar(
        service,
        asker,
        index,
        (Of::Series(series), listing.limit, modality),
    )
    .await
}

fn uid(text: &str) -> Result<Uid> {
    Uid::new(text.as_bytes()).map_err(|_| {
        Problem::unprocessable(
            "invalid_request",
            "the path holds no UID: digits and points are wanted",
        )
    })
}

fn strings(vr: &str, values: &[&str]) -> Value {
    let values: Vec<&&str> = values.iter().filter(|value| !value.is_empty()).collect();
    match values.is_empty() {
        true => json!({ "vr": vr }),
        false => json!({ "vr": vr, "Value": values }),
    }
}

fn list(items: Vec<Value>, found: &Similar) -> Result<Response<Body>> {
    let mut answer = match items.is_empty() {
        true => StatusCode::NO_CONTENT.into_response(),
        false => dicom_json(StatusCode::OK, &Value::Array(items))?,
    };
    warn(&mut answer, found);
    Ok(answer)
}

/// Counts hits that are left out.
pub(super) fn warn(answer: &mut Response<Body>, found: &Similar) {
    if found.n_closed == 0 {
        return;
    }
    let told = format!(
        "299 m3ret \"{} hits have no UID that can be opened\"",
        found.n_closed
    );
    if let Ok(told) = HeaderValue::from_str(&told) {
        answer.headers_mut().insert(header::WARNING, told);
    }
}

fn dicom_json(status: StatusCode, body: &Value) -> Result<Response<Body>> {
    Ok((
        status,
        [(header::CONTENT_TYPE, DICOM_JSON)],
        body.to_string(),
    )
        .into_response())
}
