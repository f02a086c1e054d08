//! libpq's keywords: which there are, which of them count here, and which must not be ignored.

use std::collections::BTreeMap;

use underpin_dialect::DbResult;

use super::{Environment, refused};

/// Keywords that count, each with its environment variable.
const TAKEN: [(&str, &str); 18] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("application_name", "PGAPPNAME"),
    ("options", "PGOPTIONS"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
];

/// Keywords that demand something which is not done here, each with its environment variable and the
/// values that demand nothing. To ignore one of the others would promise more than is kept.
const REFUSED: [(&str, &str, &[&str]); 12] = [
    ("sslcrl", "PGSSLCRL", &[]),
    ("sslcrldir", "PGSSLCRLDIR", &[]),
    ("sslpassword", "", &[]),
    ("sslcertmode", "PGSSLCERTMODE", &["allow"]),
    ("sslnegotiation", "PGSSLNEGOTIATION", &["postgres"]),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", &["TLSv1.3"]),
    ("requirepeer", "PGREQUIREPEER", &[]),
    ("require_auth", "PGREQUIREAUTH", &[]),
    ("gssencmode", "PGGSSENCMODE", &["disable", "prefer"]),
    ("replication", "", &["false", "off", "no", "0"]),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", &["disable"]),
];

/// Keywords without meaning here: they are said to be ignored.
const IGNORED: [&str; 18] = [
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "requiressl",
    "sslcompression",
    "sslkeylogfile",
    "sslsni",
    "tcp_user_timeout",
    "authtype",
    "tty",
];

/// One layer's settings, as text; what is not in it the layer does not say.
#[derive(Default, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    values: BTreeMap<&'static str, String>,
    ignored: Vec<&'static str>,
}

impl Layer {
    /// Notes a setting. An empty value says nothing, as in libpq.
    ///
    /// # Errors
    /// `Refused` for an unknown keyword, or one that cannot be kept; never quotes the value.
    pub(crate) fn set(&mut self, keyword: &str, value: &str) -> DbResult<()> {
        if let Some((known, _)) = TAKEN.iter().find(|(known, _)| *known == keyword) {
            if value.is_empty() {
                return Ok(());
            }
            if self.values.insert(known, value.to_owned()).is_some() {
                return Err(refused(&format!("{keyword} is set twice")));
            }
            return Ok(());
        }
        if let Some((known, _, harmless)) = REFUSED.iter().find(|(known, ..)| *known == keyword) {
            return check_harmless(known, value, harmless);
        }
        match IGNORED.iter().find(|known| **known == keyword) {
            Some(known) => {
                self.ignored.push(known);
                Ok(())
            }
            None => Err(refused(&format!(
                "unknown setting {keyword:?}; the settings are named as in libpq (host, port, dbname, \
                 user, sslmode, …)"
            ))),
        }
    }

    /// What the environment says.
    ///
    /// # Errors
    /// As [`Layer::set`].
    pub(crate) fn of_environment(environment: Environment<'_>) -> DbResult<Self> {
        let mut layer = Self::default();
        for (keyword, variable) in TAKEN {
            if let Some(value) = environment(variable) {
                layer.set(keyword, &value)?;
            }
        }
        for (_, variable, harmless) in
            REFUSED.iter().filter(|(_, variable, _)| !variable.is_empty())
        {
            if let Some(value) = environment(variable) {
                check_harmless(variable, &value, harmless)?;
            }
        }
        Ok(layer)
    }

    /// A setting's value.
    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        self.values.get(keyword).map(String::as_str)
    }

    /// Whether this layer says where the server is.
    pub(crate) fn names_host(&self) -> bool {
        self.get("host").is_some() || self.get("hostaddr").is_some()
    }

    /// This layer over another.
    pub(crate) fn over(mut self, below: Self) -> Self {
        for (keyword, value) in below.values {
            self.values.entry(keyword).or_insert(value);
        }
        self.ignored.extend(below.ignored);
        self
    }

    /// Takes a setting out.
    pub(crate) fn remove(&mut self, keyword: &str) {
        self.values.remove(keyword);
    }

    /// What was ignored, in words.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.ignored.iter().map(|keyword| format!("{keyword} has no effect here")).collect()
    }
}

fn check_harmless(keyword: &str, value: &str, harmless: &[&str]) -> DbResult<()> {
    if value.is_empty() || harmless.contains(&value) {
        return Ok(());
    }
    let only = match harmless {
        [] => String::new(),
        values => format!(" (but as {})", values.join(" or ")),
    };
    Err(refused(&format!(
        "{keyword} is not supported{only}: ignoring it would promise more than is kept"
    )))
}
