//! Adds rows to a lake: any number of writers at the same time.
//!
//! Rows of one call become one version of the table, which readers see when `meta.json` names it. Two writers that bring
//! the same thing at the same time both append it; the one that looks second sees both, and of these one stays.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt as _;
use lancedb::Table;
use lancedb::arrow::arrow_array::{RecordBatch, RecordBatchIterator, RecordBatchReader};
use lancedb::arrow::arrow_schema::{ArrowError, Schema};
use lancedb::query::{ExecutableQuery as _, QueryBase as _, Select};
use lancedb::table::NewColumnTransform;
use m3ret_search::names::{HEADER_PATIENT, ISSUED_PATIENT, PATIENT};
use m3ret_search::{ErasedList, ErasedPatients, Error, Key, Result, Setup};

use crate::cells::{Answer, to_batch};
use crate::fields::{self, COMMIT, ID, ORIGIN, VIEW};
use crate::keys::LakeKey;
use crate::meta::{Meta, parse, to_bytes};
use crate::objects::Objects;
use crate::place::{META, Place, io, mismatch};
use crate::rows::Rows;
use crate::sql;
use crate::store::{self, Patience, wait};

/// The name of the table.
pub(crate) const TABLE: &str = "vectors";
/// The object that lists patients who were erased.
pub(crate) const ERASED: &str = "erased.json";
/// Ids that one question asks for.
const IDS_TOGETHER: usize = 2048;
/// Addresses that one question names.
pub(crate) const ROWS_TOGETHER: usize = 4096;

/// Changes a lake.
pub struct LakeWriter {
    pub(crate) place: Place,
    pub(crate) objects: Objects,
    pub(crate) table: Table,
    pub(crate) meta: Meta,
    pub(crate) key: LakeKey,
}

/// What a call added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// Rows.
    pub n_rows: usize,
    /// Rows of patients who were erased, which were left out.
    pub n_erased: usize,
    /// The version of the table that holds the rows.
    pub version: u64,
}

/// Rows, and what they are: the same thing is brought once.
pub type Brought = (String, Rows);

/// Refuses a folder that holds something other than a lake, such as parts of a run or images.
fn check_free(folder: &Path) -> Result<()> {
    let table = format!("{TABLE}.lance");
    for entry in std::fs::read_dir(folder).map_err(io("listing", folder))? {
        let name = entry.map_err(io("listing", folder))?.file_name();
        if name != META && name != table.as_str() {
            let wanted = "a name that is free, or an empty folder";
            let got = "a folder that holds something else";
            return Err(mismatch(&folder.display().to_string(), wanted, got));
        }
    }
    Ok(())
}

impl LakeWriter {
    /// Makes an empty lake.
    ///
    /// # Errors
    /// `Mismatch` if there is one or the folder holds something else, or the width is 0 or too large; `Io`.
    pub fn create(path: &Path, setup: &Setup, key: &LakeKey) -> Result<Self> {
        let place = Place::of(path)?;
        if let Some(folder) = &place.folder {
            std::fs::create_dir_all(folder).map_err(io("making", path))?;
            check_free(folder)?;
        }
        let schema = Arc::new(fields::schema(setup.width, setup.numbers, [], [])?);
        let made = async {
            let objects = Objects::open(&place).await?;
            let free = || {
                mismatch(
                    &path.display().to_string(),
                    "a place without a lake",
                    "a lake",
                )
            };
            if objects.get(META).await?.is_some() {
                return Err(free());
            }
            let connection = connect(&place).await?;
            // What a call that was killed left behind is empty.
            let table = match connection.open_table(TABLE).execute().await {
                Ok(table) => table,
                Err(lancedb::Error::TableNotFound { .. }) => {
                    let made = connection.create_empty_table(TABLE, schema).execute().await;
                    made.map_err(io("making", path))?
                }
                Err(error) => return Err(io("opening", path)(error)),
            };
            if table.count_rows(None).await.map_err(io("reading", path))? > 0 {
                return Err(free());
            }
            let version = table.version().await.map_err(io("reading", path))?;
            let (maker, numbers) = (setup.maker.clone(), setup.numbers);
            let mut meta = Meta::new(maker, setup.width, numbers, key.key.check());
            meta.published = version;
            if objects.put(META, to_bytes(&meta), None).await? {
                return Err(free());
            }
            Ok((objects, table, meta))
        };
        let (objects, table, meta) = wait(Patience::Change, "making", path, made)?;
        Ok(Self {
            place,
            objects,
            table,
            meta,
            key: key.clone(),
        })
    }

