//! Video files, decoded by a child `ffmpeg`: MP4, MOV, AVI, Matroska, `WebM`, MPEG-PS and MPEG-TS.
//!
//! Which frames are read is `timeline::sample`'s business: of `T` seconds and `N` wanted frames,
//! frame `i` is the one on screen at `(i + 0.5) / N * T`. Times come from the container without
//! decoding; then one process decodes from the first frame on, never seeking, and gives only the
//! chosen frames. Codecs without references between frames (`INTRA_CODECS`) are sought in
//! where that is much cheaper. Every frame given is checked against the time it was asked for.
//!
//! # Units
//! 0..=255, or 0..=65535 where the source has more than 8 bits, which `ffmpeg` scales to 16. Grey
//! pixel formats give C = 1, all others RGB as `ffmpeg` converts it by default. Frames are turned
//! upright by the container's rotation. Spacing along D is in seconds.
//!
//! # Safety against hostile files
//! The demuxer is forced from the leading bytes, so no playlist is ever opened. Children run in a
//! jail (`jail.rs`): their input is a descriptor, they open no other file but libraries, have
//! bounded memory and no network, and die with us. They share one time limit
//! (`Limits::max_seconds`), are killed at its end or on any error, and are always reaped. Their
//! error text is never shown: it may quote the file. Bytes of a DICOM object are handed over in
//! memory, so nothing is left on a disk.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::read::{DEFAULT_VIDEO_FRAMES, ReadOptions};
use crate::reason::Code;
use crate::timeline::{Sampling, sample, sample_by_index};
use crate::volume::{Kind, Volume};

mod child;
mod container;
mod frames;
mod jail;
mod probe;

use child::{Deadline, Programs};
use container::Demuxer;
use frames::Frames;
use probe::Stream;

const FORMAT: &str = "video";

/// A bare stream without container, as DICOM encapsulates it.
#[allow(dead_code, reason = "named by the DICOM reader")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elementary {
    /// MPEG-1 or MPEG-2 video.
    Mpeg2,
    /// H.264 (MPEG-4 part 10), Annex B.
    H264,
    /// HEVC, Annex B.
    Hevc,
}

/// One file to decode, and what that may cost.
struct Job<'a> {
    programs: &'a Programs,
    input: File,
    demuxer: Demuxer,
    limits: &'a Limits,
    deadline: Deadline,
}

/// Returns true if `head` starts a container that is read here.
pub(crate) fn is_video(head: &[u8]) -> bool {
    Demuxer::sniff(head).is_some()
}

/// Reads frames at uniform times: `n_frames`, or `DEFAULT_VIDEO_FRAMES`, or all of a shorter film.
///
/// # Errors
/// `Io` naming the package if `ffmpeg` is not installed; `Malformed` (`no_pixels` for sound alone,
/// `truncated`); `LimitExceeded` also for the time that decoding takes.
pub(crate) fn read_file(path: &Path, options: &ReadOptions) -> Result<Volume> {
    read_file_with(&Programs::default(), path, options)
}

/// As `read_file`, for a file in memory.
///
/// # Errors
/// As `read_file`.
pub(crate) fn read_bytes(bytes: &[u8], options: &ReadOptions) -> Result<Volume> {
    let Some(demuxer) = Demuxer::sniff(bytes) else {
        return Err(unknown_container());
    };
    let n_wanted = Some(options.n_frames.unwrap_or(DEFAULT_VIDEO_FRAMES));
    read_handed_over(bytes, demuxer, n_wanted, &options.limits)
}

/// Reads the video that a DICOM object encapsulates: a container if `bytes` start one, otherwise a
/// bare stream of `codec`. `n_frames` of `None` reads every frame; `Some(n)` samples.
///
/// The result is `[C, frames, H, W]` with `Kind::Video`, `full_scale`, `lossy_compression` and
/// `frames_sampled` set. Spacing along D is what the container says, `None` for a bare stream: the
/// caller knows `FrameTime`.
///
/// # Errors
/// As `read_file`.
pub(crate) fn read_elementary(
    bytes: &[u8],
    codec: Elementary,
    options: &ReadOptions,
) -> Result<Volume> {
    let demuxer = Demuxer::sniff(bytes).unwrap_or(match codec {
        Elementary::Mpeg2 => Demuxer::RawMpeg,
        Elementary::H264 => Demuxer::RawH264,
        Elementary::Hevc => Demuxer::RawHevc,
    });
    read_handed_over(bytes, demuxer, options.n_frames, &options.limits)
}

fn read_file_with(programs: &Programs, path: &Path, options: &ReadOptions) -> Result<Volume> {
    let limits = &options.limits;
    let Some(demuxer) = Demuxer::of_file(path, limits)? else {
        return Err(unknown_container());
    };
    let input = File::open(path).map_err(|e| Error::io("opening the file", e))?;
    let deadline = Deadline::after(limits);
    let job = Job {
        programs,
        input,
        demuxer,
        limits,
        deadline,
    };
    read(&job, Some(options.n_frames.unwrap_or(DEFAULT_VIDEO_FRAMES)))
}

