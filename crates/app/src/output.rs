//! Where results go: the terminal, and files that appear whole or not at all.

use std::io::{self, BufWriter, IsTerminal as _, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use m3ret_imaging::Picture;

/// What the two output streams can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Standard output may hold colours.
    pub(crate) has_colour: bool,
    /// Standard error may hold a progress bar.
    pub(crate) has_progress: bool,
}

impl Screen {
    /// Looks at the streams and at `NO_COLOR` and `TERM`.
    pub(crate) fn detect() -> Self {
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            has_colour: io::stdout().is_terminal() && !is_plain,
            has_progress: io::stderr().is_terminal(),
        }
    }
}

/// Temporary files that exist right now; an interrupt removes them.
static TEMPORARIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn temporaries() -> MutexGuard<'static, Vec<PathBuf>> {
    // A list of paths is good, whoever panicked while it was locked.
    TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that was interrupted: 128 and the number of SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// What an interrupt means now.
static INTERRUPT: AtomicU8 = AtomicU8::new(ENDS);
/// It ends the program at once.
const ENDS: u8 = 0;
/// It is noted: whoever works ends the program as soon as the work is safe.
const IS_NOTED: u8 = 1;
/// It was noted; the next one ends the program at once.
const HAS_COME: u8 = 2;

/// Lets an interrupt be noted, or end the program at once as it usually does. A second one always does.
pub(crate) fn defer_interrupts(is_deferred: bool) {
    let means = if is_deferred { IS_NOTED } else { ENDS };
    INTERRUPT.store(means, Ordering::SeqCst);
}

/// Returns whether an interrupt was noted.
pub(crate) fn has_interrupt_come() -> bool {
    INTERRUPT.load(Ordering::SeqCst) == HAS_COME
}

/// Ends the program as an interrupt does, once the work is safe.
pub(crate) fn end_interrupted(farewell: &str) -> ! {
    if io::stderr().is_terminal() {
        // The progress bar stays as it was.
        let _ = writeln!(io::stderr());
    }
    let _ = writeln!(io::stderr(), "m3ret: {farewell}");
    std::process::exit(EXIT_INTERRUPTED)
}

/// Lets Ctrl-C, SIGTERM and SIGHUP remove unfinished files before they end the program.
pub(crate) fn remove_temporaries_on_interrupt() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        let noted =
            INTERRUPT.compare_exchange(IS_NOTED, HAS_COME, Ordering::SeqCst, Ordering::SeqCst);
        if noted.is_ok() {
            return;
        }
        // The lock is kept: no new file may appear while the program ends.
        for path in temporaries().iter() {
            let _ = std::fs::remove_file(path);
        }
        if io::stderr().is_terminal() {
            // The shell's next prompt starts on a line of its own.
            eprintln!();
        }
        std::process::exit(EXIT_INTERRUPTED);
    })
    .context("listening for interrupts")
}

/// Writes a file beside its name and renames it once it is complete and on disk.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<std::fs::File>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    write_beside(path, write)?.put()
}

/// What the head of every page that m3ret writes holds.
const PAGE_MARK: &str = "<title>m3ret ";
/// Bytes of a file that are looked at for it.
const HEAD_BYTES: u64 = 4096;

/// Fails if a file lies where a page is to be written and is no page of m3ret, so that a slip in a command
/// costs nobody a manifest or an image.
pub(crate) fn refuse_foreign_page(path: &Path, is_forced: bool) -> anyhow::Result<()> {
    refuse_irregular(path)?;
    let Ok(file) = std::fs::File::open(path) else {
        return Ok(());
    };
    let mut head = Vec::new();
    file.take(HEAD_BYTES)
        .read_to_end(&mut head)
        .with_context(|| format!("reading {}", path.display()))?;
    let is_ours = head
        .windows(PAGE_MARK.len())
        .any(|part| part == PAGE_MARK.as_bytes());
    anyhow::ensure!(
        is_ours || is_forced,
        "{} is there and is no page that m3ret wrote; give another name, or replace it with --force",
        path.display()
    );
    Ok(())
}

/// Fails if something is there that no file may replace.
pub(crate) fn refuse_irregular(path: &Path) -> anyhow::Result<()> {
    // Renaming onto a device or pipe would put a file in its place.
    if std::fs::metadata(path).is_ok_and(|status| !status.is_file()) {
        anyhow::bail!("{} exists and is no regular file", path.display());
    }
    Ok(())
}