    /// Opens a lake for changes.
    ///
    /// # Errors
    /// `Unsupported` if there is none, or its key is not here; `Damaged`; `Io`.
    pub fn open(path: &Path) -> Result<Self> {
        let place = Place::of(path)?;
        let opened = async {
            let objects = Objects::open(&place).await?;
            let (meta, _) = Meta::read(&objects, path).await?;
            let connection = connect(&place).await?;
            let table = connection.open_table(TABLE).execute().await;
            Ok((objects, meta, table.map_err(io("opening", path))?))
        };
        let (objects, meta, table) = wait(Patience::Scan, "opening", path, opened)?;
        let key = LakeKey::find(&meta.key_check, path)?;
        Ok(Self {
            place,
            objects,
            table,
            meta,
            key,
        })
    }

    /// Returns where the lake lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Returns the key of the lake's hashes.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key.key
    }

    /// Returns the key with its file.
    #[must_use]
    pub fn own_key(&self) -> LakeKey {
        self.key.clone()
    }

    /// Returns which of some origins the lake holds rows of.
    ///
    /// # Errors
    /// `Io`.
    pub fn origins(&self, wanted: &[String]) -> Result<BTreeSet<String>> {
        let path = self.path();
        let found = async {
            self.table
                .checkout_latest()
                .await
                .map_err(io("opening", path))?;
            Ok(self.commits_of(wanted).await?.into_keys().collect())
        };
        wait(Patience::Scan, "reading", path, found)
    }

    /// Adds rows as one change; all of them are added, or none. Rows of patients who were erased are left out.
    ///
    /// `columns` and `attached` name all columns and attachments that rows have. Each piece of rows has an origin; if two
    /// writers bring one at the same time, the rows of one of them stay.
    ///
    /// # Errors
    /// `Mismatch` if parts of a piece differ in length, a vector is no unit vector, or an id is empty, comes twice or is in
    /// the lake; the error of an item of `rows`; `Io`.
    pub fn add(
        &mut self,
        columns: &[String],
        attached: &[String],
        rows: impl Iterator<Item = Result<Brought>> + Send + 'static,
    ) -> Result<Added> {
        let path = self.place.path.clone();
        let prepared = async {
            self.table
                .checkout_latest()
                .await
                .map_err(io("opening", &path))?;
            let schema = self.widened(columns, attached).await?;
            let n_before = self.table.count_rows(None).await;
            let n_before = n_before.map_err(io("counting rows of", &path))?;
            Ok((schema, n_before, self.erased().await?))
        };
        let (schema, n_before, erased) = wait(Patience::Change, "opening", &path, prepared)?;
        let commit = random_name(&path)?;
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut pieces = Pieces {
            table: (n_before > 0).then(|| self.table.clone()),
            width: self.meta.width,
            key: self.key().clone(),
            erased,
            schema: Arc::clone(&schema),
            commit: commit.clone(),
            path: path.clone(),
            tally: Arc::clone(&tally),
        };
        let batches = rows.map(move |brought| {
            let batch = brought.and_then(|brought| pieces.next(brought));
            batch.map_err(|error| {
                let told = ArrowError::ExternalError(error.to_string().into());
                let mut tally = pieces.tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.fault = Some(error);
                told
            })
        });
        let reader = RecordBatchIterator::new(batches, schema);
        let reader: Box<dyn RecordBatchReader + Send> = Box::new(reader);
        let adding = async { Ok(self.table.add(reader).write_parallelism(1).execute().await) };
        let added = wait(Patience::Change, "adding rows to", &path, adding)?;
        let mut tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(fault) = tally.fault.take() {
            return Err(fault);
        }
        let version = added.map_err(io("adding rows to", &path))?.version;
        let settled = self.settled(version, &commit, &tally);
        let version = wait(Patience::Change, "completing", &path, settled)?;
        Ok(Added {
            n_rows: tally.n_rows,
            n_erased: tally.n_erased,
            version,
        })
    }

    /// Makes sure that rows that were just added are there once, and of nobody who was erased meanwhile; then shows them to
    /// readers. Returns the version that holds them.
    async fn settled(&mut self, mut version: u64, commit: &str, tally: &Tally) -> Result<u64> {
        let path = self.place.path.clone();
        self.table
            .checkout_latest()
            .await
            .map_err(io("opening", &path))?;
        let origins: Vec<String> = tally.origins.iter().cloned().collect();
        let commits = self.commits_of(&origins).await?;
        if self.keep_first(commits).await? > 0 {
            version = self.table.version().await.map_err(io("reading", &path))?;
        }
        let erased = self.erased().await?;
        if erased.has_any() {
            let own = Some(sql::is_among(COMMIT, [commit], false));
            let rows = rows_of_erased(&self.table, (self.key(), &erased), own, &path).await?;
            if !rows.is_empty() {
                version = delete_rows(&self.table, &rows, &path).await?;
            }
        }
        let views: Vec<String> = tally.views.iter().cloned().collect();
        self.publish(version, &views).await?;
        Ok(version)
    }

    /// Returns which changes brought rows of some origins.
    async fn commits_of(&self, origins: &[String]) -> Result<Commits> {
        let mut commits = Commits::new();
        for origins in origins.chunks(IDS_TOGETHER) {
            let wanted = sql::is_among(ORIGIN, origins.iter().map(String::as_str), false);
            count_commits(&self.table, Some(wanted), self.path(), &mut commits).await?;
        }
        Ok(commits)
    }

    /// Keeps of each origin the rows of one change, and returns how many vectors left. Whoever looks keeps the same.
    pub(crate) async fn keep_first(&self, commits: Commits) -> Result<usize> {
        let mut n_doubled = 0;
        for (origin, commits) in commits {
            for (commit, n) in commits.into_iter().skip(1) {
                let one = |field: &str, text: &str| sql::is_among(field, [text], false);
                let condition = sql::all([one(ORIGIN, &origin), one(COMMIT, &commit)]);
                let condition = condition.unwrap_or_default();
                let deleted = self.table.delete(condition.as_str()).await;
                deleted.map_err(io("removing doubled rows of", self.path()))?;
                n_doubled += n;
            }
        }
        Ok(n_doubled)
    }

    /// Shows readers a version of the table, unless they see a later one.
    pub(crate) async fn publish(&mut self, version: u64, views: &[String]) -> Result<()> {
        let path = self.place.path.clone();
        self.meta = Meta::update(&self.objects, &path, |meta| {
            let before = (meta.published, meta.views.len());
            meta.published = meta.published.max(version);
            meta.views.extend(views.iter().cloned());
            meta.views.sort_unstable();
            meta.views.dedup();
            before != (meta.published, meta.views.len())
        })
        .await?;
        Ok(())
    }

    pub(crate) async fn erased(&self) -> Result<ErasedPatients> {
        let list = match self.objects.get(ERASED).await? {
            None => ErasedList::default(),
            Some((bytes, _)) => parse(&bytes, &self.place.path.join(ERASED))?,
        };
        Ok(ErasedPatients::new(list))
    }

    /// Gives the table the fields that it lacks; rows that are there have empty cells in them. Returns all fields.
    async fn widened(&self, columns: &[String], attached: &[String]) -> Result<Arc<Schema>> {
        let path = &self.place.path;
        let columns = columns.iter().map(String::as_str);
        let attached = attached.iter().map(String::as_str);
        let wanted = fields::schema(self.meta.width, self.meta.numbers, columns, attached)?;
        // Of two writers that add one field at the same time, the second one finds it there.
        for attempt in 0.. {
            let there = self.table.schema().await.map_err(io("reading", path))?;
            let lacks = wanted.fields().iter();
            let lacks = lacks.filter(|field| there.field_with_name(field.name()).is_err());
            let lacks: Vec<(String, String)> = lacks
                .map(|field| {
                    let empty = match field.data_type() {
                        lancedb::arrow::arrow_schema::DataType::Binary => "X''",
                        _ => "''",
                    };
                    (field.name().clone(), empty.to_owned())
                })
                .collect();
            if lacks.is_empty() {
                return Ok(there);
            }
            let adding = NewColumnTransform::SqlExpressions(lacks);
            let added = self.table.add_columns().transform(adding).execute().await;
            if let Err(error) = added
                && attempt > 8
            {
                return Err(io("adding columns to", path)(error));
            }
            self.table
                .checkout_latest()
                .await
                .map_err(io("opening", path))?;
        }
        unreachable!("the loop returns")
    }
}

