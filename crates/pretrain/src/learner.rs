//! The networks of a run with their optimiser: what one step changes, and what a checkpoint keeps.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use burn::tensor::backend::Backend;

use crate::config::{Config, Method};
use crate::dataset::Batch;
use crate::error::Result;
use crate::mae::{Mae, Mask};
use crate::ops::VitBackend;
use crate::optimizer::{AdamW, Step, follow};
use crate::parameters::{self, Flat, Weight, Weights};
use crate::random::Initial;
use crate::report::Entry;
use crate::salt::Teacher;
use crate::schedule::{Cosine, as_f64, mae_lr};
use crate::simdino::SimDino;
use crate::step::{Plan, SaltWorker, SimDinoTerms, mae_step, salt_step, simdino_step};
use crate::vit::Vit;

/// Student, teacher, optimiser and schedules.
#[derive(Debug)]
pub(crate) struct Learner<B: VitBackend> {
    pub(crate) plan: Plan,
    network: Network<B>,
    adam: AdamW<B>,
    schedule: Schedule,
    /// One for each worker; the first holds the parameters.
    devices: Vec<B::Device>,
}

/// What is trained.
#[derive(Debug)]
enum Network<B: Backend> {
    Mae(Mae<B>),
    SimDino {
        student: SimDino<B>,
        teacher: SimDino<B>,
    },
    Salt {
        student: Mae<B>,
        teachers: Vec<Teacher<B>>,
    },
}

/// What the loss of a batch says, beside its gradients.
#[derive(Debug)]
pub(crate) enum Terms {
    /// MAE and SALT: nothing more.
    Mae,
    SimDino(Box<SimDinoTerms>),
}

/// A batch's loss and where it points.
#[derive(Debug)]
pub(crate) struct Slope<B: Backend> {
    pub(crate) loss: f64,
    pub(crate) terms: Terms,
    gradients: Flat<B>,
}

/// Learning rate, decay and momentum of each step of a run.
#[derive(Debug, Clone)]
struct Schedule {
    method: Method,
    lr: Cosine,
    weight_decay: Cosine,
    momentum: Cosine,
    betas: [f64; 2],
    clip: f64,
    /// Epochs of the warm-up and of the run.
    epochs: [f64; 2],
    steps_per_epoch: f64,
}

/// Steps of a run and of one pass over the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) n_steps: u64,
    pub(crate) steps_per_epoch: u64,
}

impl Lengths {
    /// Returns the last step of the warm-up and one.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of steps"
    )]
    pub(crate) fn n_warmup(self, config: &Config) -> u64 {
        (config.optimizer.warmup * as_f64(self.n_steps)).round() as u64
    }
}

impl Schedule {
    #[allow(clippy::cast_precision_loss, reason = "batches are small")]
    fn new(config: &Config, lengths: Lengths) -> Self {
        // Goyal et al. 2017: the rate grows with the batch.
        let scale = config.train.batch as f64 / 256.0;
        let (n_steps, n_warmup) = (lengths.n_steps, lengths.n_warmup(config));
        let [first_decay, last_decay] = config.weight_decay();
        let over_all = |base, end| Cosine {
            start: 0.0,
            base,
            end,
            n_warmup: 0,
            n_steps,
        };
        let steps_per_epoch = as_f64(lengths.steps_per_epoch);
        Self {
            method: config.method,
            lr: Cosine {
                n_warmup,
                ..over_all(config.base_lr() * scale, config.min_lr())
            },
            weight_decay: over_all(first_decay, last_decay),
            momentum: over_all(config.simdino.momentum, 1.0),
            betas: config.betas(),
            clip: config.optimizer.clip,
            epochs: [n_warmup, n_steps].map(|steps| as_f64(steps) / steps_per_epoch),
            steps_per_epoch,
        }
    }

    fn step(&self, step: u64) -> Step {
        let lr = match self.method {
            Method::Mae | Method::Salt => {
                let epoch = as_f64(step) / self.steps_per_epoch;
                mae_lr(epoch, self.lr.base, self.lr.end, self.epochs)
            }
            Method::SimDino => self.lr.at(step),
        };
        Step {
            lr,
            weight_decay: self.weight_decay.at(step),
            betas: self.betas,
            clip: self.clip,
        }
    }
}

/// The names that a checkpoint gives to the parts of a learner.
const STUDENT: &str = "student.";
const TEACHER: &str = "teacher.";
const MOMENTS: [&str; 2] = ["adam_m.", "adam_v."];

