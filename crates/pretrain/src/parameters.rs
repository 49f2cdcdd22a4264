//! The parameters of a module by name, flattened: what optimiser, checkpoints and teacher work on.

use std::collections::BTreeMap;

use burn::module::{HasAutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};

/// One tensor of a file or a module.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weight {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// Tensors by name, in the order of the names.
pub(crate) type Weights = BTreeMap<String, Weight>;

/// Gradients or moments by name, flattened to one axis.
pub(crate) type Flat<B> = BTreeMap<String, Tensor<B, 1>>;

/// Sees the name, shape and flattened value of a parameter.
type See<'a, B> = dyn FnMut(&str, &[usize], Tensor<B, 1>) + 'a;

/// Makes a new value from the name, shape and flattened value of a parameter.
type Change<'a, B> = dyn FnMut(&str, &[usize], Tensor<B, 1>) -> Tensor<B, 1> + 'a;

/// Calls `see` with the name, shape and flattened value of each parameter.
pub(crate) fn visit<B: Backend, M: Module<B>>(module: &M, see: &mut See<'_, B>) {
    module.visit(&mut Seeing {
        path: Vec::new(),
        see,
    });
}

/// Replaces each parameter by what `change` makes of it.
pub(crate) fn map<B: Backend, M: Module<B>>(module: M, change: &mut Change<'_, B>) -> M {
    module.map(&mut Changing {
        path: Vec::new(),
        change,
    })
}

/// Returns all parameters as plain numbers.
pub(crate) fn weights<B: Backend, M: Module<B>>(module: &M) -> Weights {
    let mut weights = Weights::new();
    visit(module, &mut |name, shape, value| {
        let weight = Weight {
            shape: shape.to_vec(),
            values: numbers(value),
        };
        weights.insert(name.to_owned(), weight);
    });
    weights
}

/// Returns the values of a tensor.
pub(crate) fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .into_vec()
        .unwrap_or_default()
}

/// Replaces the parameters that `weights` has, and returns the names of those it lacks.
///
/// # Errors
/// Says which tensor has another shape, or is not of this network.
pub(crate) fn load<B: Backend, M: Module<B>>(
    module: M,
    mut weights: Weights,
    device: &B::Device,
) -> Result<(M, Vec<String>), String> {
    let (mut missing, mut wrong) = (Vec::new(), None);
    let module = map(
        module,
        &mut |name, shape, value| match weights.remove(name) {
            Some(weight) if weight.shape == shape => {
                let n_values = weight.values.len();
                Tensor::from_data(TensorData::new(weight.values, [n_values]), device)
            }
            Some(weight) => {
                wrong.get_or_insert_with(|| {
                    format!("{name} has shape {:?}, not {shape:?}", weight.shape)
                });
                value
            }
            None => {
                missing.push(name.to_owned());
                value
            }
        },
    );
    match (wrong, weights.into_keys().next()) {
        (Some(message), _) => Err(message),
        (None, Some(name)) => Err(format!("{name} is not a tensor of this network")),
        (None, None) => Ok((module, missing)),
    }
}

/// Returns a copy whose parameters gather gradients. Burn's `train` alone keeps what a module on a plain
/// backend says of that, which is nothing.
pub(crate) fn tracked<B, M>(module: &M) -> M::TrainModule
where
    B: AutodiffBackend,
    M: Module<B::InnerBackend> + HasAutodiffModule<B>,
{
    struct Tracking;
    impl<B: Backend> ModuleMapper<B> for Tracking {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            param.set_require_grad(true)
        }
    }
    module.clone().train::<B>().map(&mut Tracking)
}

/// Takes the gradients of a module's parameters; those that no path reached are left out.
pub(crate) fn gradients<B: AutodiffBackend, M: Module<B>>(
    module: &M,
    mut gradients: B::Gradients,
) -> Flat<B::InnerBackend> {
    struct Taking<'a, B: AutodiffBackend> {
        path: Vec<String>,
        gradients: &'a mut B::Gradients,
        taken: Flat<B::InnerBackend>,
    }
    impl<B: AutodiffBackend> ModuleVisitor<B> for Taking<'_, B> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if let Some(gradient) = param.val().grad_remove(self.gradients) {
                self.taken
                    .insert(name_of(&self.path), gradient.flatten(0, D - 1));
            }
        }
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
    }
    let mut taking = Taking {
        path: Vec::new(),
        gradients: &mut gradients,
        taken: Flat::new(),
    };
    module.visit(&mut taking);
    taking.taken
}

/// Adds gradients of another part of the batch.
pub(crate) fn add<B: Backend>(sum: &mut Flat<B>, part: Flat<B>) {
    for (name, gradient) in part {
        let total = match sum.remove(&name) {
            Some(total) => total + gradient,
            None => gradient,
        };
        sum.insert(name, total);
    }
}

struct Seeing<'a, 'b, B: Backend> {
    path: Vec<String>,
    see: &'a mut See<'b, B>,
}

impl<B: Backend> ModuleVisitor<B> for Seeing<'_, '_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let value = param.val();
        let shape = value.dims();
        (self.see)(&name_of(&self.path), &shape, value.flatten(0, D - 1));
    }

    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}

struct Changing<'a, 'b, B: Backend> {
    path: Vec<String>,
    change: &'a mut Change<'b, B>,
}

impl<B: Backend> ModuleMapper<B> for Changing<'_, '_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let name = name_of(&self.path);
        let (id, value, mapper) = param.consume();
        let shape = value.dims();
        let changed = (self.change)(&name, &shape, value.flatten(0, D - 1));
        Param::from_mapped_value(id, changed.reshape(shape), mapper)
    }

    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}

/// Turns the path of a field into the usual name of its tensor: the encoder stands at the top, and
/// the head's layers count the activations between them.
fn name_of(path: &[String]) -> String {
    let name = path.join(".");
    let name = name.strip_prefix("encoder.").unwrap_or(&name);
    match name
        .strip_prefix("head.mlp.")
        .and_then(|rest| rest.split_once('.'))
    {
        Some((layer, rest)) => {
            let layer = layer
                .parse::<usize>()
                .map_or_else(|_| layer.to_owned(), |n| (2 * n).to_string());
            format!("head.mlp.{layer}.{rest}")
        }
        None => name.to_owned(),
    }
}
