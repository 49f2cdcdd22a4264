//! Assigns groups to splits, without any input or output.
//!
//! Groups of one stratum cell are sorted by a keyed hash of their smallest member, and cut in three: query,
//! gallery, pretrain. The split of a group depends on the seed, its own members and the groups of its cell, and on
//! nothing else. Another group moves a cut by at most one place.

use std::collections::BTreeMap;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Smallest number of groups of a cell that is cut in three.
pub const MIN_GROUPS: usize = 3;

/// What a group of images is used for: a word of the column `split`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Its images query the gallery.
    Query,
    /// Its images are searched.
    Gallery,
    /// Its images are trained on.
    Pretrain,
}

impl Split {
    /// All splits, in the order of reports.
    pub const ALL: [Self; 3] = [Self::Query, Self::Gallery, Self::Pretrain];

    /// Returns the word in manifests: `query`, `gallery` or `pretrain`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Gallery => "gallery",
            Self::Pretrain => "pretrain",
        }
    }
}

/// Shares of the groups of a cell; the gallery gets the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shares {
    /// In 0..=1, and no more than 1 together with `pretrain`.
    pub(super) query: f64,
    pub(super) pretrain: f64,
}

/// What decides the split of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group<'a> {
    /// The smallest name of a member; no two groups have the same.
    pub(super) name: &'a str,
    /// The words of its stratum cell, one a column.
    pub(super) cell: Vec<&'a str>,
}

/// The splits of all groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Of each group, in their order.
    pub(super) splits: Vec<Split>,
    pub(super) cells: CellCounts,
}

/// Number of cells, and how groups of small cells were pooled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CellCounts {
    /// Number of combinations of words in the balanced columns.
    pub n_cells: usize,
    /// Number of cells with fewer than `MIN_GROUPS` groups.
    pub n_small_cells: usize,
    /// Number of groups in small cells.
    pub n_small_groups: usize,
    /// Number of groups of small cells, by the number of leading columns whose words they share with the groups that
    /// they were pooled with.
    pub n_pooled: BTreeMap<usize, usize>,
    /// Number of groups that were too few even when pooled; none of them became a query.
    pub n_left: usize,
}

/// Groups that are cut in three together.
#[derive(Debug)]
struct Cell<'a> {
    words: &'a [&'a str],
    groups: Vec<usize>,
}

/// Returns the cell of a group: that of most of its rows, and the smallest of several.
pub(super) fn commonest<'a>(cells: impl IntoIterator<Item = Vec<&'a str>>) -> Vec<&'a str> {
    let mut counts: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
    for cell in cells {
        *counts.entry(cell).or_default() += 1;
    }
    let mut best = (0, Vec::new());
    for (cell, n_rows) in counts {
        if n_rows > best.0 {
            best = (n_rows, cell);
        }
    }
    best.1
}

