//! The one training loop.

use std::collections::BTreeSet;
use std::convert::identity;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use burn::backend::Flex;
use m3ret_imaging::Input;

use crate::checkpoint::save_model;
use crate::config::{Config, Device};
use crate::dataset::{Batch, Items, Loader, Sample, Sampler, advice};
use crate::error::{Error, Result};
use crate::files::make_private_folder;
use crate::init;
use crate::learner::{Learner, Lengths, Slope, Terms};
use crate::monitor::{effective_rank, pooled};
use crate::ops::VitBackend;
use crate::parameters::{self, Weights};
use crate::pictures::pictures;
use crate::report::card::{self, Card};
use crate::report::events::Events;
use crate::report::log::Log;
use crate::report::words::counted;
use crate::report::{Entry, Summary, last_part};
use crate::run_folder::{Best, Checkpoint, RunFolder, State};
use crate::validation::{CHUNK, Validation, read_all};
use crate::vit::Vit;
use crate::whitening;

/// Whether a run begins or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// A new run; its folder must not hold one.
    Fresh,
    /// The run in the folder goes on after its newest checkpoint.
    Resume,
}

/// Who is told what happens, and may end the run.
pub trait Watcher {
    /// Called once, before the first step.
    fn begun(&mut self, facts: &RunFacts);
    /// Called after every step, and after every look at the validation part.
    fn entry(&mut self, entry: &Entry);
    /// Called with what a person should know, e.g. refused images.
    fn note(&mut self, sentence: &str);
    /// Called at each checkpoint and at the end, with what a report shows. An error ends the run.
    ///
    /// # Errors
    /// Whatever keeps the watcher from going on, such as a full disk.
    fn checkpoint(
        &mut self,
        _summary: &Summary<'_>,
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
    /// Asked after each step; `true` saves a checkpoint and ends the run.
    fn stop_asked(&mut self) -> bool;
    /// Returns the time since 1970: for rates and event files only, no number of the run depends on it.
    fn now(&mut self) -> Duration;
}

/// What is known before the first step.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFacts {
    /// Steps of the whole run.
    pub n_steps: u64,
    /// The step this call begins with.
    pub first_step: u64,
    /// Items that are trained on.
    pub n_items: usize,
    /// Items of the validation part.
    pub n_validation: usize,
    /// Parameters that are trained, decoder or head included.
    pub n_parameters: usize,
    /// The run's folder.
    pub out: PathBuf,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The finished model's folder; absent if the run was stopped before its end.
    pub model: Option<PathBuf>,
    /// The step that a resumed run begins with.
    pub next_step: u64,
    /// The newest entry of the log.
    pub last: Entry,
}

/// Trains.
///
/// # Errors
/// `Config` and `Images` before anything is written, if settings or manifests cannot serve; `Run` for a
/// folder that is in use, damaged or another run's; `Diverged` for a loss that is no number and for a
/// collapse; `Io`.
pub fn train(config: &Config, begin: Begin, watcher: &mut dyn Watcher) -> Result<Outcome> {
    config.validate()?;
    match config.train.device {
        Device::Cpu => {
            let devices = vec![Default::default(); config.train.workers];
            Run::<Flex>::start(config, begin, watcher, devices)?.go()
        }
        Device::Cuda => on_cuda(config, begin, watcher),
    }
}

#[cfg(feature = "cuda")]
fn on_cuda(config: &Config, begin: Begin, watcher: &mut dyn Watcher) -> Result<Outcome> {
    let devices = (0..config.train.workers).map(burn::backend::cuda::CudaDevice::new);
    Run::<burn::backend::Cuda>::start(config, begin, watcher, devices.collect())?.go()
}

#[cfg(not(feature = "cuda"))]
fn on_cuda(_: &Config, _: Begin, _: &mut dyn Watcher) -> Result<Outcome> {
    Err(Error::config(
        "train.device",
        "cpu, or a program built with --features cuda",
        "cuda",
    ))
}

/// A run under way.
struct Run<'a, B: VitBackend> {
    config: Config,
    watcher: &'a mut dyn Watcher,
    folder: RunFolder,
    items: Arc<Items>,
    sampler: Sampler,
    lengths: Lengths,
    learner: Learner<B>,
    state: State,
    validation: Validation,
    log: Log,
    events: Events,
    notes: Vec<String>,
    /// Whether the unreadable items of the validation part were told.
    told_unreadable: bool,
    /// What the weights of `init` have and this network has not.
    init_notes: Vec<String>,
    facts: RunFacts,
    last: Entry,
}

