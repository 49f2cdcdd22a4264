//! Containers, told by their leading bytes, and whether a file has all the bytes it declares.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::FORMAT;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::read::read_head;
use crate::reason::Code;

/// Which of `ffmpeg`'s demuxers reads the file; forcing it keeps playlists and the like out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demuxer {
    /// MP4, MOV, 3GP.
    Mov,
    Avi,
    /// Matroska and `WebM`.
    Matroska,
    /// MPEG program stream.
    MpegPs,
    /// MPEG transport stream.
    MpegTs,
    /// Bare MPEG-1 or MPEG-2 video.
    RawMpeg,
    /// Bare H.264.
    RawH264,
    /// Bare HEVC.
    RawHevc,
}

/// More boxes than this on the top level, and the file is not walked further.
const MAX_BOXES: usize = 65_536;

impl Demuxer {
    /// Tells the container by its leading bytes; bare streams have no mark that could be trusted.
    pub(super) fn sniff(head: &[u8]) -> Option<Self> {
        if is_mov(head) {
            Some(Self::Mov)
        } else if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI ") {
            Some(Self::Avi)
        } else if head.starts_with(b"\x1a\x45\xdf\xa3") {
            Some(Self::Matroska)
        } else if head.starts_with(b"\0\0\x01\xba") {
            Some(Self::MpegPs)
        } else if is_transport_stream(head) {
            Some(Self::MpegTs)
        } else {
            None
        }
    }

    /// Tells the container of a file and checks its length.
    ///
    /// # Errors
    /// `Io`; `Malformed` with `truncated` if the file is shorter than it says; `LimitExceeded`.
    pub(super) fn of_file(path: &Path, limits: &Limits) -> Result<Option<Self>> {
        let Some(demuxer) = Self::sniff(&read_head(path)?) else {
            return Ok(None);
        };
        let mut file = File::open(path).map_err(|e| Error::io("opening the file", e))?;
        let status = file
            .metadata()
            .map_err(|e| Error::io("asking for the file's size", e))?;
        limits.bytes(status.len())?;
        demuxer.check_length(&mut file, status.len())?;
        Ok(Some(demuxer))
    }

    /// Returns the name by which `ffmpeg` knows the demuxer.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mov => "mov",
            Self::Avi => "avi",
            Self::Matroska => "matroska",
            Self::MpegPs => "mpeg",
            Self::MpegTs => "mpegts",
            Self::RawMpeg => "mpegvideo",
            Self::RawH264 => "h264",
            Self::RawHevc => "hevc",
        }
    }

    /// Returns true if time stamps are the container's own and not made up by the demuxer.
    pub(super) fn has_times(self) -> bool {
        !matches!(self, Self::RawMpeg | Self::RawH264 | Self::RawHevc)
    }

    /// Checks that nothing on the top level reaches past the end of the file. MPEG streams declare
    /// no length: of a cut one, the frames that are left are read.
    ///
    /// # Errors
    /// `Io`; `Malformed` with `truncated`.
    pub(super) fn check_length(self, file: &mut (impl Read + Seek), n_bytes: u64) -> Result<()> {
        let declared = match self {
            Self::Mov => mov_length(file, n_bytes),
            Self::Avi => riff_length(file),
            Self::Matroska => matroska_length(file),
            _ => Ok(None),
        };
        let declared = declared.map_err(|e| Error::io("reading the file", e))?;
        if let Some(declared) = declared.filter(|&declared| declared > n_bytes) {
            let (found, wanted) = (
                format!("{n_bytes} bytes"),
                format!("{declared} as declared"),
            );
            return Err(Error::refused(FORMAT, Code::Truncated, found, wanted));
        }
        Ok(())
    }
}

fn is_mov(head: &[u8]) -> bool {
    let Some((size, rest)) = head.split_first_chunk::<4>() else {
        return false;
    };
    let size = u32::from_be_bytes(*size);
    match rest.first_chunk::<4>() {
        Some(b"ftyp") => {
            // Still images in the same box structure.
            let still: [&[u8]; 12] = [
                b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1",
                b"msf1", b"avif", b"avis",
            ];
            rest.get(4..8).is_some_and(|brand| !still.contains(&brand))
        }
        Some(b"moov" | b"mdat" | b"wide" | b"free" | b"skip" | b"pnot") => size >= 8 || size == 1,
        _ => false,
    }
}

/// Packets of 188 bytes start with 0x47; some recorders put 4 bytes before each.
fn is_transport_stream(head: &[u8]) -> bool {
    let repeats = |first: usize, step: usize| {
        (0..4).all(|packet| head.get(first + packet * step) == Some(&0x47))
    };
    repeats(0, 188) || repeats(4, 192)
}

/// Follows the boxes of the top level and returns where the last one ends.
fn mov_length(file: &mut (impl Read + Seek), n_bytes: u64) -> std::io::Result<Option<u64>> {
    let mut end = 0_u64;
    for _ in 0..MAX_BOXES {
        if n_bytes.saturating_sub(end) < 8 {
            break;
        }
        file.seek(SeekFrom::Start(end))?;
        let size = match be_uint(file, 4)? {
            // To the end of the file.
            0 => break,
            1 => {
                file.seek(SeekFrom::Current(4))?;
                if n_bytes.saturating_sub(end) < 16 {
                    16
                } else {
                    be_uint(file, 8)?
                }
            }
            size => size,
        };
        if size < 8 {
            // Not a box; ffprobe will say so.
            return Ok(None);
        }
        end = end.saturating_add(size);
    }
    Ok(Some(end))
}

