//! Embeds items in order: reads ahead, batches input for the network, and saves shards.

use m3ret_encoder::{Model, Prepared};
use m3ret_imaging::{Code, ReadOptions};

use super::ahead::{AheadOptions, Piece, n_values, read_ahead};
use super::items::Item;
use super::shards::{KeptRows, Shards};
use super::{Facts, Refusal, Row};
use crate::options::VolumeViews;
use crate::panics;
use crate::watch::{Deferral, Stopped, Watch};

/// Inputs of one batch.
const BATCH_INPUTS: usize = 8;

/// Most input values of one batch, unless one image has more: 2,048 patches of 3 x 16 x 16.
const BATCH_VALUES: usize = 2048 * 768;

/// What is needed to embed.
pub(super) struct Tools<'a> {
    pub(super) model: &'a Model,
    pub(super) options: &'a ReadOptions,
    pub(super) n_readers: usize,
    /// The sentence of `Stopped` if the work is stopped.
    pub(super) farewell: &'a str,
    pub(super) watch: &'a dyn Watch,
}

/// Embeds every item that is not in `kept`, and hands the rows of all items to `sink`, in order.
///
/// The second argument of `sink` says whether the rows are new. All vectors are on disk when this returns.
pub(super) fn embed_all(
    items: &[Item],
    kept: &KeptRows,
    tools: &Tools<'_>,
    shards: &mut Shards,
    mut sink: impl FnMut(Vec<Row>, bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let new = |(idx, item): (usize, &Item)| (!kept.contains_key(&item.key)).then_some(idx);
    let left: Vec<usize> = items.iter().enumerate().filter_map(new).collect();
    let to_read: Vec<&Item> = left.iter().filter_map(|&idx| items.get(idx)).collect();
    let mut n_done = 0;
    let mut finish = |idx: usize, images: Vec<Embedded>, shards: &mut Shards| {
        let at = left.get(idx).copied().unwrap_or(items.len());
        for item in items.get(n_done..at).unwrap_or_default() {
            sink(kept.get(&item.key).cloned().unwrap_or_default(), false)?;
        }
        n_done = at + 1;
        match items.get(at) {
            Some(item) => sink(keep(item, images, shards), true),
            None => Ok(()),
        }
    };
    let mut embed = |batch: &mut Batch, shards: &mut Shards| {
        for (idx, images) in batch.embed(tools.model) {
            finish(idx, images, shards)?;
        }
        shards.save_if_due()
    };
    let mut batch = Batch::default();
    let reading = AheadOptions {
        options: tools.options,
        n_readers: tools.n_readers,
        has_thumbnails: false,
        views: VolumeViews::NONE,
        known: None,
    };
    let deferral = Deferral::start(tools.watch);
    read_ahead(&to_read, tools.model, reading, |taken| {
        if deferral.is_stopped() {
            shards.save()?;
            anyhow::bail!(Stopped {
                saved: tools.farewell.to_owned(),
            });
        }
        if let Some((idx, piece)) = taken {
            batch.add(idx, piece);
        }
        if batch.is_full() {
            embed(&mut batch, shards)?;
        }
        Ok(())
    })?;
    embed(&mut batch, shards)?;
    finish(left.len(), Vec::new(), shards)?;
    shards.save()
}

/// Embeds items and hands what became of each to `sink`, in order; `None` from time to time while nothing is ready.
pub(crate) fn embed_each(
    items: &[&Item],
    model: &Model,
    reading: AheadOptions<'_>,
    mut sink: impl FnMut(Option<(usize, Vec<Embedded>)>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut batch = Batch::default();
    read_ahead(items, model, reading, |taken| {
        match taken {
            Some((idx, piece)) => batch.add(idx, piece),
            None => sink(None)?,
        }
        if batch.is_full() {
            for complete in batch.embed(model) {
                sink(Some(complete))?;
            }
        }
        Ok(())
    })?;
    for complete in batch.embed(model) {
        sink(Some(complete))?;
    }
    Ok(())
}

/// An image with its vector, or the reason why there is none.
pub(crate) type Embedded = (Facts, Result<Vec<f32>, Refusal>);

/// Saves the vectors of an item, and returns its rows.
fn keep(item: &Item, images: Vec<Embedded>, shards: &mut Shards) -> Vec<Row> {
    let is_whole = images.iter().all(|(_, outcome)| outcome.is_ok());
    let mut vectors = Vec::with_capacity(images.len());
    let mut refusals = Vec::with_capacity(images.len());
    for (facts, outcome) in images {
        match outcome {
            Ok(vector) => {
                vectors.push((facts.clone(), vector));
                refusals.push((facts, None));
            }
            Err(refusal) => refusals.push((facts, Some(refusal))),
        }
    }
    let key = is_whole.then_some(item.key);
    let mut places = shards.push(key, vectors).into_iter();
    let rows = refusals.into_iter().map(|(facts, refusal)| {
        let lost = || Refusal::internal("a vector was lost; this is a bug".to_owned());
        let place = match refusal {
            Some(refusal) => Err(refusal),
            None => places.next().ok_or_else(lost),
        };
        Row { facts, place }
    });
    rows.collect()
}

/// Pieces that wait until the network has enough to do.
#[derive(Default)]
struct Batch {
    pieces: Vec<(usize, Piece)>,
    n_inputs: usize,
    n_values: usize,
    /// Images of the item whose end has not been reached.
    images: Vec<Embedded>,
}

impl Batch {
    fn add(&mut self, idx: usize, piece: Piece) {
        for prepared in inputs_of(&piece) {
            self.n_inputs += prepared.inputs().len();
            self.n_values += n_values(prepared);
        }
        self.pieces.push((idx, piece));
    }

    /// Waits for the end of an item unless the batch has doubled, because a shard holds whole items.
    fn is_full(&self) -> bool {
        let is_at_end = matches!(self.pieces.last(), Some((_, Piece::End)));
        let has = |n_batches: usize| {
            self.n_inputs >= n_batches * BATCH_INPUTS || self.n_values >= n_batches * BATCH_VALUES
        };
        // A batch without images need not wait.
        has(2) || (is_at_end && (has(1) || self.n_inputs == 0))
    }

    /// Embeds the images, and returns the images of every item that is complete.
    fn embed(&mut self, model: &Model) -> Vec<(usize, Vec<Embedded>)> {
        let inputs = self.pieces.iter().flat_map(|(_, piece)| inputs_of(piece));
        let mut vectors = embed(model, &inputs.collect::<Vec<_>>()).into_iter();
        (self.n_inputs, self.n_values) = (0, 0);
        let mut complete = Vec::new();
        for (idx, piece) in self.pieces.drain(..) {
            match piece {
                Piece::Image(mut facts, _, views) => {
                    let lost = || Err(Refusal::internal("a vector was lost; this is a bug".into()));
                    let vector = vectors.next().unwrap_or_else(lost);
                    for (name, _) in views {
                        // A view without a vector is left out.
                        let view = vectors.next().and_then(Result::ok);
                        facts.traits.views.extend(view.map(|vector| (name, vector)));
                    }
                    self.images.push((facts, vector));
                }
                Piece::Known(facts, vector) => self.images.push((facts, Ok(vector))),
                Piece::Refused(facts, refusal) => self.images.push((facts, Err(refusal))),
                Piece::End => complete.push((idx, std::mem::take(&mut self.images))),
            }
        }
        complete
    }
}

/// Returns what a piece has for the network: the image, then its views.
fn inputs_of(piece: &Piece) -> impl Iterator<Item = &Prepared> {
    let parts = match piece {
        Piece::Image(_, prepared, views) => Some((prepared, views)),
        Piece::Known(..) | Piece::Refused(..) | Piece::End => None,
    };
    parts.into_iter().flat_map(|(prepared, views)| {
        std::iter::once(prepared).chain(views.iter().map(|(_, prepared)| prepared))
    })
}

/// Embeds images together, or one by one if that fails, so that only images without a vector are refused.
fn embed(model: &Model, images: &[&Prepared]) -> Vec<Result<Vec<f32>, Refusal>> {
    if images.is_empty() {
        return Vec::new();
    }
    match panics::guard(|| model.embed(images)) {
        Ok(Ok(vectors)) => vectors.into_iter().map(Ok).collect(),
        Ok(Err(error)) if images.len() == 1 => vec![Err(without_vector(&error))],
        Err(message) if images.len() == 1 => vec![Err(Refusal::internal(message))],
        Ok(Err(_)) | Err(_) => {
            let each = images.chunks(1).flat_map(|image| embed(model, image));
            each.collect()
        }
    }
}

/// Describes why a prepared image has no vector. Prepared input fits the model, so a mismatch means a vector without
/// direction.
fn without_vector(error: &m3ret_encoder::Error) -> Refusal {
    let refusal = Refusal::by_model(error);
    let code = match refusal.code {
        Code::Mismatch => Code::NoDirection,
        code => code,
    };
    Refusal { code, ..refusal }
}
