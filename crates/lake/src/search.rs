//! Search: the table's index proposes candidates, and their scores are computed here from the stored vectors, as in a
//! gallery. So a hit has the very score that it has there, and an exact search returns the same hits.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use lancedb::DistanceType;
use lancedb::query::{QueryBase as _, Select};
use m3ret_search::{
    Collection as _, Filter, LeftOut, Method, Numbers, Queries, Result, RowHit, RowId,
    SearchOptions, ViewId, Views, best_of_groups, dot_product, no_column, no_value,
};

use crate::cells::Answer;
use crate::fields::{self, ID, VECTOR, VIEW};
use crate::lake::{Lake, own_vectors};
use crate::maintain::INDEXED;
use crate::place::io;
use crate::sql;
use crate::store::Patience;

/// Queries that wait for the store at the same time.
const TOGETHER: usize = 8;
/// Further candidates of an exact search, because the table rounds scores.
const SPARE: usize = 16;
/// How much the table's score of a vector of 32 bits may differ from ours.
const ROUNDING: f32 = 1e-5;
/// The same with vectors of 16 bits, which it multiplies as they are.
const ROUNDING_F16: f32 = 4e-3;
/// The field with the table's own distance.
const DISTANCE: &str = "_distance";
/// Vectors that are left out one by one; of more, the condition that hits pass is asked for.
const MANY_LEFT_OUT: usize = 4096;
/// Values of a column that are read to say which there are.
const MANY_VALUES: usize = 64;

pub(crate) fn search(
    lake: &Lake,
    queries: Queries<'_>,
    options: &SearchOptions,
) -> Result<Vec<Vec<RowHit>>> {
    let n_queries = queries.check(lake.width())?;
    options.views.check()?;
    let conditions = options.filters.iter().map(|filter| lake.condition(filter));
    let conditions: Vec<String> = conditions.collect::<Result<_>>()?;
    if let Some(column) = &options.group_by
        && !lake.has_column(column)
    {
        return Err(no_column(lake, column));
    }
    let k = options.k.min(lake.len());
    if k == 0 {
        return Ok(vec![Vec::new(); n_queries]);
    }
    let asked: Vec<Asked<'_>> = (0..n_queries)
        .map(|number| Asked::new(lake, queries, number, &conditions, options.views))
        .collect::<Result<_>>()?;
    match &options.group_by {
        None => lake.search_all(&asked, Depth::of(lake, k, options)),
        Some(column) => {
            let groups = asked
                .iter()
                .map(|asked| lake.groups(asked, column, options));
            groups.collect()
        }
    }
}

/// One query.
struct Asked<'a> {
    own: &'a [f32],
    /// [further vectors, width]
    further: &'a [f32],
    /// Conditions that rows must pass.
    conditions: Vec<String>,
    /// Conditions of which hits pass none, each of a column with an index.
    excluded: Vec<String>,
    /// Rows of the query's own image, with their ids: no hits.
    left_out: &'a [RowId],
    views: Views,
}

impl<'a> Asked<'a> {
    fn new(
        lake: &Lake,
        queries: Queries<'a>,
        number: usize,
        filters: &[String],
        views: Views,
    ) -> Result<Self> {
        let width = lake.width();
        let (mut conditions, mut excluded) = (filters.to_vec(), Vec::new());
        for LeftOut { column, values } in queries.left_out {
            if lake.has_column(column) && !values[number].is_empty() {
                let field = fields::field_of(column)?;
                // An index finds rows with a value, and none without it: that would read the whole column.
                let has_index = INDEXED.contains(&column.as_str());
                let condition = sql::is_among(&field, [values[number].as_str()], !has_index);
                match has_index {
                    true => excluded.push(condition),
                    false => conditions.push(condition),
                }
            }
        }
        let further = queries.further.get(number).map_or(&[][..], Vec::as_slice);
        Ok(Self {
            own: &queries.vectors[number * width..][..width],
            further: if matches!(views, Views::Projections { .. }) {
                further
            } else {
                &[]
            },
            conditions,
            excluded,
            left_out: queries.own.get(number).map_or(&[], Vec::as_slice),
            views,
        })
    }

    /// Returns the vectors that are searched for, with their numbers; the query's own has none.
    fn vectors(&self) -> impl Iterator<Item = (Option<u32>, &'a [f32])> {
        let further = (0..).zip(self.further.chunks_exact(self.own.len()));
        let further = further.map(|(number, vector)| (Some(number), vector));
        std::iter::once((None, self.own)).chain(further)
    }
}

