//! Blocks and norms as single nodes of Burn's autodiff graph.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};

use super::block::{self, BlockOptions, BlockWeights, Kept};
use super::stem::{self, StageOptions, StageState, StageWeights};
use super::{Affine, Dense, VitBackend};
use crate::config::TrainPrecision;

impl<B: VitBackend, C: CheckpointStrategy> VitBackend for Autodiff<B, C> {
    fn vit_layer_norm(x: Tensor<Self, 2>, affine: Affine<Self>) -> Tensor<Self, 2> {
        let [x, weight, bias] = [
            primitive(x),
            primitive(affine.weight),
            primitive(affine.bias),
        ];
        let inner_x = tensor::<B, 2>(x.primitive.clone());
        let inner_weight = tensor::<B, 1>(weight.primitive.clone());
        let affine = Affine {
            weight: inner_weight.clone(),
            bias: tensor(bias.primitive.clone()),
        };
        let result = primitive(B::vit_layer_norm(inner_x.clone(), affine));
        let nodes = [x.node, weight.node, bias.node];
        tensor(
            match NormNode.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prep) => prep.finish((inner_x, inner_weight), result),
                OpsKind::UnTracked(prep) => prep.finish(result),
            },
        )
    }

    fn vit_linear(
        x: Tensor<Self, 2>,
        dense: Dense<Self>,
        precision: TrainPrecision,
    ) -> Tensor<Self, 2> {
        let [x, weight, bias] = [primitive(x), primitive(dense.weight), primitive(dense.bias)];
        let inner_x = tensor::<B, 2>(x.primitive.clone());
        let inner_weight = tensor::<B, 2>(weight.primitive.clone());
        let dense = Dense {
            weight: inner_weight.clone(),
            bias: tensor(bias.primitive.clone()),
        };
        let result = primitive(B::vit_linear(inner_x.clone(), dense, precision));
        let nodes = [x.node, weight.node, bias.node];
        tensor(
            match LinearNode.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prep) => prep.finish((inner_x, inner_weight, precision), result),
                OpsKind::UnTracked(prep) => prep.finish(result),
            },
        )
    }

    fn vit_stage(
        x: Tensor<Self, 2>,
        weights: StageWeights<Self>,
        options: &StageOptions,
    ) -> Tensor<Self, 2> {
        let x = primitive(x);
        let [kernel, weight, bias] = [
            primitive(weights.kernel),
            primitive(weights.norm.weight),
            primitive(weights.norm.bias),
        ];
        let inner = StageWeights {
            kernel: tensor(kernel.primitive.clone()),
            norm: Affine {
                weight: tensor(weight.primitive.clone()),
                bias: tensor(bias.primitive.clone()),
            },
        };
        let inner_x = tensor::<B, 2>(x.primitive.clone());
        let (result, convolved) = stem::forward(inner_x.clone(), &inner, options);
        let nodes = [x.node, kernel.node, weight.node, bias.node];
        let result = primitive(result);
        tensor(
            match StageNode.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prep) => {
                    let state = StageState {
                        x: inner_x,
                        weights: inner,
                        convolved,
                        options: options.clone(),
                    };
                    prep.finish(state, result)
                }
                OpsKind::UnTracked(prep) => prep.finish(result),
            },
        )
    }

    fn vit_block(
        x: Tensor<Self, 2>,
        weights: BlockWeights<Self>,
        options: &BlockOptions,
    ) -> Tensor<Self, 2> {
        let x = primitive(x);
        let weights = weights.into_list();
        let inner =
            BlockWeights::from_list(weights.each_ref().map(|weight| weight.primitive.clone()));
        let inner_x = tensor::<B, 2>(x.primitive.clone());
        let (result, kept) = block::forward(inner_x.clone(), &inner, options);
        let [a, b, c, d, e, f, g, h, i, j, k, l] = weights.map(|weight| weight.node);
        let nodes = [x.node, a, b, c, d, e, f, g, h, i, j, k, l];
        let result = primitive(result);
        tensor(
            match BlockNode.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prep) => {
                    let state = BlockState {
                        x: inner_x,
                        weights: inner,
                        kept: (!options.recompute).then_some(kept),
                        options: options.clone(),
                    };
                    prep.finish(state, result)
                }
                OpsKind::UnTracked(prep) => prep.finish(result),
            },
        )
    }
}

#[derive(Debug)]
struct StageNode;

