//! Giving memory back that a process has used once and will hardly use again.
//!
//! Making a container takes a deep stack and most of our program's code; standing by it takes neither. Both come back
//! by themselves where they are needed again: the stack as zeros, the program out of the page cache.

use std::ffi::{c_int, c_void};
use std::ptr;

/// How far below the caller the stack may be in use by what the call itself does.
const MARGIN: usize = 4096;
/// How much of the stack is looked at. Less than the gap that the kernel keeps free below a stack that grows (256
/// pages, `stack_guard_gap`): what is in there is the stack or nothing.
const REACH: usize = 256 << 10;

/// By libc, which knows since the program's start. rustix asks the kernel, and on kernels before 6.4 reads
/// /proc/self/auxv, which a process that is not dumpable, in a mount namespace of its own, cannot.
fn page_size() -> usize {
    // SAFETY: no arguments but a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// Gives back the pages of the main thread's stack that were used by calls which have returned. For any other thread,
/// whose stack ends at somebody else's memory, this does nothing; it gives its stack back when it ends.
#[inline(never)]
pub fn stack() {
    if rustix::thread::gettid() != rustix::process::getpid() {
        return;
    }
    let page = page_size();
    let frame = 0u8;
    let end = ((&raw const frame).addr() - MARGIN) & !(page - 1);
    let start = end.saturating_sub(REACH) & !(page - 1);
    // SAFETY: a page and more below this frame, which is the last but for that of madvise, there are frames of calls
    // alone that have returned. ENOMEM, where the stack does not reach as far down, comes after the rest is done.
    let _ = unsafe { libc::madvise(ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED) };
}

/// Takes our program's code and constants out of this process's memory. They are still in the page cache, from which
/// the kernel takes them back page by page as they are used: some hundred nanoseconds for 64 KiB.
pub fn program() {
    // SAFETY: `release_segments` takes what dl_iterate_phdr(3) gives it, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(release_segments), ptr::null_mut()) };
}

/// Of the program itself, which is told of first: not of libraries, of which a static program has none.
unsafe extern "C" fn release_segments(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    let page = page_size();
    // SAFETY: the callback is given a live description, and in it as many program headers as it says.
    let (base, headers) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
        (info.dlpi_addr as usize, headers)
    };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = base + header.p_vaddr as usize;
        let end = (start + header.p_memsz as usize) & !(page - 1);
        let start = start & !(page - 1);
        // SAFETY: nobody writes to the segment, so that it is what the file says; and nobody writes to the file of a
        // program that runs (ETXTBSY). What is shared with the next segment, the last page, is left alone.
        // Where the kernel will not, the pages stay: nothing is lost.
        let _ = unsafe {
            libc::madvise(
                ptr::without_provenance_mut(start),
                end.saturating_sub(start),
                libc::MADV_DONTNEED,
            )
        };
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn deep(levels: usize) -> usize {
        let mut space = [levels as u8; 1024];
        std::hint::black_box(&mut space);
        if levels == 0 {
            space.len()
        } else {
            deep(levels - 1) + usize::from(space[levels] == levels as u8)
        }
    }

    #[test]
    fn the_program_goes_on_after_its_pages_were_given_back() {
        let kept = vec![7u8; 10_000];
        assert_eq!(deep(100), 1024 + 100);
        stack();
        program();
        assert_eq!(deep(100), 1024 + 100);
        assert!(kept.iter().all(|byte| *byte == 7));
        assert_eq!(format!("{}", 1.5), "1.5");
    }
}
