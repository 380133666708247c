//! What planning asks for: Python's side of `record` and `mask`.

use pyo3::buffer::{Element, PyBuffer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::mask::{self, Mask};
use crate::record::{self, Level, Tiles};

/// SAFETY: nobody writes to the buffer while the slice is in use.
unsafe fn slice<T: Element>(buffer: &PyBuffer<T>) -> PyResult<&[T]> {
    match buffer.is_c_contiguous() {
        true if buffer.item_count() == 0 => Ok(&[]),
        true => Ok(unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.item_count()) }),
        false => Err(PyValueError::new_err("an array must be contiguous")),
    }
}

/// SAFETY: nobody else uses the buffer while the slice is in use.
#[allow(clippy::mut_from_ref)]
unsafe fn slice_mut<T: Element>(buffer: &PyBuffer<T>) -> PyResult<&mut [T]> {
    if buffer.readonly() {
        return Err(PyValueError::new_err("an array must be writable"));
    }
    let found = unsafe { slice(buffer)? };
    Ok(unsafe { std::slice::from_raw_parts_mut(found.as_ptr().cast_mut(), found.len()) })
}

/// Fill in offsets and sizes in bytes of the tiles of a level at some rows and columns, int64 (n,) each.
///
/// `pages` of `shape[2]` rows of tiles lie between `bounds` in `data`; `shape` is (rows, columns, rows a page). Returns whether all are
/// there; what is damaged is for Python to judge.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn locate(
    py: Python,
    data: &[u8],
    bounds: PyBuffer<i64>,
    shape: (usize, usize, usize),
    rows: PyBuffer<i64>,
    columns: PyBuffer<i64>,
    offsets: PyBuffer<i64>,
    sizes: PyBuffer<i64>,
) -> PyResult<bool> {
    if shape.2 == 0 || [&columns, &offsets, &sizes].iter().any(|other| other.item_count() != rows.item_count()) {
        return Err(PyValueError::new_err("rows, columns, offsets and sizes must be as long as each other"));
    }
    let level = Level { data, bounds: unsafe { slice(&bounds)? }, rows: shape.0, columns: shape.1, step: shape.2 };
    let (rows, columns) = unsafe { (slice(&rows)?, slice(&columns)?) };
    let (offsets, sizes) = unsafe { (slice_mut(&offsets)?, slice_mut(&sizes)?) };
    Ok(py.detach(|| record::locate(&level, &mut Tiles { rows, columns, offsets, sizes })).is_some())
}

/// The bits of a mask, rows padded to whole bytes, out of its distances (as `record.py` makes them); None where these are damaged.
#[pyfunction]
pub fn unpack_mask<'py>(py: Python<'py>, data: &[u8], rows: usize, columns: usize) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Some(size) = rows.checked_mul(columns.div_ceil(8)) else { return Ok(None) };
    let mut good = false;
    let bits = PyBytes::new_with(py, size, |bits| {
        good = py.detach(|| mask::unpack(data, rows, columns, bits)).is_some();
        Ok(())
    })?;
    Ok(good.then_some(bits))
}

/// The shares of rectangles of one size that lie on a mask, float64 (tops, lefts) into `out`; in pixels. `bits` is uint8 (rows, bytes).
#[pyfunction]
pub fn shares(py: Python, bits: PyBuffer<u8>, tops: PyBuffer<f64>, lefts: PyBuffer<f64>, size: (f64, f64), out: PyBuffer<f64>) -> PyResult<()> {
    if bits.dimensions() != 2 || out.item_count() != tops.item_count() * lefts.item_count() {
        return Err(PyValueError::new_err("bits must have rows, and out a place for each pair"));
    }
    let stride = bits.shape()[1];
    let (bits, tops, lefts, out) = unsafe { (slice(&bits)?, slice(&tops)?, slice(&lefts)?, slice_mut(&out)?) };
    py.detach(|| Mask::new(bits, stride).shares(tops, lefts, size, out));
    Ok(())
}
