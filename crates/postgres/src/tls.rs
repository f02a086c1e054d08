//! Encryption: what each `sslmode` asks of the TLS library, and what its failures mean.
//!
//! Owns the files' reading, the verifier and the crypto provider. Which attempts a mode makes is
//! [`crate::connect`]'s.
//!
//! | mode | chain | name |
//! | --- | --- | --- |
//! | `allow`, `prefer`, `require` | to `sslrootcert` where there is one, else not looked at | not looked at |
//! | `verify-ca` | to `sslrootcert` | not looked at |
//! | `verify-full` | to `sslrootcert` | in the certificate's subjectAltName |

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::options::{ConnectOptions, RootCert, TlsMode};

/// A name that stands for one that no certificate could hold, where names are not looked at.
const NO_NAME: &str = "name.invalid";

/// The largest certificate or key file that is read.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Makes ring this process's crypto provider. To be called first in `main`; calling it again is harmless.
pub fn install_crypto_provider() {
    // An error means that there is one already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The connector for these options.
///
/// # Errors
/// `Refused` for a file that cannot be read or holds nothing of use.
pub(crate) async fn connector(options: &ConnectOptions) -> DbResult<Connector> {
    let tls = &options.tls;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (roots, trusted) = match &tls.root_cert {
        None => (None, Vec::new()),
        Some(RootCert::System) => {
            let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
            (Some(roots.collect::<RootCertStore>()), Vec::new())
        }
        Some(RootCert::File(path)) => {
            let trusted = read_certificates(path, "sslrootcert").await?;
            let mut roots = RootCertStore::empty();
            let (added, _) = roots.add_parsable_certificates(trusted.iter().cloned());
            if added == 0 {
                return Err(unreadable(
                    "sslrootcert",
                    path,
                    "none of its certificates can be read",
                ));
            }
            (Some(roots), trusted)
        }
    };
    let chain = match roots {
        None => None,
        Some(roots) => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| refused("reading sslrootcert").help(error.to_string()))?,
        ),
    };
    let name = tls.mode == TlsMode::VerifyFull;
    let verifier = Arc::new(Verifier { chain, trusted, name, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused("setting up TLS").help(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let chain = read_certificates(cert, "sslcert").await?;
            let key_der = read_key(key).await?;
            builder
                .with_client_auth_cert(chain, key_der)
                .map_err(|error| unreadable("sslkey", key, &error.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Connector { inner: MakeRustlsConnect::new(config), name })
}

/// Hands the driver TLS connections.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: MakeRustlsConnect,
    /// Whether the name is looked at.
    name: bool,
}

impl<S> MakeTlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<S>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        // A name like `db_1` is in no certificate; it must not matter where names do not.
        let host = if !self.name && ServerName::try_from(host).is_err() { NO_NAME } else { host };
        <MakeRustlsConnect as MakeTlsConnect<S>>::make_tls_connect(&mut self.inner, host)
    }
}

/// Judges the server's certificate by the mode.
#[derive(Debug)]
struct Verifier {
    /// The judge of chains; `None` where they are not looked at.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of `sslrootcert`, as they stand in the file.
    trusted: Vec<CertificateDer<'static>>,
    /// Whether the name is looked at.
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The library looks at the name last, when the chain holds.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            // A self-signed certificate that is itself in `sslrootcert`, as the server's manual makes
            // them: they may call themselves an authority, which the library takes for an error. It
            // says so after it has checked the dates.
            Err(Error::InvalidCertificate(CertificateError::Other(other)))
                if other.to_string().contains("CaUsedAsEndEntity")
                    && self.trusted.iter().any(|trusted| trusted == end_entity) =>
            {
                if self.name {
                    let parsed = ParsedCertificate::try_from(end_entity)?;
                    rustls::client::verify_server_name(&parsed, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    // Also where nothing else is looked at: else somebody in between could show the server's own
    // certificate without having its key, and channel binding would prove nothing.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refused(attempted: &str) -> DbError {
    DbError::new(ErrorKind::Refused, attempted, "")
}

fn unreadable(option: &str, path: &Path, why: &str) -> DbError {
    DbError::new(ErrorKind::Refused, format!("reading {option}"), path.display().to_string())
        .help(why)
}

async fn read_certificates(path: &Path, option: &str) -> DbResult<Vec<CertificateDer<'static>>> {
    let bytes = read_file(path, option).await?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect();
    if found.is_empty() {
        return Err(unreadable(
            option,
            path,
            "no certificate in this file; it must be in PEM form",
        ));
    }
    Ok(found)
}

async fn read_key(path: &Path) -> DbResult<PrivateKeyDer<'static>> {
    refuse_open_key(path).await?;
    let bytes = read_file(path, "sslkey").await?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let why = "no private key in this file that can be read; it must be in PEM form and not \
                   encrypted";
        unreadable("sslkey", path, why)
    })
}

