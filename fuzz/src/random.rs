//! Random choices of mutators, all from libFuzzer's seed.

/// xorshift64*: small, and the same on every machine.
pub struct Random(u64);

impl Random {
    /// Begins with a seed.
    pub fn new(seed: u32) -> Self {
        Self((u64::from(seed) << 17) ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a number below `n`; 0 if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() >> 20) as usize % n.max(1)
    }

    /// Returns true once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Returns a random byte.
    pub fn byte(&mut self) -> u8 {
        (self.bits() >> 32) as u8
    }

    /// Returns one of the choices.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Returns another number in the place of `old`: near it, at a bound, small or random.
    pub fn number(&mut self, old: u64) -> u64 {
        let power = 1_u64 << self.below(33);
        match self.below(12) {
            0 => old.wrapping_add(1),
            1 => old.wrapping_sub(1),
            2 => old.wrapping_mul(2),
            3 => old / 2,
            4 => 0,
            5 => u64::MAX,
            6 => power,
            7 => power - 1,
            8 => old ^ power,
            9 => self.bits(),
            _ => self.below(40) as u64,
        }
    }

    /// Replaces the big-endian number of `width` bytes at an offset, if it is there.
    pub fn replace(&mut self, bytes: &mut [u8], (at, width): (usize, usize)) {
        let Some(field) = bytes.get_mut(at..at + width) else {
            return;
        };
        let old = field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let new = self.number(old).to_be_bytes();
        field.copy_from_slice(&new[8 - width..]);
    }

    /// Changes, cuts, lengthens or shuffles some bytes.
    pub fn scramble(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.extend((0..self.below(64)).map(|i| i as u8)),
            2 if !bytes.is_empty() => drop(bytes.drain(at..(at + 1 + self.below(8)).min(bytes.len()))),
            3 => bytes.insert(at, self.byte()),
            4 => {
                let end = (at + 1 + self.below(16)).min(bytes.len());
                let byte = self.of(&[0, 0xFF, 0x80, 0x7F]);
                bytes[at..end].fill(byte);
            }
            _ => {
                for _ in 0..=self.below(4) {
                    let at = self.below(bytes.len());
                    let bit = 1 << self.below(8);
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bit);
                }
            }
        }
    }
}
