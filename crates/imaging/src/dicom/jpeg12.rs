//! 12-bit sequential JPEG (extended, process 2 and 4): no Rust crate decodes it, and nuclear
//! medicine, mammography and old CT archives hold it.
//!
//! Huffman coding, one or more scans, restart markers, subsampled components (replicated).
//!
//! # Source
//! ITU-T T.81 annexes B, E, F. The inverse transform is the definition in A.3.3 in f32, which is
//! within one level of any integer transform.

use std::f32::consts::PI;

use super::codec::by_pixel;
use super::codestream::Declared;
use crate::error::{Error, Result};
use crate::reason::Code;

const FORMAT: &str = "12-bit jpeg";

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

struct Huffman {
    /// Largest code of each length, left-aligned to 16 bits and exclusive; 0 where none.
    limits: [u32; 17],
    /// Index of the first symbol of each length minus its first code.
    offsets: [i64; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8], symbols: &[u8]) -> Self {
        let (mut limits, mut offsets) = ([0; 17], [0; 17]);
        let (mut code, mut n_before) = (0_u32, 0_i64);
        for ((length, &count), (limit, offset)) in (1..=16_u32)
            .zip(counts)
            .zip(limits.iter_mut().zip(offsets.iter_mut()).skip(1))
        {
            *offset = n_before - i64::from(code);
            code += u32::from(count);
            n_before += i64::from(count);
            *limit = code << (16 - length);
            code <<= 1;
        }
        Self {
            limits,
            offsets,
            symbols: symbols.to_vec(),
        }
    }
}

struct Component {
    id: u8,
    h: usize,
    v: usize,
    quantisation: usize,
    /// Blocks along each side, whole MCUs included.
    blocks_wide: usize,
    blocks_high: usize,
    samples: Vec<f32>,
    predictor: i32,
    dc_table: usize,
    ac_table: usize,
    is_decoded: bool,
}

struct Decoder<'a> {
    declared: &'a Declared,
    components: Vec<Component>,
    quantisation: [[f32; 64]; 4],
    dc_tables: [Option<Huffman>; 4],
    ac_tables: [Option<Huffman>; 4],
    restart_interval: usize,
    cosines: [[f32; 8]; 8],
}

struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
    buffer: u32,
    n_bits: u32,
    n_beyond_end: u32,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.n_bits <= 16 {
            let byte = match (
                self.bytes.get(self.position),
                self.bytes.get(self.position + 1),
            ) {
                (Some(0xFF), Some(0)) => {
                    self.position += 2;
                    0xFF
                }
                // A marker or the end: zeros, counted, so that a cut stream is noticed.
                (Some(0xFF) | None, _) => {
                    self.n_beyond_end += 1;
                    0
                }
                (Some(&byte), _) => {
                    self.position += 1;
                    byte
                }
            };
            self.buffer |= u32::from(byte) << (24 - self.n_bits);
            self.n_bits += 8;
        }
    }

    fn take(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        self.fill();
        let taken = self.buffer >> (32 - n);
        self.buffer <<= n;
        self.n_bits -= n;
        taken
    }

    fn symbol(&mut self, table: &Huffman) -> Result<u8> {
        self.fill();
        let ahead = self.buffer >> 16;
        for (length, (&limit, &offset)) in (0_u32..)
            .zip(table.limits.iter().zip(&table.offsets))
            .skip(1)
        {
            if ahead < limit {
                let code = i64::from(self.take(length));
                let symbol = usize::try_from(code + offset).ok();
                return symbol
                    .and_then(|index| table.symbols.get(index))
                    .copied()
                    .ok_or_else(|| broken("a Huffman code without a symbol"));
            }
        }
        Err(broken("a Huffman code longer than 16 bits"))
    }

    /// Reads `n` bits as a signed difference (T.81 F.2.2.1, EXTEND).
    fn signed(&mut self, n: u32) -> i32 {
        if n == 0 || n > 16 {
            return 0;
        }
        let raw = i32::try_from(self.take(n)).unwrap_or(0);
        if raw < 1 << (n - 1) {
            raw - (1 << n) + 1
        } else {
            raw
        }
    }

    /// Returns true if bits were used that the stream does not hold.
    fn is_beyond_end(&self) -> bool {
        self.n_beyond_end * 8 > self.n_bits
    }

    /// Drops the rest of the byte and the restart marker behind it.
    fn restart(&mut self) {
        self.buffer = 0;
        self.n_bits = 0;
        self.n_beyond_end = 0;
        while let Some(&byte) = self.bytes.get(self.position) {
            let next = self.bytes.get(self.position + 1);
            if byte == 0xFF && matches!(next, Some(0xD0..=0xD7)) {
                self.position += 2;
                return;
            }
            if byte == 0xFF && !matches!(next, Some(0 | 0xFF)) {
                return;
            }
            self.position += 1;
        }
    }
}

