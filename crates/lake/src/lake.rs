//! A lake as readers see it: one version of its table.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::TryStreamExt as _;
use lancedb::Table;
use lancedb::query::{ExecutableQuery as _, QueryBase as _, Select};
use m3ret_search::{
    Collection, Key, Maker, Numbers, Queries, Result, RowHit, RowId, SearchOptions, Statistics,
};

use crate::cache::Cache;
use crate::cells::{Answer, damaged};
use crate::fields::{self, ID, VECTOR, VIEW};
use crate::keys::LakeKey;
use crate::meta::{Meta, Plans, parse};
use crate::objects::Objects;
use crate::place::{Place, io, mismatch};
use crate::seen::{Seen, SeenRow};
use crate::sql;
use crate::store::{self, Patience, wait};
use crate::writer::{ROWS_TOGETHER, TABLE, collect, connect};

/// Rows that are so few that all their cells are read together, and kept for the next question.
const FEW: usize = 1024;
/// Different cells of a column that are kept.
const MAX_VALUES: usize = 4096;
/// Searches that a lake with an index is measured by: each waits for the store.
const N_MEASURING: usize = 1024;

/// An open lake: what it was when it was opened, whatever writers do meanwhile.
///
/// The versions that readers hold are not locked: if a version is pruned after it was opened, reading it fails, and the
/// lake is to be opened again.
pub struct Lake {
    pub(crate) place: Place,
    pub(crate) objects: Objects,
    pub(crate) table: Table,
    pub(crate) meta: Meta,
    key: Key,
    n_rows: usize,
    /// Names of columns, in the order of the table's fields.
    columns: Vec<String>,
    attached: Vec<String>,
    /// Cells that hold several labels, by column: filters look into them.
    pub(crate) labelled: Mutex<HashMap<String, Arc<BTreeSet<String>>>>,
    /// The different cells of columns that have few.
    values: Mutex<HashMap<String, Arc<BTreeSet<String>>>>,
    seen: Seen,
    statistics: OnceLock<Option<Statistics>>,
    /// Whether upkeep reads, which may take as long as it needs.
    pub(crate) is_upkeep: bool,
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut told = formatter.debug_struct("Lake");
        told.field("place", &self.place)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

impl Lake {
    /// Opens the version of a lake that counts.
    ///
    /// # Errors
    /// `Unsupported` if there is no lake, or its key is not here; `Damaged`; `Io`.
    pub fn open(path: &Path) -> Result<Self> {
        let place = Place::of(path)?;
        let opened = async {
            let objects = Objects::open(&place).await?;
            let (meta, _) = Meta::read(&objects, path).await?;
            let table = read_table(&place, &meta).await?;
            let key = LakeKey::find(&meta.key_check, path)?.key;
            Self::of_table((place.clone(), objects, meta), table, key).await
        };
        wait(Patience::Scan, "opening", path, opened)
    }

    /// Makes a reader of a table that is open.
    pub(crate) async fn of_table(
        (place, objects, meta): (Place, Objects, Meta),
        table: Table,
        key: Key,
    ) -> Result<Self> {
        let path = place.path.clone();
        let schema = table.schema().await.map_err(io("reading", &path))?;
        let names = |of: fn(&str) -> Option<String>| {
            let names = schema.fields().iter().filter_map(|field| of(field.name()));
            names.collect::<Vec<String>>()
        };
        let own = (!meta.views.is_empty()).then(own_vectors);
        let n_rows = table.count_rows(own).await;
        let n_rows = n_rows.map_err(io("counting rows of", &path))?;
        Ok(Self {
            columns: names(fields::column_of),
            attached: names(fields::attached_of),
            key,
            place,
            objects,
            table,
            meta,
            n_rows,
            labelled: Mutex::default(),
            values: Mutex::default(),
            seen: Seen::default(),
            statistics: OnceLock::new(),
            is_upkeep: false,
        })
    }

    /// Returns a number that changes whenever readers should open the lake again.
    ///
    /// # Errors
    /// `Io`; `Damaged`.
    pub fn newest_generation(path: &Path) -> Result<u64> {
        let place = Place::of(path)?;
        let read = async {
            let objects = Objects::open(&place).await?;
            Ok(Meta::read(&objects, path).await?.0.generation)
        };
        wait(
            Patience::Search,
            "asking for the newest state of",
            path,
            read,
        )
    }

