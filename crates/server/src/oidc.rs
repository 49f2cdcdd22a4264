//! Tokens of an OpenID provider: JSON Web Tokens that it signed, checked with its public keys.
//!
//! Only RS256 and ES256 are taken, with a key that is meant for them, and `iss`, `aud`, `exp` and `nbf` are checked.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use crate::accounts::{Account, ROLES, Role};
use crate::problem::{Problem, Result};
use crate::sign_in::{foreign_name, no_role};
use crate::web_client::{self, MAX_KEYS_BYTES};

/// An OpenID provider.
#[derive(Debug, Clone)]
pub struct OidcOptions {
    /// What its tokens state as `iss`.
    pub issuer: String,
    /// What they state as `aud`.
    pub audience: String,
    /// Where its public keys are: a file, or an address with https.
    pub keys: Keys,
    /// Claim with the roles; dots lead into it, as in `realm_access.roles`.
    pub roles_claim: String,
    /// Claim with the name of the account.
    pub name_claim: String,
    /// File with certificates of authorities beside those of the machine, for the address.
    pub authorities: Option<PathBuf>,
}

/// Where public keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// A file with a JSON Web Key Set, read anew when it changes.
    File(PathBuf),
    /// An address that answers with one.
    Url(String),
}

/// Longest token.
const MAX_TOKEN: usize = 16 << 10;
/// How far two clocks may differ, seconds.
const LEEWAY_S: u64 = 30;
/// After this time keys are fetched again.
const FRESH: Duration = Duration::from_secs(600);
/// Keys are not fetched more often, whatever tokens state.
const PAUSE: Duration = Duration::from_secs(10);

/// A provider whose tokens are checked.
pub(crate) struct Oidc {
    options: OidcOptions,
    client: Option<reqwest::Client>,
    known: RwLock<Arc<Known>>,
    /// One request fetches keys at a time.
    fetching: tokio::sync::Mutex<()>,
}

/// Keys as they were read.
struct Known {
    keys: Arc<[Key]>,
    /// When a file was changed.
    stamp: Option<SystemTime>,
    /// When they were read, or it was tried.
    tried: Instant,
}

/// A public key that may sign.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Oidc {
    /// Prepares checks; reads the keys of a file, and leaves those of an address until they are needed.
    pub(crate) fn open(options: &OidcOptions) -> anyhow::Result<Self> {
        ensure!(
            !options.issuer.is_empty() && !options.audience.is_empty(),
            "--oidc-issuer and --oidc-audience are wanted"
        );
        let (keys, stamp, client) = match &options.keys {
            Keys::File(file) => {
                let (keys, stamp) = read_file(file)?;
                (keys, Some(stamp), None)
            }
            Keys::Url(url) => {
                web_client::check_address(url).with_context(|| format!("--oidc-jwks {url}"))?;
                let client = web_client::client(options.authorities.as_deref())?;
                (Arc::default(), None, Some(client))
            }
        };
        let now = Instant::now();
        let tried = match client {
            None => now,
            Some(_) => now.checked_sub(FRESH).unwrap_or(now),
        };
        Ok(Self {
            options: options.clone(),
            client,
            known: RwLock::new(Arc::new(Known { keys, stamp, tried })),
            fetching: tokio::sync::Mutex::new(()),
        })
    }

    /// Returns the account of a token; `Ok(None)` if it is not a valid one of the provider.
    pub(crate) async fn check(&self, token: &str) -> Result<Option<Account>> {
        // Text that is no token at all must not cause a request to the provider.
        if token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let Ok(header) = decode_header(token) else {
            return Ok(None);
        };
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Ok(None);
        }
        let known = self.keys_for(header.kid.as_deref(), header.alg).await;
        if known.keys.is_empty() {
            let detail = "the keys of the OpenID provider cannot be read";
            return Err(Problem::new(503, "oidc", detail));
        }
        let fitting = known
            .keys
            .iter()
            .filter(|key| key.fits(header.kid.as_deref(), header.alg));
        for key in fitting {
            if let Ok(decoded) = decode::<Value>(token, &key.key, &self.validation(key.algorithm)) {
                return self.account(&decoded.claims).map(Some);
            }
        }
        Ok(None)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(&[&self.options.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation
    }

    fn account(&self, claims: &Value) -> Result<Account> {
        let name = claim(claims, &self.options.name_claim).and_then(Value::as_str);
        let name = foreign_name("oidc", name.unwrap_or_default())?;
        let role = role_of(claim(claims, &self.options.roles_claim)).ok_or_else(no_role)?;
        let expires = claims.get("exp").and_then(Value::as_f64);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since_epoch.unwrap_or_default();
        let left = expires.and_then(|expires| Duration::try_from_secs_f64(expires).ok());
        let leeway = Duration::from_secs(LEEWAY_S);
        let left = left.map(|expires| expires.saturating_add(leeway).saturating_sub(now));
        Ok(Account::of_others(name, role, left))
    }

    /// Returns the keys, read anew if they are old, if their file changed, or if none fits.
    async fn keys_for(&self, id: Option<&str>, algorithm: Algorithm) -> Arc<Known> {
        let is_enough = |known: &Known| {
            let age = known.tried.elapsed();
            let has = known.keys.iter().any(|key| key.fits(id, algorithm));
            // A file is asked for its stamp, which costs nothing; an address only when it is time.
            match (&self.options.keys, has) {
                (Keys::File(file), _) => modified(file).ok() == known.stamp,
                (Keys::Url(_), true) => age < FRESH,
                (Keys::Url(_), false) => age < PAUSE,
            }
        };
        let known = self.known();
        if is_enough(&known) {
            return known;
        }
        let _one = self.fetching.lock().await;
        let known = self.known();
        if is_enough(&known) {
            return known;
        }
        // Keys that were good go on: a provider that is away locks nobody out at once, and is not asked again at once.
        let read = self.read().await;
        let (keys, stamp) = read.unwrap_or_else(|_| (Arc::clone(&known.keys), known.stamp));
        let newest = Arc::new(Known {
            keys,
            stamp,
            tried: Instant::now(),
        });
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&newest);
        newest
    }

    async fn read(&self) -> anyhow::Result<(Arc<[Key]>, Option<SystemTime>)> {
        match (&self.options.keys, &self.client) {
            (Keys::Url(url), Some(client)) => {
                let bytes = web_client::get(client, url, MAX_KEYS_BYTES).await?;
                Ok((keys_of(&bytes)?, None))
            }
            (Keys::File(file), _) => {
                let (keys, stamp) = tokio::task::block_in_place(|| read_file(file))?;
                Ok((keys, Some(stamp)))
            }
            (Keys::Url(_), None) => bail!("there is no client"),
        }
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Key {
    /// Whether it may have signed a token. A token that names no key may be of any, if its algorithm is the key's.
    fn fits(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        self.algorithm == algorithm && id.is_none_or(|id| self.id.as_deref() == Some(id))
    }

    /// Returns the key of a set if it is one that signs with RS256 or ES256.
    fn of(jwk: &Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            _ => return None,
        };
        let is_other_use = |used: &PublicKeyUse| *used != PublicKeyUse::Signature;
        if jwk.common.public_key_use.as_ref().is_some_and(is_other_use) {
            return None;
        }
        let stated = jwk.common.key_algorithm.map(|stated| stated.to_string());
        if stated.is_some_and(|stated| stated != format!("{algorithm:?}")) {
            return None;
        }
        Some(Self {
            id: jwk.common.key_id.clone(),
            algorithm,
            key: DecodingKey::from_jwk(jwk).ok()?,
        })
    }
}

