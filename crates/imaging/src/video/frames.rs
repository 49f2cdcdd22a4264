//! Frames out of `ffmpeg`, as a sequence of PGM or PPM pictures: each tells its own size, so that
//! rotation and changes of size are seen and not guessed.

use std::ffi::{OsStr, OsString};

use super::child::{Exit, Running, Task};
use super::jail::Budget;
use super::probe::Stream;
use super::{FORMAT, Job};
use crate::error::{Error, Result};
use crate::reason::Code;

/// Most time windows on one command line; with more frames than that all are decoded and counted.
const MAX_WINDOWS: usize = 1024;

/// The input as a path: it is opened again, so that the programs can seek in it.
const STANDARD_INPUT: &str = if cfg!(target_os = "linux") {
    "file:/proc/self/fd/0"
} else {
    "file:/dev/fd/0"
};

/// Seeking pays if the pixels to be decoded in sequence pass this many for each frame wanted.
/// Measured with ffmpeg 5.1: a process that seeks and gives one 1080p frame takes 0.06 to 0.1 s of
/// CPU time; in that time 50 million pixels of MJPEG are decoded, or 25 million of FFV1.
const SEEK_PIXELS_PER_FRAME: u64 = 80_000_000;

/// Decoded frames of one size.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frames {
    /// Interleaved samples, frame after frame; big-endian where deep.
    raw: Vec<u8>,
    /// Numbers of frames in `raw`, one for each frame of the result.
    order: Vec<usize>,
    is_deep: bool,
    /// C.
    pub(super) n_channels: usize,
    /// H.
    pub(super) height: usize,
    /// W.
    pub(super) width: usize,
    /// Frames that the decoder gave, kept or not.
    pub(super) n_seen: usize,
    /// True if the decoder reported errors.
    pub(super) complaints: bool,
}

impl Frames {
    /// Returns how many different frames were decoded.
    pub(super) fn n_frames(&self) -> usize {
        self.raw.len() / self.frame_bytes().max(1)
    }

    /// Checks that every frame of the result was decoded.
    ///
    /// # Errors
    /// `Malformed`.
    pub(super) fn check_number(&self, n_wanted: usize) -> Result<()> {
        let n_frames = self.n_frames();
        let complete = self.order.iter().all(|&index| index < n_frames);
        if complete && n_wanted > 0 {
            Ok(())
        } else {
            Err(nothing_decoded())
        }
    }

    /// Returns the largest value of a sample.
    pub(super) fn full_scale(&self) -> f32 {
        if self.is_deep { 65_535.0 } else { 255.0 }
    }

    fn frame_bytes(&self) -> usize {
        self.height * self.width * self.n_channels * if self.is_deep { 2 } else { 1 }
    }

    /// Returns `[C, D, H, W]`; the caller has charged it.
    pub(super) fn to_values(&self) -> Vec<f32> {
        let n_values = self.order.len() * self.height * self.width * self.n_channels;
        let mut values = Vec::with_capacity(n_values);
        for channel in 0..self.n_channels {
            for &index in &self.order {
                let start = index * self.frame_bytes();
                let frame = self
                    .raw
                    .get(start..start + self.frame_bytes())
                    .unwrap_or_default();
                if self.is_deep {
                    let (samples, _) = frame.as_chunks::<2>();
                    let plane = samples.iter().skip(channel).step_by(self.n_channels);
                    values.extend(plane.map(|raw| f32::from(u16::from_be_bytes(*raw))));
                } else {
                    let plane = frame.iter().skip(channel).step_by(self.n_channels);
                    values.extend(plane.map(|&sample| f32::from(sample)));
                }
            }
        }
        values
    }
}

