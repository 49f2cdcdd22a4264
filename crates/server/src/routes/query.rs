//! What a search asks with: an image, a region of one, several images, or a vector.

use std::collections::BTreeMap;
use std::sync::Arc;

use m3ret::images::ImageSource;
use m3ret::index::UID_SEALED;
use m3ret::options::ColumnValue;
use m3ret::search::{Ask, MAX_EXAMPLES, Queries, Recall, RefusedQuery, names_people};
use m3ret_imaging::{ReadOptions, Region};
use m3ret_search::Collection;
use serde::Deserialize;
use utoipa::ToSchema;

use super::search::pseudonym;
use super::{Service, ten};
use crate::guard::Asker;
use crate::problem::{Problem, Result};
use crate::spool::{PREFIX, Upload};

/// What is searched for, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchRequest {
    /// Id of an image of the index.
    id: Option<String>,
    /// A vector of the index's model.
    vector: Option<Vec<f32>>,
    /// Name of an upload.
    object: Option<String>,
    /// Ids of images of the index, and names of uploads, that hits should be like.
    #[serde(default)]
    like: Vec<String>,
    /// Those that hits should not be like; only with `like`.
    #[serde(default)]
    unlike: Vec<String>,
    /// A region of the image: `[x0, y0, x1, y1]` of a picture or a video, `[x0, y0, z0, x1, y1, z1]` of a volume, as
    /// fractions of its sides.
    region: Option<Vec<f64>>,
    /// Number of hits.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 100)]
    k: usize,
    /// Values of columns that hits have; `column!` for those that they do not have.
    #[serde(default)]
    filter: BTreeMap<String, Vec<String>>,
    /// What hits must not share with the query, such as `same_patient`.
    #[serde(default)]
    exclude: Vec<String>,
    /// Column of which each value has one hit.
    group_by: Option<String>,
    /// Whether every vector is scored.
    #[serde(default)]
    exact: bool,
}

/// One image that a client names.
pub(super) enum Example {
    Id(String),
    Upload(Arc<Upload>),
}

/// Whose neighbours are looked for.
pub(super) enum Query {
    Image(Example),
    Vector(Vec<f32>),
    Region {
        of: Example,
        region: Region,
        fractions: Vec<f64>,
    },
    Examples {
        like: Vec<Example>,
        unlike: Vec<Example>,
    },
}

/// Reads how is searched.
pub(super) fn ask_of(request: &SearchRequest, service: &Service) -> Result<Ask> {
    let max_hits = service.limits.max_hits;
    if request.k == 0 || request.k > max_hits {
        let detail = format!("k: 1 to {max_hits} hits are allowed");
        return Err(Problem::unprocessable("limit_exceeded", detail));
    }
    let named = request.filter.keys().map(|name| name.trim_end_matches('!'));
    if named.clone().any(names_people)
        || request
            .group_by
            .as_deref()
            .is_some_and(|name| name == UID_SEALED)
    {
        let detail = "filter, group_by: columns of patients, studies, series and their identifiers are not searched by value; \
                      exclude takes same_patient, same_study and same_series";
        return Err(Problem::new(403, "column_of_people", detail));
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
        recall: request.exact.then_some(Recall::ALL),
        ..Ask::default()
    })
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::unprocessable("invalid_request", detail)
}

/// Reads what is asked with.
pub(super) fn query_of(
    request: SearchRequest,
    sent: Option<Arc<Upload>>,
    service: &Service,
    asker: &Asker,
) -> Result<Query> {
    let SearchRequest {
        id,
        vector,
        object,
        like,
        unlike,
        region,
        exclude,
        ..
    } = request;
    let has_examples = !like.is_empty() || !unlike.is_empty();
    let image = match (id, vector, object, sent, has_examples) {
        (Some(id), None, None, None, false) => Example::Id(id),
        (None, None, Some(object), None, false) => {
            let found = service.spool.find(&object, &asker.name);
            Example::Upload(found.ok_or_else(|| Problem::not_found("object"))?)
        }
        (None, None, None, Some(sent), false) => Example::Upload(sent),
        (None, Some(vector), None, None, false) if region.is_none() => {
            return of_vector(vector, &exclude, service.limits.max_width);
        }
        (None, None, None, None, true) if region.is_none() => {
            return of_examples(&like, &unlike, service, asker);
        }
        _ => {
            let wanted = "exactly one of id, vector, object, like or a file is wanted; a region is of an id, an object or a file";
            return Err(invalid(wanted));
        }
    };
    let Some(fractions) = region else {
        return Ok(Query::Image(image));
    };
    let region = Region::new(&fractions).map_err(|_| invalid_region())?;
    Ok(Query::Region {
        of: image,
        region,
        fractions,
    })
}

