//! Who may do what: roles, tokens, and sessions of browsers.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use blake3::Hash;

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Searches and looks at images.
    Reader,
    /// Does what a reader does, and adds and removes images.
    Curator,
    /// Does what a curator does, and takes images from a PACS.
    Indexer,
    /// Looks at the state of the audit trail, and at no image.
    Auditor,
    /// Does everything.
    Admin,
}

/// Every role with its name, in the order of what it may do.
pub(crate) const ROLES: [(Role, &str); 5] = [
    (Role::Reader, "reader"),
    (Role::Curator, "curator"),
    (Role::Indexer, "indexer"),
    (Role::Auditor, "auditor"),
    (Role::Admin, "admin"),
];

impl Role {
    /// Whether it may search and look at images.
    pub(crate) fn may_search(self) -> bool {
        self != Self::Auditor
    }

    /// Whether it may add and remove images.
    pub(crate) fn may_write(self) -> bool {
        matches!(self, Self::Curator | Self::Indexer | Self::Admin)
    }

    /// Whether it may send objects by DICOM.
    pub(crate) fn may_index(self) -> bool {
        matches!(self, Self::Indexer | Self::Admin)
    }

    /// Whether it may look at the state of the audit trail.
    pub(crate) fn may_audit(self) -> bool {
        matches!(self, Self::Auditor | Self::Admin)
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        let found = ROLES.iter().find(|(role, _)| *role == self);
        found.map_or("reader", |(_, name)| name)
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ROLES.iter().find(|(_, name)| *name == text);
        let found = found.map(|(role, _)| *role);
        found.ok_or_else(|| "reader, curator, indexer, auditor or admin is wanted".to_owned())
    }
}

/// One who may use the server.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// How long what it showed is valid; `None` for as long as the server runs.
    lasts: Option<Duration>,
}

impl Account {
    /// An account that another system keeps.
    pub(crate) fn of_others(name: String, role: Role, lasts: Option<Duration>) -> Self {
        Self { name, role, lasts }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Account({:?})", self.role)
    }
}

/// Longest name of an account.
const MAX_NAME: usize = 64;
/// What stands before a digest in the file of accounts.
const PREFIX: &str = "blake3:";
/// Number of random bytes of a token.
const N_BYTES: usize = 32;
/// Most sessions at a time, and of one account: a further one ends the account's oldest, not that of others.
const MAX_SESSIONS: usize = 4096;
const MAX_OF_ONE: usize = 32;
/// How long a session lasts.
const SESSION: Duration = Duration::from_secs(12 * 3600);

/// Returns a new token, 64 hexadecimal digits.
///
/// # Errors
/// If the machine has no random numbers.
pub fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; N_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns the line of a file of accounts for a token.
///
/// # Errors
/// If the name is none.
pub fn account_line(token: &str, role: Role, name: &str) -> anyhow::Result<String> {
    check_name(name)?;
    let digest = blake3::hash(token.as_bytes()).to_hex();
    Ok(format!("{PREFIX}{digest} {} {name}", role.name()))
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    ensure!(
        !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_fine),
        "the name of an account: 1 to {MAX_NAME} letters, digits, or . _ - @ are wanted"
    );
    ensure!(
        !RESERVED.contains(&name),
        "the name of an account: the audit trail calls parts of the server {RESERVED:?}; another name is wanted"
    );
    Ok(())
}

/// What the audit trail calls the receiver of objects, and whoever has the random token.
pub(crate) const RESERVED: [&str; 2] = [DICOM, LOCAL];
pub(crate) const DICOM: &str = "dicom";
const LOCAL: &str = "local";

struct Session {
    account: Account,
    ends: Instant,
}

/// The accounts of a server and their sessions.
pub(crate) struct Accounts {
    /// By digests of the tokens, whose comparison takes the same time for all.
    all: Vec<(Hash, Account)>,
    /// By digests of the cookies.
    sessions: Mutex<HashMap<Hash, Session>>,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Accounts({})", self.all.len())
    }
}

impl Accounts {
    /// Makes an account with the role admin for a token.
    pub(crate) fn of_one_token(token: &str) -> Self {
        let account = Account {
            name: LOCAL.to_owned(),
            role: Role::Admin,
            lasts: None,
        };
        Self::of(vec![(blake3::hash(token.as_bytes()), account)])
    }

    /// No account: whoever asks is known to another system.
    pub(crate) fn none() -> Self {
        Self::of(Vec::new())
    }

    fn of(all: Vec<(Hash, Account)>) -> Self {
        Self {
            all,
            sessions: Mutex::default(),
        }
    }

