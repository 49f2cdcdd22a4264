//! Uploads, pictures, and why two images match.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Response, header};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use m3ret::images::ImageSource;
use m3ret::search::{Queries, Why};
use m3ret_dicomnet::multipart::{Event, Fault, MAX_HEADER_BYTES, Splitter, part_name};
use m3ret_imaging::{Kind, Volume};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::accounts::Role;
use crate::audit::Entry;
use crate::guard::Asker;
use crate::indexes::{Index, SILENT, Snapshot};
use crate::openapi::{FileForm, Refused, WhyBody};
use crate::problem::{Problem, Result};
use crate::routes::search::pseudonym;
use crate::routes::{Service, each_piece, json, kind_of, named, taken, wrong_kind};
use crate::spool::{Files, PREFIX, Upload, VolumeFacts};

/// Longer side of a picture that is drawn.
const SIDE_PX: usize = 320;
/// Pictures that are kept in memory, some 30 KB each.
const MAX_PICTURES: usize = 1024;

/// Pictures that were drawn, by index, generation and id.
#[derive(Default)]
pub(crate) struct Pictures(Mutex<HashMap<(String, u64, String), Bytes>>);

impl Pictures {
    /// Forgets all of them.
    pub(crate) fn forget(&self) {
        self.all().clear();
    }

    fn get(&self, key: &(String, u64, String)) -> Option<Bytes> {
        self.all().get(key).cloned()
    }

    fn put(&self, key: (String, u64, String), png: Bytes) {
        let mut all = self.all();
        if all.len() >= MAX_PICTURES {
            all.clear();
        }
        all.insert(key, png);
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<(String, u64, String), Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a form holds.
pub(crate) struct Form {
    pub(crate) files: Files,
    /// The part `options`: JSON.
    pub(crate) options: Option<Vec<u8>>,
}

/// Where the bytes of a part go.
enum Target {
    File,
    Options,
}

/// Takes a form while it arrives: parts `file` into the spool, the part `options` into memory.
pub(crate) async fn receive(
    service: &Service,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Form> {
    let limit = service.limits.max_upload_bytes;
    let declared = headers.get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(Problem::too_large("upload", limit, "bytes"));
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map(|kind| kind.as_bytes());
    let mut splitter = Splitter::new(kind.unwrap_or_default()).map_err(of_fault)?;
    let mut form = Form {
        files: service.spool.begin()?,
        options: None,
    };
    let mut target = Target::File;
    let take = |piece: &[u8]| {
        for event in splitter.push(piece).map_err(of_fault)? {
            // Writing may wait for the disk.
            tokio::task::block_in_place(|| form.take(event, &mut target, service))?;
        }
        Ok(())
    };
    each_piece(body, ("upload", limit), take).await?;
    splitter.finish().map_err(of_fault)?;
    Ok(form)
}

impl Form {
    fn take(&mut self, event: Event, target: &mut Target, service: &Service) -> Result<()> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull => {
                let detail = "too many uploads are kept or arrive; try later";
                Problem::new(503, "spool_full", detail)
            }
            _ => Problem::new(503, "spool", "the upload cannot be written"),
        };
        let limits = &service.limits;
        match event {
            Event::Begin(headers) => match part_name(&headers).map_err(of_fault)?.as_slice() {
                b"file" => {
                    if self.files.n_files() >= limits.max_files {
                        let limit = u64::try_from(limits.max_files).unwrap_or(u64::MAX);
                        return Err(Problem::too_large("upload", limit, "files"));
                    }
                    *target = Target::File;
                    self.files.begin().map_err(failed)
                }
                b"options" if self.options.is_none() => {
                    *target = Target::Options;
                    self.options = Some(Vec::new());
                    Ok(())
                }
                _ => {
                    let detail = "parts named file, and one named options, are wanted";
                    Err(Problem::unprocessable("invalid_request", detail))
                }
            },
            Event::Bytes(bytes) => match target {
                Target::File => self.files.write(&bytes).map_err(failed),
                Target::Options => {
                    let options = self.options.get_or_insert_default();
                    if options.len() + bytes.len() > limits.max_json_bytes {
                        let limit = u64::try_from(limits.max_json_bytes).unwrap_or(u64::MAX);
                        return Err(Problem::too_large("JSON", limit, "bytes"));
                    }
                    options.extend(bytes);
                    Ok(())
                }
            },
            Event::End => Ok(()),
        }
    }
}

pub(crate) fn of_fault(fault: Fault) -> Problem {
    let told = |detail: &str| Problem::new(400, "broken_form", detail);
    match fault {
        Fault::NoBoundary => told("Content-Type: a boundary of 1 to 70 characters is wanted"),
        Fault::LongHeader => Problem::too_large(
            "header of a part",
            u64::try_from(MAX_HEADER_BYTES).unwrap_or(u64::MAX),
            "bytes",
        ),
        Fault::NoName => told("a part has no name"),
        Fault::Broken => told("a boundary is followed by neither a part nor the end"),
        Fault::Cut => told("the form ends before its last boundary"),
    }
}

/// Reads what was sent, draws it, and keeps it.
pub(crate) async fn keep(
    service: &Arc<Service>,
    asker: &Asker,
    files: Files,
) -> Result<Arc<Upload>> {
    if files.n_files() == 0 {
        let detail = "a part named file is wanted";
        return Err(Problem::unprocessable("invalid_request", detail));
    }
    let owner = asker.name.clone();
    let shared = Arc::clone(service);
    let read = move || -> Result<Arc<Upload>> {
        let options = shared.reading();
        let image = files.image(&options)?;
        let volumes = m3ret::panics::guard(|| image.volumes(&options));
        let volumes = volumes.map_err(|_| "internal_error");
        let volumes = volumes.and_then(|read| read.map_err(|error| error.code().as_str()));
        let volumes = volumes.map_err(|code| {
            shared.metrics.decode_failure(code);
            match files.n_files() {
                1 => Problem::unreadable(code),
                n => Problem::unprocessable(
                    code,
                    format!("the {n} files are not one DICOM series ({code}): send the files of one series, or one file"),
                ),
            }
        })?;
        let thumbnail = volumes.first().and_then(|volume| drawn(volume));
        let facts = volumes.iter().map(|volume| facts_of(volume)).collect();
        let upload = Upload::new(files, owner, facts, thumbnail.unwrap_or_default());
        Ok(shared.spool.keep(upload))
    };
    let upload = service.embeddings.run(read).await??;
    let entry = Entry {
        action: "110107 Import".to_owned(),
        query: upload.digest.clone(),
        ..Entry::default()
    };
    service.record(asker, entry).await?;
    Ok(upload)
}

fn drawn(volume: &Volume) -> Option<Vec<u8>> {
    let png = m3ret::panics::guard(|| m3ret_imaging::thumbnail(volume, SIDE_PX).png());
    png.ok()?.ok()
}

fn facts_of(volume: &Volume) -> VolumeFacts {
    VolumeFacts {
        kind: match volume.kind {
            Kind::Image => "image",
            Kind::Video => "video",
            Kind::Volume => "volume",
        },
        shape: volume.shape(),
        reasons: volume
            .reasons
            .iter()
            .map(|reason| reason.code.as_str())
            .collect(),
    }
}

/// An upload that could be read.
#[derive(Serialize, ToSchema)]
pub(crate) struct UploadView<'a> {
    /// Its name, for searches.
    object: &'a str,
    volumes: &'a [VolumeFacts],
}

