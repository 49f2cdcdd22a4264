//! Sequential JPEG of 8 and 12 bits (baseline and extended, processes 1, 2 and 4). No Rust crate
//! decodes 12 bits, which nuclear medicine, mammography and old CT archives hold; for 8 bits this
//! is nearer to the definition than decoders that round between their steps.
//!
//! Huffman coding, one or more scans, restart markers, subsampled components.
//!
//! # Source
//! ITU-T T.81 annexes A, B, E, F.

mod huffman;
mod transform;
mod upsample;

use self::huffman::{Bits, Huffman};
use self::upsample::Plane;
use super::codestream::Declared;
use crate::error::{Error, Result};
use crate::reason::Code;

const FORMAT: &str = "jpeg";

#[rustfmt::skip]
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Decodes one frame to samples by pixel.
///
/// # Shapes
/// `declared.width * declared.height * declared.n_components` samples.
/// # Errors
/// `Malformed` if tables or scans are broken or the stream ends early.
pub(crate) fn decode(bytes: &[u8], declared: &Declared) -> Result<Vec<i32>> {
    let mut decoder = Decoder::new(declared);
    decoder.segments(bytes)?;
    decoder.finish()
}

struct Component {
    id: u8,
    h: usize,
    v: usize,
    quantisation: usize,
    /// Blocks along each side, whole MCUs (T.81's minimum coded units) included.
    blocks_wide: usize,
    blocks_high: usize,
    samples: Vec<f32>,
    predictor: i32,
    dc_table: usize,
    ac_table: usize,
    is_decoded: bool,
}

/// Where a block of 8 x 8 samples lies in its component, counted in blocks.
#[derive(Clone, Copy)]
struct BlockPlace {
    column: usize,
    row: usize,
}

struct Decoder<'a> {
    declared: &'a Declared,
    components: Vec<Component>,
    quantisation: [[f32; 64]; 4],
    dc_tables: [Option<Huffman>; 4],
    ac_tables: [Option<Huffman>; 4],
    restart_interval: usize,
}

fn broken(found: impl Into<String>) -> Error {
    Error::malformed(FORMAT, found, "a sequential Huffman stream")
}

impl<'a> Decoder<'a> {
    fn new(declared: &'a Declared) -> Self {
        Self {
            declared,
            components: Vec::new(),
            quantisation: [[1.0; 64]; 4],
            dc_tables: [const { None }; 4],
            ac_tables: [const { None }; 4],
            restart_interval: 0,
        }
    }

