//! A training run whose log Python reads entry by entry.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use m3ret::report::training;
use m3ret_pretrain::report::{Entry, Summary};
use m3ret_pretrain::{Begin, Config, Outcome, RunFacts, Watcher, train};
use pyo3::prelude::*;
use rayon::ThreadPoolBuilder;

use crate::errors::{self, Class};
use crate::json::to_json;

/// How often signals are asked for.
const PATIENCE: Duration = Duration::from_millis(50);

/// What a run tells.
enum Event {
    Begun(String),
    Entry(Box<Entry>),
    Note(String),
}

/// The run's watcher, on its own thread.
struct Teller {
    sender: Sender<Event>,
    stop: Arc<AtomicBool>,
}

impl Teller {
    fn tell(&self, event: Event) {
        if self.sender.send(event).is_err() {
            // Nobody iterates any more.
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Watcher for Teller {
    fn begun(&mut self, facts: &RunFacts) {
        let facts = serde_json::json!({
            "n_steps": facts.n_steps,
            "first_step": facts.first_step,
            "n_items": facts.n_items,
            "n_validation": facts.n_validation,
            "n_parameters": facts.n_parameters,
            "out": facts.out,
        });
        self.tell(Event::Begun(facts.to_string()));
    }

    fn entry(&mut self, entry: &Entry) {
        self.tell(Event::Entry(Box::new(entry.clone())));
    }

    fn note(&mut self, sentence: &str) {
        self.tell(Event::Note(sentence.to_owned()));
    }

    fn checkpoint(
        &mut self,
        summary: &Summary<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let page = summary.facts.out.join("report.html");
        Ok(training::write(&page, summary)?)
    }

    fn stop_asked(&mut self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the outermost crate has the clock"
    )]
    fn now(&mut self) -> Duration {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default()
    }
}

/// The result of a run, or its error as a sentence.
type Ended = Result<Outcome, String>;

/// A training run: an iterator of log entries as JSON.
#[pyclass(frozen, module = "m3ret._m3ret")]
pub(crate) struct Training {
    events: Mutex<Receiver<Event>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<Ended>>>,
    facts: Mutex<Option<String>>,
    notes: Mutex<Vec<String>>,
    ended: Mutex<Option<Outcome>>,
}

#[pymethods]
impl Training {
    #[new]
    fn start(
        py: Python<'_>,
        config: PathBuf,
        set: Vec<String>,
        resume: bool,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        let config = py.detach(|| Config::load(&config, &set));
        let config = config.map_err(|error| errors::of_library(py, &error.into()))?;
        let begin = match resume {
            true => Begin::Resume,
            false => Begin::Fresh,
        };
        let (sender, receiver) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let mut teller = Teller {
            sender,
            stop: Arc::clone(&stop),
        };
        let n_threads = crate::work::n_threads(py, threads)?;
        let work = move || -> Ended {
            let pool = ThreadPoolBuilder::new()
                .num_threads(n_threads)
                .start_handler(|_| m3ret::panics::guard_this_thread())
                .build()
                .map_err(|error| errors::told(&error))?;
            pool.install(|| train(&config, begin, &mut teller))
                .map_err(|error| errors::told(&error))
        };
        let thread = std::thread::Builder::new()
            .name("m3ret-training".to_owned())
            .spawn(work)?;
        Ok(Self {
            events: Mutex::new(receiver),
            stop,
            thread: Mutex::new(Some(thread)),
            facts: Mutex::new(None),
            notes: Mutex::new(Vec::new()),
            ended: Mutex::new(None),
        })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        loop {
            let event = py.detach(|| locked(&self.events).recv_timeout(PATIENCE));
            match event {
                Ok(Event::Entry(entry)) => return to_json(py, &entry).map(Some),
                Ok(Event::Begun(facts)) => *locked(&self.facts) = Some(facts),
                Ok(Event::Note(note)) => locked(&self.notes).push(note),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = py.check_signals() {
                        // The run saves a checkpoint and ends.
                        self.stop.store(true, Ordering::Relaxed);
                        self.join(py)?;
                        return Err(error);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.join(py)?;
                    return Ok(None);
                }
            }
        }
    }

    /// Asks the run to save a checkpoint and to end.
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns what is known before the first step, as JSON.
    #[getter]
    fn facts(&self) -> Option<String> {
        locked(&self.facts).clone()
    }

    #[getter]
    fn notes(&self) -> Vec<String> {
        locked(&self.notes).clone()
    }

    /// Returns the folder of the finished model; `None` while the run goes on, or if it was stopped.
    #[getter]
    fn model(&self) -> Option<PathBuf> {
        locked(&self.ended).as_ref()?.model.clone()
    }

    /// Returns the step that a resumed run begins with.
    #[getter]
    fn next_step(&self) -> Option<u64> {
        locked(&self.ended)
            .as_ref()
            .map(|outcome| outcome.next_step)
    }
}

impl Training {
    /// Waits for the end of the run.
    fn join(&self, py: Python<'_>) -> PyResult<()> {
        let Some(thread) = locked(&self.thread).take() else {
            return Ok(());
        };
        let sentence = match py.detach(|| thread.join()) {
            Ok(Ok(outcome)) => {
                *locked(&self.ended) = Some(outcome);
                return Ok(());
            }
            Ok(Err(sentence)) => sentence,
            Err(_) => "internal error of m3ret; this is a bug".to_owned(),
        };
        Err(errors::exception(py, Class::Any, sentence))
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