    /// Returns the number of changes of what readers see.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.meta.generation
    }

    /// Returns the version of the table.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.meta.published
    }

    /// Returns how the lake is searched; `None` while every vector is looked at.
    #[must_use]
    pub fn plans(&self) -> Option<&Plans> {
        self.meta.plans.as_ref()
    }

    /// Returns the key of the lake's hashes.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the names of what may be attached to rows.
    #[must_use]
    pub fn attachments(&self) -> &[String] {
        &self.attached
    }

    pub(crate) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Waits for an answer of the store.
    pub(crate) fn wait<T: Send>(
        &self,
        patience: Patience,
        action: &'static str,
        answer: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let patience = if self.is_upkeep {
            Patience::Change
        } else {
            patience
        };
        wait(patience, action, self.path(), answer)
    }

    /// Returns the condition that a vector is a row's own, where there are others.
    pub(crate) fn own(&self) -> Option<String> {
        (!self.meta.views.is_empty()).then(own_vectors)
    }

    pub(crate) fn has_column(&self, column: &str) -> bool {
        self.columns.iter().any(|other| other == column)
    }

    /// Returns the field of each column; `None` where there is none.
    fn fields_of(&self, columns: &[&str]) -> Result<Vec<Option<String>>> {
        let fields = columns.iter().map(|column| match self.has_column(column) {
            true => fields::field_of(column).map(Some),
            false => Ok(None),
        });
        fields.collect()
    }

    /// Reads some fields of rows, in their order.
    pub(crate) fn read_rows<T: Default + Clone + Send>(
        &self,
        rows: &[RowId],
        fields: &[String],
        read: impl Fn(&Answer<'_>, usize) -> Result<T> + Send + Sync,
    ) -> Result<Vec<T>> {
        let asked = async {
            let mut places: HashMap<u64, Vec<usize>> = HashMap::with_capacity(rows.len());
            for (place, row) in rows.iter().enumerate() {
                places.entry(row.address()).or_default().push(place);
            }
            let mut addresses: Vec<u64> = places.keys().copied().collect();
            addresses.sort_unstable();
            let mut found = vec![None; rows.len()];
            for addresses in addresses.chunks(ROWS_TOGETHER) {
                let query = self.table.take_row_ids(addresses.to_vec());
                let query = query.select(Select::columns(fields)).with_row_id();
                for batch in &collect(query, self.path()).await? {
                    let answer = Answer::new(batch, self.path());
                    for (idx, address) in answer.addresses()?.iter().enumerate() {
                        let value = read(&answer, idx)?;
                        for &place in places.get(address).into_iter().flatten() {
                            found[place] = Some(value.clone());
                        }
                    }
                }
            }
            let found = found.into_iter().map(|value| {
                value.ok_or_else(|| mismatch("row", "one of this lake", "another address"))
            });
            found.collect::<Result<Vec<T>>>()
        };
        let patience = if rows.len() > ROWS_TOGETHER {
            Patience::Scan
        } else {
            Patience::Search
        };
        self.wait(patience, "reading rows of", asked)
    }

    /// Reads all cells of a few rows, in their order.
    fn seen(&self, rows: &[RowId]) -> Result<Vec<Arc<SeenRow>>> {
        let known = |row: &RowId| self.seen.get(row.address());
        let found: Vec<Option<Arc<SeenRow>>> = rows.iter().map(known).collect();
        let missing = rows.iter().zip(&found).filter(|(_, found)| found.is_none());
        let missing: Vec<RowId> = missing.map(|(row, _)| *row).collect();
        let mut read = Vec::new();
        if !missing.is_empty() {
            let fields = self.texts()?;
            read = self.read_rows(&missing, &fields, |answer, idx| {
                self.seen_row(answer, idx).map(Arc::new)
            })?;
            for (row, read) in missing.iter().zip(&read) {
                self.seen.keep(row.address(), read);
            }
        }
        let mut read = read.into_iter();
        let all = found.into_iter().map(|found| found.or_else(|| read.next()));
        Ok(all.flatten().collect())
    }

    /// The fields of ids and of all columns.
    fn texts(&self) -> Result<Vec<String>> {
        let fields = self.columns.iter().map(|name| fields::field_of(name));
        std::iter::once(Ok(ID.to_owned())).chain(fields).collect()
    }

    fn seen_row(&self, answer: &Answer<'_>, idx: usize) -> Result<SeenRow> {
        let mut texts = self.texts()?.into_iter();
        let text = |field: String| Ok(answer.texts(&field)?.value(idx).to_owned());
        Ok(SeenRow {
            id: texts.next().map(text).transpose()?.unwrap_or_default(),
            cells: texts.map(text).collect::<Result<_>>()?,
            vector: None,
        })
    }

    /// Finds the row of an id, and reads it with its vector: whoever finds a row asks for them next.
    async fn find_seen(&self, id: &str) -> Result<Option<RowId>> {
        let mut fields = self.texts()?;
        fields.push(VECTOR.to_owned());
        let condition = std::iter::once(sql::is_among(ID, [id], false)).chain(self.own());
        let query = self.table.query().select(Select::columns(&fields));
        let query = query.with_row_id();
        let query = query.only_if(sql::all(condition).unwrap_or_default());
        let mut found = None;
        for batch in &collect(query, self.path()).await? {
            let answer = Answer::new(batch, self.path());
            for (idx, &address) in answer.addresses()?.iter().enumerate() {
                let mut row = self.seen_row(&answer, idx)?;
                row.vector = Some(answer.vector(idx)?);
                self.seen.keep(address, &Arc::new(row));
                found = found.max(Some(address));
            }
        }
        Ok(found.map(RowId::of_address))
    }

    /// Reads the different cells of a column for which a condition holds.
    pub(crate) async fn distinct(
        &self,
        field: &str,
        condition: Option<String>,
    ) -> Result<BTreeSet<String>> {
        let path = self.path();
        let mut query = self.table.query().select(Select::columns(&[field]));
        if let Some(condition) = sql::all(condition.into_iter().chain(self.own())) {
            query = query.only_if(condition);
        }
        let mut stream = query.execute().await.map_err(io("reading", path))?;
        let mut values = BTreeSet::new();
        while let Some(batch) = stream.try_next().await.map_err(io("reading", path))? {
            for value in Answer::new(&batch, path).texts(field)?.iter().flatten() {
                if !values.contains(value) {
                    values.insert(value.to_owned());
                }
            }
        }
        Ok(values)
    }

    /// Returns the addresses of all own vectors for which a condition holds, in ascending order.
    async fn addresses(&self, condition: Option<String>) -> Result<Vec<u64>> {
        let path = self.path();
        let mut query = self
            .table
            .query()
            .select(Select::columns(&[VIEW]))
            .with_row_id();
        if let Some(condition) = sql::all(condition.into_iter().chain(self.own())) {
            query = query.only_if(condition);
        }
        let mut stream = query.execute().await.map_err(io("reading", path))?;
        let mut rows = Vec::new();
        while let Some(batch) = stream.try_next().await.map_err(io("reading", path))? {
            rows.extend_from_slice(Answer::new(&batch, path).addresses()?);
        }
        rows.sort_unstable();
        Ok(rows)
    }

    fn rows_where(&self, condition: Option<String>) -> Result<Vec<RowId>> {
        let rows = self.addresses(condition);
        let rows = self.wait(Patience::Scan, "reading rows of", rows)?;
        Ok(rows.into_iter().map(RowId::of_address).collect())
    }

    /// Returns the path under which errors name an object.
    fn named(&self, object: &str) -> PathBuf {
        self.place.path.join(object)
    }
}

