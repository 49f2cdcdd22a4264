//! Adds images to an index and removes them.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse as _;
use m3ret::index::{SeriesFolder, remove};
use serde_json::json;

use super::jobs::{accepted, key_of};
use super::{Service, kind_of, named, taken, wrong_kind};
use crate::accounts::Role;
use crate::audit::Entry;
use crate::guard::Asker;
use crate::indexes::Index;
use crate::jobs::{Failure, JobView, Outcome, Work, failed};
use crate::objects::{Form, receive};
use crate::openapi::{FileForm, Refused};
use crate::problem::{Problem, Result};

/// What images are said to come from.
const ORIGIN: &str = "upload";
/// Hexadecimal digits of a name.
const N_DIGITS: usize = 32;

/// Adds an image, the images of several files, or a DICOM series, as a job. What was added before is replaced.
#[utoipa::path(
    post,
    path = "/v1/indexes/{name}/items",
    params(
        ("name" = String, Path, description = "Name of the index"),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 128, description = "A request that is sent again with it does nothing more")
    ),
    request_body(content = FileForm, content_type = "multipart/form-data"),
    responses((status = 202, body = JobView), Refused)
)]
pub(super) async fn add(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: std::result::Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response<Body>> {
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
    let (index, key, form) = read.await?;
    let files = form.files.for_job().map_err(|_| gone())?;
    let (digest, n_files) = (files.digest(), files.n_files());
    let asked = format!("{} {digest}", index.name);
    if let Some(key) = &key
        && let Some(known) = service.jobs.repeated(&asker.name, key, &asked)?
    {
        return accepted(&known);
    }
    let entry = Entry {
        action: "110107 Import".to_owned(),
        index: index.name.clone(),
        query: digest.clone(),
        ..Entry::default()
    };
    service.record(&asker, entry).await?;
    let shared = Arc::clone(&service);
    let work: Work = Box::new(move || {
        let added = add_files(&shared, &index, &files.folder(), (&digest, n_files));
        added.unwrap_or_else(|error| failed(Problem::of_library(&error).code()))
    });
    let key = key.map(|key| (key, asked));
    accepted(&service.jobs.add(&asker.name, key, Some(n_files), work)?)
}

/// An erasure that began meanwhile erases what was uploaded.
fn gone() -> Problem {
    Problem::new(
        503,
        "spool",
        "the upload was erased while it arrived; send it again",
    )
}

async fn take(
    service: &Service,
    asker: &Asker,
    name: &str,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<(Arc<Index>, Option<String>, Form)> {
    asker.must(Role::may_write)?;
    let index = service.indexes.named(Some(name))?;
    index.must_be_changeable()?;
    if index.known().archive.model().is_none() {
        let detail = "the vectors of this index were made elsewhere; no model here adds to them";
        return Err(Problem::unprocessable("external_model", detail));
    }
    let key = key_of(headers)?;
    if kind_of(headers) != "multipart/form-data" {
        return Err(wrong_kind("multipart/form-data"));
    }
    let form = receive(service, headers, body).await?;
    if form.files.n_files() == 0 || form.options.is_some() {
        let detail = "parts named file are wanted, at least one";
        return Err(Problem::unprocessable("invalid_request", detail));
    }
    Ok((index, key, form))
}

fn add_files(
    service: &Service,
    index: &Index,
    folder: &std::path::Path,
    (digest, n_files): (&str, usize),
) -> m3ret::Result<Outcome> {
    let mut gallery = index.additions(None)?;
    let snapshot = index.known();
    let hash = |text: &str| snapshot.archive.gallery.pseudonym(ORIGIN, text);
    gallery.set_origin(&hash(ORIGIN));
    let name = hash(digest);
    let name = format!("{ORIGIN}-{}", name.get(..N_DIGITS).unwrap_or(&name));
    let sent = SeriesFolder {
        folder: folder.to_owned(),
        name: name.clone(),
        n_objects: n_files,
        study_uid: String::new(),
        series_uid: String::new(),
    };
    let put = gallery.put(&[sent], &service.jobs.watch())?;
    let failures = put.refused.iter().map(|(reason, n)| Failure {
        reason: reason.clone(),
        n: *n,
    });
    let result =
        json!({"rows": put.n_rows, "replaced": put.n_replaced, "ids": gallery.ids(&name)?});
    Ok(Outcome {
        done: n_files,
        failures: failures.collect(),
        result: (put.n_rows > 0).then_some(result),
    })
}

/// Removes an image from an index. Its bytes stay in files of the gallery until it is compacted; an erasure leaves none.
#[utoipa::path(
    delete,
    path = "/v1/indexes/{name}/items/{id}",
    params(
        ("name" = String, Path, description = "Name of the index"),
        ("id" = String, Path, description = "Id of the image, percent-encoded")
    ),
    responses((status = 204), Refused)
)]
pub(super) async fn delete(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: std::result::Result<Path<(String, String)>, PathRejection>,
) -> Result<Response<Body>> {
    let (name, id) = named(path)?;
    asker.must(Role::may_write)?;
    let index = service.indexes.named(Some(&name))?;
    index.must_be_changeable()?;
    let known = Arc::clone(&index);
    let looked = service.searches.run(move || -> Result<(Entry, String)> {
        let snapshot = known
            .newest()
            .map_err(|error| Problem::of_library(&error))?;
        let found = snapshot.archive.gallery.find(&id);
        if found.map_err(|_| Problem::internal("gallery"))?.is_none() {
            return Err(Problem::not_found("image of this id in the index"));
        }
        let entry = Entry {
            action: "110105 DICOM Study Deleted".to_owned(),
            index: known.name.clone(),
            query: snapshot.archive.gallery.pseudonym("id", &id),
            ..Entry::default()
        };
        Ok((entry, id))
    });
    let (entry, id) = looked.await??;
    // What cannot be recorded must not happen.
    service.record(&asker, entry).await?;
    let removed = service.embeddings.run(move || {
        let removed = remove(index.place(), std::slice::from_ref(&id));
        removed.map_err(|error| Problem::of_library(&error))
    });
    removed.await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}
