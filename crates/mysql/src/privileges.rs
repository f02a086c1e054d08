//! Whether the account may do what a run needs: what is missing is named, with the GRANT that helps.
//!
//! Reads SHOW GRANTS, which holds the privileges of active roles too. Grants on single tables do not
//! count: a run makes tables of its own.

use underpin_core::finding::Finding;
use underpin_dialect::{DbResult, Request};

use crate::control::Control;
use crate::flavor::Flavor;
use crate::query::{number, quote, rows, text};

/// What a run does in the database of its table.
const ON_SCHEMA: [&str; 11] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "TRIGGER",
    "LOCK TABLES",
    "CREATE TEMPORARY TABLES",
];

/// What it does in the database of its own state.
const ON_STATE: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "LOCK TABLES"];

/// Checks the account; empty where nothing is missing.
pub(crate) async fn check(
    control: &mut Control,
    request: &Request,
    schema: &str,
) -> DbResult<Vec<Finding>> {
    let attempted = "reading the account's privileges";
    let lines = rows(&mut control.session.conn, "SHOW GRANTS", attempted, "").await?;
    let grants = Grants(lines.iter().filter_map(|row| Grant::parse(&text(row, 0))).collect());
    let user = rows(&mut control.session.conn, "SELECT CURRENT_USER()", attempted, "").await?;
    let account = account(&user.first().map(|row| text(row, 0)).unwrap_or_default());
    let state = control.state_schema.clone();
    let mut findings = Vec::new();
    for (database, needed) in [(schema, &ON_SCHEMA[..]), (state.as_str(), &ON_STATE[..])] {
        let missing: Vec<&str> =
            needed.iter().copied().filter(|name| !grants.allow_in(name, database)).collect();
        let pattern = format!("{}.*", quote(&escaped(database))?);
        findings.extend(missing_finding(&missing, &pattern, &account));
    }
    let missing: Vec<&str> = needed_globally(control, request)
        .into_iter()
        .filter(|alternatives| !alternatives.iter().any(|name| grants.allow(name)))
        .filter_map(|alternatives| alternatives.first().copied())
        .collect();
    findings.extend(missing_finding(&missing, "*.*", &account));
    findings.extend(triggers(control, &grants, &account).await?);
    let is_mysql = control.session.capabilities.flavor == Flavor::MySql;
    if is_mysql && !grants.allow_in("SELECT", "performance_schema") {
        findings.push(Finding::warning(
            "holders-unseen",
            "the account may not read performance_schema: sessions that hold the table's lock can be \
             neither avoided nor named",
            format!("GRANT SELECT ON performance_schema.* TO {account}"),
        ));
    }
    Ok(findings)
}

/// Whether the account sees every trigger of the database.
pub(crate) async fn may_see_triggers(control: &mut Control, schema: &str) -> DbResult<bool> {
    let attempted = "reading the account's privileges";
    let lines = rows(&mut control.session.conn, "SHOW GRANTS", attempted, "").await?;
    let grants = Grants(lines.iter().filter_map(|row| Grant::parse(&text(row, 0))).collect());
    Ok(grants.allow_in("TRIGGER", schema))
}

/// Each with what would do instead of it.
fn needed_globally(control: &Control, request: &Request) -> Vec<&'static [&'static str]> {
    let is_mysql = control.session.capabilities.flavor == Flavor::MySql;
    // Tables of InnoDB with their ids, and transactions that hold the table.
    let mut needed: Vec<&[&str]> = vec![&["PROCESS"]];
    // Whether the server is a replica itself.
    needed.push(if is_mysql {
        &["REPLICATION CLIENT", "SUPER"]
    } else {
        &["SLAVE MONITOR", "REPLICA MONITOR", "SUPER"]
    });
    // The list of its replicas, where the user did not name them.
    if request.replicas.is_empty() {
        needed.push(if is_mysql {
            &["REPLICATION SLAVE"]
        } else {
            &["REPLICATION MASTER ADMIN", "SUPER"]
        });
    }
    needed
}

async fn triggers(
    control: &mut Control,
    grants: &Grants,
    account: &str,
) -> DbResult<Option<Finding>> {
    if !control.session.capabilities.log_bin || grants.allow("SUPER") {
        return Ok(None);
    }
    let sql = "SELECT @@GLOBAL.log_bin_trust_function_creators";
    let trusted = number(&mut control.session.conn, sql, "asking who may create triggers", "");
    Ok((trusted.await? == 0).then(|| {
        Finding::refusal(
            "missing-privilege",
            "with the binary log on and log_bin_trust_function_creators off, only an account with \
             SUPER may create triggers",
            format!(
                "SET GLOBAL log_bin_trust_function_creators = 1, or GRANT SUPER ON *.* TO {account}"
            ),
        )
    }))
}

fn missing_finding(missing: &[&str], target: &str, account: &str) -> Option<Finding> {
    let list = missing.join(", ");
    (!missing.is_empty()).then(|| {
        Finding::refusal(
            "missing-privilege",
            format!("the account {account} lacks {list} on {target}"),
            format!("GRANT {list} ON {target} TO {account}"),
        )
    })
}

/// `u@h` of `CURRENT_USER()` as a GRANT spells it.
fn account(current_user: &str) -> String {
    let (user, host) = current_user.rsplit_once('@').unwrap_or((current_user, "%"));
    let quoted = |name: &str| quote(name).unwrap_or_else(|_| "``".to_owned());
    format!("{}@{}", quoted(user), quoted(host))
}

