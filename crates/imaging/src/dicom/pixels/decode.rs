//! The wanted frames of a data set, native or compressed -> planes in their place.
//!
//! # Source
//! DICOM PS3.5 section 8 and annex A.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::Read as _;

use dicom_dictionary_std::tags;
use flate2::read::DeflateDecoder;
use rayon::prelude::*;

use super::agree::Fit;
use super::planes::{Layout, bits};
use super::{FORMAT, PixelModule, native_value};
use crate::dicom::codec::{self, Codec, Expected};
use crate::dicom::dataset::{DataSet, name_of};
use crate::dicom::{frames, rle};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::memory;
use crate::reason::{Code, Reason};
use crate::samples::{ByteOrder, Linear, narrow};

/// The frames to decode, and the rescale of each.
pub(crate) struct Wanted<'m> {
    /// Frame numbers from 0, in the order of the result.
    pub(crate) frames: Vec<usize>,
    /// One map for each of `frames`.
    pub(crate) maps: Vec<Linear>,
    /// The module that describes them.
    pub(crate) module: &'m PixelModule,
    /// Memory of an earlier result to use again; empty if there is none.
    pub(crate) scratch: Cell<Vec<f32>>,
}

/// The wanted frames.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pixels {
    /// `[C, frames, rows, columns]`, channel slowest.
    pub(crate) values: Vec<f32>,
    /// What is unusual about them.
    pub(crate) reasons: Vec<Reason>,
}

impl Pixels {
    fn new(values: Vec<f32>, n_stored: u64, n_declared: usize) -> Self {
        let mut pixels = Self {
            values,
            reasons: Vec::new(),
        };
        if n_stored > n_declared as u64 {
            let detail = format!("{n_stored} frames stored, {n_declared} declared and read");
            pixels.reasons.push(Reason::new(Code::ExtraFrames, detail));
        }
        pixels
    }
}

/// The planes of one frame.
struct Planes {
    values: Vec<f32>,
    is_sign_mismatch: bool,
}

impl Planes {
    fn native(values: Vec<f32>) -> Self {
        Self {
            values,
            is_sign_mismatch: false,
        }
    }
}

/// Decodes the wanted frames.
///
/// # Errors
/// As the codecs.
pub(crate) fn decode(
    set: &DataSet<'_>,
    codec: Codec,
    wanted: &Wanted<'_>,
    limits: &Limits,
) -> Result<Pixels> {
    let module = wanted.module;
    if codec == Codec::Native {
        return native(set, wanted, limits);
    }
    check_voxels(wanted, limits)?;
    let encoded = frames::encapsulated(set, module.n_frames, limits)?;
    let frame = |index: usize| encoded.frames.get(index).map_or(&[][..], |f| f.as_ref());
    // Some codecs make gigabytes of a few bytes: charged like any other decompression.
    let n_encoded: u64 = wanted.frames.iter().map(|&i| frame(i).len() as u64).sum();
    let n_decoded = module
        .frame_bits()
        .div_ceil(8)
        .checked_mul(wanted.frames.len() as u64);
    limits.decompressed(n_encoded, n_decoded.unwrap_or(u64::MAX))?;
    let (values, is_sign_mismatch) = in_order(wanted, |index, map| {
        encapsulated_planes(module, codec, frame(index), map, limits)
    })?;
    let mut pixels = Pixels::new(values, encoded.n_stored as u64, module.n_frames);
    if is_sign_mismatch {
        let detail = "the codestream and the header disagree on the sign; the header was believed";
        pixels.reasons.push(Reason::new(Code::SignMismatch, detail));
    }
    Ok(pixels)
}

fn check_voxels(wanted: &Wanted<'_>, limits: &Limits) -> Result<()> {
    let module = wanted.module;
    let sides = [
        module.n_channels(),
        wanted.frames.len(),
        module.n_rows,
        module.n_columns,
    ];
    limits.voxels(sides.map(|side| side as u64)).map(drop)
}

