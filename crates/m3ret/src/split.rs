//! Splits a manifest into pretrain, gallery and query, by patient; see docs/splits.md.

pub mod check;
mod groups;
mod images;
pub mod overlap;
mod rows;
pub mod shares;
pub mod summary;

use std::path::{Path, PathBuf};

use crate::error::ensure;
use anyhow::Context as _;
use m3ret_manifest::columns::{BODY_PART, DIMS, FINDING, MODALITY, PAIR, PATH, SOURCE, SPLIT};
use m3ret_manifest::{Layout, Table, Writer, path_of, text_of};

use crate::choices::no_column;
use crate::files::{check_new_file, way_between};
use crate::options::{ModelChoice, Reading};
use crate::watch::{Deferral, Stopped, Watch};
use crate::words::counted;
use groups::Groups;
use images::Images;
use rows::Sources;
use shares::{Assignment, Group, Shares, Split, assign, commonest};
use summary::{JoinCounts, Outline, SplitSummary};

/// The default seed.
pub const SEED: u64 = 0;
/// The default share of groups that become queries.
pub const QUERY_SHARE: f64 = 0.2;
/// The default share of groups that are trained on.
pub const PRETRAIN_SHARE: f64 = 0.0;
/// The default for the smallest cosine of near duplicates.
pub const NEAR: f32 = 0.98;

/// Columns that are balanced by default, if the manifest has them.
const STRATIFY: [&str; 5] = [MODALITY, DIMS, SOURCE, BODY_PART, FINDING];
/// Pairs of images that are compared together.
const BATCH_PAIRS: usize = 4096;

/// How a manifest is split, and where to.
#[derive(Debug, Clone)]
pub struct SplitOptions {
    /// The manifest, CSV or Parquet with a column `path`.
    pub manifest: PathBuf,
    /// The manifest with its split that is written; its extension chooses CSV or Parquet.
    pub out: PathBuf,
    /// Decides the order in which groups are cut.
    pub seed: u64,
    /// Share of groups that become queries, 0..=1.
    pub query: f64,
    /// Share of groups that are trained on, 0..=1; the gallery gets the rest, which must be above 0.
    pub pretrain: f64,
    /// Columns in whose every combination of words the shares are met, the most important first; `None` for those of
    /// `modality`, `dims`, `source`, `body_part` and `finding` that the manifest has.
    pub stratify: Option<Vec<String>>,
    /// Whether words in a column `split` of the manifest may be replaced.
    pub is_overwriting: bool,
    /// Whether the result may replace a file that is there.
    pub is_forced: bool,
    /// How images are read and compared.
    pub images: ImageOptions,
}

/// How the images of rows are read and compared.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// Whether images are read. If not, copies are found by their paths only, and near duplicates are not found.
    pub are_read: bool,
    /// Smallest cosine of near duplicates, whose thumbnails must agree too.
    pub near: f32,
    /// Folder of the galleries of manifests; `None` for the cache of the user.
    pub cache: Option<PathBuf>,
    /// The model whose vectors are compared; without a name, `pixels`.
    pub model: ModelChoice,
    /// How images are read; its limits hold for manifests too.
    pub reading: Reading,
}

/// Splits a manifest by patient and writes it with its split.
///
/// # Errors
/// If the shares leave nothing for the gallery; if the manifest has no rows, has a split that may not be replaced, or
/// lacks a column; if an image is named twice; if the result would replace the manifest or cannot be written;
/// `Stopped` if the watcher stopped the work.
pub fn split(options: &SplitOptions, watch: &dyn Watch) -> crate::Result<SplitSummary> {
    let SplitOptions { manifest, out, .. } = options;
    ensure!(
        options.query + options.pretrain < 1.0,
        "the shares of query and pretrain leave nothing for the gallery; their sum must be below 1"
    );
    let limits = &options.images.reading.options.limits;
    let sources = Sources::open([manifest.as_path()], limits, watch)?;
    let source = &sources.0[0];
    ensure!(!source.table.is_empty(), "the manifest has no rows");
    check_new_file(out, options.is_forced, &[manifest])?;
    refuse_older_split(options, &source.table)?;
    let columns = strata(options, &source.table)?;
    let images = Images::open(&sources, &options.images, watch)?;
    watch.step("comparing");
    let (members, joins) = grouped(&sources, images.as_ref(), options.images.near, watch)?;
    let assignment = divide(options, &sources, &columns, &members);
    let mut splits = vec![Split::Gallery; sources.n_rows()];
    for (members, &split) in members.iter().zip(&assignment.splits) {
        members.iter().for_each(|&row| splits[row] = split);
    }
    write(out, &sources, &splits, watch)?;
    let outline = Outline {
        sources: &sources,
        members: &members,
        joins,
        stratify: columns,
        assignment,
        splits: &splits,
        images: images.map(Images::into_summary),
    };
    Ok(outline.into_summary())
}

