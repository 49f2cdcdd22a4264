//! How a request says who asks: a token of ours, a token of an OpenID provider, a session, or a proxy that has checked.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use axum::http::{HeaderMap, HeaderName, Method, header};

use crate::accounts::{Account, Accounts, Role};
use crate::guard::session_of;
use crate::oidc::{Oidc, OidcOptions};
use crate::problem::{Problem, Result};

/// The header that pages of other sites cannot send.
const OWN_HEADER: &str = "x-m3ret";
/// Longest name of an account that another system keeps.
const MAX_NAME: usize = 128;

/// Whom a server believes.
#[derive(Debug, Clone)]
pub enum SignIn {
    /// Tokens of the file of accounts alone.
    Tokens,
    /// Tokens of an OpenID provider, beside those of the file of accounts.
    Oidc(OidcOptions),
    /// A proxy that names the account in a header.
    Proxy(ProxyOptions),
}

/// A proxy that has checked who asks.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Header with the account's name.
    pub header: String,
    /// Header with the name of its role; an account without one is a reader.
    pub role_header: String,
    /// Addresses that requests come from; others are refused.
    pub from: Vec<IpAddr>,
}

/// What tells who asks.
pub(crate) enum Checker {
    Tokens,
    Oidc(Box<Oidc>),
    Proxy {
        name: HeaderName,
        role: HeaderName,
        from: Vec<IpAddr>,
    },
}

impl Checker {
    /// Prepares the checks.
    ///
    /// # Errors
    /// If a header's name is none, no address is given, or the keys of the provider cannot be read.
    pub(crate) fn of(sign_in: &SignIn) -> anyhow::Result<Self> {
        match sign_in {
            SignIn::Tokens => Ok(Self::Tokens),
            SignIn::Oidc(options) => Ok(Self::Oidc(Box::new(Oidc::open(options)?))),
            SignIn::Proxy(options) => {
                let header = |name: &str| {
                    HeaderName::try_from(name)
                        .with_context(|| format!("{name}: the name of a header is wanted"))
                };
                ensure!(
                    !options.from.is_empty(),
                    "--auth proxy: the address of the proxy is wanted (--proxy-from)"
                );
                Ok(Self::Proxy {
                    name: header(&options.header)?,
                    role: header(&options.role_header)?,
                    from: options.from.iter().map(IpAddr::to_canonical).collect(),
                })
            }
        }
    }

    /// Whether requests come through a proxy that knows accounts.
    pub(crate) fn is_proxy(&self) -> bool {
        matches!(self, Self::Proxy { .. })
    }

    /// Returns the addresses of proxies that know accounts.
    pub(crate) fn proxies(&self) -> &[IpAddr] {
        match self {
            Self::Proxy { from, .. } => from,
            Self::Tokens | Self::Oidc(_) => &[],
        }
    }

    /// Returns the account of a token; `Ok(None)` if nobody has it.
    pub(crate) async fn of_token(
        &self,
        accounts: &Accounts,
        token: &str,
    ) -> Result<Option<Account>> {
        if let Some(account) = accounts.of_token(token) {
            return Ok(Some(account));
        }
        match self {
            Self::Oidc(oidc) => oidc.check(token).await,
            Self::Tokens | Self::Proxy { .. } => Ok(None),
        }
    }

    /// Returns who asks.
    pub(crate) async fn account(
        &self,
        accounts: &Accounts,
        (headers, method): (&HeaderMap, &Method),
        peer: Option<IpAddr>,
    ) -> Result<Account> {
        if let Some(stated) = headers.get(header::AUTHORIZATION) {
            let token = stated.to_str().ok().and_then(|text| text.split_once(' '));
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let (_, token) = token.ok_or_else(unknown)?;
            let account = self.of_token(accounts, token.trim()).await?;
            return account.ok_or_else(unknown);
        }
        let account = match self {
            Self::Proxy { name, role, from } => {
                let peer = peer.map(|peer| peer.to_canonical());
                if !peer.is_some_and(|peer| from.contains(&peer)) {
                    return Err(unknown());
                }
                named_by_proxy(headers, name, role)?
            }
            Self::Tokens | Self::Oidc(_) => session_of(headers)
                .and_then(|cookie| accounts.of_session(cookie))
                .ok_or_else(unknown)?,
        };
        // A browser sends cookies, and a proxy its own, with requests that pages of other sites begin.
        let is_write = !matches!(*method, Method::GET | Method::HEAD);
        if is_write && headers.get(OWN_HEADER).is_none_or(|value| value != "1") {
            let detail = "a request without a token that writes needs the header X-M3RET: 1";
            return Err(Problem::new(403, "header_wanted", detail));
        }
        Ok(account)
    }
}

