//! How often the first hit of a search agrees with its query: has the same label, such as the same body part.
//!
//! A score says how close two vectors are, not whether the images show the same thing; how the two are related differs
//! from one pair of modalities to the next. So images of the collection are asked for among other patients, first hits
//! are counted by score, and a search with a score like theirs is expected to agree as often.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::across::{AskedImage, of_modality, search_across};
use crate::collection::Collection;
use crate::error::Result;
use crate::gallery::RowId;
use crate::names::{DIMS, FLAT, MODALITY, PATIENT};
use crate::scan::{BELONGING, LeftOut, Queries, RowAsQuery, SearchOptions};

/// Searches that a table needs; fewer say nothing.
const MIN_SEARCHES: usize = 30;
/// Searches of one step of a table.
const STEP_SEARCHES: usize = 16;
/// Most steps before they are joined to rise.
const MAX_STEPS: usize = 8;
/// Searches with the mean outcome of the table that are added to each step: a few first hits that all agree do not make
/// the next one certain.
const PRIOR: f64 = 8.0;
/// Hits that are looked at for one with a label.
const N_HITS: usize = 10;
/// Tables of every two modalities, of each among all, and three pooled ones.
const MAX_TABLES: usize = Agreements::MAX_MODALITIES * (Agreements::MAX_MODALITIES + 1) + 3;
/// Where random choices begin.
const SEED: u64 = 0x6d33_7265_7400_0005;
/// 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_964;

/// Which searches a table is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Searches {
    /// For images of one modality among those of one modality.
    Pair {
        /// Modality of the query.
        query: String,
        /// Modality of the hits.
        hits: String,
    },
    /// For images of one modality among all images.
    AmongAll {
        /// Modality of the query.
        query: String,
    },
    /// Within any one modality.
    Within,
    /// For images of any modality among those of another one.
    Across,
    /// For any image among all images.
    All,
}

/// First hits of like scores.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Scores from here to that of the next step.
    pub from: f32,
    /// Searches whose first hit had such a score.
    pub n: u32,
    /// Those of them whose first hit agreed.
    pub n_agree: u32,
}

/// Outcomes of searches by the score of their first hit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// What was searched.
    pub searches: Searches,
    /// In ascending order of scores; the share that agrees rises from step to step.
    pub steps: Vec<Step>,
}

/// How often first hits agree in one column.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreements {
    /// The column, e.g. `body_part`.
    pub column: String,
    /// Only those with enough searches.
    #[serde(deserialize_with = "read_tables")]
    pub tables: Vec<Table>,
}

/// The chance that a first hit agrees.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate<'a> {
    /// 0..=1.
    pub value: f64,
    /// 95 % interval of Wilson; searches of one patient count as independent, which makes it too narrow.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Searches that it rests on.
    pub n: u32,
    /// What was searched by these.
    pub searches: &'a Searches,
}

impl Searches {
    /// Returns the searches of one modality that a search belongs to; `None` if the modality of the query is unknown.
    fn own(query: &str, hits: Option<&str>) -> Option<Self> {
        let own = query.to_owned();
        (!query.is_empty()).then(|| match hits {
            Some(hits) => Self::Pair {
                query: own,
                hits: hits.to_owned(),
            },
            None => Self::AmongAll { query: own },
        })
    }

    /// Returns the searches of all modalities that a search belongs to.
    fn pooled(query: &str, hits: Option<&str>) -> Option<Self> {
        match hits {
            // Of a query of unknown modality it is not known whether hits are of another one.
            Some(_) if query.is_empty() => None,
            Some(hits) if hits == query => Some(Self::Within),
            Some(_) => Some(Self::Across),
            None => Some(Self::All),
        }
    }
}

impl Table {
    /// Makes a table of the first hits of searches: score, and whether the hit agreed. `None` if there are too few.
    fn new(searches: Searches, mut outcomes: Vec<(f32, bool)>) -> Option<Self> {
        if outcomes.len() < MIN_SEARCHES {
            return None;
        }
        outcomes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let n_steps = (outcomes.len() / STEP_SEARCHES).clamp(1, MAX_STEPS);
        let mut steps: Vec<Step> = Vec::with_capacity(n_steps);
        for number in 0..n_steps {
            let [start, end] = [number, number + 1].map(|i| i * outcomes.len() / n_steps);
            let part = outcomes.get(start..end).unwrap_or_default();
            let n_agree = part.iter().filter(|(_, agrees)| *agrees).count();
            steps.push(Step {
                from: part.first().map_or(f32::NEG_INFINITY, |(score, _)| *score),
                n: u32::try_from(part.len()).unwrap_or(u32::MAX),
                n_agree: u32::try_from(n_agree).unwrap_or(u32::MAX),
            });
            join_falling(&mut steps);
        }
        Some(Self { searches, steps })
    }

