//! Fail points: before and after each statement that changes the server, a program under test can be
//! killed or can lose the connection that the statement is sent on.
//!
//! A dialect has one place that sends statements; there each passes its points. They exist in debug
//! builds alone: a release asks for nothing and knows no name. Two variables of the environment work
//! them: `UNDERPIN_POINTS_LIST=FILE` writes down each point that is passed, and on which session (of what
//! only reads, the attempt);
//! `UNDERPIN_POINTS_STRIKE=kill:NAME:N` or `cut:NAME:N` strikes when NAME is passed for the N-th time.

#[cfg(debug_assertions)]
use std::collections::HashMap;
#[cfg(debug_assertions)]
use std::io::Write;
#[cfg(debug_assertions)]
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the program is told by its environment.
#[cfg(debug_assertions)]
struct Wish {
    list: Option<String>,
    strike: Option<(bool, String, u64)>,
    passed: Mutex<HashMap<String, u64>>,
}

#[cfg(debug_assertions)]
impl Wish {
    /// Writes a line to the list, where one is wanted.
    fn note(&self, word: &str, name: &str, session: u64) {
        let Some(list) = &self.list else { return };
        // One write a line: several sessions write side by side. Who cannot write is found out by the
        // test that reads.
        let file = std::fs::OpenOptions::new().create(true).append(true).open(list);
        let _ = file
            .and_then(|mut file| file.write_all(format!("{word} {name} {session}\n").as_bytes()));
    }
}

/// The two points of one statement; none where it changes nothing or nobody asks.
#[derive(Debug)]
pub struct Points {
    #[cfg(debug_assertions)]
    name: Option<String>,
}

#[cfg(debug_assertions)]
impl Points {
    /// The points of a statement: named after what it attempts and the verb it begins with.
    pub fn of(attempted: &str, sql: &str) -> Self {
        let Some(wish) = wish() else { return Self { name: None } };
        let name = changes(sql).then(|| format!("{}.{}", slug(attempted), verb(sql)));
        if name.is_none() {
            wish.note("read", &slug(attempted), 0);
        }
        Self { name }
    }

    /// Passes the point before the statement; true where the connection shall be lost here.
    pub fn before(&self, session: u64) -> bool {
        self.pass("before", session)
    }

    /// Passes the point after the statement, which the server has carried out.
    pub fn after(&self, session: u64) -> bool {
        self.pass("after", session)
    }

    fn pass(&self, side: &str, session: u64) -> bool {
        let (Some(name), Some(wish)) = (&self.name, wish()) else { return false };
        let name = format!("{name}.{side}");
        let nth = {
            let mut passed = wish.passed.lock().unwrap_or_else(PoisonError::into_inner);
            let count = passed.entry(name.clone()).or_default();
            *count += 1;
            *count
        };
        let struck = wish.strike.as_ref().filter(|(_, at, n)| *at == name && *n == nth);
        let word = struck.map_or("passed", |(kill, ..)| if *kill { "kill" } else { "cut" });
        wish.note(word, &name, session);
        match struck {
            Some((true, ..)) => {
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                );
                std::process::abort()
            }
            other => other.is_some(),
        }
    }
}

#[cfg(not(debug_assertions))]
impl Points {
    /// No points in a release.
    #[inline]
    pub fn of(_: &str, _: &str) -> Self {
        Self {}
    }

    /// Nothing is passed.
    #[inline]
    pub fn before(&self, _: u64) -> bool {
        false
    }

    /// Nothing is passed.
    #[inline]
    pub fn after(&self, _: u64) -> bool {
        false
    }
}

#[cfg(debug_assertions)]
fn wish() -> Option<&'static Wish> {
    static WISH: OnceLock<Option<Wish>> = OnceLock::new();
    let read = || {
        let list = std::env::var("UNDERPIN_POINTS_LIST").ok();
        let strike = std::env::var("UNDERPIN_POINTS_STRIKE").ok();
        if list.is_none() && strike.is_none() {
            return None;
        }
        let strike = strike.map(|text| {
            let parts: Vec<&str> = text.split(':').collect();
            match parts[..] {
                [way @ ("kill" | "cut"), name, nth] => {
                    (way == "kill", name.to_owned(), nth.parse().unwrap_or(1))
                }
                // A test that strikes nothing must not pass for one that did.
                _ => panic!("UNDERPIN_POINTS_STRIKE is kill:NAME:N or cut:NAME:N, not {text}"),
            }
        });
        Some(Wish { list, strike, passed: Mutex::default() })
    };
    WISH.get_or_init(read).as_ref()
}

