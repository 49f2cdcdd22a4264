//! Reads and prepares a bounded number of objects ahead of the network.
//!
//! Readers claim items in order and hand over images one by one; the images come out in the order of the items.
//! Waiting input is bounded: while `MAX_WAITING_BYTES` of it wait, a reader claims no new item and hands over no
//! further image, except for the item whose turn it is.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use m3ret_encoder::{Model, Prepared};
use m3ret_imaging::archive::{read_image, read_object, visit_object};
use m3ret_imaging::{
    Error, Kind, ReadOptions, Volume, flat_views, has_flat_views, has_slice_views, slice_views,
    thumbnail,
};

use super::items::{Content, Item};
use super::{Facts, Refusal, Traits, Views};
use crate::check::pixel_hash;
use crate::galleries::KnownVectors;
use crate::options::VolumeViews;
use crate::panics;

/// Prepared input that may wait for the network; each reader may hold one image more.
const MAX_WAITING_BYTES: usize = 128 << 20;

/// Most items that readers may be ahead of the network, for any size of item.
const MAX_ITEMS_AHEAD: usize = 1024;

/// Longest wait for the next piece, after which the sink may save or stop the work.
const PATIENCE: Duration = Duration::from_millis(100);

/// What an item gives, in order: its images, readable or not, then its end.
#[derive(Debug)]
pub(crate) enum Piece {
    /// An image, and its further views by name.
    Image(Facts, Prepared, Vec<(String, Prepared)>),
    /// An image whose vector is known already.
    Known(Facts, Vec<f32>),
    Refused(Facts, Refusal),
    End,
}

impl Piece {
    fn n_bytes(&self) -> usize {
        match self {
            Self::Image(_, prepared, views) => {
                let views = views.iter().map(|(_, prepared)| n_values(prepared));
                (n_values(prepared) + views.sum::<usize>()).saturating_mul(4)
            }
            Self::Known(..) | Self::Refused(..) | Self::End => 0,
        }
    }
}

/// Returns how many input values an image has for the network.
pub(crate) fn n_values(prepared: &Prepared) -> usize {
    let inputs = prepared.inputs().iter();
    inputs.map(|input| input.values().len()).sum()
}

/// Waiting pieces in the order of the items, shared by all readers.
struct PieceQueue<'a> {
    items: &'a [&'a Item],
    state: Mutex<State>,
    changed: Condvar,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    /// The item that the next free reader claims.
    next: usize,
    /// The item whose pieces come out now.
    head: usize,
    waiting: BTreeMap<usize, VecDeque<Piece>>,
    n_bytes: usize,
    is_over: bool,
}

impl State {
    fn has_of_head(&self) -> bool {
        self.waiting
            .get(&self.head)
            .is_some_and(|pieces| !pieces.is_empty())
    }
}

/// Stops the readers when the listener ends, also by an error or a panic.
struct Listener<'a>(&'a PieceQueue<'a>);

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

/// How images are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AheadOptions<'a> {
    pub options: &'a ReadOptions,
    pub n_readers: usize,
    /// Each image comes with a small picture for people.
    pub has_thumbnails: bool,
    /// Of which pictures volumes come with further vectors.
    pub views: VolumeViews,
    /// Vectors of images that were embedded earlier; if given, each image comes with the digest of its content.
    pub known: Option<&'a KnownVectors>,
}