/// What matches, or null for a model without patches.
#[derive(Serialize, ToSchema)]
pub(crate) struct WhyView {
    #[schema(value_type = Option<WhyBody>)]
    why: Option<Why>,
}

/// Keeps what is sent for an hour.
#[utoipa::path(
    post,
    path = "/v1/objects",
    request_body(content = FileForm, content_type = "multipart/form-data"),
    responses((status = 200, body = UploadView), Refused)
)]
pub(crate) async fn upload(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let form = taken(body, async |body| {
        check_kind(&asker, &head.headers)?;
        receive(&service, &head.headers, body).await
    });
    let form = form.await?;
    let upload = keep(&service, &asker, form.files).await?;
    json(&UploadView {
        object: &upload.id,
        volumes: &upload.volumes,
    })
}

fn check_kind(asker: &Asker, headers: &HeaderMap) -> Result<()> {
    asker.must(Role::may_search)?;
    match kind_of(headers).as_str() {
        "multipart/form-data" => Ok(()),
        _ => Err(wrong_kind("multipart/form-data")),
    }
}

/// An image of the path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only described; the path is read as a text")]
pub(crate) struct ImageId {
    /// Name of an upload, or id of an image
    id: String,
}

/// In which index an image is.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Place {
    /// The index; may be left out where there is one.
    pub(crate) index: Option<String>,
}

/// The same, and with what it is compared.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Pair {
    /// The index; may be left out where there is one.
    index: Option<String>,
    /// Id of the image that it is compared with.
    hit: String,
}

impl Place {
    pub(crate) fn of(query: std::result::Result<Query<Self>, QueryRejection>) -> Result<Self> {
        let place = query.map(|Query(place)| place);
        place.map_err(|_| Problem::unprocessable("invalid_request", "?index=NAME is wanted"))
    }

    /// Returns the index that is named, or the only one.
    pub(crate) fn index(&self, service: &Service) -> Result<Arc<Index>> {
        service.indexes.named(self.index.as_deref())
    }
}

