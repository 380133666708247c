//! `patho_native`: decodes what a patch needs of its JPEG tiles, and nothing else, without Python's lock.

mod area;
mod bits;
mod huffman;
mod jpeg;
mod paint;
mod scan;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type PyTile<'py> = (Bound<'py, PyAny>, u32, u32, u32, u32, usize, usize);
type PyJob<'py> = (Bound<'py, PyAny>, usize, Bound<'py, PyAny>, bool, (u32, u32), Vec<PyTile<'py>>);

/// The buffers of a job, which keep its memory where it is.
struct Held {
    out: PyBuffer<u8>,
    head: PyBuffer<u8>,
    data: Vec<PyBuffer<u8>>,
}

fn hold(job: &PyJob) -> PyResult<Held> {
    let held = Held {
        out: PyBuffer::get(&job.0)?,
        head: PyBuffer::get(&job.2)?,
        data: job.5.iter().map(|tile| PyBuffer::get(&tile.0)).collect::<PyResult<_>>()?,
    };
    if held.out.readonly() || !held.out.is_c_contiguous() {
        return Err(PyValueError::new_err("out: must be writable and contiguous"));
    }
    if !held.data.iter().chain([&held.head]).all(|buffer| buffer.is_c_contiguous()) {
        return Err(PyValueError::new_err("data: must be contiguous"));
    }
    Ok(held)
}

/// SAFETY: the buffer is contiguous, and nobody writes to it while a job runs.
unsafe fn bytes(buffer: &PyBuffer<u8>) -> &[u8] {
    if buffer.len_bytes() == 0 { &[] } else { unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes()) } }
}

fn job<'a>(given: &PyJob, held: &'a Held) -> PyResult<paint::Job<'a>> {
    let (_, edge, _, is_rgb, (tile_width, tile_height), tiles) = given;
    let (edge, size) = (*edge, held.out.shape()[0]);
    if held.out.shape() != [size, size, 3] || size == 0 || edge == 0 || edge % size != 0 || edge > 1 << 14 {
        return Err(PyValueError::new_err(format!("a region of {edge} px, whose multiple must be out, of shape {:?}", held.out.shape())));
    }
    let tiles = tiles.iter().zip(&held.data).map(|(&(_, x, y, width, height, column, row), data)| {
        let part = jpeg::Part { tile_width: *tile_width, tile_height: *tile_height, x, y, width, height };
        let tile = paint::Tile { data: unsafe { bytes(data) }, head: unsafe { bytes(&held.head) }, is_rgb: *is_rgb, part, column, row };
        if tile.fits(edge) { Ok(tile) } else { Err(PyValueError::new_err(format!("{part:?} at column {column}, row {row} of {edge} px"))) }
    });
    let tiles = tiles.collect::<PyResult<_>>()?;
    let out = unsafe { std::slice::from_raw_parts_mut(held.out.buf_ptr().cast(), held.out.len_bytes()) };
    Ok(paint::Job { out, size, edge, tiles })
}

/// Paint some patches; Python's lock is free all the while.
///
/// A job is (out, edge, head, is_rgb, (tile_width, tile_height), tiles): `out`, uint8 (size, size, 3), out of a region of `edge` pixels,
/// a multiple of `size`. A tile is (data, x, y, width, height, column, row): the part of it that is wanted, and where in the region that
/// goes; no data is white. `head` is what the level's tiles share, from SOI on.
///
/// Returns (painted, seconds of decoding, seconds of averaging). Not painted is what is damaged, or of an unusual kind: ask another
/// decoder. Raises ValueError for a part outside of its tile or region.
#[pyfunction]
#[pyo3(name = "paint")]
fn paint_jobs(py: Python, jobs: Vec<PyJob>) -> PyResult<(Vec<bool>, f64, f64)> {
    let held = jobs.iter().map(hold).collect::<PyResult<Vec<_>>>()?;
    let work = jobs.iter().zip(&held).map(|(given, held)| job(given, held)).collect::<PyResult<Vec<_>>>()?;
    let outcome = py.detach(|| paint::paint(work));
    Ok((outcome.painted, outcome.decoding.as_secs_f64(), outcome.averaging.as_secs_f64()))
}

#[pymodule]
mod patho_native {
    #[pymodule_export]
    use super::paint_jobs;
}
