//! Which items make the batch of a step: a pure function of items, settings, seed and step.

use std::collections::{BTreeMap, HashMap};

use super::items::Items;
use super::permutation::Permutation;
use crate::config::{Composition, Config, WeightBy};
use crate::error::{Error, Result};
use m3ret_manifest::columns::{MODALITY, SOURCE};

/// Draws items.
///
/// An epoch is as many draws as there are items to train on. Each group of items has a constant share of
/// it, its quota, and walks through permutations of its own that go on over epochs: with temperature 1
/// every item comes once an epoch, and with any other the items of a group still come equally often.
///
/// Mixed batches are cut from one endless row of epochs, so every batch is full. Batches of a single
/// modality are cut from each modality's part of the epoch, the last one filled from its beginning.
///
/// With `images.synthetic` the last places of a batch hold generated objects. Of the first n places of a
/// run, n times the share are theirs, rounded; so a batch has one more or less where its share is no
/// whole number. Batches of a single modality are cut for the largest number of items, and one that has
/// fewer leaves its last item out.
#[derive(Debug)]
pub struct Sampler {
    seed: u64,
    batch: u64,
    /// Share of the places that are synthetic, in billionths.
    synthetic: u64,
    /// Items for training and validation; synthetic objects are numbered from here on.
    n_items: usize,
    composition: Composition,
    n_train: u64,
    /// Items by cell.
    items: Vec<u32>,
    cells: Vec<Cell>,
    lists: Vec<List>,
}

/// Items that are drawn alike.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    /// Where its items begin, and how many they are.
    start: u64,
    n_items: u64,
    /// Draws an epoch.
    quota: u64,
    /// Draws of the cells before it in its list.
    n_before: u64,
}

/// The draws of an epoch that batches are cut from: all, or those of one modality.
#[derive(Debug, Clone, PartialEq)]
struct List {
    cells: std::ops::Range<usize>,
    n_draws: u64,
    /// Batches of the lists before it.
    n_before: u64,
}

impl Sampler {
    /// Groups the items.
    ///
    /// # Errors
    /// `Config` for a batch of 0 or a temperature that is no number from 0.
    pub fn new(items: &Items, config: &Config) -> Result<Self> {
        let images = &config.images;
        if !(images.temperature >= 0.0 && images.temperature.is_finite()) {
            return Err(Error::config(
                "images.temperature",
                "0 or more",
                images.temperature.to_string(),
            ));
        }
        if config.train.batch == 0 {
            return Err(Error::config("train.batch", "1 or more", "0"));
        }
        let by_cell = cells_of(items, images.weight_by, images.batch_composition);
        let quotas = quotas(&by_cell, images.temperature);
        let mut sampler = Self {
            seed: config.seed,
            batch: config.train.batch as u64,
            synthetic: billionths(images.synthetic)?,
            n_items: items.len(),
            composition: images.batch_composition,
            n_train: items.n_train() as u64,
            items: Vec::with_capacity(items.n_train()),
            cells: Vec::new(),
            lists: Vec::new(),
        };
        let mut last_modality = None;
        for (([modality, _], members), quota) in by_cell.into_iter().zip(quotas) {
            if last_modality.as_ref() != Some(&modality) {
                sampler.begin_list();
                last_modality = Some(modality);
            }
            sampler.add_cell(members, quota);
        }
        Ok(sampler)
    }

    /// Returns the items of a step, in order; with its synthetic objects `train.batch` of them.
    #[must_use]
    pub fn batch(&self, step: u64) -> Vec<usize> {
        let n_drawn = self.n_synthetic_before(step);
        let places = 0..self.batch - (self.n_synthetic_before(step + 1) - n_drawn);
        let first = step * self.batch - n_drawn;
        match self.composition {
            Composition::Mixed => places
                .map(|place| {
                    let draw = first + place;
                    self.draw(0, draw / self.n_train, draw % self.n_train)
                })
                .collect(),
            Composition::SingleModality => {
                let n_batches = self.n_batches();
                let epoch = step / n_batches;
                let order = Permutation::new(n_batches, "batches", &[self.seed, epoch]);
                let batch = order.at(step % n_batches);
                let list_idx = self.lists.partition_point(|list| list.n_before <= batch) - 1;
                let list = &self.lists[list_idx];
                let first = (batch - list.n_before) * self.most_items();
                places
                    .map(|place| self.draw(list_idx, epoch, (first + place) % list.n_draws))
                    .collect()
            }
        }
    }

