//! Connections to servers, with TLS or without.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types};
use tokio_rustls::{TlsConnector, client::TlsStream};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    tls: bool,
    host: String,
    port: u16,
}

#[derive(Debug)]
pub enum Wire {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Server {
    /// The server of an address; `clear`: it may be one without TLS.
    pub fn of(uri: &Uri, clear: bool) -> io::Result<Server> {
        let tls = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or_else(|| io::Error::other("no host"))?.trim_matches(['[', ']']).to_owned();
        if !tls && !clear {
            return Err(io::Error::other("not encrypted"));
        }
        Ok(Server { tls, host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }

    /// A new connection.
    pub async fn connect(&self) -> io::Result<Wire> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        if !self.tls {
            return Ok(Wire::Clear(stream));
        }
        let name = pki_types::ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let config = TLS.as_ref().map_err(|error| io::Error::other(error.clone()))?;
        Ok(Wire::Tls(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?)))
    }
}

/// The machine's authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR.
static TLS: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("no certificates of authorities".to_owned());
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
});

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, read: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_read(context, read),
            Wire::Tls(stream) => Pin::new(stream).poll_read(context, read),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_write(context, data),
            Wire::Tls(stream) => Pin::new(stream).poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_flush(context),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Clear(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
