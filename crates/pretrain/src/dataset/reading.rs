//! One item to its views: read, guard, scale, cut.

use std::path::PathBuf;

use m3ret_imaging::archive::read_image;
use m3ret_imaging::{
    Code, Kind, Limits, ReadOptions, Scaled, Volume, read_path, scaled, scaled_sides, view,
};
use m3ret_manifest::is_unseen;
use rand::Rng as _;

use super::Sample;
use super::cache::{Cache, Found, Kept, rounded};
use super::settings::ViewPlan;
use super::student::{StudentPlan, ViewRelation};
use super::synthetic::Phantom;
use crate::config::Config;
use crate::error::Result;
use crate::random::generator;

/// The code of items that are MR or PET where these are kept unseen.
pub(super) const MR_REFUSED: &str = "mr_not_allowed";

/// Copies of an object that are held at a time, at most: the file, what it decompresses to and the
/// volume; or the volume, a copy while it is resized, and the result.
const N_COPIES: u64 = 3;

/// Returns what a person can do about items that were refused with a code.
#[must_use]
pub fn advice(code: &str) -> &'static str {
    if code == MR_REFUSED {
        "their headers say MR or PET, which are kept unseen: correct the manifest, or set images.allow_mr = true"
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
        place: &Place,
        draw: Draw,
        allowed_bytes: u64,
    ) -> std::result::Result<Sample, Refused> {
        let key = [self.seed, draw.step, draw.place as u64, draw.item as u64];
        let pick = generator("volume of a file", &key).next_u64();
        let kept = self.object(place, pick, allowed_bytes)?;
        if kept.is_unseen && !self.allow_mr {
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
    fn object(&self, place: &Place, pick: u64, allowed: u64) -> std::result::Result<Kept, Refused> {
        let key = self.cache.as_ref().and_then(|cache| {
            let key = cache.key(&place.path, place.part.as_deref())?;
            Some((cache, key))
        });
        let Some((cache, key)) = key else {
            let volumes = read(place, allowed)?;
            let idx = chosen(pick, volumes.len());
            return self.prepared(volumes, idx, allowed, |_, _| ());
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
        let volumes = read(place, allowed)?;
        let idx = chosen(pick, volumes.len());
        self.prepared(volumes, idx, allowed, |idx, kept| {
            cache.keep(key, idx, kept)
        })
    }

    /// Scales the object `idx` in at most `allowed` bytes; with a cache, all of them, so that the next draw
    /// finds its own.
    fn prepared(
        &self,
        volumes: Vec<Volume>,
        idx: usize,
        allowed: u64,
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
        let is_unseen = volume.modality.as_deref().is_some_and(is_unseen);
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
            is_unseen,
        })
    }
}

/// Returns which of `n` objects a random number means.
fn chosen(pick: u64, n: usize) -> usize {
    usize::try_from(pick % (n.max(1) as u64)).unwrap_or(0)
}

/// Where an item lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// The one image of the path that is meant, if the manifest says so.
    pub(super) part: Option<String>,
}

/// Reads all objects of a place in at most so many bytes.
pub(super) fn read(place: &Place, allowed_bytes: u64) -> std::result::Result<Vec<Volume>, Refused> {
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
    let volumes = match place.part.as_deref() {
        Some(part) => read_image(&place.path, Some(part), &options).map(|volume| vec![volume]),
        None => read_path(&place.path, &options),
    };
    volumes.map_err(|error| refusal(&error, &limits))
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
