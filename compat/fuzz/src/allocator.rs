//! Counts what a thread has allocated, so that an input can be told from its memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};

/// Beyond this a thread gets no memory: the process says which input it was and ends, before the machine suffers.
pub const HARD_MOST: i64 = 4 << 30;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
    static LAST_WORDS: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// From here on this thread's memory counts.
pub(crate) fn start() {
    LIVE.set(0);
    PEAK.set(0);
    COUNTS.set(true);
}

/// The most bytes that were held at once since [`start`].
pub(crate) fn stop() -> u64 {
    COUNTS.set(false);
    PEAK.get().max(0) as u64
}

/// What to say before the process ends because memory is refused.
pub(crate) fn set_last_words(words: Box<dyn Fn()>) {
    LAST_WORDS.set(Some(words));
}

/// Whether so many bytes more are given.
fn grow(bytes: usize) -> bool {
    if !COUNTS.try_with(Cell::get).unwrap_or(false) {
        return true;
    }
    let live = LIVE.get().saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
    if live > HARD_MOST {
        // The words allocate too.
        COUNTS.set(false);
        LAST_WORDS.with_borrow(|words| words.as_ref().map(|words| words()));
        return false;
    }
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
    true
}

fn shrink(bytes: usize) {
    if COUNTS.try_with(Cell::get).unwrap_or(false) {
        LIVE.set(LIVE.get() - bytes as i64);
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one hands everything on to the system's")]
// SAFETY: every call goes to `System` with the caller's own arguments; null is returned only where the trait allows it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !grow(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !grow(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !grow(size) {
            return std::ptr::null_mut();
        }
        shrink(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