/// libpq's rule: a key of one's own is for oneself alone; root's may be read by its group.
#[cfg(unix)]
async fn refuse_open_key(path: &Path) -> DbResult<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = tokio::fs::metadata(path)
        .await
        .map_err(|error| unreadable("sslkey", path, &error.to_string()))?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(unreadable("sslkey", path, "others may read this file: chmod 0600 it"));
    }
    Ok(())
}

#[cfg(not(unix))]
async fn refuse_open_key(_: &Path) -> DbResult<()> {
    Ok(())
}

async fn read_file(path: &Path, option: &str) -> DbResult<Vec<u8>> {
    let refuse = |why: String| unreadable(option, path, &why);
    let metadata = tokio::fs::metadata(path).await.map_err(|error| refuse(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > PEM_BYTES_MAX {
        return Err(refuse("not a regular file of at most 4 MiB".to_owned()));
    }
    tokio::fs::read(path).await.map_err(|error| refuse(error.to_string()))
}

/// What to do about a failed handshake.
pub(crate) fn help(error: &Error, options: &ConnectOptions) -> String {
    match error {
        Error::InvalidCertificate(certificate) => certificate_help(certificate, options),
        Error::AlertReceived(alert) => format!(
            "The server broke off the handshake ({alert:?}): it may want a client certificate \
             (sslcert, sslkey), or speak only TLS versions older than 1.2"
        ),
        Error::PeerIncompatible(_) => {
            "Server and client have no TLS version or cipher in common (1.2 and 1.3 are spoken here)"
                .to_owned()
        }
        _ => "The encrypted connection could not be made".to_owned(),
    }
}

fn certificate_help(error: &CertificateError, options: &ConnectOptions) -> String {
    use CertificateError as C;
    match error {
        C::NotValidForName | C::NotValidForNameContext { .. } => format!(
            "The server's certificate is not made out to {:?} (only its subjectAltName counts): \
             connect by a name that it holds, or use sslmode=verify-ca",
            options.host
        ),
        C::UnknownIssuer => match &options.tls.root_cert {
            Some(RootCert::File(path)) => format!(
                "The server's certificate is not signed by an authority in {}",
                path.display()
            ),
            _ => "The server's certificate is not signed by a public authority: name its \
                  authority's certificate with sslrootcert"
                .to_owned(),
        },
        C::Expired | C::ExpiredContext { .. } => "The server's certificate has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "The server's certificate is not valid yet: compare the clocks".to_owned()
        }
        C::BadEncoding | C::Other(_) => {
            "The server's certificate cannot be used here: it must be of X.509 version 3, and one of \
             an authority only where it stands itself in sslrootcert"
                .to_owned()
        }
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "The server's certificate is not meant for servers (extendedKeyUsage)".to_owned()
        }
        C::UnhandledCriticalExtension => {
            "The server's certificate has a critical extension that is unknown here".to_owned()
        }
        _ => "The server's certificate does not hold".to_owned(),
    }
}
