//! Upkeep by one process at a time: small files are joined, new rows indexed, old versions removed. Readers see the result
//! only if searches find as much as before.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt as _;
use lancedb::DistanceType;
use lancedb::index::Index;
use lancedb::index::scalar::{BTreeIndexBuilder, BitmapIndexBuilder};
use lancedb::index::vector::IvfSqIndexBuilder;
use lancedb::query::{ExecutableQuery as _, QueryBase as _, Select};
use lancedb::table::{CompactionOptions, OptimizeAction, OptimizeOptions};
use m3ret_search::names::{
    BODY_PART, DIMS, HEADER_PATIENT, ISSUED_PATIENT, MODALITY, PATH, PATIENT, SERIES, STUDY,
};
use m3ret_search::{Collection as _, Error, Result, Statistics, dot_product};

use crate::cells::Answer;
use crate::fields::{self, COMMIT, ID, ORIGIN, VECTOR, VIEW};
use crate::lake::Lake;
use crate::meta::{Level, Measured, Meta, Plans, to_bytes};
use crate::place::io;
use crate::sql;
use crate::store::{Patience, wait};
use crate::writer::{Commits, LakeWriter, TABLE, connect, count_commits};

/// Vectors from which on there is an index; fewer are all looked at.
const MIN_INDEXED: usize = 20_000;
/// Vectors of one list of the index.
const LIST_VECTORS: usize = 4096;
/// Fewest and most lists.
const LISTS: [usize; 2] = [16, 65_536];
/// Parts of the index, one for each time that new rows were indexed, from which on it is made anew.
const MAX_PARTS: usize = 8;
/// Rows by which searches are measured.
const N_QUERIES: usize = 256;
/// One in so many of them has a modality by which filtered searches are measured: the rarer it is, the more rows near a
/// query a filter leaves out.
const RAREST: usize = 100;
/// The numbers of hits for which searches are measured.
const KS: [usize; 2] = [10, 100];
/// Vectors read for each hit, that are tried.
const REFINES: [usize; 3] = [2, 3, 5];
/// How much of the share that searches find may be lost before readers are kept from a new index.
const TOLERANCE: f64 = 0.01;
/// Columns with an index that finds the few rows of one of many values.
pub(crate) const INDEXED: [&str; 6] =
    [PATIENT, HEADER_PATIENT, ISSUED_PATIENT, STUDY, SERIES, PATH];
/// The tag that keeps the version that readers see from being removed.
const TAG: &str = "published";

/// What upkeep does.
#[derive(Debug, Clone)]
pub struct MaintainOptions {
    /// Whether small files are joined.
    pub compacts: bool,
    /// Whether new rows are indexed.
    pub indexes: bool,
    /// Versions older than this are removed; `None` removes none.
    pub prunes: Option<Duration>,
    /// Whether files of writers that were killed are removed, too. Only while nobody writes.
    pub is_alone: bool,
    /// The share of the exact best hits that searches are to find.
    pub recall: f64,
}

impl Default for MaintainOptions {
    fn default() -> Self {
        Self {
            compacts: true,
            indexes: true,
            prunes: Some(Duration::from_secs(7 * 24 * 3600)),
            is_alone: false,
            recall: 0.99,
        }
    }
}

/// What upkeep did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Maintained {
    /// Rows.
    pub n_rows: usize,
    /// Vectors, further ones included.
    pub n_vectors: usize,
    /// Vectors that no index covers.
    pub n_unindexed: usize,
    /// Rows that two writers had brought, removed once.
    pub n_doubled: usize,
    /// Files that were joined, and those that were made of them.
    pub n_joined: [usize; 2],
    /// Versions and bytes that were removed.
    pub n_pruned: [u64; 2],
    /// How searches are done now.
    pub plans: Option<Plans>,
    /// The version that readers see.
    pub published: u64,
}