/// Decodes the frames `chosen` (ascending, repeats allowed) of those that appear at `starts_s`;
/// `None` if `ffmpeg` does not give exactly one frame for each of their times.
///
/// # Errors
/// `Malformed`, `Io`, `LimitExceeded`.
pub(super) fn at_times(
    job: &Job<'_>,
    stream: &Stream,
    starts_s: &[f64],
    chosen: &[usize],
) -> Result<Option<Frames>> {
    let mut distinct = chosen.to_vec();
    distinct.dedup();
    if distinct.len() > MAX_WINDOWS {
        return Ok(None);
    }
    let windows: Vec<Window> = distinct
        .iter()
        .map(|&i| Window::around(starts_s, i))
        .collect();
    let order = chosen
        .iter()
        .map(|&i| distinct.partition_point(|&other| other < i))
        .collect();
    let n_pixels = (starts_s.len() as u64).saturating_mul(stream.width * stream.height);
    let worth = (distinct.len() as u64).saturating_mul(SEEK_PIXELS_PER_FRAME);
    let sought = if stream.is_intra() && n_pixels > worth {
        seek(job, stream, &windows)?
    } else {
        None
    };
    let frames = match sought {
        Some(frames) => frames,
        None => in_sequence(job, stream, &windows, starts_s.len())?,
    };
    let complete = frames.n_frames() == windows.len();
    Ok(complete.then_some(Frames { order, ..frames }))
}

/// Decodes every frame.
///
/// # Errors
/// `Malformed`, `Io`, `LimitExceeded`.
pub(super) fn all(job: &Job<'_>, stream: &Stream) -> Result<Frames> {
    let frames = decode(job, stream, &Command::default(), |_| true)?;
    if frames.n_frames() == 0 {
        return Err(nothing_decoded());
    }
    Ok(Frames {
        order: (0..frames.n_frames()).collect(),
        ..frames
    })
}

/// Decodes every frame and keeps those whose numbers are `chosen` (ascending, repeats allowed);
/// `n_seen` and `check_number` tell whether there were so many.
///
/// # Errors
/// `Malformed`, `Io`, `LimitExceeded`.
pub(super) fn numbered(job: &Job<'_>, stream: &Stream, chosen: &[usize]) -> Result<Frames> {
    let mut distinct = chosen.to_vec();
    distinct.dedup();
    let is_chosen = |index: usize| distinct.binary_search(&index).is_ok();
    let frames = decode(job, stream, &Command::default(), is_chosen)?;
    let order = chosen
        .iter()
        .map(|&i| distinct.partition_point(|&other| other < i))
        .collect();
    Ok(Frames { order, ..frames })
}

/// The time from half-way to the previous frame until half-way to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Window {
    from_s: f64,
    to_s: f64,
}

impl Window {
    fn around(starts_s: &[f64], index: usize) -> Self {
        let at = |index: usize| starts_s.get(index).copied();
        let here = at(index).unwrap_or(0.0);
        let before = index.checked_sub(1).and_then(at);
        let after = at(index + 1);
        // At an end the one neighbour's distance serves for both; a lone frame takes all.
        let back = before
            .map(|time| here - time)
            .or(after.map(|time| time - here));
        let ahead = after.map(|time| time - here).or(back);
        Self {
            from_s: here - back.unwrap_or(1e6) / 2.0,
            to_s: here + ahead.unwrap_or(1e6) / 2.0,
        }
    }

    fn condition(&self) -> String {
        format!("between(t,{:.6},{:.6})", self.from_s, self.to_s)
    }
}

/// What distinguishes one run of `ffmpeg` from another.
#[derive(Default)]
struct Command {
    seek_s: Option<f64>,
    select: Option<String>,
    n_frames: Option<usize>,
}

/// Decodes from the start, once, and takes the frames of all windows.
fn in_sequence(
    job: &Job<'_>,
    stream: &Stream,
    windows: &[Window],
    n_total: usize,
) -> Result<Frames> {
    // Frames that are not counted by the container's packets must not be lost either.
    let whole = windows.len() == n_total;
    let select = windows
        .iter()
        .map(Window::condition)
        .collect::<Vec<_>>()
        .join("+");
    let command = Command {
        seek_s: None,
        select: (!whole).then_some(select),
        n_frames: Some(windows.len()),
    };
    decode(job, stream, &command, |_| true)
}

