//! What a child that decodes a stranger's file may do: read that file and its own libraries, and
//! write to its pipes.
//!
//! Memory, CPU time, open files and the size of files are bounded by the kernel; it has no network,
//! starts no process, and dies with its parent. What an old kernel lacks (landlock, from 5.13) is
//! left out; elsewhere than on Linux only the time limit of `child` holds.

use std::ffi::OsStr;
use std::fs::File;
use std::process::Command;

/// Bytes that any child may have, for its code, its threads and one picture.
const BASE_BYTES: u64 = 512 << 20;
/// Bytes for each pixel of a frame: references and threads keep some 30 frames of at most 4 bytes.
const BYTES_A_PIXEL: u64 = 128;

/// What a child may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Writable memory.
    pub(super) memory_bytes: u64,
    /// CPU seconds, of all its threads together.
    pub(super) cpu_s: u64,
}

impl Budget {
    /// Returns what a decoder of frames of `n_pixels` may use in `seconds`; 0 before they are known.
    pub(super) fn new(n_pixels: u64, seconds: u64, max_bytes: u64) -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let memory_bytes = BASE_BYTES.saturating_add(n_pixels.saturating_mul(BYTES_A_PIXEL));
        Self {
            memory_bytes: memory_bytes.min(max_bytes.max(BASE_BYTES)),
            cpu_s: seconds.saturating_mul(n_cores).saturating_add(1),
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn confine(_: &mut Command, _: &OsStr, _: &File, _: Budget) -> std::io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
pub(super) use linux::confine;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::io;
    use std::os::unix::process::CommandExt as _;
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;

    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr as _,
        RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
    };
    use rustix::process::{
        Resource, Rlimit, Signal, getpid, getppid, set_parent_process_death_signal, setrlimit,
    };
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };

    use super::{Budget, Command, File, OsStr};

    /// Where programs and libraries of the system lie.
    const SYSTEM: [&str; 12] = [
        "/usr/bin",
        "/usr/lib",
        "/usr/lib64",
        "/usr/libexec",
        "/usr/local/bin",
        "/usr/local/lib",
        "/usr/share",
        "/bin",
        "/lib",
        "/lib64",
        "/etc/ld.so.cache",
        "/nix/store",
    ];
    /// Devices without content.
    const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/urandom"];
    /// Most files that a child has open.
    const MAX_FILES: u64 = 64;
    /// Reservations count in the address space, whether used or not: threads reserve 64 MiB each.
    const ADDRESS_SPACE: u64 = 16 << 30;

    /// Calls that no decoder needs; each fails with EPERM.
    #[rustfmt::skip]
    const FORBIDDEN: [i64; 50] = [
        libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept,
        libc::SYS_accept4, libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_sendmmsg,
        libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_kill, libc::SYS_tkill,
        libc::SYS_pidfd_send_signal, libc::SYS_pidfd_getfd, libc::SYS_execveat,
        libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_unshare, libc::SYS_setns,
        libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
        libc::SYS_io_uring_setup, libc::SYS_userfaultfd, libc::SYS_open_by_handle_at, libc::SYS_openat2,
        libc::SYS_unlinkat, libc::SYS_renameat2, libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_linkat,
        libc::SYS_symlinkat, libc::SYS_fchmodat, libc::SYS_fchmod, libc::SYS_fchownat, libc::SYS_fchown,
        libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_setxattr, libc::SYS_utimensat,
        libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget,
    ];

    /// The older names of some of these.
    #[cfg(target_arch = "x86_64")]
    #[rustfmt::skip]
    const FORBIDDEN_HERE: [i64; 14] = [
        libc::SYS_fork, libc::SYS_vfork, libc::SYS_creat, libc::SYS_unlink, libc::SYS_rmdir, libc::SYS_rename,
        libc::SYS_renameat, libc::SYS_mkdir, libc::SYS_mknod, libc::SYS_link, libc::SYS_symlink, libc::SYS_chmod,
        libc::SYS_chown, libc::SYS_lchown,
    ];
    #[cfg(not(target_arch = "x86_64"))]
    const FORBIDDEN_HERE: [i64; 0] = [];

    /// Confines `command`, which is about to run `program` with `input` as its standard input.
    ///
    /// # Errors
    /// `io::Error` where the system refuses to make the rules.
    pub(in super::super) fn confine(
        command: &mut Command,
        program: &OsStr,
        input: &File,
        budget: Budget,
    ) -> io::Result<()> {
        let mut rules = Some(files(program, input).map_err(io::Error::other)?);
        let filters = filters()?;
        let parent = getpid();
        let limits = [
            (Resource::Data, budget.memory_bytes),
            (Resource::As, ADDRESS_SPACE),
            (Resource::Cpu, budget.cpu_s),
            (Resource::Fsize, 0),
            (Resource::Core, 0),
            (Resource::Nofile, MAX_FILES),
        ];
        let enter = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above.
            if getppid() != Some(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if let Some(rules) = rules.take() {
                rules.restrict_self().map_err(|_| denied())?;
            }
            for filter in filters {
                seccompiler::apply_filter(filter).map_err(|_| denied())?;
            }
            for (resource, most) in limits {
                let limit = Rlimit {
                    current: Some(most),
                    maximum: Some(most),
                };
                setrlimit(resource, limit)?;
            }
            Ok(())
        };
        #[allow(unsafe_code, reason = "limits of a child alone have no safe binding")]
        // SAFETY: between fork and exec the closure makes system calls on values that were built
        // before; it takes no lock of ours.
        unsafe {
            command.pre_exec(enter);
        }
        Ok(())
    }

    fn denied() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    /// The files that the child may open. Its input is opened again through its descriptor, so the
    /// file itself must be among them; memory of ours has no path that a rule could name.
    fn files(program: &OsStr, input: &File) -> Result<RulesetCreated, RulesetError> {
        let read = AccessFs::from_read(ABI::V1);
        let created = Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::from_all(ABI::V5))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .add_rules(path_beneath_rules(SYSTEM, read))?
            .add_rules(path_beneath_rules(
                DEVICES,
                AccessFs::ReadFile | AccessFs::WriteFile,
            ))?
            .add_rules(path_beneath_rules(own_folders(program), read))?;
        // Refused for a file in memory, which needs none.
        match created.try_clone() {
            Ok(copy) => {
                let rule = PathBeneath::new(input, AccessFs::ReadFile);
                Ok(copy.add_rule(rule).unwrap_or(created))
            }
            Err(_) => Ok(created),
        }
    }

    /// Where a program outside the system's folders has itself and its libraries.
    #[allow(
        clippy::disallowed_methods,
        reason = "libraries are looked for where the system's loader looks"
    )]
    fn own_folders(program: &OsStr) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH")
            .map(|paths| std::env::split_paths(&paths).collect())
            .unwrap_or_default();
        let path = find(program).and_then(|path| path.canonicalize().ok());
        if let Some(path) = path
            && let Some(folder) = path.parent()
        {
            if let Some(prefix) = folder.parent() {
                folders.extend(["lib", "lib64"].map(|name| prefix.join(name)));
            }
            folders.push(path);
        }
        folders.retain(|folder| folder.is_absolute());
        folders
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "programs are looked for where the system looks"
    )]
    fn find(program: &OsStr) -> Option<PathBuf> {
        if Path::new(program).components().count() > 1 {
            return Some(program.into());
        }
        let paths = std::env::var_os("PATH")?;
        std::env::split_paths(&paths)
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
    }

    /// The filters of system calls, made once.
    fn filters() -> io::Result<&'static [BpfProgram]> {
        static FILTERS: OnceLock<Option<Vec<BpfProgram>>> = OnceLock::new();
        let made = FILTERS.get_or_init(|| make_filters().ok());
        made.as_deref()
            .ok_or_else(|| io::Error::other("this CPU has no filter of system calls"))
    }

    fn make_filters() -> Result<Vec<BpfProgram>, seccompiler::Error> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for call in FORBIDDEN.into_iter().chain(FORBIDDEN_HERE) {
            rules.insert(call, Vec::new());
        }
        // Threads are made, processes are not.
        rules.insert(libc::SYS_clone, vec![masked(0, libc::CLONE_THREAD, 0)?]);
        let writing = |argument| -> Result<Vec<SeccompRule>, seccompiler::Error> {
            [libc::O_WRONLY, libc::O_RDWR]
                .into_iter()
                .map(|mode| masked(argument, libc::O_ACCMODE, mode))
                .collect()
        };
        rules.insert(libc::SYS_openat, writing(2)?);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_open, writing(1)?);
        // Its flags lie in memory, which a filter cannot read: glibc then takes `clone`.
        let newer = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        let [eperm, enosys] = [libc::EPERM, libc::ENOSYS].map(i32::unsigned_abs);
        [(rules, eperm), (newer, enosys)]
            .into_iter()
            .map(|(rules, number)| {
                let architecture = std::env::consts::ARCH.try_into()?;
                let refuse = SeccompAction::Errno(number);
                let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?;
                Ok(filter.try_into()?)
            })
            .collect()
    }

    fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompRule, seccompiler::Error> {
        let [mask, value] = [mask, value].map(|number| u64::from(number.unsigned_abs()));
        let condition = SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(mask),
            value,
        )?;
        Ok(SeccompRule::new(vec![condition])?)
    }
}

#[cfg(test)]
mod tests;
