//! Vectors of a manifest's rows, for whoever measures them.

use std::path::Path;
use std::time::Duration;

use m3ret_encoder::Model;

use super::items::{Item, Listing};
use super::shards::{Opening, Shards};
use super::work::{Tools, embed_all};
use super::{Outputs, Refusal, settings_of, tell_found};
use crate::options::Reading;
use crate::watch::Watch;

/// Seconds between saves: what a run that is killed loses.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// One vector for each row of a manifest.
#[derive(Debug, Default)]
pub(in crate::commands) struct RowVectors {
    /// [rows, width]; NaN where there is no vector.
    pub(in crate::commands) values: Vec<f32>,
    pub(in crate::commands) width: usize,
    /// Rows whose image has none, and why.
    pub(in crate::commands) refused: Vec<(usize, Refusal)>,
}

/// Embeds the rows of a manifest that are `wanted`.
///
/// What is done is kept in the folder `work`, so that the next run of the same model only embeds what
/// is new or changed.
pub(in crate::commands) fn embed_rows(
    listing: &Listing,
    wanted: &[bool],
    model: &Model,
    reading: &Reading,
    (work, progress): (&Path, &dyn Watch),
) -> anyhow::Result<RowVectors> {
    let settings = settings_of(model, &reading.options);
    let opening = Opening {
        save_every: SAVE_EVERY,
        is_restart: false,
    };
    let (mut shards, kept, found) = Shards::open(work, &settings, opening)?;
    let rows: Vec<usize> = (0..listing.items.len())
        .filter(|&row| wanted[row])
        .collect();
    let items: Vec<Item> = rows.iter().map(|&row| listing.items[row].clone()).collect();
    let outputs = Outputs {
        work: work.to_owned(),
        ..Outputs::default()
    };
    let n_new = tell_found(&items, &kept, &found, (&outputs, progress));
    progress.count(n_new);
    let farewell = format!(
        "interrupted; what is done is in {}, and the same command goes on from there",
        work.display()
    );
    let tools = Tools {
        model,
        options: &reading.options,
        n_readers: reading.n_readers,
        farewell: &farewell,
        watch: progress,
    };
    let (mut embedded, mut n_refused) = (Vec::with_capacity(items.len()), 0);
    embed_all(&items, &kept, &tools, &mut shards, |images, is_new| {
        let row = images.into_iter().next();
        n_refused += usize::from(row.as_ref().is_none_or(|row| row.place.is_err()));
        embedded.push(row);
        if is_new {
            progress.advance(n_refused);
        }
        Ok(())
    })?;
    let mut vectors = RowVectors {
        values: vec![f32::NAN; listing.items.len() * model.width()],
        width: model.width(),
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