fn keys_of(bytes: &[u8]) -> anyhow::Result<Arc<[Key]>> {
    let set: JwkSet = serde_json::from_slice(bytes)
        .ok()
        .context("found no JSON Web Key Set, wanted {\"keys\": [...]}")?;
    let keys: Arc<[Key]> = set.keys.iter().filter_map(Key::of).collect();
    ensure!(
        !keys.is_empty(),
        "found no key for RS256 or ES256 among {}",
        set.keys.len()
    );
    Ok(keys)
}

fn read_file(file: &std::path::Path) -> anyhow::Result<(Arc<[Key]>, SystemTime)> {
    let read = || -> anyhow::Result<_> {
        let stamp = modified(file)?;
        let n_bytes = std::fs::metadata(file)?.len();
        ensure!(
            usize::try_from(n_bytes).is_ok_and(|n| n <= MAX_KEYS_BYTES),
            "found {n_bytes} bytes, wanted at most {MAX_KEYS_BYTES}"
        );
        Ok((keys_of(&std::fs::read(file)?)?, stamp))
    };
    read().with_context(|| format!("reading public keys from {}", file.display()))
}

fn modified(file: &std::path::Path) -> std::io::Result<SystemTime> {
    std::fs::metadata(file)?.modified()
}

/// Follows dots into claims; a claim whose name has dots of its own is taken first.
fn claim<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| {
        path.split('.')
            .try_fold(claims, |value, name| value.get(name))
    })
}

/// Returns the role that may most: of an array, or of words between spaces; each may begin with `m3ret-`.
fn role_of(stated: Option<&Value>) -> Option<Role> {
    let words: Vec<&str> = match stated? {
        Value::String(text) => text.split([' ', ',']).collect(),
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let has = |name: &str| {
        words
            .iter()
            .any(|word| word.strip_prefix("m3ret-").unwrap_or(word) == name)
    };
    // The table is in the order of what roles may, but for the auditor, who sees no image.
    let mut found = ROLES.iter().rev().filter(|(_, name)| has(name));
    let first = found.next()?.0;
    match first {
        Role::Auditor => found.next().map(|(role, _)| *role).or(Some(first)),
        _ => Some(first),
    }
}
