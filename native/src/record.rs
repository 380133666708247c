//! A slide's record in the index: where tiles lie, page by page (the layout is that of `record.py`).

use std::cmp::Ordering;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// The pages of a level in `data`: page k lies between bounds k and k + 1, and holds `step` rows of tiles.
pub struct Level<'a> {
    pub data: &'a [u8],
    pub bounds: &'a [i64],
    pub rows: usize,
    pub columns: usize,
    pub step: usize,
}

/// Tiles of a level, all slices of one length: their rows and columns, and where offsets and sizes in bytes go.
pub struct Tiles<'a> {
    pub rows: &'a [i64],
    pub columns: &'a [i64],
    pub offsets: &'a mut [i64],
    pub sizes: &'a mut [i64],
}

/// Bytes of a zlib stream that one byte of it can stand for: RFC 1951 needs two bits for a match of 258.
const INFLATED: usize = 1032;

/// Look up some tiles. None where the record is damaged, or has no such tile.
pub fn locate(level: &Level, tiles: &mut Tiles) -> Option<()> {
    let inside = |at: &i64, count: usize| usize::try_from(*at).is_ok_and(|at| at < count);
    let known = tiles.rows.iter().all(|row| inside(row, level.rows)) && tiles.columns.iter().all(|column| inside(column, level.columns));
    known.then_some(())?;
    let page_of = |tile: &usize| tiles.rows[*tile] as usize / level.step;
    let mut order = (0..tiles.rows.len()).collect::<Vec<_>>();
    order.sort_unstable_by_key(page_of);
    let mut page = Page::default();
    for group in order.chunk_by(|a, b| page_of(a).cmp(&page_of(b)) == Ordering::Equal) {
        let number = page_of(&group[0]);
        let rows = level.step.min(level.rows - number * level.step);
        let (start, end) = (*level.bounds.get(number)?, *level.bounds.get(number + 1)?);
        page.unpack(level.data.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?, rows.checked_mul(level.columns)?)?;
        for &tile in group {
            let at = tiles.rows[tile] as usize % level.step * level.columns + tiles.columns[tile] as usize;
            (tiles.offsets[tile], tiles.sizes[tile]) = (page.offsets[at] as i64, page.sizes[at] as i64);
        }
    }
    Some(())
}

/// Offset and size in bytes of each tile of a page.
#[derive(Default)]
struct Page {
    planes: Vec<u8>,
    sizes: Vec<u64>,
    offsets: Vec<u64>, // while a page is unpacked, the gaps between tiles
}

impl Page {
    fn unpack(&mut self, data: &[u8], count: usize) -> Option<()> {
        let (first, rest) = data.split_first_chunk()?;
        let (&[high, low], rest) = rest.split_first_chunk()?;
        let (high, low) = (usize::from(high), usize::from(low));
        (high < 4 && low <= 8).then_some(())?;
        let total = (high + low + 1).checked_mul(count)?;
        (total / INFLATED <= rest.len()).then_some(())?; // before memory is taken for what cannot be in it
        self.planes.resize(total, 0);
        let (noise, planes) = self.planes.split_at_mut(count);
        let used = inflate(rest, planes)?;
        inflate(rest.get(used..)?, noise)?;
        let (sizes, gaps) = self.planes.split_at((1 + high) * count);
        numbers(sizes, count, &mut self.sizes);
        numbers(gaps, count, &mut self.offsets);
        let mut at = u64::from_le_bytes(*first);
        for (offset, size) in self.offsets.iter_mut().zip(&self.sizes) {
            at = at.wrapping_add((*offset >> 1) ^ (*offset & 1).wrapping_neg());
            *offset = at;
            at = at.wrapping_add(*size);
        }
        Some(())
    }
}

/// Numbers out of their byte planes, the lowest first.
fn numbers(planes: &[u8], count: usize, into: &mut Vec<u64>) {
    into.clear();
    into.resize(count, 0);
    for (k, plane) in planes.chunks_exact(count).enumerate() {
        into.iter_mut().zip(plane).for_each(|(number, &byte)| *number |= u64::from(byte) << (8 * k));
    }
}

/// One zlib stream of known length; how many bytes of `data` it takes.
fn inflate(data: &[u8], out: &mut [u8]) -> Option<usize> {
    let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, used, made) = decompress(&mut DecompressorOxide::new(), data, out, 0, flags);
    (status == TINFLStatus::Done && made == out.len()).then_some(used)
}
