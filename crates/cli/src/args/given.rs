//! Which options were given on the command line: they are put on record with the run, and repeated in the
//! command that goes on with it.
//!
//! Owns that no password gets into the record.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use underpin_dialect::Given;

/// What says nothing about the run: how it was begun and printed, and where the server is.
const LEFT_OUT: [&str; 8] = [
    "yes",
    "file",
    "output",
    "json",
    "verbose",
    "state-schema",
    "defaults-file",
    "defaults-group-suffix",
];

/// The options of a subcommand that were given. `command`: its definition, with global options in it.
pub(super) fn given(command: &Command, matches: &ArgMatches) -> Vec<Given> {
    let mut given = Vec::new();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_long().filter(|name| !LEFT_OUT.contains(name)) else {
            continue;
        };
        let id = argument.get_id().as_str();
        // Help and version are no values, and asking for them would be a mistake.
        let known = matches.try_contains_id(id).unwrap_or(false);
        if !known || matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let name = name.to_owned();
        if !argument.get_action().takes_values() {
            given.push(Given { name, value: String::new() });
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let value = without_password(&value.to_string_lossy());
            given.push(Given { name: name.clone(), value });
        }
    }
    given
}

/// A value as it may be seen: a URL loses the password before its '@', and parameters that are one.
fn without_password(value: &str) -> String {
    let mut value = match value.split_once("://") {
        // At the last '@', because a password may hold one by mistake.
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((userinfo, place)) => {
                let user = userinfo.split(':').next().unwrap_or_default();
                format!("{scheme}://{user}@{place}")
            }
            None => value.to_owned(),
        },
        None => value.to_owned(),
    };
    if let Some(at) = value.find("password=") {
        let from = at + "password=".len();
        let to = value[from..].find(['&', ' ']).map_or(value.len(), |length| from + length);
        value.replace_range(from..to, "…");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_put_on_record() {
        for (value, seen) in [
            ("mysql://admin:se@cret@db2/shop", "mysql://admin@db2/shop"),
            ("mysql://admin@db2", "mysql://admin@db2"),
            (
                "postgres://db2/shop?user=a&password=x%20y&b=1",
                "postgres://db2/shop?user=a&password=…&b=1",
            ),
            ("host=db2 password=secret dbname=shop", "host=db2 password=… dbname=shop"),
            ("running=50", "running=50"),
        ] {
            assert_eq!(without_password(value), seen);
        }
    }
}
