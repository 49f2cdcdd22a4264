//! `m3ret split`: a manifest into pretrain, gallery and query, by patient.

mod check;
mod groups;
mod images;
mod overlap;
mod rows;
mod shares;
mod told;

use m3ret_manifest::{path_of, text_of};
use std::path::Path;

use anyhow::{Context as _, ensure};
use m3ret_manifest::columns::{BODY_PART, DIMS, FINDING, MODALITY, PAIR, PATH, SOURCE, SPLIT};
use m3ret_manifest::{Layout, Table, Writer};

use crate::Outcome;
use crate::cli::SplitArguments;
use crate::output::{Screen, refuse_irregular, way_between};
use crate::progress::Progress;
use crate::watch::{Deferral, Stopped, Watch};
use groups::Groups;
use images::Images;
use rows::Sources;
use shares::{Assigned, Group, Shares, Split, assign, commonest};
use told::{Joined, Made, tell};

/// Columns whose words are balanced where nobody names others.
const STRATIFY: [&str; 5] = [MODALITY, DIMS, SOURCE, BODY_PART, FINDING];
/// Pairs of images that are looked at together.
const BATCH_PAIRS: usize = 4096;

/// Splits a manifest, or checks a split.
pub(crate) fn run(arguments: &SplitArguments, screen: Screen) -> anyhow::Result<Outcome> {
    if let Some(others) = &arguments.check {
        arguments.reading.start_threads()?;
        return check::run(arguments, others, screen);
    }
    arguments.refuse_impossible_shares();
    arguments.reading.start_threads()?;
    let out = arguments.out.as_deref().context("--out is missing")?;
    let progress = Progress::start(screen);
    let limits = arguments.reading.options().limits;
    let sources = Sources::open([arguments.manifest.as_path()], &limits, &progress)?;
    let source = &sources.0[0];
    ensure!(!source.table.is_empty(), "the manifest has no rows");
    refuse_irregular(out)?;
    ensure!(
        !out.canonicalize().is_ok_and(|out| out == source.path),
        "{} is being read; give the result another name",
        out.display()
    );
    refuse_older_split(arguments, &source.table)?;
    let columns = strata(arguments, &source.table)?;
    let images = match arguments.no_duplicates {
        true => None,
        false => Some(Images::open(&sources, arguments, &progress)?),
    };
    progress.step("comparing");
    let (members, joined) = grouped(&sources, images.as_ref(), arguments.near, &progress)?;
    let assigned = divide(arguments, &sources, &columns, &members);
    let mut splits = vec![Split::Gallery; sources.n_rows()];
    for (members, &split) in members.iter().zip(&assigned.splits) {
        members.iter().for_each(|&row| splits[row] = split);
    }
    write(out, &sources, &splits, &progress)?;
    let made = Made {
        arguments,
        out,
        sources: &sources,
        columns: &columns,
        images: images.as_ref(),
        members: &members,
        joined,
        assigned: &assigned,
        splits: &splits,
    };
    tell(&made, &progress, screen)?;
    let is_good = images.is_none_or(|images| images.n_refused() == 0);
    Ok(if is_good {
        Outcome::AllGood
    } else {
        Outcome::SomeRefused
    })
}

fn refuse_older_split(arguments: &SplitArguments, table: &Table) -> anyhow::Result<()> {
    let has_words =
        |column: &m3ret_manifest::Column| column.words().any(|word| !word.trim().is_empty());
    ensure!(
        arguments.overwrite || !table.column(SPLIT).is_some_and(has_words),
        "{} has a column {SPLIT} already; --overwrite replaces it, --check looks at it",
        arguments.manifest.display()
    );
    Ok(())
}

/// Returns the columns that are balanced.
fn strata(arguments: &SplitArguments, table: &Table) -> anyhow::Result<Vec<String>> {
    let has = |name: &str| table.column(name).is_some();
    let Some(named) = &arguments.stratify else {
        let there = STRATIFY.into_iter().filter(|name| has(name));
        return Ok(there.map(str::to_owned).collect());
    };
    let mut ours = Vec::with_capacity(named.len());
    for name in named {
        let name = table.name_of(name).unwrap_or(name);
        ensure!(
            has(name),
            "--stratify {name}: the manifest has no such column; it has {}",
            table.columns().join(", ")
        );
        ensure!(name != SPLIT, "--stratify {name}: this column is written");
        ours.push(name.to_owned());
    }
    Ok(ours)
}