/// Reads `items` on `n_readers` threads, or on the calling thread if that is 0, and hands their pieces to `sink`, with the position of the
/// item, in order; `None` from time to time while nothing comes.
pub(crate) fn read_ahead(
    items: &[&Item],
    model: &Model,
    reading: AheadOptions<'_>,
    sink: impl FnMut(Option<(usize, Piece)>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let queue = PieceQueue {
        items,
        state: Mutex::default(),
        changed: Condvar::new(),
        max_bytes: MAX_WAITING_BYTES,
    };
    queue.run(reading.n_readers, sink, |item, push| {
        read(item, model, reading, push);
    })
}

impl PieceQueue<'_> {
    fn run(
        &self,
        n_readers: usize,
        mut sink: impl FnMut(Option<(usize, Piece)>) -> anyhow::Result<()>,
        read: impl Fn(&Item, &mut dyn FnMut(Piece) -> bool) + Sync,
    ) -> anyhow::Result<()> {
        if n_readers == 0 {
            return read_in_place(self.items, &mut sink, &read);
        }
        std::thread::scope(|scope| {
            for _ in 0..n_readers.min(self.items.len()) {
                scope.spawn(|| {
                    while let Some((idx, item)) = self.claim() {
                        read(item, &mut |piece| self.push(idx, piece));
                        self.push(idx, Piece::End);
                    }
                });
            }
            let listener = Listener(self);
            while let Some(taken) = listener.0.take() {
                sink(taken)?;
            }
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic halfway, so that a poisoned state is still valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `is_ready`; returns `None` once the listener has ended.
    fn wait(&self, is_ready: impl Fn(&State) -> bool) -> Option<MutexGuard<'_, State>> {
        let must_wait = |state: &mut State| !state.is_over && !is_ready(state);
        let waited = self.changed.wait_while(self.lock(), must_wait);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        (!state.is_over).then_some(state)
    }

    fn claim(&self) -> Option<(usize, &Item)> {
        let has_room = |state: &State| {
            state.next == state.head
                || state.next >= self.items.len()
                || (state.n_bytes < self.max_bytes && state.next - state.head < MAX_ITEMS_AHEAD)
        };
        let mut state = self.wait(has_room)?;
        let idx = state.next;
        let item = self.items.get(idx)?;
        state.next += 1;
        Some((idx, item))
    }

    /// Hands over a piece; returns false once the listener has ended.
    fn push(&self, idx: usize, piece: Piece) -> bool {
        let has_room = |state: &State| {
            state.n_bytes < self.max_bytes || (idx == state.head && !state.has_of_head())
        };
        let n_bytes = piece.n_bytes();
        let Some(mut state) = self.wait(|state| n_bytes == 0 || has_room(state)) else {
            return false;
        };
        state.n_bytes += n_bytes;
        state.waiting.entry(idx).or_default().push_back(piece);
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Returns the next piece, or `Some(None)` if none comes soon; `None` after the end of the last item.
    fn take(&self) -> Option<Option<(usize, Piece)>> {
        let must_wait = |state: &mut State| state.head < self.items.len() && !state.has_of_head();
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, must_wait);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Some(None);
        }
        let idx = state.head;
        let piece = state.waiting.get_mut(&idx)?.pop_front()?;
        state.n_bytes -= piece.n_bytes();
        if matches!(piece, Piece::End) {
            state.waiting.remove(&idx);
            state.head += 1;
        }
        drop(state);
        self.changed.notify_all();
        Some(Some((idx, piece)))
    }
}

/// Reads items on the calling thread, one after the other.
fn read_in_place(
    items: &[&Item],
    sink: &mut impl FnMut(Option<(usize, Piece)>) -> anyhow::Result<()>,
    read: &impl Fn(&Item, &mut dyn FnMut(Piece) -> bool),
) -> anyhow::Result<()> {
    for (idx, item) in items.iter().enumerate() {
        let mut outcome = Ok(());
        read(item, &mut |piece| {
            outcome = sink(Some((idx, piece)));
            outcome.is_ok()
        });
        outcome?;
        sink(Some((idx, Piece::End)))?;
    }
    Ok(())
}

/// Reads every image of an item, each with the name of its part.
pub(crate) fn volumes_of(
    item: &Item,
    options: &ReadOptions,
) -> Result<Vec<(Option<String>, Volume)>, Refusal> {
    if let Content::Object(object) = &item.content {
        return guarded(|| {
            let volumes = read_object(object, options)?.into_iter();
            Ok(volumes
                .map(|volume| (object.name_of(&volume), volume))
                .collect())
        });
    }
    let mut volumes = Vec::new();
    visit_item(item, options, &mut |part, volume| {
        volumes.push((part, volume.into_owned()));
        ControlFlow::Continue(())
    })?;
    Ok(volumes)
}

/// Takes one image after the other, each with the name of its part.
type Visit<'a> = &'a mut dyn FnMut(Option<String>, Cow<'_, Volume>) -> ControlFlow<()>;

/// Hands over the images of an item one by one, each with the name of its part.
fn visit_item(item: &Item, options: &ReadOptions, visit: Visit<'_>) -> Result<(), Refusal> {
    match &item.content {
        Content::Object(object) => guarded(|| {
            visit_object(object, options, &mut |volume| {
                visit(object.name_of(&volume), Cow::Owned(volume))
            })
        }),
        Content::Row { path, part } => guarded(|| {
            let volume = read_image(path, part.as_deref(), options)?;
            let _ = visit(part.clone(), Cow::Owned(volume));
            Ok(())
        }),
        Content::Memory(image) => guarded(|| {
            let mut volumes = image.read(options)?.into_iter();
            let _ = volumes.try_for_each(|volume| visit(volume.part.clone(), volume));
            Ok(())
        }),
        Content::Unreadable { code, message } => Err(Refusal {
            code: *code,
            message: message.clone(),
        }),
    }
}

/// Reads and prepares the images of one item; stops when `push` returns false.
fn read(
    item: &Item,
    model: &Model,
    reading: AheadOptions<'_>,
    push: &mut dyn FnMut(Piece) -> bool,
) {
    let mut digest = None;
    let outcome = visit_item(item, reading.options, &mut |part, volume| {
        // Asked for once something was read: a file that is refused need not be hashed.
        let digest =
            *digest.get_or_insert_with(|| reading.known.and_then(|_| item.digest(reading.options)));
        let mut facts = facts(part, &volume);
        facts.traits.content = digest.map(|digest| digest.of(item.named_part()));
        if reading.has_thumbnails {
            facts.traits.thumbnail = picture(&volume);
        }
        let known = reading.known.zip(digest);
        let known = known.and_then(|(known, digest)| known.vectors(digest, facts.part.as_deref()));
        // A volume that was embedded without the views that are wanted is embedded again.
        let wanted = VolumeViews {
            projections: reading.views.projections && has_flat_views(&volume),
            slices: reading.views.slices && has_slice_views(&volume),
        };
        let is_whole = |(_, views): &(_, Views)| {
            let known = VolumeViews::among(views.iter().map(|(name, _)| name.as_str()));
            (known.projections || !wanted.projections) && (known.slices || !wanted.slices)
        };
        let piece = if let Some((vector, views)) = known.filter(is_whole) {
            facts.traits.views = views;
            facts.traits.views.retain(|(name, _)| wanted.has(name));
            Piece::Known(facts, vector)
        } else {
            match prepare(model, &volume) {
                Ok(prepared) => Piece::Image(facts, prepared, views_of(&volume, wanted, model)),
                Err(refusal) => Piece::Refused(facts, refusal),
            }
        };
        drop(volume);
        if push(piece) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    if let Err(refusal) = outcome {
        let part = match &item.content {
            Content::Object(object) => object.part.clone(),
            Content::Row { part, .. } => part.clone(),
            Content::Memory(_) | Content::Unreadable { .. } => None,
        };
        let facts = Facts {
            part,
            ..Facts::default()
        };
        push(Piece::Refused(facts, refusal));
    }
}

/// Longest side of a picture, in pixels.
const PICTURE_PX: usize = 256;

/// Draws a picture of an image as PNG; empty if that fails.
fn picture(volume: &Volume) -> Vec<u8> {
    let drawn = panics::guard(|| thumbnail(volume, PICTURE_PX).png());
    drawn.ok().and_then(Result::ok).unwrap_or_default()
}

/// Prepares the views of a volume that are wanted; one that fails is left out.
fn views_of(volume: &Volume, wanted: VolumeViews, model: &Model) -> Vec<(String, Prepared)> {
    let prepared = |(name, picture): (String, Volume)| Some((name, prepare(model, &picture).ok()?));
    let mut views = Vec::new();
    if wanted.projections {
        let flat = panics::guard(|| flat_views(volume)).unwrap_or_default();
        let flat = flat.into_iter();
        views.extend(
            flat.map(|(name, picture)| (name.to_owned(), picture))
                .filter_map(prepared),
        );
    }
    if wanted.slices {
        let slices = || slice_views(volume).filter_map(prepared).collect::<Vec<_>>();
        views.extend(panics::guard(slices).unwrap_or_default());
    }
    views
}

fn prepare(model: &Model, volume: &Volume) -> Result<Prepared, Refusal> {
    match panics::guard(|| model.prepare(volume)) {
        Ok(prepared) => prepared.map_err(|error| Refusal::by_model(&error)),
        Err(message) => Err(Refusal::internal(message)),
    }
}

pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, Error>) -> Result<T, Refusal> {
    match panics::guard(read) {
        Ok(outcome) => outcome.map_err(|error| Refusal {
            code: error.code(),
            message: error.to_string(),
        }),
        Err(message) => Err(Refusal::internal(message)),
    }
}

fn facts(part: Option<String>, volume: &Volume) -> Facts {
    let dims = match volume.kind {
        Kind::Image => "2d",
        Kind::Volume => "3d",
        Kind::Video => "video",
    };
    Facts {
        part,
        modality: volume.modality.clone(),
        body_part: volume.body_part.clone(),
        dims: Some(dims.to_owned()),
        traits: Traits {
            identifiers: volume.identifiers.clone(),
            pixels: pixel_hash(volume),
            modality_guess: volume.modality_guess,
            content: None,
            thumbnail: Vec::new(),
            views: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use m3ret_imaging::{Code, Input};

    fn item(idx: usize) -> Item {
        Item {
            path: idx.to_string(),
            content: Content::Unreadable {
                code: Code::Io,
                message: String::new(),
            },
            key: 0,
            changed_ns: 0,
            again: 0,
        }
    }

    fn image(n_values: usize) -> Piece {
        let input = Input::new(vec![0.0; n_values], [1, 1, 1, n_values]).unwrap();
        Piece::Image(Facts::default(), Prepared::new(vec![input]), Vec::new())
    }

    /// Item `i` has `i % 4` images of 10 numbers.
    fn run(n_readers: usize, max_bytes: usize, n_wanted: usize) -> (Vec<usize>, usize) {
        let items: Vec<Item> = (0..40).map(item).collect();
        let items: Vec<&Item> = items.iter().collect();
        let queue = PieceQueue {
            items: &items,
            state: Mutex::default(),
            changed: Condvar::new(),
            max_bytes,
        };
        let (mut seen, mut most) = (Vec::new(), 0);
        let sink = |taken| {
            if let Some((idx, Piece::Image(..))) = taken {
                seen.push(idx);
            }
            most = most.max(queue.lock().n_bytes);
            anyhow::ensure!(seen.len() < n_wanted, "enough");
            Ok(())
        };
        let outcome = queue.run(n_readers, sink, |item, push| {
            let n_images = item.path.parse::<usize>().unwrap() % 4;
            for _ in 0..n_images {
                if !push(image(10)) {
                    return;
                }
            }
        });
        assert_eq!(outcome.is_err(), n_wanted < 60);
        (seen, most)
    }

    #[test]
    fn pieces_come_in_the_order_of_the_items_and_what_waits_is_bounded() {
        let expected: Vec<usize> = (0..40).flat_map(|idx| vec![idx; idx % 4]).collect();
        for n_readers in [0, 1, 2, 8] {
            for max_bytes in [1, 100, 1 << 20] {
                let (seen, most) = run(n_readers, max_bytes, usize::MAX);
                assert_eq!(seen, expected);
                assert!(most < max_bytes + 40 * (n_readers + 1), "{most} bytes");
            }
        }
    }

    #[test]
    fn readers_end_when_nobody_listens_any_more() {
        for (n_readers, max_bytes) in [(4, 1), (4, 1 << 20), (0, 1)] {
            assert_eq!(run(n_readers, max_bytes, 5).0.len(), 5);
        }
    }
}
