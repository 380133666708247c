//! Huffman codes of baseline JPEG (ITU-T T.81, annexes C and F), by tables.
//!
//! Most of the time of decoding a tile is spent here. So one look answers for two symbols, values and all, where it can; skipping steps
//! over as many symbols as a look holds; and branches, which are guessed wrongly, are taken at the end of a block and for what is rare.

use std::cell::OnceCell;
use std::ops::{Range, RangeInclusive};

use crate::bits::Bits;

const LOOK: u32 = 10; // bits; what needs more, code and value together, is rare
const PREFIXES: usize = 1 << LOOK;
const ROUND: u32 = 56 / LOOK; // looks that a refill is good for
const LEAP: u32 = 13; // bits that skipping looks at
const LAST: u32 = 63; // position of a block's last coefficient

/// As DHT stores it, and libjpeg keeps it: how many codes of each length, and the symbols in the order of their codes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Definition {
    pub counts: [u8; 17], // of codes of 1 to 16 bits; the first is unused
    pub symbols: [u8; 256],
}

/// A symbol that the next bits begin with.
#[derive(Clone, Copy, Default)]
struct Step {
    bits: u8,    // of the code and its value together; 0: the code is longer than a look
    size: u8,    // bits of the value; 0 for the symbols that have none
    advance: u8, // positions up to and including the value's; 0: end of block
}

/// One or two AC symbols with values that the next bits begin with, and an end of block that may follow the first.
#[derive(Clone, Copy, Default)]
#[repr(align(8))]
struct Pair {
    bits: u8,     // of all
    advance: u8,  // to the first value; 0: take a step
    furthest: u8, // to the last value
    ends: bool,
    values: [i16; 2], // the first and the last, which may be one
}

/// The whole symbols that the next bits begin with, in 16 bits: so a table of many stays small.
#[derive(Clone, Copy, Default)]
struct Leap(u16);

impl Leap {
    /// `bits` of 0: not even one symbol; `ends`: the last one is an end of block.
    fn new(bits: u8, advance: u8, ends: bool) -> Self {
        Self(u16::from(bits) | u16::from(advance) << 4 | u16::from(ends) << 15)
    }

    fn bits(self) -> u8 {
        (self.0 & 15) as u8
    }

    fn advance(self) -> u32 {
        u32::from(self.0 >> 4 & 127)
    }

    fn ends(self) -> bool {
        self.0 >> 15 == 1
    }
}

/// A table in all the forms that decoding needs.
pub struct Table {
    definition: Definition,
    steps: Box<[Step; PREFIXES]>,
    pairs: Box<[Pair; PREFIXES]>,
    leaps: OnceCell<Box<[Leap; 1 << LEAP]>>,
    rare: Vec<Step>,   // of the 16-bit prefixes from the first on whose code is longer than a look
    limits: [u32; 17], // first 16-bit prefix beyond the codes of a length
    shifts: [i32; 17], // from a code of a length to its symbol's place
}

impl Table {
    /// `is_ac`: symbols are runs and sizes, else sizes alone.
    pub fn new(definition: Definition, is_ac: bool) -> Self {
        let (steps, pairs) = (boxed(), boxed());
        let mut table = Self { definition, steps, pairs, leaps: OnceCell::new(), rare: Vec::new(), limits: [0; 17], shifts: [0; 17] };
        let (mut code, mut place) = (0u32, 0i32);
        for length in 1..=16 {
            let count = u32::from(definition.counts[length as usize]);
            table.shifts[length as usize] = place - code as i32;
            (code, place) = (code + count, place + count as i32);
            table.limits[length as usize] = code << (16 - length);
            if length <= LOOK {
                table.look_up(code - count..code, length, is_ac);
            } else {
                table.look_far(code - count..code, length, is_ac);
            }
            code <<= 1;
        }
        for prefix in (0..PREFIXES).filter(|_| is_ac) {
            table.pairs[prefix] = table.pair(prefix).unwrap_or_default();
        }
        table
    }

