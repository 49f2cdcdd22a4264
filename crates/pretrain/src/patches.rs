//! Views cut into the rows that a network sees.

use m3ret_encoder::stem::slab_means;
use m3ret_encoder::{VitConfig, grid_of, patchify};
use m3ret_imaging::Input;

use crate::error::Result;
use crate::vit::Patches;

impl Patches {
    /// Cuts images of one shape; of each, the network sees the cells named by `shown`, in that order, or
    /// all.
    ///
    /// # Errors
    /// `Mismatch` if an image does not divide into patches.
    pub(crate) fn cut(
        images: &[&Input],
        config: &VitConfig,
        shown: Option<&[Vec<usize>]>,
    ) -> Result<Self> {
        let shape = images.first().map_or([0; 4], |image| image.shape());
        let grid = grid_of(shape, config.patch)?;
        let n_cells = grid.iter().product::<usize>();
        let [_, depth, ..] = shape;
        let [_, ph, pw] = config.patch;
        let has_stem = !config.stem.is_patch();
        let is_flat = depth == 1 || has_stem;
        let patch = if is_flat { [1, ph, pw] } else { config.patch };
        let n_values = patch.iter().product::<usize>() * config.in_chans;
        let (mut rows, mut cells) = (Vec::new(), Vec::new());
        for (i, image) in images.iter().enumerate() {
            let cut = if has_stem {
                let (means, shape) = slab_means(image.values(), image.shape(), config.patch[0]);
                patchify(&means, shape, patch)?
            } else {
                patchify(image.values(), image.shape(), patch)?
            };
            match shown.and_then(|shown| shown.get(i)) {
                None => {
                    rows.extend_from_slice(&cut);
                    cells.extend(0..n_cells);
                }
                Some(shown) => {
                    for &cell in shown {
                        rows.extend_from_slice(&cut[cell * n_values..(cell + 1) * n_values]);
                        cells.push(cell);
                    }
                }
            }
        }
        Ok(Self {
            n_images: images.len(),
            rows,
            cells,
            grid,
            is_flat,
            masked: Vec::new(),
        })
    }
}
