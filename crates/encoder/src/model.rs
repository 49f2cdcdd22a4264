//! A model: how a `Volume` becomes its input, and how the input becomes a unit vector.

use std::path::Path;

use m3ret_imaging::{Input, InputConfig, Volume};

use crate::config::{ModelConfig, VitConfig};
use crate::error::{Error, Result};
use crate::family::{self, ModelParts};
use crate::hog;
use crate::kernels::{CpuPack, Kernels, Precision};
use crate::pack::Pack;
use crate::preprocess::{PREPARATION_VERSION, Preparation, THUMBNAIL};
use crate::random;
use crate::vit::{CpuVit, Tokens, View};

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunOptions {
    /// The numbers that products are computed with; `None` takes the fastest of f32 and bf16 that
    /// this CPU computes in hardware.
    pub precision: Option<Precision>,
    /// A fixed number of threads in a separate pool; `None` shares rayon's global pool.
    pub n_threads: Option<usize>,
}

/// Turns objects into unit vectors.
#[derive(Debug)]
pub struct Model {
    name: String,
    fingerprint: String,
    precision: Precision,
    network: Network,
    preparation: Preparation,
    pool: Option<rayon::ThreadPool>,
}

/// The step from an input to a vector.
#[derive(Debug)]
enum Network {
    Vit(Box<CpuVit>),
    /// The thumbnail itself, mean removed.
    Pixels,
    /// Histograms of oriented gradients, as `hog` defines them.
    Hog,
}

/// An object ready for one model: one input of the network, or several whose vectors are
/// averaged (slices or frames, where the model sees only 2D).
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    inputs: Vec<Input>,
}

impl Prepared {
    /// Takes inputs that were prepared elsewhere, as the model's own library does it.
    #[must_use]
    pub fn new(inputs: Vec<Input>) -> Self {
        Self { inputs }
    }

    /// Returns the network's inputs, f32 [C, D, H, W] each.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }
}

/// A model of ours whose files are part of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelBytes {
    /// What the model is called, as a folder would be.
    pub name: &'static str,
    /// `config.json`.
    pub config: &'static [u8],
    /// `model.safetensors`.
    pub weights: &'static [u8],
}

impl Model {
    /// Opens a model folder: ours, or as a public library saves it; docs/models.md lists which.
    ///
    /// # Errors
    /// `Io` if a file cannot be read or no threads can be started; `Malformed` if the files break
    /// their formats or do not fit each other; `Unsupported` if the family is not known or the
    /// weights are there only as a pickle.
    pub fn open(folder: &Path, options: &RunOptions) -> Result<Self> {
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        let name = name.to_string_lossy().into_owned();
        Self::assemble(name, options, |pack| family::open(folder, pack))
    }

    /// Opens a model of ours that is part of the program.
    ///
    /// # Errors
    /// `Io` if no threads can be started; `Malformed` or `Unsupported` as `open`.
    pub fn from_bytes(model: &ModelBytes, options: &RunOptions) -> Result<Self> {
        let name = model.name.to_owned();
        Self::assemble(name, options, |pack| family::open_bytes(model, pack))
    }

    fn assemble(
        name: String,
        options: &RunOptions,
        open: impl FnOnce(CpuPack) -> Result<ModelParts<<CpuPack as Pack>::Layer>>,
    ) -> Result<Self> {
        let kernels = Kernels::detect();
        let precision = options
            .precision
            .unwrap_or_else(|| kernels.fastest_precision());
        let parts = open(CpuPack { precision })?;
        let vit = CpuVit {
            vit: parts.vit,
            kernels,
        };
        Ok(Self {
            name,
            fingerprint: parts.fingerprint,
            precision,
            network: Network::Vit(Box::new(vit)),
            preparation: parts.preparation,
            pool: start_pool(options.n_threads)?,
        })
    }

    /// Returns the model that compares pictures by their pixels: a 32x32 grey thumbnail of the
    /// central slice or frame, mean removed, of unit length. It is the baseline of every network.
    #[must_use]
    pub fn pixels() -> Self {
        Self {
            name: "pixels".to_owned(),
            fingerprint: format!("pixels:{THUMBNAIL}:{PREPARATION_VERSION}"),
            precision: Precision::F32,
            network: Network::Pixels,
            preparation: Preparation::Pixels,
            pool: None,
        }
    }

