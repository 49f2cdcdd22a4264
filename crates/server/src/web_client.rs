//! Requests of the server to others: only to the provider's keys.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Largest key set.
pub(crate) const MAX_KEYS_BYTES: usize = 1 << 20;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Refuses an address that others on the way could answer for.
pub(crate) fn check_address(url: &str) -> anyhow::Result<()> {
    let parsed = reqwest::Url::parse(url).ok();
    let parsed = parsed.context("an address is wanted, as https://id.example/keys")?;
    let is_own = matches!(parsed.host_str(), Some("127.0.0.1" | "[::1]"));
    match parsed.scheme() {
        "https" => Ok(()),
        "http" if is_own => Ok(()),
        _ => bail!("found an address without https, wanted one with"),
    }
}

/// Makes a client that follows nobody elsewhere.
pub(crate) fn client(authorities: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    crate::tls::install_provider();
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .no_proxy();
    if let Some(file) = authorities {
        let named = || format!("reading certificates from {}", file.display());
        let bytes = std::fs::read(file).with_context(named)?;
        let all = reqwest::Certificate::from_pem_bundle(&bytes).with_context(named)?;
        ensure!(!all.is_empty(), "{}: found no certificate", file.display());
        builder = builder.tls_certs_merge(all);
    }
    builder.build().context("preparing requests")
}

/// Returns what an address answers.
pub(crate) async fn get(
    client: &reqwest::Client,
    url: &str,
    max_bytes: usize,
) -> anyhow::Result<Vec<u8>> {
    let mut answer = client.get(url).send().await?;
    ensure!(answer.status().is_success(), "status {}", answer.status());
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        ensure!(
            bytes.len() + piece.len() <= max_bytes,
            "more than {max_bytes} bytes"
        );
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
