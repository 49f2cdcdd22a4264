//! Readers that work ahead of the network, in bounded memory.
//!
//! The memory has two halves.
//!
//! *Decoding*: a reader asks for an allowance before it reads an item and gives it back when the views
//! are cut. An item that turns out to need more gives its allowance back, and asks for a larger one, up
//! to the whole half; what needs even more is refused. Whoever waits is served in the order of the draws.
//!
//! *Views*: a reader takes the next draw only if there is room for the largest views an item can have,
//! beside all views that wait. Only the step that the trainer is waiting for is exempt: its views are on
//! the way to the trainer, who holds them all at a time in any case.
//!
//! Why nothing waits for ever: draws are taken in order, so every draw of the awaited step is taken
//! before any later one, without needing room. A reader that holds an allowance waits for nothing; one
//! that waits for an allowance holds none. So allowances always come back, and go to the earliest draw
//! that waits, whose wish is never above the half: the awaited step is read to its end.
//!
//! What comes out depends on settings, seed and step alone: not on the number of readers or the memory,
//! but for what is refused because it is larger than the memory.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use m3ret_imaging::Code;

use super::items::Items;
use super::reading::{Draw, Reading, Refused};
use super::sampler::Sampler;
use super::settings::ViewPlan;
use super::{Batch, Sample};
use crate::config::Config;
use crate::error::{Error, Result};

/// Steps that readers may be ahead, however small their views are.
const MAX_STEPS_AHEAD: u64 = 64;

/// Gives the batches of a run in the order of their steps.
///
/// An iterator: `next` waits for the batch. Ends its readers when it is dropped.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
    end_step: u64,
}

/// What the trainer and all readers share.
#[derive(Debug)]
struct Shared {
    items: Arc<Items>,
    sampler: Sampler,
    reading: Reading,
    end_step: u64,
    /// The largest views of one item.
    most_view_bytes: u64,
    max_view_bytes: u64,
    max_decode_bytes: u64,
    /// What a reader asks for first.
    first_allowance: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The step that comes out next.
    head: u64,
    /// True while the trainer waits for it.
    is_awaited: bool,
    /// The step and the place of the next draw.
    next: (u64, usize),
    steps: BTreeMap<u64, Step>,
    view_bytes: u64,
    decode_bytes: u64,
    /// Draws that wait for an allowance.
    waiting: BTreeSet<(u64, usize)>,
    n_readers: usize,
    is_over: bool,
}

/// A step whose draws are being read.
#[derive(Debug)]
struct Step {
    items: Vec<usize>,
    outcomes: Vec<Option<Outcome>>,
    n_open: usize,
}

type Outcome = std::result::Result<Sample, &'static str>;