/// Keeps a lake in good order.
///
/// # Errors
/// `Damaged` if searches with the new index find less than before: readers keep the version that they have. As
/// `LakeWriter::open`.
pub fn maintain(path: &Path, options: &MaintainOptions, step: &dyn Fn(&str)) -> Result<Maintained> {
    let mut writer = LakeWriter::open(path)?;
    let mut done = Maintained::default();
    step("looking for doubled rows");
    done.n_doubled = wait(Patience::Change, "reading", path, writer.remove_doubled())?;
    if options.compacts {
        step("joining small files");
        done.n_joined = wait(
            Patience::Change,
            "joining files of",
            path,
            writer.compact(None),
        )?;
    }
    done.plans = writer.meta.plans.clone();
    if options.indexes {
        step("indexing");
        let n_lists = wait(Patience::Change, "indexing", path, writer.index())?;
        step("measuring how to search");
        done.plans = measure(&writer, n_lists, options.recall)?;
        let before = writer.meta.plans.as_ref();
        check_recall((before, done.plans.as_ref()), options.recall, path)?;
    }
    step("measuring how often first hits agree");
    let statistics = statistics(&writer, done.plans.as_ref())?;
    let finished = writer.finish(done.plans.as_ref(), statistics.as_ref());
    done.published = wait(Patience::Change, "completing", path, finished)?;
    if let Some(age) = options.prunes {
        step("removing old versions");
        let pruned = writer.prune(age, options.is_alone);
        done.n_pruned = wait(Patience::Change, "removing old versions of", path, pruned)?;
    }
    let counted = wait(Patience::Change, "counting rows of", path, writer.counts())?;
    [done.n_rows, done.n_vectors, done.n_unindexed] = counted;
    Ok(done)
}

/// Refuses an index by which searches find less than before.
fn check_recall(
    (before, now): (Option<&Plans>, Option<&Plans>),
    wanted: f64,
    path: &Path,
) -> Result<()> {
    let first = |plans: Option<&Plans>| Some(plans?.levels.first()?.recall);
    let (Some(before), Some(now)) = (first(before), first(now)) else {
        return Ok(());
    };
    if now >= before.min(wanted) - TOLERANCE {
        return Ok(());
    }
    Err(Error::Damaged {
        path: path.to_owned(),
        found: format!(
            "with the new index searches find {now:.3} of the best hits, before {before:.3}"
        ),
        advice: "readers keep the version that they have; run it again, or ask for less with --recall",
    })
}

impl LakeWriter {
    /// Opens the newest version of the table as readers will see it.
    pub(crate) fn reader(&self) -> Result<Lake> {
        let path = self.path();
        let opened = async {
            let connection = connect(&self.place).await?;
            let version = self.table.version().await.map_err(io("reading", path))?;
            let table = connection
                .open_table(TABLE)
                .version(version)
                .execute()
                .await;
            let table = table.map_err(io("opening", path))?;
            let parts = (self.place.clone(), self.objects.clone(), self.meta.clone());
            Lake::of_table(parts, table, self.key().clone()).await
        };
        let mut lake = wait(Patience::Change, "opening", path, opened)?;
        lake.is_upkeep = true;
        Ok(lake)
    }

    /// Lets readers see the newest version of the table, with what was measured of it; returns its number.
    async fn finish(
        &mut self,
        plans: Option<&Plans>,
        statistics: Option<&Measured>,
    ) -> Result<u64> {
        let path = self.place.path.clone();
        let version = self.table.version().await.map_err(io("reading", &path))?;
        self.meta = Meta::update(&self.objects, &path, |meta| {
            meta.published = meta.published.max(version);
            meta.plans = plans.cloned();
            meta.statistics = statistics.cloned();
            true
        })
        .await?;
        Ok(self.meta.published)
    }