/// Decodes each window by a process of its own; `None` if one does not give its frame.
fn seek(job: &Job<'_>, stream: &Stream, windows: &[Window]) -> Result<Option<Frames>> {
    let mut joined: Option<Frames> = None;
    for window in windows {
        let command = Command {
            seek_s: Some(window.from_s),
            select: Some(window.condition()),
            n_frames: Some(1),
        };
        let frames = decode(job, stream, &command, |_| true)?;
        let Some(so_far) = &mut joined else {
            joined = Some(frames);
            continue;
        };
        let same_size = (so_far.height, so_far.width) == (frames.height, frames.width);
        if frames.n_frames() != 1 || !same_size {
            return Ok(None);
        }
        so_far.complaints |= frames.complaints;
        so_far.raw.extend(frames.raw);
    }
    Ok(joined)
}

/// Runs `ffmpeg` once and keeps the frames for whose number in its output `keep` is true.
fn decode(
    job: &Job<'_>,
    stream: &Stream,
    command: &Command,
    keep: impl Fn(usize) -> bool,
) -> Result<Frames> {
    let args = arguments(job, stream, command);
    let mut running = job.start(
        &job.programs.ffmpeg,
        &args,
        stream.width.saturating_mul(stream.height),
    )?;
    let mut frames = Frames {
        raw: Vec::new(),
        order: Vec::new(),
        is_deep: stream.is_deep,
        n_channels: if stream.is_grey { 1 } else { 3 },
        height: 0,
        width: 0,
        n_seen: 0,
        complaints: false,
    };
    let mut passed_over = Vec::new();
    let mut n_kept = 0;
    while let Some((height, width)) = read_header(&mut running, stream)? {
        if frames.n_seen == 0 {
            (frames.height, frames.width) = charge(job, &frames, 1, height, width)?;
        } else if (frames.height as u64, frames.width as u64) != (height, width) {
            let advice = "split the file where the size changes";
            return Err(Error::unsupported(
                FORMAT,
                "a change of size between frames",
                advice,
            ));
        }
        let kept = keep(frames.n_seen);
        frames.n_seen += 1;
        let out = if kept {
            n_kept += 1;
            charge(job, &frames, n_kept, height, width)?;
            &mut frames.raw
        } else {
            passed_over.clear();
            &mut passed_over
        };
        let n_bytes = frames.height * frames.width * frames.n_channels;
        let n_bytes = n_bytes * if frames.is_deep { 2 } else { 1 };
        if running.read_into(out, n_bytes)? < n_bytes {
            return Err(nothing_decoded());
        }
        if Some(frames.n_seen) == command.n_frames {
            break;
        }
    }
    let Exit {
        success,
        complaints,
    } = running.finish()?;
    frames.complaints = complaints;
    if !success && frames.n_seen == 0 {
        return Err(nothing_decoded());
    }
    Ok(frames)
}

/// Charges `n_frames` frames of one size and returns the sides.
fn charge(
    job: &Job<'_>,
    frames: &Frames,
    n_frames: u64,
    height: u64,
    width: u64,
) -> Result<(usize, usize)> {
    job.limits.frames(n_frames)?;
    job.limits
        .voxels([frames.n_channels as u64, n_frames, height, width])?;
    // Both are factors of a product that has just been found to fit.
    Ok((
        usize::try_from(height).unwrap_or(0),
        usize::try_from(width).unwrap_or(0),
    ))
}

