//! Area averaging by whole ratios, bit for bit as OpenCV's `resize` with `INTER_AREA`: row by row, as tiles are decoded, so that no region
//! goes to memory and back.
//!
//! OpenCV rounds half up for a ratio of 2, and for others multiplies by a 32-bit 1/ratio² and rounds half to even.

type Sum = [u32; 3];

/// Where a tile's part lies in the region, in pixels.
#[derive(Clone, Copy, Default)]
pub struct Place {
    pub column: usize,
    pub row: usize,
    pub width: usize,
    pub height: usize,
}

/// Averages blocks of `ratio` x `ratio` pixels of a square RGB region into `out`, square with `size` pixels. Tiles come one after the other,
/// the rows of each from the top.
pub struct Averager<'a> {
    out: &'a mut [u8],
    size: usize,
    ratio: usize,
    halve: Halve,
    seams: Seams,
    place: Place,
    done: usize,    // rows of the part
    sums: Vec<u32>, // of rows of the part that make no whole block so far
    summed: usize,  // how many they are
}

impl<'a> Averager<'a> {
    pub fn new(out: &'a mut [u8], size: usize, ratio: usize, places: impl Iterator<Item = Place> + Clone) -> Self {
        assert!(ratio > 1 && out.len() == size * size * 3);
        let seams = Seams {
            rows: seams(places.clone().flat_map(|place| [place.row, place.row + place.height]), ratio, size),
            columns: seams(places.flat_map(|place| [place.column, place.column + place.width]), ratio, size),
        };
        Self { out, size, ratio, halve: halving(), seams, place: Place::default(), done: 0, sums: Vec::new(), summed: 0 }
    }

    /// The next rows are those of a part here; it must lie in the region.
    pub fn begin(&mut self, place: Place) {
        let edge = self.size * self.ratio;
        assert!(place.column + place.width <= edge && place.row + place.height <= edge);
        (self.place, self.done, self.summed) = (place, 0, 0);
        self.sums.clear();
        self.sums.resize(place.width * 3, 0);
    }

    /// The row of the region that comes next.
    pub fn lead(&self) -> usize {
        self.place.row + self.done
    }

    /// Take the next `count` rows, which are `pitch` bytes apart.
    pub fn take(&mut self, rows: &[u8], pitch: usize, count: usize) {
        assert!(self.done + count <= self.place.height);
        let width = self.place.width * 3;
        let row = |y: usize| &rows[y * pitch..][..width];
        let mut y = 0;
        while y < count {
            let at = self.lead();
            if self.ratio == 2 && at.is_multiple_of(2) && y + 1 < count {
                let (upper, lower) = (row(y), row(y + 1));
                take_pair(self.out, self.size, self.halve, &mut self.seams, self.place.column, at / 2, upper, lower);
                (y, self.done) = (y + 2, self.done + 2);
                continue;
            }
            self.sums.iter_mut().zip(row(y)).for_each(|(sum, &value)| *sum += u32::from(value));
            (y, self.done, self.summed) = (y + 1, self.done + 1, self.summed + 1);
            if (at + 1).is_multiple_of(self.ratio) || self.done == self.place.height {
                self.flush(at / self.ratio);
            }
        }
    }

    /// Rows that end a block, or the part, to `out` where the part holds the whole block.
    fn flush(&mut self, row: usize) {
        let (column, pixels) = (self.place.column, self.sums.as_chunks::<3>().0);
        let mut x = 0;
        while x < pixels.len() {
            let block = (column + x) / self.ratio;
            let end = ((block + 1) * self.ratio - column).min(pixels.len());
            let sum = pixels[x..end].iter().fold([0; 3], add);
            if self.summed == self.ratio && end - x == self.ratio {
                self.out[(row * self.size + block) * 3..][..3].copy_from_slice(&mean(sum, self.ratio));
            } else {
                self.seams.add(row, block, sum);
            }
            x = end;
        }
        self.summed = 0;
        self.sums.fill(0);
    }

    /// Write the blocks in which tiles meet.
    pub fn finish(self) {
        let pixel = |row: usize, column: usize| (row * self.size + column) * 3;
        for (column, sums) in &self.seams.columns {
            sums.iter().enumerate().for_each(|(row, &sum)| self.out[pixel(row, *column)..][..3].copy_from_slice(&mean(sum, self.ratio)));
        }
        for (row, sums) in &self.seams.rows {
            sums.iter().enumerate().for_each(|(column, &sum)| self.out[pixel(*row, column)..][..3].copy_from_slice(&mean(sum, self.ratio)));
        }
    }
}

/// The blocks, rows and columns of them, in which tiles meet: their sums so far. A block of both is in the rows.
struct Seams {
    rows: Vec<(usize, Vec<Sum>)>,
    columns: Vec<(usize, Vec<Sum>)>,
}

impl Seams {
    fn add(&mut self, row: usize, column: usize, sum: Sum) {
        let found = match self.rows.iter_mut().find(|seam| seam.0 == row) {
            Some((_, sums)) => Some((sums, column)),
            None => self.columns.iter_mut().find(|seam| seam.0 == column).map(|(_, sums)| (sums, row)),
        };
        let (sums, at) = found.expect("what is no whole block lies on a seam");
        sums[at] = add(sums[at], &sum);
    }
}

