//! The parts of an array of tasks become rows of a lake, in one change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use m3ret_imaging::Limits;
use m3ret_lake::{Added, Brought, Lake, LakeKey, LakeWriter, Rows};
use m3ret_manifest::{Manifest, text_of};
use m3ret_search::{Error, Maker, Numbers, Setup};
use serde::Serialize;

use crate::embed::array_task::{Part, parts};
use crate::embed::items::keep;
use crate::error::ensure;
use crate::index::rows_of;
use crate::vectors;
use crate::watch::{Stopped, Watch};

/// How parts become rows.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Columns of the manifest that are stored although m3ret does not know them.
    pub keep: Vec<String>,
    /// Number format of a lake that is made.
    pub numbers: Numbers,
    /// The file of the key of a lake that is made; `None` draws one.
    pub key: Option<PathBuf>,
    /// Whether parts are committed although others are missing.
    pub is_partial: bool,
}

/// What was committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Committed {
    /// Parts whose rows were added now.
    pub n_parts: usize,
    /// Parts whose rows were there.
    pub n_parts_before: usize,
    /// Rows that were added.
    pub n_rows: usize,
    /// Rows of patients who were erased, which were left out.
    pub n_erased: usize,
    /// The version of the table.
    pub version: u64,
}

/// Adds the rows of all parts of a folder to a lake as one change. Parts that were committed before are not added again; a
/// lake that is not there is made.
///
/// # Errors
/// `Caller` if parts are missing and `is_partial` is false, or a part is not as its mark says; `Gallery` if another model or
/// key made the lake, or it holds an id already; `Io`; `Stopped`: nothing was added.
pub fn commit(
    folder: &Path,
    lake: &Path,
    options: &CommitOptions,
    watch: &dyn Watch,
) -> crate::Result<Committed> {
    watch.step("looking at parts");
    let found = parts(folder)?;
    ensure!(
        found.missing.is_empty() || options.is_partial,
        "{}: parts are missing: --array={}; embed them, or commit without them by --partial",
        folder.display(),
        found.missing
    );
    let first = found.parts.first().context("no part is done")?;
    let run = first.run();
    let origin = |part: &Part| format!("run {run} {}/{}", part.mark.shard, part.mark.n_shards);
    let setup = Setup {
        maker: Maker {
            fingerprint: first.mark.fingerprint.clone(),
            model: first.mark.model.clone(),
            precision: first.mark.precision.clone(),
        },
        width: first.mark.width,
        numbers: options.numbers,
    };
    let (mut writer, key) = writer_of(lake, &setup, options)?;
    writer.check(&setup, &key)?;
    let origins: Vec<String> = found.parts.iter().map(origin).collect();
    let there = writer.origins(&origins)?;
    let with_rows = found.parts.iter().filter(|part| part.mark.n_embedded > 0);
    let wanted: Vec<(String, Part)> = with_rows
        .map(|part| (origin(part), part.clone()))
        .filter(|(origin, _)| !there.contains(origin))
        .collect();
    let mut committed = Committed {
        n_parts: wanted.len(),
        n_parts_before: there.len(),
        ..Committed::default()
    };
    if wanted.is_empty() {
        committed.version = Lake::open(lake)?.version();
        return Ok(committed);
    }
    Stopped::check(watch, "interrupted; nothing was added")?;
    watch.step("adding rows");
    let added = add(&mut writer, wanted, &options.keep, Lake::open(lake)?)?;
    committed.n_rows = added.n_rows;
    committed.n_erased = added.n_erased;
    committed.version = added.version;
    Ok(committed)
}

/// Adds the rows of parts, each with its origin, as one change; the first part says which columns they have.
fn add(
    writer: &mut LakeWriter,
    wanted: Vec<(String, Part)>,
    keep_columns: &[String],
    reader: Lake,
) -> crate::Result<Added> {
    let reader = Arc::new(reader);
    let columns = match wanted.first() {
        Some((_, part)) => {
            let read = rows_of_part(part, keep_columns, &reader)?;
            read.columns.into_iter().map(|(name, _)| name).collect()
        }
        None => Vec::new(),
    };
    let (keep, known) = (keep_columns.to_vec(), columns.clone());
    let pieces = wanted
        .into_iter()
        .map(move |(origin, part)| -> m3ret_search::Result<Brought> {
            let read = rows_of_part(&part, &keep, &reader);
            let read = read.map_err(|error| unreadable(&part, &format!("{error:#}")))?;
            let mut names = read.columns.iter().map(|(name, _)| name);
            if let Some(other) = names.find(|name| !known.contains(name)) {
                let found = format!("a column {other} that the first part lacks");
                return Err(unreadable(&part, &found));
            }
            Ok((origin, read))
        });
    Ok(writer.add(&columns, &[], pieces)?)
}

fn unreadable(part: &Part, found: &str) -> Error {
    Error::Unsupported {
        path: part.table.clone(),
        found: found.to_owned(),
        wanted: "the part as its task wrote it; embed it again with --restart".to_owned(),
    }
}

/// Opens a lake for changes, or makes it; returns its key, too.
fn writer_of(
    lake: &Path,
    setup: &Setup,
    options: &CommitOptions,
) -> crate::Result<(LakeWriter, LakeKey)> {
    let given = options.key.as_deref().map(LakeKey::of_file).transpose()?;
    let given = given.as_ref().map(m3ret_lake::keep).transpose()?;
    let writer = match LakeWriter::open(lake) {
        Err(Error::Unsupported { path, .. }) if path == *lake => {
            let key = match given {
                Some(key) => key,
                None => LakeKey::draw()?,
            };
            return Ok((LakeWriter::create(lake, setup, &key)?, key));
        }
        opened => opened?,
    };
    let key = match given {
        Some(key) => key,
        None => writer.own_key(),
    };
    Ok((writer, key))
}

/// Reads the rows of a part that have a vector.
fn rows_of_part(part: &Part, keep_columns: &[String], lake: &Lake) -> anyhow::Result<Rows> {
    let doing = || format!("reading {}", part.table.display());
    part.check()?;
    let table = Manifest::open(&part.table, &Limits::default()).and_then(Manifest::load);
    let mut table = table.with_context(doing)?;
    keep(&mut table, keep_columns)?;
    let file = vectors::read(&part.table)?;
    let joined = file.rows_of(&part.table, &table)?;
    let (mut values, width) = (joined.vectors.values, joined.vectors.width);
    let mut kept = Vec::with_capacity(table.len());
    for row in 0..table.len() {
        let vector = row * width..(row + 1) * width;
        // Images without a vector have a row of NaN.
        if values
            .get(vector.clone())
            .is_some_and(|vector| !vector.iter().all(|x| x.is_nan()))
        {
            values.copy_within(vector, kept.len() * width);
            kept.push(row);
        }
    }
    values.truncate(kept.len() * width);
    let root = part.table.canonicalize().with_context(doing)?;
    let root = text_of(root.parent().unwrap_or(Path::new("/")));
    let (ids, columns) = rows_of(&table, &kept, &root, lake);
    Ok(Rows {
        vectors: values,
        ids,
        columns,
        ..Rows::default()
    })
}