    /// Counts rows, vectors, and vectors that no index covers.
    async fn counts(&self) -> Result<[usize; 3]> {
        let path = &self.place.path;
        let fault = || io("counting rows of", path);
        let latest = self.table.checkout_latest().await;
        latest.map_err(io("opening", path))?;
        let n_vectors = self.table.count_rows(None).await.map_err(fault())?;
        let own = (!self.meta.views.is_empty()).then(crate::lake::own_vectors);
        let n_rows = self.table.count_rows(own).await.map_err(fault())?;
        let parts = self.parts().await?;
        let n_unindexed = parts.map_or(n_vectors, |[_, n_unindexed]| n_unindexed);
        Ok([n_rows, n_vectors, n_unindexed])
    }

    /// Removes rows that two writers brought at the same time, of which one was killed before it looked.
    async fn remove_doubled(&mut self) -> Result<usize> {
        let path = self.place.path.clone();
        self.table
            .checkout_latest()
            .await
            .map_err(io("opening", &path))?;
        let mut commits = Commits::new();
        count_commits(&self.table, None, &path, &mut commits).await?;
        self.keep_first(commits).await
    }

    /// Joins small files. With a threshold, files with a larger share of removed rows are written anew, too.
    pub(crate) async fn compact(&mut self, threshold: Option<f32>) -> Result<[usize; 2]> {
        let path = self.place.path.clone();
        let mut options = CompactionOptions::default();
        if let Some(threshold) = threshold {
            options.materialize_deletions_threshold = threshold;
        }
        let action = OptimizeAction::Compact {
            options,
            remap_options: None,
        };
        let done = self
            .table
            .optimize(action)
            .await
            .map_err(io("joining files of", &path))?;
        let joined = done
            .compaction
            .map(|done| [done.files_removed, done.files_added]);
        Ok(joined.unwrap_or_default())
    }

    /// Returns of how many parts the index of vectors is, and how many vectors it lacks; `None` if there is none.
    pub(crate) async fn parts(&self) -> Result<Option<[usize; 2]>> {
        let all = self
            .table
            .list_indices()
            .await
            .map_err(io("reading", &self.place.path))?;
        let of_vectors = all.iter().find(|index| index.columns == [VECTOR]);
        Ok(of_vectors.map(|index| {
            let lacks = index.num_unindexed_rows.unwrap_or(0);
            let parts = index.num_segments.unwrap_or(1);
            [parts as usize, usize::try_from(lacks).unwrap_or(usize::MAX)]
        }))
    }

    /// Indexes vectors and columns, and returns the number of lists; 0 without an index.
    async fn index(&mut self) -> Result<usize> {
        let path = self.place.path.clone();
        let fault = || io("indexing", &path);
        let n_vectors = self.table.count_rows(None).await.map_err(fault())?;
        if n_vectors < MIN_INDEXED {
            return Ok(0);
        }
        self.index_columns().await?;
        let n_lists = (n_vectors / LIST_VECTORS).clamp(LISTS[0], LISTS[1]);
        let known = self.meta.plans.as_ref().map_or(0, |plans| plans.n_lists);
        let parts = self.parts().await?;
        // The lists of an index of half as many vectors are too long, and parts are never joined: what is joined twice
        // loses vectors without a word (lance issue 7731).
        let is_fine =
            |[n_parts, _]: [usize; 2]| known > 0 && n_lists <= 2 * known && n_parts < MAX_PARTS;
        match parts {
            Some([_, 0]) if parts.is_some_and(is_fine) => return Ok(known),
            Some(there) if is_fine(there) => {
                let action = OptimizeAction::Index(OptimizeOptions::append());
                self.table.optimize(action).await.map_err(fault())?;
                return Ok(known);
            }
            _ => {}
        }
        let lists = u32::try_from(n_lists).unwrap_or(u32::MAX);
        let index = IvfSqIndexBuilder::default().distance_type(DistanceType::Cosine);
        let index = Index::IvfSq(index.num_partitions(lists));
        self.table
            .create_index(&[VECTOR], index)
            .execute()
            .await
            .map_err(fault())?;
        Ok(n_lists)
    }