fn seams(edges: impl Iterator<Item = usize>, ratio: usize, size: usize) -> Vec<(usize, Vec<Sum>)> {
    let mut blocks = edges.filter(|edge| edge % ratio != 0).map(|edge| edge / ratio).collect::<Vec<_>>();
    blocks.sort_unstable();
    blocks.dedup();
    blocks.into_iter().map(|block| (block, vec![[0; 3]; size])).collect()
}

fn add(a: Sum, b: &Sum) -> Sum {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn mean(sum: Sum, ratio: usize) -> [u8; 3] {
    let scale = 1.0 / (ratio * ratio) as f32;
    sum.map(|sum| if ratio == 2 { ((sum + 2) >> 2) as u8 } else { (sum as f32 * scale).round_ties_even() as u8 })
}

/// Two rows that make whole blocks of 2 x 2; the first and the last pixel may be halves of blocks.
#[allow(clippy::too_many_arguments)]
fn take_pair(out: &mut [u8], size: usize, halve: Halve, seams: &mut Seams, column: usize, row: usize, upper: &[u8], lower: &[u8]) {
    let (pixels, first) = (upper.len() / 3, column % 2);
    let whole = (pixels - first) / 2;
    let line = &mut out[(row * size + (column + first) / 2) * 3..][..whole * 3];
    halve(&upper[first * 3..][..whole * 6], &lower[first * 3..][..whole * 6], line);
    let alone = [(first == 1).then_some(0), (first + whole * 2 < pixels).then_some(pixels - 1)];
    for x in alone.into_iter().flatten() {
        let value = |row: &[u8]| [row[x * 3], row[x * 3 + 1], row[x * 3 + 2]].map(u32::from);
        seams.add(row, (column + x) / 2, add(value(upper), &value(lower)));
    }
}

/// From two rows of an even number of pixels to one of half as many.
type Halve = fn(&[u8], &[u8], &mut [u8]);

fn halving() -> Halve {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return |upper, lower, line| unsafe { halve_avx2(upper, lower, line) };
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("ssse3") {
        // SAFETY: the processor has SSSE3.
        return |upper, lower, line| unsafe { halve_ssse3(upper, lower, line) };
    }
    halve
}

fn halve(upper: &[u8], lower: &[u8], line: &mut [u8]) {
    let pairs = upper.as_chunks::<6>().0.iter().zip(lower.as_chunks::<6>().0);
    for (pixel, (a, b)) in line.as_chunks_mut::<3>().0.iter_mut().zip(pairs) {
        let mean = |i: usize| ((u16::from(a[i]) + u16::from(a[i + 3]) + u16::from(b[i]) + u16::from(b[i + 3]) + 2) >> 2) as u8;
        *pixel = [mean(0), mean(1), mean(2)];
    }
}

/// Two pixels a turn: neighbours of a channel are brought side by side, and added.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "ssse3")]
fn halve_ssse3(upper: &[u8], lower: &[u8], line: &mut [u8]) {
    use std::arch::x86_64::*;
    let pairs = _mm_setr_epi8(0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, -1, -1, -1, -1);
    let (ones, two) = (_mm_set1_epi8(1), _mm_set1_epi16(2));
    let mut at = 0;
    while at * 2 + 16 <= upper.len().min(lower.len()) && at + 8 <= line.len() {
        // SAFETY: 16 bytes are left in both rows and 8 in the line, of which the last two are written again by the next turn.
        unsafe {
            let sum = |row: &[u8]| _mm_maddubs_epi16(_mm_shuffle_epi8(_mm_loadu_si128(row.as_ptr().add(at * 2).cast()), pairs), ones);
            let mean = _mm_srli_epi16::<2>(_mm_add_epi16(_mm_add_epi16(sum(upper), sum(lower)), two));
            _mm_storel_epi64(line.as_mut_ptr().add(at).cast(), _mm_packus_epi16(mean, mean));
        }
        at += 6;
    }
    halve(&upper[at * 2..], &lower[at * 2..], &mut line[at..]);
}

/// As `halve_ssse3`, four pixels a turn.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn halve_avx2(upper: &[u8], lower: &[u8], line: &mut [u8]) {
    use std::arch::x86_64::*;
    let pairs = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, -1, -1, -1, -1));
    let (ones, two) = (_mm256_set1_epi8(1), _mm256_set1_epi16(2));
    let mut at = 0;
    while at * 2 + 28 <= upper.len().min(lower.len()) && at + 14 <= line.len() {
        // SAFETY: 28 bytes are left in both rows and 14 in the line, of which the last two are written again by the next turn.
        unsafe {
            let load = |row: &[u8]| _mm256_loadu2_m128i(row.as_ptr().add(at * 2 + 12).cast(), row.as_ptr().add(at * 2).cast());
            let sum = |row: &[u8]| _mm256_maddubs_epi16(_mm256_shuffle_epi8(load(row), pairs), ones);
            let mean = _mm256_srli_epi16::<2>(_mm256_add_epi16(_mm256_add_epi16(sum(upper), sum(lower)), two));
            let packed = _mm256_packus_epi16(mean, mean);
            _mm_storel_epi64(line.as_mut_ptr().add(at).cast(), _mm256_castsi256_si128(packed));
            _mm_storel_epi64(line.as_mut_ptr().add(at + 6).cast(), _mm256_extracti128_si256::<1>(packed));
        }
        at += 12;
    }
    halve(&upper[at * 2..], &lower[at * 2..], &mut line[at..]);
}
