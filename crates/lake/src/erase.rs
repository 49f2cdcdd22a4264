//! Erases patients from a lake for good, and proves it.
//!
//! The patient is put on the list that every writer asks; the rows are deleted by address, the files that held them written
//! anew, the indexes of columns made anew, older versions removed. Then every object is searched for what was erased. What
//! is searched for lies meanwhile beside the table as keyed hashes, so that a call that was killed can be completed.

use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use lancedb::query::{QueryBase as _, Select};
use m3ret_search::{ErasedList, ErasedPatients, Key, Result, Scanner, Trace};

use crate::cells::Answer;
use crate::fields::{self, ID, VECTOR, VIEW};
use crate::meta::{Meta, parse, to_bytes};
use crate::objects::{Found, Objects};
use crate::place::{io, mismatch};
use crate::sql;
use crate::store::{Patience, wait};
use crate::writer::{ERASED, LakeWriter, OF_PATIENTS, collect, delete_rows};

/// The object with what is searched for, while an erasure is not complete.
const ERASING: &str = "erasing.json";
/// How often rows are looked for that other writers moved or added meanwhile.
const MAX_ROUNDS: usize = 16;
/// Bytes that are read at once while objects are searched.
const CHUNK_BYTES: u64 = 8 << 20;
/// Bytes of one chunk that are searched again with the next.
const OVERLAP: u64 = 256;
/// How often the list is changed again because another writer was faster.
const MAX_ATTEMPTS: usize = 64;

/// What an erasure did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased {
    /// Rows that were removed.
    pub n_rows: usize,
    /// Further vectors that were removed.
    pub n_views: usize,
    /// Whether the patient was on the list of erased patients before.
    pub was_listed: bool,
    /// The lake's number of changes before, and after.
    pub generations: [u64; 2],
    /// What was searched for.
    pub traces: Vec<Trace>,
    /// The search of all objects.
    pub searched: Searched,
}

/// A search of all objects of a lake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Searched {
    /// Objects that were searched.
    pub n_objects: usize,
    /// Bytes of them.
    pub n_bytes: u64,
    /// Where something of what was erased is left. Files of writers that were killed stay until
    /// `m3ret lake maintain --alone` removes them.
    pub leftovers: Vec<Leftover>,
}

/// An object that holds something of what was erased.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// Its path below the lake.
    pub object: String,
    /// What was found: `vector`, `attachment`, `id` or `patient`.
    pub kind: String,
}

/// Erases all rows of a patient, named by the pseudonym under which the lake stores the number.
///
/// # Errors
/// `Mismatch` if the pseudonym is empty; as `LakeWriter::open`.
pub fn erase(path: &Path, pseudonym: &str, step: &dyn Fn(&str)) -> Result<Erased> {
    if pseudonym.is_empty() {
        return Err(mismatch("patient to erase", "a pseudonym", "none"));
    }
    let mut writer = LakeWriter::open(path)?;
    step("looking for rows");
    let before = writer.meta.generation;
    let marked = writer.mark(pseudonym);
    let has_changed = wait(
        Patience::Change,
        "listing an erased patient of",
        path,
        marked,
    )?;
    let gone = writer.remove_rows(pseudonym);
    let ([n_rows, n_views], traces) = wait(Patience::Change, "removing rows of", path, gone)?;
    step("writing files anew");
    let purged = writer.purge();
    wait(Patience::Change, "writing files anew of", path, purged)?;
    step("searching all objects");
    let searched = search_objects(&writer.objects, writer.key(), &traces, path);
    let searched = wait(Patience::Change, "searching", path, searched)?;
    if searched.leftovers.is_empty() {
        let removed = writer.objects.remove(ERASING);
        wait(Patience::Change, "completing", path, removed)?;
    }
    Ok(Erased {
        n_rows,
        n_views,
        was_listed: !has_changed,
        generations: [before, writer.meta.generation],
        traces,
        searched,
    })
}

/// Searches all objects of a lake for traces that were made with its key.
///
/// # Errors
/// As `LakeWriter::open`.
pub fn search_for(path: &Path, traces: &[Trace]) -> Result<Searched> {
    let writer = LakeWriter::open(path)?;
    let searched = search_objects(&writer.objects, writer.key(), traces, path);
    wait(Patience::Change, "searching", path, searched)
}

