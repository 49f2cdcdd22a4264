//! Reads all of a lake and says what is wrong with it.

use std::collections::HashMap;
use std::path::Path;

use futures::TryStreamExt as _;
use lancedb::query::{ExecutableQuery as _, QueryBase as _, Select};
use m3ret_search::{Collection as _, Result, check_unit};

use crate::cells::Answer;
use crate::fields::{COMMIT, ID, ORIGIN, VECTOR, VIEW};
use crate::lake::Lake;
use crate::place::io;
use crate::store::{Patience, wait};

/// What is wrong with a lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What, with its number.
    pub what: String,
}

/// What a look at all rows found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Rows.
    pub n_rows: usize,
    /// Vectors, further ones included.
    pub n_vectors: usize,
    /// Origins of rows, such as the parts of a run.
    pub n_origins: usize,
    /// What is wrong; empty for a good lake.
    pub findings: Vec<Finding>,
}

/// Reads all vectors and ids of the version that readers see.
///
/// # Errors
/// As `Lake::open`.
pub fn verify(path: &Path) -> Result<Checked> {
    let lake = Lake::open(path)?;
    let read = async {
        let asked = [ID, VIEW, COMMIT, ORIGIN, VECTOR];
        let query = lake.table.query().select(Select::columns(&asked));
        let mut stream = query.execute().await.map_err(io("reading", path))?;
        let mut seen = Seen::default();
        while let Some(batch) = stream.try_next().await.map_err(io("reading", path))? {
            seen.look(&Answer::new(&batch, path), lake.width())?;
        }
        Ok(seen)
    };
    let seen = wait(Patience::Change, "reading", path, read)?;
    let mut checked = Checked {
        n_rows: seen.n_rows,
        n_vectors: seen.n_vectors,
        n_origins: seen.commits.len(),
        findings: Vec::new(),
    };
    let n_doubled = seen.vectors.values().filter(|n| **n > 1).count();
    let n_lost = seen.owners.values().filter(|has_own| !**has_own).count();
    let n_twice = seen
        .commits
        .values()
        .filter(|commits| commits.len() > 1)
        .count();
    let told = [
        (
            n_doubled,
            "vectors are there twice; `m3ret lake maintain` removes those that two writers brought",
        ),
        (n_lost, "ids have further vectors and no own one"),
        (
            n_twice,
            "origins were brought twice; `m3ret lake maintain` removes one",
        ),
        (seen.n_bad, "vectors are no unit vectors"),
        (
            seen.n_rows.abs_diff(lake.len()),
            "rows more or fewer than the table counts",
        ),
    ];
    for (n, what) in told.into_iter().filter(|(n, _)| *n > 0) {
        checked.findings.push(Finding {
            what: format!("{n} {what}"),
        });
    }
    Ok(checked)
}

#[derive(Default)]
struct Seen {
    n_rows: usize,
    n_vectors: usize,
    n_bad: usize,
    /// How often there is a vector of a view of an id, by a hash of both.
    vectors: HashMap<u128, u32>,
    /// Whether an id has an own vector, by its hash.
    owners: HashMap<u128, bool>,
    commits: HashMap<String, Vec<String>>,
}

impl Seen {
    fn look(&mut self, answer: &Answer<'_>, width: usize) -> Result<()> {
        let (ids, views) = (answer.texts(ID)?, answer.texts(VIEW)?);
        let (origins, commits) = (answer.texts(ORIGIN)?, answer.texts(COMMIT)?);
        let vectors = answer.vectors()?;
        self.n_vectors += answer.len();
        for row in 0..answer.len() {
            let (id, view) = (ids.value(row), views.value(row));
            let vector = vectors
                .get(row * width..(row + 1) * width)
                .unwrap_or_default();
            self.n_bad += usize::from(vector.is_empty() || check_unit(vector, width).is_err());
            self.n_rows += usize::from(view.is_empty());
            *self.vectors.entry(hash(&[id, "\0", view])).or_default() += 1;
            *self.owners.entry(hash(&[id])).or_default() |= view.is_empty();
            let of_origin = match self.commits.get_mut(origins.value(row)) {
                Some(known) => known,
                None => self
                    .commits
                    .entry(origins.value(row).to_owned())
                    .or_default(),
            };
            if of_origin
                .last()
                .is_none_or(|last| last != commits.value(row))
            {
                let commit = commits.value(row).to_owned();
                if !of_origin.contains(&commit) {
                    of_origin.push(commit);
                }
            }
        }
        Ok(())
    }
}

fn hash(parts: &[&str]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes());
    }
    let hash = hasher.finalize();
    u128::from_le_bytes(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}
