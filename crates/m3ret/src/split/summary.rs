//! What a split amounts to.

use std::collections::{BTreeMap, BTreeSet};

use m3ret_manifest::columns::{DIMS, MODALITY};
use m3ret_manifest::is_unseen;
use serde::Serialize;

use super::rows::Sources;
use super::shares::{Assignment, CellCounts, Split};
use crate::galleries::Updated;

/// How many groups went into others, by what joined them first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JoinCounts {
    pub patient: usize,
    pub pair: usize,
    pub exact: usize,
    pub near: usize,
}

/// How much there is in one split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SplitCount {
    pub n_items: usize,
    /// Groups with one or more of the items.
    pub n_groups: usize,
}

/// How much there is in each split.
pub type SplitCounts = BTreeMap<Split, SplitCount>;

/// How much there is of one modality and dims in each split; a split without any is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindCounts {
    /// As in the manifest; empty where it says none.
    pub modality: String,
    pub dims: String,
    pub splits: SplitCounts,
}

/// What the images of the rows amount to.
#[derive(Debug)]
pub struct ImageSummary {
    /// The model whose vectors were compared.
    pub model: String,
    /// Rows whose image could not be read.
    pub n_refused: usize,
    /// What was read for the gallery of each manifest, in their order.
    pub updated: Vec<Updated>,
}

/// What a split amounts to.
#[derive(Debug)]
pub struct SplitSummary {
    /// Rows of the manifest.
    pub n_items: usize,
    pub n_groups: usize,
    /// Rows of the largest group.
    pub n_largest: usize,
    /// Rows without a `patient_id`.
    pub n_without_patient: usize,
    /// Rows of pretrain whose modality `m3ret pretrain` skips by default.
    pub n_unseen_in_pretrain: usize,
    pub joins: JoinCounts,
    /// All splits, those without rows, too.
    pub splits: SplitCounts,
    /// By modality, then dims.
    pub kinds: Vec<KindCounts>,
    /// The columns that were balanced, the most important first.
    pub stratify: Vec<String>,
    pub cells: CellCounts,
    /// `None` where no image was read.
    pub images: Option<ImageSummary>,
}

/// What a summary is made of.
pub(super) struct Outline<'a> {
    pub(super) sources: &'a Sources,
    /// The rows of each group.
    pub(super) members: &'a [Vec<usize>],
    pub(super) joins: JoinCounts,
    pub(super) stratify: Vec<String>,
    pub(super) assignment: Assignment,
    /// Of each row.
    pub(super) splits: &'a [Split],
    pub(super) images: Option<ImageSummary>,
}

impl Outline<'_> {
    pub(super) fn into_summary(self) -> SplitSummary {
        let patients = self.sources.patients();
        let modalities = self.sources.words(MODALITY);
        let unseen = modalities
            .iter()
            .zip(self.splits)
            .filter(|(word, split)| is_unseen(word) && **split == Split::Pretrain);
        SplitSummary {
            n_items: self.splits.len(),
            n_groups: self.members.len(),
            n_largest: self.members.iter().map(Vec::len).max().unwrap_or_default(),
            n_without_patient: patients.iter().filter(|word| word.is_empty()).count(),
            n_unseen_in_pretrain: unseen.count(),
            joins: self.joins,
            splits: self.counts(),
            kinds: self.counts_by_kind(),
            stratify: self.stratify,
            cells: self.assignment.cells,
            images: self.images,
        }
    }

    /// Counts what there is in each split.
    fn counts(&self) -> SplitCounts {
        let mut all: SplitCounts = Split::ALL
            .map(|split| (split, SplitCount::default()))
            .into();
        for (members, &split) in self.members.iter().zip(&self.assignment.splits) {
            let total = all.entry(split).or_default();
            total.n_groups += 1;
            total.n_items += members.len();
        }
        all
    }

    /// Counts what there is in each split, for each modality and dims.
    fn counts_by_kind(&self) -> Vec<KindCounts> {
        let modalities = self.sources.words(MODALITY);
        let dims = self.sources.words(DIMS);
        let mut by_kind: BTreeMap<[&str; 2], SplitCounts> = BTreeMap::new();
        for (members, &split) in self.members.iter().zip(&self.assignment.splits) {
            let mut kinds = BTreeSet::new();
            for &row in members {
                let kind = [modalities[row], dims[row]];
                let count = by_kind.entry(kind).or_default().entry(split).or_default();
                count.n_items += 1;
                count.n_groups += usize::from(kinds.insert(kind));
            }
        }
        let counts = |([modality, dims], splits): ([&str; 2], SplitCounts)| KindCounts {
            modality: modality.to_owned(),
            dims: dims.to_owned(),
            splits,
        };
        by_kind.into_iter().map(counts).collect()
    }
}
