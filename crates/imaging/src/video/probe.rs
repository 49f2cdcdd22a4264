//! What `ffprobe` says of the first real video stream: codec, size, and when frames appear.

use std::ffi::OsString;

use super::{FORMAT, Job};
use crate::error::{Error, Result};
use crate::reason::Code;
use crate::timeline::uniform_step;
use crate::volume::PLAUSIBLE_ASPECT;

/// Most packets or frames that are listed; an hour at 1000 frames a second.
const MAX_LISTED: u64 = 4_000_000;

/// Codecs in which every frame stands alone, so that any may be sought. JPEG 2000, MJPEG in all
/// its forms and the editing codecs; not those that merely can be written that way.
const INTRA_CODECS: [&str; 18] = [
    "mjpeg", "mjpegb", "ffv1", "rawvideo", "prores", "dnxhd", "huffyuv", "ffvhuff", "utvideo",
    "dvvideo", "jpeg2000", "png", "v210", "v410", "r210", "cfhd", "magicyuv", "ljpeg",
];

/// Codecs that lose nothing by themselves.
const LOSSLESS_CODECS: [&str; 11] = [
    "ffv1", "rawvideo", "huffyuv", "ffvhuff", "utvideo", "png", "v210", "v410", "r210", "magicyuv",
    "ljpeg",
];

/// The stream to decode.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stream {
    /// `ffmpeg`'s name of the codec.
    pub(super) codec: String,
    /// True if the pixels have no colour.
    pub(super) is_grey: bool,
    /// True if a sample has more than 8 bits.
    pub(super) is_deep: bool,
    /// Columns before rotation.
    pub(super) width: u64,
    /// Rows before rotation.
    pub(super) height: u64,
    /// Height of a pixel by its width, once frames are turned upright; 1 where nothing is stated.
    pub(super) pixel_aspect: f64,
    /// When frames appear, ascending, if the container says it of every frame.
    pub(super) starts_s: Option<Vec<f64>>,
    /// When the last frame goes.
    pub(super) end_s: Option<f64>,
    /// Packets and seconds from one to the next, if decoding times keep a constant rate: all that
    /// AVI says of films with B-frames.
    pub(super) steady: Option<(usize, f64)>,
}

impl Stream {
    /// Returns C.
    pub(super) fn n_channels(&self) -> u64 {
        if self.is_grey { 1 } else { 3 }
    }

    /// Returns true if the codec loses nothing.
    pub(super) fn is_lossless(&self) -> bool {
        LOSSLESS_CODECS.contains(&self.codec.as_str())
    }

    /// Returns true if no frame needs another.
    pub(super) fn is_intra(&self) -> bool {
        INTRA_CODECS.contains(&self.codec.as_str())
    }
}

/// Frames as the decoder gives them.
pub(super) struct Shown {
    /// How many.
    pub(super) n_frames: usize,
    /// When they appear, ascending, if every one has a time.
    pub(super) starts_s: Option<Vec<f64>>,
}

/// Describes the stream from its headers and packets, without decoding.
///
/// # Errors
/// `Malformed` (`no_pixels` where there is no video stream), `Io`, `LimitExceeded`.
pub(super) fn stream(job: &Job<'_>) -> Result<Stream> {
    let entries = "stream=codec_name,pix_fmt,width,height,sample_aspect_ratio:\
                   stream_side_data=rotation:packet=pts_time,dts_time,duration_time,flags";
    let (mut listed, mut decoded) = (Listed::default(), Listed::default());
    let mut found = None;
    list(job, entries, |line| {
        if let Some(fields) = line.strip_prefix("packet|") {
            // Packets cut away by an edit list are decoded, but never shown.
            if !field(fields, "flags").is_some_and(|flags| flags.contains('D')) {
                listed.add(number(fields, "pts_time"), number(fields, "duration_time"))?;
                decoded.add(number(fields, "dts_time"), None)?;
            }
        } else if line.contains("codec_name=") && found.is_none() {
            found = Some(describe(line)?);
        }
        Ok(())
    })?;
    let Some(mut stream) = found else {
        let found = "no video stream";
        return Err(Error::refused(
            FORMAT,
            Code::NoPixels,
            found,
            "at least one",
        ));
    };
    if job.demuxer.has_times() {
        stream.end_s = listed.end_s;
        stream.starts_s = listed.into_starts();
        let n_packets = decoded.n_listed;
        let step_s = decoded.into_starts().and_then(|times| uniform_step(&times));
        stream.steady = step_s.map(|step_s| (n_packets, step_s));
    }
    Ok(stream)
}

