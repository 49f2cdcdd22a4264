//! Files that no reader reads, named by their leading bytes.
//!
//! An archive or an image of another format may be a loss, so it is refused wherever it lies. A
//! document, a program or a text is no image and never a loss. What a person should do about a file
//! depends on which of the two it is, so both are told by name.
//!
//! # Source
//! Each magic is taken from the format's own definition: APPNOTE.TXT (zip), POSIX pax (tar), RFC
//! 1952 (gzip), RFC 8878 (zstd), ISO 15444-1, 14496-12 and 23008-12 (boxes), RFC 1740
//! (`AppleDouble`), and so on.

use crate::error::Error;
use crate::inflate::{gunzip_prefix, is_gzip};
use crate::read::{Format, SNIFF_BYTES, sniff};
use crate::reason::Code;
use crate::zip;

/// What an unreadable file means for the archive it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It may hold images; the advice says how to reach them.
    Possible(&'static str),
    /// It stands for a file that was not fetched; the advice says how to fetch it.
    Absent(&'static str),
    /// It holds no image, unless its name promises one: then it is a broken or mislabelled file.
    ByName,
    /// It holds no image under any name.
    Never,
}

use Loss::{Absent, ByName, Never, Possible};

const UNPACK: &str = "unpack it and pass the folder";
const DECOMPRESS: &str = "decompress it";
const TO_PNG: &str = "convert it to PNG or TIFF";
const TO_NIFTI: &str = "convert it to NIfTI";
const TO_MP4: &str = "convert it to MP4";

/// Magic, the offset at which it lies, a name, and what it means.
type Magic = (usize, &'static [u8], &'static str, Loss);

/// The first entry that matches counts.
const MAGICS: &[Magic] = &[
    (0, b"\0\x05\x16\x07", "an AppleDouble file of macOS", Never),
    (0, b"\0\x05\x16\0", "an AppleSingle file of macOS", Never),
    (0, b"\0\0\0\x01Bud1", "a folder view of macOS", Never),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", Possible(UNPACK)),
    (0, b"Rar!\x1a\x07", "a rar archive", Possible(UNPACK)),
    (257, b"ustar", "a tar archive", Possible(UNPACK)),
    (0, b"MSCF\0\0\0\0", "a cabinet archive", Possible(UNPACK)),
    (0, b"!<arch>\n", "an ar archive", ByName),
    (0, b"\xfd7zXZ\0", "an xz stream", Possible(DECOMPRESS)),
    (4, b"1AY&SY", "a bzip2 stream", Possible(DECOMPRESS)),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "a zstd stream",
        Possible(DECOMPRESS),
    ),
    (
        0,
        b"\x04\x22\x4d\x18",
        "an LZ4 stream",
        Possible(DECOMPRESS),
    ),
    (
        0,
        b"\x1f\x9d",
        "a compress (.Z) stream",
        Possible(DECOMPRESS),
    ),
    (4, b"ftypheic", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftypheix", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftypheim", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftypheis", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftyphevc", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftyphevx", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftyphevm", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftyphevs", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftypmif1", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftypmsf1", "a HEIF picture", Possible(TO_PNG)),
    (4, b"ftypavif", "an AVIF picture", Possible(TO_PNG)),
    (4, b"ftypavis", "an AVIF picture", Possible(TO_PNG)),
    (
        0,
        b"\0\0\0\x0cJXL \r\n\x87\n",
        "a JPEG XL picture",
        Possible(TO_PNG),
    ),
    (0, b"\xff\x0a", "a JPEG XL codestream", Possible(TO_PNG)),
    (0, b"II\xbc\x01", "a JPEG XR picture", Possible(TO_PNG)),
    (0, b"8BPS\0", "a Photoshop document", Possible(TO_PNG)),
    (0, b"gimp xcf ", "a GIMP document", Possible(TO_PNG)),
    (
        0,
        b"\x76\x2f\x31\x01",
        "an OpenEXR picture",
        Possible(TO_PNG),
    ),
    (0, b"DDS |\0\0\0", "a DirectDraw picture", Possible(TO_PNG)),
    (0, b"qoif", "a QOI picture", Possible(TO_PNG)),
    (0, b"SIMPLE  =", "a FITS image", Possible(TO_NIFTI)),
    (0, b"mrtrix image", "an MRtrix image", Possible(TO_NIFTI)),
    (0, b"MATRIX7", "an ECAT 7 image", Possible(TO_NIFTI)),
    (0, b"!INTERFILE", "an Interfile header", Possible(TO_NIFTI)),
    (
        0,
        b"# === DATA DESCRIPTION FILE",
        "a Philips PAR header",
        Possible(TO_NIFTI),
    ),
    (0, b"# vtk DataFile", "a VTK file", Possible(TO_NIFTI)),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 container (MINC 2, MATLAB 7.3)",
        Possible(TO_NIFTI),
    ),
    (
        0,
        b"CDF\x01",
        "a netCDF container (MINC 1)",
        Possible(TO_NIFTI),
    ),
    (
        0,
        b"CDF\x02",
        "a netCDF container (MINC 1)",
        Possible(TO_NIFTI),
    ),
    (
        0,
        b"MATLAB 5.0 MAT-file",
        "a MATLAB file",
        Possible(TO_NIFTI),
    ),
    (
        0,
        b"ZISRAWFILE",
        "a Zeiss CZI image",
        Possible("convert it to TIFF"),
    ),
    (
        0,
        b"\xda\xce\xbe\x0a",
        "a Nikon ND2 image",
        Possible("convert it to TIFF"),
    ),
    (
        0,
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        "an ASF (WMV) video",
        Possible(TO_MP4),
    ),
    (0, b"FLV\x01", "a Flash video", Possible(TO_MP4)),
    (0, b".RMF\0", "a RealMedia video", Possible(TO_MP4)),
    (0, b"OggS", "an Ogg container", Possible(TO_MP4)),
    (
        0,
        b"\x06\x0e\x2b\x34\x02\x05\x01\x01",
        "an MXF video",
        Possible(TO_MP4),
    ),
    (
        0,
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer",
        Absent("run git lfs pull"),
    ),
    (
        0,
        b"/annex/objects/",
        "a git-annex pointer",
        Absent("run git annex get"),
    ),
    (0, b"%PDF-", "a PDF document", ByName),
    (0, b"%!PS", "a PostScript document", ByName),
    (0, b"{\\rtf", "an RTF document", ByName),
    (
        0,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an OLE document (older Office, Thumbs.db)",
        ByName,
    ),
    (0, b"SQLite format 3\0", "an SQLite database", ByName),
    (0, b"PAR1", "a Parquet table", ByName),
    (0, b"ARROW1\0\0", "an Arrow table", ByName),
    (0, b"\x7fELF", "a program", ByName),
    (0, b"MZ", "a program", ByName),
    (0, b"\xff\xff\xfe", "a FreeSurfer surface", ByName),
    (0, b"PK\x05\x06", "an empty zip archive", ByName),
    (0, b"ID3", "an MP3 sound", ByName),
    (0, b"fLaC", "a FLAC sound", ByName),
    (8, b"WAVEfmt ", "a WAV sound", ByName),
    (0, b"\0\0\x01\0\x01\0", "an icon", ByName),
];