/// What the pieces of one call amount to.
#[derive(Debug, Default)]
struct Tally {
    n_rows: usize,
    n_erased: usize,
    views: BTreeSet<String>,
    origins: BTreeSet<String>,
    /// Hashes of the ids so far.
    ids: HashSet<u128>,
    fault: Option<Error>,
}

/// Makes record batches of pieces of rows.
struct Pieces {
    /// The table, if it has rows.
    table: Option<Table>,
    width: usize,
    key: Key,
    erased: ErasedPatients,
    schema: Arc<Schema>,
    commit: String,
    path: std::path::PathBuf,
    tally: Arc<Mutex<Tally>>,
}

impl Pieces {
    fn next(&mut self, (origin, mut rows): Brought) -> Result<RecordBatch> {
        rows.batch().check(self.width)?;
        m3ret_search::check_unit(&rows.vectors, self.width)?;
        let erased = self.erased.rows(&self.key, &rows.columns);
        rows.leave_out(&erased, self.width);
        self.check_ids(&rows.ids)?;
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.n_rows += rows.ids.len();
        tally.n_erased += erased.len();
        let views = rows
            .views
            .iter()
            .filter_map(|view| rows.view_names.get(view.name as usize));
        let views: BTreeSet<String> = views.cloned().collect();
        tally.views.extend(views);
        tally.origins.insert(origin.clone());
        drop(tally);
        to_batch(&rows, &self.schema, (&self.commit, &origin), &self.path)
    }

