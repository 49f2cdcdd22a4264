//! Keys of the hashes of lakes: they never lie on the object store.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use m3ret_search::{Error, Key, Result};

use crate::environment;
use crate::place::{io, mismatch};

/// Names the file of the key, in place of the folder of the user.
const KEY: &str = "M3RET_LAKE_KEY";

/// The key of a lake, and where it was found.
#[derive(Debug, Clone)]
pub struct LakeKey {
    pub(crate) key: Key,
    /// The file.
    pub path: PathBuf,
}

impl LakeKey {
    /// Reads a key of 32 bytes, as every gallery has one in its file `key`.
    ///
    /// # Errors
    /// `Io`; `Damaged` if the file does not have 32 bytes.
    pub fn of_file(path: &Path) -> Result<Self> {
        Ok(Self {
            key: Key::of_file(path)?,
            path: path.to_owned(),
        })
    }

    /// Draws a key and keeps it in the folder of the user.
    ///
    /// # Errors
    /// `Io`.
    pub fn draw() -> Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| {
            io("asking for random numbers for", Path::new(KEY))(std::io::Error::from(error))
        })?;
        let folder = folder()?;
        // Another call may draw one at the same time.
        let temporary = folder.join(format!("new-{}", crate::writer::random_name(&folder)?));
        write(&temporary, &bytes)?;
        let drawn = keep(&Self::of_file(&temporary)?);
        std::fs::remove_file(&temporary).map_err(io("removing", &temporary))?;
        drawn
    }

    /// Finds the key with a check: in the file that `M3RET_LAKE_KEY` names, or in the folder of the user.
    pub(crate) fn find(check: &str, lake: &Path) -> Result<Self> {
        let path = match environment::variable(KEY) {
            Some(path) => PathBuf::from(path),
            None => folder()?.join(check),
        };
        if !path.exists() {
            return Err(Error::Unsupported {
                path: path.clone(),
                found: format!("no key of the lake {}", lake.display()),
                wanted: format!(
                    "patients are stored as hashes with a key that does not lie on the object store; copy its file, {check}, from where \
                     the lake was made, or name it with {KEY}"
                ),
            });
        }
        let found = Self::of_file(&path)?;
        if found.key.check() != check {
            let path = path.display().to_string();
            return Err(mismatch(
                "key of the lake",
                &format!("the one with check {check}"),
                &path,
            ));
        }
        Ok(found)
    }
}

/// Keeps a key where later calls find it, and returns it with that place.
///
/// # Errors
/// `Io`.
pub fn keep(key: &LakeKey) -> Result<LakeKey> {
    let path = folder()?.join(key.key.check());
    if !path.exists() {
        let bytes = std::fs::read(&key.path).map_err(io("reading", &key.path))?;
        write(&path, &bytes)?;
    }
    LakeKey::of_file(&path)
}

/// The folder that a program chose.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Keeps the keys of all lakes of this process in a folder, in place of that of the user. The first call counts.
pub fn keep_in(folder: &Path) {
    // A later call changes nothing.
    let _ = CHOSEN.set(folder.to_owned());
}

/// Returns the folder of keys, made if it is not there.
fn folder() -> Result<PathBuf> {
    if let Some(folder) = CHOSEN.get() {
        return Ok(folder.clone());
    }
    let home = || environment::variable("HOME").map(|home| PathBuf::from(home).join(".config"));
    let config = environment::variable("XDG_CONFIG_HOME");
    let config = config.map(PathBuf::from).or_else(home);
    let config = config.ok_or_else(|| {
        let wanted = "a folder of the user, for keys: HOME or XDG_CONFIG_HOME";
        mismatch(
            "environment",
            wanted,
            "neither; M3RET_LAKE_KEY names the file of a key",
        )
    })?;
    let folder = config.join("m3ret/lake-keys");
    std::fs::create_dir_all(&folder).map_err(io("making", &folder))?;
    Ok(folder)
}

/// Writes a key, for the owner's eyes only.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut options = std::fs::File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io("writing", path))
}
