//! Everything random follows from the run's seed and what it is drawn for, never from the order of calls in
//! other threads.

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_128;

/// Returns a generator for one purpose, e.g. `("mask", [seed, step, image])`.
pub(crate) fn generator(purpose: &str, key: &[u64]) -> ChaCha8Rng {
    let mut bytes = purpose.as_bytes().to_vec();
    for part in key {
        bytes.extend(part.to_le_bytes());
    }
    let hash = xxh3_128(&bytes).to_le_bytes();
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&hash);
    ChaCha8Rng::from_seed(seed)
}

/// Returns a number in `0..1` with 24 random bits.
pub(crate) fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    #[allow(clippy::cast_precision_loss, reason = "24 bits fit a float")]
    let steps = (rng.next_u32() >> 8) as f32;
    steps / 16_777_216.0
}

/// Draws initial weights on a device.
#[derive(Debug)]
pub(crate) struct Initial<B: Backend> {
    rng: ChaCha8Rng,
    device: B::Device,
}

impl<B: Backend> Initial<B> {
    pub(crate) fn new(seed: u64, device: &B::Device) -> Self {
        Self {
            rng: generator("initial weights", &[seed]),
            device: device.clone(),
        }
    }

    /// Uniform in `+-sqrt(6 / (n_in + n_out))` (Glorot and Bengio 2010).
    #[allow(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
    pub(crate) fn xavier<const D: usize>(
        &mut self,
        shape: [usize; D],
        [n_in, n_out]: [usize; 2],
    ) -> Param<Tensor<B, D>> {
        let limit = (6.0 / (n_in + n_out) as f32).sqrt();
        self.drawn(shape, |rng| limit * (2.0 * uniform(rng) - 1.0))
    }

    /// Normal with deviation 0.02.
    pub(crate) fn normal<const D: usize>(&mut self, shape: [usize; D]) -> Param<Tensor<B, D>> {
        self.drawn(shape, |rng| {
            // (0, 1]: the logarithm of 0 has no value.
            let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
            0.02 * radius * (std::f32::consts::TAU * uniform(rng)).cos()
        })
    }

    pub(crate) fn constant<const D: usize>(
        &mut self,
        shape: [usize; D],
        value: f32,
    ) -> Param<Tensor<B, D>> {
        self.drawn(shape, |_| value)
    }

    fn drawn<const D: usize>(
        &mut self,
        shape: [usize; D],
        mut value: impl FnMut(&mut ChaCha8Rng) -> f32,
    ) -> Param<Tensor<B, D>> {
        let n_values = shape.iter().product();
        let values: Vec<f32> = (0..n_values).map(|_| value(&mut self.rng)).collect();
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values, shape),
            &self.device,
        ))
    }
}