    /// Returns the chance at a score; `None` below all scores that were seen.
    fn estimate(&self, score: f32) -> Option<Estimate<'_>> {
        let place = self.steps.partition_point(|step| step.from <= score);
        let step = self.steps.get(place.checked_sub(1)?)?;
        let sum = |of: fn(&Step) -> u32| self.steps.iter().map(of).map(f64::from).sum::<f64>();
        let mean = sum(|step| step.n_agree) / sum(|step| step.n).max(1.0);
        let n = f64::from(step.n) + PRIOR;
        let value = (f64::from(step.n_agree) + PRIOR * mean) / n;
        let [low, high] = wilson(value, n);
        Some(Estimate {
            value,
            low,
            high,
            n: step.n,
            searches: &self.searches,
        })
    }
}

/// Joins the last step with those before it for as long as it agrees less often than they.
fn join_falling(steps: &mut Vec<Step>) {
    while let [.., before, last] = steps.as_mut_slice() {
        // n_agree / n of the last one, compared without dividing. Equal scores cannot be told apart.
        let rises = last.from > before.from
            && u64::from(last.n_agree) * u64::from(before.n)
                > u64::from(before.n_agree) * u64::from(last.n);
        if rises {
            return;
        }
        before.n += last.n;
        before.n_agree += last.n_agree;
        steps.pop();
    }
}

/// Returns the 95 % interval of a share of `n` independent draws, by Wilson's score.
fn wilson(share: f64, n: f64) -> [f64; 2] {
    let z = Z * Z / n;
    let middle = (share + z / 2.0) / (1.0 + z);
    let half = Z / (1.0 + z) * (share * (1.0 - share) / n + z / (4.0 * n)).sqrt();
    [(middle - half).max(0.0), (middle + half).min(1.0)]
}

/// Reads tables, and refuses numbers that no searches have: a file may be anybody's.
fn read_tables<'de, D: Deserializer<'de>>(file: D) -> std::result::Result<Vec<Table>, D::Error> {
    let tables = Vec::<Table>::deserialize(file)?;
    let is_step = |step: &Step| {
        step.n > 0 && step.n_agree <= step.n && step.n < 1 << 24 && step.from.is_finite()
    };
    let is_table = |table: &Table| {
        (1..=MAX_STEPS).contains(&table.steps.len())
            && table.steps.iter().all(is_step)
            && table.steps.is_sorted_by(|a, b| a.from < b.from)
    };
    match tables.len() <= MAX_TABLES && tables.iter().all(is_table) {
        true => Ok(tables),
        false => Err(D::Error::custom("numbers that no searches have")),
    }
}

impl Agreements {
    /// Images of each modality that are asked for.
    pub const N_QUERIES: usize = 256;
    /// Modalities that have tables of their own: those with most images.
    pub const MAX_MODALITIES: usize = 10;

    /// Measures a column on the collection's own images: each is asked for among images of other patients.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn measure(collection: &dyn Collection, column: &str) -> Result<Self> {
        if !collection.columns().contains(&column) {
            return Ok(Self::of_outcomes(column, []));
        }
        let chosen = choose(collection, column)?;
        let names: Vec<&str> = chosen.keys().map(String::as_str).collect();
        let mut outcomes = Vec::new();
        for (query, rows) in &chosen {
            // Hits of one modality tell nothing of a query of unknown modality.
            let known = names
                .iter()
                .filter(|name| !name.is_empty() && !query.is_empty());
            for hits in std::iter::once(None).chain(known.copied().map(Some)) {
                let found = ask(collection, (column, query, rows), hits)?;
                let found = found.into_iter();
                outcomes.extend(found.map(|(score, agrees)| (query.as_str(), hits, score, agrees)));
            }
        }
        Ok(Self::of_outcomes(column, outcomes))
    }

    /// Makes tables of searches that were made elsewhere: the modality of the query, that of the hits or `None` for all, the
    /// score of the first hit, and whether it agrees.
    #[must_use]
    pub fn of_outcomes<'a>(
        column: &str,
        outcomes: impl IntoIterator<Item = (&'a str, Option<&'a str>, f32, bool)>,
    ) -> Self {
        let mut all: BTreeMap<Searches, Vec<(f32, bool)>> = BTreeMap::new();
        for (query, hits, score, agrees) in outcomes {
            let searches = [Searches::own(query, hits), Searches::pooled(query, hits)];
            for searches in searches.into_iter().flatten() {
                all.entry(searches).or_default().push((score, agrees));
            }
        }
        let tables = all
            .into_iter()
            .filter_map(|(of, found)| Table::new(of, found));
        Self {
            column: column.to_owned(),
            tables: tables.collect(),
        }
    }

    /// Returns the chance that the first hit agrees with the query.
    ///
    /// `query` is the modality of the query, empty if it is unknown; `hits` the one that the search was restricted to.
    /// Where such searches say too little, those within any modality or across any two are taken. `None` if nothing is
    /// known, or all scores that were seen are higher.
    #[must_use]
    pub fn estimate(&self, score: f32, query: &str, hits: Option<&str>) -> Option<Estimate<'_>> {
        let wanted = [Searches::own(query, hits), Searches::pooled(query, hits)];
        let find = |wanted| self.tables.iter().find(|table| table.searches == wanted);
        wanted.into_iter().flatten().find_map(find)?.estimate(score)
    }

    /// Returns the chance in a search for an image of one modality among those of one modality, by such searches alone.
    #[must_use]
    pub fn of_pair(&self, score: f32, query: &str, hits: &str) -> Option<Estimate<'_>> {
        let wanted = Searches::own(query, Some(hits))?;
        let table = self.tables.iter().find(|table| table.searches == wanted)?;
        table.estimate(score)
    }
}

