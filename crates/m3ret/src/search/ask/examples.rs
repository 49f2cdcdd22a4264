//! Queries that are made of several images, or of a region of one.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use m3ret_imaging::{Region, Volume, crop};
use m3ret_search::RowId;

use super::{Queries, ReadyQuery, all};
use crate::galleries::Archive;
use crate::images::{ImageSource, MemoryContent, MemoryImage};
use crate::panics;
use crate::report::viewer;
use crate::search::{Ask, Labels, RefusedQuery};
use crate::watch::Watch;
use crate::words::counted;

/// How much the mean of what hits should not be like counts, where the mean of what they should be like counts 1.
///
/// # Source
/// Rocchio's feedback with unit vectors (Manning, Raghavan, Schuetze 2008, section 9.1.1), which weighs examples against
/// less than examples for. The value was chosen, not measured.
pub const UNLIKE_WEIGHT: f32 = 0.5;
/// Most images that one query is made of.
pub const MAX_EXAMPLES: usize = 64;

/// One image that a query is made of.
#[derive(Debug, Clone)]
pub enum Example {
    /// Id of an image of the gallery. No file is opened for its vector.
    Id(String),
    /// A file, or an image in memory; the first image of it.
    Source(ImageSource),
}

/// The queries that could be read, and those that could not.
type Read = (Vec<ReadyQuery>, Vec<RefusedQuery>);

impl Example {
    fn name(&self) -> PathBuf {
        match self {
            Self::Id(id) => PathBuf::from(id),
            Self::Source(ImageSource::Path(path)) => path.clone(),
            Self::Source(ImageSource::Memory(image)) => PathBuf::from(&image.name),
        }
    }

    /// Reads and embeds it as a query of its own.
    fn ready(
        &self,
        ask: &Ask,
        archive: &Archive,
        watch: &dyn Watch,
    ) -> anyhow::Result<Result<ReadyQuery, RefusedQuery>> {
        let queries = match self {
            Self::Id(id) => Queries::Ids(vec![id.clone()]),
            Self::Source(source) => Queries::Sources(vec![source.clone()]),
        };
        let (ready, refused) = all(&queries, ask, archive, watch)?;
        Ok(ready.into_iter().next().ok_or_else(|| {
            refused.into_iter().next().unwrap_or_else(|| RefusedQuery {
                path: self.name(),
                message: "no image was found there".to_owned(),
            })
        }))
    }
}

/// Builds one query of images that hits should be like, and of others that they should not be like.
pub(super) fn of_examples(
    [like, unlike]: [&[Example]; 2],
    ask: &Ask,
    archive: &Archive,
    watch: &dyn Watch,
) -> anyhow::Result<Read> {
    let n = like.len() + unlike.len();
    ensure!(
        !like.is_empty(),
        "at least one image that hits should be like is wanted"
    );
    ensure!(
        n <= MAX_EXAMPLES,
        "{n} images were given, and at most {MAX_EXAMPLES} make one query"
    );
    let read = |examples: &[Example]| -> anyhow::Result<Result<Vec<ReadyQuery>, RefusedQuery>> {
        let ready = examples
            .iter()
            .map(|example| example.ready(ask, archive, watch));
        ready.collect()
    };
    let (like, unlike) = match (read(like)?, read(unlike)?) {
        (Ok(like), Ok(unlike)) => (like, unlike),
        (Err(refused), _) | (_, Err(refused)) => return Ok((Vec::new(), vec![refused])),
    };
    let images = |n: usize| counted(n as u64, "image", "images");
    watch.note(&match unlike.len() {
        0 => format!(
            "asked with the mean of the vectors of {}",
            images(like.len())
        ),
        n => format!(
            "asked with the mean of the vectors of {}, less {UNLIKE_WEIGHT} times that of {}",
            images(like.len()),
            images(n)
        ),
    });
    Ok((vec![blended(like, &unlike)?], Vec::new()))
}

fn blended(like: Vec<ReadyQuery>, unlike: &[ReadyQuery]) -> anyhow::Result<ReadyQuery> {
    let vector = blend(&vectors_of(&like), &vectors_of(unlike), UNLIKE_WEIGHT).context(
        "the images that hits should be like, and those that they should not, cancel out",
    )?;
    // None of them is a hit of itself.
    let mut own: Vec<RowId> = like
        .iter()
        .chain(unlike)
        .flat_map(|query| query.own.clone())
        .collect();
    own.sort_unstable();
    own.dedup();
    let name = counted(like.len() as u64 + unlike.len() as u64, "image", "images");
    let labels = common(&like);
    Ok(ReadyQuery {
        name,
        vector,
        own,
        labels,
        is_composed: true,
        others: like,
        ..ReadyQuery::default()
    })
}

fn vectors_of(queries: &[ReadyQuery]) -> Vec<&[f32]> {
    queries
        .iter()
        .map(|query| query.vector.as_slice())
        .collect()
}

/// Returns the mean of unit vectors less `weight` times the mean of others, with length 1.
///
/// # Errors
/// `Mismatch` if nothing is left.
fn blend(like: &[&[f32]], unlike: &[&[f32]], weight: f32) -> m3ret_search::Result<Vec<f32>> {
    let width = like.first().map_or(0, |vector| vector.len());
    let mut sum = vec![0.0; width];
    let mut add = |vectors: &[&[f32]], weight: f32| {
        #[expect(clippy::cast_precision_loss, reason = "at most 64 vectors")]
        let share = weight / vectors.len().max(1) as f32;
        for vector in vectors {
            for (sum, x) in sum.iter_mut().zip(*vector) {
                *sum += share * x;
            }
        }
    };
    add(like, 1.0);
    add(unlike, -weight);
    m3ret_search::normalize(&mut sum)?;
    Ok(sum)
}

