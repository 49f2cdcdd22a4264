//! A child process within limits, always killed and reaped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::jail::{Budget, confine};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::reason::Code;

/// Bytes handed over at once.
const CHUNK_BYTES: usize = 1 << 18;

/// One child is forked at a time: libraries of other programs in this process do work before a fork that two threads must
/// not do at once. `OpenBLAS`, as scipy brings it into Python, then waits for ever for a thread that the other one ended.
static FORKING: Mutex<()> = Mutex::new(());

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

    /// Returns how long all children may take.
    pub(super) fn allowed_s(&self) -> u64 {
        self.allowed_s
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

/// How a child ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    /// True if it returned 0.
    pub(super) success: bool,
    /// True if it wrote anything to its error stream.
    pub(super) complaints: bool,
}

/// What a child is told to do.
pub(super) struct Task<'a> {
    /// The program, looked for in `PATH`.
    pub(super) program: &'a OsStr,
    /// Its arguments.
    pub(super) args: &'a [OsString],
    /// Its standard input.
    pub(super) input: &'a File,
    /// What it may use.
    pub(super) budget: Budget,
}

/// What a child wrote to its error stream; its words may quote the file and are not kept.
#[derive(Debug, Clone, Copy, Default)]
struct Complaints {
    any: bool,
    of_memory: bool,
}

/// A running child whose output is read; dropping it kills and reaps it.
pub(super) struct Running {
    child: Child,
    chunks: Receiver<std::io::Result<Vec<u8>>>,
    complaints: Receiver<Complaints>,
    budget: Budget,
    deadline: Deadline,
    chunk: Vec<u8>,
    n_used: usize,
}

impl Running {
    /// Starts a program in the jail, never through a shell.
    ///
    /// # Errors
    /// `Io`, naming the Debian package if the program is missing.
    pub(super) fn start(task: &Task<'_>, deadline: Deadline) -> Result<Self> {
        let failed = |e| Error::io("running ffmpeg (install the Debian package ffmpeg)", e);
        let input = task.input.try_clone().map_err(failed)?;
        let mut command = Command::new(task.program);
        confine(&mut command, task.program, task.input, task.budget).map_err(failed)?;
        let one_at_a_time = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = command
            .args(task.args)
            // Would have ffmpeg write a log, with names in it, beside the files.
            .env_remove("FFREPORT")
            .stdin(Stdio::from(input))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        drop(one_at_a_time);
        let (chunk_sender, chunks) = sync_channel(2);
        let (complaint_sender, complaints) = sync_channel(1);
        // Both threads end when the child closes its end, which its death does.
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || send_chunks(stdout, &chunk_sender));
        }
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || complaint_sender.send(read_complaints(stderr)));
        }
        Ok(Self {
            child,
            chunks,
            complaints,
            budget: task.budget,
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
    /// `LimitExceeded` when time or memory is used up; `Malformed` (`decoder_crashed`) if a signal
    /// ended it; `Io`.
    pub(super) fn finish(mut self) -> Result<Exit> {
        let mut pause = Duration::from_millis(1);
        loop {
            let status = self.child.try_wait();
            if let Some(status) = status.map_err(|e| Error::io("waiting for ffmpeg", e))? {
                // Comes with the end of the error stream; only a stray grandchild could hold it.
                let complaints = self.complaints.recv_timeout(Duration::from_secs(1));
                return self.explain(status, complaints.unwrap_or_default());
            }
            if self.deadline.remaining().is_zero() {
                return Err(self.deadline.exceeded());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn explain(&self, status: ExitStatus, complaints: Complaints) -> Result<Exit> {
        if !status.success() && complaints.of_memory {
            return Err(Error::LimitExceeded {
                what: "bytes of a video decoder",
                allowed: self.budget.memory_bytes,
                asked: self.budget.memory_bytes.saturating_add(1),
            });
        }
        match signal(status) {
            Some(SIGXCPU) => Err(self.deadline.exceeded()),
            Some(number) => {
                let found = format!("a file on which ffmpeg ends by signal {number}");
                let wanted = "one that it decodes";
                Err(Error::refused(
                    super::FORMAT,
                    Code::DecoderCrashed,
                    found,
                    wanted,
                ))
            }
            None => Ok(Exit {
                success: status.success(),
                complaints: complaints.any,
            }),
        }
    }
}

/// The signal that tells of too much CPU time.
const SIGXCPU: i32 = 24;

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
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

/// Reads to the end and keeps only whether there was anything, and whether it was about memory.
fn read_complaints(mut stderr: ChildStderr) -> Complaints {
    const OF_MEMORY: &[u8] = b"Cannot allocate memory";
    let mut text = [0; 4096];
    let mut kept = Vec::new();
    let mut complaints = Complaints::default();
    while let Ok(n @ 1..) = stderr.read(&mut text) {
        complaints.any = true;
        kept.extend_from_slice(text.get(..n).unwrap_or_default());
        complaints.of_memory |= kept.windows(OF_MEMORY.len()).any(|w| w == OF_MEMORY);
        // The words may be cut between two reads.
        let n_old = kept.len().saturating_sub(OF_MEMORY.len());
        kept.drain(..n_old);
    }
    complaints
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
        Running::start(&task(program.as_ref(), &args, &nothing()), deadline).unwrap()
    }

    fn nothing() -> File {
        File::open("/dev/null").unwrap()
    }

    fn task<'a>(program: &'a OsStr, args: &'a [OsString], input: &'a File) -> Task<'a> {
        Task {
            program,
            args,
            input,
            budget: Budget::new(0, 60, 4 << 30),
        }
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
    fn a_child_that_a_signal_ends_is_a_crash() {
        let running = start("sleep", &["600"], 60);
        let pid = running.child.id().to_string();
        let killed = Command::new("kill").args(["-SEGV", &pid]).status();
        assert!(killed.unwrap().success());
        let refused = running.finish().unwrap_err();
        assert_eq!(refused.code(), Code::DecoderCrashed, "{refused}");
    }

    #[test]
    fn a_child_without_memory_passes_a_limit() {
        // The words come on the error stream, with a failure.
        let script = "echo 'prefix: Cannot allocate memory' >&2; exit 1";
        let args: Vec<OsString> = ["-c".into(), script.into()].into();
        let input = nothing();
        let deadline = Deadline::after(&Limits::default());
        let script = OsStr::new("sh");
        let running = Running::start(&task(script, &args, &input), deadline).unwrap();
        let refused = running.finish().unwrap_err();
        assert!(matches!(refused, Error::LimitExceeded { .. }), "{refused}");
    }

    #[test]
    fn a_missing_program_names_the_package() {
        let deadline = Deadline::after(&Limits::default());
        let input = nothing();
        let task = task("m3ret-no-such-program".as_ref(), &[], &input);
        let Err(refused) = Running::start(&task, deadline) else {
            panic!("a program of this name exists");
        };
        assert!(
            refused.to_string().contains("Debian package ffmpeg"),
            "{refused}"
        );
    }
}