/// Whether a string of statements does more than read and set the session up. When in doubt it does.
#[cfg(debug_assertions)]
fn changes(sql: &str) -> bool {
    const READING: [&str; 6] = ["SELECT", "WITH", "SET", "VALUES", "EXPLAIN", "TABLE"];
    const EFFECTS: [&str; 19] = [
        "INSERT",
        "UPDATE",
        "DELETE",
        "REPLACE",
        "CREATE",
        "DROP",
        "ALTER",
        "RENAME",
        "TRUNCATE",
        "LOCK",
        "SHARE",
        "GLOBAL",
        "GET_LOCK",
        "RELEASE_LOCK",
        "RELEASE_ALL_LOCKS",
        "SETVAL",
        "NEXTVAL",
        "PG_CANCEL_BACKEND",
        "PG_TERMINATE_BACKEND",
    ];
    bare(sql).split(';').any(|statement| {
        let words: Vec<&str> = statement
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty())
            .collect();
        let Some(first) = words.first() else { return false };
        let effect = |word: &&str| EFFECTS.contains(word) || word.contains("_ADVISORY_");
        match *first {
            "SHOW" => false,
            first if READING.contains(&first) => words.iter().any(effect),
            _ => true,
        }
    })
}

/// The statements in capitals, without what is quoted.
#[cfg(debug_assertions)]
fn bare(sql: &str) -> String {
    let mut quote = None;
    let mut out = String::with_capacity(sql.len());
    for c in sql.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '\'' | '"' | '`') => {
                quote = Some(c);
                out.push(' ');
            }
            None => out.push(c.to_ascii_uppercase()),
        }
    }
    out
}

/// The plain words of the attempt, joined by dashes: no name of a table, an index or a run.
#[cfg(debug_assertions)]
fn slug(attempted: &str) -> String {
    let own = attempted.split(['(', ':', '`', '"', '.']).next().unwrap_or_default();
    let plain =
        |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '-' | '\''));
    let lower = own.to_ascii_lowercase();
    let words: Vec<&str> = lower.split_whitespace().filter(plain).collect();
    words.join("-").replace('\'', "")
}

/// What the first statement that changes something begins with: `commit`, `drop-trigger`.
#[cfg(debug_assertions)]
fn verb(sql: &str) -> String {
    let bare = bare(sql);
    let first = bare.split(';').find(|statement| changes(statement)).unwrap_or(&bare);
    let lower = first.to_ascii_lowercase();
    let mut words = lower.split_whitespace();
    let first = words.next().unwrap_or_default();
    match (first, words.next()) {
        ("create" | "drop" | "alter", Some(second)) => format!("{first}-{second}"),
        _ => first.to_owned(),
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_server_is_told_from_what_reads() {
        for sql in [
            "INSERT INTO t VALUES (1)",
            "BEGIN",
            "COMMIT",
            "UNLOCK TABLES",
            "KILL 7",
            "SELECT GET_LOCK('a', 0)",
            "SELECT pg_catalog.pg_advisory_lock(1)",
            "SELECT 1; UPDATE t SET a = 1",
            "WITH taken AS (UPDATE t SET a = 1 RETURNING a) SELECT a FROM taken",
            "SET STATEMENT lock_wait_timeout=1 FOR ALTER TABLE t ADD b INT",
            "SET LOCAL lock_timeout = 1; LOCK TABLE t",
            "SELECT epoch FROM f WHERE run_id = 'a' LOCK IN SHARE MODE",
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_stat_activity",
            "VACUUM (ANALYZE) t",
        ] {
            assert!(changes(sql), "{sql}");
        }
        for sql in [
            "SELECT 'DROP TABLE t; DELETE FROM t' FROM `update`",
            "SELECT UPDATE_TIME FROM information_schema.TABLES",
            "SHOW CREATE TABLE t",
            "SELECT IS_USED_LOCK('a')",
            "SET SESSION lock_wait_timeout = 1",
            "SELECT 1; SELECT 2;",
        ] {
            assert!(!changes(sql), "{sql}");
        }
    }

    #[test]
    fn a_name_is_the_attempt_and_the_verb() {
        assert_eq!(slug("making the shadow of"), "making-the-shadow-of");
        assert_eq!(slug("copying (index a b)"), "copying");
        assert_eq!(slug("building index t_u_key for"), "building-index-for");
        assert_eq!(slug("taking the session's lock"), "taking-the-sessions-lock");
        assert_eq!(verb("SET LOCAL lock_timeout = 1; DROP TABLE a"), "drop-table");
        assert_eq!(verb("DROP TRIGGER IF EXISTS `a`"), "drop-trigger");
        assert_eq!(verb("UNLOCK TABLES"), "unlock");
    }
}