    fn segments(&mut self, bytes: &[u8]) -> Result<()> {
        let mut at = 2;
        while let Some(&[first, marker]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>())
        {
            if first != 0xFF || matches!(marker, 0 | 0x01 | 0xD0..=0xD8 | 0xFF) {
                at += 1;
                continue;
            }
            if marker == 0xD9 {
                break;
            }
            let length = bytes.get(at + 2..).and_then(|rest| rest.first_chunk::<2>());
            let length = length.map_or(0, |raw| usize::from(u16::from_be_bytes(*raw)));
            let body = bytes.get(at + 4..at + 2 + length.max(2));
            let body = body.ok_or_else(|| broken("a segment that ends outside the stream"))?;
            at += 2 + length.max(2);
            match marker {
                0xDB => self.quantisation_tables(body)?,
                0xC4 => self.huffman_tables(body)?,
                0xC0 | 0xC1 => self.frame(body)?,
                0xDD => {
                    let raw = body.first_chunk::<2>().copied().unwrap_or_default();
                    self.restart_interval = usize::from(u16::from_be_bytes(raw));
                }
                0xDA => at = self.scan(body, bytes, at)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn quantisation_tables(&mut self, mut body: &[u8]) -> Result<()> {
        while let Some((&head, rest)) = body.split_first() {
            let n_bytes = if head >> 4 == 0 { 64 } else { 128 };
            let table = self.quantisation.get_mut(usize::from(head & 15));
            let (Some(values), Some(table)) = (rest.get(..n_bytes), table) else {
                return Err(broken("a quantisation table cut short or numbered above 3"));
            };
            if n_bytes == 64 {
                table
                    .iter_mut()
                    .zip(values)
                    .for_each(|(q, &v)| *q = f32::from(v));
            } else {
                let (pairs, _) = values.as_chunks::<2>();
                for (q, raw) in table.iter_mut().zip(pairs) {
                    *q = f32::from(u16::from_be_bytes(*raw));
                }
            }
            body = rest.get(n_bytes..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut body: &[u8]) -> Result<()> {
        while let Some((&head, rest)) = body.split_first() {
            let counts = rest.get(..16).unwrap_or(&[]);
            let n_symbols: usize = counts.iter().map(|&c| usize::from(c)).sum();
            let symbols = rest.get(16..16 + n_symbols);
            let tables = if head >> 4 == 0 {
                &mut self.dc_tables
            } else {
                &mut self.ac_tables
            };
            let (Some(symbols), Some(table)) = (symbols, tables.get_mut(usize::from(head & 15)))
            else {
                return Err(broken("a Huffman table cut short or numbered above 3"));
            };
            *table = Some(Huffman::new(counts, symbols));
            body = rest.get(16 + n_symbols..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn frame(&mut self, body: &[u8]) -> Result<()> {
        let specs: Vec<&[u8; 3]> = body
            .get(6..)
            .unwrap_or(&[])
            .as_chunks::<3>()
            .0
            .iter()
            .collect();
        let legal = |spec: &&&[u8; 3]| {
            let [_, hv, q] = spec;
            matches!(hv >> 4, 1..=4) && matches!(hv & 15, 1..=4) && *q < 4
        };
        if specs.is_empty()
            || specs.iter().filter(legal).count() != specs.len()
            || !self.components.is_empty()
        {
            return Err(broken("a frame header with illegal sampling factors"));
        }
        let (h_max, v_max) = most_sampled(&specs);
        let (mcus_wide, mcus_high) = (
            (self.declared.width as usize).div_ceil(8 * h_max),
            (self.declared.height as usize).div_ceil(8 * v_max),
        );
        self.components = specs
            .iter()
            .map(|&&[id, hv, q]| {
                let (h, v) = (usize::from(hv >> 4), usize::from(hv & 15));
                let (blocks_wide, blocks_high) = (mcus_wide * h, mcus_high * v);
                Component {
                    id,
                    h,
                    v,
                    quantisation: usize::from(q),
                    blocks_wide,
                    blocks_high,
                    samples: vec![0.0; blocks_wide * blocks_high * 64],
                    predictor: 0,
                    dc_table: 0,
                    ac_table: 0,
                    is_decoded: false,
                }
            })
            .collect();
        Ok(())
    }

    /// Decodes one scan and returns where the next segment starts.
    fn scan(&mut self, body: &[u8], bytes: &[u8], at: usize) -> Result<usize> {
        let n_in_scan = body.first().copied().map_or(0, usize::from);
        let specs = body.get(1..).unwrap_or(&[]).as_chunks::<2>().0;
        let mut chosen = Vec::new();
        for &[id, tables] in specs.iter().take(n_in_scan) {
            let index = self
                .components
                .iter()
                .position(|component| component.id == id);
            let index = index.ok_or_else(|| broken("a scan of an undeclared component"))?;
            if let Some(component) = self.components.get_mut(index) {
                component.dc_table = usize::from(tables >> 4);
                component.ac_table = usize::from(tables & 15);
                component.predictor = 0;
                component.is_decoded = true;
            }
            chosen.push(index);
        }
        let mut bits = Bits::new(bytes, at);
        self.scan_mcus(&chosen, &mut bits)?;
        Ok(bits.position)
    }

    fn scan_mcus(&mut self, chosen: &[usize], bits: &mut Bits<'_>) -> Result<()> {
        let (mcus_wide, mcus_high) = self.scan_grid(chosen);
        for mcu in 0..mcus_wide * mcus_high {
            if self.restart_interval > 0 && mcu > 0 && mcu % self.restart_interval == 0 {
                bits.restart();
                self.components
                    .iter_mut()
                    .for_each(|component| component.predictor = 0);
            }
            for &index in chosen {
                let Some(component) = self.components.get(index) else {
                    continue;
                };
                let (h, v) = if chosen.len() == 1 {
                    (1, 1)
                } else {
                    (component.h, component.v)
                };
                for (y, x) in (0..v).flat_map(|y| (0..h).map(move |x| (y, x))) {
                    let place = BlockPlace {
                        column: mcu % mcus_wide * h + x,
                        row: mcu / mcus_wide * v + y,
                    };
                    self.block(index, place, bits)?;
                }
            }
            if bits.is_beyond_end() {
                let found = format!(
                    "a scan that ends after {mcu} of {} MCUs",
                    mcus_wide * mcus_high
                );
                return Err(Error::refused(
                    FORMAT,
                    Code::Truncated,
                    found,
                    "all of them",
                ));
            }
        }
        Ok(())
    }

    /// A scan of one component holds only the blocks that hold pixels (T.81 A.2.2).
    fn scan_grid(&self, chosen: &[usize]) -> (usize, usize) {
        let (h_max, v_max) = self.most_sampled();
        let (width, height) = (self.declared.width as usize, self.declared.height as usize);
        match chosen {
            [only] => {
                let (h, v) = self.components.get(*only).map_or((1, 1), |c| (c.h, c.v));
                (
                    (width * h).div_ceil(8 * h_max),
                    (height * v).div_ceil(8 * v_max),
                )
            }
            _ => (width.div_ceil(8 * h_max), height.div_ceil(8 * v_max)),
        }
    }

    fn most_sampled(&self) -> (usize, usize) {
        let h = self.components.iter().map(|c| c.h).max().unwrap_or(1);
        let v = self.components.iter().map(|c| c.v).max().unwrap_or(1);
        (h, v)
    }

    /// Decodes one block and puts its samples in their place.
    fn block(&mut self, index: usize, place: BlockPlace, bits: &mut Bits<'_>) -> Result<()> {
        let Some(component) = self.components.get_mut(index) else {
            return Ok(());
        };
        let (Some(Some(dc)), Some(Some(ac)), Some(quantisation)) = (
            self.dc_tables.get(component.dc_table),
            self.ac_tables.get(component.ac_table),
            self.quantisation.get(component.quantisation),
        ) else {
            return Err(broken("a scan whose Huffman table is missing"));
        };
        let n_bits = u32::from(bits.symbol(dc)?);
        let difference = bits.signed(n_bits)?;
        component.predictor = component.predictor.wrapping_add(difference);
        let [q0, ..] = quantisation;
        let mean = level(component.predictor) * q0;
        let mut coefficients = [[0.0_f32; 8]; 8];
        let half = level(1 << (self.declared.precision - 1));
        let clamp = |sample: f32| sample.clamp(-half, half - 1.0);
        let place = BlockPlace {
            column: place.column.min(component.blocks_wide - 1),
            row: place.row.min(component.blocks_high - 1),
        };
        if alternating(bits, ac, quantisation, &mut coefficients)? {
            let [[first, ..], ..] = &mut coefficients;
            *first = mean;
            let samples = transform::inverse(&coefficients);
            component.put(place, &samples.map(|row| row.map(clamp)));
        } else {
            component.put(place, &[[clamp(mean / 8.0); 8]; 8]);
        }
        Ok(())
    }

    /// Returns the samples of whole pixels, rounded once.
    fn finish(self) -> Result<Vec<i32>> {
        let (h_most, v_most) = self.most_sampled();
        if self.components.is_empty() || !self.components.iter().all(|c| c.is_decoded) {
            return Err(Error::refused(
                FORMAT,
                Code::Truncated,
                "a component without a scan",
                "one each",
            ));
        }
        let sides = [self.declared.height as usize, self.declared.width as usize];
        let [height, width] = sides;
        let n_components = self.components.len();
        let half = level(1 << (self.declared.precision - 1));
        let mut pixels = vec![0; height * width * n_components];
        let mut row = Vec::new();
        for (index, component) in self.components.iter().enumerate() {
            let plane = Plane {
                samples: &component.samples,
                stride: component.blocks_wide * 8,
                factors: [component.v, component.h],
                most: [v_most, h_most],
            };
            for (y, out) in pixels.chunks_exact_mut(width * n_components).enumerate() {
                let row = plane.row(y, sides, &mut row);
                if n_components == 1 {
                    out.iter_mut()
                        .zip(row)
                        .for_each(|(p, &v)| *p = to_sample(v, half));
                    continue;
                }
                let places = out.iter_mut().skip(index).step_by(n_components);
                places.zip(row).for_each(|(p, &v)| *p = to_sample(v, half));
            }
        }
        Ok(pixels)
    }
}

impl Component {
    fn put(&mut self, place: BlockPlace, samples: &[[f32; 8]; 8]) {
        let stride = self.blocks_wide * 8;
        let corner = (place.row * stride + place.column) * 8;
        for (y, row) in samples.iter().enumerate() {
            let start = corner + y * stride;
            if let Some(stored) = self.samples.get_mut(start..start + 8) {
                stored.copy_from_slice(row);
            }
        }
    }
}

/// Reads the 63 coefficients behind the first; returns false if all of them are 0.
fn alternating(
    bits: &mut Bits<'_>,
    table: &Huffman,
    quantisation: &[f32; 64],
    coefficients: &mut [[f32; 8]; 8],
) -> Result<bool> {
    let mut is_any = false;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(table)?;
        let (run, n_bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if n_bits == 0 {
            if run != 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        let value = level(bits.signed(n_bits)?);
        let (Some(&place), Some(q)) = (ZIGZAG.get(k), quantisation.get(k)) else {
            return Err(broken("a coefficient beyond the block"));
        };
        if let Some(row) = coefficients.get_mut(place / 8)
            && let Some(coefficient) = row.get_mut(place % 8)
        {
            *coefficient = value * q;
        }
        is_any = true;
        k += 1;
    }
    Ok(is_any)
}

fn most_sampled(specs: &[&[u8; 3]]) -> (usize, usize) {
    let most = |factor: fn(u8) -> u8| specs.iter().map(|[_, hv, _]| factor(*hv)).max();
    let h = most(|hv| hv >> 4).unwrap_or(1);
    let v = most(|hv| hv & 15).unwrap_or(1);
    (usize::from(h), usize::from(v))
}

#[allow(
    clippy::cast_precision_loss,
    reason = "coefficients have at most 16 bits"
)]
fn level(value: i32) -> f32 {
    value as f32
}

/// Shifts to unsigned, clamps to the precision and rounds.
fn to_sample(value: f32, half: f32) -> i32 {
    // 2^23 leaves no room for a fraction: the sum is rounded, and its lower bits are the integer.
    // Unlike casts, which check for NaN and overflow, this becomes vector code.
    const SHIFT: f32 = 8_388_608.0;
    let shifted = (value + half).clamp(0.0, 2.0 * half - 1.0) + SHIFT;
    (shifted.to_bits() & 0x007F_FFFF).cast_signed()
}
