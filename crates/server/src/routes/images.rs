//! What an index knows of images that a client names: a basket that is shown again.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use m3ret::search::KnownImage;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Service, json, named, read_json, taken};
use crate::accounts::Role;
use crate::audit::Entry;
use crate::guard::Asker;
use crate::indexes::{Index, Snapshot};
use crate::objects;
use crate::openapi::{KnownImageBody, Refused};
use crate::problem::{Problem, Result};

/// Most images of one request.
const MAX_IMAGES: usize = 1000;

/// Which images are asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImagesRequest {
    /// Ids of images of the index, at most 1,000.
    #[schema(min_items = 1, max_items = 1000)]
    ids: Vec<String>,
}

/// What the index knows of these images.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ImagesAnswer {
    /// In the order of the ids.
    images: Vec<ImageView>,
    /// Ids that the index does not have.
    missing: Vec<String>,
    /// State of the index.
    generation: u64,
    /// Model that made its vectors.
    fingerprint: String,
}

/// One image of an index.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ImageView {
    #[serde(flatten)]
    #[schema(value_type = KnownImageBody)]
    image: KnownImage,
    /// Address of its picture.
    thumbnail: String,
}

/// Answers with what is known of images by their ids.
#[utoipa::path(
    post,
    path = "/v1/indexes/{name}/images",
    params(("name" = String, Path, description = "Name of the index")),
    request_body = ImagesRequest,
    responses((status = 200, body = ImagesAnswer), Refused)
)]
pub(super) async fn images(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: std::result::Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let read = taken(body, async |body| {
        let name: String = named(path)?;
        asker.must(Role::may_search)?;
        let index = service.indexes.named(Some(&name))?;
        let request: ImagesRequest = read_json(body, &head.headers, &service.limits).await?;
        Ok((index, request.ids))
    });
    let (index, ids) = read.await?;
    if ids.is_empty() || ids.len() > MAX_IMAGES {
        let detail = format!(
            "ids: 1 to {MAX_IMAGES} are allowed, and {} were sent",
            ids.len()
        );
        return Err(Problem::unprocessable("limit_exceeded", detail));
    }
    let found = service
        .searches
        .run(move || index.with_newest(|snapshot| find(&index, snapshot, &ids)));
    let (answer, entry) = found.await??;
    service.record(&asker, entry).await?;
    json(&answer)
}

/// Looks images up, on a thread that may wait.
fn find(index: &Index, snapshot: &Snapshot, ids: &[String]) -> Result<(ImagesAnswer, Entry)> {
    let failed = |error: m3ret::Error| Problem::of_library(&error);
    let gallery = snapshot.archive.gallery.as_ref();
    let known = snapshot.archive.known_images(ids).map_err(failed)?;
    let missing = ids.iter().zip(&known).filter(|(_, known)| known.is_none());
    let missing = missing.map(|(id, _)| id.clone()).collect();
    let images: Vec<ImageView> = known
        .into_iter()
        .flatten()
        .map(|image| ImageView {
            thumbnail: objects::address(&image.id, index),
            image,
        })
        .collect();
    let shown: Vec<&str> = images.iter().map(|view| view.image.id.as_str()).collect();
    let entry = Entry {
        action: "110103 DICOM Instances Accessed".to_owned(),
        index: index.name.clone(),
        ..snapshot.shown(&shown)?
    };
    let answer = ImagesAnswer {
        images,
        missing,
        generation: snapshot.generation,
        fingerprint: gallery.maker().fingerprint.clone(),
    };
    Ok((answer, entry))
}
