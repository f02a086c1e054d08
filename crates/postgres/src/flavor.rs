//! What a server of this version can do: one value, read at connect, asked by name.
//!
//! Owns the versions that are supported and what differs between them. Nobody else compares versions.

use std::fmt;

use underpin_dialect::{DbError, DbResult, ErrorKind};

/// The oldest and the newest major version that the tests run against.
const SUPPORTED: std::ops::RangeInclusive<u32> = 14..=18;

/// What a server can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `server_version_num`, as 150020.
    pub version_num: u32,
    /// `server_version` as the server writes it, as "15.20 (Debian 15.20-0+deb12u1)".
    pub version: String,
    /// `CREATE UNIQUE INDEX … NULLS NOT DISTINCT` (15).
    pub nulls_not_distinct: bool,
    /// Privilege MAINTAIN (17).
    pub maintain_privilege: bool,
    /// NOT NULL constraints have names and rows in `pg_constraint` (18).
    pub not_null_constraints: bool,
    /// Generated columns that are not stored (18).
    pub virtual_columns: bool,
    /// Constraints may be NOT ENFORCED (18).
    pub not_enforced: bool,
    /// Keys WITHOUT OVERLAPS and foreign keys with PERIOD (18).
    pub temporal_keys: bool,
    /// A foreign key of a partitioned table may be NOT VALID (18).
    pub partitioned_not_valid: bool,
    /// Publications have row filters and column lists (15).
    pub publication_filters: bool,
    /// Views may have `security_invoker` (15).
    pub security_invoker: bool,
    /// `transaction_timeout` (17).
    pub transaction_timeout: bool,
    /// `idle_session_timeout` (14).
    pub idle_session_timeout: bool,
    /// `pg_attribute.attstattarget` is NULL, not -1, by default (17).
    pub statistics_target_null: bool,
}

impl Capabilities {
    /// From the server's own words on its version.
    ///
    /// # Errors
    /// `Refused` for a version outside the supported range.
    pub(crate) fn new(version_num: u32, version: &str) -> DbResult<Self> {
        let major = version_num / 10_000;
        if !SUPPORTED.contains(&major) {
            return Err(DbError::new(
                ErrorKind::Refused,
                "reading the server's version",
                format!("PostgreSQL {version}"),
            )
            .help(format!(
                "This version of underpin works with PostgreSQL {} to {}",
                SUPPORTED.start(),
                SUPPORTED.end()
            )));
        }
        Ok(Self {
            version_num,
            version: version.to_owned(),
            nulls_not_distinct: major >= 15,
            maintain_privilege: major >= 17,
            not_null_constraints: major >= 18,
            virtual_columns: major >= 18,
            not_enforced: major >= 18,
            temporal_keys: major >= 18,
            partitioned_not_valid: major >= 18,
            publication_filters: major >= 15,
            security_invoker: major >= 15,
            transaction_timeout: major >= 17,
            idle_session_timeout: major >= 14,
            statistics_target_null: major >= 17,
        })
    }
}

impl fmt::Display for Capabilities {
    /// As "PostgreSQL 15.20".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.version.split(' ').next().unwrap_or_default();
        write!(f, "PostgreSQL {short}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supported_versions_are_told_from_others() {
        for version_num in [140_000, 150_020, 180_006] {
            assert!(Capabilities::new(version_num, "x").is_ok(), "{version_num}");
        }
        for version_num in [90_624, 130_023, 190_000] {
            let error = Capabilities::new(version_num, "x").unwrap_err();
            assert!(error.to_string().contains("14 to 18"), "{error}");
        }
    }

    #[test]
    fn the_packagers_words_are_left_out() {
        let capabilities = Capabilities::new(150_020, "15.20 (Debian 15.20-0+deb12u1)").unwrap();
        assert_eq!(capabilities.to_string(), "PostgreSQL 15.20");
        assert!(capabilities.nulls_not_distinct && !capabilities.not_null_constraints);
    }
}
