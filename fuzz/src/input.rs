//! Takes choices off a fuzzer's bytes.

use std::borrow::Cow;

/// Takes numbers off the input; zeros behind its end.
pub struct Input<'b>(pub &'b [u8]);

impl<'b> Input<'b> {
    /// Returns the next byte.
    pub fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    /// Returns the next two bytes as a number.
    pub fn short(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// Returns a number below `n`; 0 if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        let number = if n > 256 { self.short() } else { self.byte().into() };
        number % n.max(1)
    }

    /// Returns up to `n` bytes.
    pub fn bytes(&mut self, n: usize) -> &'b [u8] {
        let (bytes, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Returns one of the choices.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Returns a number written as text: mostly small and plain, sometimes odd.
    pub fn decimal(&mut self) -> Cow<'static, str> {
        match self.byte() {
            250 => "1e300".into(),
            251 => "-0,5".into(),
            252 => "NaN".into(),
            253 => "".into(),
            254 => "7.000000001".into(),
            255 => "x".into(),
            n => format!("{}", f32::from(n % 32) / 2.0).into(),
        }
    }
}