impl<B: VitBackend> Backward<B, 4> for StageNode {
    type State = StageState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = tensor(grads.consume::<B>(&ops.node));
        let [parent_x, ..] = &ops.parents;
        let (for_x, weights) = stem::backward(ops.state, gradient, parent_x.is_some());
        let made = [
            for_x.map(primitive),
            Some(primitive(weights.kernel)),
            Some(primitive(weights.norm.weight)),
            Some(primitive(weights.norm.bias)),
        ];
        for (parent, gradient) in ops.parents.into_iter().zip(made) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct LinearNode;

impl<B: VitBackend> Backward<B, 3> for LinearNode {
    type State = (Tensor<B, 2>, Tensor<B, 2>, TrainPrecision);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = tensor::<B, 2>(grads.consume::<B>(&ops.node));
        let (x, weight, precision) = ops.state;
        let [for_x, for_weight, for_bias] = ops.parents;
        if let Some(parent) = for_x {
            let made = B::vit_product(gradient.clone(), weight, precision);
            grads.register::<B>(parent.id, primitive(made));
        }
        let dense = B::vit_linear_backward(x, gradient, precision);
        let made = [primitive(dense.weight), primitive(dense.bias)];
        for (parent, gradient) in [for_weight, for_bias].into_iter().zip(made) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct NormNode;

impl<B: VitBackend> Backward<B, 3> for NormNode {
    type State = (Tensor<B, 2>, Tensor<B, 1>);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = tensor(grads.consume::<B>(&ops.node));
        let (x, weight) = ops.state;
        let (for_x, affine) = B::vit_layer_norm_backward(x, weight, gradient);
        let made = [
            primitive(for_x),
            primitive(affine.weight),
            primitive(affine.bias),
        ];
        for (parent, gradient) in ops.parents.into_iter().zip(made) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct BlockNode;

#[derive(Debug, Clone)]
struct BlockState<B: VitBackend> {
    x: Tensor<B, 2>,
    weights: BlockWeights<B>,
    /// Absent where it is computed again.
    kept: Option<Kept<B>>,
    options: BlockOptions,
}

impl<B: VitBackend> Backward<B, 13> for BlockNode {
    type State = BlockState<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 13>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = tensor(grads.consume::<B>(&ops.node));
        let BlockState {
            x,
            weights,
            kept,
            options,
        } = ops.state;
        let kept = kept.unwrap_or_else(|| block::forward(x.clone(), &weights, &options).1);
        let (for_x, weights) = block::backward(x, weights, kept, &options, gradient);
        let made = std::iter::once(primitive(for_x)).chain(weights.into_list());
        for (parent, gradient) in ops.parents.into_iter().zip(made) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: VitBackend> BlockWeights<B> {
    /// Lays the tensors side by side; `from_list` takes them in this order.
    fn into_list(self) -> [FloatTensor<B>; 12] {
        let [a, b] = self.norm1.into_list();
        let [c, d] = self.qkv.into_list();
        let [e, f] = self.proj.into_list();
        let [g, h] = self.norm2.into_list();
        let [i, j] = self.fc1.into_list();
        let [k, l] = self.fc2.into_list();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    fn from_list([a, b, c, d, e, f, g, h, i, j, k, l]: [FloatTensor<B>; 12]) -> Self {
        Self {
            norm1: Affine::from_list([a, b]),
            qkv: Dense::from_list([c, d]),
            proj: Dense::from_list([e, f]),
            norm2: Affine::from_list([g, h]),
            fc1: Dense::from_list([i, j]),
            fc2: Dense::from_list([k, l]),
        }
    }
}

impl<B: VitBackend> Affine<B> {
    fn into_list(self) -> [FloatTensor<B>; 2] {
        [primitive(self.weight), primitive(self.bias)]
    }

    fn from_list([weight, bias]: [FloatTensor<B>; 2]) -> Self {
        Self {
            weight: tensor(weight),
            bias: tensor(bias),
        }
    }
}

impl<B: VitBackend> Dense<B> {
    fn into_list(self) -> [FloatTensor<B>; 2] {
        [primitive(self.weight), primitive(self.bias)]
    }

    fn from_list([weight, bias]: [FloatTensor<B>; 2]) -> Self {
        Self {
            weight: tensor(weight),
            bias: tensor(bias),
        }
    }
}

fn primitive<B: VitBackend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

fn tensor<B: VitBackend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}
