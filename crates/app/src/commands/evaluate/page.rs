//! report.html: the evaluation for people, one file that needs nothing else.
use super::results::Results;
use super::subject::Subject;
use crate::cli::EvaluateArguments;
use m3ret_search::Embeddings;
use std::path::Path;
pub(super) fn write(
    _: &Path,
    _: &Results,
    _: &Subject,
    _: (&Embeddings<'_>, &EvaluateArguments),
) -> anyhow::Result<()> {
    Ok(())
}
