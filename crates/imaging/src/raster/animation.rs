//! Animated GIF, WebP and PNG as films: frames composed on the canvas as a viewer shows them.
//!
//! `image-webp` rounds when it lays even an opaque pixel over another, so lossless animated WebP
//! may be 1 grey level off; GIF and PNG are exact.

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, Frames, ImageDecoder, ImageError};

use super::picture::Interleaved;
use super::still::{Source, as_usize, is_lossy_webp, is_opaque};
use super::{Container, note_common};
use crate::error::Result;
use crate::read::{DEFAULT_VIDEO_FRAMES, ReadOptions};
use crate::reason::Code;
use crate::timeline::{Sampling, sample};
use crate::volume::{Kind, Volume};

/// A canvas and the frames that will be shown on it.
struct Film<'a> {
    frames: Frames<'a>,
    height: u32,
    width: u32,
    n_channels: usize,
}

/// Reads an animation of two frames or more; `None` if the file is a single image.
///
/// Frames are sampled as those of a video file (`timeline::sample`); spacing along D is in seconds.
/// Delays are taken as stored, although browsers stretch those below 20 ms.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`.
pub(super) fn read(source: Source<'_>, options: &ReadOptions) -> Result<Option<Volume>> {
    let Some(film) = open(source)? else {
        return Ok(None);
    };
    let n_channels = film.n_channels;
    let (delays_s, is_opaque) = read_delays(source, film)?;
    if delays_s.len() < 2 {
        return Ok(None);
    }
    let sampling = sample_frames(&delays_s, options.n_frames.unwrap_or(DEFAULT_VIDEO_FRAMES));
    let Some(film) = open(source)? else {
        return Ok(None);
    };
    let n_sampled = sampling.frames.len();
    let shape = [
        n_channels,
        n_sampled,
        as_usize(film.height)?,
        as_usize(film.width)?,
    ];
    let mut volume = Volume::new(read_frames(source, film, &sampling)?, shape, Kind::Video)?;
    volume.full_scale = Some(255.0);
    volume.spacing = [sampling.spacing_s, None, None];
    note_common(&mut volume);
    if sampling.is_partial() {
        let detail = format!("{n_sampled} of {} frames", sampling.n_total);
        volume.note(Code::FramesSampled, detail);
    }
    if source.container == Container::WebP && is_lossy_webp(source.bytes) {
        volume.note(Code::LossyCompression, "WebP (VP8)");
    }
    if !is_opaque {
        volume.note(
            Code::AlphaDropped,
            "alpha was used to compose frames, then dropped",
        );
    }
    Ok(Some(volume))
}

fn open(source: Source<'_>) -> Result<Option<Film<'_>>> {
    let explain = |error: ImageError| source.explain(&error);
    let allowed = source.decoder_limits();
    match source.container {
        Container::Png => {
            let decoder = PngDecoder::with_limits(source.cursor(), allowed).map_err(explain)?;
            if !decoder.is_apng().map_err(explain)? {
                return Ok(None);
            }
            start(source, decoder, |decoder| {
                Ok(decoder.apng().map_err(explain)?.into_frames())
            })
        }
        Container::WebP => {
            let decoder = WebPDecoder::new(source.cursor()).map_err(explain)?;
            if !decoder.has_animation() {
                return Ok(None);
            }
            start(source, decoder, |decoder| Ok(decoder.into_frames()))
        }
        Container::Gif => {
            let mut decoder = GifDecoder::new(source.cursor()).map_err(explain)?;
            decoder.set_limits(allowed).map_err(explain)?;
            start(source, decoder, |decoder| Ok(decoder.into_frames()))
        }
        Container::Jpeg | Container::Jpeg2000 | Container::Tiff | Container::Bmp => Ok(None),
    }
}

/// Charges the canvas, then starts the frames.
fn start<'a, D: ImageDecoder>(
    source: Source<'_>,
    decoder: D,
    into_frames: impl FnOnce(D) -> Result<Frames<'a>>,
) -> Result<Option<Film<'a>>> {
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    source.charge(u64::from(width) * u64::from(height) * 4)?;
    let n_channels = if color.has_color() { 3 } else { 1 };
    Ok(Some(Film {
        frames: into_frames(decoder)?,
        height,
        width,
        n_channels,
    }))
}

/// Walks over all frames; returns how long each is shown, and whether all of them are opaque.
fn read_delays(source: Source<'_>, film: Film<'_>) -> Result<(Vec<f64>, bool)> {
    let n_canvas_bytes = u64::from(film.width) * u64::from(film.height) * 4;
    let (mut delays_s, mut all_opaque) = (Vec::new(), true);
    for frame in film.frames {
        let frame = frame.map_err(|error| source.explain(&error))?;
        let n_frames = delays_s.len() as u64 + 1;
        source.limits.frames(n_frames)?;
        // A bound on the work: tiny frames on a huge canvas cost no bytes of the file.
        source
            .limits
            .bytes(n_canvas_bytes.saturating_mul(n_frames))?;
        let (numerator, denominator) = frame.delay().numer_denom_ms();
        all_opaque = all_opaque && is_opaque(frame.buffer());
        delays_s.push(f64::from(numerator) / f64::from(denominator.max(1)) / 1000.0);
    }
    Ok((delays_s, all_opaque))
}

fn sample_frames(delays_s: &[f64], n_wanted: usize) -> Sampling {
    let mut end_s = 0.0;
    let mut starts_s = Vec::with_capacity(delays_s.len());
    for delay_s in delays_s {
        starts_s.push(end_s);
        end_s += delay_s;
    }
    sample(&starts_s, Some(end_s), Some(n_wanted))
}

/// Reads the sampled frames into `[C, D, H, W]`.
fn read_frames(source: Source<'_>, film: Film<'_>, sampling: &Sampling) -> Result<Vec<f32>> {
    let n_sampled = sampling.frames.len();
    let (n_channels, height) = (film.n_channels as u64, film.height.into());
    let shape = [n_channels, n_sampled as u64, height, film.width.into()];
    let n_voxels = source.limits.voxels(shape)?;
    let layout = Interleaved {
        height: as_usize(film.height)?,
        width: as_usize(film.width)?,
        n_stored: 4,
        n_kept: film.n_channels,
        orientation: 1,
    };
    let n_pixels = layout.height * layout.width;
    let mut values = vec![0.0; n_voxels];
    let mut planes = Vec::new();
    let mut wanted = sampling.frames.iter().copied().enumerate().peekable();
    for (index, frame) in film.frames.enumerate() {
        let frame = frame.map_err(|error| source.explain(&error))?;
        if wanted.peek().is_none() {
            break;
        }
        planes.clear();
        while let Some((depth, _)) = wanted.next_if(|&(_, wanted)| wanted == index) {
            if planes.is_empty() {
                layout.extend_planes(&mut planes, frame.buffer(), f32::from)?;
            }
            for (channel, plane) in planes.chunks(n_pixels).enumerate() {
                let start = (channel * n_sampled + depth) * n_pixels;
                if let Some(slot) = values.get_mut(start..start + n_pixels) {
                    slot.copy_from_slice(plane);
                }
            }
        }
    }
    Ok(values)
}
