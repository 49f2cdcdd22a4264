//! SimDINO: self-distillation whose only regulariser is the coding rate (Wu et al. 2025, v1), and the
//! alignment of masked patches of its second version.
//!
//! The coding rate is a statistic of the whole batch, so this module computes the loss from the vectors of
//! all micro-batches and devices, in f64, with its gradient in closed form. The backward passes of the
//! networks start from that gradient.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData, activation};
use m3ret_encoder::VitConfig;

use crate::config::SimDinoSettings;
use crate::ops::VitBackend;
use crate::random::Initial;
use crate::vit::{Linear, Patches, Running, Vit};

/// Vectors are divided by at least this.
const NORM_EPS: f32 = 1e-12;

/// Three linear layers with GELU between, to a unit vector.
#[derive(Module, Debug)]
pub(crate) struct Head<B: Backend> {
    mlp: Vec<Linear<B>>,
}

/// Backbone and head, the network of the student and of the teacher.
#[derive(Module, Debug)]
pub(crate) struct SimDino<B: Backend> {
    encoder: Vit<B>,
    head: Head<B>,
    /// Replaces masked patches; absent where the loss does not align them.
    mask_token: Option<Param<Tensor<B, 3>>>,
}

/// The unit vectors that one pass computes; `p` is the width of the head.
#[derive(Debug, Clone)]
pub(crate) struct Projected<B: Backend> {
    /// Vectors of the CLS tokens, `[images, p]`.
    pub(crate) cls: Tensor<B, 2>,
    /// Vectors of the masked patches, `[masked patches of all images, p]`, where they are projected.
    pub(crate) patches: Option<Tensor<B, 2>>,
}

/// What a pass does with the masked patches of its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaskedPatches {
    /// The network sees the mask token in their place, as the student does.
    pub(crate) are_hidden: bool,
    /// Their vectors are wanted as well as those of CLS.
    pub(crate) are_projected: bool,
}

impl<B: Backend> Head<B> {
    pub(crate) fn new(width: usize, settings: &SimDinoSettings, initial: &mut Initial<B>) -> Self {
        let (hidden, out) = (settings.head_hidden, settings.head_out);
        Self {
            mlp: [[hidden, width], [hidden, hidden], [out, hidden]]
                .map(|shape| Linear::new(shape, initial))
                .to_vec(),
        }
    }

    /// Projects tokens to unit vectors. Computes in f32 at any precision: the head is small, and its vectors
    /// enter a log-determinant.
    ///
    /// # Shapes
    /// `[rows, E]` -> `[rows, p]`
    pub(crate) fn forward(&self, rows: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: VitBackend,
    {
        // [rows, E] -> [rows, hidden] -> [rows, hidden] -> [rows, p]: the GELU stands between two layers, so
        // neither the tokens nor the vectors pass through one.
        let raw = self.mlp.iter().enumerate().fold(rows, |rows, (i, layer)| {
            let rows = if i == 0 { rows } else { activation::gelu(rows) };
            layer.forward(rows, crate::config::TrainPrecision::F32)
        });
        unit(raw)
    }
}

/// Divides each row by its norm.
pub(crate) fn unit<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let norm = rows.clone().powi_scalar(2).sum_dim(1).sqrt();
    rows / norm.clamp_min(NORM_EPS)
}

impl<B: Backend> SimDino<B> {
    pub(crate) fn new(
        config: &VitConfig,
        settings: &SimDinoSettings,
        initial: &mut Initial<B>,
    ) -> Self {
        Self {
            encoder: Vit::new(config, initial),
            head: Head::new(config.embed_dim, settings, initial),
            mask_token: (settings.patch_weight > 0.0)
                .then(|| initial.normal([1, 1, config.embed_dim])),
        }
    }

    pub(crate) fn encoder(&self) -> &Vit<B> {
        &self.encoder
    }
}

impl<B: VitBackend> SimDino<B> {
    /// Projects CLS and, where wanted, the masked patches.
    pub(crate) fn forward(
        &self,
        patches: &Patches,
        config: &VitConfig,
        running: &Running,
        masked: MaskedPatches,
    ) -> Projected<B> {
        // The teacher, and a job without masked patches, run without the token.
        let token = if masked.are_hidden && !patches.masked.is_empty() {
            self.mask_token.as_ref().map(Param::val)
        } else {
            None
        };
        // [images, CLS + registers + patches, E]
        let tokens = self.encoder.forward(patches, config, token, running);
        let [n_images, n_tokens, width] = tokens.dims();
        // [images, E]: the coding rate is of whole images, for which CLS stands.
        let cls = tokens
            .clone()
            .slice([0..n_images, 0..1])
            .reshape([n_images, width]);
        let wanted: &[usize] = if masked.are_projected {
            &patches.masked
        } else {
            &[]
        };
        let patch_vectors = (!wanted.is_empty()).then(|| {
            // `wanted` numbers the patches of all images one after another. The rows of `tokens` also hold
            // each image's CLS and registers, so every number is moved behind those of its own image.
            let n_prefix = self.encoder.n_prefix();
            let n_patches = n_tokens - n_prefix;
            let rows: Vec<i32> = wanted
                .iter()
                .map(|&row| {
                    let (image, patch) = (row / n_patches, row % n_patches);
                    i32::try_from(image * n_tokens + n_prefix + patch).unwrap_or(i32::MAX)
                })
                .collect();
            let device = tokens.device();
            let rows = Tensor::<B, 1, Int>::from_data(TensorData::from(rows.as_slice()), &device);
            // [images * tokens, E] -> [wanted, E] -> [wanted, p]: only the wanted rows pass through the head.
            let tokens = tokens.reshape([n_images * n_tokens, width]);
            self.head.forward(tokens.select(0, rows))
        });
        Projected {
            cls: self.head.forward(cls),
            patches: patch_vectors,
        }
    }
}

