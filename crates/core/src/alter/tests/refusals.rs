//! What is refused before a server sees it, and whether the message helps.

use super::super::{Alter, Problem, Syntax};
use super::mysql;

fn refusal(sql: &str, syntax: Syntax) -> super::super::AlterError {
    match Alter::parse(sql, syntax) {
        Err(error) => error,
        Ok(alter) => panic!("accepted: {sql}\n{alter:?}"),
    }
}

#[test]
fn each_problem_is_named() {
    let my = Syntax::mysql();
    let pg = Syntax::postgres();
    for (sql, syntax, problem) in [
        ("", my, Problem::Empty),
        (" -- nothing\n;", my, Problem::Empty),
        ("ALTER TABLE t ADD a TEXT DEFAULT 'x", my, Problem::Unterminated),
        ("ALTER TABLE t ADD a TEXT DEFAULT \"x\\\"", my, Problem::Unterminated),
        ("ALTER TABLE t ADD `a INT", my, Problem::Unterminated),
        ("ALTER TABLE t ADD a INT /* x", my, Problem::Unterminated),
        ("ALTER TABLE t ADD a INT /*! x", my, Problem::Unterminated),
        ("ALTER TABLE t ADD a INT /*/", my, Problem::Unterminated),
        ("ALTER TABLE t ADD a int /* /* */", pg, Problem::Unterminated),
        ("ALTER TABLE t ADD a text DEFAULT $x$ $y$", pg, Problem::Unterminated),
        ("ALTER TABLE t ADD \"a int", pg, Problem::Unterminated),
        ("ALTER TABLE t ADD a text DEFAULT E'\\'", pg, Problem::Unterminated),
        ("ALTER TABLE t ADD U&\"a\" int", pg, Problem::Unreadable),
        ("ALTER TABLE t ADD a INT\0", my, Problem::Unreadable),
        ("ALTER TABLE t /*! ADD a INT /*!50100 NULL */ */", my, Problem::Unreadable),
        ("ALTER TABLE t WAIT x ADD a INT", my, Problem::Unreadable),
        ("ALTER TABLE t WAIT 5 NOWAIT ADD a INT", my, Problem::Unreadable),
        ("ALTER TABLE t WAIT 0.5 ADD a INT", my, Problem::Unreadable),
        ("ALTER TABLE t ADD a INT --PARTITION BY HASH(a)", my, Problem::Unreadable),
        ("ALTER TABLE t ADD a DECIMAL(10,2", my, Problem::Unbalanced),
        ("ALTER TABLE t ADD a INT), DROP b", my, Problem::Unbalanced),
        ("ALTER TABLE t ADD a int[ DEFAULT (1])", pg, Problem::Unbalanced),
        ("ALTER TABLE t ADD a INT; ALTER TABLE t DROP b", my, Problem::SeveralStatements),
        ("ALTER TABLE t ADD a INT; DROP TABLE t;", pg, Problem::SeveralStatements),
        ("ALTER TABLE", my, Problem::BadTableName),
        ("ALTER TABLE 't' ADD a INT", my, Problem::BadTableName),
        ("ALTER TABLE \"t\" ADD a INT", my, Problem::BadTableName),
        ("ALTER TABLE my-table ADD a INT", my, Problem::BadTableName),
        ("ALTER TABLE a.b.c ADD a INT", my, Problem::BadTableName),
        ("ALTER TABLE `` ADD a INT", my, Problem::BadTableName),
        ("ALTER TABLE .t ADD a INT", my, Problem::BadTableName),
        ("ALTER TABLE t", my, Problem::NoClause),
        ("ALTER TABLE t;", pg, Problem::NoClause),
        ("ALTER TABLE t NOWAIT", my, Problem::NoClause),
        ("ALTER TABLE t ADD a INT,", my, Problem::EmptyClause),
        ("ALTER TABLE t ADD a INT,, DROP b", my, Problem::EmptyClause),
        ("ALTER TABLE t ADD a INT, /*!99999 */", my, Problem::EmptyClause),
        ("ALTER TABLE t /*! ADD a INT, ADD b INT */", my, Problem::SplitComment),
        ("ALTER TABLE t /*!99999 ADD a INT, */ ADD b INT", my, Problem::SplitComment),
        ("ALTER TABLE t ADD a INT /*! , ADD b INT */", my, Problem::SplitComment),
        ("ALTER TABLE /*! t ADD a INT */", my, Problem::SplitComment),
        ("ALTER TABLE t ADD a INT /*! NULL PARTITION BY HASH(a) */", my, Problem::SplitComment),
        ("ALTER TABLE t RENAME COLUMN a b", my, Problem::UnclearRename),
        ("ALTER TABLE t RENAME COLUMN t.a TO b", my, Problem::UnclearRename),
        ("ALTER TABLE t RENAME COLUMN a TO b c", pg, Problem::UnclearRename),
        ("ALTER TABLE t RENAME TO", my, Problem::UnclearRename),
        ("ALTER TABLE t CHANGE a BIGINT", my, Problem::UnclearRename),
        ("ALTER TABLE t CHANGE 'a' b INT", my, Problem::UnclearRename),
        ("ALTER TABLE t CHANGE a /*!99999 x */ b INT", my, Problem::UnclearRename),
        ("CREATE TABLE t (a INT)", my, Problem::NotAlterTable),
        ("ALTER DATABASE d CHARACTER SET utf8mb4", my, Problem::NotAlterTable),
        ("ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b", pg, Problem::NotAlterTable),
        ("ALTER ONLINE TABLE t ADD a int", pg, Problem::NotAlterTable),
    ] {
        let error = refusal(sql, syntax);
        assert_eq!(error.problem, problem, "{sql}\n{error}");
        assert!(!error.help.is_empty() && error.at.offset <= sql.len(), "{sql}\n{error}");
    }
}