    fn check_ids(&self, ids: &[String]) -> Result<()> {
        let twice = |row: usize, found: &str| {
            let what = format!("id of row {row} (from 0)");
            Err(mismatch(&what, "a new one", found))
        };
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for (row, id) in ids.iter().enumerate() {
            if id.is_empty() {
                return twice(row, "an empty id");
            }
            let hash = blake3::hash(id.as_bytes());
            let hash = hash.as_bytes().first_chunk().copied().unwrap_or_default();
            if !tally.ids.insert(u128::from_le_bytes(hash)) {
                return twice(row, "an id that came before");
            }
        }
        drop(tally);
        let Some(table) = &self.table else {
            return Ok(());
        };
        for (start, ids) in (0..).step_by(IDS_TOGETHER).zip(ids.chunks(IDS_TOGETHER)) {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let condition = sql::is_among(ID, ids.iter().copied(), false);
            let found = async {
                let asked = table
                    .query()
                    .only_if(condition)
                    .select(Select::columns(&[ID]));
                let found = collect(asked.limit(1), &self.path).await?;
                let first = found.iter().find(|batch| batch.num_rows() > 0);
                let first = first.map(|batch| {
                    let ids = Answer::new(batch, &self.path).texts(ID)?;
                    Ok(ids.value(0).to_owned())
                });
                first.transpose()
            };
            let found = wait(Patience::Change, "asking for ids of", &self.path, found)?;
            if let Some(found) = found {
                let row = start + ids.iter().position(|id| *id == found).unwrap_or(0);
                return twice(row, "an id that is in the lake already");
            }
        }
        Ok(())
    }
}

/// Connects to the folder of a table.
pub(crate) async fn connect(place: &Place) -> Result<lancedb::Connection> {
    let connection = lancedb::connect(&place.uri)
        .storage_options(store::options(place))
        .session(store::session())
        .execute()
        .await;
    connection.map_err(io("opening", &place.path))
}

