//! `m3ret lake`: galleries on an object store.

use std::io::Write as _;
use std::time::Duration;

use m3ret::lake::{self, CommitOptions, MaintainOptions, Plans};
use m3ret::words::{counted, printable_path};
use m3ret_search::Numbers;
use serde_json::{Value, json};

use super::write_json_line;
use crate::Outcome;
use crate::cli::lake::{
    CommitArguments, CreateLakeArguments, ExportLakeArguments, ImportArguments, LakeAction,
    LakeArguments, MaintainArguments, VerifyLakeArguments,
};
use crate::out;
use crate::progress::Progress;
use crate::screen::Screen;

/// Runs one action.
pub(crate) fn run(arguments: &LakeArguments, screen: Screen) -> anyhow::Result<Outcome> {
    let progress = Progress::start(screen);
    match &arguments.action {
        LakeAction::Create(arguments) => create(arguments, &progress),
        LakeAction::Commit(arguments) => commit(arguments, &progress),
        LakeAction::Maintain(arguments) => maintain(arguments, &progress),
        LakeAction::Import(arguments) => import(arguments, &progress),
        LakeAction::Export(arguments) => export(arguments, &progress),
        LakeAction::Verify(arguments) => verify(arguments, &progress),
    }
}

/// Prints a value as JSON, or the text that stands for it.
fn print(progress: &Progress, is_json: bool, value: &Value, text: &str) -> std::io::Result<()> {
    progress.clear();
    let mut out = out::stdout();
    match is_json {
        true => write_json_line(&mut out, value),
        false => out.write_all(text.as_bytes()),
    }
}

fn numbers(is_short: bool) -> Numbers {
    if is_short { Numbers::F16 } else { Numbers::F32 }
}

fn create(arguments: &CreateLakeArguments, progress: &Progress) -> anyhow::Result<Outcome> {
    let CreateLakeArguments { lake, model, .. } = arguments;
    let key = arguments.key_file.as_deref();
    lake::create(lake, &model.choice(), numbers(arguments.f16), key, progress)?;
    let told = format!("{}: an empty lake\n", printable_path(lake));
    print(progress, arguments.json, &json!({"lake": lake}), &told)?;
    Ok(Outcome::AllGood)
}

fn commit(arguments: &CommitArguments, progress: &Progress) -> anyhow::Result<Outcome> {
    let options = CommitOptions {
        keep: arguments.keep.clone(),
        numbers: numbers(arguments.f16),
        key: arguments.key_file.clone(),
        is_partial: arguments.partial,
    };
    let done = lake::commit(&arguments.parts, &arguments.lake, &options, progress)?;
    let mut text = format!(
        "{}: {} of {} added",
        printable_path(&arguments.lake),
        counted(done.n_rows as u64, "image", "images"),
        counted(done.n_parts as u64, "part", "parts"),
    );
    if done.n_parts_before > 0 {
        let parts = counted(done.n_parts_before as u64, "part was", "parts were");
        text += &format!(", {parts} there before");
    }
    if done.n_erased > 0 {
        let images = counted(done.n_erased as u64, "image", "images");
        text += &format!("; {images} of erased patients left out");
    }
    text.push('\n');
    print(
        progress,
        arguments.json,
        &serde_json::to_value(&done)?,
        &text,
    )?;
    Ok(Outcome::AllGood)
}

