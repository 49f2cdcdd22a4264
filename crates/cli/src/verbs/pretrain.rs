//! `m3ret pretrain`: a config to a trained model folder.

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use m3ret_pretrain::report::{Entry, Knn, Summary};
use m3ret_pretrain::{Begin, Config, RunFacts, Watcher, train};

use super::write_json_line;
use crate::Outcome;
use crate::cli::{PretrainArguments, n_cores};
use crate::progress::time_left;
use crate::screen::{self, Screen};
use m3ret::report::training;

/// Without a bar, how often a person is told how it goes.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Trains, and says how it goes.
///
/// # Errors
/// As `train`; a closed pipe.
pub(crate) fn run(arguments: &PretrainArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let n_threads = arguments.threads.map_or_else(n_cores, NonZeroUsize::get);
    rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .build_global()?;
    let config = Config::load(&arguments.config, &arguments.set)?;
    let begin = if arguments.resume {
        Begin::Resume
    } else {
        Begin::Fresh
    };
    let mut teller = Teller::new(arguments.json, screen);
    let outcome = train(&config, begin, &mut teller)?;
    teller.bar.finish_and_clear();
    if let Some(error) = teller.broken.take() {
        // Not as a closed pipe, which other verbs take as the end: the run has not ended.
        anyhow::bail!(
            "standard output cannot be written ({error}); stopped after {} steps, --resume goes on",
            outcome.next_step
        );
    }
    let Some(model) = outcome.model else {
        let next = outcome.next_step;
        screen::end_interrupted(&format!(
            "stopped after {next} steps; --resume goes on from there"
        ));
    };
    if !arguments.json {
        // Without the detours of a path that is relative to the config.
        let out = config
            .out
            .canonicalize()
            .unwrap_or_else(|_| config.out.clone());
        let model = out.join(model.file_name().unwrap_or_default());
        let mut screen = io::stdout().lock();
        writeln!(screen, "Trained for {} steps", outcome.next_step)?;
        if let Some(knn) = teller.knn {
            writeln!(screen, "  retrieval  {}", told(&knn))?;
        }
        writeln!(screen, "  model      {}", model.display())?;
        writeln!(screen, "  report     {}", out.join("report.html").display())?;
        writeln!(
            screen,
            "  use it     m3ret embed SRC --model {} --out vectors.npy",
            model.display()
        )?;
    }
    Ok(Outcome::AllGood)
}

/// Tells a person or a machine what happens.
pub(crate) struct Teller {
    is_json: bool,
    pub(crate) bar: ProgressBar,
    /// Standard output failed: the run ends at the next step.
    broken: Option<io::Error>,
    last_told: Option<Instant>,
    n_steps: u64,
    knn: Option<Knn>,
}

impl Teller {
    pub(crate) fn new(is_json: bool, screen: Screen) -> Self {
        let bar = if screen.has_progress {
            ProgressBar::new_spinner().with_message("reading the manifests")
        } else {
            ProgressBar::hidden()
        };
        bar.enable_steady_tick(Duration::from_millis(200));
        screen::defer_interrupts(true);
        Self {
            is_json,
            bar,
            broken: None,
            last_told: None,
            n_steps: 0,
            knn: None,
        }
    }

    /// Writes a line to standard output; a failure ends the run soon.
    fn line(&mut self, write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) {
        let written = self.bar.suspend(|| write(&mut io::stdout().lock()));
        if let Err(error) = written {
            self.broken.get_or_insert(error);
        }
    }

    fn says(&mut self, sentence: &str) {
        self.line(|out| writeln!(out, "{sentence}"));
    }

    /// Without a bar, says how it goes now and then.
    fn now_and_then(&mut self, entry: &Entry) {
        let is_due = self
            .last_told
            .is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if !self.bar.is_hidden() || !is_due {
            return;
        }
        self.last_told = Some(Instant::now());
        let n_steps = self.n_steps;
        let loss = entry
            .loss
            .map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}"));
        let rate = entry.items_per_second.unwrap_or_default();
        let step = entry.step + 1;
        self.says(&format!(
            "step {step} of {n_steps}: loss {loss}, {rate:.1} items/s"
        ));
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        screen::defer_interrupts(false);
    }
}

impl Watcher for Teller {
    fn begun(&mut self, facts: &RunFacts) {
        self.n_steps = facts.n_steps;
        self.bar.set_style(style());
        self.bar.set_message("");
        self.bar.set_length(facts.n_steps);
        self.bar.set_position(facts.first_step);
        self.bar.reset_eta();
        if self.is_json {
            return;
        }
        let from = match facts.first_step {
            0 => String::new(),
            first => format!(", from step {first}"),
        };
        self.says(&format!(
            "{} items, {} more kept for validation; {} parameters; {} steps{from}",
            facts.n_items, facts.n_validation, facts.n_parameters, facts.n_steps
        ));
    }

    fn entry(&mut self, entry: &Entry) {
        if let Some(knn) = entry.knn_teacher.or(entry.knn_student) {
            self.knn = Some(knn);
        }
        if self.is_json {
            self.line(|out| write_json_line(out, entry));
        } else if let Some(knn) = entry.knn_teacher.or(entry.knn_student) {
            self.says(&format!("step {}: {}", entry.step, told(&knn)));
        }
        if entry.items.is_none() {
            return;
        }
        self.bar.set_position(entry.step + 1);
        let loss = entry
            .loss
            .map_or_else(String::new, |loss| format!(", loss {loss:.4}"));
        let rate = entry
            .items_per_second
            .map_or_else(String::new, |rate| format!(", {rate:.1} items/s"));
        self.bar.set_message(loss + &rate);
        if !self.is_json {
            self.now_and_then(entry);
        }
    }

    fn note(&mut self, sentence: &str) {
        self.bar.suspend(|| {
            // A run does not end because nobody can be told.
            let _ = writeln!(io::stderr(), "m3ret: {sentence}");
        });
    }

    fn checkpoint(
        &mut self,
        summary: &Summary<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let page = summary.facts.out.join("report.html");
        Ok(training::write(&page, summary)?)
    }

    fn stop_asked(&mut self) -> bool {
        screen::has_interrupt_come() || self.broken.is_some()
    }

    fn now(&mut self) -> Duration {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

fn style() -> ProgressStyle {
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A bar that cannot be drawn is no error.
        let _ = out.write_str(&time_left(state.pos(), state.eta()));
    };
    ProgressStyle::with_template("{bar:20} {human_pos}/{human_len} steps, {time_left}{wide_msg}")
        .expect("the template is ours")
        .with_key("time_left", left)
        .progress_chars("=> ")
}

fn told(knn: &Knn) -> String {
    format!(
        "hit@1 {:.3} (chance {:.3}), precision@5 {:.3}, {} validation queries",
        knn.hit_at_1, knn.chance_hit_at_1, knn.precision_at_5, knn.n_queries
    )
}
