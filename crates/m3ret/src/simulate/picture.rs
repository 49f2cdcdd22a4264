//! A radiograph as a file: PNG of 8 or 16 bits, or DICOM.

use m3ret_imaging::projection::Projection;
use m3ret_imaging::{Pixels, encode_png};

use super::disturb::{Disturbance, Grey};
use super::{PictureFormat, RadiographOptions, dicom};

/// What is kept of a CT once it is projected.
#[derive(Debug)]
pub(super) struct Subject {
    /// Hash of all values.
    pub(super) key: u128,
    pub(super) body_part: Option<String>,
}

/// A radiograph and how it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Radiograph<'a> {
    pub(super) picture: &'a Projection,
    /// Integrals that are black and white.
    pub(super) window: [f64; 2],
    /// Degrees.
    pub(super) angle: u16,
    pub(super) body_part: &'a str,
    /// Hash of the CT.
    pub(super) key: u128,
    pub(super) disturbance: Option<Disturbance>,
}

impl Radiograph<'_> {
    /// Returns the file's content and how its name ends.
    pub(super) fn encode(
        &self,
        options: &RadiographOptions,
    ) -> anyhow::Result<(Vec<u8>, &'static str)> {
        match options.format {
            PictureFormat::Dicom => Ok((dicom::encode(self)?, "dcm")),
            PictureFormat::Png => Ok((grey_png(&self.grey(), options.is_16_bits)?, "png")),
        }
    }

    /// Returns the picture as it is shown.
    pub(super) fn grey(&self) -> Grey {
        let grey = Grey {
            shares: self.picture.shares(self.window),
            height: self.picture.height,
            width: self.picture.width,
        };
        match self.disturbance {
            Some(disturbance) => disturbance.apply(&grey),
            None => grey,
        }
    }
}

/// Writes a grey picture as PNG of 8 or 16 bits.
pub(super) fn grey_png(grey: &Grey, is_16_bits: bool) -> anyhow::Result<Vec<u8>> {
    let shares = grey.shares.iter().map(|&share| f64::from(share));
    let png = if is_16_bits {
        let pixels: Vec<u16> = shares.map(|share| level(share, u16::MAX)).collect();
        encode_png(Pixels::Grey16(&pixels), grey.height, grey.width)
    } else {
        let pixels: Vec<u8> = shares.map(|share| level(share, u8::MAX)).collect();
        encode_png(Pixels::Grey8(&pixels), grey.height, grey.width)
    };
    Ok(png?)
}

/// Returns the nearest of the levels from 0 to `white` for a share of 0..=1; beyond, the last.
pub(super) fn level<T: Copy + Into<f64> + TryFrom<u32>>(share: f64, white: T) -> T {
    let nearest = (share * white.into()).round().clamp(0.0, white.into());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded and clamped to 0..=white"
    )]
    let nearest = nearest as u32;
    T::try_from(nearest).unwrap_or(white)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_the_nearest_level() {
        let levels = [-1.0, 0.0, 0.5, 1.0, 2.0, f64::NAN].map(|share| level(share, u8::MAX));
        assert_eq!(levels, [0, 0, 128, 255, 255, 0]);
        assert_eq!(level(0.25, u16::MAX), 16384);
    }

    #[test]
    fn pngs_have_the_bits_that_were_asked_for() {
        let picture = Projection {
            values: vec![0.0, 1.0, 2.0, 4.0, 4.0, 4.0],
            height: 2,
            width: 3,
            pixel_mm: 1.0,
        };
        let radiograph = Radiograph {
            picture: &picture,
            window: [0.0, 4.0],
            angle: 0,
            body_part: "",
            key: 0,
            disturbance: None,
        };
        let read = |bytes: Vec<u8>| image::load_from_memory(&bytes).unwrap();
        let eight = read(grey_png(&radiograph.grey(), false).unwrap());
        assert_eq!(eight.as_luma8().unwrap().as_raw()[..4], [0, 64, 128, 255]);
        let sixteen = read(grey_png(&radiograph.grey(), true).unwrap());
        let wanted = [0, 16384, 32768, 65535];
        assert_eq!(sixteen.as_luma16().unwrap().as_raw()[..4], wanted);
    }
}