    /// Indexes the columns that filters, groups and writers ask for.
    pub(crate) async fn index_columns(&mut self) -> Result<()> {
        let path = self.place.path.clone();
        let fault = || io("indexing", &path);
        let schema = self.table.schema().await.map_err(fault())?;
        let there = self.table.list_indices().await.map_err(fault())?;
        let of = |columns: &[&str]| {
            columns
                .iter()
                .map(|column| fields::field_of(column))
                .collect::<Result<Vec<_>>>()
        };
        let few = of(&[MODALITY, BODY_PART, DIMS])?;
        let many = of(&INDEXED)?;
        let own = [VIEW.to_owned(), ORIGIN.to_owned(), COMMIT.to_owned()];
        let few = few.into_iter().chain(own).map(|field| (field, true));
        let many = many
            .into_iter()
            .chain([ID.to_owned()])
            .map(|field| (field, false));
        for (field, has_few_values) in few.chain(many) {
            if schema.field_with_name(&field).is_err() {
                continue;
            }
            let known = there
                .iter()
                .find(|index| index.columns.len() == 1 && unquoted(&index.columns[0]) == field);
            if known.is_some_and(|known| known.num_unindexed_rows == Some(0)) {
                continue;
            }
            let index = match has_few_values {
                true => Index::Bitmap(BitmapIndexBuilder::default()),
                false => Index::BTree(BTreeIndexBuilder::default()),
            };
            let making = self.table.create_index(&[format!("`{field}`")], index);
            making.execute().await.map_err(fault())?;
        }
        Ok(())
    }

    /// Removes versions that are older than `age`, and the files that only they need.
    pub(crate) async fn prune(&mut self, age: Duration, is_alone: bool) -> Result<[u64; 2]> {
        let path = self.place.path.clone();
        let fault = || io("removing old versions of", &path);
        let published = self.meta.published;
        let mut tags = self.table.tags().await.map_err(fault())?;
        let tagged = match tags.get_version(TAG).await {
            Ok(_) => tags.update(TAG, published).await,
            Err(_) => tags.create(TAG, published).await,
        };
        tagged.map_err(fault())?;
        drop(tags);
        let older_than = lancedb::table::Duration::from_std(age);
        let older_than = older_than.map_err(io("removing old versions of", &path))?;
        let action = OptimizeAction::Prune {
            older_than: Some(older_than),
            delete_unverified: Some(is_alone),
            error_if_tagged_old_versions: Some(false),
        };
        let done = self.table.optimize(action).await.map_err(fault())?;
        Ok(done
            .prune
            .map_or([0; 2], |done| [done.old_versions, done.bytes_removed]))
    }
}

/// Returns the name of a field without quotes.
fn unquoted(field: &str) -> &str {
    field.trim_matches('`')
}

/// Rows by which searches are measured, with their exact best hits.
struct Canary {
    /// [queries, width]
    vectors: Vec<f32>,
    rows: Vec<u64>,
    /// The modality of a filter by which searches are measured; `None` if none is frequent enough.
    filter: Option<String>,
}

/// Scores of one query, the best last kept.
type Best = Vec<(f32, u64)>;

/// Chooses the cheapest way to search that finds the wanted share of the best hits; `None` without an index.
fn measure(writer: &LakeWriter, n_lists: usize, target: f64) -> Result<Option<Plans>> {
    if n_lists == 0 {
        return Ok(None);
    }
    let path = writer.path();
    let lake = writer.reader()?;
    let canary = Canary::choose(&lake)?;
    let truth = canary.truth(&lake);
    let truth = wait(Patience::Change, "measuring searches of", path, truth)?;
    let mut levels = Vec::new();
    for k in KS.into_iter().filter(|k| *k < lake.len()) {
        levels.push(canary.level(&lake, k, (n_lists, target), &truth)?);
    }
    Ok(Some(Plans {
        n_rows: lake.len(),
        n_lists,
        n_queries: canary.rows.len(),
        target,
        levels,
    }))
}