    /// What to find under the prefixes that begin with some codes of a length.
    fn look_up(&mut self, codes: Range<u32>, length: u32, is_ac: bool) {
        for code in codes {
            let step = self.symbol(code << (16 - length), length as usize..=16, is_ac).unwrap_or_default();
            let first = (code << (LOOK - length)) as usize;
            if let Some(prefixes) = self.steps.get_mut(first..first + (1 << (LOOK - length))) {
                prefixes.fill(step);
            }
        }
    }

    /// What to find, code by code, under the 16-bit prefixes that begin with some codes of a length beyond a look.
    fn look_far(&mut self, codes: Range<u32>, length: u32, is_ac: bool) {
        for code in codes {
            let step = self.symbol(code << (16 - length), length as usize..=16, is_ac).unwrap_or_default();
            self.rare.resize(self.rare.len() + (1 << (16 - length)), step);
        }
    }

    /// A symbol whose code is longer than a look. None where there is no such code.
    #[inline(always)]
    fn far(&self, bits: &Bits) -> Option<Step> {
        let place = bits.peek(16).wrapping_sub(self.limits[LOOK as usize]);
        self.rare.get(place as usize).copied().filter(|step| step.bits > 0)
    }

    pub fn is(&self, definition: &Definition) -> bool {
        self.definition == *definition
    }

    /// The symbol whose code, of one of these lengths, 16 bits begin with. None where there is no such code.
    fn symbol(&self, prefix: u32, mut lengths: RangeInclusive<usize>, is_ac: bool) -> Option<Step> {
        let length = lengths.find(|&length| prefix < self.limits[length])?;
        let place = (prefix >> (16 - length)) as i32 + self.shifts[length];
        let symbol = *self.definition.symbols.get(place as usize)?;
        let (run, size) = if is_ac { (symbol >> 4, symbol & 15) } else { (0, symbol) };
        let advance = if size > 0 || run == 15 || !is_ac { run + 1 } else { 0 };
        (size < 16).then_some(Step { bits: length as u8 + size, size, advance })
    }

    /// The symbol that follows `after` bits of a prefix, value and all.
    fn within(&self, prefix: usize, after: u8) -> Option<Step> {
        let step = self.steps[((prefix as u64) << after) as usize & (PREFIXES - 1)];
        (step.bits > 0 && u32::from(after + step.bits) <= LOOK).then_some(step)
    }

    fn pair(&self, prefix: usize) -> Option<Pair> {
        let first = self.within(prefix, 0).filter(|step| step.size > 0)?;
        let value = |bits: u8, size| extended(prefix as u32 >> (LOOK - u32::from(bits)), size) as i16;
        let values = [value(first.bits, first.size); 2];
        let alone = Pair { bits: first.bits, advance: first.advance, furthest: first.advance, ends: false, values };
        let Some(second) = self.within(prefix, first.bits) else { return Some(alone) };
        let bits = first.bits + second.bits;
        Some(match (second.size, second.advance) {
            (0, 0) => Pair { bits, ends: true, ..alone },
            (0, _) => alone,
            (size, further) => Pair { bits, furthest: first.advance + further, values: [values[0], value(bits, size)], ..alone },
        })
    }

    /// Made when first needed: tiles may have tables of their own, and no block to skip.
    fn leaps(&self) -> &[Leap; 1 << LEAP] {
        self.leaps.get_or_init(|| {
            let mut leaps = boxed::<Leap, { 1 << LEAP }>();
            leaps.iter_mut().zip(0..).for_each(|(leap, prefix)| *leap = self.leap(prefix));
            leaps
        })
    }

    /// As many symbols as the bits of a prefix hold.
    fn leap(&self, prefix: u32) -> Leap {
        let (mut bits, mut advance, mut ends) = (0, 0, false);
        while !ends {
            let step = self.steps[(prefix << bits << (32 - LEAP) >> (32 - LOOK)) as usize];
            if step.bits == 0 || u32::from(bits + step.bits) > LEAP || u32::from(advance + step.advance) > LAST {
                break;
            }
            (bits, advance, ends) = (bits + step.bits, advance + step.advance, step.advance == 0);
        }
        Leap::new(bits, advance, ends)
    }