fn invalid_region() -> Problem {
    let wanted = "region: [x0, y0, x1, y1] of a picture or a video, [x0, y0, z0, x1, y1, z1] of a volume is wanted, as \
                  fractions of its sides that rise within 0..=1, with at least 8 x 8 pixels";
    Problem::unprocessable("invalid_region", wanted)
}

fn of_vector(vector: Vec<f32>, exclude: &[String], max_width: usize) -> Result<Query> {
    if vector.len() > max_width {
        let detail = format!("vector: at most {max_width} numbers are allowed");
        return Err(Problem::unprocessable("limit_exceeded", detail));
    }
    match exclude.is_empty() {
        true => Ok(Query::Vector(vector)),
        false => Err(invalid(
            "exclude: of a vector it is not known whose image it is",
        )),
    }
}

fn of_examples(
    like: &[String],
    unlike: &[String],
    service: &Service,
    asker: &Asker,
) -> Result<Query> {
    let n = like.len() + unlike.len();
    if n > MAX_EXAMPLES {
        let detail = format!(
            "like and unlike: at most {MAX_EXAMPLES} images are allowed, and {n} were sent"
        );
        return Err(Problem::unprocessable("limit_exceeded", detail));
    }
    if like.is_empty() {
        return Err(invalid("unlike: at least one image in like is wanted, too"));
    }
    if unlike.iter().any(|name| like.contains(name)) {
        return Err(invalid("unlike: an image is in like, too"));
    }
    let find = |names: &[String]| {
        names
            .iter()
            .map(|name| Example::of(name, service, asker))
            .collect()
    };
    Ok(Query::Examples {
        like: find(like),
        unlike: find(unlike),
    })
}

impl Example {
    /// An upload of the account if there is one of this name, else an image of the index.
    fn of(name: &str, service: &Service, asker: &Asker) -> Self {
        let upload = match name.starts_with(PREFIX) {
            true => service.spool.find(name, &asker.name),
            false => None,
        };
        upload.map_or_else(|| Self::Id(name.to_owned()), Self::Upload)
    }

    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Id(id) => Some(id),
            Self::Upload(_) => None,
        }
    }

    pub(super) fn upload(&self) -> Option<&Upload> {
        match self {
            Self::Id(_) => None,
            Self::Upload(upload) => Some(upload),
        }
    }

    /// Returns what a client calls it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Id(id) => id,
            Self::Upload(upload) => &upload.id,
        }
    }

    fn of_library(&self, options: &ReadOptions) -> Result<m3ret::search::Example> {
        Ok(match self {
            Self::Id(id) => m3ret::search::Example::Id(id.clone()),
            Self::Upload(upload) => {
                m3ret::search::Example::Source(ImageSource::Memory(upload.image(options)?))
            }
        })
    }

    /// Names it in the audit trail.
    fn digest(&self, gallery: &dyn Collection) -> String {
        match self {
            Self::Id(id) => pseudonym(gallery, id),
            Self::Upload(upload) => upload.digest.clone(),
        }
    }
}

impl Query {
    /// Returns the one image that it is about.
    pub(super) fn image(&self) -> Option<&Example> {
        match self {
            Self::Image(image) | Self::Region { of: image, .. } => Some(image),
            Self::Vector(_) | Self::Examples { .. } => None,
        }
    }

