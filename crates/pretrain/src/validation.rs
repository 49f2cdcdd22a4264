//! Looks at the validation part: embeds its items and asks how well they find each other.

use std::collections::BTreeMap;

use m3ret_imaging::{Input, InputConfig};
use rayon::prelude::*;

use crate::config::Config;
use crate::dataset::Items;
use crate::error::Result;
use crate::learner::Learner;
use crate::monitor::{Labelled, embed, knn};
use crate::ops::VitBackend;
use crate::random::generator;
use crate::report::Knn;

/// Items that are read and held at a time.
pub(crate) const CHUNK: usize = 16;

/// What a look at the validation part found.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) student: Option<Knn>,
    pub(crate) teacher: Option<Knn>,
    /// Items that could not be read, or are MR by their header.
    pub(crate) n_unreadable: usize,
}

/// The items that are looked at, the same ones each time.
#[derive(Debug)]
pub(crate) struct Validation {
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    item: usize,
    label: Option<u32>,
    patient: u64,
}

impl Validation {
    /// Chooses at most `monitor.knn_items` of the validation items, by the seed.
    pub(crate) fn new(items: &Items, config: &Config) -> Self {
        let mut chosen: Vec<usize> = items.validation().collect();
        let most = config.monitor.knn_items.min(chosen.len());
        let mut rng = generator("validation items", &[config.seed]);
        for i in 0..most {
            let other = i + rand::Rng::next_u32(&mut rng) as usize % (chosen.len() - i);
            chosen.swap(i, other);
        }
        chosen.truncate(most);
        chosen.sort_unstable();
        let mut labels = BTreeMap::new();
        let places = chosen.into_iter().map(|item| {
            let cell = items.cell(item, &config.monitor.knn_relevance);
            let n_labels = u32::try_from(labels.len()).unwrap_or(u32::MAX);
            Place {
                item,
                label: (!cell.is_empty())
                    .then(|| *labels.entry(cell.to_owned()).or_insert(n_labels)),
                patient: items.patient(item),
            }
        });
        Self {
            places: places.collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns whether an item has a relevant one of another patient, without which there is no number.
    pub(crate) fn has_queries(&self) -> bool {
        self.places.iter().any(|query| {
            query.label.is_some()
                && self
                    .places
                    .iter()
                    .any(|place| place.label == query.label && place.patient != query.patient)
        })
    }

    /// Returns the retrieval of student and teacher; items that cannot be read are left out.
    ///
    /// Also returns how many could not be read.
    ///
    /// # Errors
    /// `Encoder` if an input does not divide into patches.
    pub(crate) fn look<B: VitBackend>(
        &self,
        items: &Items,
        config: &Config,
        learner: &Learner<B>,
    ) -> Result<Look> {
        let model = config.model_config();
        let (student, teacher) = learner.encoders();
        let (mut students, mut teachers) = (Vec::new(), Vec::new());
        for places in self.places.chunks(CHUNK) {
            let chosen: Vec<usize> = places.iter().map(|place| place.item).collect();
            let read = read_all(items, &chosen, &model.input, config);
            let (places, inputs): (Vec<&Place>, Vec<&Input>) = places
                .iter()
                .zip(&read)
                .filter_map(|(place, input)| Some((place, input.as_ref()?)))
                .unzip();
            let add = |encoder, all: &mut Vec<Labelled>| -> Result<()> {
                let vectors = embed(encoder, &inputs, &learner.plan, model.embedding)?;
                all.extend(places.iter().zip(vectors).map(|(place, vector)| Labelled {
                    vector,
                    label: place.label,
                    patient: place.patient,
                }));
                Ok(())
            };
            add(student, &mut students)?;
            if let Some(teacher) = teacher {
                add(teacher, &mut teachers)?;
            }
        }
        Ok(Look {
            n_unreadable: self.places.len() - students.len(),
            student: knn(&students),
            teacher: knn(&teachers),
        })
    }
}

/// Reads items side by side, each as the model's input; `None` for what cannot be read.
pub(crate) fn read_all(
    items: &Items,
    chosen: &[usize],
    input: &InputConfig,
    config: &Config,
) -> Vec<Option<Input>> {
    let chosen = chosen.par_iter();
    chosen
        .map(|&item| prepared(items, item, input, config))
        .collect()
}

/// Reads one item; a fault in a reader costs this item only.
pub(crate) fn prepared(
    items: &Items,
    item: usize,
    input: &InputConfig,
    config: &Config,
) -> Option<Input> {
    let n_threads = rayon::current_num_threads() as u64;
    let allowed_bytes = ((config.images.memory_mib as u64) << 20) / n_threads;
    let read = || items.prepared(item, input, config.images.allow_mr, allowed_bytes);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .ok()?
        .ok()
}
