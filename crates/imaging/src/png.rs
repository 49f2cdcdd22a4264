//! Pictures as PNG and JPEG: the only encoders.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder as _};

use crate::error::{Error, Result};
use crate::thumbnail::Picture;

/// The pixels of a picture, row by row.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// One byte a pixel.
    Grey8(&'a [u8]),
    /// Two bytes a pixel.
    Grey16(&'a [u16]),
    /// Red, green and blue, a byte each.
    Rgb8(&'a [u8]),
}

/// Encodes pixels as JPEG of a quality of 1 to 100: for people to look at, never to measure.
///
/// # Shapes
/// `pixels` [height, width, channels] with 1 channel of grey or 3 of RGB.
///
/// # Errors
/// `Mismatch` if the pixels do not fill the picture; `LimitExceeded` if a side is above 65,535, which JPEG cannot hold.
pub fn encode_jpeg(pixels: &[u8], shape: [usize; 3], quality: u8) -> Result<Vec<u8>> {
    let [height, width, n_channels] = shape;
    let colour = match n_channels {
        1 => Some(ExtendedColorType::L8),
        3 => Some(ExtendedColorType::Rgb8),
        _ => None,
    };
    let n_wanted = height
        .checked_mul(width)
        .and_then(|n| n.checked_mul(n_channels));
    let is_filled = n_wanted == Some(pixels.len()) && !pixels.is_empty();
    let Some(colour) = colour.filter(|_| is_filled) else {
        return Err(Error::Mismatch {
            what: "picture",
            expected: format!("{height} x {width} pixels of {n_channels} numbers"),
            got: format!("{} numbers", pixels.len()),
        });
    };
    let sides = u16::try_from(width).ok().zip(u16::try_from(height).ok());
    let Some((width, height)) = sides else {
        return Err(Error::LimitExceeded {
            what: "side of a JPEG",
            allowed: u64::from(u16::MAX),
            asked: height.max(width) as u64,
        });
    };
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, quality.clamp(1, 100));
    let written = encoder.write_image(pixels, u32::from(width), u32::from(height), colour);
    written.map_err(|error| Error::io("encoding a JPEG", std::io::Error::other(error)))?;
    Ok(jpeg)
}

/// Encodes pixels as PNG.
///
/// # Shapes
/// `pixels` [height, width], with three numbers a pixel for `Rgb8`.
///
/// # Errors
/// `Mismatch` if the pixels do not fill the picture, or a side is 0 or above 2^32 - 1.
pub fn encode_png(pixels: Pixels<'_>, height: usize, width: usize) -> Result<Vec<u8>> {
    let (n_numbers, n_channels, colour) = match pixels {
        Pixels::Grey8(values) => (values.len(), 1, ExtendedColorType::L8),
        Pixels::Grey16(values) => (values.len(), 1, ExtendedColorType::L16),
        Pixels::Rgb8(values) => (values.len(), 3, ExtendedColorType::Rgb8),
    };
    let sides = u32::try_from(width).ok().zip(u32::try_from(height).ok());
    let is_filled = height
        .checked_mul(width)
        .and_then(|n| n.checked_mul(n_channels))
        == Some(n_numbers);
    let Some((width, height)) = sides.filter(|_| is_filled && n_numbers > 0) else {
        return Err(Error::Mismatch {
            what: "picture",
            expected: format!("{height} x {width} pixels of {n_channels} numbers"),
            got: format!("{n_numbers} numbers"),
        });
    };
    let wide: Vec<u8>;
    let bytes = match pixels {
        Pixels::Grey8(values) | Pixels::Rgb8(values) => values,
        Pixels::Grey16(values) => {
            wide = values
                .iter()
                .flat_map(|value| value.to_ne_bytes())
                .collect();
            &wide
        }
    };
    let mut png = Vec::new();
    let written = PngEncoder::new(&mut png).write_image(bytes, width, height, colour);
    written.map_err(|error| Error::io("encoding a PNG", std::io::Error::other(error)))?;
    Ok(png)
}

impl Picture {
    /// Encodes the picture as PNG, in grey where it has no colour: most pictures have none, and take a third of
    /// the bytes then.
    ///
    /// # Errors
    /// `Mismatch` if the pixels do not fill the picture.
    pub fn png(&self) -> Result<Vec<u8>> {
        let pixels = self.rgb.as_chunks::<3>().0.iter();
        let grey: Option<Vec<u8>> = pixels
            .map(|&[r, g, b]| (r == g && g == b).then_some(r))
            .collect();
        let pixels = match &grey {
            Some(grey) => Pixels::Grey8(grey),
            None => Pixels::Rgb8(&self.rgb),
        };
        encode_png(pixels, self.height, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_back_as_they_were() {
        let decoded = |pixels, height, width| {
            let png = encode_png(pixels, height, width).unwrap();
            image::load_from_memory(&png).unwrap()
        };
        let grey = decoded(Pixels::Grey8(&[1, 2, 3, 4, 5, 6]), 2, 3);
        assert_eq!(
            (grey.color(), grey.as_bytes()),
            (image::ColorType::L8, &[1, 2, 3, 4, 5, 6][..])
        );
        let wide = decoded(Pixels::Grey16(&[1, 60_000]), 1, 2);
        assert_eq!(wide.as_luma16().unwrap().as_raw(), &[1, 60_000]);
        let colour = decoded(Pixels::Rgb8(&[1, 2, 3]), 1, 1);
        assert_eq!(colour.as_bytes(), [1, 2, 3]);
        for (height, width) in [(0, 3), (1, 1), (usize::MAX, 2)] {
            let error = encode_png(Pixels::Grey8(&[1, 2, 3]), height, width).unwrap_err();
            assert!(error.to_string().contains("3 numbers"), "{error}");
        }
    }

    #[test]
    fn a_picture_without_colour_is_grey() {
        let picture = |rgb: Vec<u8>| Picture {
            width: 2,
            height: 1,
            rgb,
        };
        let colour = |picture: Picture| {
            let png = picture.png().unwrap();
            image::load_from_memory(&png).unwrap().color()
        };
        assert_eq!(
            colour(picture(vec![1, 1, 1, 9, 9, 9])),
            image::ColorType::L8
        );
        assert_eq!(
            colour(picture(vec![1, 1, 1, 9, 8, 9])),
            image::ColorType::Rgb8
        );
    }
}