impl<'a, B: VitBackend> Run<'a, B> {
    fn start(
        config: &Config,
        begin: Begin,
        watcher: &'a mut dyn Watcher,
        devices: Vec<B::Device>,
    ) -> Result<Self> {
        let (config, start) = init::open(config)?;
        config.validate()?;
        let items = Arc::new(Items::load(&config)?);
        let sampler = Sampler::new(&items, &config)?;
        let lengths = lengths(&config, &sampler);
        let (weights, init_notes) = match start {
            Some(start) => (Some(start.weights), start.notes),
            None => (None, Vec::new()),
        };
        let mut learner = Learner::new(&config, lengths, devices, weights)?;
        // From here on something is written.
        let folder = RunFolder::open(&config, begin)?;
        if let Some(cache) = &config.images.cache {
            make_private_folder(cache)?;
        }
        let mut state = State::new(items.fingerprint());
        state.teachers = learner.teachers();
        let newest = folder.newest()?;
        if let Some(checkpoint) = newest.checkpoint {
            go_on(&mut learner, &mut state, checkpoint, &config)?;
        }
        let log = Log::open(&folder.path("log.jsonl"), state.next_step)?;
        let complaints = [newest.complaints, unreadable(&log)].concat();
        let seconds = watcher.now().as_secs_f64();
        let events = Events::begin(&folder.path("events"), seconds, state.next_step)?;
        let facts = RunFacts {
            n_steps: lengths.n_steps,
            first_step: state.next_step,
            n_items: items.n_train(),
            n_validation: items.facts().n_validation,
            n_parameters: learner.n_parameters(),
            out: config.out.clone(),
        };
        let validation = Validation::new(&items, &config);
        let mut run = Self {
            config,
            watcher,
            folder,
            items,
            sampler,
            lengths,
            learner,
            state,
            validation,
            log,
            events,
            notes: Vec::new(),
            told_unreadable: false,
            init_notes,
            facts,
            last: Entry::default(),
        };
        run.begin(complaints);
        Ok(run)
    }

    /// Tells what is known before the first step.
    fn begin(&mut self, complaints: Vec<String>) {
        self.watcher.begun(&self.facts);
        let facts = self.items.facts().clone();
        for note in facts.notes {
            self.note(note);
        }
        if facts.n_mr_left_out > 0 {
            let rows = counted(
                facts.n_mr_left_out,
                "row of modality MR or PET is",
                "rows of modality MR or PET are",
            );
            self.note(format!(
                "{rows} left out; images.allow_mr = true trains on such rows"
            ));
        }
        if facts.n_unknown_modality > 0 && !self.config.images.allow_mr {
            let items = counted(facts.n_unknown_modality, "item names", "items name");
            self.note(format!(
                "{items} no known modality: that MR and PET are left out cannot be verified"
            ));
        }
        if self.config.monitor.knn_every > 0 && !self.validation.has_queries() {
            let column = self.config.monitor.knn_relevance.clone();
            self.note(format!(
                "no kNN: the validation part has no two patients with the same {column}; raise \
                 images.validation, or set monitor.knn_relevance to a column that they share"
            ));
        }
        for complaint in complaints {
            self.note(format!("left out: {complaint}"));
        }
        for note in self.init_notes.clone() {
            self.note(format!("init: {note}"));
        }
    }

    fn note(&mut self, sentence: String) {
        self.watcher.note(&sentence);
        self.notes.push(sentence);
    }

    fn go(mut self) -> Result<Outcome> {
        let (first, n_steps) = (self.state.next_step, self.lengths.n_steps);
        let items = Arc::clone(&self.items);
        let mut loader = Loader::start(items, &self.config, first, n_steps - first)?;
        for step in first..n_steps {
            self.look(step)?;
            let begun = self.watcher.now();
            let Some(batch) = loader.next() else { break };
            let batch = batch?;
            let waited = self.watcher.now().saturating_sub(begun);
            let mut entry = self.step(&batch)?;
            let took = self.watcher.now().saturating_sub(begun);
            timed(&mut entry, took, waited);
            self.tell(entry)?;
            self.state.next_step = step + 1;
            self.check_readable()?;
            let stops = self.watcher.stop_asked();
            if step + 1 == n_steps {
                self.save()?;
            } else if stops || (step + 1) % self.config.train.checkpoint_every == 0 {
                self.save()?;
                self.report()?;
            }
            if stops && step + 1 < n_steps {
                return Ok(self.outcome(None));
            }
        }
        drop(loader);
        self.finish()
    }

