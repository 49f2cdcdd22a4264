//! `m3ret audit`: the audit trail of `m3ret serve`.

use std::io::{BufWriter, Write as _};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::write_json_line;
use crate::Outcome;
use crate::cli::{AuditAction, AuditArguments, AuditExportArguments, AuditVerifyArguments};
use crate::out;
use m3ret_server::audit::{digest_of_line, each_line};

/// Proves or exports a trail.
pub(crate) fn run(arguments: &AuditArguments) -> anyhow::Result<Outcome> {
    match &arguments.action {
        AuditAction::Verify(arguments) => verify(arguments),
        AuditAction::Export(arguments) => export(arguments),
    }
}

fn verify(arguments: &AuditVerifyArguments) -> anyhow::Result<Outcome> {
    // A digest is copied by hand, and that of a trail without a line is zeros.
    let wanted = arguments.head.as_deref();
    let wanted = wanted.map(|head| head.trim().to_ascii_lowercase());
    let wanted = wanted.as_deref();
    let mut has_wanted = wanted.is_none_or(|head| head == "0".repeat(64));
    let head = each_line(&arguments.folder, &mut |line| {
        has_wanted |= wanted == Some(digest_of_line(line).as_str());
        Ok(())
    })?;
    ensure!(
        has_wanted,
        "no line of the trail has the digest of --head: lines were removed at the end, or all were written anew"
    );
    let mut out = out::stdout();
    match arguments.json {
        true => write_json_line(&mut out, &head)?,
        false => writeln!(
            out,
            "whole     {} lines, digest of the last {}",
            head.n_lines, head.digest
        )?,
    }
    Ok(Outcome::AllGood)
}

fn export(arguments: &AuditExportArguments) -> anyhow::Result<Outcome> {
    // Nothing of a broken trail is printed.
    each_line(&arguments.folder, &mut |_| Ok(()))?;
    let mut out = BufWriter::new(out::stdout());
    each_line(&arguments.folder, &mut |line| {
        let value: Value = serde_json::from_str(line)?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_since = arguments
            .since
            .as_deref()
            .is_none_or(|day| text("time") >= day);
        let is_theirs = arguments
            .who
            .as_deref()
            .is_none_or(|who| text("who") == who);
        if is_since && is_theirs {
            write_json_line(&mut out, &value)?;
        }
        Ok(())
    })?;
    out.flush().context("writing to standard output")?;
    Ok(Outcome::AllGood)
}
