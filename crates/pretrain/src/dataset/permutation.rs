//! Permutations that need no memory: any place is computed on its own, so a run resumes anywhere.

use xxhash_rust::xxh3::xxh3_64;

/// Rounds of the network; four already look random (Luby and Rackoff 1988), few bits want more.
const N_ROUNDS: usize = 8;

/// A permutation of `0..n`, drawn by a key.
///
/// # Source
/// A balanced Feistel network on the smallest even number of bits that holds `n`, and cycle walking
/// (Black and Rogaway 2002) for what falls outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permutation {
    n: u64,
    n_half_bits: u32,
    rounds: [u64; N_ROUNDS],
}

impl Permutation {
    /// Draws one for a purpose, e.g. `("epoch", [seed, epoch])`.
    pub(super) fn new(n: u64, purpose: &str, key: &[u64]) -> Self {
        let mut bytes = purpose.as_bytes().to_vec();
        for part in key {
            bytes.extend(part.to_le_bytes());
        }
        let mut state = xxh3_64(&bytes);
        let rounds = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed(state)
        });
        let n_bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self {
            n,
            n_half_bits: n_bits.div_ceil(2).max(1),
            rounds,
        }
    }

    /// Returns what stands at a place below `n`.
    pub(super) fn at(&self, place: u64) -> u64 {
        debug_assert!(place < self.n);
        let mut value = place;
        // The domain is below 4n, and the walk is on a cycle that `place` itself lies on.
        loop {
            value = self.step(value);
            if value < self.n {
                return value;
            }
        }
    }

    fn step(&self, value: u64) -> u64 {
        let mask = (1 << self.n_half_bits) - 1;
        let (mut left, mut right) = (value >> self.n_half_bits, value & mask);
        for round in self.rounds {
            (left, right) = (right, left ^ (mixed(right ^ round) & mask));
        }
        (left << self.n_half_bits) | right
    }
}

/// The last steps of `SplitMix64` (Steele et al. 2014).
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_once() {
        for n in (1..70).chain([255, 256, 257, 10_000]) {
            let permutation = Permutation::new(n, "test", &[n]);
            let mut seen: Vec<u64> = (0..n).map(|place| permutation.at(place)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_number_comes_first_equally_often() {
        for n in [2, 3, 5, 12] {
            let mut counts = vec![0_i64; 12];
            for seed in 0..12_000 {
                let first = Permutation::new(n, "test", &[seed]).at(0);
                counts[usize::try_from(first).unwrap()] += 1;
            }
            let wanted = 12_000 / i64::try_from(n).unwrap();
            for count in &counts[..usize::try_from(n).unwrap()] {
                // Five standard deviations of a binomial are below 5 sqrt(wanted).
                assert!((count - wanted).pow(2) < 25 * wanted, "{n}: {counts:?}");
            }
        }
    }

    #[test]
    fn neighbours_and_keys_are_unrelated() {
        let n = 1000;
        let [one, two] = [1, 2].map(|seed| Permutation::new(n, "test", &[seed]));
        let n_equal = (0..n).filter(|&i| one.at(i) == two.at(i)).count();
        assert!(n_equal < 10, "{n_equal}");
        let n_next = (1..n).filter(|&i| one.at(i) == one.at(i - 1) + 1).count();
        assert!(n_next < 10, "{n_next}");
    }
}