    /// One optimiser step.
    fn step(&mut self, batch: &Batch) -> Result<Entry> {
        self.count_refused(batch);
        let is_synthetic = |sample: &&Sample| self.items.is_synthetic(sample.item);
        let n_synthetic = batch.samples.iter().filter(is_synthetic).count();
        self.state.n_items_seen += (batch.samples.len() - n_synthetic) as u64;
        self.state.n_synthetic_seen += n_synthetic as u64;
        let mut entry = Entry {
            step: batch.step,
            epoch: self.sampler.epoch_at(batch.step + 1),
            items: Some(batch.samples.len()),
            synthetic: (self.config.images.synthetic > 0.0).then_some(n_synthetic),
            ..Entry::default()
        };
        if batch.samples.is_empty() {
            return Ok(entry);
        }
        let slope = self.learner.slope(batch)?;
        entry.loss = Some(slope.loss);
        if !slope.loss.is_finite() {
            return Err(self.no_number(batch, "loss"));
        }
        self.describe(&slope, &mut entry)?;
        self.learner.update(slope, batch.step, &mut entry);
        if entry.gradient_norm.is_some_and(|norm| !norm.is_finite()) {
            return Err(self.no_number(batch, "gradient"));
        }
        Ok(entry)
    }

    /// Puts SimDINO's terms into the entry, and ends the run where its vectors collapse.
    fn describe(&mut self, slope: &Slope<B>, entry: &mut Entry) -> Result<()> {
        let Terms::SimDino(terms) = &slope.terms else {
            return Ok(());
        };
        let [collapsed, bound] = terms.rate_limits;
        entry.alignment = Some(terms.alignment);
        entry.coding_rate = Some(terms.coding_rate);
        entry.coding_rate_collapsed = Some(collapsed);
        entry.coding_rate_bound = Some(bound);
        entry.patch_alignment = terms.patch_alignment;
        let p = self.config.simdino.head_out;
        let rank = self
            .is_logged(entry.step)
            .then(|| effective_rank(&terms.teacher, p));
        entry.effective_rank = rank;
        let rank = rank.map(|rank| (rank, p.min(terms.teacher.len() / p)));
        let is_warm = entry.step >= self.lengths.n_warmup(&self.config);
        let share = self.config.monitor.collapse_share;
        match self.state.alarm.sees(terms, rank, is_warm, share) {
            Some(message) => Err(Error::Diverged {
                step: entry.step,
                message,
            }),
            None => Ok(()),
        }
    }

    /// Says which batch gave a loss or gradient that is no number.
    fn no_number(&self, batch: &Batch, what: &str) -> Error {
        const SHOWN: usize = 8;
        let n = batch.samples.len();
        let mut names: Vec<String> = batch
            .samples
            .iter()
            .take(SHOWN)
            .map(|sample| self.items.name(sample.item))
            .collect();
        if n > SHOWN {
            names.push(format!("{} more", n - SHOWN));
        }
        Error::Diverged {
            step: batch.step,
            message: format!(
                "the {what} is not a finite number (seed {}, items: {}); start another run with a lower \
                 optimizer.base_lr or a longer optimizer.warmup, and init set to the folder model of \
                 the last checkpoint",
                self.config.seed,
                names.join(", ")
            ),
        }
    }

    fn count_refused(&mut self, batch: &Batch) {
        for &(item, code) in &batch.refused {
            let n = self.state.refused.entry(code.to_owned()).or_default();
            *n += 1;
            if *n == 1 {
                let name = self.items.name(item);
                self.note(format!(
                    "images are refused for {code}, {name} first: {}; the report counts them",
                    advice(code)
                ));
            }
        }
    }

    fn is_logged(&self, step: u64) -> bool {
        step.is_multiple_of(self.config.monitor.log_every) || step + 1 == self.lengths.n_steps
    }

