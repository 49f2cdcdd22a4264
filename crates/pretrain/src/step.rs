//! One step's loss and gradients, from the views of a batch.
//!
//! Views of one grid go through the network together, as *jobs* of a bounded number of tokens. Jobs are
//! dealt to the workers, and their gradients are added in the order of the jobs, so neither the number of
//! workers nor that of jobs changes the loss of the batch.

mod mae;
mod salt;
mod simdino;

pub(crate) use self::mae::mae_step;
pub(crate) use self::salt::{SaltWorker, salt_step};
pub(crate) use self::simdino::{SimDinoTerms, simdino_step};

use std::sync::Arc;

use burn::tensor::backend::Backend;
use m3ret_encoder::{VitConfig, grid_of};
use m3ret_imaging::Input;

use crate::config::{Config, MaeSettings, Method, SimDinoSettings, TrainPrecision};
use crate::dataset::Sample;
use crate::error::Result;
use crate::mae::MaeRunning;
use crate::parameters::{self, Flat};
use crate::random::{generator, uniform};
use crate::vit::Running;

/// What every step of a run shares.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) vit: VitConfig,
    pub(crate) mae: MaeSettings,
    pub(crate) simdino: SimDinoSettings,
    pub(crate) precision: TrainPrecision,
    pub(crate) recompute: bool,
    pub(crate) drop_path: f64,
    pub(crate) micro_tokens: usize,
    pub(crate) seed: u64,
}

impl Plan {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            vit: config.model_config().vit,
            mae: masking(config),
            simdino: config.simdino.clone(),
            precision: config.train.precision,
            recompute: config.train.recompute,
            drop_path: config.train.drop_path,
            micro_tokens: config.train.micro_tokens,
            seed: config.seed,
        }
    }

    /// Returns how the encoder runs without gradients.
    pub(crate) fn running(&self) -> Running {
        Running {
            n_heads: self.vit.num_heads,
            precision: self.precision,
            recompute: self.recompute,
            drop_path: None,
        }
    }

    /// Returns how a student with a decoder runs, which predicts only what is hidden from it.
    fn student_with_decoder(&self, step: u64, places: &[Place]) -> MaeRunning {
        let encoder = self.student(step, places);
        MaeRunning {
            decoder: Running {
                n_heads: self.mae.decoder_heads,
                drop_path: None,
                ..encoder.clone()
            },
            encoder,
            predicts_all: false,
        }
    }

    /// Returns how the student runs: with stochastic depth drawn for each view of the job.
    fn student(&self, step: u64, places: &[Place]) -> Running {
        let keys = places
            .iter()
            .map(|place| [self.seed, step, place.sample as u64, place.view as u64]);
        let keys: Vec<[u64; 4]> = keys.collect();
        Running {
            drop_path: (self.drop_path > 0.0).then(|| self.drawn_depth(&keys)),
            ..self.running()
        }
    }

    /// Draws which blocks each view skips: the rate rises linearly with depth (Huang et al. 2016).
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "blocks are few, rates are between 0 and 1"
    )]
    fn drawn_depth(&self, keys: &[[u64; 4]]) -> Vec<[Arc<[f32]>; 2]> {
        let mut rngs: Vec<_> = keys.iter().map(|key| generator("drop path", key)).collect();
        let n_blocks = self.vit.depth;
        (0..n_blocks)
            .map(|block| {
                let rate = self.drop_path * block as f64 / (n_blocks - 1).max(1) as f64;
                let keeps = 1.0 - rate as f32;
                [(), ()].map(|()| {
                    let factor = |rng| {
                        if uniform(rng) < keeps {
                            1.0 / keeps
                        } else {
                            0.0
                        }
                    };
                    rngs.iter_mut().map(factor).collect()
                })
            })
            .collect()
    }
}

/// Returns the sizes of the decoder, and the shares of hidden patches of the run's method.
fn masking(config: &Config) -> MaeSettings {
    let mae = config.mae.clone();
    match config.method {
        Method::Mae | Method::SimDino => mae,
        Method::Salt => MaeSettings {
            mask_ratio: config.salt.mask_ratio,
            mask_ratio_deep: config.salt.mask_ratio_deep,
            ..mae
        },
    }
}