/// Returns the labels that all queries have.
fn common(queries: &[ReadyQuery]) -> Labels {
    let shared = |label: fn(&Labels) -> &Option<String>| {
        let mut all = queries.iter().map(|query| label(&query.labels));
        let first = all.next()?;
        all.all(|other| other == first)
            .then(|| first.clone())
            .flatten()
    };
    Labels {
        modality: shared(|labels| &labels.modality),
        body_part: shared(|labels| &labels.body_part),
        finding: shared(|labels| &labels.finding),
        label: shared(|labels| &labels.label),
        dims: shared(|labels| &labels.dims),
        source: shared(|labels| &labels.source),
    }
}

/// Builds a query of a region of an image. What is known of the image is known of its region.
pub(super) fn of_region(
    example: &Example,
    region: &Region,
    ask: &Ask,
    archive: &Archive,
    watch: &dyn Watch,
) -> anyhow::Result<Read> {
    let (whole, volume, file) = match example {
        Example::Id(_) => {
            let whole = match example.ready(ask, archive, watch)? {
                Ok(whole) => whole,
                Err(refused) => return Ok((Vec::new(), vec![refused])),
            };
            let file = whole.file.clone();
            let path = file
                .as_deref()
                .context("an image of the gallery has a file")?;
            let volume = viewer::read(path, whole.part.as_deref(), &archive.reading.options);
            (Some(whole), volume, file)
        }
        Example::Source(source) => {
            let file = match source {
                ImageSource::Path(path) => Some(path.clone()),
                ImageSource::Memory(image) => image.file.clone(),
            };
            (None, first_volume(source, archive), file)
        }
    };
    let refuse = |message: String| {
        let path = example.name();
        Ok((Vec::new(), vec![RefusedQuery { path, message }]))
    };
    let volume = match volume {
        Ok(volume) => volume,
        Err(message) => return refuse(message),
    };
    let part = match panics::guard(|| crop(volume, region)) {
        Ok(Ok(part)) => part,
        Ok(Err(error)) => return refuse(error.to_string()),
        Err(message) => return refuse(message),
    };
    let image = Arc::new(MemoryImage {
        name: example.name().to_string_lossy().into_owned(),
        file,
        content: MemoryContent::Volumes(vec![Arc::new(part)]),
    });
    let source = Example::Source(ImageSource::Memory(image));
    let mut part = match source.ready(ask, archive, watch)? {
        Ok(part) => part,
        Err(refused) => return Ok((Vec::new(), vec![refused])),
    };
    watch.note("asked with a region of the image, which was embedded alone");
    if let Some(whole) = whole {
        part.labels = Labels {
            dims: part.labels.dims.take(),
            ..whole.labels.clone()
        };
        part = ReadyQuery {
            vector: part.vector,
            views: part.views,
            image: part.image,
            labels: part.labels,
            ..whole
        };
    }
    part.is_composed = true;
    Ok((vec![part], Vec::new()))
}

/// Reads the first image of a file or of memory.
fn first_volume(source: &ImageSource, archive: &Archive) -> Result<Volume, String> {
    let options = &archive.reading.options;
    let read = |volumes: m3ret_imaging::Result<Vec<Volume>>| {
        let volumes = volumes.map_err(|error| error.to_string())?;
        volumes
            .into_iter()
            .next()
            .ok_or_else(|| "no image was found there".to_owned())
    };
    panics::guard(|| match source {
        ImageSource::Path(path) => read(m3ret_imaging::read_path(path, options)),
        ImageSource::Memory(image) => {
            let volumes = image.read(options);
            read(volumes.map(|volumes| volumes.into_iter().take(1).map(Cow::into_owned).collect()))
        }
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], wanted: [f32; 2]) {
        for (x, wanted) in found.iter().zip(wanted) {
            assert!((x - wanted).abs() < 1e-6, "{found:?}, wanted {wanted:?}");
        }
    }

    #[test]
    fn a_blend_is_the_mean_of_the_like_less_a_share_of_the_unlike() {
        let (right, up, left) = ([1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]);
        let half = 0.5_f32.sqrt();
        close(&blend(&[&right], &[], 0.5).unwrap(), right);
        close(&blend(&[&right, &up], &[], 0.5).unwrap(), [half, half]);
        // (1, 0) - 0.5 (0, 1), of length 1.
        let length = 1.25_f32.sqrt();
        close(
            &blend(&[&right], &[&up], 0.5).unwrap(),
            [1.0 / length, -0.5 / length],
        );
        // The mean, not the sum: as many unlike images as there may be weigh as one.
        close(
            &blend(&[&right], &[&up, &up, &up], 0.5).unwrap(),
            [1.0 / length, -0.5 / length],
        );
        assert!(blend(&[&right, &left], &[], 0.5).is_err());
        assert!(blend(&[&right], &[&right], 1.0).is_err());
    }

    #[test]
    fn labels_are_those_that_all_share() {
        let query = |modality: &str, body_part: Option<&str>| ReadyQuery {
            labels: Labels {
                modality: Some(modality.to_owned()),
                body_part: body_part.map(str::to_owned),
                ..Labels::default()
            },
            ..ReadyQuery::default()
        };
        let labels = common(&[query("CT", Some("chest")), query("CT", None)]);
        assert_eq!(
            (labels.modality.as_deref(), labels.body_part),
            (Some("CT"), None)
        );
        assert_eq!(
            common(&[query("CT", None), query("MR", None)]).modality,
            None
        );
    }
}
