//! AdamW with a limit on each parameter's gradient, and the moving average that is the teacher.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::parameters::{self, Flat};

/// The numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    pub(crate) lr: f64,
    pub(crate) weight_decay: f64,
    pub(crate) betas: [f64; 2],
    /// Largest norm of one parameter's gradient; 0 for none.
    pub(crate) clip: f64,
}

/// Added to the root of the second moment.
const EPS: f64 = 1e-8;

/// First and second moments by parameter, and how many steps they saw.
#[derive(Debug, Clone)]
pub(crate) struct AdamW<B: Backend> {
    pub(crate) n_steps: u64,
    pub(crate) moments: BTreeMap<String, [Tensor<B, 1>; 2]>,
}

/// Returns whether a parameter is decayed: all but biases and those of one axis, so `cls_token` is.
pub(crate) fn is_decayed(name: &str, shape: &[usize]) -> bool {
    shape.len() > 1 && !name.ends_with(".bias")
}

impl<B: Backend> AdamW<B> {
    pub(crate) fn new() -> Self {
        Self {
            n_steps: 0,
            moments: BTreeMap::new(),
        }
    }

    /// Updates the parameters that have a gradient, and returns the norm of the whole gradient before the limit.
    ///
    /// # Source
    /// Loshchilov and Hutter 2019: decay apart from the gradient, `p (1 - lr wd)` first.
    pub(crate) fn step<M: Module<B>>(
        &mut self,
        module: M,
        mut gradients: Flat<B>,
        step: &Step,
    ) -> (M, f64) {
        self.n_steps += 1;
        let mut squares = 0.0;
        let module = parameters::map(module, &mut |name, shape, value| {
            let Some(gradient) = gradients.remove(name) else {
                return value;
            };
            let norm = norm_of(&gradient);
            squares += norm * norm;
            let gradient = if step.clip > 0.0 && norm + 1e-6 > step.clip {
                gradient * (step.clip / (norm + 1e-6))
            } else {
                gradient
            };
            let decay = if is_decayed(name, shape) {
                step.weight_decay
            } else {
                0.0
            };
            self.updated(
                name,
                value,
                gradient,
                &Step {
                    weight_decay: decay,
                    ..*step
                },
            )
        });
        (module, squares.sqrt())
    }

    fn updated(
        &mut self,
        name: &str,
        value: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        step: &Step,
    ) -> Tensor<B, 1> {
        let [beta1, beta2] = step.betas;
        let [first, second] = self
            .moments
            .remove(name)
            .unwrap_or_else(|| [gradient.zeros_like(), gradient.zeros_like()]);
        let first = first * beta1 + gradient.clone() * (1.0 - beta1);
        let second = second * beta2 + gradient.powi_scalar(2) * (1.0 - beta2);
        let n_steps = i32::try_from(self.n_steps).unwrap_or(i32::MAX);
        let rate = step.lr / (1.0 - beta1.powi(n_steps));
        let root = (second.clone() / (1.0 - beta2.powi(n_steps))).sqrt() + EPS;
        let value = value * (1.0 - step.lr * step.weight_decay) - first.clone() * rate / root;
        self.moments.insert(name.to_owned(), [first, second]);
        value
    }
}

fn norm_of<B: Backend>(gradient: &Tensor<B, 1>) -> f64 {
    let squares = gradient.clone().powi_scalar(2).sum();
    parameters::numbers(squares)
        .first()
        .map_or(0.0, |&sum| f64::from(sum).sqrt())
}

/// Moves the teacher towards the student: `momentum * teacher + (1 - momentum) * student`.
pub(crate) fn follow<B: Backend, M: Module<B>>(teacher: M, student: &M, momentum: f64) -> M {
    let mut students: Flat<B> = Flat::new();
    parameters::visit(student, &mut |name, _, value| {
        students.insert(name.to_owned(), value);
    });
    parameters::map(teacher, &mut |name, _, value| match students.remove(name) {
        Some(student) => value * momentum + student * (1.0 - momentum),
        None => value,
    })
}