/// Chooses rows with a label by their modality, empty where it is unknown: of the most frequent modalities, some of each.
fn choose(collection: &dyn Collection, column: &str) -> Result<BTreeMap<String, Vec<RowId>>> {
    let mut by_modality: BTreeMap<String, Vec<RowId>> = BTreeMap::new();
    collection.each_row(&[column, MODALITY, PATIENT], &mut |row, cells| {
        // Of an image of an unknown patient it is not known which others are of another one.
        if let [label, modality, patient] = cells
            && !label.is_empty()
            && !patient.is_empty()
        {
            match by_modality.get_mut(modality.as_ref()) {
                Some(rows) => rows.push(row),
                None => {
                    by_modality.insert(modality.clone().into_owned(), vec![row]);
                }
            }
        }
    })?;
    let mut sizes: Vec<(usize, String)> = by_modality
        .iter()
        .map(|(modality, rows)| (rows.len(), modality.clone()))
        .collect();
    sizes.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    for (_, modality) in sizes.into_iter().skip(Agreements::MAX_MODALITIES) {
        by_modality.remove(&modality);
    }
    // Each image is asked for among those of every modality, and among all.
    let n_each = by_modality.len() * (by_modality.len() + 1);
    let n_queries =
        (collection.n_measuring() / n_each.max(1)).clamp(2 * STEP_SEARCHES, Agreements::N_QUERIES);
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    for rows in by_modality.values_mut() {
        let n_chosen = rows.len().min(n_queries);
        let mut chosen = rand::seq::index::sample(&mut random, rows.len(), n_chosen).into_vec();
        chosen.sort_unstable();
        *rows = chosen
            .into_iter()
            .filter_map(|idx| rows.get(idx).copied())
            .collect();
    }
    Ok(by_modality)
}

