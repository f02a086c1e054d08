//! The role of docs/guide/accounts.md, with exactly those grants: whole changes and every other command go
//! through; each grant that is left out is named by the plan, with one that helps, and nothing is begun.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // what cannot be had here fails the test

use underpin_tests::cli;
use underpin_tests::servers::{Flavor, TestDb, pg, sql};

const CHANGE: &str = "ALTER TABLE t ALTER v TYPE bigint, ADD n int NOT NULL DEFAULT 7";

/// The grants as the guide writes them: `%o` is the owner, `%r` the role, `%d` the database.
const GRANTS: [&str; 4] = [
    "GRANT %o TO %r",
    "GRANT CREATE ON DATABASE %d TO %r",
    "GRANT CREATE ON SCHEMA public TO %o",
    "GRANT pg_monitor TO %r",
];

/// The one without which a run goes on, and sees less.
const MONITOR: &str = "GRANT pg_monitor TO %r";

/// What runs have left behind.
const LEFT: &str = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^underpin_'";

struct Account {
    db: TestDb,
    owner: String,
    role: String,
}

impl Account {
    fn new(flavor: Flavor) -> Option<Self> {
        let db = TestDb::new(flavor)?;
        let (owner, role) = (format!("own_{}", db.name()), format!("run_{}", db.name()));
        let account = Self { db, owner, role };
        account.root(&[
            "CREATE ROLE %o",
            "CREATE ROLE %r LOGIN",
            // as new servers have it since version 15
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "CREATE TABLE t (id int PRIMARY KEY, v int, w text UNIQUE)",
            "INSERT INTO t SELECT i, i, 'w' || i FROM generate_series(1, 500) i",
            "ALTER TABLE t OWNER TO %o",
        ]);
        Some(account)
    }

    fn filled(&self, statement: &str) -> String {
        let filled = statement.replace("%o", &self.owner).replace("%r", &self.role);
        filled.replace("%d", self.db.name())
    }

    fn root(&self, statements: &[&str]) {
        let statements = statements.iter().map(|one| self.filled(one)).collect();
        sql::execute(&self.db.url(), statements).unwrap();
    }

    fn url(&self) -> String {
        self.db.url().replacen("postgres@", &format!("{}@", self.role), 1)
    }

    /// All that is there of ours.
    fn ours(&self) -> Option<i64> {
        let ask = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^underpin'";
        pg::first_value(&self.db.url(), ask).unwrap()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let end = ["DROP OWNED BY %o, %r CASCADE", "DROP ROLE %r", "DROP ROLE %o"];
        let end = end.iter().map(|one| self.filled(one)).collect();
        if let Err(error) = sql::execute(&self.db.url(), end) {
            eprintln!("roles stay behind: {error:#}");
        }
    }
}

#[test]
fn each_grant_that_is_left_out_is_named_by_the_plan() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(account) = Account::new(flavor) else { continue };
        for left_out in GRANTS {
            for grant in GRANTS {
                account.root(&[grant]);
            }
            let revoke = left_out.replacen("GRANT", "REVOKE", 1).replacen(" TO ", " FROM ", 1);
            account.root(&[&revoke]);
            let url = account.url();
            let plan = || cli::call(&["plan", &url, CHANGE, "--strategy", "shadow"]).unwrap();
            let called = plan();
            let said = format!("{}\n{}", called.findings().join("\n"), called.complaint());
            if left_out == MONITOR {
                assert!(called.code() == 0, "{left_out}: {said}");
                continue;
            }
            assert_eq!(called.code(), 3, "{left_out}: {said}");
            assert!(said.contains("missing-privilege"), "{left_out}: {said}");
            let run = ["run", &url, CHANGE, "--strategy", "shadow", "--yes"];
            assert_eq!(cli::call(&run).unwrap().code(), 3, "{left_out}");
            assert_eq!(account.ours(), Some(0), "{left_out}: something was begun");
            // what it says helps
            let advice: Vec<String> = said
                .lines()
                .filter(|line| line.starts_with("missing-privilege"))
                .filter_map(|line| line.split_once("-> ").map(|(_, advice)| advice.to_owned()))
                .collect();
            assert!(!advice.is_empty(), "{said}");
            for grant in &advice {
                account.root(&[grant]);
            }
            assert_eq!(
                plan().code(),
                0,
                "{left_out}: {advice:?} did not help: {}",
                plan().complaint()
            );
            if left_out.contains("SCHEMA public") {
                account.root(&["REVOKE CREATE ON SCHEMA public FROM %r"]);
            }
        }
    }
}

#[test]
fn every_command_goes_through_with_exactly_these_grants() {
    for flavor in Flavor::POSTGRES_MATRIX {
        let Some(account) = Account::new(flavor) else { continue };
        for grant in GRANTS {
            account.root(&[grant]);
        }
        let url = account.url();
        let good = |words: &[&str]| {
            let called = cli::call(words).unwrap();
            assert!(called.code() == 0, "{words:?}: {}", called.complaint());
            called
        };
        let called = good(&["run", &url, CHANGE, "--strategy", "shadow", "--yes"]);
        assert_eq!(called.ended.verdict(), "equal");
        let owner: Option<String> = pg::first_value(
            &account.db.url(),
            "SELECT tableowner::text FROM pg_tables WHERE tablename = 't'",
        )
        .unwrap();
        assert_eq!(owner.as_deref(), Some(account.owner.as_str()));
        for words in
            [&["list", &url][..], &["history", &url], &["history", &url, "t"], &["status", &url]]
        {
            good(words);
        }
        // a run that stops is shown, and removed by the same role
        account.root(&["INSERT INTO t VALUES (501, 501, 'w1x')"]);
        let narrow =
            ["run", &url, "ALTER TABLE t ALTER w TYPE varchar(3)", "--strategy", "shadow", "--yes"];
        assert_eq!(cli::call(&narrow).unwrap().code(), 1);
        good(&["status", &url, "t"]);
        good(&["abort", &url, "t"]);
        let left: Option<i64> = pg::first_value(&account.db.url(), LEFT).unwrap();
        assert_eq!(left, Some(0));
        // there, back, there again, and left standing
        let keep = ["run", &url, "ALTER TABLE t ALTER w TYPE varchar(99)", "--yes"];
        good(&[&keep[..], &["--strategy", "shadow", "--finish", "keep"]].concat());
        good(&["revert", &url, "t"]);
        good(&["resume", "--again", &url, "t"]);
        good(&["finish", &url, "t"]);
        good(&["leftovers", &url]);
        let left: Option<i64> = pg::first_value(&account.db.url(), LEFT).unwrap();
        assert_eq!(left, Some(0));
    }
}
