//! Where files and sockets are looked for: values, so that tests need not touch a person's own.

use std::path::{Path, PathBuf};

/// The places to look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSearch {
    /// The home directory: `.pgpass`, `.pg_service.conf` and `.postgresql/` are in it.
    pub home: Option<PathBuf>,
    /// Where the `pg_service.conf` of the whole machine may be; the first that exists counts.
    pub system_service_files: Vec<PathBuf>,
    /// Where a server of this machine may have its Unix socket.
    pub socket_directories: Vec<PathBuf>,
}

impl FileSearch {
    /// No file at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// The usual places.
    pub fn standard(home: Option<&Path>) -> Self {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        Self {
            home: home.map(Path::to_owned),
            system_service_files: paths(&[
                "/etc/postgresql-common/pg_service.conf",
                "/etc/sysconfig/pgsql/pg_service.conf",
                "/etc/pg_service.conf",
            ]),
            socket_directories: paths(&["/var/run/postgresql", "/tmp"]),
        }
    }

    /// A file of the home directory.
    pub(crate) fn at_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }

    /// A file of the home directory, where it exists.
    pub(crate) fn existing_at_home(&self, name: &str) -> Option<PathBuf> {
        self.at_home(name).filter(|path| path.is_file())
    }
}
