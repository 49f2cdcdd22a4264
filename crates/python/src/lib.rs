//! The compiled part of the Python package `m3ret`: the library's archives, galleries and models as Python types.
//!
//! It turns arguments into options of the library, runs the work without the interpreter's lock, and gives back numbers
//! as arrays and everything else as JSON. What people call lies in `python/m3ret`; docs/python.md describes it.

#![allow(
    clippy::needless_pass_by_value,
    clippy::too_many_arguments,
    reason = "pyo3 hands arguments over by value, and its token is one of them"
)]

mod archive;
mod encoder;
mod errors;
mod images;
mod index;
mod json;
mod reading;
#[cfg(feature = "training")]
mod training;
mod verbs;
mod work;

use pyo3::prelude::*;

/// The compiled part of the package.
#[pymodule]
mod _m3ret {
    use super::{PyModule, PyResult};
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::archive::{Answers, Archive};
    #[pymodule_export]
    use super::encoder::Encoder;
    #[pymodule_export]
    use super::images::{Image, Volume, read_path, volume_of_array};
    #[pymodule_export]
    use super::index::Index;
    #[cfg(feature = "training")]
    #[pymodule_export]
    use super::training::Training;
    #[pymodule_export]
    use super::verbs::{
        add_model, check, compare, doctor, evaluate, map, open_for_dedup, simulate, split,
    };
    #[pymodule_export]
    use super::work::after_fork;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // The text of a panic may hold values of a patient.
        m3ret::panics::stay_silent_about_values();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