impl<B: VitBackend> Learner<B> {
    /// Draws the networks; the teacher begins as the student. Tensors of `start` replace drawn ones of
    /// the encoder.
    ///
    /// # Errors
    /// `Config` if `start` does not fit.
    pub(crate) fn new(
        config: &Config,
        lengths: Lengths,
        devices: Vec<B::Device>,
        start: Option<Weights>,
    ) -> Result<Self> {
        let plan = Plan::new(config);
        let device = devices.first().cloned().unwrap_or_default();
        let mut initial = Initial::new(config.seed, &device);
        let start = start.unwrap_or_default();
        let network = match config.method {
            Method::Mae => {
                let drawn = Mae::new(&plan.vit, &plan.mae, &mut initial);
                Network::Mae(started(drawn, start, &device)?)
            }
            Method::SimDino => {
                let drawn = SimDino::new(&plan.vit, &plan.simdino, &mut initial);
                let student = started(drawn, start, &device)?;
                let teacher = student.clone();
                Network::SimDino { student, teacher }
            }
            Method::Salt => {
                let folders = config.salt.teachers.iter();
                let teachers = folders
                    .map(|folder| Teacher::open(folder, &device))
                    .collect::<Result<Vec<_>>>()?;
                let widths = teachers.iter().map(|teacher| teacher.config.vit.embed_dim);
                let drawn = Mae::with_outputs(&plan.vit, &plan.mae, widths.sum(), &mut initial);
                let student = started(drawn, start, &device)?;
                Network::Salt { student, teachers }
            }
        };
        Ok(Self {
            plan,
            network,
            adam: AdamW::new(),
            schedule: Schedule::new(config, lengths),
            devices,
        })
    }

    /// Returns how many numbers are trained.
    pub(crate) fn n_parameters(&self) -> usize {
        match &self.network {
            Network::Mae(student) | Network::Salt { student, .. } => student.num_params(),
            Network::SimDino { student, .. } => student.num_params(),
        }
    }

    /// Returns what tells the frozen teachers from every other, in order.
    pub(crate) fn teachers(&self) -> Vec<String> {
        match &self.network {
            Network::Mae(_) | Network::SimDino { .. } => Vec::new(),
            Network::Salt { teachers, .. } => {
                let teachers = teachers.iter();
                teachers
                    .map(|teacher| teacher.fingerprint.clone())
                    .collect()
            }
        }
    }

    /// Returns MAE's network, if that is what is trained.
    pub(crate) fn mae(&self) -> Option<&Mae<B>> {
        match &self.network {
            Network::Mae(mae) => Some(mae),
            Network::SimDino { .. } | Network::Salt { .. } => None,
        }
    }

    /// Returns the student's encoder, and the teacher's where there is one.
    pub(crate) fn encoders(&self) -> (&Vit<B>, Option<&Vit<B>>) {
        match &self.network {
            Network::Mae(student) | Network::Salt { student, .. } => (student.encoder(), None),
            Network::SimDino { student, teacher } => (student.encoder(), Some(teacher.encoder())),
        }
    }

    /// Computes the loss of a batch and its gradients; changes nothing.
    ///
    /// # Errors
    /// `Encoder` if a view does not divide into patches.
    pub(crate) fn slope(&self, batch: &Batch) -> Result<Slope<B>> {
        let (plan, samples, step) = (&self.plan, &batch.samples, batch.step);
        match &self.network {
            Network::Mae(mae) => {
                let mask = |place: usize, grid| {
                    Mask::draw(grid, &plan.mae, &[plan.seed, step, place as u64])
                };
                let (loss, gradients) = mae_step(&self.copies(mae), samples, plan, step, mask)?;
                let terms = Terms::Mae;
                Ok(Slope {
                    loss,
                    terms,
                    gradients,
                })
            }
            Network::SimDino { student, teacher } => {
                let (students, teachers) = (self.copies(student), self.copies(teacher));
                let (terms, gradients) = simdino_step(&students, &teachers, samples, plan, step)?;
                Ok(Slope {
                    loss: terms.total,
                    terms: Terms::SimDino(Box::new(terms)),
                    gradients,
                })
            }
            Network::Salt { student, teachers } => self.salt_slope(student, teachers, batch),
        }
    }

    /// As `slope`, for a student of frozen teachers.
    fn salt_slope(
        &self,
        student: &Mae<B>,
        teachers: &[Teacher<B>],
        batch: &Batch,
    ) -> Result<Slope<B>> {
        let (plan, step) = (&self.plan, batch.step);
        let mask =
            |place: usize, grid| Mask::draw(grid, &plan.mae, &[plan.seed, step, place as u64]);
        let students = self.copies(student).into_iter();
        let mut workers: Vec<SaltWorker<B>> = students
            .map(|student| SaltWorker {
                student,
                teachers: Vec::new(),
            })
            .collect();
        for teacher in teachers {
            let copies = self.copies(&teacher.vit).into_iter();
            for (worker, vit) in workers.iter_mut().zip(copies) {
                worker.teachers.push(Teacher {
                    vit,
                    config: teacher.config.clone(),
                    fingerprint: teacher.fingerprint.clone(),
                });
            }
        }
        let (loss, gradients) = salt_step(&workers, &batch.samples, plan, step, mask)?;
        let terms = Terms::Mae;
        Ok(Slope {
            loss,
            terms,
            gradients,
        })
    }

