//! MySQL and MariaDB: from URL, flags, environment and option files to a server.

use std::path::PathBuf;

use underpin_mysql::connect::SessionSettings;
use underpin_mysql::mycnf::FileSearch;
use underpin_mysql::options::{self, ConnectOptions, process_environment};

use super::{Backend, Family, NO_REPLICAS, SessionWishes, encoded_path, has_password, shown};
use crate::args::{ConnectionArgs, GlobalArgs};
use crate::exit::Problem;

/// A server of this family.
#[derive(Debug)]
pub(super) struct MySqlServer {
    pub(super) options: ConnectOptions,
    pub(super) settings: SessionSettings,
    pub(super) state_schema: String,
    pub(super) replicas: Vec<String>,
}

/// Puts URL, flags, environment and option files together.
pub(super) fn resolve(
    url: &str,
    global: &GlobalArgs,
    wishes: SessionWishes,
    replicas: &[String],
) -> Result<Backend, Problem> {
    let with_flags = url_with_flags(url, &global.connection)?;
    let search = file_search(&global.connection, process_environment("HOME").map(PathBuf::from));
    let resolved = options::resolve(&with_flags, &search, &process_environment)
        .map_err(|error| Problem::settings(&error))?;
    let options = resolved.options;
    for replica in replicas.iter().filter(|replica| *replica != NO_REPLICAS) {
        options::replica(replica, &options).map_err(|error| {
            let problem = Problem::settings(&error);
            Problem { message: format!("--replica {}: {problem}", shown(replica)), ..problem }
        })?;
    }
    let mut settings = SessionSettings::default();
    if let Some(lock_timeout_ms) = wishes.lock_timeout_ms {
        if lock_timeout_ms == 0 || lock_timeout_ms % 1000 != 0 {
            return Err(Problem::usage(
                "--lock-timeout: the server counts it in whole seconds",
                "write 1s or more",
            ));
        }
        settings.lock_wait_timeout_s = u32::try_from(lock_timeout_ms / 1000).unwrap_or(u32::MAX);
    }
    let mut remarks =
        vec![format!("connecting to {options}, ssl-mode={}", options.tls.mode.name())];
    if has_password(url) {
        remarks.push(
            "the password in the URL can be seen by other users of this machine: MYSQL_PWD and \
             option files cannot"
                .to_owned(),
        );
    }
    let server = MySqlServer {
        options,
        settings,
        state_schema: global.state_schema.clone(),
        replicas: replicas.to_vec(),
    };
    Ok(Backend {
        family: Family::MySql(Box::new(server)),
        url: shown(url),
        warnings: resolved.warnings,
        remarks,
    })
}

/// The flags as parameters of the URL: one layer, checked in one place. A setting may stand in one of
/// the two only, for otherwise one of them would be ignored in silence.
fn url_with_flags(url: &str, flags: &ConnectionArgs) -> Result<String, Problem> {
    let path = |path: &Option<PathBuf>| path.as_deref().map(encoded_path).transpose();
    let settings = [
        ("ssl-mode", flags.ssl_mode.map(|mode| mode.name().to_owned())),
        ("ssl-ca", path(&flags.ssl_ca)?),
        ("ssl-cert", path(&flags.ssl_cert)?),
        ("ssl-key", path(&flags.ssl_key)?),
    ];
    let query = url.split_once('?').map(|(_, query)| query);
    let mut out = url.to_owned();
    for (name, value) in settings {
        let Some(value) = value else { continue };
        let in_url = query.into_iter().flat_map(|query| query.split('&')).any(|pair| {
            pair.split('=').next().is_some_and(|written| written.replace('_', "-") == name)
        });
        if in_url {
            let next = "keep one of the two";
            return Err(Problem::usage(
                format!("--{name} and the URL's {name} exclude each other"),
                next,
            ));
        }
        let joint = if out.contains('?') { '&' } else { '?' };
        out.push_str(&format!("{joint}{name}={value}"));
    }
    Ok(out)
}

fn file_search(flags: &ConnectionArgs, home: Option<PathBuf>) -> FileSearch {
    FileSearch {
        defaults_file: flags.defaults_file.clone(),
        group_suffix: flags.defaults_group_suffix.clone(),
        ..FileSearch::standard(home.as_deref())
    }
}