/// A database's name as a pattern that means it alone.
fn escaped(schema: &str) -> String {
    schema.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%")
}

/// The lines of SHOW GRANTS that are about all databases or one.
struct Grants(Vec<Grant>);

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Grant {
    /// A line that takes away (MySQL's partial revokes).
    is_revoke: bool,
    privileges: Vec<String>,
    /// The pattern of databases; `None` for all.
    schema: Option<String>,
}

impl Grants {
    /// Whether the account has the privilege everywhere.
    fn allow(&self, privilege: &str) -> bool {
        self.0
            .iter()
            .any(|grant| !grant.is_revoke && grant.schema.is_none() && grant.includes(privilege))
    }

    /// Whether it has it in this database.
    fn allow_in(&self, privilege: &str, schema: &str) -> bool {
        let here = |is_revoke: bool| {
            self.0.iter().any(|grant| {
                grant.is_revoke == is_revoke
                    && grant.includes(privilege)
                    && grant.schema.as_deref().is_some_and(|pattern| matches(pattern, schema))
            })
        };
        here(false) || (self.allow(privilege) && !here(true))
    }
}

impl Grant {
    /// Reads a line; `None` where it is about roles, proxies, tables or routines.
    fn parse(line: &str) -> Option<Self> {
        let (is_revoke, rest) = match line.strip_prefix("GRANT ") {
            Some(rest) => (false, rest),
            None => (true, line.strip_prefix("REVOKE ")?),
        };
        let (privileges, rest) = rest.split_once(" ON ")?;
        let (target, _) = rest.rsplit_once(if is_revoke { " FROM " } else { " TO " })?;
        let schema = if target == "*.*" {
            None
        } else {
            let quoted = target.strip_suffix(".*")?;
            let inner = quoted.strip_prefix('`')?.strip_suffix('`')?;
            Some(inner.replace("``", "`"))
        };
        let privileges = privileges.split(',').map(|name| name.trim().to_uppercase()).collect();
        Some(Self { is_revoke, privileges, schema })
    }

    fn includes(&self, privilege: &str) -> bool {
        self.privileges.iter().any(|name| name == privilege || name.starts_with("ALL PRIVILEGES"))
    }
}

/// Whether a database's name matches the pattern of a grant: `%` any text, `_` any character, `\` takes
/// the next one literally.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pattern_chars = pattern.chars();
    let mut name_chars = name.chars();
    match pattern_chars.next() {
        None => name.is_empty(),
        Some('%') => {
            let rest = pattern_chars.as_str();
            let mut tails = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            tails.any(|at| name.get(at..).is_some_and(|tail| matches(rest, tail)))
        }
        Some('_') => {
            name_chars.next().is_some() && matches(pattern_chars.as_str(), name_chars.as_str())
        }
        Some(c) => {
            let literal = if c == '\\' { pattern_chars.next() } else { Some(c) };
            name_chars.next() == literal && matches(pattern_chars.as_str(), name_chars.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(lines: &[&str]) -> Grants {
        Grants(lines.iter().filter_map(|line| Grant::parse(line)).collect())
    }

    #[test]
    fn lines_of_both_servers_are_read() {
        let mysql = grants(&[
            "GRANT PROCESS, SUPER ON *.* TO `u`@`%`",
            "GRANT SELECT, CREATE TEMPORARY TABLES ON `shop`.* TO `u`@`%`",
            "GRANT SELECT (`id`), INSERT ON `other`.`t` TO `u`@`%`",
            "GRANT `r1`@`%` TO `u`@`%`",
        ]);
        assert!(mysql.allow("PROCESS") && !mysql.allow("SELECT"));
        assert!(mysql.allow_in("CREATE TEMPORARY TABLES", "shop"));
        assert!(!mysql.allow_in("INSERT", "other") && !mysql.allow_in("CREATE", "shop"));
        let maria = grants(&[
            "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` IDENTIFIED VIA unix_socket WITH GRANT OPTION",
            "GRANT PROXY ON ''@'%' TO 'root'@'localhost' WITH GRANT OPTION",
            "SET DEFAULT ROLE `r1` FOR `u`@`%`",
        ]);
        assert!(maria.allow("SLAVE MONITOR") && maria.allow_in("TRIGGER", "shop"));
    }

    #[test]
    fn patterns_match_as_the_server_matches_them() {
        let grants =
            grants(&["GRANT SELECT ON `app\\_%`.* TO `u`@`%`", "GRANT DROP ON `a_`.* TO `u`@`%`"]);
        assert!(grants.allow_in("SELECT", "app_1") && grants.allow_in("SELECT", "app_"));
        assert!(!grants.allow_in("SELECT", "appx1"));
        assert!(grants.allow_in("DROP", "ab") && !grants.allow_in("DROP", "abc"));
        assert_eq!(escaped("a_b%"), "a\\_b\\%");
    }

    #[test]
    fn a_partial_revoke_takes_away() {
        let grants =
            grants(&["GRANT SELECT ON *.* TO `u`@`%`", "REVOKE SELECT ON `mysql`.* FROM `u`@`%`"]);
        assert!(grants.allow_in("SELECT", "shop") && !grants.allow_in("SELECT", "mysql"));
    }

    #[test]
    fn accounts_are_quoted() {
        assert_eq!(account("we@ird@10.%"), "`we@ird`@`10.%`");
    }
}