    /// Returns how many steps so many epochs take, rounded up.
    #[must_use]
    pub fn steps_of(&self, n_epochs: u64) -> u64 {
        match self.composition {
            Composition::Mixed => self.steps_for(n_epochs.saturating_mul(self.n_train)),
            Composition::SingleModality => n_epochs.saturating_mul(self.n_batches()),
        }
    }

    /// Returns how many steps an epoch takes, rounded up.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_of(1)
    }

    /// Returns how many epochs lie before a step.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "draws are far below 2^53")]
    pub fn epoch_at(&self, step: u64) -> f64 {
        match self.composition {
            Composition::Mixed => {
                (step * self.batch - self.n_synthetic_before(step)) as f64 / self.n_train as f64
            }
            Composition::SingleModality => step as f64 / self.n_batches() as f64,
        }
    }

    fn begin_list(&mut self) {
        let end = self.cells.len();
        let n_before = self.n_batches();
        self.lists.push(List {
            cells: end..end,
            n_draws: 0,
            n_before,
        });
    }

    fn add_cell(&mut self, members: Vec<u32>, quota: u64) {
        let Some(list) = self.lists.last_mut() else {
            return;
        };
        self.cells.push(Cell {
            start: self.items.len() as u64,
            n_items: members.len() as u64,
            quota,
            n_before: list.n_draws,
        });
        list.n_draws += quota;
        list.cells.end += 1;
        self.items.extend(members);
    }

    /// Batches of an epoch, where each list is cut on its own.
    fn n_batches(&self) -> u64 {
        self.lists.last().map_or(0, |list| {
            list.n_before + list.n_draws.div_ceil(self.most_items())
        })
    }

    /// Returns the items of a step and, after them, the numbers of its synthetic objects: those of a run
    /// are counted from the number of items on.
    #[must_use]
    pub fn places(&self, step: u64) -> Vec<usize> {
        let mut places = self.batch(step);
        let drawn = self.n_synthetic_before(step)..self.n_synthetic_before(step + 1);
        let numbers = drawn.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        places.extend(numbers.map(|n| self.n_items.saturating_add(n)));
        places
    }

    /// Returns how many synthetic objects the steps before one have.
    fn n_synthetic_before(&self, step: u64) -> u64 {
        let n_places = u128::from(step) * u128::from(self.batch);
        let parts = n_places * u128::from(self.synthetic) + u128::from(WHOLE / 2);
        u64::try_from(parts / u128::from(WHOLE)).unwrap_or(u64::MAX)
    }

    /// Returns the most items that a batch can have.
    fn most_items(&self) -> u64 {
        // At most half of the places are synthetic: one at least is left.
        self.batch - self.batch * self.synthetic / WHOLE
    }

    /// Returns after how many steps so many items were drawn, where batches run on.
    fn steps_for(&self, n_draws: u64) -> u64 {
        let parts = u128::from(n_draws) * u128::from(WHOLE);
        let parts_per_step = u128::from(self.batch) * u128::from(WHOLE - self.synthetic);
        let mut steps = u64::try_from(parts.div_ceil(parts_per_step)).unwrap_or(u64::MAX);
        let drawn = |steps: u64| {
            let n_places = steps.saturating_mul(self.batch);
            n_places.saturating_sub(self.n_synthetic_before(steps))
        };
        // Rounding moves the end by one step at most.
        if steps > 0 && drawn(steps - 1) >= n_draws {
            steps -= 1;
        } else if drawn(steps) < n_draws {
            steps = steps.saturating_add(1);
        }
        steps
    }

    /// Returns the item at a place of a list in an epoch.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a place in a vector that exists"
    )]
    fn draw(&self, list_idx: usize, epoch: u64, place: u64) -> usize {
        let list = &self.lists[list_idx];
        let key = [self.seed, list_idx as u64, epoch];
        let slot = Permutation::new(list.n_draws, "epoch", &key).at(place);
        let cells = &self.cells[list.cells.clone()];
        let cell_idx = cells.partition_point(|cell| cell.n_before <= slot) - 1;
        let cell = &cells[cell_idx];
        let walked = epoch * cell.quota + slot - cell.n_before;
        let (pass, place) = (walked / cell.n_items, walked % cell.n_items);
        let key = [self.seed, (list.cells.start + cell_idx) as u64, pass];
        let member = Permutation::new(cell.n_items, "pass", &key).at(place);
        self.items[(cell.start + member) as usize] as usize
    }
}