impl Loader {
    /// Starts readers for the steps from `first_step` on, `n_steps` of them.
    ///
    /// # Errors
    /// `Config` or `Imaging` for senseless settings; `Io` if the cache cannot be written or a thread
    /// not be started.
    pub fn start(
        items: Arc<Items>,
        config: &Config,
        first_step: u64,
        n_steps: u64,
    ) -> Result<Self> {
        let plan = ViewPlan::new(config)?;
        let n_readers = match config.images.readers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let memory = (config.images.memory_mib as u64).saturating_mul(1 << 20);
        let max_decode_bytes = memory / 2;
        let end_step = first_step.saturating_add(n_steps);
        let shared = Arc::new(Shared {
            sampler: Sampler::new(&items, config)?,
            items,
            most_view_bytes: plan.most_bytes(),
            reading: Reading::new(config, plan)?,
            end_step,
            max_view_bytes: memory - max_decode_bytes,
            max_decode_bytes,
            first_allowance: max_decode_bytes / n_readers as u64,
            state: Mutex::new(State {
                head: first_step,
                next: (first_step, 0),
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let mut loader = Self {
            shared,
            readers: Vec::new(),
            end_step,
        };
        for _ in 0..n_readers {
            loader.add_reader().map_err(Error::io("a thread"))?;
        }
        Ok(loader)
    }

    fn add_reader(&mut self) -> std::io::Result<()> {
        // Decoders share their work among the threads of the pool they run in: a pool of one keeps
        // readers from waiting for each other, and for the network in the global pool.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .map_err(std::io::Error::other)?;
        let shared = Arc::clone(&self.shared);
        shared.lock().n_readers += 1;
        let reader = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                let _leaving = Leaving(&shared);
                while let Some(draw) = shared.claim() {
                    let outcome = shared.read(draw, &pool);
                    shared.finish(draw, outcome);
                }
            });
        match reader {
            Ok(reader) => self.readers.push(reader),
            Err(error) => {
                self.shared.lock().n_readers -= 1;
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        if state.head >= self.end_step {
            return None;
        }
        state.is_awaited = true;
        self.shared.changed.notify_all();
        let must_wait = |state: &mut State| state.n_readers > 0 && !state.head_is_complete();
        let waited = self.shared.changed.wait_while(state, must_wait);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_awaited = false;
        if !state.head_is_complete() {
            return Some(Err(Error::Images {
                what: "all readers of images ended".to_owned(),
                advice: "this is a fault of the program; resume the run, and report it".to_owned(),
            }));
        }
        let head = state.head;
        let step = state.steps.remove(&head)?;
        let batch = step.into_batch(head);
        state.view_bytes -= batch.samples.iter().map(n_bytes).sum::<u64>();
        state.head += 1;
        drop(state);
        self.shared.changed.notify_all();
        Some(Ok(batch))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        for reader in self.readers.drain(..) {
            // A reader catches the panics of what it calls.
            let _ = reader.join();
        }
    }
}

/// Tells the trainer when a reader is gone, whatever became of it.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.lock().n_readers -= 1;
        self.0.changed.notify_all();
    }
}

/// An allowance for decoding; given back when it is dropped.
struct Allowance<'a> {
    shared: &'a Shared,
    n_bytes: u64,
}

impl Drop for Allowance<'_> {
    fn drop(&mut self) {
        self.shared.lock().decode_bytes -= self.n_bytes;
        self.shared.changed.notify_all();
    }
}

impl State {
    fn head_is_complete(&self) -> bool {
        let step = self.steps.get(&self.head);
        step.is_some_and(|step| step.n_open == 0)
    }
}

impl Step {
    fn new(items: Vec<usize>) -> Self {
        Self {
            outcomes: vec![None; items.len()],
            n_open: items.len(),
            items,
        }
    }

