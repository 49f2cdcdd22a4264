//! Learned position tables, resized to other grids as the public libraries do.

use super::{Resize, Table, as_f64, rounded};

/// Where one output position takes its values from: first index and weights, clamped at borders.
struct Taps {
    sources: Vec<(usize, f64)>,
}

impl Table {
    /// Keeps the positions of the grid that most objects will have, so that they are resized once.
    pub(crate) fn expect(&mut self, grid: [usize; 3], embed_dim: usize) {
        if grid != self.grid {
            self.usual = Some((grid, self.resized(grid, embed_dim)));
        }
    }

    /// Returns the positions of a grid, [N, E].
    pub(super) fn resized(&self, grid: [usize; 3], embed_dim: usize) -> Vec<f32> {
        if grid == self.grid {
            return self.values.clone();
        }
        if let Some((_, values)) = self.usual.as_ref().filter(|(usual, _)| *usual == grid) {
            return values.clone();
        }
        let Resize::Bicubic { antialias } = self.resize;
        let [from_depth, from_rows, from_columns] = self.grid;
        let [depth, n_rows, n_columns] = grid;
        let values = self.values.iter().map(|&value| f64::from(value)).collect();
        let mut axis = Axis {
            values,
            inner: from_columns * embed_dim,
            antialias,
        };
        axis.resize(from_rows, n_rows);
        axis.inner = embed_dim;
        axis.resize(from_columns, n_columns);
        axis.inner = n_rows * n_columns * embed_dim;
        axis.resize(from_depth, depth);
        axis.values.into_iter().map(rounded).collect()
    }
}

/// Values [outer, n, inner] that are resized along `n`.
struct Axis {
    values: Vec<f64>,
    inner: usize,
    antialias: bool,
}

impl Axis {
    fn resize(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let taps = taps(from, to, self.antialias);
        let inner = self.inner;
        let mut resized = Vec::with_capacity(self.values.len() / from * to);
        let mut sums = vec![0.0; inner];
        for outer in self.values.chunks_exact(from * inner) {
            for taps in &taps {
                sums.fill(0.0);
                for &(source, weight) in &taps.sources {
                    let line = &outer[source * inner..][..inner];
                    for (sum, value) in sums.iter_mut().zip(line) {
                        *sum += weight * value;
                    }
                }
                resized.extend_from_slice(&sums);
            }
        }
        self.values = resized;
    }
}

/// Returns the taps of every output position along one axis.
fn taps(from: usize, to: usize, antialias: bool) -> Vec<Taps> {
    let scale = as_f64(from) / as_f64(to);
    (0..to)
        .map(|i| {
            let centre = scale * (as_f64(i) + 0.5);
            if antialias {
                widened(from, centre, scale)
            } else {
                four(from, centre - 0.5)
            }
        })
        .collect()
}

/// Four neighbours around a coordinate, those outside taken from the border; a = -0.75.
fn four(from: usize, coordinate: f64) -> Taps {
    let first = coordinate.floor();
    let sources = [-1.0, 0.0, 1.0, 2.0].map(|step| {
        let weight = cubic(first + step - coordinate, -0.75);
        (as_index(first + step, from), weight)
    });
    Taps {
        sources: sources.to_vec(),
    }
}

/// Neighbours within the support, which widens where the axis shrinks; those outside are left
/// out and the others weigh more; a = -0.5.
fn widened(from: usize, centre: f64, scale: f64) -> Taps {
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let first = as_index(centre - support + 0.5, from);
    // One past the last.
    let end = as_index((centre + support + 0.5).floor() - 1.0, from) + 1;
    let weights = (first..end).map(|j| cubic((as_f64(j) - centre + 0.5) / stretch, -0.5));
    let total: f64 = weights.clone().sum();
    Taps {
        sources: (first..end)
            .zip(weights)
            .map(|(j, w)| (j, w / total))
            .collect(),
    }
}

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the axis"
)]
fn as_index(coordinate: f64, len: usize) -> usize {
    (coordinate.max(0.0).floor() as usize).min(len - 1)
}