/// A share of 1, in the parts that shares of synthetic objects are counted in: decimal shares are exact.
const WHOLE: u64 = 1_000_000_000;

/// Returns a share of synthetic objects in parts of `WHOLE`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "between 0 and half of a billion"
)]
fn billionths(share: f64) -> Result<u64> {
    if !(0.0..=0.5).contains(&share) {
        let expected = "a share from 0 to 0.5";
        return Err(Error::config(
            "images.synthetic",
            expected,
            share.to_string(),
        ));
    }
    Ok((share * WHOLE as f64).round() as u64)
}

/// Items by `[modality, group]`, in the order of the names; mixed lists have one modality, `""`.
fn cells_of(
    items: &Items,
    weight_by: WeightBy,
    composition: Composition,
) -> BTreeMap<[String; 2], Vec<u32>> {
    let group = match weight_by {
        WeightBy::Modality => MODALITY,
        WeightBy::Source => SOURCE,
    };
    let list = match composition {
        Composition::Mixed => None,
        Composition::SingleModality => Some(MODALITY),
    };
    let columns = [list.unwrap_or(group), group];
    // By number first: comparing words for each of a million items would take longer.
    let mut by_ids: HashMap<[usize; 3], Vec<u32>> = HashMap::new();
    for item in items.train() {
        let ids = items.word_ids(item, columns);
        #[allow(clippy::cast_possible_truncation, reason = "items are numbered in u32")]
        by_ids.entry(ids).or_default().push(item as u32);
    }
    let mut cells: BTreeMap<[String; 2], Vec<u32>> = BTreeMap::new();
    for members in by_ids.into_values() {
        let Some(&first) = members.first() else {
            continue;
        };
        let word = |column: &str| items.cell(first as usize, column).to_owned();
        let name = [list.map(word).unwrap_or_default(), word(group)];
        cells.entry(name).or_default().extend(members);
    }
    // Words that differ by spaces only meet here, in an order that no hash decides.
    cells
        .values_mut()
        .for_each(|members| members.sort_unstable());
    cells
}

/// Deals an epoch's draws to cells: a group of n of N items in proportion to `(n / N)^temperature`, its
/// cells by their items; each at least 1, all together N.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^53, and shares of them are not negative"
)]
fn quotas(cells: &BTreeMap<[String; 2], Vec<u32>>, temperature: f64) -> Vec<u64> {
    let counts: Vec<u64> = cells.values().map(|members| members.len() as u64).collect();
    if temperature.to_bits() == 1.0_f64.to_bits() {
        return counts;
    }
    let n_all: u64 = counts.iter().sum();
    let mut groups: BTreeMap<&str, u64> = BTreeMap::new();
    for ([_, group], members) in cells {
        *groups.entry(group).or_default() += members.len() as u64;
    }
    let weights: Vec<f64> = cells
        .iter()
        .map(|([_, group], members)| {
            let n_group = groups[group.as_str()] as f64;
            (n_group / n_all as f64).powf(temperature) * members.len() as f64 / n_group
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|w| n_all as f64 * w / sum).collect();
    let mut quotas: Vec<u64> = shares.iter().map(|share| (*share as u64).max(1)).collect();
    // The largest remainders get what is missing; the largest quotas give what is too much.
    let mut by_remainder: Vec<usize> = (0..quotas.len()).collect();
    by_remainder.sort_by(|&a, &b| {
        let remainder = |cell: usize| shares[cell] - quotas[cell] as f64;
        remainder(b).total_cmp(&remainder(a)).then(a.cmp(&b))
    });
    let dealt: u64 = quotas.iter().sum();
    let n_missing = n_all.saturating_sub(dealt) as usize;
    for &cell in by_remainder.iter().cycle().take(n_missing) {
        quotas[cell] += 1;
    }
    for _ in n_all..dealt {
        let largest = (0..quotas.len()).max_by_key(|&cell| (quotas[cell], std::cmp::Reverse(cell)));
        if let Some(largest) = largest {
            quotas[largest] -= 1;
        }
    }
    quotas
}
