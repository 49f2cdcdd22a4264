//! Notes on equal scores.

use super::results::TaskResult;

/// Smallest share of queries with a tie at a cutoff at which a task is named.
const TOLD_SHARE: f64 = 0.1;
/// Most tasks that a note names.
const MAX_NAMED: usize = 4;

/// Returns the notes on equal scores of some tasks.
pub(super) fn notes(tasks: &[TaskResult]) -> Vec<String> {
    let mut notes = Vec::from_iter(collapse(tasks));
    let is_told = |task: &&TaskResult| {
        !task.is_collapsed && task.n_tied as f64 >= TOLD_SHARE * task.n_queries as f64
    };
    let tied = tasks.iter().filter(|task| task.n_tied > 0).filter(is_told);
    let tied: Vec<String> = tied
        .map(|task| {
            format!(
                "{} ({} of {} queries)",
                task.task, task.n_tied, task.n_queries
            )
        })
        .collect();
    if !tied.is_empty() {
        notes.push(format!(
            "equal scores of relevant and other images at a cut: {}; metrics are means over their orders",
            listed(&tied)
        ));
    }
    notes
}

/// Returns a sentence that names the tasks in which the vectors are collapsed; `None` if there are none.
pub fn collapse(tasks: &[TaskResult]) -> Option<String> {
    let collapsed = tasks.iter().filter(|task| task.is_collapsed);
    let names: Vec<String> = collapsed.map(|task| task.task.clone()).collect();
    if names.is_empty() {
        return None;
    }
    let place = if names.len() == tasks.len() {
        "in every task".to_owned()
    } else {
        format!(
            "in {} of {} tasks ({})",
            names.len(),
            tasks.len(),
            listed(&names)
        )
    };
    Some(format!(
        "the vectors are collapsed {place}: all cosines are equal within {:.1e}, so the metrics are those of chance, \
         and compare calls the model neither better nor worse",
        m3ret_search::evaluation::COLLAPSED_RANGE
    ))
}

fn listed(names: &[String]) -> String {
    let n_more = names.len().saturating_sub(MAX_NAMED);
    let first = &names[..names.len() - n_more];
    let more = if n_more > 0 {
        format!(" and {n_more} more")
    } else {
        String::new()
    };
    first.join(", ") + &more
}