    /// The difference of a DC coefficient; None for damaged data.
    #[inline(always)]
    pub fn difference(&self, bits: &mut Bits) -> Option<i32> {
        bits.refill()?;
        let mut step = self.steps[bits.peek(LOOK) as usize];
        if step.bits == 0 {
            step = self.far(bits)?;
        }
        Some(bits.value(step.bits, step.size))
    }

    /// The AC coefficients of a block, in the order of libjpeg's blocks. None for damaged data.
    #[inline(always)]
    pub fn coefficients(&self, bits: &mut Bits, block: &mut [i16; 64]) -> Option<()> {
        let mut at = 0;
        loop {
            bits.refill()?;
            for _ in 0..ROUND {
                let pair = self.pairs[bits.peek(LOOK) as usize];
                let (first, last) = (at + u32::from(pair.advance), at + u32::from(pair.furthest));
                if pair.advance == 0 || last >= LAST {
                    let (advance, value) = self.step(bits)?;
                    if advance == 0 {
                        return Some(());
                    }
                    at += advance;
                    block[natural(at)] = value; // 16 zeros write the last one, which is no news
                    if at >= LAST {
                        return (at == LAST).then_some(());
                    }
                    break;
                }
                bits.drop(pair.bits);
                block[natural(first)] = pair.values[0];
                block[natural(last)] = pair.values[1];
                if pair.ends {
                    return Some(());
                }
                at = last;
            }
        }
    }

    /// Step over the AC coefficients of a block.
    #[inline(always)]
    pub fn skip(&self, bits: &mut Bits) -> Option<()> {
        let (leaps, mut at) = (self.leaps(), 0);
        loop {
            bits.refill()?;
            for _ in 0..56 / LEAP {
                let leap = leaps[bits.peek(LEAP) as usize];
                let last = at + leap.advance();
                if leap.bits() == 0 || last >= LAST {
                    let (advance, _) = self.step(bits)?;
                    at += advance;
                    if advance == 0 || at >= LAST {
                        return (at <= LAST).then_some(());
                    }
                    break;
                }
                bits.drop(leap.bits());
                if leap.ends() {
                    return Some(());
                }
                at = last;
            }
        }
    }

    /// Take the next symbol, whatever it is: (advance, value), the former 0 at the end of a block, the latter 0 where it has none.
    #[inline(always)]
    fn step(&self, bits: &mut Bits) -> Option<(u32, i16)> {
        bits.refill()?;
        let mut step = self.steps[bits.peek(LOOK) as usize];
        if step.bits == 0 {
            step = self.far(bits)?;
        }
        Some((u32::from(step.advance), bits.value(step.bits, step.size) as i16))
    }
}

/// What the last `size` bits of `bits` mean as a value (T.81, F.12): those below half of what they can say are negative.
#[inline(always)]
pub fn extended(bits: u32, size: u8) -> i32 {
    let (extra, half) = (bits & ((1 << size) - 1), (1 << size) >> 1);
    extra as i32 - if extra < half { (1 << size) - 1 } else { 0 }
}

/// The place in a block of a position in the stream.
#[inline(always)]
fn natural(at: u32) -> usize {
    usize::from(NATURAL[at as usize & 127] & 63)
}

fn boxed<T: Clone + Default, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N].try_into().ok().expect("as long as it was made")
}

/// From the order of the stream to that of a block's rows (T.81, figure A.6); beyond its end, where damaged data leads, to the last.
const NATURAL: [u8; 128] = {
    #[rustfmt::skip]
    let order = [
        0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
        35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    ];
    let (mut all, mut at) = ([63; 128], 0);
    while at < 64 {
        all[at] = order[at];
        at += 1;
    }
    all
};