/// The exact best hits of each query: without a filter, and with it.
type Truth = [Vec<Best>; 2];

impl Canary {
    /// Chooses rows evenly.
    fn choose(lake: &Lake) -> Result<Self> {
        let rows = lake.scan()?;
        let step = (rows.len() / N_QUERIES).max(1);
        let rows: Vec<_> = rows.into_iter().step_by(step).take(N_QUERIES).collect();
        let mut vectors = lake.vectors(&rows)?;
        for vector in vectors.chunks_exact_mut(lake.width()) {
            m3ret_search::normalize(vector)?;
        }
        let cells = lake.rows(&rows, &[MODALITY])?;
        let modalities = cells.iter().flatten().map(|cell| cell.as_ref());
        Ok(Self {
            vectors,
            rows: rows.iter().map(|row| row.address()).collect(),
            filter: rarest(modalities),
        })
    }

    /// Finds the exact best hits of all queries in one walk over the vectors.
    async fn truth(&self, lake: &Lake) -> Result<Truth> {
        let path = lake.path();
        let filter = self.filter.as_deref();
        // Twice as many: of equal scores any one is as good.
        let most = 2 * KS.into_iter().max().unwrap_or(1);
        let modality = fields::field_of(MODALITY)?;
        let mut asked = vec![VECTOR.to_owned()];
        if filter.is_some() {
            asked.push(modality.clone());
        }
        let query = lake.table.query().select(Select::columns(&asked));
        let mut query = query.with_row_id();
        if let Some(own) = lake.own() {
            query = query.only_if(own);
        }
        let mut stream = query.execute().await.map_err(io("reading", path))?;
        let mut ranked = [
            vec![Best::new(); self.rows.len()],
            vec![Best::new(); self.rows.len()],
        ];
        let width = lake.width();
        while let Some(batch) = stream.try_next().await.map_err(io("reading", path))? {
            let answer = Answer::new(&batch, path);
            let (addresses, vectors) = (answer.addresses()?, answer.vectors()?);
            let cells = filter.map(|_| answer.texts(&modality)).transpose()?;
            for (query, vector) in self.vectors.chunks_exact(width).enumerate() {
                for (row, stored) in vectors.chunks_exact(width).enumerate() {
                    let score = dot_product(vector, stored);
                    let passes = cells.is_some_and(|cells| Some(cells.value(row)) == filter);
                    for (ranked, counts) in ranked.iter_mut().zip([true, passes]) {
                        let best = &mut ranked[query];
                        let is_good =
                            best.len() < most || best.first().is_some_and(|least| score > least.0);
                        if counts && is_good && addresses[row] != self.rows[query] {
                            let place = best.partition_point(|(other, _)| *other < score);
                            best.insert(place, (score, addresses[row]));
                            if best.len() > most {
                                best.remove(0);
                            }
                        }
                    }
                }
            }
        }
        Ok(ranked)
    }

    /// Finds how many lists are to be looked at for `k` hits.
    fn level(
        &self,
        lake: &Lake,
        k: usize,
        (n_lists, target): (usize, f64),
        truth: &Truth,
    ) -> Result<Level> {
        let mut found: Option<(usize, Level)> = None;
        for refine in REFINES {
            let mut tried = [(n_lists, 0.0); 2];
            for (idx, tried) in tried.iter_mut().enumerate() {
                if idx == 1 && self.filter.is_none() {
                    *tried = (n_lists, 1.0);
                    continue;
                }
                let filter = self.filter.as_deref().filter(|_| idx == 1);
                let mut nprobes = 4.min(n_lists);
                loop {
                    let recall = self.recall(lake, [k, nprobes, refine], &truth[idx], filter)?;
                    *tried = (nprobes, recall);
                    if recall >= target || nprobes == n_lists {
                        break;
                    }
                    nprobes = (nprobes + nprobes.div_ceil(2)).min(n_lists);
                }
            }
            let [(nprobes, recall), (nprobes_filtered, recall_filtered)] = tried;
            let level = Level {
                k,
                nprobes,
                nprobes_filtered,
                refine,
                recall,
                recall_filtered,
            };
            // A vector that is read from the store costs about as much as two lists.
            let cost = nprobes + 2 * refine * k;
            let is_good = recall >= target;
            if found.is_none_or(|(known, other)| is_good && (other.recall < target || cost < known))
            {
                found = Some((cost, level));
            }
        }
        // There is a first value of `REFINES`.
        Ok(found.map_or_else(|| unreachable!("some are tried"), |(_, level)| level))
    }