    /// Reads a file of accounts: `blake3:DIGEST ROLE NAME` a line, and comments after `#`.
    ///
    /// # Errors
    /// If it cannot be read, a line has another form, or a digest or a name comes twice.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("reading accounts from {}", file.display()))?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut all: Vec<(Hash, Account)> = Vec::new();
        for (place, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (digest, account) = account(line).with_context(|| format!("line {}", place + 1))?;
            let is_taken =
                |(other, found): &(Hash, Account)| *other == digest || found.name == account.name;
            if all.iter().any(is_taken) {
                bail!("line {}: the token or the name has an account", place + 1);
            }
            all.push((digest, account));
        }
        ensure!(
            !all.is_empty(),
            "found no account, wanted lines `{PREFIX}DIGEST ROLE NAME`; `m3ret serve --new-token` writes one"
        );
        Ok(Self::of(all))
    }

    /// Returns the account of a token. Every digest is compared, each in constant time.
    pub(crate) fn of_token(&self, token: &str) -> Option<Account> {
        let digest = blake3::hash(token.as_bytes());
        let mut found = None;
        for (known, account) in &self.all {
            if *known == digest {
                found = Some(account.clone());
            }
        }
        found
    }

    /// Begins a session; returns what its cookie holds.
    ///
    /// # Errors
    /// If the machine has no random numbers.
    pub(crate) fn begin(&self, account: &Account) -> anyhow::Result<String> {
        let cookie = random_token()?;
        let now = Instant::now();
        let session = Session {
            account: account.clone(),
            ends: now + account.lasts.map_or(SESSION, |lasts| lasts.min(SESSION)),
        };
        let mut sessions = self.sessions();
        sessions.retain(|_, session| session.ends > now);
        let own = |session: &Session| session.account.name == account.name;
        let n_own = sessions.values().filter(|session| own(session)).count();
        if n_own >= MAX_OF_ONE || sessions.len() >= MAX_SESSIONS {
            let candidates = sessions
                .iter()
                .filter(|(_, session)| n_own == 0 || own(session));
            let oldest = candidates.min_by_key(|(_, session)| session.ends);
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                sessions.remove(&oldest);
            }
        }
        sessions.insert(blake3::hash(cookie.as_bytes()), session);
        Ok(cookie)
    }

    /// Returns the account of a session that has not ended.
    pub(crate) fn of_session(&self, cookie: &str) -> Option<Account> {
        let sessions = self.sessions();
        let session = sessions.get(&blake3::hash(cookie.as_bytes()))?;
        (session.ends > Instant::now()).then(|| session.account.clone())
    }

    /// Ends a session.
    pub(crate) fn end(&self, cookie: &str) {
        self.sessions().remove(&blake3::hash(cookie.as_bytes()));
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<Hash, Session>> {
        // A table of sessions is good, whoever panicked while it was locked.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn account(line: &str) -> anyhow::Result<(Hash, Account)> {
    let mut words = line.split_whitespace();
    let (Some(digest), Some(role), Some(name), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        bail!("`{PREFIX}DIGEST ROLE NAME` is wanted");
    };
    let digest = digest.strip_prefix(PREFIX);
    let digest = digest.and_then(|digest| Hash::from_hex(digest).ok());
    let role = role
        .parse()
        .map_err(|wanted: String| anyhow::anyhow!(wanted))?;
    check_name(name)?;
    let digest =
        digest.with_context(|| format!("{PREFIX} and 64 hexadecimal digits are wanted"))?;
    let account = Account {
        name: name.to_owned(),
        role,
        lasts: None,
    };
    Ok((digest, account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_sessions_lead_to_their_account_and_nothing_else_does() {
        let line = |token: &str, role, name: &str| account_line(token, role, name).unwrap();
        let text = format!(
            "# accounts\n\n{} # a reader\n{}\n",
            line("one", Role::Reader, "ann"),
            line("two", Role::Auditor, "bob@site")
        );
        let accounts = Accounts::parse(&text).unwrap();
        let ann = accounts.of_token("one").unwrap();
        assert_eq!((ann.name.as_str(), ann.role), ("ann", Role::Reader));
        assert_eq!(accounts.of_token("two").unwrap().role, Role::Auditor);
        let digest = blake3::hash(b"one").to_hex().to_string();
        for wrong in ["", "three", "ONE", "one ", digest.as_str()] {
            assert!(accounts.of_token(wrong).is_none(), "{wrong}");
        }
        let cookie = accounts.begin(&ann).unwrap();
        assert_eq!(accounts.of_session(&cookie), Some(ann));
        assert!(accounts.of_session("").is_none() && accounts.of_token(&cookie).is_none());
        accounts.end(&cookie);
        assert!(accounts.of_session(&cookie).is_none());
    }

    #[test]
    fn files_of_another_form_are_refused_without_their_text() {
        let good = account_line("one", Role::Reader, "ann").unwrap();
        for wrong in [
            String::new(),
            "one reader ann".to_owned(),
            format!("{PREFIX}00 reader ann"),
            good.replace("reader", "owner"),
            good.replace(" ann", ""),
            format!("{good} more"),
            format!("{good}\n{good}"),
            good.replace("ann", "a/b"),
        ] {
            let error = format!("{:#}", Accounts::parse(&wrong).unwrap_err());
            assert!(
                !error.contains("owner") && !error.contains("a/b"),
                "{error}"
            );
        }
        for wrong in ["a b", "dicom", "local"] {
            assert!(account_line("one", Role::Admin, wrong).is_err());
        }
    }

    #[test]
    fn sessions_are_bounded() {
        let accounts = Accounts::none();
        let account = |name: &str| Account::of_others(name.to_owned(), Role::Reader, None);
        let others = accounts.begin(&account("bob")).unwrap();
        let mut newest = String::new();
        for _ in 0..MAX_OF_ONE + 5 {
            newest = accounts.begin(&account("ann")).unwrap();
        }
        assert_eq!(accounts.sessions().len(), 1 + MAX_OF_ONE);
        assert!(accounts.of_session(&others).is_some(), "bob is signed in");
        assert!(accounts.of_session(&newest).is_some());
        for n in 0..MAX_SESSIONS {
            accounts.begin(&account(&n.to_string())).unwrap();
        }
        assert_eq!(accounts.sessions().len(), MAX_SESSIONS);
    }
}
