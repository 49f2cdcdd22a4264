//! SALT: the tokens of frozen teachers at the patches that are hidden from the student.

use std::borrow::Cow;

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use m3ret_encoder::grid_of;
use m3ret_imaging::Input;

use super::{Job, Place, Plan, StepJob, add_up, ratio};
use crate::dataset::Sample;
use crate::error::Result;
use crate::mae::{Mae, Mask};
use crate::ops::{VitBackend, concatenated};
use crate::parameters::{self, Flat, numbers};
use crate::salt::{Teacher, loss, normalised, transfer};
use crate::vit::{Patches, Running};

/// The networks of one worker, on its device.
#[derive(Debug, Clone)]
pub(crate) struct SaltWorker<B: Backend> {
    pub(crate) student: Mae<B>,
    /// The frozen teachers, in the order of the student's outputs.
    pub(crate) teachers: Vec<Teacher<B>>,
}

/// Returns the loss of a batch and its gradients. `mask` gives the image at a place of the batch its mask.
///
/// The first view of a sample is what the teachers see, the last one what the student sees.
pub(crate) fn salt_step<B: VitBackend>(
    workers: &[SaltWorker<B>],
    samples: &[Sample],
    plan: &Plan,
    step: u64,
    mask: impl Fn(usize, [usize; 3]) -> Mask + Sync,
) -> Result<(f64, Flat<B>)> {
    let is_last = |place: Place| {
        let views = samples.get(place.sample).map(|sample| sample.views.len());
        views == Some(place.view + 1)
    };
    let jobs = Job::group(samples, is_last, &plan.vit, plan.micro_tokens)?;
    let first = workers.first().map(|worker| &worker.student);
    let device = first.into_iter().flat_map(burn::module::Module::devices);
    let device = device.into_iter().next();
    add_up(&jobs, workers.len(), device.as_ref(), |worker, job| {
        let part = StepJob {
            job,
            samples,
            plan,
            step,
        };
        part.salt_slope(&workers[worker], &mask)
    })
}

/// Inputs of a teacher that have one shape, each with its image's place in the job.
struct InputGroup<'a> {
    shape: [usize; 4],
    inputs: Vec<(usize, Cow<'a, Input>)>,
}

impl StepJob<'_> {
    /// Returns the job's share of SALT's loss, and its gradients.
    fn salt_slope<B: VitBackend>(
        &self,
        worker: &SaltWorker<B>,
        mask: &(impl Fn(usize, [usize; 3]) -> Mask + Sync),
    ) -> Result<(f64, Flat<B>)> {
        let plan = self.plan;
        let images = self.job.images(self.samples);
        let shape = images.first().map_or([0; 4], |image| image.shape());
        let grid = grid_of(shape, plan.vit.patch)?;
        let places = self.job.places.iter();
        let masks: Vec<Mask> = places.map(|place| mask(place.sample, grid)).collect();
        let shown: Vec<Vec<usize>> = masks.iter().map(|mask| mask.shown.clone()).collect();
        let patches = Patches::cut(&images, &plan.vit, Some(&shown))?;
        let targets = worker
            .teachers
            .iter()
            .map(|teacher| Ok(Tensor::from_inner(self.target(teacher, grid, &masks)?)))
            .collect::<Result<Vec<Tensor<Autodiff<B>, 2>>>>()?;
        let running = plan.student_with_decoder(self.step, &self.job.places);
        let student = parameters::tracked::<Autodiff<B>, _>(&worker.student);
        let predicted = student.predict(&patches, &masks, &plan.vit, &running);
        let share = ratio(images.len(), self.samples.len());
        let loss = loss(&predicted, targets) * share;
        let value = numbers(loss.clone()).first().copied().unwrap_or(f32::NAN);
        let gradients = parameters::gradients(&student, loss.backward());
        Ok((f64::from(value), gradients))
    }

    /// Returns a teacher's normalised tokens at the hidden cells of each image, image by image.
    ///
    /// # Shapes
    /// `[hidden cells of all images, width of the teacher]`
    fn target<B: VitBackend>(
        &self,
        teacher: &Teacher<B>,
        grid: [usize; 3],
        masks: &[Mask],
    ) -> Result<Tensor<B, 2>> {
        let samples: Vec<&Sample> = self
            .job
            .places
            .iter()
            .filter_map(|place| self.samples.get(place.sample))
            .collect();
        // A flat view may come from a deep one: teachers can see other shapes than the student.
        let mut groups: Vec<InputGroup<'_>> = Vec::new();
        for (image, sample) in samples.iter().enumerate() {
            let Some(original) = sample.views.first() else {
                continue;
            };
            let input = teacher.input(original)?;
            let shape = input.shape();
            match groups.iter_mut().find(|group| group.shape == shape) {
                Some(group) => group.inputs.push((image, input)),
                None => groups.push(InputGroup {
                    shape,
                    inputs: vec![(image, input)],
                }),
            }
        }
        let (mut rows, mut order) = (Vec::new(), vec![0; samples.len()]);
        let mut n_done = 0_i32;
        for InputGroup { shape, inputs } in groups {
            let from = grid_of(shape, teacher.config.vit.patch)?;
            let n_cells: usize = from.iter().product();
            let n_tokens = 1 + teacher.config.vit.num_registers + n_cells;
            for inputs in inputs.chunks((self.plan.micro_tokens / n_tokens).max(1)) {
                let mut weights = Vec::new();
                for (image, _) in inputs {
                    order[*image] = n_done;
                    n_done += 1;
                    let relation = samples[*image].relation;
                    weights.extend(transfer(relation, from, grid, &masks[*image].hidden));
                }
                let images: Vec<&Input> = inputs.iter().map(|(_, input)| &**input).collect();
                rows.push(self.tokens(teacher, &images, weights, n_cells)?);
            }
        }
        let rows = concatenated(rows, 0);
        let device = rows.device();
        let order = Tensor::<B, 1, Int>::from_data(TensorData::from(order.as_slice()), &device);
        let rows = rows.select(0, order);
        let [n_images, n_hidden, width] = rows.dims();
        Ok(normalised(rows.reshape([n_images * n_hidden, width])))
    }

    /// Returns weighted sums of a teacher's final patch tokens.
    ///
    /// # Shapes
    /// `weights` `[images, hidden, cells]` -> `[images, hidden, width]`
    fn tokens<B: VitBackend>(
        &self,
        teacher: &Teacher<B>,
        images: &[&Input],
        weights: Vec<f32>,
        n_cells: usize,
    ) -> Result<Tensor<B, 3>> {
        let vit = &teacher.config.vit;
        let patches = Patches::cut(images, vit, None)?;
        let running = Running {
            n_heads: vit.num_heads,
            ..self.plan.running()
        };
        let tokens = teacher.vit.forward(&patches, vit, None, &running);
        let [n_images, n_tokens, width] = tokens.dims();
        let tokens = tokens.slice([0..n_images, n_tokens - n_cells..n_tokens, 0..width]);
        let n_hidden = weights.len() / (n_images * n_cells);
        let weights = TensorData::new(weights, [n_images, n_hidden, n_cells]);
        Ok(Tensor::<B, 3>::from_data(weights, &tokens.device()).matmul(tokens))
    }
}
