//! Lakes, in a program that was built without them.

use std::path::PathBuf;

use super::check::Verification;
use super::receipt::Receipt;
use super::{EraseOptions, Patient, Subject};
use crate::lake::refused;
use crate::watch::Watch;

pub(super) fn erase(
    places: &[PathBuf],
    _: &Subject,
    _: &EraseOptions,
    _: &dyn Watch,
) -> crate::Result<Receipt> {
    Err(refused(places))
}

pub(super) fn allow_again(
    places: &[PathBuf],
    _: &Patient,
    _: &EraseOptions,
) -> crate::Result<Receipt> {
    Err(refused(places))
}

pub(super) fn verify(
    _: &Receipt,
    places: &[PathBuf],
    _: Option<&Patient>,
    _: &dyn Watch,
) -> crate::Result<Vec<Verification>> {
    Err(refused(places))
}
