//! A training run on a terminal: its bar, its lines, and Ctrl-C.

use std::io::{self, Write as _};
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use m3ret::report::training;
use m3ret::words::counted;
use m3ret_pretrain::report::{Entry, Knn, Summary};
use m3ret_pretrain::{RunFacts, Watcher};

use crate::out;
use crate::progress::time_left;
use crate::screen::{self, Detail, Screen};
use crate::verbs::write_json_line;

/// Without a bar, how often a person is told how it goes.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Tells a person or a machine what happens.
pub(crate) struct TerminalWatch {
    pub(crate) is_json: bool,
    has_notes: bool,
    pub(crate) bar: ProgressBar,
    /// Standard output failed: the run ends at the next step.
    pub(crate) broken: Option<io::Error>,
    pub(crate) last_told: Option<Instant>,
    pub(crate) n_steps: u64,
    pub(crate) knn: Option<Knn>,
}

impl TerminalWatch {
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
            has_notes: screen.detail >= Detail::Notes,
            bar,
            broken: None,
            last_told: None,
            n_steps: 0,
            knn: None,
        }
    }

    /// Writes a line to standard output; a failure ends the run soon.
    fn line(&mut self, write: impl FnOnce(&mut out::Stdout) -> io::Result<()>) {
        let written = self.bar.suspend(|| write(&mut out::stdout()));
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

impl Drop for TerminalWatch {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        screen::defer_interrupts(false);
    }
}

impl Watcher for TerminalWatch {
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
            "{}, {} more kept for validation; {} parameters; {}{from}",
            counted(facts.n_items as u64, "item", "items"),
            facts.n_validation,
            facts.n_parameters,
            counted(facts.n_steps, "step", "steps")
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
        if !self.is_json && self.has_notes {
            self.now_and_then(entry);
        }
    }

    fn note(&mut self, sentence: &str) {
        if !self.has_notes {
            return;
        }
        self.bar.suspend(|| {
            // A run does not end because nobody can be told.
            out::tell(sentence);
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

pub(crate) fn told(knn: &Knn) -> String {
    format!(
        "hit@1 {:.3} (chance {:.3}), precision@5 {:.3}, {}",
        knn.hit_at_1,
        knn.chance_hit_at_1,
        knn.precision_at_5,
        counted(
            knn.n_queries as u64,
            "validation query",
            "validation queries"
        )
    )
}