/// How deep to look.
#[derive(Debug, Clone, Copy)]
struct Depth {
    k: usize,
    /// Lists that are looked at, and candidates; `None`: every vector is looked at.
    plan: Option<(usize, usize)>,
}

impl Depth {
    fn of(lake: &Lake, k: usize, options: &SearchOptions) -> Self {
        // Filters may leave out most of the rows near the query.
        let is_filtered = !options.filters.is_empty();
        let plans = lake.plans().filter(|plans| match options.method {
            Method::Exact => false,
            // Plans were measured for one recall.
            Method::Recall(recall) => recall.share() <= plans.target,
            Method::Auto | Method::Planned(_) => true,
        });
        let plan = plans.map(
            |plans| match plans.levels.iter().find(|level| k <= level.k) {
                Some(level) if is_filtered => (level.nprobes_filtered, k * level.refine),
                Some(level) => (level.nprobes, k * level.refine),
                // More hits than were measured: all lists.
                None => (plans.n_lists, 2 * k),
            },
        );
        Self { k, plan }
    }
}

/// Vectors that are no hits.
struct LeftOutRows {
    addresses: HashSet<u64>,
    /// Ids of images of which no vector is a hit.
    ids: HashSet<String>,
}

/// A vector that the table proposed, with its exact score.
#[derive(Debug, Clone)]
struct Candidate {
    address: u64,
    id: String,
    /// `None`: the row's own vector.
    view: Option<ViewId>,
    score: f32,
}

/// The order of hits: best first; of equal scores, the smaller id first.
fn order(a: (f32, &str), b: (f32, &str)) -> Ordering {
    b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1))
}