/// A view of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    sample: usize,
    view: usize,
}

/// Views of one shape that go through the network together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Job {
    places: Vec<Place>,
    n_tokens: usize,
}

impl Job {
    fn images<'a>(&self, samples: &'a [Sample]) -> Vec<&'a Input> {
        self.places
            .iter()
            .filter_map(|place| samples.get(place.sample)?.views.get(place.view))
            .collect()
    }

    /// Groups views by shape, in order of appearance, and cuts groups into jobs of at most `most` tokens
    /// (at least one view each).
    fn group(
        samples: &[Sample],
        wanted: impl Fn(Place) -> bool,
        config: &VitConfig,
        most: usize,
    ) -> Result<Vec<Self>> {
        let mut shapes: Vec<([usize; 4], Vec<Place>)> = Vec::new();
        let n_views = samples
            .iter()
            .map(|sample| sample.views.len())
            .max()
            .unwrap_or(0);
        // View by view, so that jobs of large views hold all images' first views, then all second ones.
        for view in 0..n_views {
            for (sample, views) in samples.iter().enumerate() {
                let place = Place { sample, view };
                let Some(image) = views.views.get(view).filter(|_| wanted(place)) else {
                    continue;
                };
                match shapes.iter_mut().find(|(shape, _)| *shape == image.shape()) {
                    Some((_, places)) => places.push(place),
                    None => shapes.push((image.shape(), vec![place])),
                }
            }
        }
        let mut jobs = Vec::new();
        for (shape, places) in shapes {
            let grid = grid_of(shape, config.patch)?;
            let n_tokens = 1 + config.num_registers + grid.iter().product::<usize>();
            for places in places.chunks((most / n_tokens).max(1)) {
                jobs.push(Self {
                    places: places.to_vec(),
                    n_tokens: n_tokens * places.len(),
                });
            }
        }
        Ok(jobs)
    }
}

/// A job with what all jobs of its step share.
struct StepJob<'a> {
    job: &'a Job,
    samples: &'a [Sample],
    plan: &'a Plan,
    step: u64,
}

/// Runs jobs on the workers in turn, and hands over the results in the order of the jobs.
fn deal<J: Sync, T: Send>(
    jobs: &[J],
    n_workers: usize,
    work: impl Fn(usize, &J) -> Result<T> + Sync,
    mut take: impl FnMut(T),
) -> Result<()> {
    for round in jobs.chunks(n_workers.max(1)) {
        if let [job] = round {
            take(work(0, job)?);
            continue;
        }
        let results = std::thread::scope(|scope| {
            let running: Vec<_> = round
                .iter()
                .enumerate()
                .map(|(worker, job)| {
                    let work = &work;
                    scope.spawn(move || work(worker, job))
                })
                .collect();
            running
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect::<Vec<_>>()
        });
        for result in results {
            take(result?);
        }
    }
    Ok(())
}

/// Runs jobs on the workers, and adds up the losses and gradients that `slope` gives, in the order of the jobs.
///
/// The sum lies on `device`; without one, gradients stay where they are.
fn add_up<B: Backend>(
    jobs: &[Job],
    n_workers: usize,
    device: Option<&B::Device>,
    slope: impl Fn(usize, &Job) -> Result<(f64, Flat<B>)> + Sync,
) -> Result<(f64, Flat<B>)> {
    let (mut total, mut sum) = (0.0, Flat::new());
    deal(jobs, n_workers, slope, |(part, gradients)| {
        total += part;
        add_gathered(&mut sum, gradients, device);
    })?;
    Ok((total, sum))
}

/// Adds gradients to a sum that lies on `device`; without one, gradients stay where they are.
fn add_gathered<B: Backend>(sum: &mut Flat<B>, gradients: Flat<B>, device: Option<&B::Device>) {
    let gradients = match device {
        Some(device) => gathered(gradients, device),
        None => gradients,
    };
    parameters::add(sum, gradients);
}

/// Brings gradients to the first worker's device.
fn gathered<B: Backend>(gradients: Flat<B>, device: &B::Device) -> Flat<B> {
    gradients
        .into_iter()
        .map(|(name, gradient)| (name, gradient.to_device(device)))
        .collect()
}

#[allow(clippy::cast_precision_loss, reason = "batches are small")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}