    /// Puts a copy of a network on each worker's device; on one device, copies share their numbers.
    fn copies<M: Module<B>>(&self, module: &M) -> Vec<M> {
        let mut copies: Vec<M> = self
            .devices
            .iter()
            .skip(1)
            .map(|device| module.clone().to_device(device))
            .collect();
        copies.insert(0, module.clone());
        copies
    }

    /// Takes one step of the optimiser, then moves the teacher; says what was done in `entry`.
    pub(crate) fn update(&mut self, slope: Slope<B>, step: u64, entry: &mut Entry) {
        let numbers = self.schedule.step(step);
        entry.lr = Some(numbers.lr);
        entry.weight_decay = Some(numbers.weight_decay);
        let gradients = slope.gradients;
        let norm = match &mut self.network {
            Network::Mae(student) | Network::Salt { student, .. } => {
                let norm;
                (*student, norm) = self.adam.step(student.clone(), gradients, &numbers);
                norm
            }
            Network::SimDino { student, teacher } => {
                let norm;
                (*student, norm) = self.adam.step(student.clone(), gradients, &numbers);
                let momentum = self.schedule.momentum.at(step);
                *teacher = follow(teacher.clone(), student, momentum);
                entry.momentum = Some(momentum);
                norm
            }
        };
        entry.gradient_norm = Some(norm);
    }

    /// Returns everything a resumed run needs: networks and moments, by name.
    pub(crate) fn state(&self) -> Weights {
        let mut state = Weights::new();
        let mut keep = |prefix: &str, weights: Weights| {
            let named = weights
                .into_iter()
                .map(|(name, weight)| (format!("{prefix}{name}"), weight));
            state.extend(named);
        };
        match &self.network {
            // Frozen teachers stay in their own folders.
            Network::Mae(student) | Network::Salt { student, .. } => {
                keep(STUDENT, parameters::weights(student));
            }
            Network::SimDino { student, teacher } => {
                keep(STUDENT, parameters::weights(student));
                keep(TEACHER, parameters::weights(teacher));
            }
        }
        for (idx, prefix) in MOMENTS.into_iter().enumerate() {
            let moments = self.adam.moments.iter().map(|(name, moments)| {
                let values = parameters::numbers(moments[idx].clone());
                let shape = vec![values.len()];
                (name.clone(), Weight { shape, values })
            });
            keep(prefix, moments.collect());
        }
        state
    }

    /// Takes back what `state` returned after `n_steps` of the optimiser.
    ///
    /// # Errors
    /// Says what is missing or does not fit.
    pub(crate) fn restore(
        &mut self,
        state: Weights,
        n_steps: u64,
    ) -> std::result::Result<(), String> {
        let (mut student, mut teacher) = (Weights::new(), Weights::new());
        let mut moments = [Weights::new(), Weights::new()];
        for (name, weight) in state {
            let [first, second] = &mut moments;
            let places = [
                (STUDENT, &mut student),
                (TEACHER, &mut teacher),
                (MOMENTS[0], first),
                (MOMENTS[1], second),
            ];
            let place = places
                .into_iter()
                .find_map(|(prefix, place)| Some((place, name.strip_prefix(prefix)?.to_owned())));
            let (place, short) = place.ok_or_else(|| format!("{name} is no part of a run"))?;
            place.insert(short, weight);
        }
        let device = self.devices.first().cloned().unwrap_or_default();
        match &mut self.network {
            Network::Mae(pupil) | Network::Salt { student: pupil, .. } => {
                *pupil = whole(pupil.clone(), student, &device)?;
            }
            Network::SimDino {
                student: pupil,
                teacher: master,
            } => {
                *pupil = whole(pupil.clone(), student, &device)?;
                *master = whole(master.clone(), teacher, &device)?;
            }
        }
        let [first, mut second] = moments;
        self.adam = AdamW::new();
        self.adam.n_steps = n_steps;
        for (name, weight) in first {
            let other = second
                .remove(&name)
                .filter(|other| other.values.len() == weight.values.len())
                .ok_or_else(|| format!("{name} lacks its second moment"))?;
            let moments = [weight, other].map(|moment| {
                let n_values = moment.values.len();
                Tensor::from_data(TensorData::new(moment.values, [n_values]), &device)
            });
            self.adam.moments.insert(name, moments);
        }
        Ok(())
    }

    /// Returns how many steps the optimiser has taken.
    pub(crate) fn n_optimised(&self) -> u64 {
        self.adam.n_steps
    }
}

/// Replaces drawn tensors of the encoder by those that the run starts from.
fn started<B: Backend, M: Module<B>>(module: M, start: Weights, device: &B::Device) -> Result<M> {
    parameters::load(module, start, device)
        .map(|(module, _)| module)
        .map_err(|message| crate::error::Error::config("init", "weights of this network", message))
}

fn whole<B: Backend, M: Module<B>>(
    module: M,
    weights: Weights,
    device: &B::Device,
) -> std::result::Result<M, String> {
    let (module, missing) = parameters::load(module, weights, device)?;
    match missing.first() {
        Some(name) => Err(format!("{name} is missing")),
        None => Ok(module),
    }
}
