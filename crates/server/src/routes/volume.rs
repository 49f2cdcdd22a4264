//! Volumes for viewers, and the planes and frames that the page scrolls through.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{Response, header};
use axum::response::IntoResponse as _;
use m3ret::report::{Pictures, hu_levels};
use m3ret_imaging::{Kind, Volume, encode_nifti};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Service, json, named};
use crate::accounts::Role;
use crate::audit::Entry;
use crate::guard::Asker;
use crate::indexes::Index;
use crate::objects::{ImageId, Place};
use crate::openapi::Refused;
use crate::problem::{Problem, Result};
use crate::spool::{PREFIX, Upload};

/// Longest side of a volume that is sent.
const MAX_SIDE: usize = 256;
/// About what the pictures of one image may take, in characters.
const MAX_CHARS: usize = 2_000_000;

/// Planes of a volume, frames of a clip or a picture, as the page draws them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PicturesAnswer {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pictures: Pictures,
    /// Pairs of HU and grey, by which greys of a CT are read.
    #[schema(value_type = Vec<Vec<f64>>)]
    hu_levels: serde_json::Value,
}

/// Which image is looked at.
enum Image {
    Upload(Arc<Upload>),
    Known { index: Arc<Index>, id: String },
}

type PathResult = std::result::Result<Path<String>, PathRejection>;
type PlaceResult = std::result::Result<Query<Place>, QueryRejection>;

/// Sends an upload or an image of an index as NIfTI.
#[utoipa::path(
    get,
    path = "/v1/objects/{id}/volume.nii.gz",
    params(ImageId, Place),
    responses((status = 200, body = Vec<u8>, content_type = "application/gzip"), Refused)
)]
pub(super) async fn nifti(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: PathResult,
    place: PlaceResult,
) -> Result<Response<Body>> {
    let image = image_of(&service, &asker, path, place)?;
    let work = |volume: &Volume| {
        if volume.kind != Kind::Volume || volume.shape()[1] < 2 {
            let detail =
                "the image is no volume: its picture is at thumbnail.png, its frames at pictures";
            return Err(Problem::unprocessable("not_a_volume", detail));
        }
        encode_nifti(volume, MAX_SIDE).map_err(|error| Problem::unreadable(error.code().as_str()))
    };
    let bytes = look(&service, &asker, image, work).await?;
    Ok(([(header::CONTENT_TYPE, "application/gzip")], bytes).into_response())
}

/// Sends planes or frames of an upload or an image of an index.
#[utoipa::path(
    get,
    path = "/v1/objects/{id}/pictures",
    params(ImageId, Place),
    responses((status = 200, body = PicturesAnswer), Refused)
)]
pub(super) async fn pictures(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: PathResult,
    place: PlaceResult,
) -> Result<Response<Body>> {
    let image = image_of(&service, &asker, path, place)?;
    let work = |volume: &Volume| {
        Pictures::of(volume, MAX_CHARS).map_err(|_| Problem::unreadable("internal_error"))
    };
    let pictures = look(&service, &asker, image, work).await?;
    json(&PicturesAnswer {
        pictures,
        hu_levels: hu_levels(),
    })
}

fn image_of(
    service: &Service,
    asker: &Asker,
    path: PathResult,
    place: PlaceResult,
) -> Result<Image> {
    let (id, place) = (named(path)?, Place::of(place)?);
    asker.must(Role::may_search)?;
    if place.index.is_none()
        && id.starts_with(PREFIX)
        && let Some(upload) = service.spool.find(&id, &asker.name)
    {
        return Ok(Image::Upload(upload));
    }
    let index = place.index(service)?;
    Ok(Image::Known { index, id })
}

/// Reads an image and works on it, one image of the server at a time; the answer waits for its line of the audit trail.
async fn look<T: Send + 'static>(
    service: &Arc<Service>,
    asker: &Asker,
    image: Image,
    work: impl FnOnce(&Volume) -> Result<T> + Send + 'static,
) -> Result<T> {
    let options = service.reading();
    let seen = service.embeddings.run(move || -> Result<_> {
        let action = "110103 DICOM Instances Accessed".to_owned();
        let (volume, entry) = match image {
            Image::Upload(upload) => {
                let image = upload.image(&options)?;
                let volumes = m3ret::panics::guard(|| image.volumes(&options));
                let volumes = volumes.map_err(|_| Problem::unreadable("internal_error"))?;
                let volumes = volumes.map_err(|error| Problem::unreadable(error.code().as_str()))?;
                let first = volumes.into_iter().next();
                let entry = Entry { action, query: upload.digest.clone(), ..Entry::default() };
                (first.ok_or_else(|| Problem::not_found("image"))?, entry)
            }
            Image::Known { index, id } => {
                let (volume, shown) = index.with_newest(|snapshot| {
                    let volume = snapshot.archive.volume(&id).map_err(|error| match error {
                        m3ret::Error::Caller(_) => Problem::new(
                            404,
                            "unreadable",
                            "the file of the image cannot be read any more; only what the gallery holds of it can be shown",
                        ),
                        other => Problem::of_library(&other),
                    });
                    let volume = volume?.ok_or_else(|| Problem::not_found("image of this id in the index"))?;
                    Ok((volume, snapshot.shown(&[&id])?))
                })?;
                let entry = Entry { action, index: index.name.clone(), ..shown };
                (Arc::new(volume), entry)
            }
        };
        let made = m3ret::panics::guard(|| work(&volume));
        Ok((made.map_err(|_| Problem::unreadable("internal_error"))??, entry))
    });
    let (made, entry) = seen.await??;
    service.record(asker, entry).await?;
    Ok(made)
}
