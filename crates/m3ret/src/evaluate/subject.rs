//! The rows of a manifest that are evaluated, their columns, and the tasks that follow from them.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use m3ret_manifest::columns::{BODY_PART, FINDING, PAIR, PATH, PATIENT, SPLIT};
use m3ret_manifest::privacy::identifies_people;
use m3ret_manifest::{LABEL_SEPARATOR, Table, is_unseen};
use m3ret_search::evaluation::{Column, Columns, Scope, Task, Tasks, derive};

use super::options::{DEFAULT_EXCLUDE, EvaluateOptions};
use crate::choices::{no_column, no_value};
use crate::embed::Outputs;
use crate::embed::items::{Content, Listing, list};
use crate::galleries::with_part;
use crate::options::{ColumnValue, FolderChoice};
use crate::words::counted;

/// Columns of relevance if none are named.
const DEFAULT_RELEVANCE: [&str; 2] = [BODY_PART, FINDING];
/// Our column that identifies images, if one is in several rows.
const IMAGE: &str = "m3ret:image";
/// The note if there is such a column.
const SEVERAL_ROWS: &str =
    "some images come in several rows: no image finds itself, in whichever row it is";

/// The rows of a manifest that take part; tasks number them from 0.
pub(super) struct Subject {
    pub(super) listing: Listing,
    /// For each row that takes part, its row in the manifest.
    pub(super) rows: Vec<usize>,
    pub(super) columns: Columns,
    /// Place of each row's path in sorted order.
    pub(super) path_order: Vec<u32>,
    /// Place of each row in a random order that follows from the seed: equal scores are shown by it.
    pub(super) tie_order: Vec<u32>,
    /// A number for each row's patient.
    patients: Vec<u32>,
    pub(super) tasks: Tasks,
    pub(super) relevance: Vec<String>,
    /// Columns in which hits must differ from their query.
    pub(super) exclude: Vec<String>,
    /// The column that keeps an image with several rows from finding itself.
    pub(super) image_column: Option<&'static str>,
    /// What a reader of the numbers should know.
    pub(super) notes: Vec<String>,
}

impl Subject {
    pub(super) fn open(options: &EvaluateOptions) -> anyhow::Result<Self> {
        let path = &options.manifest;
        let doing = || format!("reading {}", path.display());
        let read_options = &options.reading.options;
        let listing = list(
            path,
            &Outputs::default(),
            read_options,
            &FolderChoice::every_file(),
        )?;
        let table = listing.table.as_ref().with_context(|| {
            let found = if path.is_dir() {
                "is a folder; name the manifest in it"
            } else {
                "is no manifest"
            };
            format!(
                "{} {found}: a CSV or Parquet file with a column path is wanted",
                path.display()
            )
        })?;
        check_overlap(table, options.allows_overlap).with_context(doing)?;
        let rows = rows(table, &options.filters)?;
        let mut columns = columns(table, &rows)?;
        let mut notes = table.notes();
        let asked = |names: &[String]| -> Vec<String> {
            names.iter().map(|name| our_names(table, name)).collect()
        };
        check_asked(options, table)?;
        let exclude = exclusions(&asked(&options.exclude), &mut columns, &mut notes)?;
        let relevance = relevance(&asked(&options.relevance), &columns, &mut notes)?;
        let scope = Scope {
            relevance: relevance.clone(),
            is_pooled: options.is_pooled,
            is_unseen,
        };
        let image_column = tell_images_apart(table, &rows, &mut columns)?;
        notes.extend(image_column.map(|_| SEVERAL_ROWS.to_owned()));
        let tasks = derive(&mut columns, &scope).with_context(doing)?;
        ensure!(
            !tasks.tasks.is_empty(),
            "{}: found no task; relevance is asked of {}, and no row has both a label and somebody to find",
            path.display(),
            relevance.join(", ")
        );
        notes.extend(told_of(&tasks));
        let paths = row_paths(table, &rows);
        let path_order = places(&paths);
        Ok(Self {
            patients: patients(&columns, &path_order),
            path_order,
            tie_order: tie_order(table, &rows, options.bootstrap.seed),
            rows,
            columns,
            tasks,
            relevance,
            exclude,
            image_column,
            notes,
            listing,
        })
    }

