//! Area averaging by whole ratios, bit for bit as OpenCV's `resize` with `INTER_AREA`.

/// Average blocks of `ratio` x `ratio` pixels of a square RGB region of `edge` pixels into `out`, square with `edge / ratio` pixels.
///
/// OpenCV rounds half up for a ratio of 2, and for others multiplies by a 32-bit 1/ratio² and rounds half to even.
pub fn average(region: &[u8], edge: usize, ratio: usize, out: &mut [u8]) {
    assert!(ratio > 1 && edge % ratio == 0 && region.len() == edge * edge * 3 && out.len() * ratio * ratio == region.len());
    let lines = region.chunks_exact(edge * 3 * ratio).zip(out.chunks_exact_mut(edge / ratio * 3));
    if ratio == 2 {
        let halve = halving();
        lines.for_each(|(rows, line)| rows.split_at_checked(edge * 3).into_iter().for_each(|(upper, lower)| halve(upper, lower, line)));
        return;
    }
    let (mut sums, scale) = (vec![0u32; edge * 3], 1.0 / (ratio * ratio) as f32);
    for (rows, line) in lines {
        sums.fill(0);
        for row in rows.chunks_exact(edge * 3) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += u32::from(value));
        }
        for (pixel, block) in line.as_chunks_mut::<3>().0.iter_mut().zip(sums.chunks_exact(ratio * 3)) {
            let add = |a: [u32; 3], b: &[u32; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
            *pixel = block.as_chunks::<3>().0.iter().fold([0; 3], add).map(|sum| (sum as f32 * scale).round_ties_even() as u8);
        }
    }
}

/// From two rows of an even number of pixels to one of half as many.
type Halve = fn(&[u8], &[u8], &mut [u8]);

fn halving() -> Halve {
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
