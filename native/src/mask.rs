//! Foreground masks: one bit a pixel, the first on top, rows padded to whole bytes. Unpacking them, and what share of rectangles lies on one.

use std::ops::Range;

const STRIP: usize = 16; // columns that are packed together, row after row
const FAR: u8 = 255; // as a distance: it is larger, and stored behind the others
const MOST: usize = 255; // rows that are counted at once, a byte for each column

/// Bits to bytes of 0 or 1, the top bit to the lowest.
const SPREAD: [u64; 256] = {
    let mut all = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            all[byte] |= ((byte >> (7 - bit) & 1) as u64) << (8 * bit);
            bit += 1;
        }
        byte += 1;
    }
    all
};

/// The mask of the distances (count, one byte each, then four planes of the far ones) between pixels that differ from the one above, strip
/// by strip. None where they are damaged.
pub fn unpack(data: &[u8], rows: usize, columns: usize, bits: &mut [u8]) -> Option<()> {
    let (count, rest) = data.split_first_chunk()?;
    let (near, far) = rest.split_at_checked(u32::from_le_bytes(*count) as usize)?;
    let (stride, strip, planes) = (columns.div_ceil(8), rows * STRIP, far.len() / 4);
    let mut fars = (0..planes).map(|i| (0..4).map(|k| usize::from(far[k * planes + i]) << (8 * k)).sum::<usize>());
    let (mut at, mut column) = (0, 0); // from the strip's beginning, and that strip's first column
    bits.fill(0);
    for &distance in near {
        at += if distance == FAR { fars.next()? } else { usize::from(distance) };
        while at >= strip && strip > 0 {
            (at, column) = (at - strip, column + STRIP);
        }
        let x = column + at % STRIP;
        *bits.get_mut(at / STRIP * stride + x / 8).filter(|_| x < columns)? |= 128 >> (x % 8);
    }
    (stride..bits.len()).for_each(|i| bits[i] ^= bits[i - stride]);
    (fars.next().is_none() && far.len() % 4 == 0).then_some(())
}

/// A mask, and the part of it that holds all tissue: most of a slide is glass.
pub struct Mask<'a> {
    bits: &'a [u8],
    stride: usize,
    rows: Range<usize>,
    bytes: Range<usize>,
}

impl<'a> Mask<'a> {
    pub fn new(bits: &'a [u8], stride: usize) -> Self {
        let (mut rows, mut bytes) = (0..0, 0..0);
        for (y, row) in bits.chunks_exact(stride.max(1)).enumerate() {
            let Some(first) = row.iter().position(|&byte| byte != 0) else { continue };
            let end = row.iter().rposition(|&byte| byte != 0).unwrap_or(first) + 1;
            (rows, bytes) = match rows.is_empty() {
                true => (y..y + 1, first..end),
                false => (rows.start..y + 1, first.min(bytes.start)..end.max(bytes.end)),
            };
        }
        Self { bits, stride, rows, bytes }
    }

    fn row(&self, y: usize) -> &'a [u8] {
        &self.bits[y * self.stride..][self.bytes.clone()]
    }

    /// The share of each rectangle at a pair (top, left) that lies on the mask, a row of results for each top. In pixels.
    pub fn shares(&self, tops: &[f64], lefts: &[f64], (height, width): (f64, f64), out: &mut [f64]) {
        out.fill(0.0);
        if self.rows.is_empty() || lefts.is_empty() {
            return;
        }
        let (mut band, area) = (Band::new(self.bytes.len()), height * width);
        let origin = (self.bytes.start * 8) as f64;
        for (&top, line) in tops.iter().zip(out.chunks_exact_mut(lefts.len())) {
            let (start, end) = (top.max(self.rows.start as f64), (top + height).min(self.rows.end as f64));
            if start < end {
                band.fill(self, start, end);
                line.iter_mut().zip(lefts).for_each(|(share, left)| *share = band.sum(left - origin, left - origin + width) / area);
            }
        }
    }
}

/// What lies between two heights of a mask, column by column.
struct Band {
    counts: Vec<u64>, // of whole rows, 8 columns each
    sums: Vec<f64>,
    totals: Vec<f64>, // of all columns before
}

impl Band {
    fn new(bytes: usize) -> Self {
        Self { counts: vec![0; bytes], sums: vec![0.0; bytes * 8], totals: vec![0.0; bytes * 8 + 1] }
    }

    fn fill(&mut self, mask: &Mask, start: f64, end: f64) {
        let (first, last) = (start.ceil() as usize, end.floor() as usize);
        let (whole, shares) = match last < first {
            true => (0..0, [end - start, 0.0]), // within one row
            false => (first..last, [first as f64 - start, end - last as f64]),
        };
        self.count(mask, whole.start..whole.end.min(whole.start + MOST));
        self.combine([mask.row(start as usize), mask.row(last.min(mask.rows.end - 1))], shares);
        for y in (whole.start + MOST..whole.end).step_by(MOST) {
            self.count(mask, y..whole.end.min(y + MOST));
            for (sums, counts) in self.sums.as_chunks_mut::<8>().0.iter_mut().zip(&self.counts) {
                sums.iter_mut().zip(counts.to_le_bytes()).for_each(|(sum, count)| *sum += f64::from(count));
            }
        }
        let mut total = 0.0;
        for (sums, into) in self.sums.as_chunks::<8>().0.iter().zip(self.totals[1..].as_chunks_mut::<8>().0) {
            let mut so_far = 0.0; // of these eight alone: additions that wait for each other are few
            *into = sums.map(|sum| {
                so_far += sum;
                total + so_far
            });
            total += so_far;
        }
    }

    /// At most MOST whole rows.
    fn count(&mut self, mask: &Mask, rows: Range<usize>) {
        self.counts.fill(0);
        for y in rows {
            self.counts.iter_mut().zip(mask.row(y)).for_each(|(count, &byte)| *count += SPREAD[usize::from(byte)]);
        }
    }

    /// The sums of what has been counted, and of shares of two rows.
    fn combine(&mut self, rows: [&[u8]; 2], shares: [f64; 2]) {
        let parts = self.counts.iter().zip(rows[0].iter().zip(rows[1]));
        for (sums, (counts, (&upper, &lower))) in self.sums.as_chunks_mut::<8>().0.iter_mut().zip(parts) {
            let [counts, upper, lower] = [*counts, SPREAD[usize::from(upper)], SPREAD[usize::from(lower)]].map(u64::to_le_bytes);
            for i in 0..8 {
                sums[i] = f64::from(counts[i]) + shares[0] * f64::from(upper[i]) + shares[1] * f64::from(lower[i]);
            }
        }
    }

    fn sum(&self, left: f64, right: f64) -> f64 {
        self.before(right) - self.before(left)
    }

    fn before(&self, x: f64) -> f64 {
        let x = x.clamp(0.0, self.sums.len() as f64);
        let column = (x as usize).min(self.sums.len() - 1);
        self.totals[column] + (x - column as f64) * self.sums[column]
    }
}
