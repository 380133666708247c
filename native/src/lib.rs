//! `patho_native`: fetches ranges, plans, and decodes what a patch needs of its JPEG tiles and nothing else, without Python's lock.

mod area;
mod bits;
mod fetch;
mod http;
mod huffman;
mod jpeg;
mod mask;
mod paint;
mod planning;
mod record;
mod scan;
mod wire;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PySequence;

/// Of what Python and the core agree on: raised with every change of it, here and in `core.py`.
const VERSION: u32 = 5;

const FIELDS: usize = 9; // of a tile: offset, size, x, y, width, height, column, row, buffer

type PyJob<'py> = (Bound<'py, PyAny>, usize, Bound<'py, PyAny>, bool, (u32, u32), Bound<'py, PyAny>, Bound<'py, PyAny>);

/// The buffers of a job, which keep its memory where it is; and of each tile, those of its fields that are needed.
struct Held {
    out: PyBuffer<u8>,
    head: PyBuffer<u8>,
    tiles: Vec<(Option<PyBuffer<u8>>, [i64; 6])>,
}

fn hold(job: &PyJob) -> PyResult<Held> {
    let table: PyBuffer<i64> = PyBuffer::get(&job.5)?;
    if !table.is_c_contiguous() || (table.item_count() > 0 && table.shape() != [table.shape()[0], FIELDS]) {
        return Err(PyValueError::new_err("tiles: must be contiguous, with 9 numbers each"));
    }
    let data = job.6.cast::<PySequence>()?;
    // SAFETY: as many as the shape says, and nobody writes to them while Python's lock is held.
    let numbers: &[i64] = if table.item_count() > 0 { unsafe { std::slice::from_raw_parts(table.buf_ptr().cast(), table.item_count()) } } else { &[] };
    let tile = |&[_, size, x, y, width, height, column, row, buffer]: &[i64; FIELDS]| {
        let data = if size > 0 { Some(PyBuffer::get(&data.get_item(usize::try_from(buffer)?)?)?) } else { None };
        Ok((data, [x, y, width, height, column, row]))
    };
    let tiles = numbers.as_chunks().0.iter().map(tile).collect::<PyResult<Vec<_>>>()?;
    let held = Held { out: PyBuffer::get(&job.0)?, head: PyBuffer::get(&job.2)?, tiles };
    if held.out.readonly() || !held.out.is_c_contiguous() {
        return Err(PyValueError::new_err("out: must be writable and contiguous"));
    }
    if !held.tiles.iter().filter_map(|tile| tile.0.as_ref()).chain([&held.head]).all(|buffer| buffer.is_c_contiguous()) {
        return Err(PyValueError::new_err("data: must be contiguous"));
    }
    Ok(held)
}

/// SAFETY: the buffer is contiguous, and nobody writes to it while a job runs.
unsafe fn bytes(buffer: &PyBuffer<u8>) -> &[u8] {
    if buffer.len_bytes() == 0 { &[] } else { unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes()) } }
}

fn job<'a>(given: &PyJob, held: &'a Held) -> PyResult<paint::Job<'a>> {
    let (_, edge, _, is_rgb, (tile_width, tile_height), ..) = given;
    let (edge, size) = (*edge, held.out.shape()[0]);
    if held.out.shape() != [size, size, 3] || size == 0 || edge == 0 || edge % size != 0 || edge > 1 << 14 {
        return Err(PyValueError::new_err(format!("a region of {edge} px, whose multiple must be out, of shape {:?}", held.out.shape())));
    }
    let tiles = held.tiles.iter().map(|(data, [x, y, width, height, column, row])| {
        let [x, y, width, height] = [x, y, width, height].map(|&number| u32::try_from(number).unwrap_or(u32::MAX));
        let [column, row] = [column, row].map(|&number| usize::try_from(number).unwrap_or(edge));
        let part = jpeg::Part { tile_width: *tile_width, tile_height: *tile_height, x, y, width, height };
        let data = data.as_ref().map_or(&[][..], |data| unsafe { bytes(data) });
        let tile = paint::Tile { data, head: unsafe { bytes(&held.head) }, is_rgb: *is_rgb, part, column, row };
        if tile.fits(edge) { Ok(tile) } else { Err(PyValueError::new_err(format!("{part:?} at column {column}, row {row} of {edge} px"))) }
    });
    let tiles = tiles.collect::<PyResult<_>>()?;
    let out = unsafe { std::slice::from_raw_parts_mut(held.out.buf_ptr().cast(), held.out.len_bytes()) };
    Ok(paint::Job { out, size, edge, tiles })
}

/// Paint some patches; Python's lock is free all the while.
///
/// A job is (out, edge, head, is_rgb, (tile_width, tile_height), tiles, data): `out`, uint8 (size, size, 3), out of a region of `edge`
/// pixels, a multiple of `size`. `tiles`, int64 (n, 9), are rows of a table as `tiles.py` has it, whose last number is a place in `data`;
/// size 0 is white. `head` is what the level's tiles share, from SOI on.
///
/// Returns (painted, seconds that it took). Not painted is what is damaged, or of an unusual kind: ask another decoder. Raises ValueError for a part outside of its tile or region.
#[pyfunction]
#[pyo3(name = "paint")]
fn paint_jobs(py: Python, jobs: Vec<PyJob>) -> PyResult<(Vec<bool>, f64)> {
    let held = jobs.iter().map(hold).collect::<PyResult<Vec<_>>>()?;
    let work = jobs.iter().zip(&held).map(|(given, held)| job(given, held)).collect::<PyResult<Vec<_>>>()?;
    let outcome = py.detach(|| paint::paint(work));
    Ok((outcome.painted, outcome.spent.as_secs_f64()))
}

#[pymodule]
mod patho_native {
    #[pymodule_export]
    const VERSION: u32 = super::VERSION;
    #[pymodule_export]
    use super::fetch::Fetcher;
    #[pymodule_export]
    use super::paint_jobs;
    #[pymodule_export]
    use super::planning::{locate, shares, unpack_mask};
}