fn riff_length(file: &mut (impl Read + Seek)) -> std::io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(4))?;
    let size = u32::try_from(be_uint(file, 4)?).unwrap_or(0).swap_bytes();
    // Recorders write one of these first and come back at the end.
    Ok((size != 0 && size != u32::MAX).then(|| u64::from(size) + 8))
}

/// Adds up the header element and the segment, unless the segment is of unknown size.
fn matroska_length(file: &mut (impl Read + Seek)) -> std::io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(4))?;
    let Some(header) = matroska_size(file)? else {
        return Ok(None);
    };
    let Ok(skip) = i64::try_from(header) else {
        return Ok(None);
    };
    file.seek(SeekFrom::Current(skip))?;
    let mut id = [0; 4];
    let n_read = file.read(&mut id)?;
    if n_read < 4 || id != [0x18, 0x53, 0x80, 0x67] {
        return Ok(None);
    }
    let size = matroska_size(file)?;
    size.map(|size| file.stream_position().map(|at| at.saturating_add(size)))
        .transpose()
}

/// Reads a length of 1 to 8 bytes; all ones mean "unknown".
fn matroska_size(file: &mut impl Read) -> std::io::Result<Option<u64>> {
    let first = be_uint(file, 1)?;
    let n_more = u8::try_from(first).map_or(8, u8::leading_zeros);
    if n_more > 7 {
        return Ok(None);
    }
    let rest = be_uint(file, n_more as usize)?;
    let mask = (1_u64 << (7 * (n_more + 1))) - 1;
    let size = ((first << (8 * n_more)) | rest) & mask;
    Ok((size != mask).then_some(size))
}

/// Reads a big-endian integer; bytes past the end of the file count as 0.
fn be_uint(file: &mut impl Read, n_bytes: usize) -> std::io::Result<u64> {
    let mut raw = Vec::with_capacity(n_bytes);
    file.take(n_bytes as u64).read_to_end(&mut raw)?;
    raw.resize(n_bytes, 0);
    Ok(raw
        .iter()
        .fold(0, |number, &byte| (number << 8) | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn containers_are_told_by_content() {
        let mut stream = vec![0_u8; 188 * 4];
        (0..4).for_each(|packet| stream[packet * 188] = 0x47);
        for (head, expected) in [
            (&b"\0\0\0\x20ftypisom\0\0\0\0"[..], Some(Demuxer::Mov)),
            (b"\0\0\0\x20ftypheic\0\0\0\0", None),
            (b"\0\0\0\x20ftypavif\0\0\0\0", None),
            (b"\0\0\0\x08wide\0\0\0\0mdat", Some(Demuxer::Mov)),
            (b"RIFF\x10\0\0\0AVI LIST", Some(Demuxer::Avi)),
            (b"RIFF\x10\0\0\0WAVEfmt ", None),
            (b"\x1a\x45\xdf\xa3\x01\0\0\0", Some(Demuxer::Matroska)),
            (b"\0\0\x01\xba\x44\0\x04\0", Some(Demuxer::MpegPs)),
            (&stream, Some(Demuxer::MpegTs)),
            (b"#EXTM3U\n#EXTINF:10,\nhttp://host/a.ts\n", None),
            (b"ffconcat version 1.0\nfile /etc/passwd\n", None),
            (b"GGGGGGGG", None),
            (b"", None),
        ] {
            assert_eq!(Demuxer::sniff(head), expected, "{:?}", head.get(..12));
        }
    }

    #[test]
    fn a_file_shorter_than_it_says_is_truncated() {
        let segment = b"\x1a\x45\xdf\xa3\x81\0\x18\x53\x80\x67\x84abcd";
        for (demuxer, whole) in [
            (Demuxer::Mov, &b"\0\0\0\x08free\0\0\0\x0cmdat1234"[..]),
            (Demuxer::Avi, b"RIFF\x04\0\0\0AVI "),
            (Demuxer::Matroska, segment),
        ] {
            let check = |n: usize| demuxer.check_length(&mut Cursor::new(&whole[..n]), n as u64);
            assert!(check(whole.len()).is_ok(), "{demuxer:?}");
            let refused = check(whole.len() - 1).unwrap_err();
            assert_eq!(refused.code(), Code::Truncated, "{demuxer:?}");
        }
    }

    #[test]
    fn unknown_sizes_are_no_truncation() {
        let live = b"\x1a\x45\xdf\xa3\x81\0\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xffabc";
        for (demuxer, bytes) in [
            (Demuxer::Mov, &b"\0\0\0\0mdat1234"[..]),
            (Demuxer::Avi, b"RIFF\0\0\0\0AVI "),
            (Demuxer::Matroska, live),
            (Demuxer::Matroska, b"\x1a\x45\xdf\xa3"),
        ] {
            let n = bytes.len() as u64;
            assert!(
                demuxer.check_length(&mut Cursor::new(bytes), n).is_ok(),
                "{demuxer:?}"
            );
        }
    }
}
