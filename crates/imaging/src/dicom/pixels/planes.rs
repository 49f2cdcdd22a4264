//! Samples of one frame -> f32 planes: layout, sign, palette, colour, modality transform.
//!
//! # Source
//! DICOM PS3.3 C.7.6.3 and C.11.1, PS3.5 section 8.

use super::{FORMAT, Photometric, PixelModule};
use crate::dicom::codec::{self, Codec, Colour, Decoded};
use crate::error::{Error, Result};
use crate::reason::Code;
use crate::samples::{ByteOrder, Linear, extend_f32, widen_i64, widen_u64};

/// How the samples of one native frame follow each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) order: ByteOrder,
    pub(super) is_planar: bool,
}

impl PixelModule {
    /// Stored values of native bytes, by sample, mapped.
    pub(super) fn unpack(
        &self,
        bytes: &[u8],
        order: ByteOrder,
        map: Linear,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let Some(scalar) = self.scalar() else {
            return Err(Error::malformed(
                FORMAT,
                "floating point of 8 or 16 bits",
                "32 or 64",
            ));
        };
        if self.is_float || self.bits_stored == self.bits_allocated {
            return extend_f32(out, bytes, (scalar, order), map);
        }
        let above = u32::from(self.bits_allocated - 1 - self.high_bit);
        let unused = u32::from(self.bits_allocated - self.bits_stored);
        macro_rules! masked {
            ($unsigned:ty, $signed:ty, $widen_unsigned:expr, $widen_signed:expr) => {{
                let (chunks, _) = bytes.as_chunks::<{ size_of::<$unsigned>() }>();
                let parse = |raw: &[u8; size_of::<$unsigned>()]| match order {
                    ByteOrder::Little => <$unsigned>::from_le_bytes(*raw),
                    ByteOrder::Big => <$unsigned>::from_be_bytes(*raw),
                };
                // Shifted to the top and back: clears overlays above, extends the sign.
                if self.signed {
                    let value = |raw| (parse(raw) << above).cast_signed() >> unused;
                    out.extend(
                        chunks
                            .iter()
                            .map(|raw| map.apply($widen_signed(value(raw)))),
                    );
                } else {
                    let value = |raw| (parse(raw) << above) >> unused;
                    out.extend(
                        chunks
                            .iter()
                            .map(|raw| map.apply($widen_unsigned(value(raw)))),
                    );
                }
            }};
        }
        match self.bits_allocated {
            8 => masked!(u8, i8, f64::from, f64::from),
            16 => masked!(u16, i16, f64::from, f64::from),
            32 => masked!(u32, i32, f64::from, f64::from),
            _ => masked!(u64, i64, widen_u64, widen_i64),
        }
        Ok(())
    }

    /// Maps stored values of grey pixels in place, and marks padding.
    pub(super) fn give_meaning(&self, values: &mut [f32], meaning: impl Fn(f32) -> f32) {
        match self.padding {
            Some(padding) => padding.mark(values, meaning),
            None => values.iter_mut().for_each(|v| *v = meaning(*v)),
        }
    }

    /// Reinterprets codec samples by the header's sign, in the codec's own width where the codec
    /// states one (JPEG 2000 and JPEG-LS), else in the stored width.
    pub(super) fn signed_samples(&self, decoded: &mut Decoded, codec: Codec) {
        let width = match codec {
            Codec::Jpeg => u32::from(self.bits_stored).min(decoded.precision.max(1)),
            _ => decoded.precision,
        };
        if decoded.signed == Some(self.signed) || !(1..=31).contains(&width) {
            return;
        }
        let shift = 32 - width;
        if self.signed {
            decoded
                .samples
                .iter_mut()
                .for_each(|v| *v = *v << shift >> shift);
        } else if decoded.signed == Some(true) {
            let mask = i32::MAX >> (31 - width);
            decoded.samples.iter_mut().for_each(|v| *v &= mask);
        }
    }

