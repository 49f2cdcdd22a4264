//! What one read may cost; charged before memory is reserved.

use crate::error::{Error, Result};

/// The most that reading one object may cost.
///
/// Every reader asks before it reserves, so a file that declares a huge image costs nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Largest file, and largest decompressed stream, in bytes.
    pub max_bytes: u64,
    /// Largest `C * D * H * W` of one `Volume`; each voxel takes 4 bytes.
    pub max_voxels: u64,
    /// Most frames or slices of one object.
    pub max_frames: u64,
    /// Most files of one series, and most objects of one file.
    pub max_parts: u64,
    /// Longest that a child process may run, in seconds.
    pub max_seconds: u64,
    /// Largest output per input byte, charged once the output passes `ratio_free_bytes`.
    pub max_decompression_ratio: u64,
    /// Output below this size is never refused for its ratio.
    pub ratio_free_bytes: u64,
    /// Deepest nesting of sequences.
    pub max_depth: u64,
}

impl Default for Limits {
    /// 4 GiB of bytes, 2^29 voxels (2 GiB; a CT of 512 x 512 x 2048), 16,384 frames, 120 s.
    fn default() -> Self {
        Self {
            max_bytes: 4 << 30,
            max_voxels: 1 << 29,
            max_frames: 16_384,
            max_parts: 16_384,
            max_seconds: 120,
            // DEFLATE itself cannot pass 1032; an empty label map comes close to that honestly.
            max_decompression_ratio: 1_100,
            ratio_free_bytes: 64 << 20,
            max_depth: 32,
        }
    }
}

impl Limits {
    /// Checks a declared shape and returns its number of voxels.
    ///
    /// # Errors
    /// `LimitExceeded` if the product passes `max_voxels` or does not fit the address space.
    pub fn voxels(&self, shape: [u64; 4]) -> Result<usize> {
        let asked = shape
            .iter()
            .try_fold(1_u64, |product, &side| product.checked_mul(side));
        self.charge(
            "voxels of one object",
            asked.unwrap_or(u64::MAX),
            self.max_voxels,
        )
    }

    /// Checks a number of bytes that is about to be reserved or read.
    ///
    /// # Errors
    /// `LimitExceeded` above `max_bytes`.
    pub fn bytes(&self, asked: u64) -> Result<usize> {
        self.charge("bytes", asked, self.max_bytes)
    }

    /// Checks a number of frames or slices.
    ///
    /// # Errors
    /// `LimitExceeded` above `max_frames`.
    pub fn frames(&self, asked: u64) -> Result<usize> {
        self.charge("frames", asked, self.max_frames)
    }

    /// Checks a number of files of one series or objects of one file.
    ///
    /// # Errors
    /// `LimitExceeded` above `max_parts`.
    pub fn parts(&self, asked: u64) -> Result<usize> {
        self.charge("parts of one object", asked, self.max_parts)
    }

    /// Returns how many bytes `n_compressed` bytes may decompress to.
    #[must_use]
    pub fn max_decompressed(&self, n_compressed: u64) -> u64 {
        let by_ratio = n_compressed.saturating_mul(self.max_decompression_ratio);
        by_ratio.max(self.ratio_free_bytes).min(self.max_bytes)
    }

    /// Checks the size that `n_compressed` bytes are said, or turn out, to decompress to.
    ///
    /// # Errors
    /// `LimitExceeded` above `max_decompressed`.
    pub fn decompressed(&self, n_compressed: u64, asked: u64) -> Result<usize> {
        self.charge(
            "decompressed bytes",
            asked,
            self.max_decompressed(n_compressed),
        )
    }

    fn charge(&self, what: &'static str, asked: u64, allowed: u64) -> Result<usize> {
        let refused = Error::LimitExceeded {
            what,
            allowed,
            asked,
        };
        if asked > allowed {
            return Err(refused);
        }
        usize::try_from(asked).map_err(|_| refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_that_overflows_is_refused_not_wrapped() {
        let refused = Limits::default().voxels([3, u64::MAX, u64::MAX, 2]);
        assert!(matches!(
            refused,
            Err(Error::LimitExceeded {
                asked: u64::MAX,
                ..
            })
        ));
    }

    #[test]
    fn small_outputs_are_free_of_the_ratio() {
        let limits = Limits::default();
        assert!(limits.decompressed(1, limits.ratio_free_bytes).is_ok());
        assert!(limits.decompressed(1, limits.ratio_free_bytes + 1).is_err());
    }
}
