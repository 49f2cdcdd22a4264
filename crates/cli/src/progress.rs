//! The bar on a terminal; nothing elsewhere.

use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::out;
use crate::screen::{self, Screen};
use crate::text::rate;
use m3ret::watch::Watch;

/// How far a walk over many objects is.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Drop for Progress {
    /// An error message or a prompt needs the line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Progress {
    /// Starts before it is known how many objects there are.
    pub(crate) fn start(screen: Screen) -> Self {
        let bar = if screen.has_progress {
            ProgressBar::new_spinner().with_message("looking for images")
        } else {
            ProgressBar::hidden()
        };
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
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
        self.bar.set_message(name.to_owned());
    }

    fn count(&self, n_entries: usize) {
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
        self.bar.inc(1);
        if n_refused > 0 {
            self.bar.set_message(format!(", {n_refused} refused"));
        }
    }

    fn note(&self, sentence: &str) {
        self.bar.suspend(|| out::tell(sentence));
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
