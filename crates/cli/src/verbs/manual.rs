//! `m3ret completions` and `m3ret man`: what shells and `man` read of the command line.

use std::io::Write as _;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::Outcome;
use crate::cli::{Cli, CompletionsArguments, ManArguments};
use crate::out;

/// Prints the script of a shell.
pub(crate) fn completions(arguments: &CompletionsArguments) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "m3ret", &mut script);
    out::stdout().write_all(&script)?;
    Ok(Outcome::AllGood)
}

/// Writes the manual pages.
pub(crate) fn man(arguments: &ManArguments) -> anyhow::Result<Outcome> {
    let folder = &arguments.folder;
    let doing = || format!("writing manual pages to {}", folder.display());
    clap_mangen::generate_to(Cli::command(), folder).with_context(doing)?;
    Ok(Outcome::AllGood)
}