    /// Returns the images that hits should be like, and those that they should not be like.
    pub(super) fn examples(&self) -> (&[Example], &[Example]) {
        match self {
            Self::Examples { like, unlike } => (like, unlike),
            Self::Image(_) | Self::Region { .. } | Self::Vector(_) => (&[], &[]),
        }
    }

    pub(super) fn region(&self) -> Option<&[f64]> {
        match self {
            Self::Region { fractions, .. } => Some(fractions),
            Self::Image(_) | Self::Examples { .. } | Self::Vector(_) => None,
        }
    }

    /// Returns whether images are read and embedded for it.
    pub(super) fn reads_images(&self) -> bool {
        match self {
            Self::Image(image) => image.upload().is_some(),
            Self::Vector(_) => false,
            Self::Region { .. } => true,
            Self::Examples { like, unlike } => {
                like.iter().chain(unlike).any(|one| one.upload().is_some())
            }
        }
    }

    /// Refuses a vector that does not fit the index, and ids that it does not have.
    pub(super) fn check(&self, gallery: &dyn Collection) -> Result<()> {
        if let Self::Vector(vector) = self {
            let width = gallery.width();
            let is_directed =
                vector.iter().all(|x| x.is_finite()) && vector.iter().any(|&x| x != 0.0);
            if vector.len() != width || !is_directed {
                return Err(invalid(format!(
                    "vector: {width} finite numbers are wanted, not all of them 0"
                )));
            }
        }
        let (like, unlike) = self.examples();
        let mut ids = self
            .image()
            .into_iter()
            .chain(like)
            .chain(unlike)
            .filter_map(Example::id);
        let is_missing = |id: &str| gallery.find(id).is_ok_and(|row| row.is_none());
        match ids.any(is_missing) {
            true => Err(Problem::not_found("image of this id in the index")),
            false => Ok(()),
        }
    }

    pub(super) fn queries(&self, options: &ReadOptions) -> Result<Queries> {
        Ok(match self {
            Self::Image(Example::Id(id)) => Queries::Ids(vec![id.clone()]),
            Self::Image(Example::Upload(upload)) => {
                Queries::Sources(vec![ImageSource::Memory(upload.image(options)?)])
            }
            Self::Vector(vector) => Queries::Values(vec![vector.clone()]),
            Self::Region { of, region, .. } => Queries::Region {
                of: of.of_library(options)?,
                region: *region,
            },
            Self::Examples { like, unlike } => {
                let all = |examples: &[Example]| -> Result<Vec<_>> {
                    examples
                        .iter()
                        .map(|example| example.of_library(options))
                        .collect()
                };
                Queries::Examples {
                    like: all(like)?,
                    unlike: all(unlike)?,
                }
            }
        })
    }

    /// Says why the query has no answer.
    pub(super) fn refusal(&self, refused: &[RefusedQuery]) -> Problem {
        match self {
            // What is said of a region holds its numbers alone.
            Self::Region { .. }
                if refused
                    .iter()
                    .any(|query| query.message.starts_with("region: ")) =>
            {
                invalid_region()
            }
            _ => Problem::unprocessable("unreadable", "the image cannot be embedded"),
        }
    }

    /// Names it in the audit trail.
    pub(super) fn digest(&self, gallery: &dyn Collection) -> String {
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
        match self {
            Self::Image(image) => image.digest(gallery),
            Self::Vector(vector) => {
                let bytes: Vec<u8> = vector
                    .iter()
                    .flat_map(|number| number.to_le_bytes())
                    .collect();
                hash(&bytes)
            }
            Self::Region { of, fractions, .. } => {
                hash(format!("region {fractions:?} {}", of.digest(gallery)).as_bytes())
            }
            Self::Examples { like, unlike } => {
                let mut text = String::new();
                for (word, examples) in [("like", like), ("unlike", unlike)] {
                    for example in examples {
                        text += &format!("{word} {} ", example.digest(gallery));
                    }
                }
                hash(text.as_bytes())
            }
        }
    }
}