/// Searches for rows of one modality among those of other patients, and of one modality if given: score of each first hit with a label,
/// and whether it agrees.
fn ask(
    collection: &dyn Collection,
    (column, query, rows): (&str, &str, &[RowId]),
    hits: Option<&str>,
) -> Result<Vec<(f32, bool)>> {
    let width = collection.width();
    let (mut vectors, mut further) = (Vec::with_capacity(rows.len() * width), Vec::new());
    for mut read in RowAsQuery::read_units(collection, rows)? {
        vectors.append(&mut read.own);
        further.push(read.further);
    }
    let belonging = collection.rows(rows, &BELONGING)?;
    let left_out = BELONGING.iter().enumerate().map(|(place, name)| LeftOut {
        column: (*name).to_owned(),
        values: belonging
            .iter()
            .map(|cells| {
                cells
                    .get(place)
                    .map_or_else(String::new, |cell| cell.to_string())
            })
            .collect(),
    });
    let left_out: Vec<LeftOut> = left_out.collect();
    let own: Vec<Vec<RowId>> = rows.iter().map(|&row| vec![row]).collect();
    let queries = Queries {
        vectors: &vectors,
        own: &own,
        left_out: &left_out,
        further: &further,
    };
    let filter = hits.map(|modality| of_modality(modality, false));
    let options = SearchOptions {
        k: N_HITS,
        filters: filter.into_iter().collect(),
        ..SearchOptions::default()
    };
    let images = images_of(collection, query, rows)?;
    let found = search_across(collection, queries, &images, &options)?;
    let labels = collection.rows(rows, &[column])?;
    let hit_rows: Vec<RowId> = found.iter().flatten().map(|hit| hit.row).collect();
    let mut cells = collection.rows(&hit_rows, &[column, PATIENT])?.into_iter();
    let mut outcomes = Vec::with_capacity(rows.len());
    for (label, hits) in labels.iter().flatten().zip(found) {
        let cells: Vec<_> = cells.by_ref().take(hits.len()).collect();
        let is_known = |cells: &[Cow<'_, str>]| cells.iter().all(|cell| !cell.is_empty());
        let first = hits.iter().zip(&cells).find(|(_, cells)| is_known(cells));
        outcomes.extend(first.map(|(hit, cells)| (hit.score, cells.first() == Some(label))));
    }
    Ok(outcomes)
}

/// Returns what is known of rows of one modality.
fn images_of<'a>(
    collection: &dyn Collection,
    modality: &'a str,
    rows: &[RowId],
) -> Result<Vec<AskedImage<'a>>> {
    let dims = match collection.columns().contains(&DIMS) {
        true => collection.rows(rows, &[DIMS])?,
        false => vec![Vec::new(); rows.len()],
    };
    let is_flat = dims
        .iter()
        .map(|cells| cells.first().is_some_and(|dims| dims == FLAT));
    let images = is_flat.map(|is_flat| AskedImage { modality, is_flat });
    Ok(images.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(n: u32, agrees: impl Fn(u32) -> bool) -> Vec<(f32, bool)> {
        (0..n).map(|i| (i as f32 / n as f32, agrees(i))).collect()
    }

    #[test]
    fn the_chance_rises_with_the_score_and_stays_between_the_outcomes() {
        // Every third agrees in the lower half, every one in the upper half.
        let found = outcomes(240, |i| i >= 120 || i % 3 == 0);
        let table = Table::new(Searches::All, found).unwrap();
        let at = |score: f32| table.estimate(score).unwrap();
        let chances: Vec<f64> = (0..20).map(|i| at(i as f32 / 20.0).value).collect();
        assert!(chances.is_sorted(), "{chances:?}");
        assert!((at(0.2).value - 1.0 / 3.0).abs() < 0.1, "{:?}", at(0.2));
        assert!(at(0.9).value > 0.9 && at(0.9).value < 1.0);
        assert_eq!(table.estimate(-0.1), None);
        for score in [0.0, 0.3, 0.99, 2.0] {
            let Estimate {
                value,
                low,
                high,
                n,
                ..
            } = at(score);
            assert!(
                0.0 <= low && low < value && value < high && high <= 1.0,
                "{score}"
            );
            assert!(n >= 30, "{n}");
        }
    }

    #[test]
    fn outcomes_that_do_not_rise_are_one_step() {
        for agrees in [
            |_| true,
            |_| false,
            |i: u32| i < 64,
            |i: u32| i.is_multiple_of(2),
        ] {
            let table = Table::new(Searches::All, outcomes(128, agrees)).unwrap();
            let n_agree: u32 = table.steps.iter().map(|step| step.n_agree).sum();
            assert_eq!(table.steps.iter().map(|step| step.n).sum::<u32>(), 128);
            assert_eq!(n_agree, (0..128).filter(|&i| agrees(i)).count() as u32);
            assert_eq!(table.steps.len(), 1);
        }
        assert_eq!(Table::new(Searches::All, outcomes(29, |_| true)), None);
    }

    #[test]
    fn an_interval_is_wilsons() {
        // 10 of 20, and 0 of 20, from the formula of the score interval.
        let close = |a: [f64; 2], b: [f64; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 5e-4);
        assert!(
            close(wilson(0.5, 20.0), [0.2993, 0.7007]),
            "{:?}",
            wilson(0.5, 20.0)
        );
        assert!(
            close(wilson(0.0, 20.0), [0.0, 0.1611]),
            "{:?}",
            wilson(0.0, 20.0)
        );
    }

    #[test]
    fn few_searches_are_judged_by_those_of_their_kind_only() {
        let table = |searches, share: u32| {
            Table::new(searches, outcomes(100, |i| i % 100 < share)).unwrap()
        };
        let pair = |query: &str, hits: &str| Searches::Pair {
            query: query.to_owned(),
            hits: hits.to_owned(),
        };
        let measured = Agreements {
            column: "body_part".to_owned(),
            tables: vec![
                table(pair("CT", "MR"), 70),
                table(Searches::Within, 90),
                table(Searches::Across, 20),
                table(Searches::All, 80),
            ],
        };
        let of = |query, hits| {
            measured
                .estimate(0.5, query, hits)
                .map(|found| (found.value * 100.0).round())
        };
        assert_eq!(of("CT", Some("MR")), Some(70.0));
        assert_eq!(of("US", Some("MR")), Some(20.0));
        assert_eq!(of("MR", Some("MR")), Some(90.0));
        assert_eq!((of("US", None), of("", None)), (Some(80.0), Some(80.0)));
        assert_eq!(of("", Some("MR")), None);
        assert_eq!(Agreements::default().estimate(0.5, "CT", None), None);
    }
}
