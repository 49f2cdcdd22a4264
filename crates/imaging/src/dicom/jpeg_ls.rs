//! JPEG-LS, lossless and near-lossless: 2 to 16 bits, every interleaving, restart markers.
//!
//! A decoder of our own: a frame of a stranger must not reach code that can write outside its
//! memory, and no kept Rust crate reads several components. It gives the bits that `CharLS` gives.
//!
//! # Source
//! ITU-T T.87 annexes A (coding), B (interleaving), C (markers).

use super::codestream::{Declared, Segment, jpeg_segment};
use crate::error::{Error, Result};
use crate::memory;
use crate::reason::Code;

mod bits;
mod coder;

use bits::Bits;
use coder::{Coder, Presets};

const FORMAT: &str = "jpeg-ls";

/// Decodes one frame to samples by pixel.
///
/// # Shapes
/// `declared.width * declared.height * declared.n_components` samples.
/// # Errors
/// `Malformed` for a broken or cut stream, `Unsupported` for mapping tables, point transforms and
/// colour transforms of one vendor.
pub(crate) fn decode(bytes: &[u8], declared: &Declared) -> Result<Vec<i32>> {
    let (width, height) = (declared.width as usize, declared.height as usize);
    let n_components = declared.n_components as usize;
    if width == 0 || height == 0 || n_components == 0 || !(2..=16).contains(&declared.precision) {
        let wanted = "a frame of at least one sample of 2 to 16 bits";
        return Err(Error::malformed(
            FORMAT,
            "sides or bits out of range",
            wanted,
        ));
    }
    let n_samples = width.saturating_mul(height).saturating_mul(n_components);
    let mut samples = memory::with_capacity(n_samples)?;
    samples.resize(n_samples, 0);
    let mut frame = Frame {
        width,
        n_components,
        ids: &declared.component_ids,
        precision: declared.precision,
        custom: None,
        lines_a_restart: 0,
        decoded: vec![false; n_components],
        samples,
    };
    frame.segments(bytes)?;
    Ok(frame.samples)
}

/// How components take turns within a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interleaving {
    None,
    Line,
    Sample,
}

/// The header of a scan.
struct Scan {
    /// Index of each component of the scan.
    components: Vec<usize>,
    near: i32,
    interleaving: Interleaving,
}

struct Frame<'a> {
    width: usize,
    n_components: usize,
    ids: &'a [u8],
    precision: u8,
    /// What an LSE segment says.
    custom: Option<[u16; 5]>,
    /// Lines between restart markers, 0 for none.
    lines_a_restart: usize,
    decoded: Vec<bool>,
    samples: Vec<i32>,
}

pub(super) fn broken(found: &'static str) -> Error {
    Error::malformed(FORMAT, found, "a JPEG-LS stream")
}

fn truncated() -> Error {
    let found = "an end before the last sample";
    Error::refused(FORMAT, Code::Truncated, found, "a whole stream")
}

fn unsupported(feature: &'static str) -> Error {
    Error::unsupported(FORMAT, feature, "decompress it with another tool")
}