/// Returns the cells of a row of an answer, empty without a field.
fn cells_of<'a>(
    answer: &Answer<'a>,
    idx: usize,
    fields: &[Option<String>],
) -> Result<Vec<Cow<'a, str>>> {
    let cells = fields.iter().map(|field| match field {
        Some(field) => Ok(Cow::Borrowed(answer.texts(field)?.value(idx))),
        None => Ok(Cow::Borrowed("")),
    });
    cells.collect()
}

/// Opens the version of the table that readers see, through the cache of the reader.
async fn read_table(place: &Place, meta: &Meta) -> Result<Table> {
    let connection = connect(place).await?;
    let mut opening = connection.open_table(TABLE).version(meta.published);
    if let Some(cache) = Cache::open(&place.uri, meta.n_purges) {
        opening = opening.lance_read_params(store::read_params(place, cache));
    }
    opening.execute().await.map_err(io("opening", &place.path))
}

/// Returns the condition that a vector is a row's own.
pub(crate) fn own_vectors() -> String {
    sql::is_among(VIEW, [""], false)
}

impl Collection for Lake {
    fn len(&self) -> usize {
        self.n_rows
    }

    fn width(&self) -> usize {
        self.meta.width
    }

    fn numbers(&self) -> Numbers {
        self.meta.numbers
    }

