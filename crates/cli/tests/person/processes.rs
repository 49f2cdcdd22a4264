//! The program and the processes that it starts, as the system sees them; shared by the tests that send signals and
//! those that measure memory.

#![allow(
    dead_code,
    reason = "not every test that shares this file uses all of it"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::binary::m3ret;

/// Returns whether films can be read here.
pub(crate) fn has_ffmpeg() -> bool {
    let tried = Command::new("ffmpeg").arg("-version").output();
    tried.is_ok_and(|output| output.status.success())
}

/// Starts `m3ret WORDS` as the leader of a process group of its own, with an own folder for temporary files.
#[cfg(unix)]
pub(crate) fn start(folder: &Path, words: &[&str], temporary: &Path) -> Child {
    use std::os::unix::process::CommandExt as _;
    let mut command = m3ret(folder, words);
    command.env("TMPDIR", temporary).process_group(0);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    quiet.stderr(Stdio::null()).spawn().unwrap()
}

/// Sends a signal by its name.
pub(crate) fn send(signal: &str, process: &Child) {
    let id = process.id().to_string();
    // It may have ended meanwhile.
    let sent = Command::new("kill").args(["-s", signal, &id]).output();
    assert!(sent.is_ok());
}

/// Lists the processes of a group that have not ended, but for its leader.
pub(crate) fn others_of(leader: u32) -> Vec<u32> {
    let of_group = |number: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything.
        let words = status.rsplit(')').next().unwrap_or_default();
        let words: Vec<&str> = words.split_whitespace().collect();
        let has_ended = words
            .first()
            .is_none_or(|state| *state == "Z" || *state == "X");
        !has_ended && words.get(2).and_then(|group| group.parse().ok()) == Some(leader)
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|number| *number != leader)
        .filter(of_group)
        .collect()
}

/// Waits until a group has none but its leader; the system may take a moment to end a child of a killed process.
pub(crate) fn wait_for_end_of_others(leader: u32) {
    for _ in 0..2000 {
        if others_of(leader).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("still there: {:?}", others_of(leader));
}

/// The most that a process had resident so far, in bytes.
fn peak_of(number: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// Runs `m3ret WORDS`; returns its status, and the sum of the most that each of its processes had resident.
#[cfg(unix)]
pub(crate) fn most_memory(folder: &Path, words: &[&str], temporary: &Path) -> (Option<i32>, u64) {
    let mut running = start(folder, words, temporary);
    let mut peaks = std::collections::BTreeMap::new();
    loop {
        for number in others_of(running.id()).into_iter().chain([running.id()]) {
            let peak = peaks.entry(number).or_insert(0);
            *peak = peak_of(number).max(*peak);
        }
        if let Some(status) = running.try_wait().unwrap() {
            return (status.code(), peaks.values().sum());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
