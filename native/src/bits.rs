//! The bits of a scan, first bit first.

use crate::huffman;

const SPARE: usize = 16; // zeros behind the data, so that eight bytes can be read anywhere in it

/// The data of a scan without stuffing: up to the first marker. None where that is not the end of the image.
pub fn unstuff(data: &[u8], into: &mut Vec<u8>) -> Option<()> {
    into.clear();
    let mut rest = data;
    loop {
        let at = first_ff(rest)?;
        match rest.get(at + 1)? {
            0x00 => into.extend_from_slice(&rest[..=at]),
            0xd9 => {
                into.extend_from_slice(&rest[..at]);
                into.extend_from_slice(&[0; SPARE]);
                return Some(());
            }
            _ => return None,
        }
        rest = &rest[at + 2..];
    }
}

/// By the C library, which looks at 32 bytes at a time.
fn first_ff(data: &[u8]) -> Option<usize> {
    // SAFETY: it reads within the slice, and returns null or a place in it.
    let found = unsafe { libc::memchr(data.as_ptr().cast(), 0xff, data.len()) };
    (!found.is_null()).then(|| found as usize - data.as_ptr() as usize)
}

/// A reader of what `unstuff` made.
pub struct Bits<'a> {
    data: &'a [u8],
    at: usize,  // of the next byte to load
    word: u64,  // the next bits, the first one on top
    count: u32, // of the bits in `word` that count
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8], state: State) -> Self {
        Self { data, at: state.at, word: state.word, count: state.count }
    }

    pub fn state(&self) -> State {
        State { at: self.at, word: self.word, count: self.count }
    }

    /// Have at least 56 bits. None far beyond the end.
    #[inline(always)]
    pub fn refill(&mut self) -> Option<()> {
        let next = u64::from_be_bytes(*self.data.get(self.at..)?.first_chunk()?);
        self.word |= next >> self.count;
        self.at += (63 - self.count as usize) / 8;
        self.count |= 56;
        Some(())
    }

    /// The next bits, at least one, as a number.
    #[inline(always)]
    pub fn peek(&self, bits: u32) -> u32 {
        (self.word >> (64 - bits)) as u32
    }

    #[inline(always)]
    pub fn drop(&mut self, bits: u8) {
        self.word <<= bits;
        self.count -= u32::from(bits);
    }

    /// Take the next `bits`, at least one, and return the value that the last `size` of them are.
    #[inline(always)]
    pub fn value(&mut self, bits: u8, size: u8) -> i32 {
        let value = huffman::extended(self.peek(u32::from(bits)), size);
        self.drop(bits);
        value
    }

    /// Whether all but the padding of the last byte has been read, and nothing more.
    pub fn is_at_end(&self) -> bool {
        let total = (self.data.len() - SPARE) * 8;
        let read = self.at * 8 - self.count as usize;
        (read..read + 8).contains(&total)
    }
}

/// Where a reader is.
#[derive(Clone, Copy, Default)]
pub struct State {
    at: usize,
    word: u64,
    count: u32,
}
