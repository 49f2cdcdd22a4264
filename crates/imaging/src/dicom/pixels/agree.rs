//! Compares the stored pixels with the Image Pixel module, before any is decoded: a label is
//! repaired and told if exactly one reading of the bytes contradicts it, and refused if several do.
//!
//! # Source
//! DICOM PS3.5 section 8 and annexes A and G, PS3.3 C.7.6.3.

use dicom_dictionary_std::tags;

use super::{FORMAT, Photometric, PixelModule, inflate, native_value};
use crate::dicom::codec::Codec;
use crate::dicom::dataset::{DataSet, first_fragment, name_of};
use crate::dicom::frames;
use crate::error::{Error, Result};
use crate::jpeg2000;
use crate::limits::Limits;
use crate::reason::Code;

/// How native pixels may lie in their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packing {
    /// Two pixels share their colour differences.
    is_halved: bool,
    bits_allocated: u16,
}

/// How a number of bytes relates to the frames that a header promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// As many as promised, or one for padding.
    Exact,
    /// An odd number rounded down: the last byte is missing.
    OneShort,
    /// So many whole frames, more than promised.
    MoreFrames(u64),
    /// More than promised, and no whole number of frames.
    Longer,
    /// Fewer than promised.
    Shorter,
}

fn fit(n_bytes: u64, frame_bits: u64, n_frames: usize) -> Fit {
    let frame_bits = frame_bits.max(1);
    let bytes_of = |n: u64| {
        n.checked_mul(frame_bits)
            .map_or(u64::MAX, |bits| bits.div_ceil(8))
    };
    let promised = bytes_of(n_frames as u64);
    if n_bytes < promised {
        let is_rounded = promised % 2 == 1 && n_bytes + 1 == promised && n_bytes > 0;
        return if is_rounded {
            Fit::OneShort
        } else {
            Fit::Shorter
        };
    }
    if n_bytes - promised <= 1 {
        return Fit::Exact;
    }
    let n_stored = n_bytes.saturating_mul(8) / frame_bits;
    if n_stored > n_frames as u64 && n_bytes - bytes_of(n_stored) <= 1 {
        Fit::MoreFrames(n_stored)
    } else {
        Fit::Longer
    }
}

impl PixelModule {
    /// Compares the module with the stored pixels, and corrects what they contradict.
    ///
    /// # Errors
    /// `Malformed` names the attributes if the bytes contradict them and more than one other
    /// reading, or none, fits.
    pub(crate) fn agree_with(
        &mut self,
        set: &DataSet<'_>,
        codec: Codec,
        limits: &Limits,
    ) -> Result<()> {
        match codec {
            Codec::Native => self.agree_with_native(set)?,
            Codec::Rle => self.agree_with_rle(set, limits)?,
            Codec::EncapsulatedNative | Codec::DeflatedFrames => {
                self.agree_with_frame(set, codec, limits)?;
            }
            Codec::Jpeg | Codec::JpegLs | Codec::Jpeg2000 | Codec::JpegXl | Codec::Video(_) => {
                self.agree_with_codestream(set, codec);
            }
        }
        self.check_bits()
    }

    /// Refuses bits that contradict each other.
    fn check_bits(&self) -> Result<()> {
        if self.holds_bits(self.bits_allocated) {
            return Ok(());
        }
        let found = format!(
            "BitsAllocated {}, BitsStored {}, HighBit {}",
            self.bits_allocated, self.bits_stored, self.high_bit
        );
        let wanted = "1, 8, 16, 32 or 64 bits allocated that hold the stored ones";
        Err(Error::malformed(FORMAT, found, wanted))
    }

    fn holds_bits(&self, bits_allocated: u16) -> bool {
        matches!(bits_allocated, 1 | 8 | 16 | 32 | 64)
            && (1..=bits_allocated).contains(&self.bits_stored)
            && (self.bits_stored - 1..bits_allocated).contains(&self.high_bit)
    }

    fn packing(&self) -> Packing {
        Packing {
            is_halved: self.photometric == Photometric::YbrFull422,
            bits_allocated: self.bits_allocated,
        }
    }

    fn fit(&self, n_bytes: usize, packing: Packing, n_frames: usize) -> Fit {
        let n_samples = if packing.is_halved { 2 } else { self.n_samples };
        let n_values = (self.n_pixels() * n_samples) as u64;
        let frame_bits = n_values * u64::from(packing.bits_allocated);
        fit(n_bytes as u64, frame_bits, n_frames)
    }

    /// How the native pixels fit the module.
    pub(super) fn native_fit(&self, n_bytes: usize) -> Fit {
        self.fit(n_bytes, self.packing(), self.n_frames)
    }

