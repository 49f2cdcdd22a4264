//! The bits of a scan: a byte behind 0xFF holds seven, and a larger one is a marker.

use super::{broken, truncated};
use crate::error::Result;

pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Unread bits, the next one highest; below them zeros.
    cache: u64,
    n_cached: u32,
    is_behind_ff: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            cache: 0,
            n_cached: 0,
            is_behind_ff: false,
        }
    }

    /// Fills the cache to more than 56 bits, or with all that is left before a marker.
    fn fill(&mut self) {
        while self.n_cached <= 56 {
            let Some(&byte) = self.bytes.get(self.at) else {
                return;
            };
            if byte == 0xFF && self.bytes.get(self.at + 1).is_none_or(|next| *next >= 0x80) {
                return;
            }
            let n_bits = if self.is_behind_ff { 7 } else { 8 };
            self.cache |= u64::from(byte) << (64 - n_bits - self.n_cached);
            self.n_cached += n_bits;
            self.is_behind_ff = byte == 0xFF;
            self.at += 1;
        }
    }

    #[inline]
    fn skip(&mut self, n: u32) {
        // All 64 at once, where 63 zeros come before a one.
        self.cache = self.cache.checked_shl(n).unwrap_or(0);
        self.n_cached -= n;
    }

    /// Reads `n` bits, at most 32.
    ///
    /// # Errors
    /// `Malformed` (`truncated`) at the end.
    #[inline]
    pub(super) fn read(&mut self, n: u32) -> Result<u32> {
        if n == 0 {
            return Ok(0);
        }
        if self.n_cached < n {
            self.fill();
            if self.n_cached < n {
                return Err(truncated());
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most 32 bits")]
        let value = (self.cache >> (64 - n)) as u32;
        self.skip(n);
        Ok(value)
    }

    /// Counts zeros up to the next one, which is taken too; more than `most` are an error.
    ///
    /// # Errors
    /// `Malformed`.
    #[inline]
    pub(super) fn zeros(&mut self, most: u32) -> Result<u32> {
        let mut n_zeros = 0;
        loop {
            if self.n_cached == 0 {
                self.fill();
            }
            let here = self.cache.leading_zeros();
            if here < self.n_cached {
                self.skip(here + 1);
                n_zeros += here;
                if n_zeros > most {
                    return Err(broken("a code word that is too long"));
                }
                return Ok(n_zeros);
            }
            n_zeros += self.n_cached;
            self.cache = 0;
            self.n_cached = 0;
            if n_zeros > most {
                return Err(broken("a code word that is too long"));
            }
            self.fill();
            if self.n_cached == 0 {
                return Err(truncated());
            }
        }
    }

    /// Passes the restart marker of a number.
    ///
    /// # Errors
    /// `Malformed` where another byte stands.
    pub(super) fn restart(&mut self, index: usize) -> Result<()> {
        // A filler bit ends the last byte before the marker.
        let here = self.bytes.get(self.n_used()..).unwrap_or_default();
        let marker = here.first_chunk::<2>();
        let n = u8::try_from(index % 8).unwrap_or_default();
        if marker != Some(&[0xFF, 0xD0 + n]) {
            return Err(broken("no restart marker where one is due"));
        }
        *self = Self {
            at: self.n_used() + 2,
            ..Self::new(self.bytes)
        };
        Ok(())
    }

    /// Returns how many bytes the bits read so far take; whole bytes in the cache are given back.
    pub(super) fn n_used(&self) -> usize {
        let mut at = self.at;
        let mut n_cached = self.n_cached;
        while at > 0 {
            let n_bits = if at >= 2 && self.bytes.get(at - 2) == Some(&0xFF) {
                7
            } else {
                8
            };
            if n_cached < n_bits {
                break;
            }
            n_cached -= n_bits;
            at -= 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bits_of_the_cache_may_be_taken_at_once() {
        // 63 zeros and a one fill the cache; what comes next is read from new bytes.
        let mut bits = Bits::new(&[0, 0, 0, 0, 0, 0, 0, 1, 0xA5, 0x80]);
        assert_eq!(bits.zeros(64).unwrap(), 63);
        assert_eq!(bits.read(8).unwrap(), 0xA5);
        assert_eq!(bits.zeros(64).unwrap(), 0);
        for n_zeros in 0..200_u32 {
            let mut bytes = vec![0; 30];
            bytes[n_zeros as usize / 8] = 0x80 >> (n_zeros % 8);
            let mut bits = Bits::new(&bytes);
            assert_eq!(bits.zeros(200).unwrap(), n_zeros);
            assert_eq!(bits.read(8).unwrap(), 0, "{n_zeros}");
        }
    }
}