/// Says what a file is that no reader reads, from its first `SNIFF_BYTES`.
///
/// The code tells what it means: `unsupported` for archives and images of other formats, `io` for
/// pointers to a file that was not fetched, `no_pixels` for the litter of file systems, and
/// `unknown_format` for everything else.
pub(crate) fn refusal(head: &[u8]) -> Error {
    if is_gzip(head) {
        return gzip_refusal(head);
    }
    let (name, loss) = name(head);
    refusal_of(name.to_owned(), loss)
}

fn refusal_of(name: String, loss: Loss) -> Error {
    const WANTED: &str = "DICOM, NIfTI, MGH, NRRD, MetaImage, npy, PNG, JPEG, JPEG 2000, TIFF, \
                          WebP, BMP, GIF, a video or a zip of these";
    match loss {
        Possible(advice) => Error::unsupported("file", name, advice),
        Absent(advice) => {
            let wanted = format!("the file that it stands for: {advice}");
            Error::refused("file", Code::Io, name, wanted)
        }
        ByName => Error::refused("file", Code::UnknownFormat, name, WANTED),
        Never => Error::refused("file", Code::NoPixels, name, "an image"),
    }
}

/// Names what a gzip stream holds, one level deep.
fn gzip_refusal(head: &[u8]) -> Error {
    let inner = gunzip_prefix(head, SNIFF_BYTES as u64);
    if is_gzip(&inner) {
        return refusal_of(
            "a gzip stream inside another".to_owned(),
            Possible(DECOMPRESS),
        );
    }
    // Every other format is read through gzip.
    if sniff(&inner) == Some(Format::Video) {
        return refusal_of(
            "a video compressed by gzip".to_owned(),
            Possible(DECOMPRESS),
        );
    }
    let (name, loss) = name(&inner);
    refusal_of(format!("a gzip stream of {name}"), loss)
}