/// The constants of the loss, with the names of the reference code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Constants {
    /// `epsilon^2` in the paper, the distortion of the coding rate.
    pub(crate) eps: f64,
    /// Weight of the alignment.
    pub(crate) coeff: f64,
    /// 0: the rate is of the student's vectors; otherwise of the means of student and teacher.
    pub(crate) expa_type: u8,
    /// Devices that each compute a rate of their own: 1, except in comparisons with the reference code.
    pub(crate) n_devices: f64,
}

/// Unit vectors of a batch in f64, the two large views first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vectors {
    /// `[views, m, p]`
    pub(crate) values: Vec<f64>,
    /// `m`, the images of the batch.
    pub(crate) n_images: usize,
    /// `p`, the width of the head.
    pub(crate) width: usize,
}

impl Vectors {
    fn view(&self, view: usize) -> &[f64] {
        let n_values = self.n_images * self.width;
        &self.values[view * n_values..(view + 1) * n_values]
    }

    pub(crate) fn n_views(&self) -> usize {
        self.values.len() / (self.n_images * self.width)
    }
}

/// The loss of a batch and its gradient.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loss {
    /// `-coeff A - R`
    pub(crate) total: f64,
    /// Mean cosine of student and teacher over different views.
    pub(crate) alignment: f64,
    /// `R`
    pub(crate) coding_rate: f64,
    /// Gradient of `total` for the student's vectors, `[views, m, p]`, as if their lengths were free: the
    /// division by the norm is a step of the network, and its backward pass accounts for it.
    pub(crate) gradient: Vec<f64>,
}

/// `alpha` and `gamma` of the coding rate of `m` vectors of width `p`.
#[allow(clippy::cast_precision_loss, reason = "batches and widths are small")]
pub(crate) fn alpha_gamma(m: usize, p: usize, constants: &Constants) -> (f64, f64) {
    let (m, p, n) = (m as f64, p as f64, constants.n_devices);
    (p / (m * n * constants.eps), (p + n * m) / (p * n * m))
}

/// Returns the coding rate of `m` equal vectors, and the largest that `m` vectors can have.
#[allow(clippy::cast_precision_loss, reason = "batches and widths are small")]
pub(crate) fn rate_limits(m: usize, p: usize, constants: &Constants) -> [f64; 2] {
    let (alpha, gamma) = alpha_gamma(m, p, constants);
    let (rank, m) = (m.min(p) as f64, m as f64);
    // The log-determinant is a sum over the eigenvalues of Z^T Z, which add up to m for unit vectors. Equal
    // vectors put all of m into one eigenvalue; the largest sum shares it evenly among as many as there can be.
    [
        0.5 * gamma * (alpha * m).ln_1p(),
        0.5 * gamma * rank * (alpha * m / rank).ln_1p(),
    ]
}

/// Computes the loss of a whole batch.
///
/// # Panics
/// Panics if student and teacher differ in images or width, or have fewer than two views.
///
/// # Source
/// SimDINO (Wu et al. 2025), eq. 5 to 7, with the rate of both large views averaged; `N = 1` because
/// the vectors of all devices are here.
pub(crate) fn loss(student: &Vectors, teacher: &Vectors, constants: &Constants) -> Loss {
    let (m, p, n_views) = (student.n_images, student.width, student.n_views());
    assert!(
        (teacher.n_images, teacher.width, teacher.n_views()) == (m, p, 2) && n_views >= 2,
        "views of student and teacher do not fit"
    );
    // [views, m, p], as the student's vectors: both terms subtract their parts from it.
    let mut gradient = vec![0.0; student.values.len()];
    let alignment = align(student, teacher, constants, &mut gradient);
    let (alpha, gamma) = alpha_gamma(m, p, constants);
    let mut coding_rate = 0.0;
    // The rate is the mean over the two large views, the only ones that the teacher sees too.
    for view in 0..2 {
        // A mean of student and teacher moves half as far as the student does.
        let share = if constants.expa_type == 0 { 1.0 } else { 0.5 };
        // Z in the paper, [m, p]
        let mut vectors: Vec<f64> = student.view(view).to_vec();
        if constants.expa_type != 0 {
            for (vector, taught) in vectors.iter_mut().zip(teacher.view(view)) {
                *vector = f64::midpoint(*vector, *taught);
            }
        }
        let factor = Factor::of(&vectors, p, alpha);
        // R is gamma times the mean over both views of 1/2 log det(I + alpha Z^T Z).
        coding_rate += gamma / 2.0 * 0.5 * factor.log_det();
        // The derivative of 1/2 log det(I + alpha Z^T Z) for Z is alpha Z (I + alpha Z^T Z)^-1. The matrix is
        // symmetric, so each row of that product is the solution of one system with the row of Z.
        let place = &mut gradient[view * m * p..(view + 1) * m * p];
        for (vector, place) in vectors.chunks_exact(p).zip(place.chunks_exact_mut(p)) {
            let solved = factor.solve(vector);
            for (place, solved) in place.iter_mut().zip(solved) {
                *place -= gamma / 2.0 * alpha * share * solved;
            }
        }
    }
    Loss {
        total: -constants.coeff * alignment - coding_rate,
        alignment,
        coding_rate,
        gradient,
    }
}

