//! What small hostile files make us reserve, with the default limits. Alone in its process, since
//! the allocator counts for all threads.

#![allow(clippy::unwrap_used, reason = "used by tests alone")]
#![allow(
    unsafe_code,
    reason = "an allocator that counts cannot be written without"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use m3ret_imaging::{ReadOptions, read_bytes};

#[path = "oracle/hostile_files.rs"]
mod hostile_files;

/// Most that one hostile file may cost above its own size: the 64 MiB that `Limits` frees of the
/// ratio, and as much again to work on them.
const ALLOWED: usize = 128 << 20;
/// All but those that decompress cost next to nothing.
const USUAL: usize = 8 << 20;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grown(by: usize) {
    let now = NOW.fetch_add(by, Ordering::Relaxed) + by;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is handed to `System` unchanged; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) };
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        grown(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Resident memory at its highest, in bytes: sees what C decoders reserve and touch.
fn resident_peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? << 10)
}

#[test]
fn hostile_files_reserve_little() {
    let files = hostile_files::all();
    let resident_before = resident_peak();
    for file in &files {
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let refused = read_bytes(&file.bytes, &ReadOptions::default()).map_err(|e| e.code());
        assert_eq!(refused.err(), Some(file.code), "{}", file.name);
        let reserved = PEAK.load(Ordering::Relaxed) - before;
        // A data set takes less than 8 times its bytes, all of them in the file.
        let most = if file.name.contains("deflate") {
            ALLOWED
        } else {
            USUAL
        };
        let allowed = most + 8 * file.bytes.len();
        assert!(reserved < allowed, "{}: {reserved} bytes", file.name);
        println!(
            "{}: {} KiB for {} KiB",
            file.name,
            reserved >> 10,
            file.bytes.len() >> 10
        );
    }
    if let (Some(before), Some(after)) = (resident_before, resident_peak()) {
        let touched = after - before;
        println!("resident: {} MiB", touched >> 20);
        assert!(touched < 2 * ALLOWED, "{touched} bytes touched");
    }
}
