//! What a person sets for lakes by variables: the library is reached through addresses only, which have no other place
//! for them.

use std::ffi::OsString;

/// Returns a variable that is set and not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks for variables"
)]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns a variable that is text and not empty.
pub(crate) fn text(name: &str) -> Option<String> {
    variable(name)?.into_string().ok()
}

/// Returns a variable that is a number.
pub(crate) fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    text(name)?.trim().parse().ok()
}
