//! Encryption: what each mode asks of the driver, and what its failures mean.
//!
//! Owns the files' reading and the crypto provider. Does not decide to go on without TLS; that is
//! [`crate::connect`]'s, for one single answer of the server.
//!
//! | mode | chain | name |
//! | --- | --- | --- |
//! | `preferred`, `required` | not looked at | not looked at |
//! | `verify-ca` | to `ssl-ca` | not looked at |
//! | `verify-identity` | to `ssl-ca`, or to the public authorities | in the certificate's subjectAltName |

use std::error::Error as StdError;
use std::path::Path;

use mysql_async::{ClientIdentity, Error, SslOpts};
use rustls::CertificateError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use underpin_dialect::{DbError, DbResult, ErrorKind};

use crate::options::{ConnectOptions, TlsMode};

/// A name that is in no certificate, used where the name is not to be looked at.
///
/// The driver's switch for that lets a verdict pass when its *text* holds this word. The verdict's
/// text has changed since and holds the expected name instead: so the expected name is the word. Only
/// the verdict about names, which comes after the one about the chain, quotes it. Should the text
/// change again, `verify-ca` fails closed, and a test against a real server says so.
const NAME_IN_NO_CERTIFICATE: &str = "NotValidForName";

/// The largest certificate or key file that is read.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Makes ring this process's crypto provider. To be called first in `main`; calling it again is harmless.
pub fn install_crypto_provider() {
    // An error means that there is one already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The driver's options for the mode; `None` where no TLS is to be used.
///
/// # Errors
/// Refused for a file that cannot be read or holds nothing of use.
pub(crate) async fn ssl_options(options: &ConnectOptions) -> DbResult<Option<SslOpts>> {
    let tls = &options.tls;
    // A Unix socket never leaves the machine; the server itself counts it as secure transport.
    if tls.mode == TlsMode::Disabled || options.socket.is_some() {
        return Ok(None);
    }
    let mut ssl = SslOpts::default();
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        let cert_pem = read_pem(cert, "ssl-cert", certificates_in).await?;
        let key_pem = read_pem(key, "ssl-key", keys_in).await?;
        ssl = ssl.with_client_identity(Some(ClientIdentity::new(cert_pem.into(), key_pem.into())));
    }
    if tls.mode < TlsMode::VerifyCa {
        ssl = ssl.with_danger_accept_invalid_certs(true);
        if ServerName::try_from(options.host.as_str()).is_err() {
            ssl = ssl.with_danger_tls_hostname_override(Some(NAME_IN_NO_CERTIFICATE));
        }
        return Ok(Some(ssl));
    }
    if let Some(ca) = &tls.ca {
        let pem = read_pem(ca, "ssl-ca", certificates_in).await?;
        ssl = ssl.with_root_certs(vec![pem.into()]).with_disable_built_in_roots(true);
    }
    if tls.mode == TlsMode::VerifyCa {
        ssl = ssl
            .with_danger_skip_domain_validation(true)
            .with_danger_tls_hostname_override(Some(NAME_IN_NO_CERTIFICATE));
    }
    Ok(Some(ssl))
}