    fn tell(&mut self, entry: Entry) -> Result<()> {
        if self.is_logged(entry.step) {
            self.log.append(&entry)?;
            self.events
                .append(self.watcher.now().as_secs_f64(), &entry)?;
        }
        self.watcher.entry(&entry);
        self.last = entry;
        Ok(())
    }

    /// Looks at the validation part before some steps, and after the last.
    fn look(&mut self, step: u64) -> Result<()> {
        let every = self.config.monitor.knn_every;
        let is_due = step == self.lengths.n_steps || (every > 0 && step.is_multiple_of(every));
        if every == 0 || !is_due || self.validation.is_empty() {
            return Ok(());
        }
        let mut entry = Entry {
            step,
            epoch: self.sampler.epoch_at(step),
            ..Entry::default()
        };
        let look = self
            .validation
            .look(&self.items, &self.config, &self.learner)?;
        let (student, teacher) = (look.student, look.teacher);
        if look.n_unreadable > 0 && !self.told_unreadable {
            self.told_unreadable = true;
            let items = counted(
                look.n_unreadable,
                "item of the validation part, which cannot be read or is MR, is",
                "items of the validation part, which cannot be read or are MR, are",
            );
            self.note(format!("{items} left out of kNN"));
        }
        entry.knn_student = student;
        entry.knn_teacher = teacher;
        if let Some(found) = teacher.or(student) {
            // Only what has a checkpoint can be kept.
            let has_checkpoint = step > 0
                && (step.is_multiple_of(self.config.train.checkpoint_every)
                    || step == self.lengths.n_steps);
            let is_better = self
                .state
                .best
                .is_none_or(|best| found.hit_at_1 > best.hit_at_1);
            if has_checkpoint && is_better {
                let hit_at_1 = found.hit_at_1;
                self.state.best = Some(Best { step, hit_at_1 });
            }
        }
        self.log.append(&entry)?;
        self.events
            .append(self.watcher.now().as_secs_f64(), &entry)?;
        self.watcher.entry(&entry);
        Ok(())
    }

    /// The encoder that is shipped: the teacher's where there is one.
    fn encoder(&self) -> &Vit<B> {
        let (student, teacher) = self.learner.encoders();
        teacher.unwrap_or(student)
    }

    fn save(&mut self) -> Result<()> {
        self.log.sync()?;
        self.state.n_optimised = self.learner.n_optimised();
        let model = self.config.model_config();
        let (tensors, encoder) = (self.learner.state(), parameters::weights(self.encoder()));
        self.folder
            .save(&mut self.state, &tensors, &model, &encoder)
    }

    /// Ends a run that has seen nothing at all for a while: it would give back what was drawn at random.
    fn check_readable(&self) -> Result<()> {
        const PATIENCE: u64 = 20;
        let n_waited = self.lengths.n_steps.min(PATIENCE);
        if self.state.n_items_seen > 0 || self.state.next_step < n_waited {
            return Ok(());
        }
        let counts: Vec<String> = self
            .state
            .refused
            .iter()
            .map(|(code, n)| format!("{code} {n}"))
            .collect();
        let code = self.state.refused.keys().next().map_or("", String::as_str);
        Err(Error::Images {
            what: format!(
                "no image could be read in {n_waited} step{} ({})",
                if n_waited == 1 { "" } else { "s" },
                counts.join(", ")
            ),
            advice: advice(code).to_owned(),
        })
    }

    fn report(&mut self) -> Result<()> {
        let mut notes = self.notes.clone();
        let refused = self.state.refused.iter();
        notes.extend(refused.map(|(code, n)| format!("images were refused {n} times for {code}")));
        let pictures = match self.learner.mae() {
            Some(mae) => pictures(mae, &self.learner.plan, &self.items, &self.config)?,
            None => Vec::new(),
        };
        let summary = Summary {
            title: &last_part(&self.config.out),
            config: &self.config,
            model: &self.config.model_config(),
            facts: &self.facts,
            items: self.items.facts(),
            n_synthetic_seen: self.state.n_synthetic_seen,
            next_step: self.state.next_step,
            history: self.log.history(),
            pictures: &pictures,
            notes: &notes,
        };
        let watched = self.watcher.checkpoint(&summary);
        watched.map_err(|error| Error::run(self.folder.path("report"), error.to_string()))
    }