    /// Returns the rows of the manifest that some task needs.
    pub(super) fn wanted(&self) -> Vec<bool> {
        let mut wanted = vec![false; self.listing.items.len()];
        for task in self.all_tasks() {
            for &row in task.queries.iter().chain(&task.gallery) {
                wanted[self.rows[row as usize]] = true;
            }
        }
        wanted
    }

    /// Iterates over the tasks, then over those of privacy and of mixed searches.
    pub(super) fn all_tasks(&self) -> impl Iterator<Item = &Task> {
        let tasks = self.tasks.tasks.iter().chain(&self.tasks.privacy);
        tasks.chain(&self.tasks.mixed)
    }

    /// Returns whether any image that takes part is there.
    pub(super) fn has_images(&self) -> bool {
        self.rows
            .iter()
            .any(|&row| match &self.listing.items[row].content {
                Content::Row { path, .. } => path.exists(),
                Content::Object(_) | Content::Memory(_) | Content::Unreadable { .. } => false,
            })
    }

    /// Returns the files and folders of all rows of the manifest.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let table = self.listing.table.iter();
        table
            .flat_map(|table| table.rows().map(|row| row.file()))
            .collect()
    }

    /// Returns the path of a row, as the manifest has it.
    pub(super) fn path(&self, row: u32) -> &str {
        &self.listing.items[self.rows[row as usize]].path
    }

    /// Returns a number for the patient of a row, which is not 0; unknown patients are one each.
    ///
    /// It is the place of the patient's first path, and says nothing of the patient's own number.
    pub(super) fn patient(&self, row: u32) -> u32 {
        self.patients[row as usize]
    }
}

/// Returns whether a column, or one of those that are joined, identifies people or links their images:
/// its values are written nowhere.
pub(super) fn is_identifier(column: &str) -> bool {
    let mut parts = column.split('+');
    parts.any(|part| part == PAIR || identifies_people(part))
}

/// Numbers the patients by their first path; rows of unknown patients are one each.
fn patients(columns: &Columns, path_order: &[u32]) -> Vec<u32> {
    let column = columns.get(PATIENT);
    let code = |row: usize| column.map_or(0, |column| column.code(row));
    let mut first = std::collections::HashMap::new();
    for (row, &place) in path_order.iter().enumerate() {
        let least = first.entry(code(row)).or_insert(place);
        *least = place.min(*least);
    }
    let number = |(row, &place): (usize, &u32)| match code(row) {
        0 => place + 1,
        code => first[&code] + 1,
    };
    path_order.iter().enumerate().map(number).collect()
}

/// Returns what a reader should know of the rows that take part.
fn told_of(tasks: &Tasks) -> Vec<String> {
    let mut notes = Vec::new();
    if tasks.is_leave_one_out {
        notes.push("no split: every row is query and gallery in turn (leave-one-out)".to_owned());
    }
    if tasks.n_other_split > 0 {
        let rows = counted(
            tasks.n_other_split as u64,
            "row has a split that is",
            "rows have a split that is",
        );
        notes.push(format!(
            "{rows} neither query nor gallery: in pair tasks only"
        ));
    }
    notes
}

