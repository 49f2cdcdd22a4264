//! Similar studies as a FHIR search answers.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{Response, header};
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::dicomweb::warn;
use super::similar::{Of, SimilarSeries, similar};
use super::{Service, named, ten};
use crate::accounts::Role;
use crate::guard::Asker;
use crate::openapi::Refused;
use crate::problem::{Problem, Result};

/// Most characters of the id of a resource.
const N_ID: usize = 64;
/// Says why a resource names no patient.
const ABSENT: &str = "http://hl7.org/fhir/StructureDefinition/data-absent-reason";

/// How many are answered.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Count {
    /// At most so many.
    #[serde(rename = "_count", default = "ten")]
    #[param(minimum = 1, maximum = 100)]
    count: usize,
    /// The index; may be left out where there is one.
    index: Option<String>,
}

/// Answers with imaging studies that are similar to an image of an index, as a Bundle of FHIR R4.
#[utoipa::path(
    get,
    path = "/fhir/ImagingStudy/{id}/$similar",
    params(("id" = String, Path, description = "Id of an image of the index"), Count),
    responses((status = 200, body = Object, content_type = "application/fhir+json"), Refused)
)]
pub(super) async fn similar_studies(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: std::result::Result<Path<String>, PathRejection>,
    count: std::result::Result<Query<Count>, QueryRejection>,
) -> Result<Response<Body>> {
    let id: String = named(path)?;
    let invalid = || Problem::unprocessable("invalid_request", "?_count=10&index=NAME are taken");
    let Query(Count { count, index }) = count.map_err(|_| invalid())?;
    if count == 0 || count > service.limits.max_hits {
        return Err(invalid());
    }
    asker.must(Role::may_search)?;
    let index = service.indexes.named(index.as_deref())?;
    let found = similar(&service, &asker, index, (Of::Id(id), count, None)).await?;
    let entries: Vec<Value> = found.hits.iter().map(entry).collect();
    let bundle = json!({
        "resourceType": "Bundle",
        "type": "searchset",
        "total": entries.len(),
        "entry": entries,
    });
    let kind = [(header::CONTENT_TYPE, "application/fhir+json")];
    let mut answer = (kind, bundle.to_string()).into_response();
    warn(&mut answer, &found);
    Ok(answer)
}

fn entry(hit: &SimilarSeries) -> Value {
    let modality = json!({
        "system": "http://dicom.nema.org/resources/ontology/DCM",
        "code": hit.modality.as_deref().unwrap_or("OT"),
    });
    let mut search = json!({
        "mode": "match",
        "extension": [{"url": "urn:m3ret:cosine", "valueDecimal": hit.score}],
    });
    // A cosine is no relevance; what was measured is, and only of the first hit.
    if let Some(agreement) = hit.agreement {
        search["score"] = json!(agreement);
    }
    json!({
        "fullUrl": format!("urn:oid:{}", hit.study),
        "resource": {
            "resourceType": "ImagingStudy",
            "id": hit.name.get(..N_ID).unwrap_or(&hit.name),
            "identifier": [{"system": "urn:dicom:uid", "value": format!("urn:oid:{}", hit.study)}],
            "status": "available",
            "modality": [modality],
            "subject": {"extension": [{"url": ABSENT, "valueCode": "masked"}]},
            "series": [{"uid": hit.series, "modality": modality}],
        },
        "search": search,
    })
}