/// Gives every group a split; all cells have the same number of words.
pub(super) fn assign(groups: &[Group<'_>], shares: Shares, seed: u64) -> Assignment {
    let mut by_words: BTreeMap<&[&str], Vec<usize>> = BTreeMap::new();
    for (idx, group) in groups.iter().enumerate() {
        by_words.entry(&group.cell).or_default().push(idx);
    }
    let is_small = |members: &&Vec<usize>| members.len() < MIN_GROUPS;
    let mut splits = vec![Split::Gallery; groups.len()];
    let mut cells = CellCounts {
        n_cells: by_words.len(),
        n_small_cells: by_words.values().filter(is_small).count(),
        n_small_groups: by_words.values().filter(is_small).map(Vec::len).sum(),
        ..CellCounts::default()
    };
    let n_columns = groups.first().map_or(0, |group| group.cell.len());
    for cell in pooled(by_words) {
        let n_groups = cell.groups.len();
        let mut shares = shares;
        if n_groups < MIN_GROUPS {
            shares.query = 0.0;
            cells.n_left += n_groups;
        } else if cell.words.len() < n_columns {
            *cells.n_pooled.entry(cell.words.len()).or_default() += n_groups;
        }
        let cuts = cuts(&cell, shares, seed);
        for (place, group) in in_order(groups, cell.groups, seed).enumerate() {
            splits[group] = match place {
                place if place < cuts[0] => Split::Query,
                place if place < cuts[1] => Split::Gallery,
                _ => Split::Pretrain,
            };
        }
    }
    Assignment { splits, cells }
}

/// Pools small cells with others that share all words but the last, then all but the last two, and so on.
///
/// Every returned cell has at least `MIN_GROUPS` groups, except one without words.
fn pooled<'a>(mut cells: BTreeMap<&'a [&'a str], Vec<usize>>) -> Vec<Cell<'a>> {
    let mut done = Vec::new();
    while !cells.is_empty() {
        let mut pools: BTreeMap<&[&str], Vec<usize>> = BTreeMap::new();
        for (words, groups) in cells {
            match words.split_last() {
                Some((_, leading)) if groups.len() < MIN_GROUPS => {
                    pools.entry(leading).or_default().extend(groups);
                }
                _ => done.push(Cell { words, groups }),
            }
        }
        cells = pools;
    }
    done
}

/// Returns where the gallery begins and ends among the groups of a cell.
///
/// Shares of small cells are no whole numbers. Each cell rounds by its own pseudo-random number, so that shares are
/// right over many cells and within one group in each.
fn cuts(cell: &Cell<'_>, shares: Shares, seed: u64) -> [usize; 2] {
    let mut words = b"cell".to_vec();
    for word in cell.words {
        words.extend(u64::try_from(word.len()).unwrap_or(u64::MAX).to_le_bytes());
        words.extend(word.as_bytes());
    }
    let rounding = unit(xxh3_128_with_seed(&words, seed));
    let n_groups = cell.groups.len();
    [shares.query, 1.0 - shares.pretrain].map(|share| {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "no cell has 2^52 groups"
        )]
        let cut = (share * n_groups as f64 + rounding).floor() as usize;
        cut.min(n_groups)
    })
}

/// Returns a number in 0..1 from 53 bits of a hash.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn unit(hash: u128) -> f64 {
    (hash >> 75) as f64 / (1_u64 << 53) as f64
}

