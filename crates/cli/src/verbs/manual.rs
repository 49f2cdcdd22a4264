//! `m3ret completions` and `m3ret man`: what shells and `man` read of the command line.

use std::io::Write as _;
use std::path::Path;

use clap::{Command, CommandFactory as _};

use crate::Outcome;
use crate::cli::{Cli, CompletionsArguments, ManArguments};
use crate::out;
use m3ret::files::{check_free, write_whole};

/// Prints the script of a shell.
pub(crate) fn completions(arguments: &CompletionsArguments) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "m3ret", &mut script);
    out::stdout().write_all(&script)?;
    Ok(Outcome::AllGood)
}

/// Writes the manual pages.
pub(crate) fn man(arguments: &ManArguments) -> anyhow::Result<Outcome> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    draw(&command, "m3ret", &mut pages)?;
    for (name, _) in &pages {
        check_free(&arguments.folder.join(name), arguments.force)?;
    }
    for (name, page) in &pages {
        write(&arguments.folder.join(name), page)?;
    }
    Ok(Outcome::AllGood)
}

fn write(path: &Path, page: &[u8]) -> anyhow::Result<()> {
    Ok(write_whole(path, |out| Ok(out.write_all(page)?))?)
}

/// Draws the page of a command and of those below it.
fn draw(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    pages.push((format!("{name}.1"), page));
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        draw(below, &format!("{name}-{}", below.get_name()), pages)?;
    }
    Ok(())
}
