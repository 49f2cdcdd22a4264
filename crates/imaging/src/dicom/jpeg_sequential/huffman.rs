//! Entropy-coded bits, and the prefix codes in them.
//!
//! # Source
//! ITU-T T.81 annexes C, F.2.2 and B.1.1.5 (byte stuffing).

use super::broken;
use crate::error::Result;

/// Codes of so many bits or fewer are found in one look.
const LOOKAHEAD: u32 = 9;

/// One Huffman table.
pub(super) struct Huffman {
    /// By the next `LOOKAHEAD` bits: length in the upper byte, symbol in the lower; 0 where longer.
    lookahead: Vec<u16>,
    /// First value above the codes of each length, left-aligned to 16 bits.
    limits: [u32; 17],
    /// Index of the first symbol of each length minus its first code.
    offsets: [i64; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// Builds the table from the number of codes of each length 1..=16 and their symbols.
    pub(super) fn new(counts: &[u8], symbols: &[u8]) -> Self {
        let (mut limits, mut offsets) = ([0; 17], [0; 17]);
        let mut lookahead = vec![0; 1 << LOOKAHEAD];
        let mut left = symbols.iter();
        let (mut code, mut n_before) = (0_u32, 0_i64);
        for ((length, &count), (limit, offset)) in (1..=16_u32)
            .zip(counts)
            .zip(limits.iter_mut().zip(offsets.iter_mut()).skip(1))
        {
            *offset = n_before - i64::from(code);
            for &symbol in left.by_ref().take(usize::from(count)) {
                if length <= LOOKAHEAD {
                    let entry = u16::try_from(length << 8).unwrap_or(0) | u16::from(symbol);
                    let span = 1_usize << (LOOKAHEAD - length);
                    let start = (code as usize) * span;
                    // A broken table may hold more codes than there is room for.
                    if let Some(places) = lookahead.get_mut(start..start + span) {
                        places.fill(entry);
                    }
                }
                code += 1;
            }
            n_before += i64::from(count);
            *limit = code << (16 - length);
            code <<= 1;
        }
        Self {
            lookahead,
            limits,
            offsets,
            symbols: symbols.to_vec(),
        }
    }
}

/// The bits of one scan.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Where the next byte to be buffered lies; never beyond a marker.
    pub(super) position: usize,
    /// The next bits, from the top.
    buffer: u64,
    n_bits: u32,
    /// Zero bytes buffered since the stream ended, or a marker came.
    n_invented: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self {
            bytes,
            position,
            buffer: 0,
            n_bits: 0,
            n_invented: 0,
        }
    }

    /// Buffers at least 32 bits.
    fn fill(&mut self) {
        if self.n_bits >= 32 {
            return;
        }
        let ahead = self.bytes.get(self.position..).unwrap_or(&[]);
        if let Some(raw) = ahead.first_chunk::<8>() {
            let word = u64::from_be_bytes(*raw);
            // No byte is 0xFF: none of the complement is 0.
            let complement = !word;
            let has_marker =
                complement.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080;
            if has_marker == 0 {
                // The bits below the last whole byte are the next byte's, and come again with it.
                self.buffer |= word >> self.n_bits;
                let n_bytes = (64 - self.n_bits) / 8;
                self.n_bits += 8 * n_bytes;
                self.position += n_bytes as usize;
                return;
            }
        }
        self.fill_bytes();
    }

    fn fill_bytes(&mut self) {
        while self.n_bits <= 56 {
            let rest = self.bytes.get(self.position..).unwrap_or(&[]);
            let byte = match *rest {
                [0xFF, 0, ..] => {
                    self.position += 2;
                    0xFF
                }
                // A marker or the end: zeros, counted, so that a cut stream is noticed.
                [] | [0xFF, ..] => {
                    self.n_invented += 1;
                    0
                }
                [byte, ..] => {
                    self.position += 1;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.n_bits);
            self.n_bits += 8;
        }
    }

    fn skip(&mut self, n: u32) {
        self.buffer <<= n;
        self.n_bits -= n;
    }

    /// Reads one symbol, and leaves at least 16 bits behind it in the buffer.
    pub(super) fn symbol(&mut self, table: &Huffman) -> Result<u8> {
        self.fill();
        let index = (self.buffer >> (64 - LOOKAHEAD)) as usize;
        let entry = table.lookahead.get(index).copied().unwrap_or(0);
        if entry != 0 {
            let [symbol, length] = entry.to_le_bytes();
            self.skip(u32::from(length));
            return Ok(symbol);
        }
        self.long_symbol(table)
    }

    fn long_symbol(&mut self, table: &Huffman) -> Result<u8> {
        let ahead = u32::try_from(self.buffer >> 48).unwrap_or(0);
        for (length, (&limit, &offset)) in (0_u32..)
            .zip(table.limits.iter().zip(&table.offsets))
            .skip(1)
        {
            if ahead < limit {
                let code = i64::from(ahead >> (16 - length));
                self.skip(length);
                let symbol = usize::try_from(code + offset).ok();
                return symbol
                    .and_then(|index| table.symbols.get(index))
                    .copied()
                    .ok_or_else(|| broken("a Huffman code without a symbol"));
            }
        }
        Err(broken("a Huffman code longer than 16 bits"))
    }

    /// Reads `n` bits as a signed difference, right behind a symbol (T.81 F.2.2.1, EXTEND).
    pub(super) fn signed(&mut self, n: u32) -> Result<i32> {
        match n {
            0 => Ok(0),
            1..=15 => {
                let raw = i32::try_from(self.buffer >> (64 - n)).unwrap_or(0);
                self.skip(n);
                Ok(if raw < 1 << (n - 1) {
                    raw - (1 << n) + 1
                } else {
                    raw
                })
            }
            _ => Err(broken("a difference of more than 15 bits")),
        }
    }

    /// Returns true if bits were used that the stream does not hold.
    pub(super) fn is_beyond_end(&self) -> bool {
        self.n_invented * 8 > self.n_bits
    }

    /// Drops the rest of the byte and the restart marker behind it.
    pub(super) fn restart(&mut self) {
        self.buffer = 0;
        self.n_bits = 0;
        self.n_invented = 0;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_codes_give_their_symbols() {
        // 0 -> 7, 10 -> 8, and one code of 12 bits, 110000000000 -> 9.
        let mut counts = [0; 16];
        (counts[0], counts[1], counts[11]) = (1, 1, 1);
        let table = Huffman::new(&counts, &[7, 8, 9]);
        let bytes = [0b0101_1000, 0b0000_0000, 0xFF, 0x00, 0xFF, 0xD9];
        let mut bits = Bits::new(&bytes, 0);
        let symbols: Vec<u8> = (0..3).map(|_| bits.symbol(&table).unwrap()).collect();
        assert_eq!(symbols, [7, 8, 9]);
        assert_eq!(bits.signed(2).unwrap(), -2);
        assert!(bits.symbol(&table).is_err(), "ones are no code");
        assert!(!bits.is_beyond_end());
        assert_eq!(bits.position, 4, "a marker is never passed");
    }

    #[test]
    fn a_table_with_too_many_codes_is_no_panic() {
        let table = Huffman::new(&[255; 16], &[1; 255 * 16]);
        let mut bits = Bits::new(&[0xAB; 64], 0);
        for _ in 0..40 {
            let _ = bits.symbol(&table);
        }
    }
}
