//! HTTP/1.1 for `object_store`, which signs and understands: connections that are kept, bodies read into their final place.
//!
//! Small on purpose: one thread, no proxies, no redirects, no compression, and whatever is unusual is an error.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService};
use object_store::{ClientConfigKey, ClientOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::wire::{Server, Wire};

const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(20); // the longest wait for the next bytes
const IDLE: Duration = Duration::from_secs(60); // servers hang up at about that time
const HEAD_BYTES: usize = 1536; // room for a head in front of the body that is expected
const MOST_HEAD_BYTES: usize = 64 << 10;
const MOST_RANGE_BYTES: usize = 1 << 30;
const MOST_OTHER_BYTES: usize = 1 << 20; // of answers that are not the range: tokens, errors
const MOST_HEADERS: usize = 96;

/// Makes an `Http` for each store.
#[derive(Debug)]
pub struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let clear = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        Ok(HttpClient::new(Http { clear, idle: Mutex::default(), freed: Notify::new() }))
    }
}

/// The connections of one store. `clear`: whether some may be without TLS.
#[derive(Debug)]
struct Http {
    clear: bool,
    idle: Mutex<HashMap<Server, VecDeque<(Instant, Wire)>>>, // since when; the oldest in front
    freed: Notify,
}

/// An answer, and whether its connection serves again.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    kept: bool,
}

#[async_trait::async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.answer(&request).await.map_err(|error| HttpError::new(kind(&error), error))?;
        let mut response = http::Response::new(answer.body.into());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

impl Http {
    async fn answer(&self, request: &HttpRequest) -> io::Result<Answer> {
        let server = Server::of(request.uri(), self.clear)?;
        let head = written(request)?;
        let repeats = *request.method() == Method::GET || *request.method() == Method::HEAD;
        loop {
            let (mut wire, was_idle) = self.wire(&server).await?;
            match exchange(&mut wire, request, &head).await {
                Ok(answer) => {
                    if answer.kept {
                        self.keep(server, wire);
                    }
                    return Ok(answer);
                }
                Err(Broken { before_answer: true, error }) if was_idle && repeats && error.kind() != io::ErrorKind::TimedOut => {} // closed while idle
                Err(Broken { error, .. }) => return Err(error),
            }
        }
    }
}

impl Http {
    /// Have a connection for later, and let go of one that nobody has used for long.
    fn keep(&self, server: Server, wire: Wire) {
        let (mut idle, now) = (self.idle.lock().unwrap(), Instant::now());
        let idle = idle.entry(server).or_default();
        idle.push_back((now, wire));
        if idle.front().is_some_and(|(since, _)| now - *since > IDLE) {
            idle.pop_front();
        }
        self.freed.notify_one();
    }

    /// A connection, and whether it was idle: the first that becomes free or is made.
    async fn wire(&self, server: &Server) -> io::Result<(Wire, bool)> {
        let mut made = pin!(silent_for(CONNECT, server.connect()));
        loop {
            if let Some((_, wire)) = self.idle.lock().unwrap().get_mut(server).and_then(VecDeque::pop_back) {
                return Ok((wire, true));
            }
            if let Either::Left((wire, _)) = select(made.as_mut(), pin!(self.freed.notified())).await {
                return Ok((wire?, false));
            }
        }
    }
}

/// A request as it is sent, its body included.
fn written(request: &HttpRequest) -> io::Result<Vec<u8>> {
    let target = request.uri().path_and_query().map_or("/", |found| found.as_str());
    let mut out = Vec::with_capacity(1024);
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut line = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    if !request.headers().contains_key(header::HOST) {
        let authority = request.uri().authority().map_or("", |found| found.as_str());
        line("host", authority.rsplit('@').next().unwrap_or_default().as_bytes());
    }
    if !request.headers().contains_key(header::USER_AGENT) {
        line("user-agent", b"pathoscale");
    }
    for (name, value) in request.headers() {
        if *name != header::CONTENT_LENGTH {
            line(name.as_str(), value.as_bytes());
        }
    }
    let body = request.body().as_bytes().ok_or_else(|| io::Error::other("a body in parts"))?;
    if !body.is_empty() || *request.method() == Method::POST || *request.method() == Method::PUT {
        line("content-length", body.len().to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    Ok(out)
}

/// Why a connection did not answer, and whether it had begun to.
struct Broken {
    before_answer: bool,
    error: io::Error,
}

async fn exchange(wire: &mut Wire, request: &HttpRequest, written: &[u8]) -> Result<Answer, Broken> {
    let broken = |before_answer| move |error| Broken { before_answer, error };
    silent_for(SILENCE, wire.write_all(written)).await.map_err(broken(true))?;
    let range = expected(request.headers());
    let mut read = Vec::with_capacity(HEAD_BYTES + range.unwrap_or(0));
    some(wire, &mut read).await.map_err(broken(true))?;
    answer(wire, request.method(), range, read).await.map_err(broken(false))
}

/// Bytes of the range that is asked for, if one is.
fn expected(headers: &HeaderMap) -> Option<usize> {
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("bytes=")?.split_once('-'));
    let ends = range.and_then(|(first, last)| Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?)));
    ends.map(|(first, last)| last.saturating_sub(first).min(MOST_RANGE_BYTES) + 1)
}

