//! The process number that the server gave when it greeted us.
//!
//! The driver keeps it to itself but writes it into a cancel request; so one is written to a stream
//! that ends in this program. Compared with what the server calls the session later, it tells whether
//! somebody stands in between who hands out sessions that are not ours.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_postgres::Client;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use underpin_dialect::{DbError, DbResult, ErrorKind};

/// Length, code, process and key of a cancel request, four bytes each.
const CANCEL_REQUEST_BYTES: usize = 16;
/// Length and code of the request for encryption that goes before it.
const TLS_REQUEST_BYTES: usize = 8;

/// The number that we were greeted with.
///
/// # Errors
/// `Other` where the driver writes something else: a fault of ours.
pub(super) async fn greeted_pid(client: &Client, encrypted: bool) -> DbResult<u32> {
    let (ours, mut theirs) = tokio::io::duplex(64);
    let token = client.cancel_token();
    let ask = token.cancel_query_raw(ours, Plain);
    let answer = async {
        if encrypted {
            let mut request = [0; TLS_REQUEST_BYTES];
            theirs.read_exact(&mut request).await?;
            theirs.write_all(b"S").await?;
        }
        let mut request = [0; CANCEL_REQUEST_BYTES];
        theirs.read_exact(&mut request).await?;
        io::Result::Ok(u32::from_be_bytes([request[8], request[9], request[10], request[11]]))
    };
    let (asked, pid) = tokio::join!(ask, answer);
    let fault = |why: String| {
        DbError::new(ErrorKind::Other, "reading the number the server greeted us with", "")
            .help(why)
    };
    asked.map_err(|error| fault(error.to_string()))?;
    pid.map_err(|error| fault(error.to_string()))
}

/// Encryption that is none: nothing leaves the program here.
struct Plain;

/// See [`Plain`].
struct PlainStream(DuplexStream);

impl TlsConnect<DuplexStream> for Plain {
    type Stream = PlainStream;
    type Error = io::Error;
    type Future = Ready<io::Result<PlainStream>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        ready(Ok(PlainStream(stream)))
    }
}

impl TlsStream for PlainStream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for PlainStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for PlainStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