    fn maker(&self) -> &Maker {
        &self.meta.maker
    }

    fn columns(&self) -> Vec<&str> {
        self.columns.iter().map(String::as_str).collect()
    }

    fn scan(&self) -> Result<Vec<RowId>> {
        self.rows_where(None)
    }

    fn each_row(
        &self,
        columns: &[&str],
        visit: &mut (dyn FnMut(RowId, &[Cow<'_, str>]) + Send),
    ) -> Result<()> {
        let fields = self.fields_of(columns)?;
        let mut asked: Vec<String> = fields.iter().flatten().cloned().collect();
        // Rows have cells even where columns have none.
        asked.push(VIEW.to_owned());
        asked.sort_unstable();
        asked.dedup();
        let visited = async {
            let path = self.path();
            let query = self.table.query().select(Select::columns(&asked));
            let mut query = query.with_row_id();
            if let Some(own) = self.own() {
                query = query.only_if(own);
            }
            let mut stream = query.execute().await.map_err(io("reading", path))?;
            while let Some(batch) = stream.try_next().await.map_err(io("reading", path))? {
                let answer = Answer::new(&batch, path);
                for (idx, &address) in answer.addresses()?.iter().enumerate() {
                    let cells = cells_of(&answer, idx, &fields)?;
                    visit(RowId::of_address(address), &cells);
                }
            }
            Ok(())
        };
        self.wait(Patience::Scan, "reading rows of", visited)
    }

    fn n_measuring(&self) -> usize {
        match self.plans() {
            Some(_) => N_MEASURING,
            None => usize::MAX,
        }
    }

    fn find(&self, id: &str) -> Result<Option<RowId>> {
        self.wait(Patience::Scan, "reading rows of", self.find_seen(id))
    }

    fn find_rows(&self, column: &str, value: &str) -> Result<Vec<RowId>> {
        match self.has_column(column) {
            true => {
                let field = fields::field_of(column)?;
                self.rows_where(Some(sql::is_among(&field, [value], false)))
            }
            false if value.is_empty() => self.scan(),
            false => Ok(Vec::new()),
        }
    }

    fn values(&self, column: &str) -> Result<Vec<Cow<'_, str>>> {
        if !self.has_column(column) {
            let none = if self.is_empty() {
                Vec::new()
            } else {
                vec![Cow::Borrowed("")]
            };
            return Ok(none);
        }
        let lock = || self.values.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(column).cloned();
        let values = match known {
            Some(known) => known,
            None => {
                let field = fields::field_of(column)?;
                let values = self.distinct(&field, None);
                let values = self.wait(Patience::Scan, "reading a column of", values)?;
                let values = Arc::new(values);
                if values.len() <= MAX_VALUES {
                    lock().insert(column.to_owned(), Arc::clone(&values));
                }
                values
            }
        };
        Ok(values.iter().cloned().map(Cow::Owned).collect())
    }

    fn ids(&self, rows: &[RowId]) -> Result<Vec<Cow<'_, str>>> {
        if rows.len() <= FEW {
            let rows = self.seen(rows)?.into_iter();
            return Ok(rows.map(|row| Cow::Owned(row.id.clone())).collect());
        }
        self.read_rows(rows, &[ID.to_owned()], |answer, idx| {
            Ok(Cow::Owned(answer.texts(ID)?.value(idx).to_owned()))
        })
    }

    fn rows(&self, rows: &[RowId], columns: &[&str]) -> Result<Vec<Vec<Cow<'_, str>>>> {
        if rows.len() <= FEW {
            let places = columns
                .iter()
                .map(|name| self.columns.iter().position(|known| known == name));
            let places: Vec<Option<usize>> = places.collect();
            let cell = |row: &SeenRow, place: &Option<usize>| {
                let cell = place.and_then(|place| row.cells.get(place));
                cell.map_or(Cow::Borrowed(""), |cell| Cow::Owned(cell.clone()))
            };
            let rows = self.seen(rows)?.into_iter();
            return Ok(rows
                .map(|row| places.iter().map(|place| cell(&row, place)).collect())
                .collect());
        }
        let fields = self.fields_of(columns)?;
        let mut asked: Vec<String> = fields.iter().flatten().cloned().collect();
        asked.sort_unstable();
        asked.dedup();
        if rows.is_empty() || asked.is_empty() {
            return Ok(vec![vec![Cow::Borrowed(""); columns.len()]; rows.len()]);
        }
        self.read_rows(rows, &asked, |answer, idx| {
            let cells = cells_of(answer, idx, &fields)?.into_iter();
            Ok(cells.map(|cell| Cow::Owned(cell.into_owned())).collect())
        })
    }