/// Returns the alignment, and subtracts `coeff` times its gradient from `gradient`.
#[allow(clippy::cast_precision_loss, reason = "batches are small")]
fn align(student: &Vectors, teacher: &Vectors, constants: &Constants, gradient: &mut [f64]) -> f64 {
    let n_values = student.n_images * student.width;
    let n_views = student.n_views();
    // Each of the teacher's two views meets all views of the student but its own.
    let n_terms = (student.n_images * (2 * n_views - 2)) as f64;
    let mut total = 0.0;
    for view in 0..n_views {
        // [m, p]. The alignment is linear in the student's vectors, so its gradient is the teacher's vector.
        let place = &mut gradient[view * n_values..(view + 1) * n_values];
        for taught in (0..2).filter(|&taught| taught != view) {
            let taught = teacher.view(taught);
            total += student
                .view(view)
                .iter()
                .zip(taught)
                .map(|(s, t)| s * t)
                .sum::<f64>();
            for (place, taught) in place.iter_mut().zip(taught) {
                *place -= constants.coeff * taught / n_terms;
            }
        }
    }
    total / n_terms
}

/// The Cholesky factor `L` of `I + alpha Z^T Z`, from which determinant and solutions follow.
struct Factor {
    /// `[p, p]`, row by row; above the diagonal it holds zeros.
    lower: Vec<f64>,
    /// Width of the vectors.
    p: usize,
}

impl Factor {
    fn of(vectors: &[f64], p: usize, alpha: f64) -> Self {
        // The lower triangle of alpha Z^T Z, [p, p], as a sum over the m vectors in their order. The matrix is
        // symmetric, so the upper triangle would hold nothing new.
        let mut lower = vec![0.0; p * p];
        for vector in vectors.chunks_exact(p) {
            for (i, row) in lower.chunks_exact_mut(p).enumerate() {
                let scaled = alpha * vector[i];
                for (sum, value) in row[..=i].iter_mut().zip(vector) {
                    *sum += scaled * value;
                }
            }
        }
        // L replaces the matrix row by row: an entry needs only entries of L above it and to its left, which
        // are in place when their turn comes.
        for i in 0..p {
            lower[i * p + i] += 1.0;
            for j in 0..=i {
                let (row_i, row_j) = (&lower[i * p..i * p + j], &lower[j * p..j * p + j]);
                let known: f64 = row_i.iter().zip(row_j).map(|(a, b)| a * b).sum();
                let rest = lower[i * p + j] - known;
                // I plus a positive semidefinite matrix: up to rounding, the number under the root is 1 or more.
                lower[i * p + j] = if i == j {
                    rest.sqrt()
                } else {
                    rest / lower[j * p + j]
                };
            }
        }
        Self { lower, p }
    }

    /// Returns `log det(I + alpha Z^T Z)`: the determinant is the square of that of `L`.
    fn log_det(&self) -> f64 {
        (0..self.p)
            .map(|i| 2.0 * self.lower[i * self.p + i].ln())
            .sum()
    }

    /// Returns `x` with `(I + alpha Z^T Z) x = right`.
    fn solve(&self, right: &[f64]) -> Vec<f64> {
        let (lower, p) = (&self.lower, self.p);
        let mut x = right.to_vec();
        // L y = right, from the first unknown on; `x` holds y.
        for i in 0..p {
            let known: f64 = lower[i * p..i * p + i]
                .iter()
                .zip(&x)
                .map(|(l, x)| l * x)
                .sum();
            x[i] = (x[i] - known) / lower[i * p + i];
        }
        // L^T x = y, from the last unknown on. A column of L^T is a row of L: subtracting a known unknown from
        // all others at once reads memory in order.
        for i in (0..p).rev() {
            x[i] /= lower[i * p + i];
            let (value, row) = (x[i], &lower[i * p..i * p + i]);
            for (x, l) in x.iter_mut().zip(row) {
                *x -= l * value;
            }
        }
        x
    }
}