#[test]
fn a_message_says_what_where_and_what_instead() {
    let error = refusal("ALTER TABLE t\n  ADD ä INT,\n  ADD b TEXT DEFAULT 'x", Syntax::mysql());
    assert_eq!(
        error.to_string(),
        "a string that does not end at line 3, column 22, near \"'x\": \
         close it with ', or look for a quote too many before it",
    );
    let error = refusal("ALTER TABLE t ADD ä INT, ", Syntax::mysql());
    assert_eq!((error.at.line, error.at.column, error.near.as_str()), (1, 26, ""));
}

#[test]
fn other_statements_are_shown_as_the_alter_that_does_the_same() {
    for (sql, form) in [
        ("CREATE INDEX i ON t (a, b)", "ALTER TABLE t ADD INDEX i (a, b)"),
        (
            "create unique index `i` using btree on d.`t x` (a(5), (b+1)) comment 'c' algorithm=inplace lock none;",
            "ALTER TABLE d.`t x` ADD UNIQUE INDEX `i` using btree (a(5), (b+1)) comment 'c'",
        ),
        ("CREATE FULLTEXT INDEX f ON t(a)", "ALTER TABLE t ADD FULLTEXT INDEX f (a)"),
        ("CREATE OR REPLACE INDEX IF NOT EXISTS i ON t (a)", "ALTER TABLE t ADD INDEX i (a)"),
        ("DROP INDEX `i` ON d.t LOCK=NONE", "ALTER TABLE d.t DROP INDEX `i`"),
    ] {
        let error = refusal(sql, Syntax::mysql());
        assert_eq!(error.help, format!("write {form}"));
        // The advice must be something this program takes.
        mysql(form);
    }
    for (sql, syntax, word) in [
        ("OPTIMIZE TABLE t", Syntax::mysql(), "FORCE"),
        ("RENAME TABLE a TO b", Syntax::mysql(), "copies no rows"),
        ("ADD COLUMN a INT", Syntax::mysql(), "the whole statement"),
        ("DROP TABLE t", Syntax::mysql(), "only ALTER TABLE"),
        ("DROP INDEX", Syntax::mysql(), "whole statement"),
        ("CREATE INDEX i ON t", Syntax::mysql(), "only ALTER TABLE"),
        ("CREATE INDEX i ON t (a)", Syntax::postgres(), "CONCURRENTLY"),
        ("DROP INDEX i", Syntax::postgres(), "CONCURRENTLY"),
        ("VACUUM FULL t", Syntax::postgres(), "only ALTER TABLE"),
    ] {
        let error = refusal(sql, syntax);
        assert!(error.help.contains(word), "{sql}\n{error}");
    }
}