    /// Samples of one frame by pixel -> its channels, plane by plane.
    pub(super) fn planes(
        &self,
        samples: Vec<f32>,
        colour: Colour,
        map: Linear,
    ) -> Result<Vec<f32>> {
        if let Photometric::Palette(tables) = &self.photometric {
            let planes = tables
                .iter()
                .flat_map(|table| samples.iter().map(|&v| table.at(v)));
            return Ok(planes.collect());
        }
        if self.n_samples == 1 {
            let mut values = samples;
            match &self.modality_table {
                Some(table) => self.give_meaning(&mut values, |v| table.at(v)),
                None if map.is_identity() && self.padding.is_none() => {}
                None => self.give_meaning(&mut values, |v| map.apply(f64::from(v))),
            }
            return Ok(values);
        }
        let is_ybr = match colour {
            Colour::Ybr => true,
            Colour::Rgb => false,
            Colour::AsHeader => {
                matches!(
                    self.photometric,
                    Photometric::YbrFull | Photometric::YbrFull422
                )
            }
        };
        let (pixels, _) = samples.as_chunks::<3>();
        if pixels.len() != self.n_pixels() {
            let found = format!("{} of {} pixels", pixels.len(), self.n_pixels());
            return Err(Error::refused(
                FORMAT,
                Code::Truncated,
                found,
                "a whole frame",
            ));
        }
        let full = self.full_scale();
        let mut planes = vec![0.0; samples.len()];
        let (red, rest) = planes.split_at_mut(pixels.len());
        let (green, blue) = rest.split_at_mut(pixels.len());
        let places = red.iter_mut().zip(green).zip(blue);
        for (((r, g), b), &pixel) in places.zip(pixels) {
            [*r, *g, *b] = if is_ybr { rgb(pixel, full) } else { pixel };
        }
        Ok(planes)
    }

    /// Native bytes of one frame -> planes.
    pub(super) fn native_planes(
        &self,
        bytes: &[u8],
        layout: Layout,
        map: Linear,
    ) -> Result<Vec<f32>> {
        let n_samples = self.n_pixels() * self.n_samples;
        let mut samples = Vec::with_capacity(n_samples);
        if self.bits_allocated == 1 {
            samples.extend(bits(bytes, 0, n_samples).map(f32::from));
        } else {
            self.unpack(bytes, layout.order, Linear::IDENTITY, &mut samples)?;
        }
        if self.n_samples == 3 && self.photometric == Photometric::YbrFull422 {
            samples = spread_422(&samples);
        } else if self.n_samples == 3 && layout.is_planar {
            samples = codec::by_pixel(&samples, 3);
        }
        self.planes(samples, Colour::AsHeader, map)
    }

    pub(super) fn layout_of(&self, order: ByteOrder) -> Layout {
        Layout {
            order,
            is_planar: self.is_planar,
        }
    }
}

/// Two luminances, then the differences they share -> three samples a pixel.
fn spread_422(samples: &[f32]) -> Vec<f32> {
    let (pairs, _) = samples.as_chunks::<4>();
    pairs
        .iter()
        .flat_map(|&[y0, y1, cb, cr]| [y0, cb, cr, y1, cb, cr])
        .collect()
}

/// Full-range luminance and differences -> RGB, rounded to whole levels.
///
/// # Source
/// DICOM PS3.3 C.7.6.3.1.2, inverted.
fn rgb([y, cb, cr]: [f32; 3], full: f32) -> [f32; 3] {
    let half = ((full + 1.0) / 2.0).floor();
    let (cb, cr) = (cb - half, cr - half);
    let red = y + 1.402 * cr;
    let green = y - (0.114 * 1.772 / 0.587) * cb - (0.299 * 1.402 / 0.587) * cr;
    let blue = y + 1.772 * cb;
    // 2^23 leaves no room for a fraction, so that the sum is rounded; `round` is a call.
    const SHIFT: f32 = 8_388_608.0;
    [red, green, blue].map(|v| (v.clamp(0.0, full) + SHIFT) - SHIFT)
}

/// `n` bits from bit `start` on, least significant first: frames are not aligned to bytes.
pub(super) fn bits(bytes: &[u8], start: usize, n: usize) -> impl Iterator<Item = u8> {
    (start..start + n).map(|bit| bytes.get(bit / 8).map_or(0, |byte| byte >> (bit % 8) & 1))
}
