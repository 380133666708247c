//! A part of a JPEG tile, decoded into memory of the caller. The safe side of `jpeg.c`.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use crate::area::Averager;
use crate::scan::Scan;

// the crate is there for the library that it builds
use turbojpeg_sys as _;

const ROWS: u32 = 16; // that the C side hands over at once

/// A rectangle of a tile, in pixels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub tile_width: u32,
    pub tile_height: u32,
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Part {
    /// Whether the rectangle has pixels and lies within its tile.
    pub fn is_sound(&self) -> bool {
        let inside = |start: u32, size: u32, edge: u32| size > 0 && start.checked_add(size).is_some_and(|end| end <= edge);
        inside(self.x, self.width, self.tile_width) && inside(self.y, self.height, self.tile_height)
    }
}

/// The bytes of a tile: what its level shares (tables, colour model), and its own.
#[derive(Clone, Copy)]
pub struct Stream<'a> {
    pub head: &'a [u8],
    pub body: &'a [u8],
}

#[repr(C)]
struct Bytes {
    start: *const u8,
    size: usize,
}

impl From<&[u8]> for Bytes {
    fn from(slice: &[u8]) -> Self {
        Bytes { start: slice.as_ptr(), size: slice.len() }
    }
}

enum Handle {}

unsafe extern "C" {
    fn patho_jpeg_new() -> *mut Handle;
    fn patho_jpeg_free(handle: *mut Handle);
    fn patho_jpeg_decode(
        handle: *mut Handle,
        scan: *mut c_void,
        head: Bytes,
        body: Bytes,
        part: *const Part,
        out: *mut u8,
        pitch: usize,
        averager: *mut c_void,
        first: u32,
    ) -> i32;
}

/// A decompressor with its memory; one for each thread.
pub struct Decoder {
    handle: NonNull<Handle>,
    scan: Scan,
}

impl Decoder {
    /// None where there is no memory.
    pub fn new() -> Option<Self> {
        let handle = NonNull::new(unsafe { patho_jpeg_new() })?;
        Some(Self { handle, scan: Scan::default() })
    }

    /// Decode a part of a tile to RGB: its first pixel to `region[offset..]`, its rows `pitch` bytes apart. False where the tile is
    /// damaged or of an unusual kind; the part of the region is undefined then.
    ///
    /// Panics where the part does not fit.
    pub fn decode(&mut self, stream: Stream, part: Part, region: &mut [u8], offset: usize, pitch: usize) -> bool {
        let row = part.width as usize * 3;
        assert!(part.is_sound() && row <= pitch && offset + (part.height as usize - 1) * pitch + row <= region.len());
        // SAFETY: `out` has room for the part's rows (asserted above).
        unsafe { self.run(stream, part, region[offset..].as_mut_ptr(), pitch, std::ptr::null_mut(), 0) }
    }

    /// As `decode`, the rows being handed to an averager that has begun with this part.
    pub fn decode_into(&mut self, stream: Stream, part: Part, averager: &mut Averager) -> bool {
        assert!(part.is_sound());
        let first = ROWS - averager.lead() as u32 % 2;
        // SAFETY: the C side hands the averager back while this call lasts.
        unsafe { self.run(stream, part, std::ptr::null_mut(), 0, (&raw mut *averager).cast(), first) }
    }

    /// SAFETY: `out` has room for the part's rows, or `averager` is one. The C side reads no byte beyond head and body.
    unsafe fn run(&mut self, stream: Stream, part: Part, out: *mut u8, pitch: usize, averager: *mut c_void, first: u32) -> bool {
        let scan = (&raw mut self.scan).cast();
        unsafe { patho_jpeg_decode(self.handle.as_ptr(), scan, stream.head.into(), stream.body.into(), &part, out, pitch, averager, first) == 0 }
    }
}

/// Rows that have been decoded, `pitch` bytes apart. A panic, which there should be none, counts as damage: it may not cross C.
#[unsafe(no_mangle)]
extern "C" fn patho_rows(averager: *mut Averager, rows: *const u8, pitch: usize, count: usize, width: usize) -> bool {
    // SAFETY: the C side hands back the averager that it was given, and the rows lie in its scratch.
    let take = || unsafe { (*averager).take(std::slice::from_raw_parts(rows, (count - 1) * pitch + width * 3), pitch, count) };
    catch_unwind(AssertUnwindSafe(take)).is_ok()
}

impl Drop for Decoder {
    fn drop(&mut self) {
        unsafe { patho_jpeg_free(self.handle.as_ptr()) }
    }
}
