//! A child process with a time limit, always killed and reaped.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::limits::Limits;

/// Bytes handed over at once.
const CHUNK_BYTES: usize = 1 << 18;

/// The programs to run; tests put others in their place.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    /// Decodes.
    pub(super) ffmpeg: OsString,
    /// Describes.
    pub(super) ffprobe: OsString,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            ffmpeg: "ffmpeg".into(),
            ffprobe: "ffprobe".into(),
        }
    }
}

/// When all children of one object must be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    end: Instant,
    allowed_s: u64,
}

impl Deadline {
    /// Starts the time that `limits` allows.
    pub(super) fn after(limits: &Limits) -> Self {
        // Three years are as good as for ever, and no clock overflows.
        let allowed_s = limits.max_seconds.min(100_000_000);
        Self {
            end: Instant::now() + Duration::from_secs(allowed_s),
            allowed_s,
        }
    }

    fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    fn exceeded(&self) -> Error {
        Error::LimitExceeded {
            what: "seconds of decoding in child processes",
            allowed: self.allowed_s,
            asked: self.allowed_s.saturating_add(1),
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    /// True if it returned 0.
    pub(super) success: bool,
    /// True if it wrote anything to its error stream.
    pub(super) complaints: bool,
}

/// A running child whose output is read; dropping it kills and reaps it.
pub(super) struct Running {
    child: Child,
    chunks: Receiver<std::io::Result<Vec<u8>>>,
    complaints: Receiver<bool>,
    deadline: Deadline,
    chunk: Vec<u8>,
    n_used: usize,
}

impl Running {
    /// Starts `program`, never through a shell.
    ///
    /// # Errors
    /// `Io`, naming the Debian package if the program is missing.
    pub(super) fn start(program: &OsStr, args: &[OsString], deadline: Deadline) -> Result<Self> {
        let mut child = Command::new(program)
            .args(args)
            // Would have ffmpeg write a log, with names in it, beside the files.
            .env_remove("FFREPORT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io("running ffmpeg (install the Debian package ffmpeg)", e))?;
        let (chunk_sender, chunks) = sync_channel(2);
        let (complaint_sender, complaints) = sync_channel(1);
        // Both threads end when the child closes its end, which its death does.
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || send_chunks(stdout, &chunk_sender));
        }
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || complaint_sender.send(has_content(stderr)));
        }
        Ok(Self {
            child,
            chunks,
            complaints,
            deadline,
            chunk: Vec::new(),
            n_used: 0,
        })
    }

    /// Returns the unread bytes of the current chunk, or of the next; empty at the end of output.
    ///
    /// # Errors
    /// `LimitExceeded` when the time is up, `Io`.
    fn unread(&mut self) -> Result<&[u8]> {
        if self.n_used >= self.chunk.len() {
            self.n_used = 0;
            self.chunk = match self.chunks.recv_timeout(self.deadline.remaining()) {
                Ok(chunk) => chunk.map_err(|e| Error::io("reading the output of ffmpeg", e))?,
                Err(RecvTimeoutError::Disconnected) => Vec::new(),
                Err(RecvTimeoutError::Timeout) => return Err(self.deadline.exceeded()),
            };
        }
        Ok(self.chunk.get(self.n_used..).unwrap_or_default())
    }

    /// Appends up to `n_bytes` of output to `out` and returns how many there were.
    ///
    /// # Errors
    /// As `unread`.
    pub(super) fn read_into(&mut self, out: &mut Vec<u8>, n_bytes: usize) -> Result<usize> {
        let mut n_read = 0;
        while n_read < n_bytes {
            let unread = self.unread()?;
            let part = unread.get(..n_bytes - n_read).unwrap_or(unread);
            if part.is_empty() {
                break;
            }
            out.extend_from_slice(part);
            let n_part = part.len();
            self.n_used += n_part;
            n_read += n_part;
        }
        Ok(n_read)
    }

    /// Reads a line without its end into `line`, keeping no more than `n_max` bytes of it; false at
    /// the end of output.
    ///
    /// # Errors
    /// As `unread`.
    pub(super) fn read_line(&mut self, line: &mut Vec<u8>, n_max: usize) -> Result<bool> {
        line.clear();
        let mut any = false;
        loop {
            let unread = self.unread()?;
            if unread.is_empty() {
                return Ok(any);
            }
            any = true;
            let end = unread.iter().position(|&byte| byte == b'\n');
            let part = unread
                .get(..end.unwrap_or(unread.len()))
                .unwrap_or_default();
            let n_kept = part.len().min(n_max.saturating_sub(line.len()));
            line.extend_from_slice(part.get(..n_kept).unwrap_or_default());
            self.n_used += part.len() + usize::from(end.is_some());
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// Waits for the end of a child whose output has ended.
    ///
    /// # Errors
    /// `LimitExceeded` when the time is up, `Io`.
    pub(super) fn finish(mut self) -> Result<Exit> {
        let mut pause = Duration::from_millis(1);
        loop {
            let status = self.child.try_wait();
            if let Some(status) = status.map_err(|e| Error::io("waiting for ffmpeg", e))? {
                // Comes with the end of the error stream; only a stray grandchild could hold it.
                let complaints = self.complaints.recv_timeout(Duration::from_secs(1));
                let complaints = complaints.unwrap_or(false);
                return Ok(Exit {
                    success: status.success(),
                    complaints,
                });
            }
            if self.deadline.remaining().is_zero() {
                return Err(self.deadline.exceeded());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// Reads to the end, or until nobody listens.
fn send_chunks(mut stdout: ChildStdout, sender: &SyncSender<std::io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let message = stdout
            .by_ref()
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk);
        let is_last = !matches!(message, Ok(n) if n > 0);
        if sender.send(message.map(|_| chunk)).is_err() || is_last {
            return;
        }
    }
}

/// Reads to the end and forgets what it read, save whether there was anything.
fn has_content(mut stderr: ChildStderr) -> bool {
    let mut text = [0; 4096];
    let mut any = false;
    while let Ok(1..) = stderr.read(&mut text) {
        any = true;
    }
    any
}

impl Drop for Running {
    fn drop(&mut self) {
        // Neither can be helped here; after a successful `finish` both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &str, args: &[&str], max_seconds: u64) -> Running {
        let deadline = Deadline::after(&Limits {
            max_seconds,
            ..Limits::default()
        });
        let args: Vec<OsString> = args.iter().map(Into::into).collect();
        Running::start(program.as_ref(), &args, deadline).unwrap()
    }

    fn is_alive(pid: u32) -> bool {
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_silent_child_is_killed_and_reaped_when_time_is_up() {
        let started = Instant::now();
        let mut running = start("sleep", &["600"], 1);
        let pid = running.child.id();
        let refused = running.read_into(&mut Vec::new(), 1).unwrap_err();
        assert!(
            matches!(refused, Error::LimitExceeded { allowed: 1, .. }),
            "{refused}"
        );
        drop(running);
        assert!(!is_alive(pid));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_child_that_only_stops_writing_is_killed_too() {
        let running = start("sleep", &["600"], 1);
        let pid = running.child.id();
        assert!(matches!(running.finish(), Err(Error::LimitExceeded { .. })));
        assert!(!is_alive(pid));
    }

    #[test]
    fn an_endless_writer_is_killed_when_its_reader_has_enough() {
        let mut running = start("yes", &[], 60);
        let pid = running.child.id();
        let mut out = Vec::new();
        assert_eq!(running.read_into(&mut out, 1_000_001).unwrap(), 1_000_001);
        assert_eq!(&out[..4], b"y\ny\n");
        drop(running);
        assert!(!is_alive(pid));
    }

    #[test]
    fn lines_end_at_line_ends_and_are_kept_to_a_bound() {
        let mut running = start("printf", &["one\\n\\nlonger\\nend"], 60);
        let mut line = Vec::new();
        for expected in [&b"one"[..], b"", b"long", b"end"] {
            assert!(running.read_line(&mut line, 4).unwrap());
            assert_eq!(line, expected);
        }
        assert!(!running.read_line(&mut line, 4).unwrap());
        assert_eq!(
            running.finish().unwrap(),
            Exit {
                success: true,
                complaints: false
            }
        );
    }

    #[test]
    fn a_missing_program_names_the_package() {
        let deadline = Deadline::after(&Limits::default());
        let Err(refused) = Running::start("m3ret-no-such-program".as_ref(), &[], deadline) else {
            panic!("a program of this name exists");
        };
        assert!(
            refused.to_string().contains("Debian package ffmpeg"),
            "{refused}"
        );
    }
}
