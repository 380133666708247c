//! Fetches the byte ranges of columns: one thread for all of them, which touches no Python object.
//!
//! A range is fetched once. Whatever goes wrong with it is no matter of this module: it is missing in what comes back.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{process, thread};

use bytes::Bytes;
use futures_util::future::join_all;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, ObjectStore, RetryConfig};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::http::Connector;

const LONGEST: Duration = Duration::from_secs(120); // for a range: servers can be neither silent nor done
const AT_ONCE: usize = 640; // requests of a fetcher in flight, those of earlier columns first: a process may have only 1,024 files open

/// What a range's answer says of its object: size in bytes, entity tag, time of the last change (seconds since 1970).
type Facts = (u64, Option<String>, i64);

type Completed = (u64, Option<Facts>, usize, usize, Vec<Option<Span>>);

/// Bytes of a range, for whatever reads buffers.
#[pyclass(frozen)]
struct Span(Bytes);

#[pymethods]
impl Span {
    /// SAFETY: the bytes live as long as `slf`, of which the view holds a reference.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: i32) -> PyResult<()> {
        let data = &slf.get().0;
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), data.as_ptr() as *mut _, data.len() as isize, 1, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::take(slf.py()).unwrap_or_else(|| PyBufferError::new_err("read-only"))) }
    }
}

struct Column {
    token: u64,
    facts: Option<Facts>,
    requests: usize,
    failed: usize,
    spans: Vec<Option<Bytes>>,
}

/// Ranges that touch or overlap: the bytes from `start` to before `end`, and which ranges they are: number, start, bytes.
struct Stretch {
    start: u64,
    end: u64,
    parts: Vec<(usize, u64, u64)>,
}

/// A column on its way, which is complete when this is dropped, come what may: somebody waits for it, unless it was cancelled.
struct Promise {
    column: Option<Column>,
    running: Arc<Mutex<HashMap<u64, AbortHandle>>>,
    done: Arc<Done>,
}

impl Promise {
    /// Complete.
    fn keep(mut self, column: Column) {
        self.column = Some(column);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(column) = self.column.take()
            && self.running.lock().unwrap().remove(&column.token).is_some()
        {
            self.done.push(column);
        }
    }
}

/// Completed columns, and a wire that becomes readable when there are some.
struct Done {
    columns: Mutex<Vec<Column>>,
    signal: UnixStream,
}

impl Done {
    fn push(&self, column: Column) {
        let mut columns = self.columns.lock().unwrap();
        columns.push(column);
        if columns.len() == 1 {
            let _ = (&self.signal).write(&[0]); // full: then it is readable already
        }
    }
}

/// Fetches from one bucket for one event loop.
#[pyclass(frozen)]
pub struct Fetcher {
    process: u32,
    store: ManuallyDrop<Arc<dyn ObjectStore>>,
    gate: Arc<Semaphore>,
    done: Arc<Done>,
    wake: UnixStream,
    running: Arc<Mutex<HashMap<u64, AbortHandle>>>,
}

#[pymethods]
impl Fetcher {
    /// A bucket (or host) `root` of kind gs, s3, az, http or https, with options as `object_store` names them; makes no request.
    /// Raises ValueError for options that it does not take.
    #[new]
    fn new(kind: &str, root: &str, options: HashMap<String, String>, clear: bool) -> PyResult<Self> {
        let store = open(kind, root, options, clear).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let (wake, signal) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        signal.set_nonblocking(true)?;
        let done = Arc::new(Done { columns: Mutex::default(), signal });
        Ok(Fetcher { process: process::id(), store: ManuallyDrop::new(store), gate: Arc::new(Semaphore::new(AT_ONCE)), done, wake, running: Arc::default() })
    }

    /// What becomes readable when columns are complete.
    fn fileno(&self) -> i32 {
        self.wake.as_raw_fd()
    }

    /// Begin a column: `sizes[k]` bytes from `starts[k]`; ranges that touch are one request.
    fn submit(&self, token: u64, path: String, starts: Vec<u64>, sizes: Vec<u64>) -> PyResult<()> {
        let count = starts.len();
        let stretches = stretches(starts, sizes)?;
        let nothing = Column { token, facts: None, requests: stretches.len(), failed: stretches.len(), spans: vec![None; count] };
        let promise = Promise { column: Some(nothing), running: self.running.clone(), done: self.done.clone() };
        let (store, gate) = ((*self.store).clone(), self.gate.clone());
        let mut held = self.running.lock().unwrap(); // until the handle is in, lest the column be complete before
        let task = runtime()?.spawn(async move {
            if let Ok(path) = Path::parse(path) {
                let ranges: Vec<_> = stretches.iter().map(|s| range(&*store, &gate, &path, s.start, s.end - s.start)).collect();
                promise.keep(column(token, count, &stretches, join_all(ranges).await));
            }
        });
        held.insert(token, task.abort_handle());
        Ok(())
    }

    /// End a column that nobody waits for any more.
    fn cancel(&self, token: u64) {
        let task = self.running.lock().unwrap().remove(&token);
        task.inspect(AbortHandle::abort);
    }

