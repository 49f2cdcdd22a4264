//! One item to its views: read, guard, scale, cut.

use std::path::Path;

use m3ret_imaging::{
    Code, Kind, Limits, ReadOptions, Scaled, Volume, read_path, scaled, scaled_sides, view,
};
use rand::Rng as _;

use super::Sample;
use super::cache::{Cache, Found, Kept, rounded};
use super::settings::ViewPlan;
use super::student::{StudentPlan, ViewRelation};
use super::synthetic::Phantom;
use crate::config::Config;
use crate::error::Result;
use crate::random::generator;

/// The code of items that are MR where MR is kept unseen.
pub(super) const MR_REFUSED: &str = "mr_not_allowed";

/// Copies of an object that are held at a time, at most: the file, what it decompresses to and the
/// volume; or the volume, a copy while it is resized, and the result.
const N_COPIES: u64 = 3;

/// Returns what a person can do about items that were refused with a code.
#[must_use]
pub fn advice(code: &str) -> &'static str {
    if code == MR_REFUSED {
        "their headers say MR, which is kept unseen: correct the manifest, or set images.allow_mr = true"
    } else if code == Code::LimitExceeded.as_str() {
        "they need more memory than half of images.memory_mib, or more time: raise it, or cut them"
    } else if code == Code::Io.as_str() {
        "they are missing or cannot be opened: check paths and permissions"
    } else if code == Code::InternalError.as_str() {
        "this program has a fault: please report it with one of the files, if you may share it"
    } else {
        "`m3ret check` on their folder says what is wrong with each"
    }
}

/// Words that say MR, whatever else stands beside them.
const MR_WORDS: [&str; 19] = [
    "mr", "mri", "mrt", "mra", "mrs", "fmri", "irm", "rm", "t1", "t1w", "t1ce", "t1c", "t2", "t2w",
    "flair", "dwi", "adc", "swi", "magnetic",
];

/// Words that say another modality: DICOM's codes, and what people write.
const OTHER_WORDS: [&str; 40] = [
    "ar",
    "bi",
    "bmd",
    "cr",
    "ct",
    "cbct",
    "dermoscopy",
    "dg",
    "dx",
    "dr",
    "ecg",
    "endoscopy",
    "es",
    "fundus",
    "gm",
    "io",
    "ivoct",
    "ivus",
    "mammography",
    "mg",
    "nm",
    "oct",
    "op",
    "opt",
    "pet",
    "pt",
    "px",
    "radiograph",
    "radiography",
    "rf",
    "rg",
    "sm",
    "spect",
    "ultrasound",
    "us",
    "video",
    "xa",
    "xc",
    "xray",
    "ray",
];

/// Returns whether a modality is MR.
pub(super) fn is_mr(modality: &str) -> bool {
    has_word(modality, &MR_WORDS)
}

/// Returns whether nothing tells a modality from MR.
pub(super) fn is_unknown(modality: &str) -> bool {
    !has_word(modality, &MR_WORDS) && !has_word(modality, &OTHER_WORDS)
}

fn has_word(modality: &str, words: &[&str]) -> bool {
    let parts = modality.split(|c: char| !c.is_ascii_alphanumeric());
    parts
        .into_iter()
        .any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
}

/// An item at its place in the run: all that its randomness follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draw {
    pub(super) step: u64,
    /// Place in the batch; an item that comes twice gets other views.
    pub(super) place: usize,
    pub(super) item: usize,
}

/// Why an item gives no views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// For good, with the reason's code.
    For(&'static str),
    /// It needs so many bytes of memory, or more.
    Needs(u64),
}

/// How items are read; shared by all readers.
#[derive(Debug)]
pub(super) struct Reading {
    plan: ViewPlan,
    seed: u64,
    allow_mr: bool,
    cache: Option<Cache>,
}

impl Reading {
    pub(super) fn new(config: &Config, plan: ViewPlan) -> Result<Self> {
        let folder = config.images.cache.as_deref();
        Ok(Self {
            cache: folder
                .map(|folder| Cache::open(folder, &plan.input))
                .transpose()?,
            plan,
            seed: config.seed,
            allow_mr: config.images.allow_mr,
        })
    }

