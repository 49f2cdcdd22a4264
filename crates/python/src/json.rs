//! Results as JSON, as the command line prints them.

use pyo3::prelude::*;
use serde::Serialize;

use crate::errors::{self, Class};

/// Returns a value as JSON.
pub(crate) fn to_json(py: Python<'_>, value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value)
        .map_err(|error| errors::exception(py, Class::Any, format!("writing JSON: {error}")))
}
