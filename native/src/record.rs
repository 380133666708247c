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
        page.unpack(level.data.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?, rows * level.columns)?;
        for &tile in group {
            let at = tiles.rows[tile] as usize % level.step * level.columns + tiles.columns[tile] as usize;
            (tiles.offsets[tile], tiles.sizes[tile]) = page.tiles[at];
        }
    }
    Some(())
}

/// Offset and size in bytes of each tile of a page.
#[derive(Default)]
struct Page {
    tiles: Vec<(i64, i64)>,
    planes: Vec<u8>,
}

impl Page {
    fn unpack(&mut self, data: &[u8], count: usize) -> Option<()> {
        let (first, rest) = data.split_first_chunk()?;
        let (&[high, low], rest) = rest.split_first_chunk()?;
        let (high, low) = (usize::from(high), usize::from(low));
        self.planes.resize((high + low + 1) * count, 0);
        let (planes, noise) = self.planes.split_at_mut((high + low) * count);
        let used = inflate(rest, planes)?;
        inflate(rest.get(used..)?, noise)?;
        let (sizes, gaps) = planes.split_at(high * count);
        let value = |planes: &[u8], i: usize, count: usize| (0..planes.len() / count).map(|k| u64::from(planes[k * count + i]) << (8 * k)).sum::<u64>();
        let mut at = i64::from_le_bytes(*first);
        self.tiles.clear();
        for (i, &low) in noise.iter().enumerate() {
            let (size, folded) = (i64::from(low) + ((value(sizes, i, count) << 8) as i64), value(gaps, i, count));
            at = at.wrapping_add((folded >> 1) as i64 ^ -((folded & 1) as i64));
            self.tiles.push((at, size));
            at = at.wrapping_add(size);
        }
        Some(())
    }
}

/// One zlib stream of known length; how many bytes of `data` it takes.
fn inflate(data: &[u8], out: &mut [u8]) -> Option<usize> {
    let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, used, made) = decompress(&mut DecompressorOxide::new(), data, out, 0, flags);
    (status == TINFLStatus::Done && made == out.len()).then_some(used)
}