/// Shows an upload or an image of an index.
#[utoipa::path(
    get,
    path = "/v1/objects/{id}/thumbnail.png",
    params(ImageId, Place),
    responses((status = 200, body = Vec<u8>, content_type = "image/png"), Refused)
)]
pub(crate) async fn thumbnail(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: std::result::Result<Path<String>, PathRejection>,
    place: std::result::Result<Query<Place>, QueryRejection>,
) -> Result<Response<Body>> {
    let (id, place) = (named(path)?, Place::of(place)?);
    asker.must(Role::may_search)?;
    if place.index.is_none()
        && id.starts_with(PREFIX)
        && let Some(upload) = service.spool.find(&id, &asker.name)
    {
        let entry = Entry {
            action: "110103 DICOM Instances Accessed".to_owned(),
            query: upload.digest.clone(),
            ..Entry::default()
        };
        service.record(&asker, entry).await?;
        return picture(Bytes::copy_from_slice(&upload.thumbnail));
    }
    let index = place.index(&service)?;
    let shared = Arc::clone(&service);
    let draw = move |snapshot: &Snapshot, index: &Index| -> Result<_> {
        let entry = Entry {
            action: "110103 DICOM Instances Accessed".to_owned(),
            index: index.name.clone(),
            ..snapshot.shown(&[&id])?
        };
        let key = (index.name.clone(), snapshot.generation, id.clone());
        if let Some(known) = shared.pictures.get(&key) {
            return Ok((known, entry));
        }
        let png = snapshot.archive.thumbnail(&key.2, SIDE_PX);
        let png = png.map_err(|error| Problem::of_library(&error))?;
        let png = Bytes::from(png.ok_or_else(|| Problem::not_found("picture"))?);
        shared.pictures.put(key, png.clone());
        Ok((png, entry))
    };
    let drawn = service
        .searches
        .run(move || index.with_newest(|snapshot| draw(snapshot, &index)));
    let (png, entry) = drawn.await??;
    service.record(&asker, entry).await?;
    picture(png)
}

fn picture(png: Bytes) -> Result<Response<Body>> {
    if png.is_empty() {
        return Err(Problem::not_found("picture"));
    }
    Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
}

/// Says why an upload or an image of an index matches another image of the index.
#[utoipa::path(
    get,
    path = "/v1/objects/{id}/why",
    params(ImageId, Pair),
    responses((status = 200, body = WhyView), Refused)
)]
pub(crate) async fn why(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    path: std::result::Result<Path<String>, PathRejection>,
    pair: std::result::Result<Query<Pair>, QueryRejection>,
) -> Result<Response<Body>> {
    let id = named(path)?;
    let pair =
        pair.map_err(|_| Problem::unprocessable("invalid_request", "?index=NAME&hit=ID is wanted"));
    let Query(Pair { index, hit }) = pair?;
    asker.must(Role::may_search)?;
    let index = service.indexes.named(index.as_deref())?;
    let upload = service.spool.find(&id, &asker.name);
    let compare = move |snapshot: &Snapshot, index: &Index| -> Result<_> {
        let (archive, gallery) = (&snapshot.archive, snapshot.archive.gallery.as_ref());
        let has = |id: &str| gallery.find(id).is_ok_and(|row| row.is_some());
        if !has(&hit) || (upload.is_none() && !has(&id)) {
            return Err(Problem::not_found("image of this id in the index"));
        }
        let (queries, name) = match &upload {
            Some(upload) => {
                let image = upload.image(&archive.reading().options)?;
                (
                    Queries::Sources(vec![ImageSource::Memory(image)]),
                    upload.digest.clone(),
                )
            }
            None => (Queries::Ids(vec![id.clone()]), pseudonym(gallery, &id)),
        };
        let why = archive.explain_pair(&queries, &hit, &SILENT);
        let why = why.map_err(|error| Problem::of_library(&error))?;
        let entry = Entry {
            action: "110103 DICOM Instances Accessed".to_owned(),
            index: index.name.clone(),
            query: name,
            ..snapshot.shown(&[&hit])?
        };
        Ok((why, entry))
    };
    let compared = service
        .embeddings
        .run(move || index.with_newest(|snapshot| compare(snapshot, &index)));
    let (why, entry) = compared.await??;
    service.record(&asker, entry).await?;
    json(&WhyView { why })
}

/// Returns the address of the picture of an image.
pub(crate) fn address(id: &str, index: &Index) -> String {
    let mut address = "/v1/objects/".to_owned();
    for byte in id.bytes() {
        match byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            true => address.push(char::from(byte)),
            // Writing to a `String` cannot fail.
            false => drop(write!(address, "%{byte:02X}")),
        }
    }
    address + "/thumbnail.png?index=" + &index.name
}