/// Reads a PEM file in which `count` must find something.
async fn read_pem(path: &Path, option: &str, count: fn(&[u8]) -> usize) -> DbResult<Vec<u8>> {
    let object = path.display().to_string();
    let refuse = |help: String| {
        DbError::new(ErrorKind::Refused, format!("reading {option}"), object.clone()).help(help)
    };
    let metadata = tokio::fs::metadata(path).await.map_err(|error| refuse(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > PEM_BYTES_MAX {
        return Err(refuse("not a regular file of at most 4 MiB".to_owned()));
    }
    let bytes = tokio::fs::read(path).await.map_err(|error| refuse(error.to_string()))?;
    if count(&bytes) == 0 {
        return Err(refuse("nothing of use in this file; it must be in PEM form".to_owned()));
    }
    Ok(bytes)
}

fn certificates_in(pem: &[u8]) -> usize {
    CertificateDer::pem_slice_iter(pem).filter(Result::is_ok).count()
}

fn keys_in(pem: &[u8]) -> usize {
    usize::from(PrivateKeyDer::from_pem_slice(pem).is_ok())
}

/// The TLS library's error inside a driver's error, if that is what it is about.
pub(crate) fn rustls_error(error: &Error) -> Option<&rustls::Error> {
    let mut current: Option<&(dyn StdError + 'static)> = Some(error);
    // Bound: error chains are short; a longer one is a loop.
    for _ in 0..16 {
        let error = current?;
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = io.get_ref()
        {
            current = Some(inner);
            continue;
        }
        current = error.source();
    }
    None
}

/// What to do about a failed handshake.
pub(crate) fn help(error: &rustls::Error, options: &ConnectOptions) -> String {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(certificate) => certificate_help(certificate, options),
        Tls::AlertReceived(alert) => format!(
            "The server broke off the handshake ({alert:?}): it may want a client certificate \
             (ssl-cert, ssl-key), or speak only TLS versions older than 1.2"
        ),
        Tls::PeerIncompatible(_) => {
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
             connect by a name that it holds, or use ssl-mode=verify-ca",
            options.host
        ),
        C::UnknownIssuer => match &options.tls.ca {
            Some(ca) => format!(
                "The server's certificate is not signed by an authority in {}",
                ca.display()
            ),
            None => "The server's certificate is not signed by a public authority: name its \
                     authority's certificate with ssl-ca"
                .to_owned(),
        },
        C::Expired | C::ExpiredContext { .. } => "The server's certificate has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "The server's certificate is not valid yet: compare the clocks".to_owned()
        }
        // What the library says of the X.509 version 1 certificates that some servers make at first
        // start; there is no switch to take them, because they cannot be parsed.
        C::BadEncoding | C::Other(_) => {
            "The server's certificate cannot be read. Certificates that servers generate themselves \
             may be of the old X.509 version 1: make one of version 3 on the server (openssl req -x509 \
             …, then ssl_cert and ssl_key), or use ssl-mode=disabled on a network you trust"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mycnf::FileSearch;
    use crate::options::resolve;

    fn options(url: &str) -> ConnectOptions {
        resolve(url, &FileSearch::none(), &|_| None).unwrap().options
    }

    #[test]
    fn the_provider_can_be_installed_twice() {
        install_crypto_provider();
        install_crypto_provider();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }

    #[test]
    fn a_verdict_about_names_quotes_the_expected_name_and_nothing_else_does() {
        let expected = ServerName::try_from(NAME_IN_NO_CERTIFICATE).unwrap().to_owned();
        let name = rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected,
            presented: vec![],
        });
        assert!(name.to_string().contains(NAME_IN_NO_CERTIFICATE), "{name}");
        for other in [
            CertificateError::UnknownIssuer,
            CertificateError::Expired,
            CertificateError::BadEncoding,
            CertificateError::BadSignature,
            CertificateError::Revoked,
            CertificateError::InvalidPurpose,
        ] {
            let text = rustls::Error::InvalidCertificate(other).to_string();
            assert!(!text.contains(NAME_IN_NO_CERTIFICATE), "{text}");
        }
    }

    #[tokio::test]
    async fn no_tls_where_none_is_asked_for_or_possible() {
        for url in ["mysql://a@h/?ssl-mode=disabled", "mysql://a@/?socket=/s&ssl-mode=required"] {
            assert!(ssl_options(&options(url)).await.unwrap().is_none(), "{url}");
        }
        assert!(ssl_options(&options("mysql://a@h")).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_file_without_certificates_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let url = format!("mysql://a@h/?ssl-mode=verify-ca&ssl-ca={}", path.display());
        let missing = ssl_options(&options(&url)).await.unwrap_err();
        assert!(missing.to_string().contains("ca.pem"), "{missing}");
        std::fs::write(&path, "no certificate").unwrap();
        let empty = ssl_options(&options(&url)).await.unwrap_err();
        assert!(empty.to_string().contains("PEM"), "{empty}");
    }
}
