//! How far the work is: a bar on a terminal, or lines for a log where they are asked for; else nothing.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::out;
use crate::screen::{self, Detail, Screen};
use crate::text::rate;
use m3ret::watch::Watch;

/// How far a walk over many objects is.
pub(crate) struct Progress {
    bar: ProgressBar,
    has_notes: bool,
    /// Lines in place of the bar.
    lines: Option<RefCell<Lines>>,
}

/// Progress as lines.
struct Lines {
    began: Instant,
    told: Instant,
    n_done: usize,
    n_objects: usize,
}

/// Time between lines that say how far a step is.
const LINES_EVERY: Duration = Duration::from_secs(10);

impl Lines {
    fn start() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            told: now,
            n_done: 0,
            n_objects: 0,
        }
    }

    fn tell(&mut self, sentence: &str) {
        self.told = Instant::now();
        let seconds = self.began.elapsed().as_secs_f64();
        out::tell(&format!("{seconds:.1} s: {sentence}"));
    }

    fn advance(&mut self, n_refused: usize) {
        self.n_done += 1;
        if self.n_done == self.n_objects || self.told.elapsed() >= LINES_EVERY {
            let of = format!("{} of {} objects", self.n_done, self.n_objects);
            self.tell(&format!("{of}, {n_refused} refused"));
        }
    }
}

impl Drop for Progress {
    /// An error message or a prompt needs the line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Progress {
    /// Starts with a search for images, before it is known how many there are.
    pub(crate) fn start(screen: Screen) -> Self {
        Self::begin(screen, "looking for images")
    }

    /// Starts with a step.
    pub(crate) fn begin(screen: Screen, step: &str) -> Self {
        let bar = if screen.has_progress {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        bar.enable_steady_tick(Duration::from_millis(100));
        let progress = Self {
            bar,
            has_notes: screen.detail >= Detail::Notes,
            lines: (screen.detail == Detail::Steps).then(|| RefCell::new(Lines::start())),
        };
        progress.step(step);
        progress
    }

    /// Writes to standard output without tearing the bar.
    pub(crate) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        if !self.bar.is_hidden() && out::is_terminal() {
            self.bar.suspend(write)
        } else {
            write()
        }
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Progress {
    fn step(&self, name: &str) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().tell(name.trim_start_matches(", "));
        }
        self.bar.set_message(name.to_owned());
    }

    fn count(&self, n_entries: usize) {
        if let Some(lines) = &self.lines {
            let mut lines = lines.borrow_mut();
            (lines.n_done, lines.n_objects) = (0, n_entries);
            lines.tell(&format!("{n_entries} objects to do"));
        }
        let template = "{bar:30} {human_pos}/{human_len} objects, {rate}, {time_left}{msg}";
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A bar that cannot be drawn is no error.
            let _ = write!(out, "{}/s", rate(state.per_sec()));
        };
        let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&time_left(state.pos(), state.eta()));
        };
        let style = ProgressStyle::with_template(template)
            .expect("the template is ours")
            .with_key("rate", rate)
            .with_key("time_left", left)
            .progress_chars("=> ");
        self.bar.set_message("");
        self.bar.set_style(style);
        self.bar
            .set_length(u64::try_from(n_entries).unwrap_or(u64::MAX));
        self.bar.reset_eta();
    }

    fn advance(&self, n_refused: usize) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().advance(n_refused);
        }
        self.bar.inc(1);
        if n_refused > 0 {
            self.bar.set_message(format!(", {n_refused} refused"));
        }
    }

    fn note(&self, sentence: &str) {
        if self.has_notes {
            self.bar.suspend(|| out::tell(sentence));
        }
    }

    fn defer(&self, is_deferred: bool) {
        screen::defer_interrupts(is_deferred);
    }

    fn is_stopped(&self) -> bool {
        screen::has_interrupt_come()
    }
}

/// Nothing is known of the time before one object is done.
pub(crate) fn time_left(n_done: u64, estimate: Duration) -> String {
    if n_done == 0 {
        "-".to_owned()
    } else {
        format!("{:#} left", HumanDuration(estimate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_once_one_object_is_done() {
        assert_eq!(time_left(0, Duration::ZERO), "-");
        assert_eq!(time_left(1, Duration::from_secs(20)), "20s left");
    }
}