/// Returns true for zip files that are one document, not an archive of files.
pub(crate) fn is_document(head: &[u8]) -> bool {
    document(head).is_some()
}

/// Tells documents that are zip files inside by the member that their makers put first.
fn document(head: &[u8]) -> Option<(&'static str, Loss)> {
    let name = zip::first_name(head)?;
    let begins = |words: &[&[u8]]| words.iter().any(|word| name.starts_with(word));
    if begins(&[
        b"[Content_Types].xml",
        b"_rels/",
        b"docProps/",
        b"word/",
        b"xl/",
        b"ppt/",
    ]) {
        Some(("an Office document", ByName))
    } else if name == b"mimetype" {
        Some(("an OpenDocument or EPUB document", ByName))
    } else if begins(&[b"META-INF/"]) {
        Some(("a Java archive", ByName))
    } else if name.ends_with(b"/data.pkl") || name.ends_with(b"/.format_version") {
        Some(("a PyTorch file", ByName))
    } else if name.ends_with(b".npy") && !name.contains(&b'/') {
        Some((
            "an archive of numpy arrays (.npz)",
            Possible("save each image as .npy"),
        ))
    } else {
        None
    }
}

/// Names plain bytes.
fn name(head: &[u8]) -> (&'static str, Loss) {
    if head.is_empty() {
        return ("an empty file", ByName);
    }
    let has = |&&(at, magic, ..): &&Magic| head.get(at..).is_some_and(|b| b.starts_with(magic));
    if let Some(&(_, _, name, loss)) = MAGICS.iter().find(has) {
        return (name, loss);
    }
    if zip::is_zip(head) {
        return document(head).unwrap_or(("a zip archive", Possible(UNPACK)));
    }
    if let Some(found) = portable_map(head) {
        return found;
    }
    if head.iter().all(|&byte| byte == 0) {
        return ("leading bytes that are all zero", ByName);
    }
    text(head).unwrap_or(("leading bytes of no known format", ByName))
}

/// `P1` to `P6` and white space: a portable bitmap, greymap or pixmap.
fn portable_map(head: &[u8]) -> Option<(&'static str, Loss)> {
    let is_map = matches!(head, [b'P', b'1'..=b'6', space, next, ..]
        if space.is_ascii_whitespace() && (next.is_ascii_digit() || *next == b'#'));
    is_map.then_some(("a portable map (PNM)", Possible(TO_PNG)))
}