/// Decodes frames in parallel, a few at a time, and puts their planes where they belong. Also
/// returns whether any frame contradicts the header's sign.
fn in_order(
    wanted: &Wanted<'_>,
    planes_of: impl Fn(usize, Linear) -> Result<Planes> + Sync,
) -> Result<(Vec<f32>, bool)> {
    let module = wanted.module;
    let n_pixels = module.n_pixels();
    let n_channels = module.n_channels();
    let n_wanted = wanted.frames.len();
    let jobs: Vec<(usize, Linear)> = wanted
        .frames
        .iter()
        .copied()
        .zip(wanted.maps.iter().copied())
        .collect();
    // Reserved when the first frames have proved that there is something to hold.
    let mut values = Vec::new();
    let mut is_sign_mismatch = false;
    let mut depth = 0;
    for batch in jobs.chunks(16) {
        let decoded: Result<Vec<Planes>> = batch
            .par_iter()
            .map(|&(frame, map)| planes_of(frame, map))
            .collect();
        for planes in decoded? {
            is_sign_mismatch |= planes.is_sign_mismatch;
            if planes.values.len() != n_channels * n_pixels {
                let found = format!("{} values", planes.values.len());
                let wanted = format!("{}", n_channels * n_pixels);
                return Err(Error::refused(FORMAT, Code::Truncated, found, wanted));
            }
            if n_wanted == 1 {
                return Ok((planes.values, is_sign_mismatch));
            }
            if values.is_empty() {
                values = memory::zeroed(n_channels * n_wanted * n_pixels)?;
            }
            for (channel, plane) in planes.values.chunks_exact(n_pixels).enumerate() {
                let start = (channel * n_wanted + depth) * n_pixels;
                if let Some(place) = values.get_mut(start..start + n_pixels) {
                    place.copy_from_slice(plane);
                }
            }
            depth += 1;
        }
    }
    Ok((values, is_sign_mismatch))
}

fn encapsulated_planes(
    module: &PixelModule,
    codec: Codec,
    frame: &[u8],
    map: Linear,
    limits: &Limits,
) -> Result<Planes> {
    let layout = module.layout_of(ByteOrder::Little);
    let native = match codec {
        Codec::Rle => {
            let n_bytes = usize::from(module.bits_allocated / 8);
            let bytes = rle::decode(frame, module.n_pixels(), module.n_samples, n_bytes)?;
            let by_pixel = Layout {
                is_planar: false,
                ..layout
            };
            return module
                .native_planes(&bytes, by_pixel, map)
                .map(Planes::native);
        }
        Codec::EncapsulatedNative => Some(Cow::Borrowed(frame)),
        Codec::DeflatedFrames => Some(Cow::Owned(inflate(frame, limits)?)),
        _ => None,
    };
    if let Some(bytes) = native {
        let bytes = whole_frame(module, &bytes)?;
        return module
            .native_planes(&bytes, layout, map)
            .map(Planes::native);
    }
    let expected = Expected {
        height: u32::try_from(module.n_rows).unwrap_or(0),
        width: u32::try_from(module.n_columns).unwrap_or(0),
        n_samples: u32::try_from(module.n_samples).unwrap_or(0),
    };
    let mut decoded = codec::decode(codec, frame, expected, limits)?;
    let is_sign_mismatch = decoded.signed.is_some_and(|signed| signed != module.signed);
    module.signed_samples(&mut decoded, codec);
    let samples = decoded
        .samples
        .iter()
        .map(|&v| narrow(f64::from(v)))
        .collect();
    Ok(Planes {
        values: module.planes(samples, decoded.colour, map)?,
        is_sign_mismatch,
    })
}

/// Inflates a raw DEFLATE stream within the limits.
///
/// # Errors
/// `LimitExceeded` if it grows past them, `Malformed` if it is broken.
pub(crate) fn inflate(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    let most = limits.max_decompressed(bytes.len() as u64);
    let mut stream = DeflateDecoder::new(bytes).take(most.saturating_add(1));
    let mut out = Vec::new();
    loop {
        // Doubled, but never beyond what is allowed.
        let room = (out.len() as u64).max(1 << 16).min(stream.limit());
        out.reserve_exact(usize::try_from(room).unwrap_or(usize::MAX));
        let n_read = stream.by_ref().take(room).read_to_end(&mut out);
        let n_read = n_read.map_err(|e| {
            let code = match e.kind() {
                std::io::ErrorKind::UnexpectedEof => Code::Truncated,
                _ => Code::Malformed,
            };
            let found = format!("a DEFLATE stream that breaks off ({e})");
            Error::refused(FORMAT, code, found, "a whole one")
        })?;
        if n_read as u64 != room || room == 0 {
            break;
        }
    }
    limits.decompressed(bytes.len() as u64, out.len() as u64)?;
    Ok(out)
}