/// Reads `P5` or `P6`, width, height and the largest value; `None` at the end of output.
fn read_header(running: &mut Running, stream: &Stream) -> Result<Option<(u64, u64)>> {
    let mut line = Vec::new();
    if !running.read_line(&mut line, 64)? {
        return Ok(None);
    }
    let wanted: (&[u8], &[u8]) = (
        if stream.is_grey { b"P5" } else { b"P6" },
        if stream.is_deep { b"65535" } else { b"255" },
    );
    let magic = line == wanted.0;
    running.read_line(&mut line, 64)?;
    let sides = std::str::from_utf8(&line)
        .ok()
        .and_then(|sides| sides.split_once(' '));
    let sides = sides.and_then(|(width, height)| Some((height.parse().ok()?, width.parse().ok()?)));
    running.read_line(&mut line, 64)?;
    match sides {
        Some((height, width)) if magic && line == wanted.1 && height > 0 && width > 0 => {
            Ok(Some((height, width)))
        }
        _ => Err(Error::malformed(
            "ffmpeg",
            "an unexpected picture header",
            "PGM or PPM pictures",
        )),
    }
}

fn arguments(job: &Job<'_>, stream: &Stream, command: &Command) -> Vec<OsString> {
    let mut args: Vec<OsString> = [
        "-v",
        "error",
        "-hide_banner",
        "-nostdin",
        "-nostats",
        "-copyts",
    ]
    .map(Into::into)
    .into();
    if let Some(seek_s) = command.seek_s {
        args.extend(["-seek_timestamp", "1", "-ss"].map(Into::into));
        args.push(format!("{seek_s:.6}").into());
    }
    args.extend(job.input_args());
    args.extend(["-map", "0:V:0", "-an", "-sn", "-dn"].map(Into::into));
    if let Some(select) = &command.select {
        args.extend(["-vf".into(), format!("select='{select}'").into()]);
    }
    if let Some(n_frames) = command.n_frames {
        args.extend(["-frames:v".into(), n_frames.to_string().into()]);
    }
    let (coder, pixel_format) = match (stream.is_grey, stream.is_deep) {
        (true, false) => ("pgm", "gray"),
        (true, true) => ("pgm", "gray16be"),
        (false, false) => ("ppm", "rgb24"),
        (false, true) => ("ppm", "rgb48be"),
    };
    // Every frame once, at whatever time: the default would repeat and drop to a constant rate.
    args.extend(
        [
            "-vsync",
            "passthrough",
            "-pix_fmt",
            pixel_format,
            "-c:v",
            coder,
        ]
        .map(Into::into),
    );
    args.extend(["-f", "image2pipe", "pipe:1"].map(Into::into));
    args
}

impl Job<'_> {
    /// Returns the arguments that name the input and fence it in.
    pub(super) fn input_args(&self) -> Vec<OsString> {
        let name = self.demuxer.name();
        let fence = [
            "-protocol_whitelist",
            "file,pipe",
            "-format_whitelist",
            name,
            "-f",
            name,
            "-i",
        ];
        let mut args: Vec<OsString> = fence.map(Into::into).into();
        args.push(STANDARD_INPUT.into());
        args
    }

    /// Starts one of the programs on the input; `n_pixels` is the size of a frame, 0 if unknown.
    ///
    /// # Errors
    /// As `Running::start`.
    pub(super) fn start(
        &self,
        program: &OsStr,
        args: &[OsString],
        n_pixels: u64,
    ) -> Result<Running> {
        let seconds = self.deadline.allowed_s();
        let task = Task {
            program,
            args,
            input: &self.input,
            budget: Budget::new(n_pixels, seconds, self.limits.max_bytes),
        };
        Running::start(&task, self.deadline)
    }
}

fn nothing_decoded() -> Error {
    let found = "frames that cannot be decoded";
    Error::refused(
        FORMAT,
        Code::Malformed,
        found,
        "all frames that the container lists",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_meet_half_way_between_frames() {
        let starts_s = [0.0, 1.0, 4.0];
        let window = |index| Window::around(&starts_s, index);
        assert_eq!(
            window(0),
            Window {
                from_s: -0.5,
                to_s: 0.5
            }
        );
        assert_eq!(
            window(1),
            Window {
                from_s: 0.5,
                to_s: 2.5
            }
        );
        assert_eq!(
            window(2),
            Window {
                from_s: 2.5,
                to_s: 5.5
            }
        );
        let lone = Window::around(&[3.0], 0);
        assert!(lone.from_s < -1e5 && lone.to_s > 1e5);
    }
}