impl Frame<'_> {
    fn segments(&mut self, bytes: &[u8]) -> Result<()> {
        let mut at = 2;
        while self.decoded.contains(&false) {
            let Segment { marker, body, end } = jpeg_segment(bytes, at).ok_or_else(truncated)?;
            at = end;
            match marker {
                0xD9 => return Err(truncated()),
                0xF8 => self.parameters(body)?,
                0xDD => self
                    .restart(body)
                    .ok_or_else(|| broken("a broken DRI segment"))?,
                // Hewlett-Packard's colour transforms.
                0xE8 if body.starts_with(b"mrfx") && body.get(4) != Some(&0) => {
                    return Err(unsupported("a colour transform of one vendor"));
                }
                0xDA => {
                    let scan = self.scan(body)?;
                    at += self.lines(&scan, bytes.get(end..).unwrap_or_default())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// LSE: presets; tables matter only where a scan names one.
    fn parameters(&mut self, body: &[u8]) -> Result<()> {
        match body.split_first() {
            Some((1, numbers)) => {
                let numbers = numbers.first_chunk::<10>();
                let numbers = numbers.ok_or_else(|| broken("a short LSE segment"))?;
                let mut custom = [0; 5];
                for (number, raw) in custom.iter_mut().zip(numbers.as_chunks::<2>().0) {
                    *number = u16::from_be_bytes(*raw);
                }
                self.custom = Some(custom);
                Ok(())
            }
            Some((2 | 3, _)) => Ok(()),
            _ => Err(unsupported("an LSE segment other than presets")),
        }
    }

    fn restart(&mut self, body: &[u8]) -> Option<()> {
        // The number has two, three or four bytes.
        let bytes = body.iter().take(4);
        let lines = bytes.fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        (body.len() >= 2).then_some(())?;
        self.lines_a_restart = lines as usize;
        Some(())
    }

    fn scan(&mut self, body: &[u8]) -> Result<Scan> {
        let short = || broken("a short scan header");
        let (&n_in_scan, rest) = body.split_first().ok_or_else(short)?;
        let n_in_scan = usize::from(n_in_scan);
        let (selectors, rest) = rest.split_at_checked(2 * n_in_scan).ok_or_else(short)?;
        let &[near, interleaving, transform] = rest.first_chunk::<3>().ok_or_else(short)?;
        let mut components = Vec::with_capacity(n_in_scan);
        for &[id, table] in selectors.as_chunks::<2>().0 {
            if table != 0 {
                return Err(unsupported("a mapping table"));
            }
            let mut places = self.ids.iter().enumerate();
            let found = places.find(|(index, known)| **known == id && !self.is_decoded(*index));
            let (index, _) = found.ok_or_else(|| broken("a scan of an unknown component"))?;
            if let Some(decoded) = self.decoded.get_mut(index) {
                *decoded = true;
            }
            components.push(index);
        }
        if transform & 15 != 0 {
            return Err(unsupported("a point transform"));
        }
        let interleaving = match (interleaving, n_in_scan) {
            (_, 1) => Interleaving::None,
            (1, 2..) => Interleaving::Line,
            (2, 2..) => Interleaving::Sample,
            _ => return Err(broken("an unknown interleaving")),
        };
        Ok(Scan {
            components,
            near: near.into(),
            interleaving,
        })
    }

    fn is_decoded(&self, index: usize) -> bool {
        self.decoded.get(index).copied().unwrap_or(true)
    }

    /// Decodes the lines of a scan and returns how many bytes they took.
    #[allow(
        clippy::indexing_slicing,
        reason = "lines have a place at either end, rows are whole, a scan has a component"
    )]
    fn lines(&mut self, scan: &Scan, bytes: &[u8]) -> Result<usize> {
        let presets = Presets::new(self.precision, scan.near, self.custom)
            .ok_or_else(|| broken("presets out of range"))?;
        let mut bits = Bits::new(bytes);
        let (width, n) = (self.width, scan.components.len());
        let mut coder = Coder::new(&presets);
        // The line above and the current one of each component, with a place at either end.
        let mut above = vec![vec![0; width + 2]; n];
        let mut current = above.clone();
        let mut run_indices = vec![0; n];
        let n_pixel = self.n_components;
        let height = self.samples.len() / (width * n_pixel);
        for line in 0..height {
            if self.lines_a_restart > 0 && line > 0 && line % self.lines_a_restart == 0 {
                bits.restart(line / self.lines_a_restart - 1)?;
                coder = Coder::new(&presets);
                above.iter_mut().for_each(|values| values.fill(0));
                current.iter_mut().for_each(|values| values.fill(0));
                run_indices.fill(0);
            }
            for (above, current) in above.iter_mut().zip(&mut current) {
                above[width + 1] = above[width];
                current[0] = above[1];
            }
            if scan.interleaving == Interleaving::Sample {
                coder.pixels(&mut bits, &above, &mut current, &mut run_indices[0])?;
            } else {
                for i in 0..n {
                    coder.line(&mut bits, &above[i], &mut current[i], &mut run_indices[i])?;
                }
            }
            let row = line * width * n_pixel;
            let row = &mut self.samples[row..row + width * n_pixel];
            for (values, &component) in current.iter().zip(&scan.components) {
                let places = row.iter_mut().skip(component).step_by(n_pixel);
                for (place, value) in places.zip(&values[1..=width]) {
                    *place = *value;
                }
            }
            std::mem::swap(&mut above, &mut current);
        }
        Ok(bits.n_used())
    }
}

#[cfg(test)]
mod tests;
