//! One plain training step, for benchmarks that compare it with other frameworks.

use burn::backend::{Autodiff, Flex};
use m3ret_encoder::VitConfig;
use m3ret_imaging::Input;

use crate::config::{Device, TrainPrecision};
use crate::error::Result;
use crate::ops::VitBackend;
use crate::optimizer::{AdamW, Step};
use crate::parameters::{self, numbers};
use crate::random::Initial;
use crate::vit::{Patches, Running, Vit};

/// What is measured.
#[derive(Debug, Clone)]
pub struct PlainStep {
    /// The network.
    pub vit: VitConfig,
    /// Depth of each image; 1 for pictures.
    pub depth: usize,
    /// Height and width of each image.
    pub side: usize,
    /// Images a step.
    pub batch: usize,
    /// Where it runs.
    pub device: Device,
    /// The numbers of products.
    pub precision: TrainPrecision,
    /// Keeps only the input of each block for the backward pass.
    pub recompute: bool,
}

impl PlainStep {
    /// Returns a closure that runs one step: all tokens of a batch, the mean of their squares as the
    /// loss, every gradient, and `AdamW`; it returns the loss.
    ///
    /// # Errors
    /// `Encoder` if the sizes do not fit; `Config` for a device that this build has not.
    pub fn ready(&self) -> Result<Box<dyn FnMut() -> f64>> {
        self.vit.validate()?;
        match self.device {
            Device::Cpu => self.on::<Flex>(&Default::default()),
            #[cfg(feature = "cuda")]
            Device::Cuda => self.on::<burn::backend::Cuda>(&Default::default()),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => Err(crate::error::Error::config(
                "device",
                "cpu, or a program built with --features cuda",
                "cuda",
            )),
        }
    }

    fn on<B: VitBackend>(&self, device: &B::Device) -> Result<Box<dyn FnMut() -> f64>> {
        let shape = [3, self.depth, self.side, self.side];
        let n_values: usize = shape.iter().product();
        #[allow(clippy::cast_precision_loss, reason = "below 101")]
        let values = (0..n_values).map(|i| (i * 37 % 101) as f32 / 100.0);
        let image = Input::new(values.collect(), shape)?;
        m3ret_encoder::grid_of(shape, self.vit.patch)?;
        let mut vit = Vit::<B>::new(&self.vit, &mut Initial::new(0, device));
        let mut adam = AdamW::new();
        let running = Running {
            precision: self.precision,
            recompute: self.recompute,
            ..Running::plain(self.vit.num_heads)
        };
        let (config, batch) = (self.vit.clone(), self.batch);
        let step = Step {
            lr: 1e-4,
            weight_decay: 0.05,
            betas: [0.9, 0.95],
            clip: 0.0,
        };
        Ok(Box::new(move || {
            let images = vec![&image; batch];
            let patches = Patches::cut(&images, &config, None).expect("the grid was checked");
            let student = parameters::tracked::<Autodiff<B>, _>(&vit);
            let tokens = student.forward(&patches, &config, None, &running);
            let loss = tokens.powi_scalar(2).mean();
            let gradients = parameters::gradients(&student, loss.clone().backward());
            drop(student);
            let (next, _) = adam.step(vit.clone(), gradients, &step);
            vit = next;
            numbers(loss).first().copied().map_or(f64::NAN, f64::from)
        }))
    }
}