/// Returns whether writers refuse rows of a patient who is named by a pseudonym, and whether an erasure is not complete.
///
/// # Errors
/// As `LakeWriter::open`.
pub fn is_erased(path: &Path, pseudonym: &str) -> Result<[bool; 2]> {
    let writer = LakeWriter::open(path)?;
    let asked = async {
        let is_begun = writer.objects.get(ERASING).await?.is_some();
        Ok([
            writer.erased().await?.has(writer.key(), pseudonym),
            is_begun,
        ])
    };
    wait(Patience::Scan, "reading", path, asked)
}

/// Takes a patient off the list: writers add rows of the patient again. Returns whether the patient was on it.
///
/// # Errors
/// As `LakeWriter::open`.
pub fn allow_again(path: &Path, pseudonym: &str) -> Result<bool> {
    let writer = LakeWriter::open(path)?;
    let hash = ErasedPatients::hash(writer.key(), pseudonym);
    let changed = change_list(&writer.objects, path, |list| {
        let before = list.patients.len();
        list.patients.retain(|patient| !patient.contains(&hash));
        let n_lifted = before - list.patients.len();
        list.n_lifted += n_lifted as u64;
        n_lifted > 0
    });
    wait(Patience::Change, "changing", path, changed)
}

/// Changes the list of erased patients as one step; returns whether it changed.
async fn change_list(
    objects: &Objects,
    path: &Path,
    mut change: impl FnMut(&mut ErasedList) -> bool + Send,
) -> Result<bool> {
    for _ in 0..MAX_ATTEMPTS {
        let known = objects.get(ERASED).await?;
        let mut list: ErasedList = match &known {
            Some((bytes, _)) => parse(bytes, &path.join(ERASED))?,
            None => ErasedList::default(),
        };
        if !change(&mut list) {
            return Ok(false);
        }
        let before = known.as_ref().map(|(_, state)| state);
        if !objects.put(ERASED, to_bytes(&list), before).await? {
            return Ok(true);
        }
    }
    Err(m3ret_search::Error::Locked {
        path: path.to_owned(),
    })
}

impl LakeWriter {
    /// Puts a patient on the list.
    async fn mark(&self, pseudonym: &str) -> Result<bool> {
        let hash = ErasedPatients::hash(self.key(), pseudonym);
        let add = |list: &mut ErasedList| list.add(vec![hash.clone()]);
        change_list(&self.objects, &self.place.path, add).await
    }

    /// Deletes all rows of a patient; returns how many, and what to search for afterwards.
    async fn remove_rows(&mut self, pseudonym: &str) -> Result<([usize; 2], Vec<Trace>)> {
        let path = self.place.path.clone();
        let fault = || io("reading", &path);
        let known = self.objects.get(ERASING).await?;
        let mut traces: Vec<Trace> = match &known {
            Some((bytes, _)) => parse(bytes, &path.join(ERASING))?,
            None => Vec::new(),
        };
        traces.extend(self.key().trace_of_text("patient", pseudonym));
        let mut counts = [0; 2];
        for round in 0..MAX_ROUNDS {
            self.table.checkout_latest().await.map_err(fault())?;
            let (rows, n_views, more) = self.rows_of(pseudonym).await?;
            if rows.is_empty() && round > 0 {
                break;
            }
            traces.extend(more);
            traces.sort_unstable();
            traces.dedup();
            self.keep_traces(&traces).await?;
            if rows.is_empty() {
                break;
            }
            counts = [counts[0] + rows.len() - n_views, counts[1] + n_views];
            delete_rows(&self.table, &rows, &path).await?;
        }
        Ok((counts, traces))
    }

    /// Keeps what is searched for, in place of what was kept before.
    async fn keep_traces(&self, traces: &Vec<Trace>) -> Result<()> {
        let before = self.objects.get(ERASING).await?;
        let before = before.as_ref().map(|(_, state)| state);
        match self.objects.put(ERASING, to_bytes(traces), before).await? {
            false => Ok(()),
            true => Err(m3ret_search::Error::Locked {
                path: self.place.path.clone(),
            }),
        }
    }