    fn agree_with_native(&mut self, set: &DataSet<'_>) -> Result<()> {
        let Some((tag, value)) = native_value(set) else {
            return Ok(());
        };
        if set.is_cut(tag) {
            if matches!(self.native_fit(value.len()), Fit::Shorter | Fit::OneShort) {
                return Ok(());
            }
            if self.packing().is_halved {
                // How many bytes a pixel takes is known from the whole length alone.
                let found = format!(
                    "{} bytes of {}, then the file's end",
                    value.len(),
                    name_of(tag)
                );
                let wanted = "its whole length";
                return Err(Error::refused(FORMAT, Code::Truncated, found, wanted));
            }
            set.repaired(tag, "a length beyond the file, which holds all pixels");
        }
        self.agree_with_bytes(set, value, self.n_frames)?;
        match self.native_fit(value.len()) {
            Fit::OneShort => set.repaired(tag, "its last byte is missing, and was read as 0"),
            Fit::Longer => set.repaired(
                tag,
                "more bytes than the header describes; they were left out",
            ),
            Fit::Exact | Fit::MoreFrames(_) | Fit::Shorter => {}
        }
        Ok(())
    }

    /// Each frame a fragment: the first one stands for all.
    fn agree_with_frame(&mut self, set: &DataSet<'_>, codec: Codec, limits: &Limits) -> Result<()> {
        let encoded = frames::encapsulated(set, self.n_frames, limits)?;
        let Some(frame) = encoded.frames.first() else {
            return Ok(());
        };
        if codec == Codec::EncapsulatedNative {
            return self.agree_with_bytes(set, frame, 1);
        }
        if self.packing().is_halved || !self.holds_bits(self.bits_allocated) {
            return self.agree_with_bytes(set, &inflate(frame, limits)?, 1);
        }
        Ok(())
    }

    /// Compares lengths: keeps the labels if they fit, else takes the only other packing that does.
    fn agree_with_bytes(&mut self, set: &DataSet<'_>, bytes: &[u8], n_frames: usize) -> Result<()> {
        let labelled = self.packing();
        let is_legal = self.holds_bits(labelled.bits_allocated);
        let own_fit = self.fit(bytes.len(), labelled, n_frames);
        if is_legal && matches!(own_fit, Fit::Exact | Fit::OneShort) {
            return self.check_pairs(labelled);
        }
        let others: Vec<Packing> = self
            .packings(own_fit, bytes)
            .into_iter()
            .filter(|packing| *packing != labelled)
            .collect();
        let fitting = |wanted: fn(Fit) -> bool| -> Vec<Packing> {
            let fits = |packing: &&Packing| wanted(self.fit(bytes.len(), **packing, n_frames));
            others.iter().filter(fits).copied().collect()
        };
        let exact = fitting(|fit| matches!(fit, Fit::Exact | Fit::OneShort));
        let more = fitting(|fit| matches!(fit, Fit::MoreFrames(_)));
        let is_twice = own_fit == Fit::MoreFrames(2 * n_frames as u64);
        let is_byte = is_legal && labelled.bits_allocated == 8;
        let may_be_words = is_byte && is_twice && looks_like_words(bytes);
        match (own_fit, exact.as_slice(), more.as_slice()) {
            _ if may_be_words => Err(self.contradicts(bytes.len(), n_frames)),
            (_, [only], _) => {
                self.take_packing(set, *only);
                Ok(())
            }
            (Fit::Longer, [], [only]) if labelled.is_halved => {
                self.take_packing(set, *only);
                Ok(())
            }
            // Bytes that are missing are told where pixels are read.
            (Fit::MoreFrames(_), [], []) | (Fit::Shorter, [], _) if is_legal => {
                self.check_pairs(labelled)
            }
            (Fit::MoreFrames(_) | Fit::Longer, [], _) if is_legal && !labelled.is_halved => Ok(()),
            _ => Err(self.contradicts(bytes.len(), n_frames)),
        }
    }

    /// The packings that the labels leave open, apart from those that the bytes rule out.
    fn packings(&self, own_fit: Fit, bytes: &[u8]) -> Vec<Packing> {
        let own = self.packing();
        let is_ybr = matches!(
            self.photometric,
            Photometric::YbrFull | Photometric::YbrFull422
        );
        let is_short = own_fit == Fit::Shorter;
        let may_hold = |bits: u16| {
            let is_legal = self.holds_bits(own.bits_allocated);
            let is_evident = match (own.bits_allocated, bits) {
                _ if !is_legal => true,
                (1, 8) => bytes.iter().all(|byte| *byte <= 1),
                (_, bits) => is_short && bits < own.bits_allocated,
            };
            bits == own.bits_allocated || is_evident && self.holds_bits(bits) && !self.is_float
        };
        let mut packings = Vec::new();
        for is_halved in [false, true] {
            if is_halved && !(is_ybr && self.n_columns.is_multiple_of(2)) {
                continue;
            }
            let bits = [1, 8, 16, 32].into_iter().filter(|bits| may_hold(*bits));
            packings.extend(bits.map(|bits_allocated| Packing {
                is_halved,
                bits_allocated,
            }));
        }
        packings
    }