/// Reads the whole answer to a question.
pub(crate) async fn collect(
    query: impl lancedb::query::ExecutableQuery,
    path: &Path,
) -> Result<Vec<RecordBatch>> {
    let stream = query.execute().await.map_err(io("reading", path))?;
    stream.try_collect().await.map_err(io("reading", path))
}

/// How many vectors each change brought, by origin.
pub(crate) type Commits = BTreeMap<String, BTreeMap<String, usize>>;

/// Counts the vectors that changes brought, of rows for which a condition holds.
pub(crate) async fn count_commits(
    table: &Table,
    condition: Option<String>,
    path: &Path,
    commits: &mut Commits,
) -> Result<()> {
    let mut asked = table.query().select(Select::columns(&[ORIGIN, COMMIT]));
    if let Some(condition) = condition {
        asked = asked.only_if(condition);
    }
    let mut stream = asked.execute().await.map_err(io("reading", path))?;
    while let Some(batch) = stream.try_next().await.map_err(io("reading", path))? {
        let answer = Answer::new(&batch, path);
        let (origins, changes) = (answer.texts(ORIGIN)?, answer.texts(COMMIT)?);
        for row in 0..answer.len() {
            let (origin, commit) = (origins.value(row), changes.value(row));
            let known = commits.get_mut(origin);
            match known.and_then(|known| known.get_mut(commit)) {
                Some(n) => *n += 1,
                None => {
                    let of_origin = commits.entry(origin.to_owned()).or_default();
                    of_origin.insert(commit.to_owned(), 1);
                }
            }
        }
    }
    Ok(())
}

/// Columns that name patients.
pub const OF_PATIENTS: [&str; 3] = [PATIENT, HEADER_PATIENT, ISSUED_PATIENT];

/// Returns the addresses of those rows of patients who were erased that a condition holds for, those of further vectors
/// included.
pub(crate) async fn rows_of_erased(
    table: &Table,
    (key, erased): (&Key, &ErasedPatients),
    condition: Option<String>,
    path: &Path,
) -> Result<Vec<u64>> {
    let schema = table.schema().await.map_err(io("reading", path))?;
    let mut asked = vec![VIEW.to_owned()];
    for column in OF_PATIENTS {
        let field = fields::field_of(column)?;
        if schema.field_with_name(&field).is_ok() {
            asked.push(field);
        }
    }
    let mut query = table.query().select(Select::columns(&asked)).with_row_id();
    if let Some(condition) = condition {
        query = query.only_if(condition);
    }
    let mut stream = query.execute().await.map_err(io("reading", path))?;
    let (mut rows, mut known) = (Vec::new(), std::collections::HashMap::new());
    while let Some(batch) = stream.try_next().await.map_err(io("reading", path))? {
        let answer = Answer::new(&batch, path);
        let addresses = answer.addresses()?;
        for field in &asked[1..] {
            let column = fields::column_of(field).unwrap_or_default();
            let cells = answer.texts(field)?;
            for (row, &address) in addresses.iter().enumerate() {
                let cell = cells.value(row);
                let is_erased = match known.get(cell) {
                    Some(&known) => known,
                    None => {
                        let is_erased = erased.has_cell(key, &column, cell);
                        known.insert(cell.to_owned(), is_erased);
                        is_erased
                    }
                };
                if is_erased {
                    rows.push(address);
                }
            }
        }
    }
    rows.sort_unstable();
    rows.dedup();
    Ok(rows)
}

/// Deletes rows by address, so that no text of a row stands in the table's own history; returns the version after.
pub(crate) async fn delete_rows(table: &Table, rows: &[u64], path: &Path) -> Result<u64> {
    let mut version = table.version().await.map_err(io("reading", path))?;
    // Addresses stay as they are while rows are only deleted.
    for rows in rows.chunks(ROWS_TOGETHER) {
        let deleted = table.delete(sql::is_row(rows).as_str()).await;
        version = deleted.map_err(io("removing rows of", path))?.version;
    }
    Ok(version)
}

pub(crate) fn random_name(path: &Path) -> Result<String> {
    let mut bytes = [0; 16];
    let filled = getrandom::fill(&mut bytes).map_err(std::io::Error::from);
    filled.map_err(io("asking for random numbers for", path))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