    /// Reads an item in at most so many bytes of memory, the views apart, and cuts its views.
    pub(super) fn sample(
        &self,
        path: &Path,
        draw: Draw,
        allowed_bytes: u64,
    ) -> std::result::Result<Sample, Refused> {
        let key = [self.seed, draw.step, draw.place as u64, draw.item as u64];
        let pick = generator("volume of a file", &key).next_u64();
        let kept = self.object(path, pick, allowed_bytes)?;
        if kept.is_mr && !self.allow_mr {
            return Err(Refused::For(MR_REFUSED));
        }
        self.cut(draw, &[kept.object])
    }

    /// Makes a synthetic object in at most so many bytes of memory, the views apart, and cuts its views:
    /// the first in one contrast, the second in another, and so on in turn.
    pub(super) fn synthetic(
        &self,
        draw: Draw,
        allowed_bytes: u64,
    ) -> std::result::Result<Sample, Refused> {
        let needed = self.plan.phantom.most_bytes();
        if needed > allowed_bytes {
            return Err(Refused::Needs(needed));
        }
        let phantom = Phantom::draw(self.plan.phantom, [self.seed, draw.step, draw.place as u64]);
        let takes_several = self.plan.views.len() > 1 || self.plan.student.is_some();
        let n_contrasts = if takes_several { 2 } else { 1 };
        let contrasts: m3ret_imaging::Result<Vec<Scaled>> =
            (0..n_contrasts).map(|idx| phantom.contrast(idx)).collect();
        let contrasts = contrasts.map_err(|error| Refused::For(error.code().as_str()))?;
        self.cut(draw, &contrasts)
    }

    /// Cuts the views of an item from its objects in turn.
    fn cut(&self, draw: Draw, objects: &[Scaled]) -> std::result::Result<Sample, Refused> {
        if let Some(student) = &self.plan.student {
            let sample = self.cut_for_student(draw, objects, student);
            return sample.map_err(|error| Refused::For(error.code().as_str()));
        }
        let [step, place, item] = [draw.step, draw.place as u64, draw.item as u64];
        let objects = objects.iter().cycle();
        let views = self.plan.views.iter().zip(objects).zip(0..);
        let views = views.map(|((config, object), idx)| {
            let mut rng = generator("view", &[self.seed, step, place, item, idx]);
            view(object, config, &mut rng)
        });
        let views: m3ret_imaging::Result<Vec<_>> = views.collect();
        Ok(Sample {
            item: draw.item,
            views: views.map_err(|error| Refused::For(error.code().as_str()))?,
            relation: ViewRelation::Same,
        })
    }

    /// Cuts the view of the teachers from the first object, and that of the student from the last: the same
    /// place in another contrast, changed by chance.
    fn cut_for_student(
        &self,
        draw: Draw,
        objects: &[Scaled],
        student: &StudentPlan,
    ) -> m3ret_imaging::Result<Sample> {
        let key = [self.seed, draw.step, draw.place as u64, draw.item as u64];
        let [seed, step, place, item] = key;
        let (mut views, mut kind) = (Vec::new(), Kind::Image);
        for config in &self.plan.views {
            for object in objects {
                let mut rng = generator("view", &[seed, step, place, item, 0]);
                views.push(view(object, config, &mut rng)?);
                kind = object.kind();
            }
        }
        let mut relation = ViewRelation::Same;
        if let Some(seen) = views.last() {
            let mut rng = generator("student", &key);
            if let Some((changed, lies)) = student.change(seen, kind, &mut rng)? {
                views.truncate(1);
                views.push(changed);
                relation = lies;
            }
        }
        Ok(Sample {
            item: draw.item,
            views,
            relation,
        })
    }