fn read_handed_over(
    bytes: &[u8],
    demuxer: Demuxer,
    n_wanted: Option<usize>,
    limits: &Limits,
) -> Result<Volume> {
    demuxer.check_length(&mut std::io::Cursor::new(bytes), bytes.len() as u64)?;
    let input = in_memory(bytes).map_err(|e| Error::io("handing the video to ffmpeg", e))?;
    let deadline = Deadline::after(limits);
    read(
        &Job {
            programs: &Programs::default(),
            input,
            demuxer,
            limits,
            deadline,
        },
        n_wanted,
    )
}

/// A file without a name, in memory: whatever ends this process, nothing of it is left.
#[cfg(target_os = "linux")]
fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let mut file = File::from(memfd_create("m3ret", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// A file that has no name any more once it is made.
#[cfg(not(target_os = "linux"))]
fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    Ok(file)
}

fn read(job: &Job<'_>, n_wanted: Option<usize>) -> Result<Volume> {
    let stream = probe::stream(job)?;
    let n_least = n_wanted
        .unwrap_or(1)
        .min(stream.starts_s.as_ref().map_or(1, Vec::len).max(1));
    let shape = [
        stream.n_channels(),
        n_least as u64,
        stream.height,
        stream.width,
    ];
    job.limits.frames(n_least as u64)?;
    job.limits.voxels(shape)?;
    let (frames, sampling) = choose_frames(job, &stream, n_wanted)?;
    let shape = [
        frames.n_channels,
        sampling.frames.len(),
        frames.height,
        frames.width,
    ];
    job.limits.voxels(shape.map(|side| side as u64))?;
    let mut volume = Volume::new(frames.to_values(), shape, Kind::Video)?;
    volume.full_scale = Some(frames.full_scale());
    volume.spacing = [sampling.spacing_s, None, None];
    volume.pixel_aspect = stream.pixel_aspect;
    volume.note(
        Code::SpacingUnknown,
        "video files state no physical pixel size",
    );
    if sampling.is_partial() {
        let detail = format!("{} of {} frames", sampling.frames.len(), sampling.n_total);
        volume.note(Code::FramesSampled, detail);
    }
    if !stream.is_lossless() {
        volume.note(
            Code::LossyCompression,
            format!("video codec {}", stream.codec),
        );
    }
    if frames.complaints {
        volume.note(
            Code::DamagedFrames,
            "the decoder met errors; it may have concealed some",
        );
    }
    Ok(volume)
}

/// Picks frames by the container's time stamps, or, where those turn out not to name the frames
/// that are decoded, by counting the decoded ones.
fn choose_frames(
    job: &Job<'_>,
    stream: &Stream,
    n_wanted: Option<usize>,
) -> Result<(Frames, Sampling)> {
    let Some(n_wanted) = n_wanted else {
        return every_frame(job, stream);
    };
    if let Some(starts_s) = &stream.starts_s {
        let sampling = sample(starts_s, stream.end_s, Some(n_wanted));
        let picked = frames::at_times(job, stream, starts_s, &sampling.frames)?;
        if let Some(frames) = picked {
            return Ok((frames, sampling));
        }
    } else if let Some((n_packets, step_s)) = stream.steady {
        let sampling = sample(&steady_starts(n_packets, step_s), None, Some(n_wanted));
        let frames = frames::numbered(job, stream, &sampling.frames)?;
        if frames.n_seen == n_packets {
            return Ok((frames, sampling));
        }
    }
    let shown = probe::shown_frames(job)?;
    let sampling = match (&shown.starts_s, stream.steady) {
        (Some(starts_s), _) => sample(starts_s, stream.end_s, Some(n_wanted)),
        (None, Some((_, step_s))) => {
            sample(&steady_starts(shown.n_frames, step_s), None, Some(n_wanted))
        }
        (None, None) => sample_by_index(shown.n_frames, Some(n_wanted)),
    };
    let frames = frames::numbered(job, stream, &sampling.frames)?;
    frames.check_number(sampling.frames.len())?;
    Ok((frames, sampling))
}

fn every_frame(job: &Job<'_>, stream: &Stream) -> Result<(Frames, Sampling)> {
    let frames = frames::all(job, stream)?;
    let n_frames = frames.n_frames();
    let sampling = match (&stream.starts_s, stream.steady) {
        (Some(starts_s), _) if starts_s.len() == n_frames => sample(starts_s, stream.end_s, None),
        (None, Some((n_packets, step_s))) if n_packets == n_frames => {
            sample(&steady_starts(n_packets, step_s), None, None)
        }
        _ => sample_by_index(n_frames, None),
    };
    Ok((frames, sampling))
}

fn steady_starts(n_frames: usize, step_s: f64) -> Vec<f64> {
    (0..n_frames).map(|index| index as f64 * step_s).collect()
}

fn unknown_container() -> Error {
    Error::refused(
        FORMAT,
        Code::UnknownFormat,
        "unknown leading bytes",
        "a video container",
    )
}

#[cfg(test)]
mod tests;
