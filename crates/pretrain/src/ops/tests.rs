use burn::backend::{Autodiff, Flex};
use burn::tensor::{Distribution, Tensor};

use super::block::{BlockOptions, BlockWeights, forward};
use super::{Affine, Dense, VitBackend};
use crate::config::TrainPrecision;

type Plain = Autodiff<Flex>;