/// How long a body may be. A server that sends the whole object in place of a range is not listened to: it may be larger than the memory.
fn most(range: Option<usize>, status: StatusCode) -> io::Result<usize> {
    match range {
        Some(size) if status == StatusCode::PARTIAL_CONTENT => Ok(size),
        Some(_) if status.is_success() => Err(invalid("not the range")),
        _ => Ok(MOST_OTHER_BYTES),
    }
}

/// Read on after the first bytes of an answer.
async fn answer(wire: &mut Wire, method: &Method, range: Option<usize>, mut read: Vec<u8>) -> io::Result<Answer> {
    let (status, mut headers, head_bytes, keeps) = loop {
        match head(&read)? {
            Some(found) if found.0.is_informational() => drop(read.drain(..found.2)),
            Some(found) => break found,
            None if read.len() > MOST_HEAD_BYTES => return Err(invalid("a head without an end")),
            None => some(wire, &mut read).await?,
        }
    };
    let (rest, most) = (read.len() - head_bytes, most(range, status)?);
    let told = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (body, whole) = if *method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Ok(Answer { status, body: Bytes::new(), kept: rest == 0 && keeps, headers });
    } else if told(header::TRANSFER_ENCODING).is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        (chunked(wire, read.split_off(head_bytes), most).await?.into(), true)
    } else if let Some(size) = told(header::CONTENT_LENGTH) {
        let size = size.trim().parse().ok().filter(|&size| size <= most).ok_or_else(|| invalid("content-length"))?;
        up_to(wire, &mut read, head_bytes + size).await?;
        (Bytes::from(read).slice(head_bytes..head_bytes + size), rest <= size)
    } else {
        (to_the_end(wire, read.split_off(head_bytes), most).await?.into(), false)
    };
    headers.insert(header::CONTENT_LENGTH, body.len().into()); // `object_store` asks for it, however the body came
    Ok(Answer { status, body, kept: whole && keeps, headers })
}

/// Status, headers, bytes of the head, and whether the connection stays open; None where more must be read.
fn head(read: &[u8]) -> io::Result<Option<(StatusCode, HeaderMap, usize, bool)>> {
    let mut space = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut space);
    let httparse::Status::Complete(size) = parsed.parse(read).map_err(|error| invalid(&error.to_string()))? else {
        return Ok(None);
    };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for found in parsed.headers.iter() {
        let name = HeaderName::from_bytes(found.name.as_bytes()).map_err(io::Error::other)?;
        headers.append(name, HeaderValue::from_bytes(found.value).map_err(io::Error::other)?);
    }
    let closes = headers.get(header::CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    let status = StatusCode::from_u16(parsed.code.unwrap_or(0)).map_err(io::Error::other)?;
    Ok(Some((status, headers, size, parsed.version == Some(1) && !closes)))
}

async fn up_to(wire: &mut Wire, read: &mut Vec<u8>, size: usize) -> io::Result<()> {
    read.reserve_exact(size.saturating_sub(read.len()));
    while read.len() < size {
        let mut limited = (&mut *wire).take((size - read.len()) as u64);
        if silent_for(SILENCE, limited.read_buf(read)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn chunked(wire: &mut Wire, mut read: Vec<u8>, most: usize) -> io::Result<Vec<u8>> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (line, size) = loop {
            match httparse::parse_chunk_size(&read[at..]).map_err(|_| invalid("size of a chunk"))? {
                httparse::Status::Complete((line, size)) => break (line, size as usize),
                httparse::Status::Partial => some(wire, &mut read).await?,
            }
        };
        at += line;
        if size > most - body.len() {
            return Err(invalid("too large a body"));
        }
        while read.len() < at + size + 2 {
            some(wire, &mut read).await?;
        }
        if &read[at + size..at + size + 2] != b"\r\n" {
            return Err(invalid("end of a chunk")); // trailers too: nobody sends them here
        }
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&read[at..at + size]);
        read.drain(..at + size + 2);
        at = 0;
    }
}

async fn to_the_end(wire: &mut Wire, mut body: Vec<u8>, most: usize) -> io::Result<Vec<u8>> {
    while silent_for(SILENCE, wire.read_buf(&mut body)).await? != 0 {
        if body.len() > most {
            return Err(invalid("too large a body"));
        }
    }
    Ok(body)
}

/// Read some bytes more; the end of the stream is an error.
async fn some(wire: &mut Wire, read: &mut Vec<u8>) -> io::Result<()> {
    match silent_for(SILENCE, wire.read_buf(read)).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn silent_for<T>(longest: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(longest, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn kind(error: &io::Error) -> HttpErrorKind {
    match error.kind() {
        io::ErrorKind::TimedOut => HttpErrorKind::Timeout,
        io::ErrorKind::InvalidData => HttpErrorKind::Decode,
        _ => HttpErrorKind::Interrupted,
    }
}
