//! The models that are part of the program.

use m3ret::model_name::BuiltIn;
use m3ret_encoder::ModelBytes;

/// In the order in which they are listed.
pub(crate) static MODELS: [BuiltIn; 1] = [BuiltIn {
    bytes: ModelBytes {
        name: "m3ret-tiny",
        config: include_bytes!("../../../weights/m3ret-tiny/config.json"),
        weights: include_bytes!("../../../weights/m3ret-tiny/model.safetensors"),
    },
    agreement: include_str!("../../../weights/m3ret-tiny/agreement.json"),
}];