/// Tells the texts apart that are most often taken for images.
fn text(head: &[u8]) -> Option<(&'static str, Loss)> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let is_cut = head.len() + 3 >= SNIFF_BYTES;
    let is_utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        // The last character may lie across the end of what was read.
        Err(error) => is_cut && error.error_len().is_none(),
    };
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    if !is_utf8 || head.iter().any(is_control) {
        return None;
    }
    let start = head.trim_ascii_start();
    let begins = |word: &[u8]| {
        let first = start.get(..word.len());
        first.is_some_and(|first| first.eq_ignore_ascii_case(word))
    };
    let holds = |word: &[u8]| head.windows(word.len()).any(|part| part == word);
    Some(if begins(b"<!doctype html") || begins(b"<html") {
        ("an HTML page", ByName)
    } else if holds(b"<VTKFile") {
        ("a VTK file", Possible(TO_NIFTI))
    } else if holds(b"<svg") {
        ("an SVG drawing", ByName)
    } else if begins(b"<?xml") {
        ("an XML text", ByName)
    } else if begins(b"{") || begins(b"[") {
        ("a JSON text", ByName)
    } else {
        ("a text", ByName)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn tar() -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..5].copy_from_slice(b"a.dcm");
        bytes[257..265].copy_from_slice(b"ustar\x0000");
        bytes
    }

    /// One row a kind of file: its first bytes, a word of its name, and its code.
    fn check(head: &[u8], word: &str, code: Code) {
        assert_eq!(sniff(head), None, "{word}");
        let error = refusal(head);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }

    #[test]
    fn every_magic_names_its_file() {
        for &(at, magic, name, loss) in MAGICS {
            let mut head = vec![1; at];
            head.extend(magic);
            head.extend([2; 600]);
            let code = match loss {
                Possible(_) => Code::Unsupported,
                Absent(_) => Code::Io,
                ByName => Code::UnknownFormat,
                Never => Code::NoPixels,
            };
            check(&head, name, code);
        }
    }

    #[test]
    fn archives_and_other_images_may_be_a_loss_and_litter_never_is() {
        check(&tar(), "a tar archive", Code::Unsupported);
        check(b"BZh91AY&SY\x00", "bzip2", Code::Unsupported);
        check(b"P5\n12 10\n255\n", "portable map", Code::Unsupported);
        check(b"", "an empty file", Code::UnknownFormat);
        check(&[0; 4096], "all zero", Code::UnknownFormat);
        check(
            b"\x07\x91\xfe\x00\x01",
            "no known format",
            Code::UnknownFormat,
        );
    }

    #[test]
    fn a_gzip_stream_is_named_by_what_it_holds() {
        check(
            &gzip(&tar()),
            "a gzip stream of a tar archive",
            Code::Unsupported,
        );
        check(
            &gzip(b"id,label\n"),
            "gzip stream of a text",
            Code::UnknownFormat,
        );
        check(&gzip(&gzip(b"x")), "inside another", Code::Unsupported);
        check(&gzip(&[0; 900]), "all zero", Code::UnknownFormat);
        let video = b"\0\0\0\x18ftypisom\0\0\x02\0isommp41";
        check(&gzip(video), "a video", Code::Unsupported);
    }

    #[test]
    fn texts_are_told_apart() {
        for (text, word) in [
            (&b"\xef\xbb\xbf\n <!DOCTYPE html><html>"[..], "an HTML page"),
            (b"<HTML>", "an HTML page"),
            (b"<?xml version='1.0'?><a/>", "an XML text"),
            (b"<?xml version='1.0'?><svg/>", "an SVG drawing"),
            (b"{\"a\": 1}", "a JSON text"),
            (b"read me\n", "a text"),
            ("r\u{e9}sum\u{e9}".as_bytes(), "a text"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "a Git LFS pointer",
            ),
        ] {
            let error = refusal(text).to_string();
            assert!(error.contains(&format!("found {word},")), "{error}");
        }
        // A character across the end of the head is still text; a stray byte is not.
        let mut long = vec![b'a'; SNIFF_BYTES - 1];
        long.push(0xc3);
        check(&long, "a text", Code::UnknownFormat);
        check(b"abc\xc3", "no known format", Code::UnknownFormat);
    }
}
