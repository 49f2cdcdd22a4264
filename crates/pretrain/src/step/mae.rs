//! MAE: every image counts alike, whatever its number of patches.

use burn::backend::Autodiff;
use burn::tensor::Tensor;

use super::{Job, Plan, StepJob, add_up, ratio};
use crate::dataset::Sample;
use crate::error::Result;
use crate::mae::{Mae, Mask, loss, target, target_len};
use crate::ops::VitBackend;
use crate::parameters::{self, Flat, numbers};
use crate::vit::Patches;

/// Returns the loss of a batch and its gradients. `mask` gives the image at a place of the batch its mask.
pub(crate) fn mae_step<B: VitBackend>(
    models: &[Mae<B>],
    samples: &[Sample],
    plan: &Plan,
    step: u64,
    mask: impl Fn(usize, [usize; 3]) -> Mask + Sync,
) -> Result<(f64, Flat<B>)> {
    let jobs = Job::group(
        samples,
        |place| place.view == 0,
        &plan.vit,
        plan.micro_tokens,
    )?;
    let device = models.iter().flat_map(burn::module::Module::devices).next();
    add_up(&jobs, models.len(), device.as_ref(), |worker, job| {
        let part = StepJob {
            job,
            samples,
            plan,
            step,
        };
        part.mae_slope(&models[worker], &mask)
    })
}

impl StepJob<'_> {
    /// Returns the job's share of MAE's loss, and its gradients.
    fn mae_slope<B: VitBackend>(
        &self,
        model: &Mae<B>,
        mask: &(impl Fn(usize, [usize; 3]) -> Mask + Sync),
    ) -> Result<(f64, Flat<B>)> {
        let plan = self.plan;
        let images = self.job.images(self.samples);
        let masks = self
            .job
            .places
            .iter()
            .zip(&images)
            .map(|(place, image)| {
                let grid = m3ret_encoder::grid_of(image.shape(), plan.vit.patch)?;
                Ok(mask(place.sample, grid))
            })
            .collect::<Result<Vec<Mask>>>()?;
        let shown: Vec<Vec<usize>> = masks.iter().map(|mask| mask.shown.clone()).collect();
        let patches = Patches::cut(&images, &plan.vit, Some(&shown))?;
        let n_values = target_len(&plan.vit, plan.mae.target);
        let mut wanted = Vec::new();
        for (image, mask) in images.iter().zip(&masks) {
            let target = target(image, plan.vit.patch, plan.mae.target)?;
            for &cell in &mask.hidden {
                wanted.extend_from_slice(&target[cell * n_values..(cell + 1) * n_values]);
            }
        }
        let running = plan.student_with_decoder(self.step, &self.job.places);
        let model = parameters::tracked::<Autodiff<B>, _>(model);
        let predicted = model.predict(&patches, &masks, &plan.vit, &running);
        let share = ratio(images.len(), self.samples.len());
        let loss: Tensor<Autodiff<B>, 1> = loss(predicted, wanted, plan.mae.target) * share;
        let value = numbers(loss.clone()).first().copied().unwrap_or(f32::NAN);
        let gradients = parameters::gradients(&model, loss.backward());
        Ok((f64::from(value), gradients))
    }
}