fn maintain(arguments: &MaintainArguments, progress: &Progress) -> anyhow::Result<Outcome> {
    let options = MaintainOptions {
        compacts: !arguments.no_compact,
        indexes: !arguments.no_index,
        prunes: Some(Duration::from_secs(u64::from(arguments.prune) * 3600)),
        is_alone: arguments.alone,
        recall: arguments.recall,
    };
    let done = lake::maintain(&arguments.lake, &options, progress)?;
    let [n_joined, n_made] = done.n_joined;
    let [n_versions, n_bytes] = done.n_pruned;
    let index = match &done.plans {
        // The index begins at 20,000 vectors.
        None => "no index, all vectors are searched".to_owned(),
        Some(_) => format!(
            "{} not indexed",
            counted(done.n_unindexed as u64, "vector", "vectors")
        ),
    };
    let mut text = format!(
        "{}: {}, {index}\n",
        printable_path(&arguments.lake),
        counted(done.n_rows as u64, "image", "images"),
    );
    if n_joined > 0 {
        text += &format!("files     {n_joined} joined into {n_made}\n");
    }
    if done.n_doubled > 0 {
        let rows = counted(done.n_doubled as u64, "vector", "vectors");
        text += &format!("doubled   {rows} that two writers brought, removed once\n");
    }
    if n_versions > 0 {
        text += &format!("versions  {n_versions} older ones removed, {n_bytes} bytes\n");
    }
    for level in done.plans.iter().flat_map(|plans| &plans.levels) {
        text += &format!(
            "search    of {} hits {:.3} of the exact ones are found, with filters {:.3}: {} of {} lists, {} vectors a hit\n",
            level.k,
            level.recall,
            level.recall_filtered,
            level.nprobes,
            done.plans.as_ref().map_or(0, |plans| plans.n_lists),
            level.refine
        );
    }
    let summary = json!({
        "lake": arguments.lake,
        "n_rows": done.n_rows,
        "n_vectors": done.n_vectors,
        "n_unindexed": done.n_unindexed,
        "n_doubled": done.n_doubled,
        "n_files_joined": n_joined,
        "n_files_made": n_made,
        "n_versions_removed": n_versions,
        "n_bytes_removed": n_bytes,
        "version": done.published,
        "plans": done.plans.as_ref().map(plans_of),
    });
    print(progress, arguments.json, &summary, &text)?;
    Ok(Outcome::AllGood)
}

fn plans_of(plans: &Plans) -> Value {
    json!({
        "n_rows": plans.n_rows,
        "n_lists": plans.n_lists,
        "n_queries": plans.n_queries,
        "target": plans.target,
        "levels": plans.levels,
    })
}

fn import(arguments: &ImportArguments, progress: &Progress) -> anyhow::Result<Outcome> {
    let added = lake::import(&arguments.gallery, &arguments.lake, progress)?;
    let text = match added.n_rows {
        0 => format!("{}: nothing new\n", printable_path(&arguments.lake)),
        n => format!(
            "{}: {} added\n",
            printable_path(&arguments.lake),
            counted(n as u64, "image", "images")
        ),
    };
    let value = json!({"lake": arguments.lake, "n_rows": added.n_rows, "n_erased": added.n_erased, "version": added.version});
    print(progress, arguments.json, &value, &text)?;
    Ok(Outcome::AllGood)
}

fn export(arguments: &ExportLakeArguments, progress: &Progress) -> anyhow::Result<Outcome> {
    let n_rows = lake::export(&arguments.lake, &arguments.gallery, progress)?;
    let images = counted(n_rows as u64, "image", "images");
    let text = format!("{}: {images}\n", printable_path(&arguments.gallery));
    let value = json!({"gallery": arguments.gallery, "n_rows": n_rows});
    print(progress, arguments.json, &value, &text)?;
    Ok(Outcome::AllGood)
}

fn verify(arguments: &VerifyLakeArguments, progress: &Progress) -> anyhow::Result<Outcome> {
    let checked = lake::verify(&arguments.lake)?;
    let mut text = format!(
        "{}: {}, {} read\n",
        printable_path(&arguments.lake),
        counted(checked.n_rows as u64, "image", "images"),
        counted(checked.n_vectors as u64, "vector", "vectors"),
    );
    for finding in &checked.findings {
        text += &format!("fault     {}\n", finding.what);
    }
    let faults: Vec<&str> = checked
        .findings
        .iter()
        .map(|one| one.what.as_str())
        .collect();
    let value = json!({
        "lake": arguments.lake,
        "n_rows": checked.n_rows,
        "n_vectors": checked.n_vectors,
        "n_origins": checked.n_origins,
        "faults": faults,
    });
    print(progress, arguments.json, &value, &text)?;
    Ok(Outcome::of(faults.is_empty()))
}