    /// Returns the addresses of all vectors of a patient, how many of them are further ones, and traces of what they hold.
    async fn rows_of(&self, pseudonym: &str) -> Result<(Vec<u64>, usize, Vec<Trace>)> {
        let path = &self.place.path;
        let schema = self.table.schema().await.map_err(io("reading", path))?;
        let mut conditions = Vec::new();
        for column in OF_PATIENTS {
            let field = fields::field_of(column)?;
            if schema.field_with_name(&field).is_ok() {
                conditions.push(sql::is_among(&field, [pseudonym], false));
            }
        }
        if conditions.is_empty() {
            return Ok((Vec::new(), 0, Vec::new()));
        }
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let attached = names.filter(|name| fields::attached_of(name).is_some());
        let attached: Vec<&str> = attached.collect();
        let asked = [&[ID, VIEW, VECTOR], &attached[..]].concat();
        let query = self.table.query().only_if(conditions.join(" OR "));
        let query = query.select(Select::columns(&asked)).with_row_id();
        let (mut rows, mut n_views, mut traces) = (Vec::new(), 0, Vec::new());
        for batch in &collect(query, path).await? {
            let answer = Answer::new(batch, path);
            rows.extend_from_slice(answer.addresses()?);
            let (ids, views) = (answer.texts(ID)?, answer.texts(VIEW)?);
            for row in 0..answer.len() {
                n_views += usize::from(!views.value(row).is_empty());
                traces.extend(self.key().trace_of_text("id", ids.value(row)));
                let vector = answer.vector(row)?;
                let single: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                let half = vector
                    .iter()
                    .flat_map(|x| half::f16::from_f32(*x).to_le_bytes());
                let half: Vec<u8> = half.collect();
                traces.extend(self.key().trace_of_bytes("vector", &single));
                traces.extend(self.key().trace_of_bytes("vector", &half));
                for name in &attached {
                    let bytes = answer.bytes(name)?.value(row);
                    traces.extend(self.key().trace_of_bytes("attachment", bytes));
                }
            }
        }
        Ok((rows, n_views, traces))
    }

    /// Writes files without their deleted rows, makes indexes of columns anew, and removes every older version.
    async fn purge(&mut self) -> Result<()> {
        let path = self.place.path.clone();
        let fault = || io("writing files anew of", &path);
        self.table.checkout_latest().await.map_err(fault())?;
        self.compact(Some(0.0)).await?;
        let indexes = self.table.list_indices().await.map_err(fault())?;
        let has_any = !indexes.is_empty();
        for index in indexes.iter().filter(|index| index.columns != [VECTOR]) {
            self.table.drop_index(&index.name).await.map_err(fault())?;
        }
        if has_any {
            self.index_columns().await?;
        }
        let version = self.table.version().await.map_err(fault())?;
        self.meta = Meta::update(&self.objects, &path, |meta| {
            meta.published = meta.published.max(version);
            meta.n_purges += 1;
            true
        })
        .await?;
        self.prune(Duration::ZERO, false).await?;
        Ok(())
    }
}

/// Searches the names and bytes of all objects.
async fn search_objects(
    objects: &Objects,
    key: &Key,
    traces: &[Trace],
    path: &Path,
) -> Result<Searched> {
    let scanner = Scanner::with_key(key, traces);
    let mut searched = Searched::default();
    for object in objects.list().await? {
        let mut found: Vec<usize> = Vec::new();
        let mut search = |bytes: Bytes| {
            let done = scanner.scan(bytes.reader(), &mut |hit| found.push(hit.trace));
            done.map_err(io("searching", path))
        };
        search(Bytes::from(object.name.clone().into_bytes()))?;
        each_chunk(objects, &object, &mut search).await?;
        searched.n_objects += 1;
        searched.n_bytes += object.n_bytes;
        let kinds = found.into_iter().filter_map(|trace| traces.get(trace));
        searched.leftovers.extend(kinds.map(|trace| Leftover {
            object: object.name.clone(),
            kind: trace.kind.clone(),
        }));
    }
    searched.leftovers.sort_unstable();
    searched.leftovers.dedup();
    Ok(searched)
}

async fn each_chunk(
    objects: &Objects,
    object: &Found,
    search: &mut (dyn FnMut(Bytes) -> Result<u64> + Send),
) -> Result<()> {
    let mut start = 0;
    while start < object.n_bytes {
        let end = object.n_bytes.min(start + CHUNK_BYTES);
        search(objects.read(object, start..end).await?)?;
        if end == object.n_bytes {
            break;
        }
        start = end - OVERLAP;
    }
    Ok(())
}