/// Decodes everything once to learn which frames are really shown, and when.
///
/// # Errors
/// `Malformed`, `Io`, `LimitExceeded`.
pub(super) fn shown_frames(job: &Job<'_>) -> Result<Shown> {
    let mut listed = Listed::default();
    list(job, "frame=best_effort_timestamp_time", |line| {
        if let Some(fields) = line.strip_prefix("frame|") {
            listed.add(number(fields, "best_effort_timestamp_time"), None)?;
        }
        Ok(())
    })?;
    let n_frames = listed.n_listed;
    let mut starts_s = listed
        .into_starts()
        .filter(|starts_s| starts_s.len() == n_frames);
    if !job.demuxer.has_times() {
        starts_s = None;
    }
    Ok(Shown { n_frames, starts_s })
}

/// Times as they are listed.
#[derive(Default)]
struct Listed {
    starts_s: Vec<f64>,
    end_s: Option<f64>,
    n_listed: usize,
}

impl Listed {
    fn add(&mut self, start_s: Option<f64>, duration_s: Option<f64>) -> Result<()> {
        self.n_listed += 1;
        if self.n_listed as u64 > MAX_LISTED {
            return Err(Error::LimitExceeded {
                what: "frames of one video",
                allowed: MAX_LISTED,
                asked: self.n_listed as u64,
            });
        }
        if let Some(start_s) = start_s {
            self.starts_s.push(start_s);
            let end_s = start_s + duration_s.unwrap_or(0.0);
            self.end_s = Some(self.end_s.map_or(end_s, |latest: f64| latest.max(end_s)));
        }
        Ok(())
    }

    /// Returns ascending times, or `None` if one is missing or two are equal.
    fn into_starts(mut self) -> Option<Vec<f64>> {
        // Packets come in the order of decoding.
        self.starts_s.sort_by(f64::total_cmp);
        let distinct = self.starts_s.array_windows().all(|[a, b]| a < b);
        let complete = self.starts_s.len() == self.n_listed && self.n_listed > 0;
        (distinct && complete).then_some(self.starts_s)
    }
}

/// Runs `ffprobe` and hands over its lines, each `section|key=value|key=value`.
fn list(job: &Job<'_>, entries: &str, mut take: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut args: Vec<OsString> = ["-v", "error", "-hide_banner"].map(Into::into).into();
    args.extend(job.input_args());
    args.extend(
        [
            "-select_streams",
            "V:0",
            "-of",
            "compact",
            "-show_entries",
            entries,
        ]
        .map(Into::into),
    );
    let mut running = job.start(&job.programs.ffprobe, &args, 0)?;
    let mut line = Vec::new();
    while running.read_line(&mut line, 1024)? {
        take(&String::from_utf8_lossy(&line))?;
    }
    if running.finish()?.success {
        return Ok(());
    }
    let found = format!("a {} file that ffprobe cannot open", job.demuxer.name());
    Err(Error::malformed(FORMAT, found, "a readable container"))
}

