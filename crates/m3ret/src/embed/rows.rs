//! Embeds the rows of a manifest for an evaluation.

use std::path::Path;
use std::time::Duration;

use m3ret_encoder::Model;

use super::items::{Item, Listing};
use super::shards::{ShardOptions, Shards};
use super::work::{Tools, embed_all};
use super::{Refusal, farewell, note_earlier_work, settings_of};
use crate::options::Reading;
use crate::watch::Watch;

/// Time between saves: what a run that is killed may lose.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// One vector for each row of a manifest.
#[derive(Debug, Default)]
pub(crate) struct RowVectors {
    /// [rows, width]; NaN where there is no vector.
    pub values: Vec<f32>,
    pub width: usize,
    /// Further unit vectors, each with its row, in ascending order of rows.
    pub further: Vec<(u32, Vec<f32>)>,
    /// Rows whose image has no vector, and why.
    pub refused: Vec<(usize, Refusal)>,
}

/// The rows of a manifest that get a vector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WantedRows<'a> {
    pub listing: &'a Listing,
    /// Whether each row of the manifest gets a vector.
    pub is_wanted: &'a [bool],
}

/// Embeds rows of a manifest.
///
/// Finished work is kept in the folder `work`, so that the next run of the same model embeds only what is new or
/// changed.
pub(crate) fn embed_rows(
    wanted: WantedRows<'_>,
    model: &Model,
    reading: &Reading,
    work: &Path,
    watch: &dyn Watch,
) -> anyhow::Result<RowVectors> {
    let WantedRows { listing, is_wanted } = wanted;
    let settings = settings_of(model, &reading.options);
    let opening = ShardOptions {
        save_every: SAVE_EVERY,
        is_restart: false,
    };
    let (mut shards, kept, earlier) = Shards::open(work, &settings, opening)?;
    let rows: Vec<usize> = (0..listing.items.len())
        .filter(|&row| is_wanted[row])
        .collect();
    let items: Vec<Item> = rows.iter().map(|&row| listing.items[row].clone()).collect();
    let n_new = note_earlier_work(&items, &kept, &earlier, work, watch);
    watch.count(n_new);
    let tools = Tools {
        model,
        options: &reading.options,
        n_readers: reading.n_readers,
        farewell: &farewell(work),
        watch,
    };
    let (mut embedded, mut n_refused) = (Vec::with_capacity(items.len()), 0);
    embed_all(&items, &kept, &tools, &mut shards, |images, is_new| {
        let row = images.into_iter().next();
        n_refused += usize::from(row.as_ref().is_none_or(|row| row.place.is_err()));
        embedded.push(row);
        if is_new {
            watch.advance(n_refused);
        }
        Ok(())
    })?;
    let mut vectors = RowVectors {
        values: vec![f32::NAN; listing.items.len() * model.width()],
        width: model.width(),
        further: Vec::new(),
        refused: Vec::new(),
    };
    for (&row, embedded) in rows.iter().zip(embedded) {
        let none = || Refusal::internal("the row gave no image".to_owned());
        match embedded.map_or_else(|| Err(none()), |embedded| embedded.place) {
            Ok(place) => vectors.values[row * vectors.width..][..vectors.width]
                .copy_from_slice(&shards.vector(place)?),
            Err(refusal) => vectors.refused.push((row, refusal)),
        }
    }
    Ok(vectors)
}
