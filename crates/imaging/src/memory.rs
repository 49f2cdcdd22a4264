//! Memory for large results, asked for in huge pages where the system has them.
//!
//! A fresh volume is written once, front to back. In pages of 4 KiB the kernel's share of that is
//! larger than the decoder's: 100 of 130 ms for a CT of 128 slices. numpy asks for huge pages too.

/// Below this, pages do not matter.
const LARGE_BYTES: usize = 4 << 20;

/// Returns `n` zeros.
pub(crate) fn zeroed(n: usize) -> Vec<f32> {
    // Untouched memory of the allocator's: advice comes before the first write.
    let values = vec![0.0; n];
    advise(values.as_ptr(), n);
    values
}

/// Returns an empty vector with room for `n` values.
pub(crate) fn with_capacity(n: usize) -> Vec<f32> {
    let values = Vec::with_capacity(n);
    advise(values.as_ptr(), n);
    values
}

/// Asks for huge pages in the `n` values at `start`. A refusal changes nothing but the speed.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "advice about pages has no safe binding")]
fn advise(start: *const f32, n: usize) {
    use rustix::mm::{Advice, madvise};

    let n_bytes = n.saturating_mul(size_of::<f32>());
    if n_bytes < LARGE_BYTES {
        return;
    }
    let page = rustix::param::page_size();
    let skipped = start.addr().next_multiple_of(page) - start.addr();
    let n_advised = (n_bytes - skipped) / page * page;
    let first = start.wrapping_byte_add(skipped).cast_mut().cast();
    // SAFETY: the range lies inside one live allocation of ours, starts at a page, and this advice
    // neither reads nor changes what is in it.
    let _ = unsafe { madvise(first, n_advised, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_: *const f32, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advised_memory_is_zero_and_holds_what_is_written() {
        for n in [0, 1, LARGE_BYTES / 4 - 1, LARGE_BYTES / 4, LARGE_BYTES + 3] {
            let mut values = zeroed(n);
            assert!(values.iter().all(|value| value.to_bits() == 0), "{n}");
            values.fill(1.5);
            let mut copy = with_capacity(n);
            copy.extend_from_slice(&values);
            assert_eq!(copy, values);
        }
    }
}