/// Fails if patients that a model may have been trained on are evaluated.
fn check_overlap(table: &Table, is_allowed: bool) -> anyhow::Result<()> {
    let split = |row: usize| {
        table
            .column(SPLIT)
            .and_then(|column| column.get(row))
            .unwrap_or_default()
    };
    let Some(patients) = table.column(PATIENT) else {
        return Ok(());
    };
    let of = |wanted: fn(&str) -> bool| -> HashSet<&str> {
        let rows = (0..table.len()).filter(|&row| wanted(split(row)));
        rows.filter_map(|row| patients.get(row))
            .filter(|patient| !patient.is_empty())
            .collect()
    };
    let trained = of(|split| split == "pretrain");
    let n_both = of(|split| split == "query" || split == "gallery")
        .intersection(&trained)
        .count();
    if n_both > 0 && !is_allowed {
        bail!(
            "{} rows with split = pretrain and rows that are evaluated; \
             split the manifest anew (m3ret split), or say --allow-overlap",
            counted(n_both as u64, "patient has", "patients have")
        );
    }
    Ok(())
}

/// Returns the names by which the manifest's columns are known, of one or several joined by `+`; a name
/// of no column stays as it is, for the error that follows.
fn our_names(table: &Table, asked: &str) -> String {
    let ours = |name| table.name_of(name).unwrap_or(name);
    asked.split('+').map(ours).collect::<Vec<_>>().join("+")
}

/// Returns the rows that pass the filters.
fn rows(table: &Table, filters: &[ColumnValue]) -> anyhow::Result<Vec<usize>> {
    let mut named = Vec::with_capacity(filters.len());
    for filter in filters {
        let column = table
            .name_of(&filter.column)
            .and_then(|name| table.column(name));
        let column = column.ok_or_else(|| missing("--filter", &filter.to_string(), table))?;
        named.push((filter, column));
    }
    // Several values of one column are alternatives, as in `search`.
    let passes = |row: usize| {
        named.iter().all(|&(filter, column)| {
            if filter.is_negated {
                return !holds(filter, column, row);
            }
            let same = named
                .iter()
                .filter(|(other, _)| other.column == filter.column && !other.is_negated);
            same.into_iter()
                .any(|&(other, column)| holds(other, column, row))
        })
    };
    let rows: Vec<usize> = (0..table.len()).filter(|&row| passes(row)).collect();
    if !rows.is_empty() {
        return Ok(rows);
    }
    let unknown = named.iter().find(|&&(filter, column)| {
        !filter.is_negated && !(0..table.len()).any(|row| holds(filter, column, row))
    });
    if let Some((filter, cells)) = unknown {
        let name = table.name_of(&filter.column).unwrap_or(&filter.column);
        let option = format!("--filter {filter}");
        return Err(no_value(&option, name, cells.words()));
    }
    match filters.is_empty() {
        true => bail!("found no rows"),
        false => bail!("found no rows that pass every --filter"),
    }
}

/// Returns whether a filter matches a cell: the whole of it, or one of its labels.
fn holds(filter: &ColumnValue, column: &m3ret_manifest::Column, row: usize) -> bool {
    let cell = column.get(row).unwrap_or_default();
    let value = filter.value.trim();
    cell == value
        || cell
            .split(LABEL_SEPARATOR)
            .any(|label| label.trim() == value)
}

/// Returns the error for a column that the manifest does not have.
fn missing(option: &str, name: &str, table: &Table) -> anyhow::Error {
    let columns = table.columns().iter().map(String::as_str);
    no_column(&format!("{option} {name}"), "the manifest", columns)
}

/// Fails if the manifest lacks a column that is asked for by name.
fn check_asked(options: &EvaluateOptions, table: &Table) -> anyhow::Result<()> {
    if options.exclude != [DEFAULT_EXCLUDE] {
        check_columns("--exclude", &options.exclude, table)?;
    }
    check_columns("--relevance", &options.relevance, table)
}

/// Fails if the manifest lacks a column, or one of several that are joined by `+`.
fn check_columns(option: &str, names: &[String], table: &Table) -> anyhow::Result<()> {
    for name in names {
        let mut parts = name.split('+');
        if !parts.all(|part| table.name_of(part).is_some()) {
            return Err(missing(option, name, table));
        }
    }
    Ok(())
}