    fn vectors(&self, rows: &[RowId]) -> Result<Vec<f32>> {
        if let [row] = rows
            && let Some(vector) = self
                .seen
                .get(row.address())
                .and_then(|row| row.vector.clone())
        {
            return Ok(vector);
        }
        let vectors =
            self.read_rows(rows, &[VECTOR.to_owned()], |answer, idx| answer.vector(idx))?;
        Ok(vectors.concat())
    }

    fn views(&self) -> Vec<&str> {
        self.meta.views.iter().map(String::as_str).collect()
    }

    fn view_vectors(&self, row: RowId) -> Result<Vec<(Cow<'_, str>, Vec<f32>)>> {
        if self.meta.views.is_empty() {
            return Ok(Vec::new());
        }
        let id = self.id(row)?.into_owned();
        let asked = async {
            let of_row = sql::is_among(ID, [id.as_str()], false);
            let further = sql::is_among(VIEW, [""], true);
            let query = self
                .table
                .query()
                .only_if(format!("{of_row} AND {further}"));
            let query = query.select(Select::columns(&[VIEW, VECTOR]));
            let mut found = Vec::new();
            for batch in &collect(query, self.path()).await? {
                let answer = Answer::new(batch, self.path());
                let views = answer.texts(VIEW)?;
                for idx in 0..answer.len() {
                    let name: Cow<'_, str> = Cow::Owned(views.value(idx).to_owned());
                    found.push((name, answer.vector(idx)?));
                }
            }
            found.sort_by(|(a, _), (b, _)| a.cmp(b));
            Ok(found)
        };
        self.wait(Patience::Search, "reading further vectors of", asked)
    }

    fn attachment(&self, row: RowId, name: &str) -> Result<Cow<'_, [u8]>> {
        if !self.attached.iter().any(|other| other == name) {
            return Ok(Cow::Borrowed(&[]));
        }
        let field = fields::field_of_attached(name)?;
        let mut found = self.read_rows(&[row], std::slice::from_ref(&field), |answer, idx| {
            Ok(answer.bytes(&field)?.value(idx).to_vec())
        })?;
        Ok(Cow::Owned(found.pop().unwrap_or_default()))
    }

    fn search(&self, queries: Queries<'_>, options: &SearchOptions) -> Result<Vec<Vec<RowHit>>> {
        crate::search::search(self, queries, options)
    }

    fn statistics(&self) -> Result<Option<&Statistics>> {
        if let Some(known) = self.statistics.get() {
            return Ok(known.as_ref());
        }
        let read = match &self.meta.statistics {
            None => None,
            Some(measured) => {
                let name = &measured.object;
                let got = self.objects.get(name);
                let got = self.wait(Patience::Search, "reading", got)?;
                let missing = || damaged(&self.named(name), "it is missing");
                let (bytes, _) = got.ok_or_else(missing)?;
                Some(parse(&bytes, &self.named(name))?)
            }
        };
        Ok(self.statistics.get_or_init(|| read).as_ref())
    }

    fn pseudonym(&self, kind: &str, identifier: &str) -> String {
        self.key.pseudonym(kind, identifier)
    }
}