    /// Returns one object of an image, from the cache if it is there.
    fn object(&self, path: &Path, pick: u64, allowed: u64) -> std::result::Result<Kept, Refused> {
        let key = self
            .cache
            .as_ref()
            .and_then(|cache| Some((cache, cache.key(path)?)));
        let Some((cache, key)) = key else {
            let volumes = read(path, allowed)?;
            let idx = chosen(pick, volumes.len());
            return self.prepared(volumes, (idx, allowed), |_, _| ());
        };
        // The first object says how many there are; most images have no other.
        match cache.find(key, 0, allowed) {
            Found::Needs(needed) => return Err(Refused::Needs(needed)),
            Found::Object(first) => {
                let idx = chosen(pick, first.n_objects);
                if idx == 0 {
                    return Ok(first);
                }
                match cache.find(key, idx, allowed) {
                    Found::Needs(needed) => return Err(Refused::Needs(needed)),
                    Found::Object(kept) => return Ok(kept),
                    Found::Nothing => {}
                }
            }
            Found::Nothing => {}
        }
        let volumes = read(path, allowed)?;
        let idx = chosen(pick, volumes.len());
        self.prepared(volumes, (idx, allowed), |idx, kept| {
            cache.keep(key, idx, kept)
        })
    }

    /// Scales the chosen object; with a cache, all of them, so that the next draw finds its own.
    fn prepared(
        &self,
        volumes: Vec<Volume>,
        (idx, allowed): (usize, u64),
        keep: impl Fn(usize, &Kept),
    ) -> std::result::Result<Kept, Refused> {
        let n_objects = volumes.len();
        let keeps_all = self.cache.is_some();
        let mut wanted = Err(Refused::For(Code::NoPixels.as_str()));
        for (place, volume) in volumes.into_iter().enumerate() {
            if place != idx && !keeps_all {
                continue;
            }
            let kept = self.scaled(volume, n_objects, allowed);
            if let Ok(kept) = &kept {
                keep(place, kept);
            }
            if place == idx {
                wanted = kept;
            }
        }
        wanted
    }

    fn scaled(
        &self,
        volume: Volume,
        n_objects: usize,
        allowed: u64,
    ) -> std::result::Result<Kept, Refused> {
        let refused = |error: m3ret_imaging::Error| Refused::For(error.code().as_str());
        let is_mr = volume.modality.as_deref().is_some_and(is_mr);
        let [n_channels, ..] = volume.shape();
        let sides = scaled_sides(&volume, &self.plan.input).map_err(refused)?;
        let n_made = n_channels * sides.into_iter().product::<usize>();
        // The volume, a copy while it is resized, and what is made: far more than the volume where
        // pixels are far from square.
        let needed = (2 * volume.values().len() + n_made) * size_of::<f32>();
        if needed as u64 > allowed {
            return Err(Refused::Needs(needed as u64));
        }
        let object = scaled(&volume, &self.plan.input);
        drop(volume);
        Ok(Kept {
            object: object.and_then(rounded).map_err(refused)?,
            n_objects,
            is_mr,
        })
    }
}

/// Returns which of `n` objects a random number means.
fn chosen(pick: u64, n: usize) -> usize {
    usize::try_from(pick % (n.max(1) as u64)).unwrap_or(0)
}

/// Reads all objects of a path in at most so many bytes.
pub(super) fn read(path: &Path, allowed_bytes: u64) -> std::result::Result<Vec<Volume>, Refused> {
    let usual = Limits::default();
    let each = allowed_bytes / N_COPIES;
    let limits = Limits {
        max_bytes: usual.max_bytes.min(each),
        max_voxels: usual.max_voxels.min(each / size_of::<f32>() as u64),
        ..usual
    };
    let options = ReadOptions {
        limits: limits.clone(),
        ..ReadOptions::default()
    };
    read_path(path, &options).map_err(|error| refusal(&error, &limits))
}

/// Tells what needs more memory from what cannot be read at all.
fn refusal(error: &m3ret_imaging::Error, limits: &Limits) -> Refused {
    use m3ret_imaging::Error;
    match error {
        Error::InFile { source, .. } => refusal(source, limits),
        // The limits that follow from the memory; others, as of time, stay as they are.
        Error::LimitExceeded { allowed, asked, .. } if *allowed == limits.max_voxels => {
            Refused::Needs(asked.saturating_mul(N_COPIES * size_of::<f32>() as u64))
        }
        Error::LimitExceeded { allowed, asked, .. } if *allowed == limits.max_bytes => {
            Refused::Needs(asked.saturating_mul(N_COPIES))
        }
        other => Refused::For(other.code().as_str()),
    }
}