/// Sorts groups by their keyed hashes.
fn in_order(
    groups: &[Group<'_>],
    mut members: Vec<usize>,
    seed: u64,
) -> impl Iterator<Item = usize> {
    members.sort_by_cached_key(|&group| {
        let name = groups[group].name;
        (xxh3_128_with_seed(name.as_bytes(), seed), name)
    });
    members.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARES: Shares = Shares {
        query: 0.2,
        pretrain: 0.5,
    };

    /// Names, and a cell of two words for each: 15 cells of many sizes.
    fn names(n: usize) -> Vec<(String, [&'static str; 2])> {
        let name = |i: usize| {
            let first = ["CT", "DX", "US"][i % 3];
            let second = ["a", "b", "c", "d", "e"][(i * i / 7) % 5];
            (format!("{i}.png"), [first, second])
        };
        (0..n).map(name).collect()
    }

    fn groups<'a>(names: &'a [(String, [&'a str; 2])]) -> Vec<Group<'a>> {
        let group = |(name, cell): &'a (String, [&'a str; 2])| Group {
            name,
            cell: cell.to_vec(),
        };
        names.iter().map(group).collect()
    }

    fn by_name(names: &[(String, [&str; 2])], seed: u64) -> BTreeMap<String, Split> {
        let splits = assign(&groups(names), SHARES, seed).splits;
        let names = names.iter().map(|(name, _)| name.clone());
        names.zip(splits).collect()
    }

    #[test]
    fn shares_are_within_one_group_in_every_cell() {
        for seed in 0..20 {
            let names = names(400);
            let assignment = assign(&groups(&names), SHARES, seed);
            let mut counts: BTreeMap<[&str; 2], [usize; 3]> = BTreeMap::new();
            for ((_, cell), split) in names.iter().zip(&assignment.splits) {
                counts.entry(*cell).or_default()[*split as usize] += 1;
            }
            assert_eq!(counts.len(), assignment.cells.n_cells);
            for (cell, counts) in counts {
                let n = counts.iter().sum::<usize>() as f64;
                for (count, share) in counts.into_iter().zip([0.2, 0.3, 0.5]) {
                    let off = count as f64 - share * n;
                    assert!(off.abs() < 1.0 + 1e-9, "{cell:?} {counts:?}");
                }
            }
        }
    }

    #[test]
    fn shares_are_right_over_many_small_cells() {
        let words: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
        let names: Vec<String> = (0..4000).map(|i| format!("{i}.png")).collect();
        let group = |i: usize| Group {
            name: &names[i],
            cell: vec![&words[i % 1000]],
        };
        let groups: Vec<Group<'_>> = (0..4000).map(group).collect();
        let splits = assign(&groups, SHARES, 0).splits;
        let count = |split| splits.iter().filter(|&&other| other == split).count();
        assert!((750..850).contains(&count(Split::Query)));
        assert!((1950..2050).contains(&count(Split::Pretrain)));
    }

    #[test]
    fn the_order_of_groups_does_not_matter_and_the_seed_does() {
        let mut names = names(300);
        let expected = by_name(&names, 7);
        names.reverse();
        assert_eq!(by_name(&names, 7), expected);
        names.sort();
        assert_eq!(by_name(&names, 7), expected);
        let other = by_name(&names, 8);
        let n_same = other.iter().filter(|(k, v)| expected[*k] == **v).count();
        assert!((60..180).contains(&n_same), "{n_same} of 300");
    }

    #[test]
    fn a_group_more_moves_few_others() {
        let names = names(600);
        for n in 300..400 {
            let (before, after) = (by_name(&names[..n], 1), by_name(&names[..=n], 1));
            let moved: Vec<_> = before.iter().filter(|(k, v)| after[*k] != **v).collect();
            assert!(moved.len() <= 2, "{moved:?}");
        }
    }

    #[test]
    fn small_cells_are_put_together_and_the_last_two_are_no_queries() {
        let cell = |name: &'static str, cell: [&'static str; 2]| Group {
            name,
            cell: cell.to_vec(),
        };
        let groups = [
            cell("1", ["CT", "a"]),
            cell("2", ["CT", "b"]),
            cell("3", ["CT", "c"]),
            cell("4", ["CT", "c"]),
            cell("5", ["US", "a"]),
            cell("6", ["XA", "a"]),
        ];
        let shares = Shares {
            query: 0.5,
            pretrain: 0.0,
        };
        for seed in 0..20 {
            let Assignment { splits, cells } = assign(&groups, shares, seed);
            assert_eq!((cells.n_cells, cells.n_small_cells), (5, 5));
            assert_eq!(cells.n_small_groups, 6);
            assert_eq!(cells.n_pooled, BTreeMap::from([(1, 4)]));
            assert_eq!(cells.n_left, 2);
            let n_queries =
                |splits: &[Split]| splits.iter().filter(|&&s| s == Split::Query).count();
            assert_eq!(n_queries(&splits[..4]), 2);
            assert_eq!(splits[4..], [Split::Gallery; 2]);
        }
        assert_eq!(assign(&[], shares, 0).splits, []);
    }

    #[test]
    fn whole_shares_leave_nothing_over() {
        let names = names(200);
        for (query, pretrain, split) in [(0.0, 0.0, Split::Gallery), (0.0, 1.0, Split::Pretrain)] {
            let shares = Shares { query, pretrain };
            let splits = assign(&groups(&names), shares, 3).splits;
            assert!(splits.iter().all(|&other| other == split));
        }
    }

    #[test]
    fn a_group_lies_in_the_cell_of_most_of_its_rows() {
        let of = |words: &[&'static str]| commonest(words.iter().map(|&word| vec![word]));
        assert_eq!(of(&["b", "a", "b"]), ["b"]);
        assert_eq!(of(&["b", "a"]), ["a"]);
    }
}