    fn into_batch(self, step: u64) -> Batch {
        let mut batch = Batch {
            step,
            samples: Vec::with_capacity(self.items.len()),
            refused: Vec::new(),
        };
        for (item, outcome) in self.items.into_iter().zip(self.outcomes) {
            match outcome {
                Some(Ok(sample)) => batch.samples.push(sample),
                Some(Err(code)) => batch.refused.push((item, code)),
                None => batch.refused.push((item, Code::InternalError.as_str())),
            }
        }
        batch
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs while the state is between two whole ones.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_ready`; `None` once nobody wants batches any more.
    fn wait(&self, is_ready: impl Fn(&State) -> bool) -> Option<MutexGuard<'_, State>> {
        let must_wait = |state: &mut State| !state.is_over && !is_ready(state);
        let waited = self.changed.wait_while(self.lock(), must_wait);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        (!state.is_over).then_some(state)
    }

    /// Takes the next draw as soon as there is room for its views; `None` after the last.
    fn claim(&self) -> Option<Draw> {
        let mut state = self.wait(|state| {
            let (step, _) = state.next;
            let is_awaited = step == state.head && state.is_awaited;
            let has_room = state.view_bytes + self.most_view_bytes <= self.max_view_bytes
                && step < state.head + MAX_STEPS_AHEAD;
            step >= self.end_step || is_awaited || has_room
        })?;
        let (step, place) = state.next;
        if step >= self.end_step {
            return None;
        }
        let draws = state
            .steps
            .entry(step)
            .or_insert_with(|| Step::new(self.sampler.places(step)));
        let item = *draws.items.get(place)?;
        let is_last = place + 1 == draws.items.len();
        state.next = if is_last {
            (step + 1, 0)
        } else {
            (step, place + 1)
        };
        state.view_bytes += self.most_view_bytes;
        Some(Draw { step, place, item })
    }

    /// Waits for memory to decode in.
    fn allowance(&self, draw: Draw, n_bytes: u64) -> Option<Allowance<'_>> {
        let turn = (draw.step, draw.place);
        self.lock().waiting.insert(turn);
        let state = self.wait(|state| {
            state.waiting.first() == Some(&turn)
                && state.decode_bytes + n_bytes <= self.max_decode_bytes
        });
        let mut state = state?;
        state.waiting.remove(&turn);
        state.decode_bytes += n_bytes;
        drop(state);
        self.changed.notify_all();
        Some(Allowance {
            shared: self,
            n_bytes,
        })
    }

    /// Reads an item, with as much memory as it needs and there may be.
    fn read(&self, draw: Draw, pool: &rayon::ThreadPool) -> Outcome {
        let place = self.items.place_of(draw.item);
        let mut n_bytes = self.first_allowance;
        loop {
            let Some(allowance) = self.allowance(draw, n_bytes) else {
                // Nobody will see it.
                return Err(Code::InternalError.as_str());
            };
            let read = || {
                if self.items.is_synthetic(draw.item) {
                    self.reading.synthetic(draw, n_bytes)
                } else {
                    self.reading.sample(&place, draw, n_bytes)
                }
            };
            let read = guarded(|| pool.install(read));
            drop(allowance);
            match read {
                Ok(sample) => return Ok(sample),
                Err(Refused::For(code)) => return Err(code),
                Err(Refused::Needs(needed)) => {
                    let larger = needed.max(n_bytes.saturating_mul(2));
                    if needed > self.max_decode_bytes || n_bytes >= self.max_decode_bytes {
                        return Err(Code::LimitExceeded.as_str());
                    }
                    n_bytes = larger.min(self.max_decode_bytes);
                }
            }
        }
    }

    fn finish(&self, draw: Draw, outcome: Outcome) {
        let n_bytes = outcome.as_ref().map_or(0, n_bytes);
        let mut state = self.lock();
        state.view_bytes = state.view_bytes + n_bytes - self.most_view_bytes;
        if let Some(step) = state.steps.get_mut(&draw.step) {
            if let Some(place) = step.outcomes.get_mut(draw.place) {
                *place = Some(outcome);
            }
            step.n_open -= 1;
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Turns a panic, a fault of ours that one image met, into the refusal of that image.
fn guarded<T>(
    read: impl FnOnce() -> std::result::Result<T, Refused>,
) -> std::result::Result<T, Refused> {
    let outcome = catch_unwind(AssertUnwindSafe(read));
    outcome.unwrap_or(Err(Refused::For(Code::InternalError.as_str())))
}

/// Returns what a sample holds.
fn n_bytes(sample: &Sample) -> u64 {
    let values = sample.views.iter().map(|view| view.values().len());
    (values.sum::<usize>() * size_of::<f32>()) as u64
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::tests::{Archive, files, load};
    use super::*;

    #[test]
    fn readers_stop_when_their_memory_is_full_and_go_on_when_asked() {
        let mut archive = Archive::new("path");
        files::npy(&archive.path("deep.npy"), [8, 40, 40], 0);
        archive.row("deep.npy");
        let mut config = archive.config();
        config.images.readers = 6;
        config.images.memory_mib = 1;
        config.train.batch = 16;
        let loader = &mut Loader::start(load(&config), &config, 0, 1000).unwrap();
        let shared = Arc::clone(&loader.shared);
        for n_taken in 1..4 {
            let patience = Instant::now() + Duration::from_secs(20);
            // Full means: nobody decodes, and there is no room for the views of one more.
            let is_full = |state: &State| {
                let room = shared.max_view_bytes - state.view_bytes;
                state.decode_bytes == 0 && room < shared.most_view_bytes
            };
            while !is_full(&shared.lock()) {
                assert!(shared.lock().view_bytes <= shared.max_view_bytes);
                assert!(shared.lock().decode_bytes <= shared.max_decode_bytes);
                assert!(Instant::now() < patience, "{:?}", shared.lock());
                std::thread::yield_now();
            }
            // 16 items take more than half a MiB: the batch is only whole once it is asked for.
            let step = shared.lock().steps.len();
            assert_eq!(step, 1);
            assert!(!shared.lock().head_is_complete());
            assert_eq!(loader.next().unwrap().unwrap().samples.len(), 16);
            assert_eq!(shared.lock().head, n_taken);
        }
    }

    #[test]
    fn a_panic_refuses_one_image() {
        let outcome = guarded(|| -> std::result::Result<(), Refused> { panic!("a fault") });
        assert_eq!(outcome, Err(Refused::For("internal_error")));
        assert_eq!(guarded(|| Ok(3)), Ok(3));
    }
}
