//! Counts of a split.

use std::collections::{BTreeMap, BTreeSet};

use m3ret_manifest::columns::{DIMS, MODALITY};
use m3ret_manifest::is_unseen;
use serde::Serialize;
use serde_json::{Value, json};

use super::SplitOptions;
use super::rows::Sources;
use super::shares::{Assignment, CellCounts, Split};
use crate::galleries::UpdateSummary;

/// Number of groups that went into others, by what joined them first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JoinCounts {
    /// The same `patient_id`.
    pub patient: usize,
    /// The same `pair_id`.
    pub pair: usize,
    /// The same file and part, or equal values.
    pub exact: usize,
    /// Near duplicates.
    pub near: usize,
}

/// Number of images and groups in one split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SplitCount {
    /// Number of images.
    pub n_items: usize,
    /// Number of groups with at least one of the images.
    pub n_groups: usize,
}

/// Number of images and groups in each split.
pub type SplitCounts = BTreeMap<Split, SplitCount>;

/// Number of images and groups of one modality and dims in each split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindCounts {
    /// The modality, as the manifest writes it; empty if it states none.
    pub modality: String,
    /// The dims, as the manifest writes them; empty if it states none.
    pub dims: String,
    /// Counts by split; a split without such images is absent.
    pub splits: SplitCounts,
}

/// How the images of the rows were read.
#[derive(Debug)]
pub struct ImageSummary {
    /// The model whose vectors were compared.
    pub model: String,
    /// Number of rows whose image could not be read; they are compared with nothing.
    pub n_refused: usize,
    /// What was read for the gallery of each manifest, in the order of the manifests.
    pub updated: Vec<UpdateSummary>,
}

/// Counts of a split, and how it was made.
#[derive(Debug)]
pub struct SplitSummary {
    /// Number of rows of the manifest.
    pub n_items: usize,
    /// Number of groups, each of which is in one split.
    pub n_groups: usize,
    /// Number of rows of the largest group.
    pub n_largest: usize,
    /// Number of rows without a `patient_id`.
    pub n_without_patient: usize,
    /// Number of rows of pretrain whose modality `m3ret pretrain` skips by default.
    pub n_unseen_in_pretrain: usize,
    /// What joined rows to groups.
    pub joins: JoinCounts,
    /// Counts of every split, including those without rows.
    pub splits: SplitCounts,
    /// Counts by modality, then dims.
    pub kinds: Vec<KindCounts>,
    /// The columns that were balanced, the most important first.
    pub stratify: Vec<String>,
    /// The cells in which shares were met.
    pub cells: CellCounts,
    /// How images were read; `None` if none were.
    pub images: Option<ImageSummary>,
}

impl SplitSummary {
    /// Returns the summary as `m3ret split --json` prints it.
    pub fn as_json(&self, options: &SplitOptions) -> Value {
        let kinds = self.kinds.iter().map(
            |kind| json!({(MODALITY): kind.modality, (DIMS): kind.dims, "splits": kind.splits}),
        );
        let images = self.images.as_ref();
        let refused = images.map(|images| {
            let refused = images.updated.iter().flat_map(|updated| &updated.refused);
            refused.collect::<Vec<_>>()
        });
        // A number of 32 bits as it is printed: of 0.98, not 0.9800000190734863.
        let near = options.images.near.to_string().parse::<f64>();
        json!({
            "out": options.out,
            "n_items": self.n_items,
            "n_groups": self.n_groups,
            "n_largest": self.n_largest,
            "n_without_patient": self.n_without_patient,
            "n_joined": self.joins,
            "splits": self.splits,
            "by_modality_dims": kinds.collect::<Vec<_>>(),
            "seed": options.seed,
            "query": options.query,
            "pretrain": options.pretrain,
            "stratify": self.stratify,
            "cells": self.cells,
            "model": images.map(|images| &images.model),
            "near": images.and_then(|_| near.ok()),
            "refused": refused,
        })
    }
}

/// What a summary is computed from.
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

    /// Counts images and groups of each split.
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

    /// Counts images and groups of each split, for each modality and dims.
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