fn broken(found: impl Into<String>) -> Error {
    Error::malformed(FORMAT, found, "a sequential Huffman stream")
}

impl<'a> Decoder<'a> {
    fn new(declared: &'a Declared) -> Self {
        let mut cosines = [[0.0; 8]; 8];
        for (x, row) in (0_u8..).zip(&mut cosines) {
            for (u, cosine) in (0_u8..).zip(row) {
                let scale = if u == 0 { 0.5_f32.sqrt() } else { 1.0 };
                *cosine = 0.5 * scale * (f32::from(2 * x + 1) * f32::from(u) * PI / 16.0).cos();
            }
        }
        Self {
            declared,
            components: Vec::new(),
            quantisation: [[1.0; 64]; 4],
            dc_tables: [const { None }; 4],
            ac_tables: [const { None }; 4],
            restart_interval: 0,
            cosines,
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
        let mut bits = Bits {
            bytes,
            position: at,
            buffer: 0,
            n_bits: 0,
            n_beyond_end: 0,
        };
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
                    let (block_x, block_y) = (mcu % mcus_wide * h + x, mcu / mcus_wide * v + y);
                    self.block(index, (block_x, block_y), bits)?;
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

    fn block(
        &mut self,
        index: usize,
        (block_x, block_y): (usize, usize),
        bits: &mut Bits<'_>,
    ) -> Result<()> {
        let Some(component) = self.components.get_mut(index) else {
            return Ok(());
        };
        let table = |tables: &'_ [Option<Huffman>; 4], at: usize| {
            tables.get(at).is_some_and(Option::is_some)
        };
        if !table(&self.dc_tables, component.dc_table)
            || !table(&self.ac_tables, component.ac_table)
        {
            return Err(broken("a scan whose Huffman table is missing"));
        }
        let (Some(Some(dc)), Some(Some(ac)), Some(quantisation)) = (
            self.dc_tables.get(component.dc_table),
            self.ac_tables.get(component.ac_table),
            self.quantisation.get(component.quantisation),
        ) else {
            return Ok(());
        };
        let mut coefficients = [0.0_f32; 64];
        let n_bits = u32::from(bits.symbol(dc)?);
        component.predictor = component.predictor.wrapping_add(bits.signed(n_bits));
        coefficients[0] = level(component.predictor) * quantisation[0];
        let mut k = 1;
        while k < 64 {
            let symbol = bits.symbol(ac)?;
            let (run, n_bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if n_bits == 0 {
                if run != 15 {
                    break;
                }
                k += 16;
                continue;
            }
            k += run;
            let value = level(bits.signed(n_bits));
            if let (Some(&place), Some(q)) = (ZIGZAG.get(k), quantisation.get(k))
                && let Some(coefficient) = coefficients.get_mut(place)
            {
                *coefficient = value * q;
            }
            k += 1;
        }
        let half = level(1 << (self.declared.precision - 1));
        let pixels = inverse_transform(&coefficients, &self.cosines);
        let stride = component.blocks_wide * 8;
        let corner = block_y.min(component.blocks_high - 1) * 8 * stride
            + block_x.min(component.blocks_wide - 1) * 8;
        for (row, pixels) in pixels.chunks_exact(8).enumerate() {
            let start = corner + row * stride;
            if let Some(target) = component.samples.get_mut(start..start + 8) {
                target
                    .iter_mut()
                    .zip(pixels)
                    .for_each(|(t, &p)| *t = p.clamp(-half, half - 1.0));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<i32>> {
        let (h_max, v_max) = self.most_sampled();
        if self.components.is_empty() || !self.components.iter().all(|c| c.is_decoded) {
            return Err(Error::refused(
                FORMAT,
                Code::Truncated,
                "a component without a scan",
                "one each",
            ));
        }
        let planes: Vec<i32> = self
            .components
            .iter()
            .flat_map(|c| self.plane(c, (h_max, v_max)))
            .collect();
        Ok(by_pixel(&planes, self.components.len()))
    }

    /// One component at full size, rounded once.
    fn plane(&self, component: &Component, (h_max, v_max): (usize, usize)) -> Vec<i32> {
        let (width, height) = (self.declared.width as usize, self.declared.height as usize);
        let columns = neighbours(width, component.h, h_max);
        let rows = neighbours(height, component.v, v_max);
        let stride = component.blocks_wide * 8;
        let half = level(1 << (self.declared.precision - 1));
        let mut plane = Vec::with_capacity(width * height);
        for &(above, below, down) in &rows {
            let row = |y: usize| {
                component
                    .samples
                    .get(y * stride..(y + 1) * stride)
                    .unwrap_or(&[])
            };
            let (above, below) = (row(above), row(below));
            plane.extend(columns.iter().map(|&(left, right, across)| {
                let between = |row: &[f32]| {
                    let (l, r) = (row.get(left), row.get(right));
                    l.zip(r).map_or(0.0, |(l, r)| l + (r - l) * across)
                };
                let (a, b) = (between(above), between(below));
                to_sample(a + (b - a) * down, half)
            }));
        }
        plane
    }
}

/// For each of `n` pixels, the two samples it lies between and how far: samples of a component with
/// fewer of them lie at the centres of the pixels they cover (JFIF).
fn neighbours(n: usize, factor: usize, most: usize) -> Vec<(usize, usize, f32)> {
    if factor == most {
        return (0..n).map(|i| (i, i, 0.0)).collect();
    }
    let last = (n * factor).div_ceil(most) - 1;
    (0..n)
        .map(|i| {
            // Position (i + 1/2) factor / most - 1/2, as a multiple of 1 / (2 most).
            let twice = ((2 * i + 1) * factor).saturating_sub(most);
            let (whole, part) = (twice / (2 * most), twice % (2 * most));
            #[allow(clippy::cast_precision_loss, reason = "both are at most 8")]
            let across = part as f32 / (2 * most) as f32;
            (whole.min(last), (whole + 1).min(last), across)
        })
        .collect()
}

fn most_sampled(specs: &[&[u8; 3]]) -> (usize, usize) {
    let h = specs
        .iter()
        .map(|[_, hv, _]| usize::from(hv >> 4))
        .max()
        .unwrap_or(1);
    let v = specs
        .iter()
        .map(|[_, hv, _]| usize::from(hv & 15))
        .max()
        .unwrap_or(1);
    (h, v)
}

#[allow(
    clippy::cast_precision_loss,
    reason = "coefficients have at most 16 bits"
)]
fn level(value: i32) -> f32 {
    value as f32
}

/// Shifts to unsigned and clamps to the precision.
#[allow(
    clippy::cast_possible_truncation,
    reason = "clamped to at most 4095 before the cast"
)]
fn to_sample(value: f32, half: f32) -> i32 {
    (value + half).round().clamp(0.0, 2.0 * half - 1.0) as i32
}

/// Rows, then columns of the 8 x 8 inverse cosine transform.
fn inverse_transform(coefficients: &[f32; 64], cosines: &[[f32; 8]; 8]) -> [f32; 64] {
    let mut rows = [0.0; 64];
    for (row, out) in coefficients.chunks_exact(8).zip(rows.chunks_exact_mut(8)) {
        for (x, cosine) in out.iter_mut().zip(cosines) {
            *x = row.iter().zip(cosine).map(|(c, k)| c * k).sum();
        }
    }
    let mut pixels = [0.0; 64];
    for (out, cosine) in pixels.chunks_exact_mut(8).zip(cosines) {
        for (row, &k) in rows.chunks_exact(8).zip(cosine) {
            out.iter_mut().zip(row).for_each(|(p, r)| *p += k * r);
        }
    }
    pixels
}