    /// Returns the share of the exact best hits that searches by a plan find.
    fn recall(
        &self,
        lake: &Lake,
        [k, nprobes, refine]: [usize; 3],
        exact: &[Best],
        filter: Option<&str>,
    ) -> Result<f64> {
        let condition = match filter {
            None => None,
            Some(filter) => Some(sql::is_among(&fields::field_of(MODALITY)?, [filter], false)),
        };
        // Vectors are read of all that is proposed, so what is among it is found.
        let found = lake.proposed(&self.vectors, condition, [k * refine + 1, nprobes])?;
        let (mut n_found, mut n_all) = (0, 0);
        for (proposed, exact) in found.into_iter().zip(exact) {
            let n_wanted = exact.len().min(k);
            let least = exact.len().checked_sub(k).map(|place| exact[place].0);
            let is_good = |(score, _): &&(f32, u64)| least.is_none_or(|least| *score >= least);
            let good: HashSet<u64> = exact.iter().filter(is_good).map(|(_, row)| *row).collect();
            let n_good = proposed.iter().filter(|row| good.contains(row)).count();
            n_found += n_good.min(n_wanted);
            n_all += n_wanted;
        }
        Ok(if n_all == 0 {
            1.0
        } else {
            n_found as f64 / n_all as f64
        })
    }
}

/// Returns the modality of the fewest queries, of those that enough have.
fn rarest<'a>(modalities: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut n_all = 0;
    for modality in modalities {
        n_all += 1;
        if !modality.is_empty() {
            *counts.entry(modality).or_default() += 1;
        }
    }
    let enough = counts.into_iter().filter(|(_, n)| n * RAREST >= n_all);
    let rarest = enough.min_by_key(|(_, n)| *n);
    rarest.map(|(modality, _)| modality.to_owned())
}

/// Measures how often first hits agree, if that is not known or of a lake of another size.
fn statistics(writer: &LakeWriter, plans: Option<&Plans>) -> Result<Option<Measured>> {
    let path = writer.path();
    let mut lake = writer.reader()?;
    // Searched as readers will, and not vector by vector.
    lake.meta.plans = plans.cloned();
    let n_rows = lake.len();
    let known = writer.meta.statistics.clone();
    let is_fine = |known: &Measured| known.n_rows.abs_diff(n_rows) * 5 <= n_rows;
    let is_slow = plans.is_none() && n_rows >= MIN_INDEXED;
    if known.as_ref().is_some_and(is_fine)
        || !lake.has_column(BODY_PART)
        || lake.is_empty()
        || is_slow
    {
        return Ok(known);
    }
    let measured = Statistics::measure(&lake)?;
    let bytes = to_bytes(&measured);
    let object = format!("statistics-{}.json", &blake3::hash(&bytes).to_hex()[..16]);
    let put = async {
        // The same content may be there.
        writer.objects.put(&object, bytes, None).await?;
        if let Some(known) = &known
            && known.object != object
        {
            writer.objects.remove(&known.object).await?;
        }
        Ok(())
    };
    wait(Patience::Change, "writing statistics of", path, put)?;
    Ok(Some(Measured { object, n_rows }))
}