fn columns(table: &Table, rows: &[usize]) -> anyhow::Result<Columns> {
    let mut columns = Columns::new(rows.len());
    // A path is a name and no property, so it is no column.
    for name in table.columns().iter().filter(|name| *name != PATH) {
        let column = table.column(name).context("a column that is listed")?;
        let cells = rows.iter().map(|&row| column.get(row).unwrap_or_default());
        columns.insert(name, Column::new(cells))?;
    }
    Ok(columns)
}

/// Adds the column `IMAGE` if an image is in several rows, and returns its name.
fn tell_images_apart(
    table: &Table,
    rows: &[usize],
    columns: &mut Columns,
) -> anyhow::Result<Option<&'static str>> {
    let row_of = |&row: &usize| table.row(row);
    let names: Vec<String> = rows
        .iter()
        .filter_map(row_of)
        .map(|row| with_part(row.path(), row.part()))
        .collect();
    let distinct: HashSet<&str> = names.iter().map(String::as_str).collect();
    if distinct.len() == names.len() {
        return Ok(None);
    }
    columns.insert(IMAGE, Column::new(names.iter().map(String::as_str)))?;
    Ok(Some(IMAGE))
}

/// Returns the columns of `--exclude`.
fn exclusions(
    asked: &[String],
    columns: &mut Columns,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<String>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let is_default = asked == [DEFAULT_EXCLUDE];
    if is_default && columns.get(PATIENT).is_none() {
        notes.push(
            "no column patient_id: only the query itself is left out, and other images of its patient count as found"
                .to_owned(),
        );
        return Ok(Vec::new());
    }
    for name in asked {
        columns
            .require(name)
            .with_context(|| format!("--exclude {name}"))?;
    }
    Ok(asked.to_vec())
}

/// Returns the relevance columns: those that are named, or the default ones that the manifest has.
fn relevance(
    asked: &[String],
    columns: &Columns,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<String>> {
    if !asked.is_empty() {
        let mut names: Vec<String> = Vec::with_capacity(asked.len());
        for name in asked {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        return Ok(names);
    }
    let (there, missing): (Vec<&str>, Vec<&str>) = DEFAULT_RELEVANCE
        .iter()
        .partition(|name| columns.get(name).is_some());
    if !missing.is_empty() {
        notes.push(format!(
            "no column {}: no tasks of it",
            missing.join(", no column ")
        ));
    }
    ensure!(
        !there.is_empty() || columns.get(PAIR).is_some(),
        "the manifest has none of the columns {}, pair_id; name the one that says what is relevant with --relevance",
        DEFAULT_RELEVANCE.join(", ")
    );
    Ok(there.into_iter().map(str::to_owned).collect())
}

fn row_paths<'a>(table: &'a Table, rows: &[usize]) -> Vec<&'a str> {
    let path = |&row: &usize| table.row(row).map(|row| row.path()).unwrap_or_default();
    rows.iter().map(path).collect()
}

/// Returns the place of each row by a hash of the seed and of what names its image: path and part.
fn tie_order(table: &Table, rows: &[usize], seed: u64) -> Vec<u32> {
    let part = table.column("part");
    let name = |(path, &row): (&str, &usize)| {
        let part = part.and_then(|part| part.get(row)).unwrap_or_default();
        let name = format!("{path}\0{part}");
        (
            xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), seed),
            name,
        )
    };
    let names = row_paths(table, rows).into_iter().zip(rows).map(name);
    places(&names.collect::<Vec<_>>())
}

/// Returns the place of each key in sorted order; equal keys keep theirs.
fn places<K: Ord>(keys: &[K]) -> Vec<u32> {
    let mut sorted: Vec<usize> = (0..keys.len()).collect();
    sorted.sort_by(|&a, &b| keys[a].cmp(&keys[b]).then(a.cmp(&b)));
    let mut places = vec![0; keys.len()];
    for (rank, place) in (0..).zip(sorted) {
        places[place] = rank;
    }
    places
}