    /// All columns completed since the last call: (token, (size, etag, modified) of the object or None, requests, how many of them failed,
    /// [a range's bytes or None]). No facts: no request was answered, or not all for the same object.
    fn completed(&self) -> Vec<Completed> {
        let _ = (&self.wake).read(&mut [0; 64]);
        let columns = std::mem::take(&mut *self.done.columns.lock().unwrap());
        let told = |c: Column| (c.token, c.facts, c.requests, c.failed, c.spans.into_iter().map(|s| s.map(Span)).collect());
        columns.into_iter().map(told).collect()
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        if self.process != process::id() {
            return; // a fork: closing connections here would end the watch over those of the parent
        }
        let tasks = std::mem::take(&mut *self.running.lock().unwrap());
        tasks.values().for_each(AbortHandle::abort);
        unsafe { ManuallyDrop::drop(&mut self.store) }; // SAFETY: once, at the end
    }
}

async fn range(store: &dyn ObjectStore, gate: &Semaphore, path: &Path, start: u64, size: u64) -> Option<(Facts, Bytes)> {
    let options = GetOptions { range: Some((start..start + size).into()), ..Default::default() };
    let _turn = gate.acquire().await.ok()?;
    let fetched = async {
        let answer = store.get_opts(path, options).await.ok()?; // judges status and Content-Range
        let facts = (answer.meta.size, answer.meta.e_tag.clone(), answer.meta.last_modified.timestamp());
        let data = answer.bytes().await.ok()?;
        (data.len() as u64 == size).then_some((facts, data))
    };
    timeout(LONGEST, fetched).await.ok()?
}

/// Unions of the ranges in the order of the object, without those that are empty. Raises ValueError for numbers that do not fit.
fn stretches(starts: Vec<u64>, sizes: Vec<u64>) -> PyResult<Vec<Stretch>> {
    let mut parts: Vec<_> = starts.into_iter().zip(sizes).enumerate().map(|(k, (start, size))| (k, start, size)).filter(|part| part.2 > 0).collect();
    parts.sort_by_key(|part| part.1);
    let mut found: Vec<Stretch> = Vec::with_capacity(parts.len());
    for part in parts {
        let end = part.1.checked_add(part.2).ok_or_else(|| PyValueError::new_err(format!("{} bytes from {}", part.2, part.1)))?;
        match found.last_mut() {
            Some(last) if part.1 <= last.end => {
                last.end = last.end.max(end);
                last.parts.push(part);
            }
            _ => found.push(Stretch { start: part.1, end, parts: vec![part] }),
        }
    }
    Ok(found)
}

/// Ranges of different states of the object are none. Of those that were empty nothing is said.
fn column(token: u64, count: usize, stretches: &[Stretch], found: Vec<Option<(Facts, Bytes)>>) -> Column {
    let mut answers = found.iter().flatten();
    let first = answers.next().map(|(facts, _)| facts.clone());
    let facts = first.filter(|first| answers.all(|(facts, _)| facts == first));
    let (requests, failed) = (found.len(), found.iter().filter(|answer| answer.is_none()).count());
    let mut spans = vec![None; count];
    for (stretch, (_, data)) in stretches.iter().zip(found).filter_map(|(stretch, answer)| Some((stretch, answer?))) {
        for &(k, start, size) in &stretch.parts {
            let at = (start - stretch.start) as usize;
            spans[k] = facts.as_ref().map(|_| data.slice(at..at + size as usize));
        }
    }
    Column { token, facts, requests, failed, spans }
}

fn open(kind: &str, root: &str, options: HashMap<String, String>, clear: bool) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = RetryConfig { max_retries: 0, ..Default::default() };
    let client = ClientOptions::new().with_allow_http(clear);
    macro_rules! built {
        ($builder:expr) => {{
            let mut builder = $builder.with_client_options(client).with_retry(retry).with_http_connector(Connector);
            for (name, value) in options {
                builder = builder.with_config(name.parse()?, value);
            }
            Arc::new(builder.build()?)
        }};
    }
    Ok(match kind {
        "s3" => built!(AmazonS3Builder::from_env().with_bucket_name(root)),
        "gs" => built!(GoogleCloudStorageBuilder::from_env().with_bucket_name(root)),
        "az" => built!(MicrosoftAzureBuilder::from_env().with_container_name(root)),
        _ => built!(HttpBuilder::new().with_url(format!("{kind}://{root}/"))),
    })
}

/// The thread of this process; another one after a fork.
fn runtime() -> PyResult<Handle> {
    static HELD: Mutex<Option<(u32, Handle)>> = Mutex::new(None);
    let mut held = HELD.lock().unwrap();
    if let Some((of, handle)) = &*held
        && *of == process::id()
    {
        return Ok(handle.clone());
    }
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name("patho-fetch".to_owned()).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    std::mem::forget(held.replace((process::id(), handle.clone()))); // a handle of before the fork: its thread is not here
    Ok(handle)
}