fn refuse_older_split(options: &SplitOptions, table: &Table) -> anyhow::Result<()> {
    let has_words =
        |column: &m3ret_manifest::Column| column.words().any(|word| !word.trim().is_empty());
    ensure!(
        options.is_overwriting || !table.column(SPLIT).is_some_and(has_words),
        "{} has a column {SPLIT} already; --overwrite replaces it, --check looks at it",
        options.manifest.display()
    );
    Ok(())
}

/// Returns the columns that are balanced.
fn strata(options: &SplitOptions, table: &Table) -> anyhow::Result<Vec<String>> {
    let has = |name: &str| table.column(name).is_some();
    let Some(named) = &options.stratify else {
        let there = STRATIFY.into_iter().filter(|name| has(name));
        return Ok(there.map(str::to_owned).collect());
    };
    let mut ours = Vec::with_capacity(named.len());
    for name in named {
        let name = table.name_of(name).unwrap_or(name);
        if !has(name) {
            let columns = table.columns().iter().map(String::as_str);
            let option = format!("--stratify {name}");
            return Err(no_column(&option, "the manifest", columns));
        }
        ensure!(name != SPLIT, "--stratify {name}: this column is written");
        ours.push(name.to_owned());
    }
    Ok(ours)
}

/// Joins rows of one patient, of one pair, copies and near duplicates; returns the rows of each group, and counts by
/// what joined them.
fn grouped(
    sources: &Sources,
    images: Option<&Images>,
    near: f32,
    watch: &dyn Watch,
) -> anyhow::Result<(Vec<Vec<usize>>, JoinCounts)> {
    let mut groups = Groups::new(sources.n_rows());
    let mut joins = JoinCounts {
        patient: groups.join_equal(sources.patients()),
        pair: groups.join_equal(sources.words(PAIR)),
        ..JoinCounts::default()
    };
    let files = sources.files();
    joins.exact = groups.join_equal(files.iter().map(String::as_str));
    if let Some(images) = images {
        joins.exact += groups.join_equal(images.pixels.iter().map(String::as_str));
        let close = images.close(near, |_, _| true, watch)?;
        for pairs in close.chunks(BATCH_PAIRS) {
            let mut left = pairs.to_vec();
            // The files of rows that are joined already are not compared.
            left.retain(|pair| !groups.are_joined(pair.rows[0], pair.rows[1]));
            for (pair, verdict) in left.iter().zip(images.confirm(&left)?) {
                let is_new = verdict.is_some() && groups.join(pair.rows[0], pair.rows[1]);
                joins.near += usize::from(is_new);
            }
        }
    }
    Ok((groups.members(), joins))
}

/// Gives each group a split.
fn divide(
    options: &SplitOptions,
    sources: &Sources,
    columns: &[String],
    members: &[Vec<usize>],
) -> Assignment {
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
        query: options.query,
        pretrain: options.pretrain,
    };
    assign(&groups.collect::<Vec<_>>(), shares, options.seed)
}

/// Writes all columns with the split of each row, in the older column `split` or in a new last one.
fn write(out: &Path, sources: &Sources, splits: &[Split], watch: &dyn Watch) -> anyhow::Result<()> {
    let doing = || format!("writing {}", out.display());
    let source = &sources.0[0];
    // The result keeps the names of columns of the input file.
    let (ours, written) = (source.table.columns(), source.table.written_columns());
    let mut columns: Vec<&str> = written.iter().map(String::as_str).collect();
    let path_idx = ours.iter().position(|name| name == PATH);
    let split_idx = ours.iter().position(|name| name == SPLIT);
    let split_idx = split_idx.unwrap_or_else(|| {
        columns.push(SPLIT);
        columns.len() - 1
    });
    let way = way_between(out, &source.path).with_context(doing)?;
    let deferral = Deferral::start(watch);
    let mut writer = Writer::create(out, Layout::for_path(out), &columns).with_context(doing)?;
    let mut n_changed = 0;
    for (row, split) in source.table.rows().zip(splits) {
        let mut cells: Vec<&str> = row.written_cells().collect();
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
        crate::error::bail!(Stopped { saved });
    }
    writer.finish().with_context(doing)?;
    let unwritten = source.table.unread_columns();
    if !unwritten.is_empty() {
        watch.note(&format!(
            "{} has no column {}: columns of a nested or binary type are not written",
            out.display(),
            unwritten.join(", ")
        ));
    }
    if n_changed > 0 {
        watch.note(&format!(
            "{} changed, because {} lies in another folder",
            counted(n_changed, "path was", "paths were"),
            out.display()
        ));
    }
    Ok(())
}