fn exact(bytes: &[u8], n_bytes: u64) -> Result<&[u8]> {
    let whole = usize::try_from(n_bytes).ok().and_then(|n| bytes.get(..n));
    whole.ok_or_else(|| {
        let found = format!("{} bytes of {}", bytes.len(), name_of(tags::PIXEL_DATA));
        Error::refused(FORMAT, Code::Truncated, found, format!("{n_bytes} bytes"))
    })
}

/// One native frame of its own: a last byte that an odd length lost is 0.
fn whole_frame<'f>(module: &PixelModule, frame: &'f [u8]) -> Result<Cow<'f, [u8]>> {
    let n_bytes = module.frame_bits().div_ceil(8);
    if n_bytes % 2 == 1 && frame.len() as u64 + 1 == n_bytes && frame.len() > 1 {
        return Ok(Cow::Owned([frame, &[0]].concat()));
    }
    exact(frame, n_bytes).map(Cow::Borrowed)
}

/// Native pixels, all frames in one value.
fn native(set: &DataSet<'_>, wanted: &Wanted<'_>, limits: &Limits) -> Result<Pixels> {
    let module = wanted.module;
    let (tag, stored) = native_value(set).unwrap_or((tags::PIXEL_DATA, &[]));
    let fit = module.native_fit(stored.len());
    let is_rounded = fit == Fit::OneShort && !set.is_cut(tag);
    let is_swapped = module.bits_allocated <= 8 && set.is_swapped(tags::PIXEL_DATA);
    // What is not there is refused before anything is reserved for it.
    let all_bits = module.frame_bits().checked_mul(module.n_frames as u64);
    let n_bytes = all_bits.map_or(u64::MAX, |bits| bits.div_ceil(8));
    exact(stored, n_bytes - u64::from(is_rounded))?;
    check_voxels(wanted, limits)?;
    let mut bytes = Cow::Borrowed(stored);
    if is_swapped {
        bytes = Cow::Owned(swap_pairs(stored));
    }
    if is_rounded {
        bytes.to_mut().push(0);
    }
    let values = native_values(&bytes, wanted)?;
    let n_stored = match fit {
        Fit::MoreFrames(n) => n,
        _ => module.n_frames as u64,
    };
    Ok(Pixels::new(values, n_stored, module.n_frames))
}

fn native_values(bytes: &[u8], wanted: &Wanted<'_>) -> Result<Vec<f32>> {
    let module = wanted.module;
    let n_pixels = module.n_pixels();
    let is_plain = module.n_channels() == 1 && module.modality_table.is_none();
    let frame_bytes = usize::try_from(module.frame_bits() / 8).unwrap_or(usize::MAX);
    let frame = |index: usize| {
        bytes
            .get(index * frame_bytes..(index + 1) * frame_bytes)
            .unwrap_or(&[])
    };
    if is_plain {
        // The common case, straight into place: CT, MR, projection X-ray.
        let mut values = wanted.scratch.take();
        let n_values = wanted.frames.len() * n_pixels;
        if values.capacity() < n_values {
            values = memory::with_capacity(n_values)?;
        }
        values.clear();
        for (&index, &map) in wanted.frames.iter().zip(&wanted.maps) {
            if module.bits_allocated == 1 {
                let frame = bits(bytes, index * n_pixels, n_pixels);
                values.extend(frame.map(|bit| map.apply(f64::from(bit))));
            } else if module.padding.is_some() {
                // Compared as stored, so mapped in a second pass.
                let start = values.len();
                module.unpack(frame(index), module.order, Linear::IDENTITY, &mut values)?;
                let stored = values.get_mut(start..).unwrap_or_default();
                module.give_meaning(stored, |v| map.apply(f64::from(v)));
            } else {
                module.unpack(frame(index), module.order, map, &mut values)?;
            }
        }
        return Ok(values);
    }
    if module.bits_allocated == 1 {
        let advice = "convert it to 8 bits";
        return Err(Error::unsupported(FORMAT, "colours of single bits", advice));
    }
    let layout = module.layout_of(module.order);
    let planes = |index, map| {
        module
            .native_planes(frame(index), layout, map)
            .map(Planes::native)
    };
    in_order(wanted, planes).map(|(values, _)| values)
}

/// Bytes stored in big endian words (PS3.5 section 8.1.1): the second of each pair comes first.
fn swap_pairs(bytes: &[u8]) -> Vec<u8> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .flat_map(|&[first, second]| [second, first])
        .collect()
}