impl Lake {
    fn search_all(&self, asked: &[Asked<'_>], depth: Depth) -> Result<Vec<Vec<RowHit>>> {
        let mut all: Vec<BoxFuture<'_, Result<Vec<RowHit>>>> = Vec::with_capacity(asked.len());
        for asked in asked {
            all.push(self.hits_of(asked, depth).boxed());
        }
        let hits = futures::stream::iter(all).buffered(TOGETHER).try_collect();
        let is_long = depth.plan.is_none() || asked.len() > TOGETHER;
        let patience = if is_long {
            Patience::Scan
        } else {
            Patience::Search
        };
        self.wait(patience, "searching", hits)
    }

    /// Looks deeper and deeper until there are enough groups or no more rows.
    fn groups(
        &self,
        asked: &Asked<'_>,
        column: &str,
        options: &SearchOptions,
    ) -> Result<Vec<RowHit>> {
        let mut k = options.k.saturating_mul(4).clamp(1, self.len());
        loop {
            let depth = Depth::of(self, k, options);
            let hits = self.search_all(std::slice::from_ref(asked), depth)?;
            let hits = hits.into_iter().next().unwrap_or_default();
            let is_all = hits.len() < k || k == self.len();
            let groups = best_of_groups(self, hits, column, options.k)?;
            if groups.len() == options.k || is_all {
                return Ok(groups);
            }
            k = k.saturating_mul(4).min(self.len());
        }
    }

    /// Finds the best rows of one query over all pairs of vectors that are compared.
    async fn hits_of(&self, asked: &Asked<'_>, depth: Depth) -> Result<Vec<RowHit>> {
        let ids = async {
            let rows: Vec<u64> = asked.left_out.iter().map(|row| row.address()).collect();
            self.ids_of(&rows).await
        };
        let further = self.further_views(asked.views);
        let (rows_left_out, excluded) = self.left_out(asked).await?;
        // Ids of own images are asked for only where further vectors of theirs may be found.
        let left_out = LeftOutRows {
            addresses: rows_left_out,
            ids: match further {
                Some(_) => ids.await?,
                None => HashSet::new(),
            },
        };
        let handicap = match asked.views {
            Views::Projections { handicap } => handicap,
            Views::Own | Views::Slices => 0.0,
        };
        let mut found: Vec<(Candidate, Option<u32>)> = Vec::new();
        for (number, vector) in asked.vectors() {
            let loss = if number.is_some() { handicap } else { 0.0 };
            let passes = [(self.own(), loss), (further.clone(), handicap)];
            for (pass, (condition, loss)) in passes.into_iter().enumerate() {
                if pass == 1 && condition.is_none() {
                    continue;
                }
                let conditions = asked.conditions.iter().chain(&excluded).cloned();
                let condition = sql::all(conditions.chain(condition));
                let rows = self.best_rows(vector, condition, &left_out, depth);
                let rows = rows.await?;
                found.extend(rows.into_iter().map(|mut candidate| {
                    candidate.score -= loss;
                    (candidate, number)
                }));
            }
        }
        // Of a row, the best pair stays; of equally good ones that of the first vector of the query, then of the first view.
        found.sort_by(|(a, a_number), (b, b_number)| {
            let by_score = order((a.score, &a.id), (b.score, &b.id));
            by_score
                .then(a_number.cmp(b_number))
                .then(a.view.cmp(&b.view))
        });
        let mut seen = HashSet::new();
        found.retain(|(candidate, _)| seen.insert(candidate.id.clone()));
        found.truncate(depth.k);
        let rows = self.own_rows(&found).await?;
        let hits = found.into_iter().map(|(candidate, query_vector)| RowHit {
            row: RowId::of_address(
                rows.get(&candidate.id)
                    .copied()
                    .unwrap_or(candidate.address),
            ),
            score: candidate.score,
            view: candidate.view,
            query_vector,
        });
        Ok(hits.collect())
    }

    /// Returns the condition of those further vectors that are compared; `None` if none are.
    fn further_views(&self, views: Views) -> Option<String> {
        let is_wanted = |name: &&String| match views {
            Views::Own => false,
            Views::Projections { .. } => !m3ret_search::names::is_slice(name),
            Views::Slices => m3ret_search::names::is_slice(name),
        };
        let names = self.meta.views.iter().filter(is_wanted);
        let names: Vec<&str> = names.map(String::as_str).collect();
        (!names.is_empty()).then(|| sql::is_among(VIEW, names, false))
    }

    /// Finds the addresses of all vectors that are no hits; where these are very many, returns the conditions that hits
    /// pass instead.
    async fn left_out(&self, asked: &Asked<'_>) -> Result<(HashSet<u64>, Vec<String>)> {
        let mut addresses: HashSet<u64> = asked.left_out.iter().map(|row| row.address()).collect();
        if asked.excluded.is_empty() {
            return Ok((addresses, Vec::new()));
        }
        let any: Vec<String> = asked
            .excluded
            .iter()
            .map(|one| format!("({one})"))
            .collect();
        let query = self.table.query().select(Select::columns(&[VIEW]));
        let query = query.only_if(any.join(" OR ")).limit(MANY_LEFT_OUT + 1);
        let mut n_found = 0;
        for batch in &crate::writer::collect(query.with_row_id(), self.path()).await? {
            let found = Answer::new(batch, self.path()).addresses()?;
            n_found += found.len();
            addresses.extend(found);
        }
        let conditions = match n_found > MANY_LEFT_OUT {
            true => any.iter().map(|one| format!("NOT {one}")).collect(),
            false => Vec::new(),
        };
        Ok((addresses, conditions))
    }

    /// Finds the best rows for one vector among some vectors of the lake, each with its best vector.
    async fn best_rows(
        &self,
        vector: &[f32],
        condition: Option<String>,
        left_out: &LeftOutRows,
        depth: Depth,
    ) -> Result<Vec<Candidate>> {
        let mut n_wanted = match depth.plan {
            None => depth.k + SPARE,
            Some((_, n_candidates)) => n_candidates.max(depth.k),
        };
        let mut nprobes = depth.plan.map(|(nprobes, _)| nprobes);
        let n_lists = self.plans().map_or(0, |plans| plans.n_lists);
        loop {
            let limit = n_wanted + left_out.addresses.len();
            let near = self.addresses_near(vector, condition.as_deref(), limit, nprobes);
            let mut near = near.await?;
            let is_all = near.len() < limit;
            near.retain(|address| !left_out.addresses.contains(address));
            near.truncate(n_wanted);
            let mut found = self.candidates(vector, near).await?;
            // The least score of what was proposed: nothing better than that was left out, but for rounding.
            let scores = found.iter().map(|candidate| candidate.score);
            let least = scores.fold(f32::INFINITY, f32::min);
            found.retain(|one| !left_out.ids.contains(&one.id));
            found.sort_by(|a, b| {
                order((a.score, &a.id), (b.score, &b.id)).then(a.view.cmp(&b.view))
            });
            let mut seen = HashSet::new();
            found.retain(|candidate| seen.insert(candidate.id.clone()));
            let last = found.get(depth.k - 1).map(|candidate| candidate.score);
            let is_enough = match (depth.plan, last) {
                (None, Some(last)) => least + 2.0 * self.rounding() < last,
                (Some(_), Some(_)) => true,
                (_, None) => false,
            };
            if is_all && last.is_none() && nprobes.is_some_and(|nprobes| nprobes < n_lists) {
                // Most rows of the nearest lists are no hits: those that are lie in others.
                nprobes = Some(n_lists);
                continue;
            }
            if is_all || is_enough {
                found.truncate(depth.k);
                return Ok(found);
            }
            n_wanted = n_wanted.saturating_mul(4);
        }
    }

    fn rounding(&self) -> f32 {
        match self.numbers() {
            Numbers::F32 => ROUNDING,
            Numbers::F16 => ROUNDING_F16,
        }
    }

    /// Reads vectors, and computes their scores.
    async fn candidates(&self, vector: &[f32], addresses: Vec<u64>) -> Result<Vec<Candidate>> {
        let path = self.path();
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let has_views = !self.meta.views.is_empty();
        let fields: &[&str] = if has_views {
            &[ID, VECTOR, VIEW]
        } else {
            &[ID, VECTOR]
        };
        let mut found = Vec::with_capacity(addresses.len());
        let query = self.table.take_row_ids(addresses);
        let query = query.select(Select::columns(fields)).with_row_id();
        for batch in &crate::writer::collect(query, path).await? {
            let answer = Answer::new(batch, path);
            let (ids, addresses) = (answer.texts(ID)?, answer.addresses()?);
            let views = match has_views {
                true => Some(answer.texts(VIEW)?),
                false => None,
            };
            let vectors = answer.vectors()?;
            for (idx, stored) in vectors.chunks_exact(vector.len()).enumerate() {
                found.push(Candidate {
                    address: addresses[idx],
                    id: ids.value(idx).to_owned(),
                    view: views.and_then(|views| self.view_of(views.value(idx))),
                    score: dot_product(vector, stored),
                });
            }
        }
        Ok(found)
    }

    /// Asks the index alone for the nearest own vectors of each query, with an effort, [candidates, lists]: their addresses,
    /// the nearest first. Reads no vectors.
    pub(crate) fn proposed(
        &self,
        vectors: &[f32],
        condition: Option<String>,
        [limit, nprobes]: [usize; 2],
    ) -> Result<Vec<Vec<u64>>> {
        let condition = sql::all(condition.into_iter().chain(self.own()));
        let condition = condition.as_deref();
        let mut all: Vec<BoxFuture<'_, Result<Vec<u64>>>> = Vec::new();
        for vector in vectors.chunks_exact(self.width()) {
            all.push(
                self.addresses_near(vector, condition, limit, Some(nprobes))
                    .boxed(),
            );
        }
        let found = futures::stream::iter(all).buffered(TOGETHER).try_collect();
        self.wait(Patience::Change, "measuring searches of", found)
    }

    /// Asks the table for the addresses of the nearest vectors, the nearest first: with an index, among those of some
    /// lists, else among all.
    async fn addresses_near(
        &self,
        vector: &[f32],
        condition: Option<&str>,
        limit: usize,
        nprobes: Option<usize>,
    ) -> Result<Vec<u64>> {
        let path = self.path();
        let fault = || io("searching", path);
        let query = self.table.query().nearest_to(vector).map_err(fault())?;
        let query = query
            .column(VECTOR)
            .distance_type(DistanceType::Cosine)
            .limit(limit);
        let mut query = match nprobes {
            None => query.bypass_vector_index(),
            Some(nprobes) => query.nprobes(nprobes).map_err(fault())?,
        };
        if let Some(condition) = condition {
            query = query.only_if(condition);
        }
        let query = query.select(Select::columns(&[DISTANCE])).with_row_id();
        let mut found = Vec::with_capacity(limit.min(self.len()));
        for batch in &crate::writer::collect(query, path).await? {
            found.extend_from_slice(Answer::new(batch, path).addresses()?);
        }
        Ok(found)
    }

    fn view_of(&self, name: &str) -> Option<ViewId> {
        let place = self
            .meta
            .views
            .binary_search_by(|other| other.as_str().cmp(name))
            .ok()?;
        u32::try_from(place).ok().map(ViewId)
    }

    /// Returns the rows of hits that were found by a further vector, by id.
    async fn own_rows(&self, hits: &[(Candidate, Option<u32>)]) -> Result<HashMap<String, u64>> {
        let by_view = hits
            .iter()
            .filter(|(candidate, _)| candidate.view.is_some());
        let ids: Vec<&str> = by_view
            .map(|(candidate, _)| candidate.id.as_str())
            .collect();
        let mut rows = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(MANY_VALUES * 16) {
            let condition = sql::is_among(ID, ids.iter().copied(), false);
            let query = self
                .table
                .query()
                .only_if(format!("({condition}) AND {}", own_vectors()));
            let query = query.select(Select::columns(&[ID])).with_row_id();
            for batch in &crate::writer::collect(query, self.path()).await? {
                let answer = Answer::new(batch, self.path());
                let ids = answer.texts(ID)?;
                let found = answer.addresses()?.iter().enumerate();
                rows.extend(found.map(|(idx, row)| (ids.value(idx).to_owned(), *row)));
            }
        }
        Ok(rows)
    }

    /// Returns the ids of some rows.
    async fn ids_of(&self, rows: &[u64]) -> Result<HashSet<String>> {
        if rows.is_empty() {
            return Ok(HashSet::new());
        }
        let query = self
            .table
            .take_row_ids(rows.to_vec())
            .select(Select::columns(&[ID]));
        let mut ids = HashSet::with_capacity(rows.len());
        for batch in &crate::writer::collect(query, self.path()).await? {
            let found = Answer::new(batch, self.path()).texts(ID)?;
            ids.extend(found.iter().flatten().map(str::to_owned));
        }
        Ok(ids)
    }

    /// Returns the condition of a filter: a cell is one of the values, or has one of them among its labels.
    ///
    /// # Errors
    /// `Mismatch` if no row has the column or any of the values.
    pub(crate) fn condition(&self, filter: &Filter) -> Result<String> {
        let name = filter.column.as_str();
        if !self.has_column(name) {
            // An empty lake has no columns, and a misspelt filter is no empty answer.
            return match self.is_empty() {
                true => Ok(sql::is_among(ID, [], filter.is_negated)),
                false => Err(no_column(self, name)),
            };
        }
        let field = fields::field_of(name)?;
        let labelled = self.labelled_cells(name, &field)?;
        let cells = labelled.iter().filter(|cell| filter.names(cell.as_bytes()));
        let values = filter.values.iter().map(String::as_str);
        let mut values: Vec<&str> = values.chain(cells.map(String::as_str)).collect();
        values.sort_unstable();
        values.dedup();
        let some = sql::is_among(&field, values.iter().copied(), false);
        let counted = async {
            let some = sql::all([some].into_iter().chain(self.own()));
            let asked = self.table.query().select(Select::columns(&[ID])).limit(1);
            let asked = asked.only_if(some.unwrap_or_default());
            let found = crate::writer::collect(asked, self.path()).await?;
            Ok(found.iter().any(|batch| batch.num_rows() > 0))
        };
        let is_there = self.wait(Patience::Scan, "looking for a value in", counted)?;
        if !is_there && !self.is_empty() && !filter.values.iter().any(String::is_empty) {
            let known = self.values(name)?.into_iter();
            let known = known.map(std::borrow::Cow::into_owned).take(MANY_VALUES);
            return Err(no_value(filter, known.collect()));
        }
        Ok(sql::is_among(&field, values, filter.is_negated))
    }

    /// Returns the different cells of a column that hold several labels; they are read once.
    fn labelled_cells(&self, column: &str, field: &str) -> Result<Arc<BTreeSet<String>>> {
        let lock = || self.labelled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(column) {
            return Ok(Arc::clone(known));
        }
        let condition = format!("`{field}` LIKE '%|%'");
        let read = self.distinct(field, Some(condition));
        let read = self.wait(Patience::Scan, "reading a column of", read)?;
        let read = Arc::new(read);
        lock().insert(column.to_owned(), Arc::clone(&read));
        Ok(read)
    }
}
