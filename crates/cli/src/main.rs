//! The `m3ret` command line: finds, checks and describes medical images.
//!
//! Exit status: 0 if all went well, 1 if something failed or was refused, 2 for wrong usage.

#![allow(
    clippy::disallowed_methods,
    reason = "the outermost crate may read the environment"
)]

mod cli;
mod out;
mod progress;
mod screen;
mod text;
#[cfg(feature = "training")]
mod training;
mod verbs;
#[cfg(feature = "weights")]
mod weights;

use std::io;
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use m3ret::panics;
use m3ret::watch::Stopped;
use screen::Screen;

/// How a command ended that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Everything was readable.
    AllGood,
    /// At least one object was refused.
    SomeRefused,
}

impl Outcome {
    fn of(is_good: bool) -> Self {
        if is_good {
            Self::AllGood
        } else {
            Self::SomeRefused
        }
    }
}

fn main() -> ExitCode {
    let words = match cli::config::with_file(std::env::args_os().collect()) {
        Ok(words) => words,
        Err(error) => {
            out::tell(&told_once(&error));
            return ExitCode::from(2);
        }
    };
    let cli = Cli::parse_from(words);
    panics::stay_silent_about_values();
    #[cfg(feature = "weights")]
    m3ret::model_name::build_in(&weights::MODELS);
    match run(&cli) {
        Ok(Outcome::AllGood) => ExitCode::SUCCESS,
        Ok(Outcome::SomeRefused) => ExitCode::FAILURE,
        // Whoever reads our output (`| head`) has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let stopped = error
                .chain()
                .find_map(|cause| cause.downcast_ref::<Stopped>());
            if let Some(stopped) = stopped {
                screen::end_interrupted(&stopped.saved);
            }
            out::tell(&told_once(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Outcome> {
    screen::remove_temporaries_on_interrupt()?;
    let screen = Screen::detect(cli.detail());
    match &cli.command {
        Command::Inspect(arguments) => verbs::inspect::run(arguments, screen),
        Command::Check(arguments) => verbs::check::run(arguments, screen),
        Command::Embed(arguments) => verbs::embed::run(arguments, screen),
        #[cfg(feature = "training")]
        Command::Pretrain(arguments) => verbs::pretrain::run(arguments, screen),
        Command::Search(arguments) => verbs::search::run(arguments, screen),
        Command::Index(arguments) => verbs::index::run(arguments, screen),
        #[cfg(feature = "lake")]
        Command::Lake(arguments) => verbs::lake::run(arguments, screen),
        Command::Erase(arguments) => verbs::erase::run(arguments, screen),
        Command::Evaluate(arguments) => verbs::evaluate::run(arguments, screen),
        Command::Compare(arguments) => verbs::compare::run(arguments, screen),
        #[cfg(feature = "training")]
        Command::Study(arguments) => verbs::study::run(arguments, screen),
        Command::Dedup(arguments) => verbs::dedup::run(arguments, screen),
        Command::Map(arguments) => verbs::map::run(arguments, screen),
        Command::Simulate(arguments) => verbs::simulate::run(arguments, screen),
        Command::Split(arguments) => verbs::split::run(arguments, screen),
        Command::Serve(arguments) => verbs::serve::run(arguments, screen),
        Command::Sync(arguments) => verbs::sync::run(arguments, screen),
        Command::Receive(arguments) => verbs::receive::run(arguments, screen),
        Command::Audit(arguments) => verbs::audit::run(arguments),
        Command::Completions(arguments) => verbs::manual::completions(arguments),
        Command::Man(arguments) => verbs::manual::man(arguments),
    }
}

/// Joins an error and its causes, leaving out what an earlier one already says.
fn told_once(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}
