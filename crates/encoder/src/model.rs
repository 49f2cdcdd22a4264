//! A model: how a `Volume` becomes its input, and how the input becomes a unit vector.

use m3ret_imaging::{Input, InputConfig, Volume, prepare};

use crate::config::{ModelConfig, VitConfig};
use crate::error::{Error, Result};
use crate::kernels::{Kernels, Precision};
use crate::random;
use crate::vit::{Tokens, View, Vit};

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunOptions {
    /// The numbers that products are computed with; `None` takes the fastest of f32 and bf16 that
    /// this CPU computes in hardware.
    pub precision: Option<Precision>,
    /// A fixed number of threads, in a pool of its own; `None` shares rayon's global pool.
    pub n_threads: Option<usize>,
}

/// Turns objects into unit vectors.
#[derive(Debug)]
pub struct Model {
    name: String,
    fingerprint: String,
    precision: Precision,
    vit: Vit,
    input: InputConfig,
    pool: Option<rayon::ThreadPool>,
}

/// An object ready for one model: one input of the network, or several whose vectors are
/// averaged (slices or frames, where the model sees only 2D).
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    inputs: Vec<Input>,
}

impl Prepared {
    /// Returns the network's inputs, f32 [C, D, H, W] each.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }
}

impl Model {
    /// Makes a network of a preset's sizes with random weights, the same for the same seed: what
    /// a trained network is to be compared with.
    ///
    /// # Errors
    /// `Mismatch` for a preset that does not exist; `Io` if no threads can be started.
    pub fn random(preset: &str, seed: u64, options: &RunOptions) -> Result<Self> {
        let sizes = VitConfig::named(preset).ok_or_else(|| {
            Error::mismatch("random:PRESET", "tiny, small, base or large", preset)
        })?;
        let config = ModelConfig::new(sizes);
        let kernels = Kernels::detect();
        let precision = options
            .precision
            .unwrap_or_else(|| kernels.fastest_precision());
        Ok(Self {
            name: format!("random:{preset}"),
            fingerprint: format!("random:{preset}:{seed}"),
            precision,
            vit: random::vit(kernels, precision, &config, seed),
            input: config.input,
            pool: start_pool(options.n_threads)?,
        })
    }

    /// Returns the name that the model was asked for by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what tells this encoder and input config from every other: vectors of different
    /// fingerprints cannot be compared. Precision is not part of it.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns the precision that the model runs in.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Returns the length of a vector.
    #[must_use]
    pub fn width(&self) -> usize {
        self.vit.width()
    }

    /// Prepares one object for `embed`, as the model's config says.
    ///
    /// # Errors
    /// As `m3ret_imaging::prepare`.
    pub fn prepare(&self, volume: &Volume) -> Result<Prepared> {
        let inputs = vec![prepare(volume, &self.input)?];
        Ok(Prepared { inputs })
    }

    /// Returns one unit vector for each object, in their order, whatever their grids.
    ///
    /// # Errors
    /// `Mismatch` if an object was prepared for another model, or has no direction: its vector
    /// is zero or not finite.
    pub fn embed(&self, objects: &[&Prepared]) -> Result<Vec<Vec<f32>>> {
        let views: Vec<_> = objects
            .iter()
            .flat_map(|object| &object.inputs)
            .map(|input| View {
                input,
                left_out: &[],
            })
            .collect();
        let tokens = self.tokens(&views)?;
        let mut vectors = tokens.iter().map(|tokens| self.vit.embedding(tokens));
        objects
            .iter()
            .map(|object| {
                let mut total = vec![0.0; self.width()];
                for mut vector in vectors.by_ref().take(object.inputs.len()) {
                    make_unit(&mut vector)?;
                    total.iter_mut().zip(&vector).for_each(|(sum, x)| *sum += x);
                }
                make_unit(&mut total)?;
                Ok(total)
            })
            .collect()
    }

    /// Returns all tokens of each view, in their order.
    ///
    /// # Errors
    /// `Mismatch` if a view does not fit the model.
    pub fn tokens(&self, views: &[View<'_>]) -> Result<Vec<Tokens>> {
        match &self.pool {
            Some(pool) => pool.install(|| self.vit.tokens(views)),
            None => self.vit.tokens(views),
        }
    }
}

fn start_pool(n_threads: Option<usize>) -> Result<Option<rayon::ThreadPool>> {
    let Some(n_threads) = n_threads else {
        return Ok(None);
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .build();
    let pool = pool.map_err(|error| {
        Error::io(
            format!("starting {n_threads} threads"),
            std::io::Error::other(error),
        )
    })?;
    Ok(Some(pool))
}

/// Scales a vector to length 1.
///
/// # Errors
/// `Mismatch` if it is zero or not finite.
fn make_unit(vector: &mut [f32]) -> Result<()> {
    let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let norm = squares.sqrt();
    if !norm.is_finite() || norm < 1e-12 {
        return Err(Error::mismatch(
            "vector of the object",
            "a direction",
            if norm.is_finite() {
                "zero"
            } else {
                "values that are not finite"
            },
        ));
    }
    #[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
    vector
        .iter_mut()
        .for_each(|x| *x = (f64::from(*x) / norm) as f32);
    Ok(())
}