/// Joins rows of one patient, of one pair, copies and near duplicates; returns the rows of each
/// group.
fn grouped(
    sources: &Sources,
    images: Option<&Images>,
    near: f32,
    progress: &dyn Watch,
) -> anyhow::Result<(Vec<Vec<usize>>, Joined)> {
    let mut groups = Groups::new(sources.n_rows());
    let mut joined = Joined {
        patient: groups.join_equal(sources.patients()),
        pair: groups.join_equal(sources.words(PAIR)),
        ..Joined::default()
    };
    let files = sources.files();
    joined.exact = groups.join_equal(files.iter().map(String::as_str));
    if let Some(images) = images {
        joined.exact += groups.join_equal(images.pixels.iter().map(String::as_str));
        let close = images.close(near, |_, _| true, progress)?;
        for pairs in close.chunks(BATCH_PAIRS) {
            let mut left = pairs.to_vec();
            // What is joined already needs no look at its files.
            left.retain(|pair| !groups.are_joined(pair.rows[0], pair.rows[1]));
            for (pair, verdict) in left.iter().zip(images.confirm(&left)?) {
                let is_new = verdict.is_some() && groups.join(pair.rows[0], pair.rows[1]);
                joined.near += usize::from(is_new);
            }
        }
    }
    Ok((groups.members(), joined))
}

fn divide(
    arguments: &SplitArguments,
    sources: &Sources,
    columns: &[String],
    members: &[Vec<usize>],
) -> Assigned {
    let names = sources.names();
    let words: Vec<Vec<&str>> = columns.iter().map(|name| sources.words(name)).collect();
    let cell = |&row: &usize| words.iter().map(|words| words[row]).collect();
    let groups = members.iter().map(|rows| Group {
        name: rows
            .iter()
            .map(|&row| names[row].as_str())
            .min()
            .unwrap_or_default(),
        cell: commonest(rows.iter().map(cell)),
    });
    let shares = Shares {
        query: arguments.query,
        pretrain: arguments.pretrain,
    };
    assign(&groups.collect::<Vec<_>>(), shares, arguments.seed)
}

/// Writes all columns, with the split of each row in place of an older one or behind them.
fn write(
    out: &Path,
    sources: &Sources,
    splits: &[Split],
    progress: &dyn Watch,
) -> anyhow::Result<()> {
    let doing = || format!("writing {}", out.display());
    let source = &sources.0[0];
    // What is written has the user's own names of columns.
    let (ours, written) = (source.table.columns(), source.table.written_columns());
    let mut columns: Vec<&str> = written.iter().map(String::as_str).collect();
    let path_idx = ours.iter().position(|name| name == PATH);
    let split_idx = ours.iter().position(|name| name == SPLIT);
    let split_idx = split_idx.unwrap_or_else(|| {
        columns.push(SPLIT);
        columns.len() - 1
    });
    let way = way_between(out, &source.path).with_context(doing)?;
    let deferral = Deferral::start(progress);
    let mut writer = Writer::create(out, Layout::for_path(out), &columns).with_context(doing)?;
    let mut n_changed = 0;
    for (row, split) in source.table.rows().zip(splits) {
        let mut cells: Vec<&str> = row.cells().collect();
        cells.resize(columns.len(), "");
        cells[split_idx] = split.word();
        let changed = text_of(&way.join(path_of(row.path())));
        if let Some(path_idx) = path_idx
            && changed != row.path()
        {
            cells[path_idx] = &changed;
            n_changed += 1;
        }
        writer.push(cells).with_context(doing)?;
    }
    if deferral.is_stopped() {
        let saved = "interrupted; nothing was written".to_owned();
        anyhow::bail!(Stopped { saved });
    }
    writer.finish().with_context(doing)?;
    if n_changed > 0 {
        progress.note(&format!(
            "{n_changed} paths were changed, because {} lies in another folder",
            out.display()
        ));
    }
    Ok(())
}