fn describe(line: &str) -> Result<Stream> {
    let side = |name| {
        field(line, name)
            .and_then(|side| side.parse().ok())
            .unwrap_or(0)
    };
    let (width, height) = (side("width"), side("height"));
    let pixel_format = field(line, "pix_fmt").unwrap_or("unknown");
    if width == 0 || height == 0 || pixel_format == "unknown" {
        let found = "a video stream without size or pixel format";
        return Err(Error::refused(
            FORMAT,
            Code::NoPixels,
            found,
            "a decodable stream",
        ));
    }
    let plain = |codec: &&str| {
        codec
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let codec = field(line, "codec_name")
        .filter(plain)
        .unwrap_or("unknown")
        .to_owned();
    Ok(Stream {
        codec,
        is_grey: is_grey(pixel_format),
        is_deep: is_deep(pixel_format),
        width,
        height,
        pixel_aspect: pixel_aspect(line),
        starts_s: None,
        end_s: None,
        steady: None,
    })
}

/// Returns the height of a pixel by its width, as frames are shown: `ffmpeg` turns them by the
/// rotation that the container states.
fn pixel_aspect(line: &str) -> f64 {
    let ratio = field(line, "sample_aspect_ratio").and_then(|ratio| ratio.split_once(':'));
    let number = |text: &str| text.parse::<f64>().ok();
    let aspect = ratio.and_then(|(width, height)| Some(number(height)? / number(width)?));
    let Some(aspect) = aspect.filter(|aspect| PLAUSIBLE_ASPECT.contains(aspect)) else {
        return 1.0;
    };
    // Versions differ in what they write in front of the key.
    let fields = line.trim_end().split('|').rev();
    let turn = fields
        .filter_map(|field| field.split_once('='))
        .find(|(key, _)| *key == "rotation" || key.ends_with(":rotation"))
        .and_then(|(_, degrees)| number(degrees))
        .unwrap_or(0.0);
    let is_on_its_side = (45.0..135.0).contains(&turn.abs().rem_euclid(180.0));
    if is_on_its_side { 1.0 / aspect } else { aspect }
}

fn is_grey(pixel_format: &str) -> bool {
    ["gray", "ya8", "ya16", "mono"]
        .iter()
        .any(|start| pixel_format.starts_with(start))
}

/// Only formats whose samples pass a byte name a byte order, some packed small colours apart.
fn is_deep(pixel_format: &str) -> bool {
    let small = ["rgb444", "rgb555", "rgb565", "bgr444", "bgr555", "bgr565"];
    (pixel_format.ends_with("le") || pixel_format.ends_with("be"))
        && !small.iter().any(|start| pixel_format.starts_with(start))
}

fn field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    fields
        .trim_end()
        .split('|')
        .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

fn number(fields: &str, name: &str) -> Option<f64> {
    field(fields, name)?
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixel_formats_tell_colour_and_depth() {
        for (name, grey, deep) in [
            ("yuv420p", false, false),
            ("yuv420p10le", false, true),
            ("p010le", false, true),
            ("gray", true, false),
            ("gray12le", true, true),
            ("monob", true, false),
            ("rgb565le", false, false),
            ("rgb48be", false, true),
            ("gbrp", false, false),
        ] {
            assert_eq!((is_grey(name), is_deep(name)), (grey, deep), "{name}");
        }
    }

    #[test]
    fn the_shape_of_a_pixel_turns_with_the_frame() {
        for (fields, aspect) in [
            ("sample_aspect_ratio=4:3|pix_fmt=gray", 0.75),
            ("sample_aspect_ratio=4:3|side_data|rotation=-90", 4.0 / 3.0),
            (
                "sample_aspect_ratio=4:3|side_datum/display_matrix:rotation=270\n",
                4.0 / 3.0,
            ),
            ("sample_aspect_ratio=4:3|side_data|rotation=180", 0.75),
            ("sample_aspect_ratio=0:1", 1.0),
            ("sample_aspect_ratio=N/A|side_data|", 1.0),
            ("sample_aspect_ratio=1:100000", 1.0),
            ("pix_fmt=gray", 1.0),
        ] {
            let found = pixel_aspect(&format!("stream|{fields}"));
            assert!((found - aspect).abs() < 1e-12, "{fields}: {found}");
        }
    }

    #[test]
    fn packets_are_sorted_and_a_missing_time_spoils_them() {
        let mut listed = Listed::default();
        for start_s in [0.0, 0.12, 0.04, 0.08] {
            listed.add(Some(start_s), Some(0.04)).unwrap();
        }
        assert_eq!(listed.end_s, Some(0.16));
        assert_eq!(listed.into_starts().unwrap(), [0.0, 0.04, 0.08, 0.12]);
        let mut listed = Listed::default();
        listed.add(Some(0.0), None).unwrap();
        listed.add(None, None).unwrap();
        assert_eq!(listed.into_starts(), None);
    }
}