    /// Returns the model that compares pictures by their gradients: 576 numbers, 8 x 8 cells of 9
    /// unsigned orientations. It has no learned weights. `hog` has the formulas.
    ///
    /// The input is that of our own networks at side 64, at most 16 planes deep.
    #[must_use]
    pub fn hog() -> Self {
        let input = InputConfig {
            side: [hog::SIDE; 2],
            max_depth: HOG_MAX_DEPTH,
            ..InputConfig::default()
        };
        Self {
            name: "hog".to_owned(),
            fingerprint: format!("hog:{}:{}:{PREPARATION_VERSION}", hog::SIDE, hog::VERSION),
            precision: Precision::F32,
            network: Network::Hog,
            preparation: Preparation::Ours(input),
            pool: None,
        }
    }

    /// Makes a network of a preset's sizes with random weights, the same for the same seed; a
    /// baseline for trained networks.
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
        let vit = CpuVit {
            vit: random::vit(CpuPack { precision }, &config, seed),
            kernels,
        };
        Ok(Self {
            name: match seed {
                0 => format!("random:{preset}"),
                seed => format!("random:{preset}:{seed}"),
            },
            fingerprint: random_fingerprint(preset, seed, &config)?,
            precision,
            network: Network::Vit(Box::new(vit)),
            preparation: Preparation::Ours(config.input),
            pool: start_pool(options.n_threads)?,
        })
    }

    /// Returns the last part of the folder's path, or the built-in's name: `pixels`, `hog`,
    /// `random:PRESET`, and `random:PRESET:SEED` where the seed is not 0.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a hash of the weights and the input config: vectors of different fingerprints cannot
    /// be compared. Precision is not part of it.
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
        match &self.network {
            Network::Vit(vit) => vit.width(),
            Network::Pixels => THUMBNAIL * THUMBNAIL,
            Network::Hog => hog::WIDTH,
        }
    }

    /// Prepares one object for `embed`, as the model's config says.
    ///
    /// A model of 2D pictures gets up to 16 slices or frames, those in the middle of equal parts.
    ///
    /// # Errors
    /// As `m3ret_imaging::prepare`; `Mismatch` or `LimitExceeded` if the object's shape leaves no
    /// patch, or too many.
    pub fn prepare(&self, volume: &Volume) -> Result<Prepared> {
        let inputs = self.preparation.prepare(volume)?;
        Ok(Prepared { inputs })
    }

    /// Returns one unit vector for each object, in their order; their grids may differ.
    ///
    /// # Shapes
    /// B objects -> B vectors of `width` values.
    ///
    /// # Errors
    /// `Mismatch` if an object was prepared for another model, or has no direction: its vector
    /// is zero or not finite.
    pub fn embed(&self, objects: &[&Prepared]) -> Result<Vec<Vec<f32>>> {
        let inputs = objects.iter().flat_map(|object| &object.inputs);
        let vectors = match &self.network {
            Network::Vit(vit) => {
                let views = inputs.map(|input| View {
                    input,
                    left_out: &[],
                });
                let views: Vec<_> = views.collect();
                self.install(|| {
                    let tokens = vit.tokens(&views)?;
                    Ok(tokens.iter().map(|tokens| vit.embedding(tokens)).collect())
                })?
            }
            Network::Pixels => inputs.map(without_mean).collect::<Result<Vec<_>>>()?,
            Network::Hog => inputs.map(hog::descriptor).collect::<Result<Vec<_>>>()?,
        };
        let mut vectors = vectors.into_iter();
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
    /// `Mismatch` if a view does not fit the model; `Unsupported` if the model is `pixels` or
    /// `hog`, which have no tokens.
    pub fn tokens(&self, views: &[View<'_>]) -> Result<Vec<Tokens>> {
        let vit = self.vit()?;
        self.install(|| vit.tokens(views))
    }

    /// Returns all tokens of each view with its unit vector, in their order, for example to see how
    /// an object's vector changes when patches are left out.
    ///
    /// # Errors
    /// As `tokens`; `Mismatch` if a vector is zero or not finite.
    pub fn look(&self, views: &[View<'_>]) -> Result<Vec<(Tokens, Vec<f32>)>> {
        let vit = self.vit()?;
        self.install(|| {
            let seen = vit.tokens(views)?.into_iter().map(|tokens| {
                let mut vector = vit.embedding(&tokens);
                make_unit(&mut vector)?;
                Ok((tokens, vector))
            });
            seen.collect()
        })
    }

    /// Returns the network, if the model has one.
    fn vit(&self) -> Result<&CpuVit> {
        match &self.network {
            Network::Vit(vit) => Ok(vit),
            Network::Pixels | Network::Hog => Err(Error::unsupported(
                format!("a token of the model {}", self.name),
                "take a model with a network",
            )),
        }
    }

    /// Runs work on the model's own threads, or on the caller's if it has none.
    fn install<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

/// Returns the fingerprint of a random network: preset, seed, and a digest of its config.
fn random_fingerprint(preset: &str, seed: u64, config: &ModelConfig) -> Result<String> {
    let recipe = serde_json::to_string(&(PREPARATION_VERSION, config))
        .map_err(|error| Error::io("writing the config of a random network", error.into()))?;
    let digest = xxhash_rust::xxh3::xxh3_128(recipe.as_bytes());
    Ok(format!("random:{preset}:{seed}:{digest:032x}"))
}

/// Planes of the input of `hog`: as many as m3ret-tiny sees.
const HOG_MAX_DEPTH: usize = 16;

/// The largest contrast that f32 resampling gives a constant picture: less than a hundredth of an
/// 8-bit step.
const NO_CONTRAST: f64 = 1e-5;

/// Returns a thumbnail's values less their mean; of a constant picture, zeros.
fn without_mean(input: &Input) -> Result<Vec<f32>> {
    let values = input.values();
    if values.len() != THUMBNAIL * THUMBNAIL {
        return Err(Error::mismatch(
            "input of the model pixels",
            format!("{THUMBNAIL} x {THUMBNAIL} values"),
            format!("{:?}", input.shape()),
        ));
    }
    #[allow(clippy::cast_precision_loss, reason = "1024 is exact")]
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
    let contrast = values.iter().map(|&x| (f64::from(x) - mean).abs());
    if contrast.fold(0.0, f64::max) < NO_CONTRAST {
        return Ok(vec![0.0; values.len()]);
    }
    #[allow(clippy::cast_possible_truncation, reason = "the one rounding to f32")]
    let centred = values.iter().map(|&x| (f64::from(x) - mean) as f32);
    Ok(centred.collect())
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

#[cfg(test)]
mod tests {
    use m3ret_imaging::Kind;

    use super::*;

    fn wave(shape: [usize; 4], phase: f32) -> Volume {
        let n = shape.iter().product::<usize>();
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let values = (0..n).map(|i| (i as f32 * 0.37 + phase).sin()).collect();
        Volume::new(values, shape, Kind::Volume).unwrap()
    }

    fn embed(model: &Model, volume: &Volume) -> Result<Vec<f32>> {
        let prepared = model.prepare(volume)?;
        Ok(model.embed(&[&prepared])?.remove(0))
    }

    #[test]
    fn pixels_compares_the_central_plane_without_its_mean() {
        let model = Model::pixels();
        let vector = embed(&model, &wave([1, 5, 40, 50], 0.0)).unwrap();
        assert_eq!(vector.len(), model.width());
        let sum: f32 = vector.iter().sum();
        let norm: f32 = vector.iter().map(|x| x * x).sum();
        assert!(
            sum.abs() < 1e-4 && (norm - 1.0).abs() < 1e-5,
            "{sum} {norm}"
        );

        let whole = wave([1, 5, 40, 50], 0.0);
        let plane = whole.plane(0, 2).unwrap().to_vec();
        let plane = Volume::new(plane, [1, 1, 40, 50], Kind::Image).unwrap();
        let alone = embed(&model, &plane).unwrap();
        let cosine: f32 = vector.iter().zip(alone).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.999, "{cosine}");
    }

    #[test]
    fn hog_is_a_unit_vector_that_a_negative_shares() {
        let model = Model::hog();
        assert_eq!((model.name(), model.width()), ("hog", 576));
        for shape in [[1, 1, 40, 50], [3, 1, 64, 64], [1, 9, 30, 30]] {
            // Square, so that no padding stands beside the negative.
            let [channels, depth, side, _] = shape;
            let positive = wave([channels, depth, side, side], 0.0);
            let values = positive.values().iter().map(|x| -x).collect();
            let negative = Volume::new(values, positive.shape(), Kind::Volume).unwrap();
            let [a, b] = [&positive, &negative].map(|volume| embed(&model, volume).unwrap());
            let [norm, cosine] =
                [(&a, &a), (&a, &b)].map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
            assert!((norm - 1.0).abs() < 1e-5, "{norm}");
            // Scaling a negative to 0..=1 rounds differently.
            assert!(cosine > 0.999, "{cosine}");
        }
    }

    #[test]
    fn a_constant_picture_has_no_vector() {
        for (model, value) in [Model::pixels(), Model::hog()]
            .iter()
            .flat_map(|model| [0.0, 1.0, 0.1, -1000.0].map(|value| (model, value)))
        {
            let constant = Volume::new(vec![value; 35], [1, 1, 5, 7], Kind::Image).unwrap();
            assert!(matches!(
                embed(model, &constant),
                Err(Error::Mismatch { .. })
            ));
        }
        let model = Model::pixels();
        // A constant plane between others is scaled to something else than 0.
        let mut values = vec![0.3; 3 * 35];
        (values[0], values[104]) = (0.0, 1.0);
        let middle = Volume::new(values, [1, 3, 5, 7], Kind::Volume).unwrap();
        assert!(embed(&model, &middle).is_err());
    }

    #[test]
    fn pixels_and_hog_have_no_tokens_and_take_no_input_of_networks() {
        for model in [Model::pixels(), Model::hog()] {
            let input = Input::new(vec![0.0; 12], [3, 1, 2, 2]).unwrap();
            let view = View {
                input: &input,
                left_out: &[],
            };
            let message = model.tokens(&[view]).unwrap_err().to_string();
            assert!(message.contains(model.name()), "{message}");
            assert!(model.embed(&[&Prepared::new(vec![input])]).is_err());
        }
    }

    #[test]
    fn precisions_of_a_random_network_agree() {
        let [exact, bf16, int8] = [Precision::F32, Precision::Bf16, Precision::Int8].map(|p| {
            let options = RunOptions {
                precision: Some(p),
                n_threads: None,
            };
            let model = Model::random("tiny", 1, &options).unwrap();
            embed(&model, &wave([1, 8, 60, 60], 0.5)).unwrap()
        });
        let cosine = |other: &[f32]| exact.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        assert!(cosine(&bf16) >= 0.999, "{}", cosine(&bf16));
        assert!(cosine(&int8) >= 0.99, "{}", cosine(&int8));
    }

    #[test]
    fn random_networks_of_other_seeds_have_other_names() {
        let named = |seed| {
            let model = Model::random("tiny", seed, &RunOptions::default()).unwrap();
            model.name().to_owned()
        };
        assert_eq!([named(0), named(3)], ["random:tiny", "random:tiny:3"]);
    }

    #[test]
    fn fingerprints_of_what_is_built_in_hold_version_and_config() {
        let version = PREPARATION_VERSION;
        assert_eq!(
            Model::pixels().fingerprint(),
            format!("pixels:32:{version}")
        );
        assert_eq!(Model::hog().fingerprint(), format!("hog:64:1:{version}"));
        let config = ModelConfig::new(VitConfig::tiny());
        let mut other = config.clone();
        other.embedding = crate::config::Pooling::Mean;
        let [first, second] =
            [&config, &other].map(|config| random_fingerprint("tiny", 3, config).unwrap());
        assert!(first.starts_with("random:tiny:3:"), "{first}");
        assert_ne!(first, second);
    }

    #[test]
    fn slices_are_averaged_as_unit_vectors_in_the_order_of_objects() {
        let options = RunOptions {
            precision: Some(Precision::F32),
            n_threads: Some(1),
        };
        let model = Model::random("tiny", 1, &options).unwrap();
        let one = model.prepare(&wave([1, 1, 40, 40], 0.0)).unwrap();
        let two = model.prepare(&wave([1, 1, 40, 40], 2.0)).unwrap();
        let both = Prepared::new([one.inputs(), two.inputs()].concat());
        let found = model.embed(&[&one, &both, &two]).unwrap();
        let mut mean: Vec<f32> = found[0].iter().zip(&found[2]).map(|(a, b)| a + b).collect();
        make_unit(&mut mean).unwrap();
        for (found, wanted) in found[1].iter().zip(mean) {
            assert!((found - wanted).abs() < 1e-5);
        }
        assert!(model.embed(&[&Prepared::new(Vec::new())]).is_err());
    }
}
