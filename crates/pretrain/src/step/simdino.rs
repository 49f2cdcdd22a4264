//! SimDINO: first the vectors of all jobs, then the loss of all vectors, then the gradients of each job,
//! which start from the loss's gradient for its vectors (gradient caching, Gao et al. 2021).
//!
//! `m` is the number of images in the batch, `p` the width of the head.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::Rng as _;

use super::{Job, Place, Plan, add_gathered, deal};
use crate::dataset::Sample;
use crate::error::Result;
use crate::ops::VitBackend;
use crate::parameters::{self, Flat, numbers};
use crate::random::{generator, uniform};
use crate::simdino::{
    Constants, Loss, MaskedPatches, Projected, SimDino, Vectors, loss, rate_limits,
};
use crate::vit::Patches;

/// The terms of a step's loss, and what the monitor watches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SimDinoTerms {
    pub(crate) total: f64,
    pub(crate) alignment: f64,
    pub(crate) coding_rate: f64,
    /// Coding rate of equal vectors, and the largest possible one.
    pub(crate) rate_limits: [f64; 2],
    /// Mean cosine of masked patches with the teacher's; `None` without any.
    pub(crate) patch_alignment: Option<f64>,
    /// The teacher's vectors of the first large views, `[m, p]`.
    pub(crate) teacher: Vec<f32>,
}

/// One job, ready to run.
struct Ready<B: Backend> {
    /// Which views it holds, and so where its vectors go.
    job: Job,
    patches: Patches,
    /// The teacher's vectors of the masked patches, `[masked patches of all images, p]`, where there are any.
    target: Option<Tensor<B, 2>>,
}

/// Student, teacher and batch of one step.
struct Pass<'a, B: Backend> {
    /// One copy for each worker.
    students: &'a [SimDino<B>],
    /// One copy for each worker.
    teachers: &'a [SimDino<B>],
    samples: &'a [Sample],
    plan: &'a Plan,
    step: u64,
}

/// Returns the terms of a batch and the student's gradients. `students` and `teachers` have one copy of the
/// network for each worker.
pub(crate) fn simdino_step<B: VitBackend>(
    students: &[SimDino<B>],
    teachers: &[SimDino<B>],
    samples: &[Sample],
    plan: &Plan,
    step: u64,
) -> Result<(SimDinoTerms, Flat<B>)> {
    let pass = Pass {
        students,
        teachers,
        samples,
        plan,
        step,
    };
    pass.run()
}