/// Writes a file beside its name: complete and on disk, but not yet in its place.
pub(crate) fn write_beside(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<std::fs::File>) -> anyhow::Result<()>,
) -> anyhow::Result<Complete> {
    let doing = || format!("writing {}", path.display());
    refuse_irregular(path)?;
    let temporary = create_temporary(path).with_context(doing)?;
    let (file, name) = temporary.into_parts();
    let name = Registered(name);
    let mut buffered = BufWriter::new(file);
    write(&mut buffered).with_context(doing)?;
    let file = buffered
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .with_context(doing)?;
    file.sync_all().with_context(doing)?;
    Ok(Complete {
        name,
        path: path.to_owned(),
    })
}

/// A complete file that waits to be renamed; dropped, it is removed.
pub(crate) struct Complete {
    name: Registered,
    path: PathBuf,
}

impl Complete {
    /// Gives the file its name, in place of an older one.
    pub(crate) fn put(self) -> anyhow::Result<()> {
        let Self { name, path } = self;
        let mut listed = temporaries();
        let renamed = std::fs::rename(&name.0, &path);
        if renamed.is_ok() {
            listed.retain(|other| *other != *name.0);
        }
        // Dropping the name takes the lock again.
        drop(listed);
        renamed.with_context(|| format!("writing {}", path.display()))
    }
}

/// A temporary file on the list; it is removed and unlisted in the end, whatever happened.
struct Registered(tempfile::TempPath);

impl Drop for Registered {
    fn drop(&mut self) {
        let path = self.0.to_path_buf();
        let _ = std::fs::remove_file(&path);
        temporaries().retain(|other| *other != path);
    }
}

fn create_temporary(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".m3ret-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As for any new file, the user's umask decides.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    // The lock is held so that an interrupt finds every file that exists.
    let mut listed = temporaries();
    let temporary = builder.tempfile_in(folder)?;
    listed.push(temporary.path().to_path_buf());
    Ok(temporary)
}

/// Returns the way from the folder of a new file to that of another, empty if they are one.
pub(crate) fn way_between(new: &Path, other: &Path) -> io::Result<PathBuf> {
    let folder = match new.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let (from, to) = (folder.canonicalize()?, other.parent().unwrap_or(other));
    let n_shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    if n_shared == 0 {
        return Ok(to.to_owned());
    }
    let up = from
        .components()
        .skip(n_shared)
        .map(|_| Component::ParentDir);
    Ok(up.chain(to.components().skip(n_shared)).collect())
}

/// Encodes a picture as PNG.
pub(crate) fn png(picture: &Picture) -> anyhow::Result<Vec<u8>> {
    let side = |side: usize| u32::try_from(side).context("a picture too large for PNG");
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    let (width, height) = (side(picture.width)?, side(picture.height)?);
    let pixels = picture.rgb.as_chunks::<3>().0;
    // Most pictures are grey, and take a third of the bytes then.
    let grey: Option<Vec<u8>> = pixels
        .iter()
        .map(|&[r, g, b]| (r == g && g == b).then_some(r))
        .collect();
    let (values, colour) = match &grey {
        Some(grey) => (grey, image::ExtendedColorType::L8),
        None => (&picture.rgb, image::ExtendedColorType::Rgb8),
    };
    image::ImageEncoder::write_image(encoder, values, width, height, colour)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let count = || std::fs::read_dir(folder.path()).unwrap().count();
        let failed = write_whole(&path, |out| {
            out.write_all(b"half")?;
            anyhow::bail!("no more")
        });
        assert!(failed.is_err());
        assert_eq!(count(), 0);
        for text in ["first", "second"] {
            write_whole(&path, |out| Ok(out.write_all(text.as_bytes())?)).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(count(), 1);
        assert!(write_whole(folder.path(), |_| Ok(())).is_err());
        assert!(
            !temporaries()
                .iter()
                .any(|listed| listed.starts_with(folder.path()))
        );
    }

    #[test]
    fn the_way_leads_from_one_folder_to_another() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir_all(root.join("c")).unwrap();
        for (new, other, expected) in [
            ("a/b/new.csv", "a/b/old.csv", ""),
            ("a/b/new.csv", "a/old.csv", ".."),
            ("a/new.csv", "a/b/old.csv", "b"),
            ("c/new.csv", "a/b/old.csv", "../a/b"),
        ] {
            let way = way_between(&root.join(new), &root.join(other)).unwrap();
            assert_eq!(way, Path::new(expected), "{new} {other}");
        }
    }
}
