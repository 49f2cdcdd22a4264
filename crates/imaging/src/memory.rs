//! Memory for large results, asked for in huge pages where the system has them.
//!
//! A fresh volume is written once, front to back. In pages of 4 KiB the kernel's share of that is
//! larger than the decoder's: 100 of 130 ms for a CT of 128 slices. numpy asks for huge pages too.

use crate::error::{Error, Result};

/// Below this, pages do not matter.
const LARGE_BYTES: usize = 4 << 20;

/// Returns `n` zeros.
///
/// # Errors
/// `LimitExceeded` if the machine has not so much memory: one object is refused, the rest goes on.
pub(crate) fn zeroed(n: usize) -> Result<Vec<f32>> {
    drop(with_capacity::<f32>(n)?);
    // Untouched memory of the allocator's: advice comes before the first write.
    let values = vec![0.0; n];
    advise(values.as_ptr(), n);
    Ok(values)
}

/// Returns an empty vector with room for `n` values.
///
/// # Errors
/// As `zeroed`.
pub(crate) fn with_capacity<T>(n: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    reserve(&mut values, n)?;
    advise(values.as_ptr(), n);
    Ok(values)
}

/// Makes room for `n` more values in `values`.
///
/// # Errors
/// As `zeroed`.
pub(crate) fn reserve<T>(values: &mut Vec<T>, n: usize) -> Result<()> {
    let asked = n.saturating_mul(size_of::<T>());
    values
        .try_reserve_exact(n)
        .map_err(|_| out_of_memory(asked))
}

/// Finds out whether the machine has `n_bytes` now, before code that cannot refuse asks for them.
///
/// # Errors
/// As `zeroed`.
pub(crate) fn probe(n_bytes: usize) -> Result<()> {
    with_capacity::<u8>(n_bytes).map(drop)
}

fn out_of_memory(n_bytes: usize) -> Error {
    Error::LimitExceeded {
        what: "bytes of memory that the machine can give",
        allowed: 0,
        asked: n_bytes as u64,
    }
}

/// Asks for huge pages in the `n` values at `start`. A refusal changes nothing but the speed.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "advice about pages has no safe binding")]
fn advise<T>(start: *const T, n: usize) {
    use rustix::mm::{Advice, madvise};

    let n_bytes = n.saturating_mul(size_of::<T>());
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
fn advise<T>(_: *const T, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advised_memory_is_zero_and_holds_what_is_written() {
        for n in [0, 1, LARGE_BYTES / 4 - 1, LARGE_BYTES / 4, LARGE_BYTES + 3] {
            let mut values = zeroed(n).unwrap();
            assert!(values.iter().all(|value| value.to_bits() == 0), "{n}");
            values.fill(1.5);
            let mut copy = with_capacity(n).unwrap();
            copy.extend_from_slice(&values);
            assert_eq!(copy, values);
        }
    }

    #[test]
    fn too_much_is_an_error_not_the_end_of_the_program() {
        assert!(zeroed(usize::MAX / 8).is_err());
        assert!(with_capacity::<f32>(usize::MAX / 2).is_err());
    }
}