impl<B: VitBackend> Pass<'_, B> {
    fn run(&self) -> Result<(SimDinoTerms, Flat<B>)> {
        // The teacher sees the large views only, so no job mixes them with small ones.
        let mut large = self.ready(|place| place.view < 2)?;
        let small = self.ready(|place| place.view >= 2)?;
        // The teacher's vectors, [2, m, p], come first: every vector of the student is compared with them.
        let teacher = self.teach(&mut large)?;
        let masked = large.iter().map(|ready| ready.patches.masked.len());
        let n_masked: usize = masked.sum();
        let jobs: Vec<Ready<B>> = large.into_iter().chain(small).collect();
        let p = self.plan.simdino.head_out;
        let constants = Constants {
            eps: self.plan.simdino.eps,
            coeff: self.plan.simdino.coeff,
            expa_type: self.plan.simdino.expa_type,
            n_devices: 1.0,
        };
        // The loss needs the vectors of all jobs before any job can be differentiated. Where all graphs fit into
        // the memory of one micro-batch they are kept, which saves the second forward pass.
        let n_tokens: usize = jobs.iter().map(|ready| ready.job.n_tokens).sum();
        let patch_share = share(n_masked);
        let learned = if self.students.len() == 1 && n_tokens <= self.plan.micro_tokens {
            self.at_once(&jobs, patch_share, |student| {
                loss(student, &teacher, &constants)
            })
        } else {
            let student = self.vectors(&jobs)?;
            let loss = loss(&student, &teacher, &constants);
            self.job_by_job(&jobs, patch_share, loss)?
        };
        let m = self.samples.len();
        let weight = self.plan.simdino.patch_weight;
        let patch_alignment = (n_masked > 0).then_some(learned.patch_alignment);
        let terms = SimDinoTerms {
            // `loss` knows only the vectors of CLS; the patches' term is added here, as in the gradients.
            total: learned.loss.total - weight * learned.patch_alignment,
            alignment: learned.loss.alignment,
            coding_rate: learned.loss.coding_rate,
            rate_limits: rate_limits(m, p, &constants),
            patch_alignment,
            teacher: teacher.values[..m * p]
                .iter()
                .map(|&value| rounded(value))
                .collect(),
        };
        Ok((terms, learned.gradients))
    }

    /// Groups the wanted views into jobs, cuts their patches and draws which of them are masked.
    fn ready(&self, wanted: impl Fn(Place) -> bool) -> Result<Vec<Ready<B>>> {
        let plan = self.plan;
        Job::group(self.samples, wanted, &plan.vit, plan.micro_tokens)?
            .into_iter()
            .map(|job| {
                let mut patches = Patches::cut(&job.images(self.samples), &plan.vit, None)?;
                if plan.simdino.patch_weight > 0.0 {
                    patches.masked = self.masked(&job, &patches);
                }
                Ok(Ready {
                    job,
                    patches,
                    target: None,
                })
            })
            .collect()
    }

    /// Draws which patches of large views the student does not see: in about half of the views, a share of
    /// the patches between the two of `patch_mask`. Returns their numbers among the patches of all images.
    fn masked(&self, job: &Job, patches: &Patches) -> Vec<usize> {
        let n_cells = patches.cells.len() / patches.n_images;
        let mut masked = Vec::new();
        for (image, place) in job
            .places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.view < 2)
        {
            // Drawn by sample and view, so that the masks do not depend on how views are grouped into jobs.
            let key = [
                self.plan.seed,
                self.step,
                place.sample as u64,
                place.view as u64,
            ];
            let mut rng = generator("patch mask", &key);
            if rng.next_u32().is_multiple_of(2) {
                continue;
            }
            let [low, high] = self.plan.simdino.patch_mask;
            let share = low + (high - low) * f64::from(uniform(&mut rng));
            let mut cells: Vec<usize> = (0..n_cells).collect();
            let n = crate::mae::len_keep(n_cells, 1.0 - share).max(1);
            // The first `n` steps of a Fisher-Yates shuffle choose `n` different cells.
            for i in 0..n {
                let other = i + rng.next_u32() as usize % (n_cells - i);
                cells.swap(i, other);
            }
            // A cell of this image -> its row among the patches of all images of the job.
            masked.extend(cells[..n].iter().map(|cell| image * n_cells + cell));
        }
        masked
    }

    /// Runs the teacher on the large views; returns its vectors, `[2, m, p]`, and leaves those of the masked
    /// patches in the jobs.
    fn teach(&self, large: &mut [Ready<B>]) -> Result<Vectors> {
        let (m, p) = (self.samples.len(), self.plan.simdino.head_out);
        let mut vectors = Vectors {
            values: vec![0.0; 2 * m * p],
            n_images: m,
            width: p,
        };
        let mut targets = Vec::new();
        let mut jobs = large.iter();
        let running = self.plan.running();
        // The teacher sees the whole view; what it says of the patches that the student misses is the target.
        let masked = MaskedPatches {
            are_hidden: false,
            are_projected: true,
        };
        deal(
            large,
            self.teachers.len(),
            |worker, ready| {
                let teacher = &self.teachers[worker];
                Ok(teacher.forward(&ready.patches, &self.plan.vit, &running, masked))
            },
            // Results come in the order of the jobs, so the next job is the one that they belong to.
            |projected| {
                if let Some(ready) = jobs.next() {
                    vectors.place(&ready.job.places, &numbers(projected.cls));
                    targets.push(projected.patches);
                }
            },
        )?;
        for (ready, target) in large.iter_mut().zip(targets) {
            ready.target = target;
        }
        Ok(vectors)
    }

    /// Returns the student's vectors, `[views, m, p]`, without keeping graphs.
    fn vectors(&self, jobs: &[Ready<B>]) -> Result<Vectors> {
        let (m, p) = (self.samples.len(), self.plan.simdino.head_out);
        let n_views = self.samples.first().map_or(0, |sample| sample.views.len());
        let mut vectors = Vectors {
            values: vec![0.0; n_views * m * p],
            n_images: m,
            width: p,
        };
        let mut order = jobs.iter();
        // The patches are hidden, because the second pass must compute the same vectors of CLS. Their own
        // vectors enter no statistic of the batch, so only that pass projects them.
        let masked = MaskedPatches {
            are_hidden: true,
            are_projected: false,
        };
        deal(
            jobs,
            self.students.len(),
            |worker, ready| {
                let running = self.plan.student(self.step, &ready.job.places);
                let student = &self.students[worker];
                let projected = student.forward(&ready.patches, &self.plan.vit, &running, masked);
                Ok(numbers(projected.cls))
            },
            |cls| {
                if let Some(ready) = order.next() {
                    vectors.place(&ready.job.places, &cls);
                }
            },
        )?;
        Ok(vectors)
    }

    /// Runs all jobs in one graph: one forward pass.
    fn at_once(
        &self,
        jobs: &[Ready<B>],
        patch_share: f64,
        loss: impl FnOnce(&Vectors) -> Loss,
    ) -> Learned<B> {
        let (m, p) = (self.samples.len(), self.plan.simdino.head_out);
        let n_views = self.samples.first().map_or(0, |sample| sample.views.len());
        let student = parameters::tracked::<Autodiff<B>, _>(&self.students[0]);
        let mut vectors = Vectors {
            values: vec![0.0; n_views * m * p],
            n_images: m,
            width: p,
        };
        let mut passes = Vec::new();
        for ready in jobs {
            let projected = self.project(&student, ready);
            vectors.place(&ready.job.places, &numbers(projected.cls.clone()));
            passes.push(projected);
        }
        // [views, m, p] -> the loss and its gradient, which each job's graph then takes for its own vectors.
        let loss = loss(&vectors);
        let mut patch_alignment = 0.0;
        let mut surrogate: Option<Tensor<Autodiff<B>, 1>> = None;
        for (ready, projected) in jobs.iter().zip(passes) {
            let (part, aligned) = self.surrogate(ready, projected, &loss.gradient, patch_share);
            patch_alignment += aligned;
            // The gradient of a sum is the sum of gradients, so one backward pass serves all jobs.
            surrogate = Some(match surrogate {
                Some(sum) => sum + part,
                None => part,
            });
        }
        let gradients = surrogate.map_or_else(Flat::new, |surrogate| {
            parameters::gradients(&student, surrogate.backward())
        });
        Learned {
            loss,
            patch_alignment,
            gradients,
        }
    }

    /// Runs each job again with a graph of its own, from the loss's gradient for its vectors.
    fn job_by_job(&self, jobs: &[Ready<B>], patch_share: f64, loss: Loss) -> Result<Learned<B>> {
        let device = self
            .students
            .iter()
            .flat_map(burn::module::Module::devices)
            .next();
        let mut learned = Learned {
            patch_alignment: 0.0,
            gradients: Flat::new(),
            loss,
        };
        let Learned {
            patch_alignment,
            gradients: sum,
            loss,
        } = &mut learned;
        deal(
            jobs,
            self.students.len(),
            |worker, ready| {
                // Stochastic depth is drawn by step and view, so this pass gives the vectors that the loss saw.
                let student = parameters::tracked::<Autodiff<B>, _>(&self.students[worker]);
                let projected = self.project(&student, ready);
                let (part, aligned) = self.surrogate(ready, projected, &loss.gradient, patch_share);
                Ok((aligned, parameters::gradients(&student, part.backward())))
            },
            |(aligned, gradients)| {
                // Parts are added in the order of the jobs, so the sum does not depend on the workers.
                *patch_alignment += aligned;
                add_gathered(sum, gradients, device.as_ref());
            },
        )?;
        Ok(learned)
    }

    /// Runs the student on a job with a graph.
    fn project(&self, student: &SimDino<Autodiff<B>>, ready: &Ready<B>) -> Projected<Autodiff<B>> {
        let running = self.plan.student(self.step, &ready.job.places);
        let masked = MaskedPatches {
            are_hidden: true,
            are_projected: true,
        };
        student.forward(&ready.patches, &self.plan.vit, &running, masked)
    }

    /// Returns a scalar whose gradient for the job's vectors is that of the loss, and the job's share of the
    /// alignment of masked patches.
    ///
    /// `gradient` is the loss's for the vectors of CLS, `[views, m, p]`; each masked patch counts `patch_share`.
    fn surrogate(
        &self,
        ready: &Ready<B>,
        projected: Projected<Autodiff<B>>,
        gradient: &[f64],
        patch_share: f64,
    ) -> (Tensor<Autodiff<B>, 1>, f64) {
        let (m, p) = (self.samples.len(), self.plan.simdino.head_out);
        // [views, m, p] -> [images of the job, p], in the order of the job's vectors.
        let slopes: Vec<f32> = ready
            .job
            .places
            .iter()
            .flat_map(|place| &gradient[(place.view * m + place.sample) * p..][..p])
            .map(|&slope| rounded(slope))
            .collect();
        let device = projected.cls.device();
        let slopes = Tensor::from_data(TensorData::new(slopes, projected.cls.dims()), &device);
        // The sum of vectors times constants has these constants as its gradient: the backward pass continues
        // as if the loss itself were in the graph.
        let surrogate = (projected.cls * slopes).sum();
        let (Some(patches), Some(target)) = (projected.patches, &ready.target) else {
            return (surrogate, 0.0);
        };
        // [masked patches of the job, p] each; the product of unit vectors is their cosine. This mean is a sum
        // over jobs, so the graph can hold it as it is.
        let target = Tensor::from_inner(target.clone().to_device(&device));
        let aligned = (patches * target).sum() * patch_share;
        let value = numbers(aligned.clone())
            .first()
            .copied()
            .unwrap_or(f32::NAN);
        (
            surrogate - aligned * self.plan.simdino.patch_weight,
            f64::from(value),
        )
    }
}

/// What a batch taught the student.
struct Learned<B: Backend> {
    loss: Loss,
    /// Mean cosine of masked patches with the teacher's.
    patch_alignment: f64,
    gradients: Flat<B>,
}

impl Vectors {
    /// Puts the vectors of a job's views, `[images of the job, p]`, at their places in `[views, m, p]`.
    fn place(&mut self, places: &[Place], rows: &[f32]) {
        let (m, p) = (self.n_images, self.width);
        for (place, row) in places.iter().zip(rows.chunks_exact(p)) {
            let first = (place.view * m + place.sample) * p;
            for (value, row) in self.values[first..first + p].iter_mut().zip(row) {
                *value = f64::from(*row);
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "patches are few")]
fn share(n: usize) -> f64 {
    1.0 / n.max(1) as f64
}

#[allow(clippy::cast_possible_truncation, reason = "the rounding is meant")]
fn rounded(value: f64) -> f32 {
    value as f32
}