fn unknown() -> Problem {
    Problem::new(401, "unauthorized", "a valid token or session is wanted")
}

fn named_by_proxy(headers: &HeaderMap, name: &HeaderName, role: &HeaderName) -> Result<Account> {
    // A header that comes twice was sent by the client, too.
    let one = |wanted: &HeaderName| {
        let mut all = headers.get_all(wanted).iter();
        match (all.next(), all.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| unknown()),
            (Some(_), Some(_)) => Err(unknown()),
        }
    };
    let name = one(name)?.ok_or_else(unknown)?;
    let role = match one(role)? {
        Some(role) => role.trim().parse().map_err(|_| no_role())?,
        None => Role::Reader,
    };
    Ok(Account::of_others(
        foreign_name("proxy", name.trim())?,
        role,
        None,
    ))
}

/// The account has no role here.
pub(crate) fn no_role() -> Problem {
    Problem::new(
        403,
        "no_role",
        "the account has none of the roles reader, curator, indexer, auditor, admin",
    )
}

/// Names an account that another system keeps. It cannot be taken for one of ours, whose names hold no colon.
pub(crate) fn foreign_name(system: &str, name: &str) -> Result<String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
    match is_plain && !name.is_empty() && name.len() <= MAX_NAME {
        true => Ok(format!("{system}:{name}")),
        false => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn proxy() -> Checker {
        let options = ProxyOptions {
            header: "X-Remote-User".to_owned(),
            role_header: "X-Remote-Role".to_owned(),
            from: vec!["10.0.0.1".parse().unwrap()],
        };
        Checker::of(&SignIn::Proxy(options)).unwrap()
    }

    fn ask(
        headers: &[(&'static str, &'static str)],
        method: &Method,
        peer: &str,
    ) -> Result<Account> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let accounts = Accounts::of_one_token("one");
        let peer = peer.parse().ok();
        let checker = proxy();
        let asked = checker.account(&accounts, (&map, method), peer);
        runtime.unwrap().block_on(asked)
    }

    #[test]
    fn a_proxy_names_accounts_and_nobody_else_does() {
        let get = |headers: &[(&'static str, &'static str)], peer| ask(headers, &Method::GET, peer);
        let ann = get(&[("x-remote-user", "ann")], "10.0.0.1").unwrap();
        assert_eq!((ann.name.as_str(), ann.role), ("proxy:ann", Role::Reader));
        let mapped = get(&[("x-remote-user", "ann")], "::ffff:10.0.0.1").unwrap();
        assert_eq!(mapped.name, "proxy:ann");
        let admin = [("x-remote-user", "ann"), ("x-remote-role", "admin")];
        assert_eq!(get(&admin, "10.0.0.1").unwrap().role, Role::Admin);
        for (headers, peer) in [
            (&[("x-remote-user", "ann")][..], "10.0.0.2"),
            (&[("x-remote-user", "ann")], "no address"),
            (&[], "10.0.0.1"),
            (&[("x-remote-user", "")], "10.0.0.1"),
            (&[("x-remote-user", "a b")], "10.0.0.1"),
            (
                &[("x-remote-user", "ann"), ("x-remote-user", "bob")],
                "10.0.0.1",
            ),
            (
                &[("x-remote-user", "ann"), ("x-remote-role", "owner")],
                "10.0.0.1",
            ),
            (
                &[("x-remote-user", "ann"), ("authorization", "Bearer two")],
                "10.0.0.1",
            ),
        ] {
            assert!(get(headers, peer).is_err(), "{headers:?} from {peer}");
        }
    }

    #[test]
    fn requests_that_write_need_a_header_that_other_sites_cannot_send() {
        let user = ("x-remote-user", "ann");
        assert!(ask(&[user], &Method::POST, "10.0.0.1").is_err());
        assert!(ask(&[user, ("x-m3ret", "0")], &Method::DELETE, "10.0.0.1").is_err());
        assert!(ask(&[user, ("x-m3ret", "1")], &Method::POST, "10.0.0.1").is_ok());
        let token = [("authorization", "Bearer one")];
        assert!(ask(&token, &Method::POST, "10.0.0.9").is_ok());
    }
}