    /// Writes the model and the last report.
    fn finish(mut self) -> Result<Outcome> {
        self.look(self.lengths.n_steps)?;
        let place = self.folder.path("model");
        let model = self.config.model_config();
        let mut encoder = parameters::weights(self.encoder());
        let asked = &self.config.model;
        if asked.whitening > 0.0 || asked.directions_out > 0 {
            encoder.extend(self.whitening()?);
        }
        save_model(&place, &model, &encoder)?;
        let card = Card {
            name: &last_part(&self.config.out),
            config: &self.config,
            model: &model,
            n_parameters: encoder.values().map(|weight| weight.values.len()).sum(),
            items: self.items.facts(),
            n_steps: self.state.next_step,
            n_items_seen: self.state.n_items_seen,
            n_synthetic_seen: self.state.n_synthetic_seen,
            history: self.log.history(),
            init_notes: &self.init_notes,
            teachers: &self.state.teachers,
            refused: &self.state.refused,
        };
        card::write(&place.join("README.md"), &card)?;
        self.events.sync()?;
        self.log.sync()?;
        self.report()?;
        Ok(self.outcome(Some(place)))
    }

    /// Returns the map that whitens the vectors of the first training items.
    fn whitening(&self) -> Result<Weights> {
        let model = self.config.model_config();
        let mut items = BTreeSet::new();
        for step in 0..self.lengths.n_steps {
            if items.len() >= whitening::N_ITEMS {
                break;
            }
            items.extend(self.sampler.batch(step));
        }
        let items: Vec<usize> = items.into_iter().collect();
        let mut rows = Vec::with_capacity(items.len());
        for items in items.chunks(CHUNK) {
            let read = read_all(&self.items, items, &model.input, &self.config);
            let inputs: Vec<&Input> = read.iter().flatten().collect();
            let plan = &self.learner.plan;
            rows.extend(pooled(
                self.encoder(),
                &inputs,
                plan,
                model.embedding,
                identity,
            )?);
        }
        let asked = &self.config.model;
        whitening::weights(&rows, asked.whitening, asked.directions_out)
    }

    fn outcome(self, model: Option<PathBuf>) -> Outcome {
        Outcome {
            model,
            next_step: self.state.next_step,
            last: self.last,
        }
    }
}

/// Takes up a run where a checkpoint left it.
fn go_on<B: VitBackend>(
    learner: &mut Learner<B>,
    state: &mut State,
    checkpoint: Checkpoint,
    config: &Config,
) -> Result<()> {
    let Checkpoint {
        state: found,
        tensors,
    } = checkpoint;
    if found.items != state.items {
        return Err(Error::run(
            &config.out,
            "the manifests list other items than when this run began; put them back, or start another \
             run",
        ));
    }
    if found.teachers != state.teachers {
        return Err(Error::run(
            &config.out,
            format!(
                "found teachers of fingerprints {:?}, wanted {:?}, those that this run began with; set \
                 salt.teachers to their folders, or start another run",
                state.teachers, found.teachers
            ),
        ));
    }
    learner
        .restore(tensors, found.n_optimised)
        .map_err(|message| Error::run(&config.out, message))?;
    *state = found;
    Ok(())
}

/// Returns a sentence if lines of the log cannot be read.
fn unreadable(log: &Log) -> Vec<String> {
    let lines = |n| counted(n, "line of the log holds", "lines of the log hold");
    match log.n_unreadable() {
        0 => Vec::new(),
        n => vec![format!("{} no entry", lines(n))],
    }
}

fn lengths(config: &Config, sampler: &Sampler) -> Lengths {
    Lengths {
        n_steps: match config.train.steps {
            0 => sampler.steps_of(config.train.epochs),
            steps => steps,
        },
        steps_per_epoch: sampler.steps_per_epoch().max(1),
    }
}

/// Notes how long a step took, and how long it waited for images.
#[allow(clippy::cast_precision_loss, reason = "batches are small")]
fn timed(entry: &mut Entry, took: Duration, waited: Duration) {
    let seconds = took.as_secs_f64();
    if seconds > 0.0 {
        entry.items_per_second = entry.items.map(|n| n as f64 / seconds);
        entry.waiting = Some((waited.as_secs_f64() / seconds).min(1.0));
    }
}

#[cfg(test)]
mod tests;