    fn take_packing(&mut self, set: &DataSet<'_>, packing: Packing) {
        let labelled = self.packing();
        if packing.is_halved != labelled.is_halved {
            let (photometric, fault) = if packing.is_halved {
                let fault =
                    "says YBR_FULL, PixelData holds 2 samples a pixel; read as YBR_FULL_422";
                (Photometric::YbrFull422, fault)
            } else {
                let fault =
                    "says YBR_FULL_422, PixelData holds 3 samples a pixel; read as YBR_FULL";
                (Photometric::YbrFull, fault)
            };
            self.photometric = photometric;
            set.repaired(tags::PHOTOMETRIC_INTERPRETATION, fault);
        }
        if packing.bits_allocated != labelled.bits_allocated {
            self.take_bits(set, packing.bits_allocated);
        }
    }

    fn take_bits(&mut self, set: &DataSet<'_>, bits_allocated: u16) {
        let fault = format!(
            "says {}, PixelData holds {bits_allocated} bits a sample; read so",
            self.bits_allocated
        );
        self.bits_allocated = bits_allocated;
        set.repaired(tags::BITS_ALLOCATED, fault);
    }

    /// Two pixels of a row share their differences: an odd row has none to share.
    fn check_pairs(&self, packing: Packing) -> Result<()> {
        if !packing.is_halved || self.n_columns.is_multiple_of(2) {
            return Ok(());
        }
        let found = format!(
            "{} {} of YBR_FULL_422",
            name_of(tags::COLUMNS),
            self.n_columns
        );
        Err(Error::malformed(FORMAT, found, "an even number"))
    }

    fn contradicts(&self, n_bytes: usize, n_frames: usize) -> Error {
        let label = if self.packing().is_halved {
            ", PhotometricInterpretation YBR_FULL_422"
        } else {
            ""
        };
        let found = format!("{n_bytes} bytes of {}", name_of(tags::PIXEL_DATA));
        let wanted = format!(
            "what Rows {}, Columns {}, SamplesPerPixel {}, BitsAllocated {}, BitsStored {}, HighBit {}, \
             NumberOfFrames {n_frames}{label} describe",
            self.n_rows,
            self.n_columns,
            self.n_samples,
            self.bits_allocated,
            self.bits_stored,
            self.high_bit
        );
        Error::malformed(FORMAT, found, wanted)
    }

    /// RLE packs whole planes, and its header counts their bytes (PS3.5 section G.2).
    fn agree_with_rle(&mut self, set: &DataSet<'_>, limits: &Limits) -> Result<()> {
        if self.photometric == Photometric::YbrFull422 {
            self.photometric = Photometric::YbrFull;
            let fault = "says YBR_FULL_422, RLE holds 3 samples a pixel; read as YBR_FULL";
            set.repaired(tags::PHOTOMETRIC_INTERPRETATION, fault);
        }
        let encoded = frames::encapsulated(set, self.n_frames, limits)?;
        let first = encoded
            .frames
            .first()
            .and_then(|frame| frame.first_chunk::<4>());
        let n_segments = first.map_or(0, |raw| u32::from_le_bytes(*raw) as usize);
        let n_bytes = n_segments.checked_div(self.n_samples).unwrap_or(0);
        let is_whole = n_bytes * self.n_samples == n_segments;
        let bits = u16::try_from(n_bytes * 8).unwrap_or(0);
        if is_whole && bits != self.bits_allocated && matches!(bits, 8 | 16 | 32) {
            if !self.holds_bits(bits) {
                let found = format!("{n_segments} segments of RLE");
                let wanted = format!(
                    "{} of SamplesPerPixel {} and BitsAllocated {}",
                    self.n_samples * usize::from(self.bits_allocated / 8),
                    self.n_samples,
                    self.bits_allocated
                );
                return Err(Error::malformed(FORMAT, found, wanted));
            }
            self.take_bits(set, bits);
        }
        Ok(())
    }

    /// Codestreams hold whole samples, and some say what their colours are.
    fn agree_with_codestream(&mut self, set: &DataSet<'_>, codec: Codec) {
        let is_ybr = matches!(
            self.photometric,
            Photometric::YbrFull | Photometric::YbrFull422
        );
        let value = set.bytes(tags::PIXEL_DATA).unwrap_or(&[]);
        let is_jpeg_2000 = codec == Codec::Jpeg2000;
        if is_ybr && is_jpeg_2000 && jpeg2000::transforms_colours(first_fragment(value)) {
            self.photometric = Photometric::Rgb;
            let fault =
                "says YBR, the JPEG 2000 codestream transforms its own colours; read as RGB";
            set.repaired(tags::PHOTOMETRIC_INTERPRETATION, fault);
        } else if is_ybr {
            self.photometric = Photometric::YbrFull;
        }
    }
}

/// Returns true if one byte of each pair is small and the other is not, as in samples of 16 bits
/// that fill 12 or so; neighbours of 8 bits are alike.
fn looks_like_words(bytes: &[u8]) -> bool {
    let (pairs, _) = bytes.as_chunks::<2>();
    let most = pairs.iter().fold([0; 2], |[a, b], pair| {
        let [first, second] = *pair;
        [first.max(a), second.max(b)]
    });
    let [first, second] = most.map(u16::from);
    first.min(second) * 4 <= first.max(second) && first != second
}
